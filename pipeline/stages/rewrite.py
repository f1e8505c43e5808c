"""Part of stage 5: a new snapshot with zeros for all that is not allocated takes the place of the sealed one (S22)."""

from collections.abc import Iterator

from pipeline.aws import images, snapshots
from pipeline.aws.blocks import GIB, SnapshotBlocks, write_snapshot
from pipeline.block_digest import require_readable
from pipeline.errors import AssayError, DiskNotRewritable
from pipeline.report.evidence import Layer, Result, Status
from pipeline.residue.blocks import Spool
from pipeline.residue.dead import Range
from pipeline.residue.locate import Locator
from pipeline.residue.rewrite import (
    Rewrite,
    count_remains,
    find_remains,
    plan_overwrite,
    plan_rewrite,
    rewritten_blocks,
)
from pipeline.scrub.free_space import Method, choose_method
from pipeline.spec import Spec
from pipeline.stages.context import Context
from pipeline.stages.launch import Launched

PROVED: dict[Method, str] = {
    "rewrite": "free blocks, slack, removed names, the journal and gaps hold zeros",
    "in-place": "free blocks hold zeros, or names of removed folders, and nothing else",
    False: "nothing that was deleted is on the disk",
}
NAMED_PLACES = 10


def settle_free_space(spec: Spec, launched: Launched) -> Spec:
    """Return the spec with `scrub.free_space` decided for this guest, so that the scrub and the seal do the same.

    Raises DiskNotRewritable when a rewrite is asked for that would lose product codes: only CreateImage keeps them.
    """
    method: Method = choose_method(launched.facts, spec)
    if method == "rewrite" and images.must_inherit(launched.base):
        if spec.scrub.free_space == "rewrite":
            raise DiskNotRewritable("a rewritten snapshot loses the product codes", resource=launched.base.image_id)
        method = "in-place"
    return spec.model_copy(update={"scrub": spec.scrub.model_copy(update={"free_space": method})})


def method_of(spec: Spec, launched: Launched) -> Method:
    """Return how what was deleted leaves the image."""
    method = settle_free_space(spec, launched).scrub.free_space
    return "in-place" if method == "auto" else method


def is_rewritten(spec: Spec, launched: Launched) -> bool:
    """Say whether the image gets a rewritten snapshot."""
    return method_of(spec, launched) == "rewrite"


def rewrite_snapshot(context: Context, sealed_id: str, description: str) -> str:
    """Write a snapshot with zeros wherever nothing refers to the sealed one, delete that, and return the new one's id.

    It is the sealed one's child: only blocks that change are written, a few megabytes instead of the whole disk.
    Raises DiskNotRewritable when it is not certain what is free, CloudFailed when a block cannot be read or written.
    """
    session, name = context.session, context.name("rewritten")
    with Spool(SnapshotBlocks(session, sealed_id)) as spool:
        read_all(context, spool)
        plan = plan_rewrite(spool)
        snapshot_id = context.journal.create(
            "snapshot",
            name,
            context.region,
            make=lambda: write_snapshot(
                session,
                context.tags,
                name,
                spool.size_bytes // GIB,
                shown(context, rewritten_blocks(spool, plan)),
                description=description,
                parent_id=sealed_id,
            ),
            undo=lambda identity: snapshots.delete_snapshot(session, identity),
        )
    snapshots.wait_for_snapshot(session, snapshot_id, progress=context.recorder.progress)
    context.journal.undo(sealed_id)
    context.recorder.add(result_of(plan))
    return snapshot_id


def read_all(context: Context, spool: Spool) -> None:
    """Read every block once, many in flight; what follows reads them from the spool. Raises what a block raises."""
    wanted = list(spool.indices())
    for done, _ in enumerate(require_readable(spool.read_many(wanted)), 1):
        if done % 64 == 0:
            context.recorder.progress("reading blocks", done * spool.block_size, len(wanted) * spool.block_size)


def shown(context: Context, blocks: Iterator[tuple[int, bytes]]) -> Iterator[tuple[int, bytes]]:
    """Pass blocks on, and show how many there were."""
    for done, block in enumerate(blocks, 1):
        if done % 64 == 0:
            context.recorder.progress(f"writing blocks: {done}")
        yield block


def prove_free_space(spool: Spool, method: Method, locator: Locator | None = None) -> Result:
    """Return whether the snapshot that ships holds anything that was deleted, by its own file systems (S22).

    Of a rewritten one, whatever nothing refers to must be zeros; of one that was overwritten in place, free blocks but
    for names of removed folders. A `locator` of the same disk spares reading its file systems again.
    """
    status, detail = Status.PASS, ""
    try:
        if method == "rewrite":
            remains = count_remains(spool, plan_rewrite(spool, locator))
            status, detail = (Status.FAIL, f"{remains} bytes are left") if remains else (Status.PASS, "")
        elif method == "in-place":
            left = list(find_remains(spool, plan_overwrite(spool)))
            status, detail = (Status.FAIL, describe_remains(spool, left)) if left else (Status.PASS, "")
        else:
            status, detail = Status.NOT_APPLICABLE, "scrub.free_space is false: what was deleted stays on the disk"
    except AssayError as problem:
        status, detail = Status.UNREACHABLE, problem.message
    return Result(
        controls=("S22",),
        layer=Layer.RAW,
        status=status,
        title=PROVED[method],
        source="stages/rewrite",
        detail=detail,
    )


def describe_remains(spool: Spool, left: list[Range]) -> str:
    """Return how much was not overwritten, and the first places."""
    locator = Locator(spool)
    places = "; ".join(str(locator.place_of(start)) for start, _ in left[:NAMED_PLACES])
    size = sum(end - start for start, end in left)
    return f"{size} bytes of free blocks were not overwritten: {places}{', …' if len(left) > NAMED_PLACES else ''}"


def result_of(plan: Rewrite) -> Result:
    """Return what the rewrite did, as evidence. That it left nothing is for the proof on raw blocks to say."""
    return Result(
        controls=("S22",),
        layer=Layer.SCRUBBED,
        status=Status.PASS,
        title="the snapshot holds zeros for all that is not allocated",
        detail=f"{plan.free_bytes >> 20} MiB are free; {plan.names} removed names were still in folders",
        source="stages/rewrite",
        changed=True,
    )
