"""Images: what RegisterImage, CreateImage and CopyImage keep, who may see and launch them, and what is refused.

Behaviour is that of the EC2 API Reference and the EC2 User Guide ("Amazon Machine Images"). moto's own images keep
little of it, so these are ours, and moto's are not used.
"""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

import datetime
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from moto.core.responses import ActionResult, EmptyResult
from moto.core.utils import utcnow
from moto.ec2.utils import random_ami_id

from pipeline.localcloud.listing import matches, passes, take_page
from pipeline.localcloud.permissions import Changes, Permission, permission_changes
from pipeline.localcloud.refusals import Refused, not_found, required
from pipeline.localcloud.volumes import VolumeBackend, VolumeHandlers

PROTECTION_COOLDOWN = datetime.timedelta(hours=24)
PUBLIC_DEPRECATION = datetime.timedelta(days=730)
NAME = re.compile(r"[a-zA-Z0-9()\[\] ./\-'@_]{3,128}")
NOT_PUBLIC = "You can't publicly share this image because block public access for AMIs is enabled in this Region."

Mapping = dict[str, Any]


@dataclass
class Image:
    """An image as its owner registered it. Times are UTC without a zone, as moto's are."""

    id: str
    name: str
    owner_id: str
    region: str
    description: str = ""
    state: str = "pending"
    state_reason: str = ""
    architecture: str = "x86_64"
    boot_mode: str | None = None
    root_device_name: str = "/dev/xvda"
    mappings: list[Mapping] = field(default_factory=list)
    ena_support: bool = True
    sriov_net_support: str | None = "simple"
    imds_support: str | None = None
    tpm_support: str | None = None
    uefi_data: str | None = None
    virtualization_type: str = "hvm"
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    product_codes: list[str] = field(default_factory=list)
    permissions: list[Permission] = field(default_factory=list)
    creation_date: datetime.datetime = field(default_factory=utcnow)
    deprecation_time: datetime.datetime | None = None
    last_launched_time: datetime.datetime | None = None
    protection: str = "disabled"
    source_instance_id: str | None = None
    source_image_id: str | None = None
    source_image_region: str | None = None
    platform: None = None

    @property
    def public(self) -> bool:
        """Whether everybody may launch it."""
        return {"Group": "all"} in self.permissions

    @property
    def deprecated(self) -> bool:
        """Whether its deprecation time has come."""
        return self.deprecation_time is not None and self.deprecation_time <= utcnow()

    @property
    def snapshot_ids(self) -> list[str]:
        """The snapshots that it is made of."""
        return [mapping["Ebs"]["SnapshotId"] for mapping in self.mappings if mapping.get("Ebs", {}).get("SnapshotId")]


def iso_time(moment: datetime.datetime | None) -> str | None:
    """Return a time as image attributes have it."""
    return moment.strftime("%Y-%m-%dT%H:%M:%S.000Z") if moment else None


def describe_codes(codes: Iterable[str]) -> list[dict[str, str]]:
    """Return product codes as the API lists them."""
    return [{"ProductCodeId": code, "ProductCodeType": "marketplace"} for code in codes]


def describe_image(image: Image, tags: dict[str, str], *, allowed: bool | None) -> dict[str, Any]:
    """Return what DescribeImages answers; `tags` are those of the viewer, who sees no tags of another account."""
    description: dict[str, Any] = {
        "ImageId": image.id,
        "Name": image.name,
        "Description": image.description or None,
        "OwnerId": image.owner_id,
        "ImageLocation": f"{image.owner_id}/{image.name}",
        "ImageType": "machine",
        "State": image.state,
        "StateReason": {"Code": "Client.InternalError", "Message": image.state_reason} if image.state_reason else None,
        "Public": image.public,
        "Architecture": image.architecture,
        "BootMode": image.boot_mode,
        "RootDeviceName": image.root_device_name,
        "RootDeviceType": "ebs",
        "BlockDeviceMappings": image.mappings,
        "EnaSupport": image.ena_support,
        "SriovNetSupport": image.sriov_net_support,
        "ImdsSupport": image.imds_support,
        "TpmSupport": image.tpm_support,
        "VirtualizationType": image.virtualization_type,
        "Hypervisor": "xen",
        "KernelId": image.kernel_id,
        "RamdiskId": image.ramdisk_id,
        "PlatformDetails": "Linux/UNIX",
        "UsageOperation": "RunInstances",
        "ProductCodes": describe_codes(image.product_codes),
        "CreationDate": image.creation_date,
        "DeprecationTime": iso_time(image.deprecation_time),
        "DeregistrationProtection": image.protection,
        "LastLaunchedTime": iso_time(image.last_launched_time),
        "SourceInstanceId": image.source_instance_id,
        "SourceImageId": image.source_image_id,
        "SourceImageRegion": image.source_image_region,
        "ImageAllowed": allowed,
        "Tags": [{"Key": key, "Value": value} for key, value in tags.items()],
    }
    return {name: value for name, value in description.items() if value is not None}


