"""Part of stage 5: a new snapshot that holds only what is allocated takes the place of the sealed one (S22)."""

from collections.abc import Iterator

from pipeline.aws import images, snapshots
from pipeline.aws.blocks import GIB, SnapshotBlocks, write_snapshot
from pipeline.block_digest import require_readable
from pipeline.errors import AssayError, DiskNotRewritable
from pipeline.report.evidence import Layer, Result, Status
from pipeline.residue.blocks import Spool
from pipeline.residue.rewrite import Rewrite, count_remains, plan_rewrite, rewritten_blocks
from pipeline.scrub.free_space import Method, choose_method
from pipeline.spec import Spec
from pipeline.stages.context import Context
from pipeline.stages.launch import Launched


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


def is_rewritten(spec: Spec, launched: Launched) -> bool:
    """Say whether the image gets a rewritten snapshot."""
    return settle_free_space(spec, launched).scrub.free_space == "rewrite"


def rewrite_snapshot(context: Context, sealed_id: str, description: str) -> str:
    """Write a snapshot with zeros wherever nothing refers to the sealed one, delete that, and return the new one's id.

    Raises DiskNotRewritable when it is not certain what is free, CloudFailed when a block cannot be read or written.
    """
    session, name = context.session, context.name("rewritten")
    sealed = snapshots.describe_snapshot(session, sealed_id)
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
                kms_key_arn=sealed.kms_key_id or None,
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


def prove_free_space(spool: Spool) -> Result:
    """Return whether the snapshot that ships holds anything that nothing refers to, by its own file systems (S22)."""
    try:
        remains = count_remains(spool, plan_rewrite(spool))
        status, detail = (Status.FAIL, f"{remains} bytes are left") if remains else (Status.PASS, "")
    except AssayError as problem:
        status, detail = Status.UNREACHABLE, problem.message
    return Result(
        controls=("S22",),
        layer=Layer.RAW,
        status=status,
        title="free blocks, slack, removed names, the journal and gaps hold zeros",
        source="stages/rewrite",
        detail=detail,
    )


def result_of(plan: Rewrite) -> Result:
    """Return what the rewrite did, as evidence. That it left nothing is for the proof on raw blocks to say."""
    return Result(
        controls=("S22",),
        layer=Layer.SCRUBBED,
        status=Status.PASS,
        title="the snapshot holds only what is allocated",
        detail=f"{plan.free_bytes >> 20} MiB are free; {plan.names} removed names were still in folders",
        source="stages/rewrite",
        changed=True,
    )
