"""Volumes and snapshots over the disks: who may use them, what stays pending, what is refused.

Volumes are moto's records, each with a disk of the DiskStore; snapshots are ours. Behaviour is that of the EC2 API
Reference and the EBS User Guide.
"""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

import datetime
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.models.elastic_block_store import Volume, VolumeAttachment
from moto.ec2.utils import random_snapshot_id

from pipeline.localcloud.backend import LocalHandlers, RegionBackend
from pipeline.localcloud.listing import passes, take_page
from pipeline.localcloud.permissions import Changes, permission_changes
from pipeline.localcloud.refusals import Refused, not_found, required

NOT_PUBLIC = "Public sharing of snapshots is blocked by the account's block public access setting in this Region."
VOLUME_TYPES = {"standard", "gp2", "gp3", "io1", "io2", "st1", "sc1"}


@dataclass
class Snapshot:
    """A snapshot as its owner knows it. `lineage` is what two snapshots share that can be compared block by block."""

    id: str
    owner_id: str
    volume_id: str
    volume_size: int
    lineage: str
    description: str = ""
    status: str = "pending"
    encrypted: bool = False
    kms_key_id: str | None = None
    product_codes: list[str] = field(default_factory=list)
    users: set[str] = field(default_factory=set)
    groups: set[str] = field(default_factory=set)
    start_time: datetime.datetime = field(default_factory=utcnow)


class LocalVolume(Volume):
    """moto's volume, with what it leaves out. `lineage` is as a snapshot's."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.product_codes: list[str] = []
        self.lineage: str = self.id


def describe_snapshot(snapshot: Snapshot, tags: dict[str, str]) -> dict[str, Any]:
    """Return what DescribeSnapshots answers; `tags` are the viewer's."""
    return {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.owner_id,
        "VolumeId": snapshot.volume_id,
        "VolumeSize": snapshot.volume_size,
        "Description": snapshot.description,
        "State": snapshot.status,
        "Progress": "100%" if snapshot.status == "completed" else "0%",
        "StartTime": snapshot.start_time,
        "Encrypted": snapshot.encrypted,
        "KmsKeyId": snapshot.kms_key_id,
        "StorageTier": "standard",
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }


FILTERS: dict[str, Callable[[Snapshot], Any]] = {
    "description": lambda snapshot: snapshot.description,
    "encrypted": lambda snapshot: snapshot.encrypted,
    "owner-id": lambda snapshot: snapshot.owner_id,
    "progress": lambda snapshot: "100%" if snapshot.status == "completed" else "0%",
    "snapshot-id": lambda snapshot: snapshot.id,
    "start-time": lambda snapshot: snapshot.start_time.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "status": lambda snapshot: snapshot.status,
    "storage-tier": lambda snapshot: "standard",
    "volume-id": lambda snapshot: snapshot.volume_id,
    "volume-size": lambda snapshot: snapshot.volume_size,
}


