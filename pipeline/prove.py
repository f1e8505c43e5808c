"""The recipe for an image that exists already, ours or anybody's: read its blocks, boot it, take everything away."""

from pathlib import Path

from pipeline.aws import images
from pipeline.aws.session import Session
from pipeline.build import conclude, open_context
from pipeline.report import evidence
from pipeline.report.console import Console
from pipeline.report.evidence import Evidence
from pipeline.spec import Spec
from pipeline.stages.boots import prove_boot
from pipeline.stages.context import Context
from pipeline.stages.guests import open_door
from pipeline.stages.prove import prove_foreign_blocks


def run_proof(context: Context, image_id: str) -> None:
    """Prove one image: its raw blocks first, while nothing of it has run, then a fresh boot of it."""
    stage = context.recorder.stage
    with stage("find image"):
        image = images.describe_image(context.session, image_id)
        context.recorder.set_image(
            evidence.Image(
                image_id=image.image_id, name=image.name, region=context.region, snapshot_ids=image.snapshot_ids
            )
        )
    with stage("prove raw"):
        prove_foreign_blocks(context, image)
    with stage("prove fresh boot"):
        prove_boot(context, image, open_door(context), None)


def prove_image(
    image_id: str, spec: Spec, *, spec_path: Path, session: Session, builds: Path, console: Console
) -> Evidence:
    """Prove an image against a spec and return the evidence. Nothing that was launched for it stays.

    Raises nothing of the error tree: errors are in the evidence, with their exit status.
    """
    context = open_context(spec, spec_path, session, builds, console)
    return conclude(context, console, lambda: run_proof(context, image_id))
