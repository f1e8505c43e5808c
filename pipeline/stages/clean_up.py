"""The end: take away what was made and is not kept, and read back that it is gone (A06, A14)."""

from typing import Literal

from pipeline.aws import inventory
from pipeline.errors import AssayError
from pipeline.report.evidence import Layer, Result, Status
from pipeline.stages.context import Context

Kind = Literal["key-pair", "elastic-ip"]
GONE: dict[Kind, tuple[str, str]] = {
    "key-pair": ("A14", "no temporary key pair is left"),
    "elastic-ip": ("A06", "no elastic address is left"),
}
"""What must be gone at the end, whatever the cloud answered to its removal."""


def clean_up(context: Context) -> None:
    """Remove what was made and not kept; what cannot be removed is in the report, and in the exit status."""
    with context.recorder.stage("clean up"):
        leaks = context.journal.undo_all(context.recorder.progress)
        context.recorder.leak(*leaks)
        made = {entry.kind for entry in context.journal.entries} - {leak.kind for leak in leaks}
        context.recorder.add(*(prove_gone(context, kind) for kind in GONE if kind in made))


def prove_gone(context: Context, kind: Kind) -> Result:
    """Ask the cloud what it has of this build and kind, and return whether that is nothing."""
    control, title = GONE[kind]
    try:
        left = inventory.of_build(context.session, kind, context.build_id)
        status = Status.FAIL if left else Status.PASS
        detail = f"still there: {', '.join(left)}" if left else ""
    except AssayError as error:
        status, detail = Status.UNREACHABLE, str(error)
    return Result(
        controls=(control,), layer=Layer.AWS, status=status, title=title, source="stages/clean_up", detail=detail
    )