class VolumeBackend(RegionBackend):
    """The volumes and snapshots of one account in one region."""

    def __init__(self, region_name: str, account_id: str) -> None:
        self.own_snapshots: dict[str, Snapshot] = {}
        self.uploads: dict[str, int] = {}
        self.snapshot_block_public_access = "unblocked"
        super().__init__(region_name, account_id)

    def new_snapshot(self, **attributes: Any) -> Snapshot:
        """Keep a new pending snapshot of this account; its disk comes later."""
        snapshot_id = random_snapshot_id()
        attributes.setdefault("lineage", snapshot_id)
        snapshot = Snapshot(id=snapshot_id, owner_id=self.account_id, **attributes)
        self.own_snapshots[snapshot_id] = snapshot
        return snapshot

    def snapshot_anywhere(self, snapshot_id: str) -> Snapshot:
        """Return a snapshot of any account in this region."""
        for backend in self.neighbours():
            if snapshot_id in backend.own_snapshots:
                return backend.own_snapshots[snapshot_id]
        raise not_found("snapshot", snapshot_id)

    def may_use(self, snapshot: Snapshot) -> bool:
        """Tell whether this account may make volumes and copies of the snapshot."""
        if snapshot.owner_id == self.account_id or self.account_id in snapshot.users:
            return True
        owner = self.of_account(snapshot.owner_id)
        return "all" in snapshot.groups and owner.snapshot_block_public_access != "block-all-sharing"

    def find_snapshot(self, snapshot_id: str) -> Snapshot:
        """Return a snapshot that this account may use."""
        if not re.fullmatch(r"snap-[0-9a-f]{8,17}", snapshot_id or ""):
            raise Refused("InvalidParameterValue", f"Value ({snapshot_id}) for parameter snapshotId is invalid.")
        snapshot = self.snapshot_anywhere(snapshot_id)
        if not self.may_use(snapshot):
            raise not_found("snapshot", snapshot_id)
        return snapshot

    def own_snapshot(self, snapshot_id: str) -> Snapshot:
        """Return a snapshot of this account's own."""
        snapshot = self.find_snapshot(snapshot_id)
        if snapshot.owner_id != self.account_id:
            raise Refused("AuthFailure", f"Not authorized for snapshot:{snapshot_id}")
        return snapshot

    def get_snapshot(self, snapshot_id: str) -> Any:
        """Return a snapshot for moto's own callers (CreateTags)."""
        return self.find_snapshot(snapshot_id)

    def list_snapshots(
        self, ids: list[str], owners: list[str], users: list[str], filters: dict[str, list[str]]
    ) -> list[Snapshot]:
        """Return the snapshots that this account sees, narrowed by ids, owners, users and filters."""
        if ids:
            found = [self.find_snapshot(snapshot_id) for snapshot_id in ids]
        else:
            found = [
                snapshot
                for backend in self.neighbours()
                for snapshot in backend.own_snapshots.values()
                if self.may_use(snapshot)
            ]
        owner_ids = {self.account_id if owner == "self" else owner for owner in owners}
        user_ids = {self.account_id if user == "self" else user for user in users}
        if owner_ids:
            found = [snapshot for snapshot in found if snapshot.owner_id in owner_ids]
        if user_ids:
            found = [
                snapshot for snapshot in found if user_ids & (snapshot.users | snapshot.groups | {snapshot.owner_id})
            ]
        return [snapshot for snapshot in found if passes(filters, snapshot, FILTERS, self.tags.get(snapshot.id, {}))]

    def create_volume(self, size: int | None, zone_name: str, snapshot_id: str | None = None, **options: Any) -> Volume:  # type: ignore[override]
        """Make a volume and its disk. Takes size from the snapshot, and its encryption.

        Whether the caller may use the snapshot was asked before: whoever may launch an image need not.
        """
        self.cloud.check_room()
        snapshot = self.snapshot_anywhere(snapshot_id) if snapshot_id else None
        if snapshot is not None:
            if snapshot.status != "completed":
                raise Refused("IncorrectState", f"Snapshot {snapshot.id} is not completed")
            size = size or snapshot.volume_size
            if size < snapshot.volume_size:
                message = f"Volume of {size} GiB is smaller than snapshot {snapshot.id}: {snapshot.volume_size} GiB"
                raise Refused("InvalidParameterValue", message)
            options["encrypted"] = bool(options.get("encrypted")) or snapshot.encrypted
        if not size:
            raise Refused("MissingParameter", "The request must contain the parameter size/snapshot")
        if (options.get("volume_type") or "gp2") not in VOLUME_TYPES:
            raise Refused("InvalidParameterValue", f"Volume type {options['volume_type']} is unknown")
        volume = cast(LocalVolume, super().create_volume(size, zone_name, None, **options))
        volume.snapshot_id = snapshot_id
        volume.product_codes = list(snapshot.product_codes) if snapshot else []
        volume.lineage = snapshot.lineage if snapshot else volume.id
        try:
            self.machines.disks.create_volume(volume.id, size, snapshot_id)
        except Exception:
            del self.volumes[volume.id]
            raise
        return volume

    def delete_volume(self, volume_id: str) -> Volume:
        """Delete a volume that nothing uses, and its disk."""
        volume = super().delete_volume(volume_id)
        self.tags.pop(volume_id, None)
        self.drop_disk(volume_id)
        return volume

    def one_volume(self, volume_id: str) -> LocalVolume:
        """Return a volume, or refuse."""
        if volume_id not in self.volumes:
            raise not_found("volume", volume_id)
        return cast(LocalVolume, self.volumes[volume_id])

    def drop_disk(self, volume_id: str) -> None:
        """Delete a disk if it is still there."""
        if volume_id in self.machines.disks.volume_ids():
            self.machines.disks.delete_volume(volume_id)

    def modify_volume(self, volume_id: str, target_size: int | None = None, **options: Any) -> Volume:  # type: ignore[override]
        """Change a volume's type and speed; the local cloud cannot grow a disk."""
        volume = self.one_volume(volume_id)
        if target_size and target_size != volume.size:
            raise Refused("UnsupportedOperation", "The local cloud does not change the size of a volume")
        return super().modify_volume(volume_id, target_size, **options)

    def attach_volume(
        self, volume_id: str, instance_id: str, device_path: str, delete_on_termination: bool = False
    ) -> VolumeAttachment:
        """Attach a volume; the guest finds it at its next start, so the instance must not run yet."""
        volume, instance = self.one_volume(volume_id), self.get_instance(instance_id)
        if volume.attachment:
            raise Refused("VolumeInUse", f"{volume_id} is already attached to an instance")
        if device_path in instance.block_device_mapping:
            raise Refused(
                "InvalidParameterValue",
                f"Invalid value '{device_path}' for unixDevice. Attachment point is already in use",
            )
        if self.machines.running(instance_id) is not None:
            message = (
                f"Instance {instance_id} is {instance.state}: the local cloud attaches volumes to stopped instances"
            )
            raise Refused("UnsupportedOperation", message)
        return cast(VolumeAttachment, super().attach_volume(volume_id, instance_id, device_path, delete_on_termination))

    def detach_volume(self, volume_id: str, instance_id: str, device_path: str) -> VolumeAttachment:
        """Detach a volume from an instance that does not run."""
        volume = self.one_volume(volume_id)
        if not volume.attachment:
            raise Refused("IncorrectState", f"Volume '{volume_id}' is in the 'available' state.")
        instance = volume.attachment.instance
        if self.machines.running(instance.id) is not None:
            message = (
                f"Instance {instance.id} is {instance.state}: the local cloud detaches volumes of stopped instances"
            )
            raise Refused("UnsupportedOperation", message)
        return super().detach_volume(volume_id, instance.id, device_path)

    def take_snapshot(self, volume_id: str, description: str) -> Snapshot:
        """Snapshot a volume as it is at this moment, through its guest when one runs; complete a little later."""
        self.cloud.check_room()
        volume = self.one_volume(volume_id)
        snapshot = self.snapshot_record(volume, description)
        guest = self.machines.running(volume.attachment.instance.id) if volume.attachment else None
        try:
            self.machines.disks.snapshot_volume(volume_id, snapshot.id, guest)
        except Exception:
            del self.own_snapshots[snapshot.id]
            raise
        self.cloud.later(lambda: self.settle_snapshots([snapshot.id]))
        return snapshot

    def snapshot_record(self, volume: LocalVolume, description: str) -> Snapshot:
        """Keep a pending snapshot of a volume, with what it inherits."""
        return self.new_snapshot(
            volume_id=volume.id,
            volume_size=volume.size,
            description=description or "",
            encrypted=bool(volume.encrypted),
            kms_key_id=volume.kms_key_id,
            product_codes=list(volume.product_codes),
            lineage=volume.lineage,
        )

    def settle_snapshots(self, snapshot_ids: list[str]) -> None:
        """Complete pending snapshots, now that their disks are there."""
        with self.cloud.changing():
            for snapshot_id in snapshot_ids:
                if snapshot_id in self.own_snapshots:
                    self.own_snapshots[snapshot_id].status = "completed"

    def fill_copy(self, source_id: str, target_id: str) -> None:
        """Give a pending copy its content, and complete it; one whose source is gone becomes an error."""
        with self.cloud.changing():
            copy = self.own_snapshots.get(target_id)
            if copy is None:
                return
            try:
                self.machines.disks.copy_snapshot(source_id, target_id)
                copy.status = "completed"
            except (KeyError, ValueError, OSError):
                copy.status = "error"

    def duplicate_snapshot(
        self, source_id: str, source_region: str, description: str, kms_key_id: str | None, *, encrypted: bool
    ) -> Snapshot:
        """Copy a snapshot from another region, or within one."""
        self.cloud.check_room()
        source = self.in_region(source_region).find_snapshot(source_id)
        if source.status != "completed":
            raise Refused("IncorrectState", f"Snapshot {source.id} is not completed")
        encrypted = encrypted or source.encrypted or bool(kms_key_id)
        copy = self.new_snapshot(
            volume_id="vol-ffffffff",
            volume_size=source.volume_size,
            description=description or "",
            encrypted=encrypted,
            kms_key_id=kms_key_id or (self.default_kms_key() if encrypted else None),
            product_codes=list(source.product_codes),
        )
        self.cloud.later(lambda: self.fill_copy(source.id, copy.id))
        return copy

    def remove_snapshot(self, snapshot_id: str) -> None:
        """Delete a snapshot that no image uses."""
        self.own_snapshot(snapshot_id)
        users = [image.id for image in self.images.values() if snapshot_id in image.snapshot_ids]
        if users:
            raise Refused("InvalidSnapshot.InUse", f"The snapshot {snapshot_id} is currently in use by {users[0]}")
        del self.own_snapshots[snapshot_id]
        self.tags.pop(snapshot_id, None)
        if snapshot_id in self.machines.disks.snapshot_ids():
            self.machines.disks.delete_snapshot(snapshot_id)

    def default_kms_key(self) -> str:
        """Return the ARN of the key that encrypts volumes where no other is named."""
        return self.default_kms_key_id or self._create_default_encryption_key()

    def recover_volumes(self) -> None:
        """After a restart: a pending snapshot that is on disk is complete, and a record without a disk goes."""
        disks = self.machines.disks
        for snapshot_id, snapshot in self.own_snapshots.items():
            if snapshot_id not in disks.snapshot_ids():
                snapshot.status = "error"
            elif snapshot.status == "pending" and snapshot_id not in self.uploads:
                snapshot.status = "completed"
        for volume_id in set(self.volumes) - disks.volume_ids():
            del self.volumes[volume_id]

    def share_snapshot(self, snapshot: Snapshot, users: set[str], groups: set[str]) -> None:
        """Let others use a snapshot; refuses what EC2 does not share."""
        for user in users:
            if not re.fullmatch(r"\d{12}", user):
                raise Refused("InvalidUserID.Malformed", f"Invalid user id: {user}")
        if groups - {"all"}:
            raise Refused("InvalidAMIAttributeItemValue", f"Invalid attribute item value {groups} for group")
        if (users or groups) and snapshot.encrypted and snapshot.kms_key_id == self.default_kms_key():
            raise Refused("InvalidParameter", "Snapshots encrypted with the default AWS managed key can't be shared")
        if groups:
            if snapshot.encrypted or snapshot.product_codes:
                message = "Encrypted snapshots and snapshots with product codes can't be made public"
                raise Refused("OperationNotPermitted", message)
            if self.snapshot_block_public_access != "unblocked":
                raise Refused("OperationNotPermitted", NOT_PUBLIC)
        snapshot.users |= users
        snapshot.groups |= groups


