"""Stage 8: keep what was proved, then release it exactly as the spec says; the public strictly last."""

from pipeline.aws.tags import mark_kept
from pipeline.publish import copies as publish
from pipeline.publish.release import Release, digests_of
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
    """Release the image in every region that the spec names. Raises ReleaseFailed: what was shared is taken back."""
    image = proved.image
    known = {**context.recorder.evidence().block_digests, image.snapshot_ids[0]: proved.blocks_digest}
    digests = digests_of(context.session, image.snapshot_ids, known) if context.spec.release.regions else ()
    Release(
        context.session,
        context.spec,
        publish.Proved(image, context.region, tuple(digests)),
        context.tags,
        context.journal,
        context.recorder.add,
        context.recorder.progress,
    ).perform()
    return proved
