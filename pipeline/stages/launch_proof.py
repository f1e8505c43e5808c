"""Part of stage 1: what a launch proves of itself: the way in (H26, H28), and what the guest was given (A21, H22)."""

from collections.abc import Iterable

from pipeline.aws import instances
from pipeline.report.evidence import Layer, Result, Status
from pipeline.residue.engine import Searcher, scan
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.secrets import BuildSecret
from pipeline.stages.context import Context
from pipeline.stages.guests import Guest

SOURCE = "stages/launch_proof"


def prove_own_key(key_file: str | None) -> Result:
    """Return the result for the key that logged in (H26): one that others may read was refused before."""
    return Result(
        controls=("H26",),
        layer=Layer.LIVE,
        status=Status.PASS if key_file else Status.NOT_APPLICABLE,
        title="the operator's key file is private to them",
        source=SOURCE,
        detail="" if key_file else "ssh.key_file is not given: the key was made for this build, and lies in no file",
    )


def prove_host_key(guest: Guest) -> Result:
    """Return the result for the host key (H28): without one from the console, or with another, there is no session."""
    return Result(
        controls=("H28",),
        layer=Layer.HARDENED,
        status=Status.PASS if guest.host_keys else Status.FAIL,
        title="the session is under a host key that the guest's console printed",
        source=SOURCE,
    )


def prove_what_it_was_given(context: Context, guest: Guest, secrets: Iterable[BuildSecret]) -> tuple[Result, Result]:
    """Read back what the instance was given, and return the results: its user-data, and its role (A21, H22).

    `secrets` are those of the build that user-data could hold. Raises CloudFailed when the cloud does not say.
    """
    user_data = instances.read_user_data(context.session, guest.instance.instance_id)
    problems = [] if user_data == guest.user_data else ["the instance has other user-data than it was launched with"]
    problems += secrets_in(user_data, secrets)
    profile = guest.instance.instance_profile
    return (
        aws_result(("A21", "H22"), "the build's user-data holds no secret", problems),
        aws_result(("A21",), "the build instance has no role", [f"it has {profile}"] if profile else []),
    )


def secrets_in(text: str, secrets: Iterable[BuildSecret]) -> list[str]:
    """Return what is found in a text of the build's secrets and of what no image may hold; never the secret itself."""
    data = text.encode()
    if not data:
        return []
    searcher = Searcher((*secrets, *PATTERNS))
    return [f"{match.rule.kind}, {match.fingerprint}" for match in scan([(0, data)], searcher, len(data))]


def aws_result(controls: tuple[str, ...], title: str, problems: list[str]) -> Result:
    """Return a result that passes when there is no problem."""
    return Result(
        controls=controls,
        layer=Layer.AWS,
        status=Status.FAIL if problems else Status.PASS,
        title=title,
        source=SOURCE,
        detail="; ".join(problems),
    )
