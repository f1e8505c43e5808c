"""Who may launch an image and copy its snapshots: made exactly as declared, read back, the public strictly last."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.aws import images, launch_permissions, snapshots
from pipeline.aws.launch_permissions import LaunchPermissions
from pipeline.aws.session import Session
from pipeline.aws.wait import CLOCK, CONSISTENT_SECONDS, Clock, wait_until
from pipeline.errors import DeadlinePassed, ReleaseFailed
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Share


@dataclass(frozen=True)
class Sharing:
    """Who has what: launch permissions of the image, create-volume permissions of each snapshot."""

    launch: LaunchPermissions
    snapshots: dict[str, frozenset[str]]


def wanted_sharing(share: Share, snapshot_ids: tuple[str, ...]) -> Sharing:
    """Return what a spec declares. Snapshots go to accounts alone: they know no organisations (A09)."""
    return Sharing(
        LaunchPermissions(
            accounts=frozenset(share.accounts),
            organizations=frozenset(share.organizations),
            organizational_units=frozenset(share.organizational_units),
            public=share.public,
        ),
        {snapshot_id: frozenset(share.accounts) for snapshot_id in snapshot_ids},
    )


def not_shared(snapshot_ids: tuple[str, ...]) -> Sharing:
    """Return what a new copy has: it is private, whatever its source was."""
    return Sharing(LaunchPermissions(), dict.fromkeys(snapshot_ids, frozenset()))


def read_sharing(session: Session, image_id: str, snapshot_ids: tuple[str, ...]) -> Sharing:
    """Return who has what now. Raises CloudFailed."""
    return Sharing(
        launch_permissions.read_launch_permissions(session, image_id),
        {
            snapshot_id: frozenset(snapshots.read_snapshot_permissions(session, snapshot_id))
            for snapshot_id in snapshot_ids
        },
    )


def describe_changes(current: Sharing, wanted: Sharing) -> tuple[str, ...]:
    """Return a line for each permission that would be granted or revoked; empty when all is as declared."""
    lines = [f"revoke launch: {who}" for who in current.launch.without(wanted.launch).describe()]
    lines += [f"grant launch: {who}" for who in wanted.launch.without(current.launch).describe()]
    for snapshot_id, accounts in wanted.snapshots.items():
        held = current.snapshots.get(snapshot_id, frozenset())
        lines += [f"revoke {snapshot_id}: {who}" for who in sorted(held - accounts)]
        lines += [f"grant {snapshot_id}: {who}" for who in sorted(accounts - held)]
    return tuple(lines)


def share_image(session: Session, image_id: str, current: Sharing, wanted: Sharing, clock: Clock = CLOCK) -> Sharing:
    """Make the permissions exactly as wanted, from what they are now, and return them as they are read back.

    Revoked everywhere first, then granted: snapshots, the named, and the public last, in a call of its own. Raises
    CloudFailed and ReleaseFailed; `revoke_launch` and `revoke_snapshot` take back what was granted until then.
    """
    launch_permissions.take_back_launch(session, image_id, current.launch.without(wanted.launch))
    for snapshot_id, accounts in wanted.snapshots.items():
        held = current.snapshots.get(snapshot_id, frozenset())
        snapshots.change_snapshot_permissions(
            session, snapshot_id, add=sorted(accounts - held), remove=sorted(held - accounts)
        )
    launch_permissions.grant_launch(session, image_id, wanted.launch.without(current.launch))
    return require(session, image_id, wanted, clock)


def require(session: Session, image_id: str, wanted: Sharing, clock: Clock = CLOCK) -> Sharing:
    """Wait until the permissions are read back as wanted: that a call was accepted proves nothing.

    Raises ReleaseFailed when a difference stays.
    """
    try:
        return wait_until(
            lambda: read_sharing(session, image_id, tuple(wanted.snapshots)),
            lambda found: not describe_changes(found, wanted),
            what=image_id,
            region=session.region,
            deadline_seconds=CONSISTENT_SECONDS,
            state=lambda found: "; ".join(describe_changes(found, wanted)),
            sightings=1,
            clock=clock,
        )
    except DeadlinePassed as error:
        raise ReleaseFailed(
            f"the permissions are not as declared: {error.message}", resource=image_id, region=session.region
        ) from error


def revoke_launch(session: Session, image_id: str, before: Sharing) -> None:
    """Revoke whatever launch permission is granted now and was not before, the public first. Raises CloudFailed."""
    now = launch_permissions.read_launch_permissions(session, image_id)
    launch_permissions.take_back_launch(session, image_id, now.without(before.launch))


def revoke_snapshot(session: Session, snapshot_id: str, before: Sharing) -> None:
    """Revoke whatever permission for a snapshot is granted now and was not before. Raises CloudFailed."""
    now = frozenset(snapshots.read_snapshot_permissions(session, snapshot_id))
    granted = sorted(now - before.snapshots.get(snapshot_id, frozenset()))
    snapshots.change_snapshot_permissions(session, snapshot_id, remove=granted)


def permission_results(found: Sharing, wanted: Sharing) -> Iterator[Result]:
    """Return a result for the image's permissions (A10) and one for those of its snapshots (A09)."""
    differences = describe_changes(found, wanted)
    launch = [line for line in differences if " launch: " in line]
    others = [line for line in differences if " launch: " not in line]
    who = ", ".join(wanted.launch.describe()) or "nobody else"
    yield compare("A10", f"launch permission is exactly as declared: {who}", launch)
    yield compare("A09", "create-volume permissions are exactly as declared", others)


def product_code_result(session: Session, image_id: str, expected: tuple[str, ...]) -> Result:
    """Compare the product codes of the image's attribute with those that the spec expects (A11)."""
    found = images.read_product_codes(session, image_id)
    problem = [] if found == tuple(sorted(expected)) else [f"wanted {sorted(expected)}, found {list(found)}"]
    return compare("A11", "the product codes are those of the spec", problem)


def compare(control: str, title: str, problems: list[str]) -> Result:
    """Return a result that passes when there is no problem."""
    return Result(
        controls=(control,),
        layer=Layer.AWS,
        status=Status.FAIL if problems else Status.PASS,
        title=title,
        source="publish/sharing",
        detail="; ".join(problems),
    )
