"""Stage 8: keep what was proved, then share it exactly as the spec says; the public strictly last."""

from pipeline.aws.tags import mark_kept
from pipeline.errors import ReleaseFailed
from pipeline.publish.sharing import product_code_result, share_image
from pipeline.report.evidence import Status
from pipeline.stages.context import Context
from pipeline.stages.prove import Proved


def keep(context: Context, proved: Proved) -> Proved:
    """Commit: from here on the image and its snapshots stay, whatever happens to the release.

    The tags come first: a sweep that finds them leaves the image alone, even when the journal says nothing of it yet.
    """
    identities = (proved.image.image_id, *proved.image.snapshot_ids)
    mark_kept(context.session, identities)
    known = {entry.identity for entry in context.journal.entries}
    context.journal.keep(*(identity for identity in identities if identity in known))
    return proved


def release(context: Context, proved: Proved) -> Proved:
    """Check the product codes, then share. Raises ReleaseFailed when anything is not as declared: nothing is shared."""
    image, share = proved.image, context.spec.share
    codes = product_code_result(context.session, image.image_id, share.product_codes)
    context.recorder.add(codes)
    if codes.status is not Status.PASS:
        raise ReleaseFailed(
            f"the product codes are not those of the spec: {codes.detail}",
            resource=image.image_id,
            region=context.region,
            hint="codes come with the base image or from Marketplace, they cannot be set: check base_image and share",
        )
    context.recorder.add(*share_image(context.session, image.image_id, image.snapshot_ids, share))
    return proved
