"""Stage 3: remove what must not ship: keys, histories, credentials, logs, identity. The session stays open."""

from dataclasses import dataclass

from pipeline.guest.root_shell import RootShell
from pipeline.report.evidence import Layer
from pipeline.scrub import scrub_steps
from pipeline.stages.context import Context
from pipeline.stages.guests import open_root_shells
from pipeline.stages.harden import Hardened
from pipeline.stages.launch import Launched
from pipeline.stages.programs import run_steps
from pipeline.stages.rewrite import settle_free_space


@dataclass(frozen=True)
class Scrubbed:
    """The build guest with nothing of the build on it but the open session."""

    launched: Launched
    root_shells: tuple[RootShell, ...]
    """Opened before the scrub, so that sudo writes nothing after it. The checks are asked in all of them at once."""


def scrub(context: Context, hardened: Hardened) -> Scrubbed:
    """Scrub the guest. From here on nobody can log in with the build's key. Raises StepFailed, GuestUnreachable."""
    launched = hardened.launched
    root_shells = open_root_shells(launched.guest.shell)
    spec = settle_free_space(context.spec, launched)
    run_steps(context, launched.guest.shell, scrub_steps(launched.facts, spec), Layer.SCRUBBED, "scrub")
    return Scrubbed(launched, root_shells)