def mapping_values(image: Image, name: str) -> list[Any]:
    """Return one attribute of the block devices, for filters."""
    return [mapping.get("Ebs", {}).get(name) for mapping in image.mappings]


FILTERS: dict[str, Callable[[Image], Any]] = {
    "architecture": lambda image: image.architecture,
    "block-device-mapping.delete-on-termination": lambda image: mapping_values(image, "DeleteOnTermination"),
    "block-device-mapping.device-name": lambda image: [mapping["DeviceName"] for mapping in image.mappings],
    "block-device-mapping.snapshot-id": lambda image: image.snapshot_ids,
    "block-device-mapping.volume-size": lambda image: mapping_values(image, "VolumeSize"),
    "block-device-mapping.volume-type": lambda image: mapping_values(image, "VolumeType"),
    "block-device-mapping.encrypted": lambda image: mapping_values(image, "Encrypted"),
    "boot-mode": lambda image: image.boot_mode,
    "creation-date": lambda image: iso_time(image.creation_date),
    "description": lambda image: image.description,
    "ena-support": lambda image: image.ena_support,
    "hypervisor": lambda image: "xen",
    "image-id": lambda image: image.id,
    "image-type": lambda image: "machine",
    "imds-support": lambda image: image.imds_support,
    "is-public": lambda image: image.public,
    "kernel-id": lambda image: image.kernel_id,
    "manifest-location": lambda image: f"{image.owner_id}/{image.name}",
    "name": lambda image: image.name,
    "owner-alias": lambda image: None,
    "owner-id": lambda image: image.owner_id,
    "platform": lambda image: "",
    "product-code": lambda image: image.product_codes,
    "product-code.type": lambda image: "marketplace" if image.product_codes else None,
    "ramdisk-id": lambda image: image.ramdisk_id,
    "root-device-name": lambda image: image.root_device_name,
    "root-device-type": lambda image: "ebs",
    "source-image-id": lambda image: image.source_image_id,
    "source-image-region": lambda image: image.source_image_region,
    "source-instance-id": lambda image: image.source_instance_id,
    "state": lambda image: image.state,
    "state-reason-message": lambda image: image.state_reason,
    "sriov-net-support": lambda image: image.sriov_net_support,
    "tpm-support": lambda image: image.tpm_support,
    "virtualization-type": lambda image: image.virtualization_type,
}


