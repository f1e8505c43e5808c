"""What a disk may hold by its spec: what the spec lets stay, and what hardening as it says writes."""

from pipeline.guest.facts import Facts
from pipeline.harden import harden_steps
from pipeline.harden.managed_file import written_files
from pipeline.residue.origin import Written, digest_of
from pipeline.residue.sift import Allowed
from pipeline.spec import Spec


def allowed_by(spec: Spec) -> Allowed:
    """Return what the spec lets stay on the blocks: the keys of its users, and what it waives with a reason."""
    return Allowed(
        waivers=spec.scrub.waivers,
        public_keys=tuple(key for user in spec.users for key in user.keys),
        kept_files=spec.scrub.keep_files,
        forbidden=spec.scrub.forbid,
    )


def written_by(facts: Facts, spec: Spec) -> Written:
    """Return every file that hardening a guest as a spec says writes as a whole, by its path and its content."""
    return frozenset((file.path, digest_of(file.content.encode())) for file in written_files(harden_steps(facts, spec)))
