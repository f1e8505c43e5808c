"""The recipe that shares a build's image again, after the spec's `share` changed or a release failed."""

from collections.abc import Iterator
from pathlib import Path

from pipeline.aws.session import Session
from pipeline.errors import ReleaseFailed
from pipeline.publish.sharing import (
    describe_changes,
    product_code_result,
    read_sharing,
    share_image,
    wanted_sharing,
)
from pipeline.report.evidence import Evidence, Image, Status
from pipeline.report.evidence_folder import read_report, reasons_unproved
from pipeline.spec import Spec


def share_build(session: Session, spec: Spec, folder: Path, *, dry_run: bool = False) -> Iterator[str]:
    """Share the image of a build exactly as the spec says, and yield a line for each permission that changes.

    Raises ReleaseFailed for an image that was not proved, SpecInvalid when there is no such build.
    """
    image = proved_image(read_report(folder))
    codes = product_code_result(session, image.image_id, spec.share.product_codes)
    if codes.status is not Status.PASS:
        raise ReleaseFailed(f"{codes.title}: {codes.detail}", resource=image.image_id, region=image.region)
    current = read_sharing(session, image.image_id, image.snapshot_ids)
    changes = describe_changes(current, wanted_sharing(spec.share, image.snapshot_ids))
    yield f"{image.image_id} {image.name} in {image.region}"
    yield from (f"  {'would ' if dry_run else ''}{line}" for line in changes or ("nothing to change",))
    if changes and not dry_run:
        share_image(session, image.image_id, image.snapshot_ids, spec.share)


def proved_image(evidence: Evidence) -> Image:
    """Return a build's image. Raises ReleaseFailed unless every layer was proved and nothing failed."""
    reasons = reasons_unproved(evidence)
    if reasons or evidence.image is None:
        raise ReleaseFailed(
            f"the build {evidence.build_id} is not proved: {'; '.join(reasons[:5])}",
            region=evidence.region,
            hint="build it again: nothing is shared that was not proved",
        )
    return evidence.image
