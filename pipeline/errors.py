"""Every way in which Assay gives up: one tree, an exit status for each kind, and a hint that says what to do next.

An error names the resource and the region that it is about, and never holds a secret. `tasks.py` prints it with
`describe()` and exits with its `exit_status`; nothing else turns an error into text.
"""

from typing import ClassVar


class AssayError(Exception):
    """The root of the tree: something went wrong that a user can act on."""

    exit_status: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(
        self, message: str, *, resource: str | None = None, region: str | None = None, hint: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.resource = resource
        self.region = region
        self.hint = hint or self.default_hint

    def __str__(self) -> str:
        about = " in ".join(part for part in (self.resource, self.region) if part)
        return f"{self.message} ({about})" if about else self.message

    def describe(self) -> str:
        """Return the error with its hint, as a user reads it on the terminal."""
        return f"{self}\n  what to do: {self.hint}" if self.hint else str(self)


class SpecInvalid(AssayError):
    """A spec, a lock file or an option is wrong; `problems` lists all that is wrong with it, one line each."""

    exit_status = 10
    default_hint = "mend every line above; `invoke plan` shows what a spec means"

    def __init__(self, message: str, problems: tuple[str, ...] = (), **about: str | None) -> None:
        super().__init__("\n".join((message, *(f"  {problem}" for problem in problems))), **about)
        self.problems = problems


class BaseImageRefused(AssayError):
    """The base image is missing, ambiguous, another owner's, or not the locked one (A01)."""

    exit_status = 11
    default_hint = "check base_image in the spec, and its lock file beside it"


class CredentialsRefused(AssayError):
    """There are no credentials, or the cloud does not accept them."""

    exit_status = 12
    default_hint = "run `aws sts get-caller-identity`, renew the credentials, and check the region"


class CloudFailed(AssayError):
    """A call to the cloud failed and repeating it would not help."""

    exit_status = 13


class CapacityMissing(CloudFailed):
    """The cloud has no capacity for the instance type in any zone that the spec allows."""

    exit_status = 14
    default_hint = "try again later, or name another instance type in the spec"


class DeadlinePassed(CloudFailed):
    """A resource did not reach the state that was waited for in time."""

    exit_status = 15


class PreflightFailed(AssayError):
    """Something would stop the build or its release; `problems` has all of it, a line each, and nothing was made."""

    exit_status = 16
    default_hint = "mend every line above; `invoke plan` asks again"

    def __init__(self, message: str, problems: tuple[str, ...] = (), **about: str | None) -> None:
        super().__init__("\n".join((message, *(f"  {problem}" for problem in problems))), **about)
        self.problems = problems


class SubscriptionMissing(CloudFailed):
    """The image is sold: nobody launches it who did not accept its terms in AWS Marketplace."""

    exit_status = 17
    default_hint = "subscribe to the product at the address in the message, then try again"


class GuestUnreachable(AssayError):
    """The guest does not answer: no ssh banner, a refused login, or a connection that broke."""

    exit_status = 20
    default_hint = "read the console log in the build's folder"


class HostKeyMismatch(GuestUnreachable):
    """The guest shows another host key than the one that is known of it (H28)."""

    exit_status = 21
    default_hint = "somebody may sit between you and the instance: do not connect by hand; build again"


class GuestFailed(AssayError):
    """The guest answers, but did not boot properly: cloud-init reports an error, or units failed."""

    exit_status = 22
    default_hint = "read the console log in the build's folder"


class StepFailed(AssayError):
    """A step of a guest program failed; the report has its output, and nothing ran after it."""

    exit_status = 30
    default_hint = "the report in the build's folder has the step's output"


class ChangesNeeded(AssayError):
    """A host is not as the spec says; nothing was changed, because nobody asked for it."""

    exit_status = 31
    default_hint = "read the list; `--yes` makes the changes"


class ProofFailed(AssayError):
    """A check failed, or could not be asked, at some layer: nothing is shared."""

    exit_status = 40
    default_hint = "the report in the build's folder lists each failed control"


class ResidueFound(ProofFailed):
    """Blocks of the sealed snapshot hold what must not ship: nothing is shared."""

    exit_status = 41


class BlockUnreadable(AssayError):
    """A block of an image could not be read, or its checksum is wrong: what it holds is not known."""

    exit_status = 42
    default_hint = "scan again; when the same range fails again, make a new snapshot"


class DiskNotRewritable(AssayError):
    """A disk holds what is not understood well enough to tell what is free on it: nothing is rewritten (S22)."""

    exit_status = 43
    default_hint = "set `scrub.free_space: in-place` in the spec"


class ReleaseFailed(AssayError):
    """Sharing failed; what was shared has been taken back."""

    exit_status = 50


class AttestationFailed(AssayError):
    """The statement about a proved image could not be signed; the image is kept, and shared as its spec says."""

    exit_status = 55
    default_hint = "`invoke attest.sign` signs it again; check attest in the spec, and the key"


class SignatureRefused(AssayError):
    """A statement is not signed by a key that is trusted: whatever it says is worth nothing."""

    exit_status = 56
    default_hint = "name the signer's public key with --key=FILE; if that is the one, somebody changed the statement"


class EvidenceChanged(AssayError):
    """A signed statement and the evidence beside it do not say the same; each difference is listed."""

    exit_status = 57
    default_hint = "the files were changed after they were signed: build again, or get the originals"

    def __init__(self, message: str, differences: tuple[str, ...] = (), **about: str | None) -> None:
        super().__init__("\n".join((message, *(f"  {difference}" for difference in differences))), **about)
        self.differences = differences


class ReleaseIncomplete(AssayError):
    """In some region the release is not as the spec declares it, or that region could not be asked."""

    exit_status = 51
    default_hint = "`invoke share` completes what is missing, and changes nothing that is right"


class RetireFailed(AssayError):
    """An older image could not be retired, or whether it is in use could not be asked: it stays."""

    exit_status = 52
    default_hint = "what went well stays done: `invoke retire` again goes on with the rest"


class MarketplaceRefused(AssayError):
    """AWS Marketplace would refuse the image, or has refused it; every reason is listed."""

    exit_status = 53
    default_hint = "mend what is listed and submit again: a change set that failed changed nothing"

    def __init__(self, message: str, problems: tuple[str, ...] = (), **about: str | None) -> None:
        super().__init__("\n".join((message, *(f"  {problem}" for problem in problems))), **about)
        self.problems = problems


class ResourcesLeaked(AssayError):
    """Some resources could not be removed; they are listed in the report and cost money until they are."""

    exit_status = 60
    default_hint = "run `invoke sweep`; if that fails too, remove the listed resources by hand"


class JournalDamaged(AssayError):
    """A journal has a line in its middle that cannot be read."""

    exit_status = 61
    default_hint = "what the build made is still found by its tags; move the journal away when nothing is left"


class JournalInUse(AssayError):
    """Another process writes this journal."""

    exit_status = 62
    default_hint = "a build or a sweep is at work: wait for its end"


class JournalFailed(AssayError):
    """The journal cannot be written: nothing more is made."""

    exit_status = 63
    default_hint = "make room on the disk of the builds' folder, and check that it can be written"


class AuditFailed(AssayError):
    """Something in the account or its network is not as it should be."""

    exit_status = 80
    default_hint = "every line that fails says what; `--json` gives the same to a program"


class AuditIncomplete(AssayError):
    """Nothing failed, but something could not be asked: that is not a pass."""

    exit_status = 81
    default_hint = "`invoke iam.policy --task=audit` prints the permissions that an audit needs"


class LocalCloudFailed(AssayError):
    """The embedded EC2 could not be started or did not answer."""

    exit_status = 70
    default_hint = "run `invoke cloud.status`, then read the log that it names"


class FileUnwritable(AssayError):
    """A report, a log or a lock cannot be written: what was seen would be lost."""

    exit_status = 71
    default_hint = "free some space, or mend the permissions, where that file is kept"


class Interrupted(AssayError):
    """Ctrl-C or SIGTERM: everything that was made has been removed, or is listed."""

    exit_status = 130
