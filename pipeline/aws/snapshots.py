"""Snapshots: made of a volume, waited for, shared with accounts, deleted."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.aws.creation import find_or_create
from pipeline.aws.session import Session, cloud_errors, error_code
from pipeline.aws.tags import NAME, Tags, is_resource_name, read_tags
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CloudFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        CreateVolumePermissionModificationsTypeDef,
        CreateVolumePermissionTypeDef,
        SnapshotTypeDef,
    )

MISSING = frozenset({"InvalidSnapshot.NotFound"})
IN_USE = frozenset({"InvalidSnapshot.InUse"})
SNAPSHOT_SECONDS = 3600.0
"""A first snapshot of a large volume copies all of it to S3; botocore's own waiter gives up after ten minutes."""
RELEASE_SECONDS = 120.0
"""A snapshot stays in use for a moment after its image was deregistered."""


@dataclass(frozen=True)
class Snapshot:
    """A snapshot as the cloud describes it."""

    snapshot_id: str
    volume_id: str
    owner_id: str
    state: str
    progress: str
    reason: str
    size_gib: int
    encrypted: bool
    tags: dict[str, str]

    @property
    def summary(self) -> str:
        """The state as progress shows it: `pending 42%`."""
        return f"{self.state} {self.progress}".strip()


def create_snapshot(session: Session, tags: Tags, name: str, volume_id: str, description: str = "") -> str:
    """Start a snapshot of a volume and return its id; `wait_for_snapshot` waits for it.

    CreateSnapshot takes no client token: botocore must not repeat it, and a lost answer is looked up by tag.
    """

    def create() -> str:
        with cloud_errors(name, session.region):
            made = session.client("ec2", once=True).create_snapshot(
                VolumeId=volume_id, Description=description, TagSpecifications=tags.specification(name, "snapshot")
            )
        return made["SnapshotId"]

    return find_or_create(lambda: snapshot_ids(session, name), create, what=name, region=session.region)


def find_snapshots(session: Session, name: str) -> tuple[Snapshot, ...]:
    """Return the snapshots of this account that bear a name of a build: none, one, or, after mishaps, many."""
    with cloud_errors(name, session.region):
        pages = (
            session.client("ec2")
            .get_paginator("describe_snapshots")
            .paginate(OwnerIds=["self"], Filters=[{"Name": f"tag:{NAME}", "Values": [name]}])
        )
        return tuple(read_snapshot(found) for page in pages for found in page["Snapshots"])


def snapshot_ids(session: Session, name: str) -> list[str]:
    """Return the ids of the snapshots that bear a name of a build."""
    return [snapshot.snapshot_id for snapshot in find_snapshots(session, name)]


def describe_snapshot(session: Session, snapshot_id: str) -> Snapshot:
    """Return a snapshot. Raises CloudFailed when there is none."""
    with cloud_errors(snapshot_id, session.region):
        (found,) = session.client("ec2").describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    return read_snapshot(found)


def read_snapshot(found: "SnapshotTypeDef") -> Snapshot:
    """Return a snapshot from the API's form of it."""
    return Snapshot(
        snapshot_id=found["SnapshotId"],
        volume_id=found.get("VolumeId", ""),
        owner_id=found.get("OwnerId", ""),
        state=found.get("State", ""),
        progress=found.get("Progress", ""),
        reason=found.get("StateMessage", ""),
        size_gib=found.get("VolumeSize", 0),
        encrypted=found.get("Encrypted", False),
        tags=read_tags(found.get("Tags")),
    )


def wait_for_snapshot(
    session: Session,
    snapshot_id: str,
    *,
    deadline_seconds: float = SNAPSHOT_SECONDS,
    progress: Callable[[str], None] | None = None,
    clock: Clock = CLOCK,
) -> Snapshot:
    """Wait until a snapshot is complete. Raises CloudFailed with the cloud's reason, or DeadlinePassed."""
    return wait_until(
        lambda: describe_snapshot(session, snapshot_id),
        lambda snapshot: snapshot.state == "completed",
        what=snapshot_id,
        region=session.region,
        deadline_seconds=deadline_seconds,
        progress=progress,
        state=lambda snapshot: snapshot.summary,
        failed=lambda snapshot: snapshot.reason or snapshot.state if snapshot.state == "error" else None,
        missing_codes=MISSING,
        clock=clock,
    )


def read_snapshot_permissions(session: Session, snapshot_id: str) -> tuple[str, ...]:
    """Return who may make volumes of a snapshot: account ids in order, and `all` when it is public (A09)."""
    with cloud_errors(snapshot_id, session.region):
        found = session.client("ec2").describe_snapshot_attribute(
            SnapshotId=snapshot_id, Attribute="createVolumePermission"
        )
    grants = found["CreateVolumePermissions"]
    return tuple(sorted(grant.get("UserId") or grant.get("Group") or "" for grant in grants))


def change_snapshot_permissions(
    session: Session, snapshot_id: str, add: Iterable[str] = (), remove: Iterable[str] = ()
) -> None:
    """Grant and take back; each is an account id, or `all`. The caller reads back: an accepted call proves nothing."""
    changes: CreateVolumePermissionModificationsTypeDef = {}
    if added := [permission(who) for who in add]:
        changes["Add"] = added
    if removed := [permission(who) for who in remove]:
        changes["Remove"] = removed
    if not changes:
        return
    with cloud_errors(snapshot_id, session.region):
        session.client("ec2").modify_snapshot_attribute(
            SnapshotId=snapshot_id, Attribute="createVolumePermission", CreateVolumePermission=changes
        )


def permission(who: str) -> "CreateVolumePermissionTypeDef":
    """Return a grant in the form of the API."""
    return {"Group": "all"} if who == "all" else {"UserId": who}


def delete_snapshot(session: Session, identity: str, *, clock: Clock = CLOCK) -> None:
    """Delete a snapshot by id, or all that bear a name of a build; what is gone is as good.

    Waits while its image is still being deregistered. Raises CloudFailed.
    """
    for snapshot_id in snapshot_ids(session, identity) if is_resource_name(identity) else [identity]:
        delete_when_free(session, snapshot_id, clock)


def delete_when_free(session: Session, snapshot_id: str, clock: Clock) -> None:
    """Delete one snapshot as soon as no image uses it."""
    wait_until(
        lambda: try_to_delete(session, snapshot_id),
        bool,
        what=snapshot_id,
        region=session.region,
        deadline_seconds=RELEASE_SECONDS,
        missing_codes=IN_USE,
        sightings=1,
        clock=clock,
    )


def try_to_delete(session: Session, snapshot_id: str) -> bool:
    """Delete a snapshot, and return True when it is gone. Raises CloudFailed, also when it is in use."""
    try:
        with cloud_errors(snapshot_id, session.region):
            session.client("ec2").delete_snapshot(SnapshotId=snapshot_id)
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
    return True