class ImageBackend(VolumeBackend):
    """The images of one account in one region, over its snapshots."""

    def __init__(self, region_name: str, account_id: str) -> None:
        self.images: dict[str, Image] = {}
        self.gone_images: set[str] = set()
        self.image_block_public_access = "block-new-sharing"
        self.allowed_images: dict[str, Any] = {"State": "disabled", "ImageCriteria": []}
        super().__init__(region_name, account_id)

    def all_images(self) -> list[Image]:
        """Return the images of every account in this region."""
        return [image for backend in self.neighbours() for image in backend.images.values()]

    def may_launch(self, image: Image) -> bool:
        """Tell whether this account owns the image or has a launch permission."""
        organisations = self.organisation_arns()
        return (
            image.owner_id == self.account_id
            or image.public
            or {"UserId": self.account_id} in image.permissions
            or any(set(permission.values()) & organisations for permission in image.permissions)
        )

    def find_image(self, image_id: str) -> Image:
        """Return an image that this account may see. Refuses with InvalidAMIID.NotFound, .Malformed or .Unavailable."""
        if not re.fullmatch(r"ami-[0-9a-f]{8,17}", image_id or ""):
            raise Refused("InvalidAMIID.Malformed", f'Invalid id: "{image_id}" (expecting "ami-...")')
        for image in self.all_images():
            if image.id == image_id and self.may_launch(image):
                return image
        if image_id in self.gone_images:
            raise Refused("InvalidAMIID.Unavailable", f"The image id '[{image_id}]' is no longer available")
        raise not_found("image", image_id)

    def image_in(self, region: str | None, image_id: str | None) -> Image | None:
        """Return an image of a region that this account may see, or None."""
        if not region or not image_id:
            return None
        there = self.in_region(region)
        return next((image for image in there.all_images() if image.id == image_id and there.may_launch(image)), None)

    def own_image(self, image_id: str) -> Image:
        """Return an image of this account's own. Refuses with AuthFailure for somebody else's."""
        image = self.find_image(image_id)
        if image.owner_id != self.account_id:
            raise Refused("AuthFailure", f"Not authorized for image:{image_id}")
        return image

    def launchable_image(self, image_id: str) -> Image:
        """Return an image that this account may launch now."""
        image = self.find_image(image_id)
        if image.state != "available":
            raise Refused("InvalidAMIID.Unavailable", f"The image ID '{image_id}' is not available: {image.state}")
        if self.allowed_images["State"] == "enabled" and not self.is_allowed(image):
            message = f"The image ID '{image_id}' is not allowed by the Allowed AMIs settings of this account."
            raise Refused("InvalidAMIID.NotFound", message)
        return image

    def is_allowed(self, image: Image) -> bool:
        """Tell whether the account's Allowed AMIs criteria let the image through; its own images always pass."""
        criteria = self.allowed_images["ImageCriteria"]
        return image.owner_id == self.account_id or any(meets(criterion, image) for criterion in criteria)

    def describe_images(
        self, ami_ids: Any = None, filters: Any = None, exec_users: Any = None, owners: Any = None
    ) -> Any:
        """Return images for moto's own callers (its instances, CreateTags)."""
        return self.list_images(ami_ids, filters, exec_users, owners)

    def list_images(
        self,
        ami_ids: list[str] | None = None,
        filters: dict[str, list[str]] | None = None,
        exec_users: list[str] | None = None,
        owners: list[str] | None = None,
        *,
        deprecated: bool = False,
        disabled: bool = False,
    ) -> list[Image]:
        """Return the images that this account sees."""
        if ami_ids:
            found = [self.find_image(image_id) for image_id in ami_ids]
        else:
            found = [image for image in self.all_images() if self.may_launch(image)]
            found = [
                image for image in found if deprecated or not image.deprecated or image.owner_id == self.account_id
            ]
            found = [image for image in found if disabled or image.state != "disabled"]
        if owners:
            wanted = {self.account_id if owner == "self" else owner for owner in owners}
            found = [image for image in found if image.owner_id in wanted]
        if exec_users:
            found = [image for image in found if self.executable_by(image, exec_users)]
        filters = filters or {}
        return [image for image in found if passes(filters, image, FILTERS, self.tags.get(image.id, {}))]

    def executable_by(self, image: Image, users: list[str]) -> bool:
        """Tell whether the image's launch permissions name one of these users: `self`, `all` or an id."""
        names = {self.account_id if user == "self" else user for user in users}
        named = {permission.get("UserId") or permission.get("Group") for permission in image.permissions}
        return bool(names & named)

    def check_name(self, name: str) -> None:
        """Refuse a name that is not one, or that this account uses already in this region."""
        if not NAME.fullmatch(name or ""):
            message = (
                "AMI names must be between 3 and 128 characters long, and may contain letters, numbers,"
                " '(', ')', '.', '-', '/' and '_'"
            )
            raise Refused("InvalidAMIName.Malformed", message)
        for image in self.images.values():
            if image.name == name:
                message = f"AMI name {name} is already in use by AMI {image.id}"
                raise Refused("InvalidAMIName.Duplicate", message)

    def add_image(self, image: Image, tags: dict[str, str]) -> Image:
        """Keep an image, with its owner's tags."""
        self.images[image.id] = image
        self.create_tags([image.id], tags)
        return image

    def register(self, params: Any, tags: dict[str, str]) -> Image:
        """Register an image from snapshots, and keep every attribute."""
        required(params, "Name")
        self.check_name(params["Name"])
        mappings = [self.complete_mapping(mapping) for mapping in params.get("BlockDeviceMappings") or []]
        root = str(params.get("RootDeviceName") or (mappings[0]["DeviceName"] if mappings else ""))
        roots = [mapping for mapping in mappings if mapping["DeviceName"] == root]
        if not roots or "SnapshotId" not in roots[0].get("Ebs", {}):
            message = "The root device must be a block device mapping with a snapshot"
            raise Refused("InvalidBlockDeviceMapping", message)
        codes = [code for mapping in mappings for code in self.mapping_codes(mapping)]
        image = Image(
            id=random_ami_id(),
            name=params["Name"],
            owner_id=self.account_id,
            region=self.region_name,
            description=params.get("Description") or "",
            architecture=params.get("Architecture") or "i386",
            boot_mode=params.get("BootMode"),
            root_device_name=root,
            mappings=mappings,
            ena_support=bool(params.get("EnaSupport")),
            sriov_net_support=params.get("SriovNetSupport"),
            imds_support=params.get("ImdsSupport"),
            tpm_support=params.get("TpmSupport"),
            uefi_data=params.get("UefiData"),
            virtualization_type=params.get("VirtualizationType") or "paravirtual",
            kernel_id=params.get("KernelId"),
            ramdisk_id=params.get("RamdiskId"),
            product_codes=sorted(set(codes)),
        )
        self.add_image(image, tags)
        self.cloud.later(lambda: self.settle_image(image))
        return image

    def mapping_codes(self, mapping: Mapping) -> list[str]:
        """Return the product codes that a snapshot of a mapping carries."""
        snapshot_id = mapping.get("Ebs", {}).get("SnapshotId")
        return self.find_snapshot(snapshot_id).product_codes if snapshot_id else []

    def complete_mapping(self, mapping: Mapping) -> Mapping:
        """Return a block device mapping with what EC2 fills in: size, type, deletion. Checks the snapshot."""
        if "Ebs" not in mapping:
            return dict(mapping)
        ebs = dict(mapping["Ebs"])
        if ebs.get("SnapshotId"):
            snapshot = self.find_snapshot(ebs["SnapshotId"])
            if snapshot.status != "completed":
                raise Refused("InvalidSnapshot.NotFound", f"Snapshot {snapshot.id} is not completed")
            ebs.setdefault("VolumeSize", snapshot.volume_size)
            ebs["Encrypted"] = snapshot.encrypted or bool(ebs.get("Encrypted"))
            if ebs["VolumeSize"] < snapshot.volume_size:
                message = (
                    f"Volume of size {ebs['VolumeSize']}GB is smaller than snapshot '{snapshot.id}',"
                    f" expect size >= {snapshot.volume_size}GB"
                )
                raise Refused("InvalidBlockDeviceMapping", message)
        elif not ebs.get("VolumeSize"):
            raise Refused("MissingParameter", "The request must contain the parameter size or snapshotId")
        ebs.setdefault("VolumeType", "gp2")
        ebs.setdefault("DeleteOnTermination", True)
        ebs.setdefault("Encrypted", False)
        return {**mapping, "Ebs": ebs}

    def settle_image(self, image: Image) -> None:
        """Make a pending image available, now that its snapshots are there."""
        with self.cloud.changing():
            if image.state == "pending":
                image.state = "available"

    def duplicate_image(self, params: Any, tags: dict[str, str]) -> Image:
        """Copy an image and its snapshots from another region, or within one. The copy is pending at first.

        Permissions stay behind (EC2 User Guide, "Copy an AMI"), and so do deregistration protection and the date of the
        deprecation: of neither does AWS promise more.
        """
        required(params, "SourceImageId", "SourceRegion", "Name")
        source_side = self.in_region(params["SourceRegion"])
        source = source_side.find_image(params["SourceImageId"])
        if source.state != "available":
            raise Refused("InvalidAMIID.Unavailable", f"The image ID '{source.id}' is not available: {source.state}")
        self.check_name(params["Name"])
        image_id = random_ami_id()
        pairs: list[tuple[str, str]] = []
        mappings = []
        for mapping in source.mappings:
            ebs = dict(mapping.get("Ebs", {}))
            if ebs.get("SnapshotId"):
                pairs.append((ebs["SnapshotId"], self.copy_for_image(source_side, source, ebs, image_id, params)))
                ebs["SnapshotId"] = pairs[-1][1]
            mappings.append({**mapping, "Ebs": ebs} if ebs else dict(mapping))
        image = replace(
            source,
            id=image_id,
            name=params["Name"],
            owner_id=self.account_id,
            region=self.region_name,
            description=params.get("Description") or source.description,
            state="pending",
            mappings=mappings,
            permissions=[],
            product_codes=list(source.product_codes),
            creation_date=utcnow(),
            deprecation_time=None,
            last_launched_time=None,
            protection="disabled",
            source_instance_id=None,
            source_image_id=source.id,
            source_image_region=source.region,
        )
        copied = dict(source_side.tags.get(source.id, {})) if params.get("CopyImageTags") else {}
        self.add_image(image, copied | tags)
        self.cloud.later(lambda: self.finish_copies(image, pairs))
        return image

    def copy_for_image(
        self,
        source_side: "ImageBackend",
        source: Image,
        ebs: dict[str, Any],
        image_id: str,
        params: Any,
    ) -> str:
        """Make the pending copy of one snapshot of an image and return its id."""
        snapshot = source_side.snapshot_anywhere(ebs["SnapshotId"])
        if not source_side.may_use(snapshot):
            message = "You do not have permission to access the storage of this ami"
            raise Refused("InvalidRequest", message)
        encrypted = snapshot.encrypted or bool(params.get("Encrypted"))
        ebs["Encrypted"] = encrypted
        copy = self.new_snapshot(
            volume_id="vol-ffffffff",
            volume_size=snapshot.volume_size,
            description=(
                f"Copied for DestinationAmi {image_id} from SourceAmi {source.id} for SourceSnapshot {snapshot.id}."
            ),
            encrypted=encrypted,
            kms_key_id=params.get("KmsKeyId") or (self.default_kms_key() if encrypted else None),
            product_codes=list(snapshot.product_codes),
        )
        return copy.id

    def finish_copies(self, image: Image, pairs: list[tuple[str, str]]) -> None:
        """Copy the snapshots' content, and make the image available."""
        for source_id, target_id in pairs:
            self.fill_copy(source_id, target_id)
        self.settle_image(image)

    def deregister_image(self, ami_id: str) -> None:
        """Take an image out of the register; its snapshots stay."""
        image = self.own_image(ami_id)
        if image.protection != "disabled":
            waiting = image.protection.removeprefix("disabled after ")
            if not (image.protection.startswith("disabled after ") and waiting <= str(iso_time(utcnow()))):
                message = f"Image {ami_id} is protected from deregistration: {image.protection}"
                raise Refused("OperationNotPermitted", message)
        del self.images[ami_id]
        self.gone_images.add(ami_id)
        self.tags.pop(ami_id, None)

    def recover_images(self) -> None:
        """After a restart: a pending image is available when its snapshots are complete, and failed otherwise."""
        for image in self.images.values():
            if image.state == "pending":
                broken = any(self.own_snapshots[item].status != "completed" for item in image.snapshot_ids)
                image.state = "failed" if broken else "available"

    def change_permissions(self, image: Image, add: list[Permission], remove: list[Permission]) -> None:
        """Add and remove launch permissions: all of them or, when one is refused, none."""
        for permission in (*add, *remove):
            check_permission(permission)
        if image.state == "disabled" and add:
            raise Refused("OperationNotPermitted", f"Image {image.id} is disabled and can't be shared")
        if add:
            self.check_sharing(image, add)
        image.permissions.extend(permission for permission in add if permission not in image.permissions)
        image.permissions = [permission for permission in image.permissions if permission not in remove]
        if image.public and image.deprecation_time is None:
            image.deprecation_time = image.creation_date + PUBLIC_DEPRECATION

    def check_sharing(self, image: Image, add: list[Permission]) -> None:
        """Refuse what EC2 does not share: encrypted by the default key; publicly with codes, encryption or a block."""
        snapshots = [self.snapshot_anywhere(snapshot_id) for snapshot_id in image.snapshot_ids]
        encrypted = [snapshot for snapshot in snapshots if snapshot.encrypted]
        if any(snapshot.kms_key_id == self.default_kms_key() for snapshot in encrypted):
            message = "Images that are encrypted with the default AWS managed key can't be shared"
            raise Refused("InvalidParameter", message)
        if {"Group": "all"} in add:
            if self.image_block_public_access == "block-new-sharing":
                raise Refused("OperationNotPermitted", NOT_PUBLIC)
            if encrypted or image.product_codes:
                message = "Images with encrypted snapshots or with product codes can't be made public"
                raise Refused("OperationNotPermitted", message)


