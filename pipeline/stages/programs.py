"""Running steps on a guest: one program, one round trip, each result recorded as it comes."""

from collections.abc import Sequence

from pipeline.errors import StepFailed
from pipeline.guest.program import Outcome, StepResult, compile_program
from pipeline.guest.shell import Shell
from pipeline.guest.step import Step
from pipeline.report.evidence import Layer, Result, Status
from pipeline.stages.context import Context

STATUSES = {Outcome.OK: Status.PASS, Outcome.CHANGED: Status.PASS, Outcome.FAILED: Status.FAIL}


def run_steps(context: Context, shell: Shell, steps: Sequence[Step], layer: Layer, room: str) -> tuple[StepResult, ...]:
    """Run steps as one program and return what became of each.

    The program, secrets masked, is saved as `program-ROOM.sh`. Raises StepFailed for the first step that failed and is
    not optional; nothing ran after it.
    """
    program = compile_program(steps)
    context.recorder.save(f"program-{room}.sh", program.masked)
    results: list[StepResult] = []
    for result in shell.run_program(program):
        results.append(result)
        context.recorder.progress(result.step.title, len(results), len(steps))
        context.recorder.add(evidence_of(result, layer, room))
    failed = next((result for result in results if result.outcome is Outcome.FAILED and not result.step.optional), None)
    if failed:
        raise StepFailed(f"{room}/{failed.step.subject}: {failed.step.title}: {last_line(failed.output)}")
    return tuple(results)


def evidence_of(result: StepResult, layer: Layer, room: str) -> Result:
    """Return a step's result as evidence. An optional step that failed, or one that never ran, is not a pass."""
    failed = result.outcome is Outcome.FAILED
    excused = failed and result.step.optional
    detail = result.output if failed else ""
    return Result(
        controls=result.step.controls,
        layer=layer,
        status=Status.NOT_APPLICABLE if excused else STATUSES.get(result.outcome, Status.UNREACHABLE),
        title=result.step.title,
        source=f"{room}/{result.step.subject}",
        detail=detail or ("" if result.outcome in STATUSES else "an earlier step failed"),
        changed=result.outcome is Outcome.CHANGED,
        seconds=round(result.seconds, 3),
    )


def last_line(text: str) -> str:
    """Return the last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "it printed nothing")