def volume_permission_changes(params: Any) -> Changes:
    """Return what a ModifySnapshotAttribute adds and removes."""
    named = [
        *({"UserId": user} for user in params.get("UserIds") or []),
        *({"Group": group} for group in params.get("GroupNames") or []),
    ]
    return permission_changes(params, "CreateVolumePermission", named)


def names_of(permissions: list[dict[str, str]], kind: str) -> set[str]:
    """Return the users or the groups that permissions name."""
    return {permission[kind] for permission in permissions if permission.get(kind)}


class VolumeHandlers(LocalHandlers):
    """Answers the actions on volumes and snapshots that moto answers otherwise, or not at all."""

    @property
    def backend(self) -> VolumeBackend:
        """The caller's account in the request's region."""
        return self.ec2_backend  # type: ignore[no-any-return]

    def create_volume(self) -> ActionResult:
        """CreateVolume, of a snapshot that the caller may use."""
        required(self.params, "AvailabilityZone")
        if self.params.get("SnapshotId"):
            self.backend.find_snapshot(self.params["SnapshotId"])
        return super().create_volume()

    def describe_snapshots(self) -> ActionResult:
        """DescribeSnapshots, with owners and pages."""
        snapshots = self.backend.list_snapshots(
            self.params.get("SnapshotIds") or [],
            self.params.get("OwnerIds") or [],
            self.params.get("RestorableByUserIds") or [],
            self.filters(),
        )
        page, token = take_page(snapshots, self.params)
        return ActionResult({"Snapshots": [self.snapshot_answer(item) for item in page], "NextToken": token})

    def snapshot_answer(self, snapshot: Snapshot) -> dict[str, Any]:
        """Return a snapshot as the caller sees it."""
        return describe_snapshot(snapshot, self.backend.tags.get(snapshot.id, {}))

    def create_snapshot(self) -> ActionResult:
        """CreateSnapshot."""
        required(self.params, "VolumeId")
        snapshot = self.backend.take_snapshot(self.params["VolumeId"], self.params.get("Description") or "")
        self.backend.create_tags([snapshot.id], self.tags_for("snapshot"))
        return ActionResult(self.snapshot_answer(snapshot))

    def create_snapshots(self) -> ActionResult:
        """CreateSnapshots of all volumes of an instance."""
        specification = self.params["InstanceSpecification"]
        instance = self.backend.get_instance(specification["InstanceId"])
        left_out = set(specification.get("ExcludeDataVolumeIds") or [])
        answers = []
        for device, block in instance.get_block_device_mapping:
            boot = device == instance.root_device_name
            if block.volume_id in left_out or (boot and specification.get("ExcludeBootVolume")):
                continue
            snapshot = self.backend.take_snapshot(block.volume_id, self.params.get("Description") or "")
            self.backend.create_tags([snapshot.id], self.tags_for("snapshot"))
            answers.append(self.snapshot_answer(snapshot))
        return ActionResult({"Snapshots": answers})

    def delete_snapshot(self) -> ActionResult:
        """DeleteSnapshot."""
        required(self.params, "SnapshotId")
        self.backend.remove_snapshot(self.params["SnapshotId"])
        return EmptyResult()

    def copy_snapshot(self) -> ActionResult:
        """CopySnapshot."""
        required(self.params, "SourceSnapshotId", "SourceRegion")
        snapshot = self.backend.duplicate_snapshot(
            self.params["SourceSnapshotId"],
            self.params["SourceRegion"],
            self.params.get("Description") or "",
            self.params.get("KmsKeyId"),
            encrypted=bool(self.params.get("Encrypted")),
        )
        self.backend.create_tags([snapshot.id], self.tags_for("snapshot"))
        return ActionResult({"SnapshotId": snapshot.id, "Tags": self.snapshot_answer(snapshot)["Tags"]})

    def describe_snapshot_attribute(self) -> ActionResult:
        """DescribeSnapshotAttribute, for the owner."""
        snapshot = self.backend.own_snapshot(self.params["SnapshotId"])
        if self.params.get("Attribute") == "productCodes":
            codes = [{"ProductCodeId": code, "ProductCodeType": "marketplace"} for code in snapshot.product_codes]
            return ActionResult({"SnapshotId": snapshot.id, "ProductCodes": codes})
        users = [{"UserId": user} for user in sorted(snapshot.users)]
        groups = [{"Group": group} for group in sorted(snapshot.groups)]
        return ActionResult({"SnapshotId": snapshot.id, "CreateVolumePermissions": groups + users})

    def modify_snapshot_attribute(self) -> ActionResult:
        """ModifySnapshotAttribute, in both forms."""
        snapshot = self.backend.own_snapshot(self.params["SnapshotId"])
        add, remove = volume_permission_changes(self.params)
        self.backend.share_snapshot(snapshot, names_of(add, "UserId"), names_of(add, "Group"))
        snapshot.users -= names_of(remove, "UserId")
        snapshot.groups -= names_of(remove, "Group")
        return EmptyResult()

    def reset_snapshot_attribute(self) -> ActionResult:  # type: ignore[override]
        """ResetSnapshotAttribute: shared with nobody."""
        snapshot = self.backend.own_snapshot(self.params["SnapshotId"])
        snapshot.users, snapshot.groups = set(), set()
        return EmptyResult()

    def get_snapshot_block_public_access_state(self) -> ActionResult:
        """GetSnapshotBlockPublicAccessState."""
        return ActionResult({"State": self.backend.snapshot_block_public_access, "ManagedBy": "account"})

    def enable_snapshot_block_public_access(self) -> ActionResult:
        """EnableSnapshotBlockPublicAccess, for new sharing or for all."""
        state = self.params.get("State")
        if state not in ("block-all-sharing", "block-new-sharing"):
            raise Refused("InvalidParameterValue", "State is block-all-sharing or block-new-sharing")
        self.backend.snapshot_block_public_access = state
        return ActionResult({"State": state})

    def disable_snapshot_block_public_access(self) -> ActionResult:
        """DisableSnapshotBlockPublicAccess."""
        self.backend.snapshot_block_public_access = "unblocked"
        return ActionResult({"State": "unblocked"})

    def describe_volume_attribute(self) -> ActionResult:  # type: ignore[override]
        """DescribeVolumeAttribute: product codes and automatic I/O."""
        volume = self.backend.one_volume(self.params["VolumeId"])
        if self.params["Attribute"] == "productCodes":
            codes = [{"ProductCodeId": code, "ProductCodeType": "marketplace"} for code in volume.product_codes]
            return ActionResult({"VolumeId": volume.id, "ProductCodes": codes})
        return ActionResult({"VolumeId": volume.id, "AutoEnableIO": {"Value": False}})

    def describe_volume_status(self) -> ActionResult:  # type: ignore[override]
        """DescribeVolumeStatus: all are well."""
        volumes = self.backend.describe_volumes(self.params.get("VolumeIds") or [])
        status = {"Status": "ok", "Details": [{"Name": "io-enabled", "Status": "passed"}]}
        statuses = [
            {"VolumeId": volume.id, "AvailabilityZone": volume.availability_zone, "VolumeStatus": status}
            for volume in volumes
        ]
        return ActionResult({"VolumeStatuses": statuses})
