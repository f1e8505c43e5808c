"""Who may launch an image and copy its snapshots: made exactly as declared, read back, the public strictly last."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from pipeline.aws import images, launch_permissions, snapshots
from pipeline.aws.launch_permissions import LaunchPermissions
from pipeline.aws.session import Session
from pipeline.errors import AssayError, ReleaseFailed
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


def share_image(session: Session, image_id: str, snapshot_ids: tuple[str, ...], share: Share) -> tuple[Result, ...]:
    """Make the permissions exactly as declared and return what was read back (A09, A10).

    Revocations come first, then snapshots, then named accounts and organisations, and the public last, after all else
    was read back. Raises ReleaseFailed after everything that was granted has been taken back again.
    """
    wanted = wanted_sharing(share, snapshot_ids)
    before = read_sharing(session, image_id, snapshot_ids)
    named = Sharing(replace(wanted.launch, public=wanted.launch.public and before.launch.public), wanted.snapshots)
    try:
        apply(session, image_id, before, named)
        found = require(session, image_id, named)
        if wanted.launch.public and not before.launch.public:
            launch_permissions.grant_launch(session, image_id, LaunchPermissions(public=True))
            found = require(session, image_id, wanted)
    except BaseException as error:
        take_back(session, image_id, snapshot_ids, before, error)
        raise
    return tuple(permission_results(found, wanted))


def apply(session: Session, image_id: str, current: Sharing, wanted: Sharing) -> None:
    """Revoke what is too much everywhere, then grant what is missing: snapshots first, the image after them."""
    launch_permissions.take_back_launch(session, image_id, current.launch.without(wanted.launch))
    for snapshot_id, accounts in wanted.snapshots.items():
        held = current.snapshots.get(snapshot_id, frozenset())
        snapshots.change_snapshot_permissions(
            session, snapshot_id, add=sorted(accounts - held), remove=sorted(held - accounts)
        )
    launch_permissions.grant_launch(session, image_id, wanted.launch.without(current.launch))


def require(session: Session, image_id: str, wanted: Sharing) -> Sharing:
    """Return the permissions as they are read back: that a call was accepted proves nothing.

    Raises ReleaseFailed on any difference.
    """
    found = read_sharing(session, image_id, tuple(wanted.snapshots))
    if differences := describe_changes(found, wanted):
        raise ReleaseFailed(
            f"the permissions are not as declared; missing: {'; '.join(differences)}",
            resource=image_id,
            region=session.region,
        )
    return found


def take_back(
    session: Session, image_id: str, snapshot_ids: tuple[str, ...], before: Sharing, cause: BaseException
) -> None:
    """Take back what a failed sharing granted; what it revoked stays revoked. Raises ReleaseFailed in any case."""
    try:
        revoke_granted(session, image_id, snapshot_ids, before)
    except AssayError as error:
        raise ReleaseFailed(
            f"sharing failed, and not everything could be taken back: {cause}; then: {error}",
            resource=image_id,
            region=session.region,
            hint="look at the permissions of the image and its snapshots now, and revoke by hand",
        ) from cause
    if isinstance(cause, AssayError):
        raise ReleaseFailed(
            f"sharing failed and was taken back: {cause}", resource=image_id, region=session.region, hint=cause.hint
        ) from cause


def revoke_granted(session: Session, image_id: str, snapshot_ids: tuple[str, ...], before: Sharing) -> None:
    """Revoke whatever is granted now and was not before, the public first. Raises CloudFailed."""
    now = read_sharing(session, image_id, snapshot_ids)
    launch_permissions.take_back_launch(session, image_id, now.launch.without(before.launch))
    for snapshot_id, accounts in now.snapshots.items():
        granted = sorted(accounts - before.snapshots.get(snapshot_id, frozenset()))
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