def check_permission(permission: Permission) -> None:
    """Refuse a launch permission that is not one. Exactly one of UserId, Group and the two kinds of ARN is allowed."""
    checks = {
        "UserId": r"\d{12}",
        "Group": r"all",
        "OrganizationArn": r"arn:[a-z-]+:organizations::\d{12}:organization/o-[a-z0-9]{10,32}",
        "OrganizationalUnitArn": r"arn:[a-z-]+:organizations::\d{12}:ou/o-[a-z0-9]{10,32}/ou-[a-z0-9-]{4,68}",
    }
    for kind, value in permission.items():
        if kind not in checks or not re.fullmatch(checks[kind], value):
            message = f'Invalid attribute item value "{value}" for {kind[0].lower() + kind[1:]} item type.'
            raise Refused("InvalidAMIAttributeItemValue", message)


def meets(criterion: dict[str, Any], image: Image) -> bool:
    """Tell whether an image meets one criterion of the Allowed AMIs: providers, codes, names, ages."""
    aliases = {"amazon", "aws-marketplace", "aws-backup-vault"}
    providers = [provider for provider in criterion.get("ImageProviders", []) if provider not in aliases]
    if criterion.get("ImageProviders") and not ({image.owner_id, "none"} & set(providers)):
        return False
    codes = criterion.get("MarketplaceProductCodes") or []
    if codes and not set(codes) & set(image.product_codes):
        return False
    names = criterion.get("ImageNames") or []
    if names and not matches(names, image.name):
        return False
    now = utcnow()
    created = (criterion.get("CreationDateCondition") or {}).get("MaximumDaysSinceCreated")
    if created is not None and now - image.creation_date > datetime.timedelta(days=int(created)):
        return False
    deprecated = (criterion.get("DeprecationTimeCondition") or {}).get("MaximumDaysSinceDeprecated")
    past = now - image.deprecation_time if image.deprecation_time else datetime.timedelta(0)
    return deprecated is None or past <= datetime.timedelta(days=int(deprecated))


