"""The recipe that releases a build's image again, after the spec's `share` or `release` changed or a release failed."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from pipeline.aws import change_sets, images
from pipeline.aws.session import Session
from pipeline.aws.tags import LIFETIME, NAME, Tags
from pipeline.errors import ReleaseFailed
from pipeline.interruption import interruptible
from pipeline.journal import Journal
from pipeline.preflight import look_at_regions, require_ready
from pipeline.publish import copies, marketplace
from pipeline.publish.copies import Proved
from pipeline.publish.release import Release, digests_of
from pipeline.publish.sharing import describe_changes, product_code_result, read_sharing, wanted_sharing
from pipeline.publish.status import RegionStatus, release_status
from pipeline.report.evidence import Evidence, Image, Result, Status
from pipeline.report.evidence_folder import read_report, reasons_unproved
from pipeline.spec import Spec


def share_build(session: Session, spec: Spec, folder: Path, *, dry_run: bool = False) -> Iterator[str]:
    """Release the image of a build exactly as the spec says, and yield a line for each thing that changes or is proved.

    What is right already stays as it is. Raises ReleaseFailed for an image that was not proved, PreflightFailed when a
    region would refuse it, SpecInvalid when there is no such build.
    """
    evidence = read_report(folder)
    image = proved_image(evidence)
    codes = product_code_result(session, image.image_id, spec.share.product_codes)
    if codes.status is not Status.PASS:
        raise ReleaseFailed(f"{codes.title}: {codes.detail}", resource=image.image_id, region=image.region)
    unknown = require_ready(look_at_regions(session, spec, image.name))
    current = read_sharing(session, image.image_id, image.snapshot_ids)
    changes = describe_changes(current, wanted_sharing(spec.share, image.snapshot_ids))
    yield f"{image.image_id} {image.name} in {image.region}"
    yield from (f"  not known: {line}" for line in unknown)
    yield from (f"  {'would ' if dry_run else ''}{line}" for line in changes)
    if not changes:
        yield f"  nothing to change in {image.region}"
    further = spec.release.goes_further
    if dry_run and further:
        yield from (f"  {one.describe()}" for one in release_status(session, spec, image.image_id))
    if not dry_run and (changes or further):
        for result in release_build(session, spec, folder, evidence):
            yield f"  {result.status} {' '.join(result.controls)} {result.title}"


def release_build(session: Session, spec: Spec, folder: Path, evidence: Evidence) -> list[Result]:
    """Release the image of a proved build, and return what was read back. Raises ReleaseFailed.

    The build's journal goes on: what a broken release leaves is found there. Copies that are not kept are removed.
    """
    image = images.describe_image(session, proved_image(evidence).image_id)
    ends = datetime.now(UTC) + LIFETIME
    tags = Tags(evidence.build_id, evidence.spec_digest, session.caller_arn, ends, spec.image.own_tags)
    digests = digests_of(session, image.snapshot_ids, evidence.block_digests) if spec.release.regions else ()
    results: list[Result] = []

    def record(*found: Result) -> None:
        results.extend(found)

    with Journal(folder / "journal.jsonl", evidence.build_id, session.cloud) as journal, interruptible():
        try:
            Release(
                session, spec, Proved(image, session.region, tuple(digests)), tags, journal, record, lambda _: None
            ).perform()
        except BaseException as cause:
            if leaks := journal.undo_all():
                left = "; ".join(f"{one.kind} {one.identity} in {one.region}: {one.reason}" for one in leaks)
                hint = "`invoke sweep` tries again"
                raise ReleaseFailed(f"{cause}\n  not removed: {left}", region=session.region, hint=hint) from cause
            raise
    return results


def submit_build(session: Session, spec: Spec, folder: Path, *, dry_run: bool = False) -> Iterator[str]:
    """Add the image of a proved build to its product of AWS Marketplace, and yield a line for each thing that is seen.

    Raises ReleaseFailed for an image that was not proved or has other product codes, MarketplaceRefused, SpecInvalid.
    """
    marketplace.require_marketplace(spec)
    evidence = read_report(folder)
    home = images.describe_image(session, proved_image(evidence).image_id)
    there = session.in_region(change_sets.REGION)
    image = home if there is session else copies.find_copy(there, home.tags.get(NAME, home.name))
    if image is None:
        raise ReleaseFailed(
            "there is no copy in the region that the Marketplace takes images from",
            resource=home.image_id,
            region=there.region,
            hint="`invoke share` makes it, where release.regions names the region",
        )
    conditions = marketplace.require_conditions(spec, image, session.account_id, there.region)
    codes = product_code_result(there, image.image_id, spec.share.product_codes)
    if codes.status is not Status.PASS:
        raise ReleaseFailed(f"{codes.title}: {codes.detail}", resource=image.image_id, region=there.region)
    yield from (f"{one.status} {' '.join(one.controls)} {one.title}" for one in (*conditions, codes))
    if dry_run:
        yield f"would add {image.image_id} to {marketplace.require_marketplace(spec).product_id}"
        return
    seen: list[str] = []
    added = marketplace.submit_version(there, spec, image, evidence.build_id, seen.append)
    yield from seen
    yield f"{added.status} {' '.join(added.controls)} {added.title}"


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


def status_of_build(session: Session, spec: Spec, folder: Path) -> tuple[RegionStatus, ...]:
    """Return how each region stands beside what the spec declares of a build. Raises SpecInvalid, CloudFailed."""
    image = read_report(folder).image
    if image is None:
        raise ReleaseFailed("the build made no image", resource=str(folder), hint="build it first")
    return release_status(session, spec, image.image_id)
