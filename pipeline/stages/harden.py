"""Stage 2: apply the hardening subjects to the build guest, in one program."""

from dataclasses import dataclass

from pipeline.harden import harden_steps
from pipeline.report.evidence import Layer
from pipeline.stages.context import Context
from pipeline.stages.launch import Launched
from pipeline.stages.programs import run_steps


@dataclass(frozen=True)
class Hardened:
    """The build guest after hardening."""

    launched: Launched
    changed: int
    """How many steps changed something."""


def harden(context: Context, launched: Launched) -> Hardened:
    """Apply every subject that the spec asks for. Raises StepFailed, GuestUnreachable."""
    steps = harden_steps(launched.facts, context.spec)
    results = run_steps(context, launched.guest.shell, steps, Layer.HARDENED, "harden")
    return Hardened(launched, sum(result.outcome == "changed" for result in results))
