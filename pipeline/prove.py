"""The recipe for an image that exists already, ours or anybody's: read its blocks, boot it, take all of it away."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from pipeline.aws import images
from pipeline.aws.session import Session
from pipeline.build import conclude, open_context
from pipeline.report import evidence
from pipeline.report.console import Console
from pipeline.report.evidence import Evidence
from pipeline.spec import Spec
from pipeline.stages.attributes import prove_attributes
from pipeline.stages.boots import prove_boot
from pipeline.stages.context import Context
from pipeline.stages.prove import prove_foreign_blocks


def run_proof(context: Context, image_id: str) -> None:
    """Prove one image: what it says of itself, then its raw blocks and its boots, both at once, to both their ends."""
    stage = context.recorder.stage
    with stage("find image"):
        image = images.describe_image(context.session, image_id)
        context.recorder.set_image(
            evidence.Image(
                image_id=image.image_id, name=image.name, region=context.region, snapshot_ids=image.snapshot_ids
            )
        )
        context.recorder.add(*prove_attributes(image, context.spec))
    with stage("prove raw and fresh boot"), ThreadPoolExecutor(1, "prove-raw") as pool:
        raw = pool.submit(prove_foreign_blocks, context, image)
        prove_boot(context, image, None, None)
        raw.result()


def without_way_out(spec: Spec) -> Spec:
    """Return the spec with a network that lets nothing out, unless it names `network.egress` itself (A03, V07).

    The image may be anybody's: what it wants to send stays inside. Session Manager's agent calls out to be reached.
    """
    network = spec.network
    if "egress" in network.model_fields_set or network.security_group_ids or network.connect == "session-manager":
        return spec
    return spec.model_copy(update={"network": network.model_copy(update={"egress": ()})})


def prove_image(
    image_id: str, spec: Spec, *, spec_path: Path, session: Session, builds: Path, console: Console
) -> Evidence:
    """Prove an image against a spec and return the evidence. Nothing that was launched for it stays.

    Raises nothing of the error tree: errors are in the evidence, with their exit status.
    """
    context = open_context(spec, spec_path, session, builds, console)
    context = replace(context, spec=without_way_out(spec))
    return conclude(context, console, lambda: run_proof(context, image_id))
