"""Stages 4, 6 and 7: prove the image live, on its raw blocks, and (boots.py) as a consumer would launch it."""

from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

from pipeline.aws import snapshots
from pipeline.aws.blocks import SnapshotBlocks
from pipeline.aws.images import Image
from pipeline.aws.session import Session
from pipeline.errors import AssayError, ProofFailed, ResidueFound
from pipeline.harden.assumed_guest import assume_facts
from pipeline.report.catalogue import controls_at
from pipeline.report.evidence import Finding, Layer, Result, Status
from pipeline.residue.back_doors import prove_back_doors
from pipeline.residue.blocks import Spool
from pipeline.residue.locate import Locator
from pipeline.residue.origin import Written
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import prove_raw as search_blocks
from pipeline.residue.secrets import AwsSession, BuildSecret, build_secrets
from pipeline.scrub.free_space import Method
from pipeline.spec.public_keys import fingerprint
from pipeline.stages.boots import prove_boot
from pipeline.stages.context import Context
from pipeline.stages.expected import allowed_by, written_by
from pipeline.stages.launch import Launched, facts_of_build
from pipeline.stages.rewrite import method_of, prove_free_space
from pipeline.stages.sbom import write_sbom
from pipeline.stages.scrub import Scrubbed
from pipeline.stages.seal import Sealed
from pipeline.verify.live import Checks
from pipeline.verify.waivers import waive


@dataclass(frozen=True)
class Proved:
    """An image whose every proof passed."""

    image: Image
    blocks_digest: str
    """SHA-256 over the blocks of the root snapshot that were searched."""


def prove_live(context: Context, checks: Checks, scrubbed: Scrubbed) -> Scrubbed:
    """Run the checks of layer L over the session that is still open: no key is left to open another one.

    Raises ProofFailed: a guest that is not as it should be is not sealed.
    """
    facts = facts_of_build(scrubbed.launched)
    results = checks.prove(scrubbed.root_shells, facts, progress=context.check_progress)
    results = waive(results, context.spec.waivers)
    context.recorder.add(*results)
    write_sbom(context, scrubbed.root_shells[0].run)
    for root_shell in scrubbed.root_shells:
        root_shell.close()
    require_pass(results, (), "the guest, before it is sealed")
    return scrubbed


def prove_sealed(context: Context, sealed: Sealed) -> Proved:
    """Search the snapshot's blocks, and boot the image, both at once. Raises ResidueFound or ProofFailed."""
    with ThreadPoolExecutor(1, "prove-raw") as pool:
        raw = pool.submit(prove_raw, context, sealed)
        prove_boot(context, sealed.image, sealed.launched.door, sealed.launched)
        digest = raw.result()
    evidence = context.recorder.evidence()
    require_pass(evidence.results, evidence.findings, sealed.image.image_id)
    return Proved(sealed.image, digest)


def prove_raw(context: Context, sealed: Sealed) -> str:
    """Search every written block of the root snapshot for what this build used, and for every pattern (R03)."""
    with context.recorder.stage("raw"):
        method = method_of(context.spec, sealed.launched)
        secrets = secrets_of_build(context.session, sealed.launched)
        written = written_by(sealed.launched.facts, context.spec)
        base_id = sealed.launched.fresh_snapshot_id
        return search_snapshot(context, sealed.root_snapshot_id, written, secrets, method, base_id)


def prove_foreign_blocks(context: Context, image: Image) -> None:
    """Search every snapshot of an image of somebody else for what no image may hold, and record what is found.

    A snapshot that cannot be read makes the layer unreachable; the others are searched before that error is raised.
    """
    problems: list[AssayError] = []
    written = written_by(assume_facts(context.spec), context.spec)
    with context.recorder.stage("raw"):
        for snapshot_id in image.snapshot_ids:
            try:
                with context.recorder.stage(snapshot_id):
                    search_snapshot(context, snapshot_id, written)
            except AssayError as problem:
                problems.append(problem)
                context.recorder.add(blocks_unreachable(snapshot_id, str(problem)))
        if not image.snapshot_ids:
            context.recorder.add(blocks_unreachable(image.image_id, "the image has no snapshot"))
        if problems:
            raise problems[0]


def blocks_unreachable(what: str, reason: str) -> Result:
    """Return the result for blocks that nobody could read: of the whole layer, nothing is known."""
    return Result(
        controls=controls_at(Layer.RAW),
        layer=Layer.RAW,
        status=Status.UNREACHABLE,
        title=f"every block of {what} can be read",
        source="stages/prove",
        detail=reason,
    )


def search_snapshot(
    context: Context,
    snapshot_id: str,
    written: Written,
    secrets: tuple[BuildSecret, ...] = (),
    method: Method | None = None,
    base_id: str = "",
) -> str:
    """Search a snapshot for secrets, every pattern and back doors, record what is found, return the blocks' digest.

    `written` is what the build itself wrote, `method` how it cleaned free space, which is proved too. With `base_id`,
    the snapshot of the volume before the build changed it, every difference must be explained.
    """
    with ExitStack() as spools:
        spool = spools.enter_context(Spool(SnapshotBlocks(context.session, snapshot_id)))
        locator = Locator(spool)
        results, findings, digest = search_blocks(
            spool,
            secrets,
            PATTERNS,
            progress=context.recorder.progress,
            allowed=allowed_by(context.spec),
            locator=locator,
        )
        context.recorder.progress("holding files against their packages")
        base = open_base(context, base_id, spools) if base_id else None
        more_results, more_findings = prove_back_doors(locator, allowed_by(context.spec), written, base)
        context.recorder.add(*results, *more_results)
        if method is not None:
            context.recorder.add(prove_free_space(spool, method, locator))
    context.recorder.find(*findings, *more_findings)
    context.recorder.pin(snapshot_id, digest)
    return digest


def open_base(context: Context, base_id: str, spools: ExitStack) -> Locator:
    """Return the disk as it was before the build, once its snapshot is complete."""
    snapshots.wait_for_snapshot(context.session, base_id, progress=context.recorder.progress)
    return Locator(spools.enter_context(Spool(SnapshotBlocks(context.session, base_id))))


def require_pass(results: tuple[Result, ...], findings: tuple[Finding, ...], what: str) -> None:
    """Raise ResidueFound or ProofFailed unless everything passed. `unreachable` is not a pass."""
    bad = [result for result in results if result.status.is_failure]
    controls = sorted({control for result in bad for control in result.controls})
    if findings:
        raise ResidueFound(f"{len(findings)} findings on the blocks", resource=what)
    if bad:
        raise ProofFailed(f"{len(bad)} results are not a pass: {', '.join(controls)}", resource=what)


def secrets_of_build(session: Session, launched: Launched) -> tuple[BuildSecret, ...]:
    """Return everything that this build used and no block may hold (R03)."""
    guest = launched.guest
    credentials = session.credentials
    return build_secrets(
        public_keys={"the build's key": guest.key_pair.public_openssh},
        private_keys=guest.key_pair.private_half("the build's key"),
        host_public_keys=guest.host_keys,
        host_key_fingerprints=[fingerprint(line) for line in guest.host_keys],
        user_data=guest.user_data,
        aws_sessions=[AwsSession(*credentials)] if credentials else [],
    )