def launch_permission_changes(params: Any) -> Changes:
    """Return what a ModifyImageAttribute adds and removes."""
    named = [
        *({"UserId": user} for user in params.get("UserIds") or []),
        *({"Group": group} for group in params.get("UserGroups") or []),
        *({"OrganizationArn": arn} for arn in params.get("OrganizationArns") or []),
        *({"OrganizationalUnitArn": arn} for arn in params.get("OrganizationalUnitArns") or []),
    ]
    return permission_changes(params, "LaunchPermission", named)


class ImageHandlers(VolumeHandlers):
    """Answers the actions on images."""

    @property
    def backend(self) -> ImageBackend:
        """The caller's account in the request's region."""
        return self.ec2_backend  # type: ignore[no-any-return]

    def describe_images(self) -> ActionResult:
        """DescribeImages, with pages."""
        images = self.backend.list_images(
            self.params.get("ImageIds"),
            self.filters(),
            self.params.get("ExecutableUsers"),
            self.params.get("Owners"),
            deprecated=bool(self.params.get("IncludeDeprecated")),
            disabled=bool(self.params.get("IncludeDisabled")),
        )
        if self.backend.allowed_images["State"] == "enabled":
            images = [image for image in images if self.backend.is_allowed(image)]
        page, token = take_page(images, self.params)
        return ActionResult({"Images": [self.image_description(image) for image in page], "NextToken": token})

    def image_description(self, image: Image) -> dict[str, Any]:
        """Return an image as the caller sees it."""
        audited = self.backend.allowed_images["State"] != "disabled"
        allowed = self.backend.is_allowed(image) if audited else None
        return describe_image(image, self.backend.tags.get(image.id, {}), allowed=allowed)

    def register_image(self) -> ActionResult:
        """RegisterImage."""
        image = self.backend.register(self.params, self.tags_for("image"))
        return ActionResult({"ImageId": image.id})

    def copy_image(self) -> ActionResult:
        """CopyImage."""
        image = self.backend.duplicate_image(self.params, self.tags_for("image"))
        for snapshot_id in image.snapshot_ids:
            self.backend.create_tags([snapshot_id], self.tags_for("snapshot"))
        return ActionResult({"ImageId": image.id})

    def deregister_image(self) -> ActionResult:
        """DeregisterImage, with its snapshots when the caller says so."""
        required(self.params, "ImageId")
        image = self.backend.own_image(self.params["ImageId"])
        self.backend.deregister_image(image.id)
        results = []
        if self.params.get("DeleteAssociatedSnapshots"):
            for snapshot_id in image.snapshot_ids:
                try:
                    self.backend.remove_snapshot(snapshot_id)
                    results.append({"SnapshotId": snapshot_id, "ReturnCode": "success"})
                except Refused as refused:
                    code = "skipped" if refused.code == "InvalidSnapshot.InUse" else "client-error"
                    results.append({"SnapshotId": snapshot_id, "ReturnCode": code})
        return ActionResult({"Return": True, "DeleteSnapshotResults": results})

    def describe_image_attribute(self) -> ActionResult:
        """DescribeImageAttribute, for the owner."""
        required(self.params, "ImageId", "Attribute")
        image = self.backend.own_image(self.params["ImageId"])
        attribute = self.params["Attribute"]
        values = {
            "bootMode": ("BootMode", image.boot_mode),
            "deregistrationProtection": ("DeregistrationProtection", image.protection),
            "description": ("Description", image.description),
            "imdsSupport": ("ImdsSupport", image.imds_support),
            "kernel": ("KernelId", image.kernel_id),
            "lastLaunchedTime": ("LastLaunchedTime", iso_time(image.last_launched_time)),
            "ramdisk": ("RamdiskId", image.ramdisk_id),
            "sriovNetSupport": ("SriovNetSupport", image.sriov_net_support),
            "tpmSupport": ("TpmSupport", image.tpm_support),
            "uefiData": ("UefiData", image.uefi_data),
        }
        answer: dict[str, Any] = {"ImageId": image.id}
        if attribute == "launchPermission":
            answer["LaunchPermissions"] = image.permissions
        elif attribute == "productCodes":
            answer["ProductCodes"] = describe_codes(image.product_codes)
        elif attribute == "blockDeviceMapping":
            raise Refused("AuthFailure", "Unauthorized attempt to access restricted resource")
        elif attribute in values:
            name, value = values[attribute]
            answer[name] = {"Value": value} if value is not None else {}
        else:
            raise Refused("InvalidRequest", f"The attribute {attribute} is not one of an image")
        return ActionResult(answer)

    def modify_image_attribute(self) -> ActionResult:
        """ModifyImageAttribute: launch permission, description, IMDS support. Product codes can't be set any more."""
        required(self.params, "ImageId")
        image = self.backend.own_image(self.params["ImageId"])
        if self.params.get("ProductCodes") or self.params.get("Attribute") == "productCodes":
            message = "Product codes can't be modified: they come with the volume, or from AWS Marketplace"
            raise Refused("UnsupportedOperation", message)
        if image.state not in ("available", "disabled"):
            raise Refused("InvalidAMIID.Unavailable", f"The image ID '{image.id}' is not available: {image.state}")
        self.backend.change_permissions(image, *launch_permission_changes(self.params))
        for name, set_value in (("Description", set_description), ("ImdsSupport", set_imds_support)):
            value = (self.params.get(name) or {}).get("Value")
            if value is None and self.params.get("Attribute") == name[0].lower() + name[1:]:
                value = self.params.get("Value")
            if value is not None:
                set_value(image, value)
        return EmptyResult()

    def reset_image_attribute(self) -> ActionResult:  # type: ignore[override]
        """ResetImageAttribute: no launch permission is left."""
        image = self.backend.own_image(self.params["ImageId"])
        if self.params.get("Attribute") != "launchPermission":
            raise Refused("InvalidRequest", "Only launchPermission can be reset")
        image.permissions = []
        return EmptyResult()

    def cancel_image_launch_permission(self) -> ActionResult:
        """CancelImageLaunchPermission: the account gives up its own permission."""
        image = self.backend.find_image(self.params["ImageId"])
        own = {"UserId": self.backend.account_id}
        if own not in image.permissions:
            raise Refused("InvalidRequest", f"{image.id} is not shared with this account by its id")
        image.permissions.remove(own)
        return ActionResult({"Return": True})

    def enable_image_deprecation(self) -> ActionResult:
        """EnableImageDeprecation, at a time to come; EC2 rounds to the minute."""
        image = self.backend.own_image(self.params["ImageId"])
        moment = self.params["DeprecateAt"]
        if moment.tzinfo is not None:
            moment = moment.astimezone(datetime.UTC).replace(tzinfo=None)
        if moment < utcnow() - datetime.timedelta(minutes=1):
            raise Refused("InvalidParameterValue", "The deprecation time must be in the future")
        image.deprecation_time = moment.replace(second=0, microsecond=0)
        return ActionResult({"Return": True})

    def disable_image_deprecation(self) -> ActionResult:
        """DisableImageDeprecation."""
        self.backend.own_image(self.params["ImageId"]).deprecation_time = None
        return ActionResult({"Return": True})

    def disable_image(self) -> ActionResult:
        """DisableImage: not launchable, not shared any more."""
        image = self.backend.own_image(self.params["ImageId"])
        image.state, image.permissions = "disabled", []
        return ActionResult({"Return": True})

    def enable_image(self) -> ActionResult:
        """EnableImage."""
        image = self.backend.own_image(self.params["ImageId"])
        if image.state == "disabled":
            image.state = "available"
        return ActionResult({"Return": True})

    def enable_image_deregistration_protection(self) -> ActionResult:
        """EnableImageDeregistrationProtection."""
        image = self.backend.own_image(self.params["ImageId"])
        image.protection = "enabled-with-cooldown" if self.params.get("WithCooldown") else "enabled-without-cooldown"
        return ActionResult({"Return": image.protection})

    def disable_image_deregistration_protection(self) -> ActionResult:
        """DisableImageDeregistrationProtection: at once, or after 24 hours where a cooldown was asked."""
        image = self.backend.own_image(self.params["ImageId"])
        if image.protection == "enabled-with-cooldown":
            image.protection = f"disabled after {iso_time(utcnow() + PROTECTION_COOLDOWN)}"
        elif not image.protection.startswith("disabled after"):
            image.protection = "disabled"
        return ActionResult({"Return": image.protection})

    def get_image_block_public_access_state(self) -> ActionResult:
        """GetImageBlockPublicAccessState."""
        state = self.backend.image_block_public_access
        return ActionResult({"ImageBlockPublicAccessState": state, "ManagedBy": "account"})

    def enable_image_block_public_access(self) -> ActionResult:
        """EnableImageBlockPublicAccess."""
        self.backend.image_block_public_access = "block-new-sharing"
        return ActionResult({"ImageBlockPublicAccessState": "block-new-sharing"})

    def disable_image_block_public_access(self) -> ActionResult:
        """DisableImageBlockPublicAccess."""
        self.backend.image_block_public_access = "unblocked"
        return ActionResult({"ImageBlockPublicAccessState": "unblocked"})

    def get_allowed_images_settings(self) -> ActionResult:
        """GetAllowedImagesSettings."""
        return ActionResult({**self.backend.allowed_images, "ManagedBy": "account"})

    def enable_allowed_images_settings(self) -> ActionResult:
        """EnableAllowedImagesSettings: enabled, or audit-mode."""
        state = self.params.get("AllowedImagesSettingsState")
        if state not in ("enabled", "audit-mode"):
            raise Refused("InvalidParameterValue", "AllowedImagesSettingsState is enabled or audit-mode")
        self.backend.allowed_images["State"] = state
        return ActionResult({"AllowedImagesSettingsState": state})

    def disable_allowed_images_settings(self) -> ActionResult:
        """DisableAllowedImagesSettings."""
        self.backend.allowed_images["State"] = "disabled"
        return ActionResult({"AllowedImagesSettingsState": "disabled"})

    def replace_image_criteria_in_allowed_images_settings(self) -> ActionResult:
        """ReplaceImageCriteriaInAllowedImagesSettings."""
        self.backend.allowed_images["ImageCriteria"] = list(self.params.get("ImageCriteria") or [])
        return ActionResult({"ReturnValue": True})

    def get_image_ancestry(self) -> ActionResult:
        """GetImageAncestry: from an image to the root it was copied from, as far as this account may see."""
        image: Image | None = self.backend.find_image(self.params["ImageId"])
        entries = []
        while image is not None:
            entries.append(
                {
                    "ImageId": image.id,
                    "CreationDate": image.creation_date,
                    "SourceImageId": image.source_image_id,
                    "SourceImageRegion": image.source_image_region,
                }
            )
            image = self.backend.image_in(image.source_image_region, image.source_image_id)
        return ActionResult({"ImageAncestryEntries": entries})


def set_description(image: Image, value: str) -> None:
    """Change the description."""
    image.description = value


def set_imds_support(image: Image, value: str) -> None:
    """Require IMDSv2 of instances of this image; it cannot be undone (EC2 User Guide, "Configure the AMI")."""
    if value != "v2.0":
        raise Refused("InvalidParameterValue", "ImdsSupport can only be set to v2.0")
    image.imds_support = value
