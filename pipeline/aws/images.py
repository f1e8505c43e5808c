"""Images: made of a snapshot or of a stopped instance, waited for, read back, taken away.

Two ways lead to an image, and `must_inherit` chooses between them. RegisterImage over a snapshot of ours sets every
attribute, and nothing is made that was not proved. But it loses the product codes of the base image: only
CreateImage, from the instance, inherits those; there IMDSv2 is set afterwards, and the rest comes from the base image.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal

from pipeline.aws.creation import find_or_create
from pipeline.aws.session import Session, cloud_errors, error_code
from pipeline.aws.snapshots import delete_snapshot, describe_snapshot
from pipeline.aws.tags import BUILD_ID, NAME, Tags, is_resource_name, read_tags
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CloudFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        BlockDeviceMappingTypeDef,
        CopyImageRequestTypeDef,
        ImageTypeDef,
        RegisterImageRequestTypeDef,
    )

MISSING = frozenset({"InvalidAMIID.NotFound", "InvalidAMIID.Unavailable"})
NAME_TAKEN = frozenset({"InvalidAMIName.Duplicate"})
FAILED = frozenset({"failed", "error", "invalid", "deregistered"})
AVAILABLE_SECONDS = 3600.0


@dataclass(frozen=True)
class BlockDevice:
    """An entry of an image's block-device map."""

    device_name: str
    snapshot_id: str | None
    size_gib: int
    type: str
    encrypted: bool
    delete_on_termination: bool
    virtual_name: str | None
    """Set for an instance store (`ephemeral0`), which has no snapshot."""


@dataclass(frozen=True)
class Image:
    """An image as the cloud describes it."""

    image_id: str
    name: str
    description: str
    owner_id: str
    creation_date: str
    state: str
    reason: str
    public: bool
    architecture: str
    root_device_name: str
    root_device_type: str
    virtualization: str
    ena: bool
    sriov: str
    boot_mode: str
    imds: str
    """`v2.0` when every launch requires IMDSv2; empty when it does not."""
    tpm: str
    deprecated_after: str
    block_devices: tuple[BlockDevice, ...]
    product_codes: tuple[str, ...]
    tags: dict[str, str]
    protection: str = ""
    """From deregistration: `enabled-…` or `disabled …`."""
    last_launched: str = ""
    """When somebody last launched it, as EC2 knows with a day's delay; empty where nobody has."""

    @property
    def snapshot_ids(self) -> tuple[str, ...]:
        """The snapshots behind the block-device map, the root's first."""
        devices = sorted(self.block_devices, key=lambda device: device.device_name != self.root_device_name)
        return tuple(device.snapshot_id for device in devices if device.snapshot_id)

    @property
    def encrypted(self) -> bool:
        """Whether any snapshot of it is encrypted: such an image can never be public (A11)."""
        return any(device.encrypted for device in self.block_devices)


@dataclass(frozen=True)
class ExtraVolume:
    """An empty disk beside the root in the image's block-device map."""

    device_name: str
    size_gib: int
    type: Literal["gp2", "gp3", "io1", "io2", "standard"] = "gp3"


@dataclass(frozen=True)
class Registration:
    """All that RegisterImage is told; `registration_like` takes most of it from the base image."""

    name: str
    description: str
    architecture: Literal["x86_64", "arm64"]
    root_device_name: str
    root_snapshot_id: str
    root_size_gib: int | None = None
    root_type: Literal["gp2", "gp3", "io1", "io2", "standard"] = "gp3"
    extra_volumes: tuple[ExtraVolume, ...] = ()
    boot_mode: str | None = None
    imds: Literal["v2.0", "optional"] = "v2.0"
    ena: bool = True
    sriov: bool = False
    tpm: bool = False


def registration_like(base: Image, *, name: str, description: str, root_snapshot_id: str) -> Registration:
    """Return a registration that is as the base image wherever the base image decides; IMDSv2 is required.

    Use `dataclasses.replace` for what a spec says otherwise. Raises CloudFailed for an architecture that is not ours.
    """
    if base.architecture not in {"x86_64", "arm64"}:
        raise CloudFailed(f"the architecture {base.architecture} is not supported", resource=base.image_id)
    root = next((device for device in base.block_devices if device.device_name == base.root_device_name), None)
    return Registration(
        name=name,
        description=description,
        architecture="arm64" if base.architecture == "arm64" else "x86_64",
        root_device_name=base.root_device_name,
        root_snapshot_id=root_snapshot_id,
        root_size_gib=root.size_gib if root and root.size_gib else None,
        boot_mode=base.boot_mode or None,
        ena=base.ena,
        sriov=base.sriov == "simple",
        tpm=base.tpm == "v2.0",
    )


def must_inherit(base: Image) -> bool:
    """Return whether only CreateImage will do: the base image has product codes, which RegisterImage would lose."""
    return bool(base.product_codes)


def register_image(session: Session, tags: Tags, name: str, registration: Registration) -> str:
    """Register an image over a snapshot with all of its attributes (A12), and return its id.

    `name` is the name of the build's own, in the tags; `registration.name` is the one that people see. Raises
    CloudFailed, also when another image of the account has that name.
    """

    def create() -> str:
        with cloud_errors(registration.name, session.region):
            return session.client("ec2").register_image(**registration_request(tags, name, registration))["ImageId"]

    return find_or_create(
        lambda: image_ids(session, name),
        create,
        what=registration.name,
        region=session.region,
        taken_codes=NAME_TAKEN,
    )


def registration_request(tags: Tags, name: str, registration: Registration) -> "RegisterImageRequestTypeDef":
    """Return the parameters of RegisterImage."""
    root: BlockDeviceMappingTypeDef = {
        "DeviceName": registration.root_device_name,
        "Ebs": {
            "SnapshotId": registration.root_snapshot_id,
            "VolumeType": registration.root_type,
            "DeleteOnTermination": True,
        },
    }
    if registration.root_size_gib is not None:
        root["Ebs"]["VolumeSize"] = registration.root_size_gib
    request: RegisterImageRequestTypeDef = {
        "Name": registration.name,
        "Description": registration.description,
        "Architecture": registration.architecture,
        "RootDeviceName": registration.root_device_name,
        "VirtualizationType": "hvm",
        "EnaSupport": registration.ena,
        "BlockDeviceMappings": [root, *(extra_mapping(volume) for volume in registration.extra_volumes)],
        "TagSpecifications": tags.specification(name, "image"),
    }
    if registration.sriov:
        request["SriovNetSupport"] = "simple"
    if registration.boot_mode:
        request["BootMode"] = registration.boot_mode  # type: ignore[typeddict-item]
    if registration.imds == "v2.0":
        request["ImdsSupport"] = "v2.0"
    if registration.tpm:
        request["TpmSupport"] = "v2.0"
    return request


def extra_mapping(volume: ExtraVolume) -> "BlockDeviceMappingTypeDef":
    """Return the entry of the block-device map for an empty disk."""
    return {
        "DeviceName": volume.device_name,
        "Ebs": {"VolumeSize": volume.size_gib, "VolumeType": volume.type, "DeleteOnTermination": True},
    }


def create_image(
    session: Session, tags: Tags, name: str, *, instance_id: str, image_name: str, description: str
) -> str:
    """Make an image of a stopped instance, product codes and all, and return its id; its snapshots are tagged too.

    The caller then waits for it and calls `require_imds_v2`: CreateImage cannot set that. Raises CloudFailed.
    """

    def create() -> str:
        with cloud_errors(image_name, session.region):
            made = session.client("ec2").create_image(
                InstanceId=instance_id,
                Name=image_name,
                Description=description,
                NoReboot=True,
                TagSpecifications=tags.specification(name, "image", "snapshot"),
            )
        return made["ImageId"]

    return find_or_create(
        lambda: image_ids(session, name), create, what=image_name, region=session.region, taken_codes=NAME_TAKEN
    )


def copy_image(
    session: Session, tags: Tags, name: str, source: Image, source_region: str, kms_key_id: str | None
) -> str:
    """Copy an image into the session's region with all of its attributes, and return the copy's id.

    The copy bears its own tags, its snapshots too, and is private. The caller waits for it. There is no client token: a
    copy that was removed would be answered for a day. A lost answer is looked up by tag. Raises CloudFailed.
    """
    request: CopyImageRequestTypeDef = {
        "Name": source.name,
        "Description": source.description,
        "SourceImageId": source.image_id,
        "SourceRegion": source_region,
        "TagSpecifications": tags.specification(name, "image", "snapshot"),
    }
    if kms_key_id:
        request |= {"Encrypted": True, "KmsKeyId": kms_key_id}

    def create() -> str:
        with cloud_errors(source.name, session.region):
            return session.client("ec2", once=True).copy_image(**request)["ImageId"]

    return find_or_create(
        lambda: image_ids(session, name), create, what=source.name, region=session.region, taken_codes=NAME_TAKEN
    )


def deprecate_image(session: Session, image_id: str, moment: datetime) -> None:
    """Deprecate an image from a moment on, to the minute (A12). Raises CloudFailed."""
    with cloud_errors(image_id, session.region):
        session.client("ec2").enable_image_deprecation(ImageId=image_id, DeprecateAt=moment)


def disable_image(session: Session, image_id: str) -> None:
    """Let nobody launch an image, and take all permissions back; EnableImage lets its owner. Raises CloudFailed."""
    with cloud_errors(image_id, session.region):
        session.client("ec2").disable_image(ImageId=image_id)


def protect_image(session: Session, image_id: str) -> None:
    """Protect an image from deregistration, without a cooldown (A12). Raises CloudFailed."""
    with cloud_errors(image_id, session.region):
        session.client("ec2").enable_image_deregistration_protection(ImageId=image_id, WithCooldown=False)


def unprotect_image(session: Session, image_id: str) -> None:
    """Take the protection from deregistration away. Raises CloudFailed."""
    with cloud_errors(image_id, session.region):
        session.client("ec2").disable_image_deregistration_protection(ImageId=image_id)


def require_imds_v2(session: Session, image_id: str) -> None:
    """Make every launch of an image require IMDSv2 (A12); it cannot be undone. Raises CloudFailed."""
    with cloud_errors(image_id, session.region):
        session.client("ec2").modify_image_attribute(ImageId=image_id, ImdsSupport={"Value": "v2.0"})


def describe_image(session: Session, image_id: str) -> Image:
    """Return an image. Raises CloudFailed when there is none, or when the caller may not see it."""
    with cloud_errors(image_id, session.region):
        found = session.client("ec2").describe_images(ImageIds=[image_id], IncludeDeprecated=True)["Images"]
    if not found:
        raise CloudFailed(
            "there is no such image, or it is not shared with you", resource=image_id, region=session.region
        )
    return read_image(found[0])


def find_images(session: Session, name: str) -> tuple[Image, ...]:
    """Return the images of this account that bear a name of a build."""
    with cloud_errors(name, session.region):
        answer = session.client("ec2").describe_images(
            Owners=["self"],
            Filters=[{"Name": f"tag:{NAME}", "Values": [name]}],
            IncludeDeprecated=True,
            IncludeDisabled=True,
        )
    return tuple(read_image(found) for found in answer["Images"])


def built_images(session: Session) -> tuple[Image, ...]:
    """Return the images of this account that a build made, deprecated and disabled ones too. Raises CloudFailed."""
    with cloud_errors("the images of builds", session.region):
        pages = session.client("ec2").get_paginator("describe_images")
        return tuple(
            read_image(found)
            for page in pages.paginate(
                Owners=["self"],
                Filters=[{"Name": "tag-key", "Values": [BUILD_ID]}],
                IncludeDeprecated=True,
                IncludeDisabled=True,
            )
            for found in page["Images"]
        )


def images_called(session: Session, image_name: str) -> tuple[Image, ...]:
    """Return the images of this account that have a name which people see: RegisterImage refuses a second one."""
    with cloud_errors(image_name, session.region):
        answer = session.client("ec2").describe_images(
            Owners=["self"],
            Filters=[{"Name": "name", "Values": [image_name]}],
            IncludeDeprecated=True,
            IncludeDisabled=True,
        )
    return tuple(read_image(found) for found in answer["Images"] if found.get("Name") == image_name)


def image_ids(session: Session, name: str) -> list[str]:
    """Return the ids of the images that bear a name of a build."""
    return [image.image_id for image in find_images(session, name)]


def read_product_codes(session: Session, image_id: str) -> tuple[str, ...]:
    """Return the product codes of an image, from its attribute rather than its description (A11)."""
    with cloud_errors(image_id, session.region):
        found = session.client("ec2").describe_image_attribute(ImageId=image_id, Attribute="productCodes")
    return tuple(sorted(code["ProductCodeId"] for code in found.get("ProductCodes", [])))


def read_image(found: "ImageTypeDef") -> Image:
    """Return an image from the API's form of it."""
    return Image(
        image_id=found["ImageId"],
        name=found.get("Name", ""),
        description=found.get("Description", ""),
        owner_id=found.get("OwnerId", ""),
        creation_date=found.get("CreationDate", ""),
        state=found.get("State", ""),
        reason=found.get("StateReason", {}).get("Message", ""),
        public=found.get("Public", False),
        architecture=found.get("Architecture", ""),
        root_device_name=found.get("RootDeviceName", ""),
        root_device_type=found.get("RootDeviceType", ""),
        virtualization=found.get("VirtualizationType", ""),
        ena=found.get("EnaSupport", False),
        sriov=found.get("SriovNetSupport", ""),
        boot_mode=found.get("BootMode", ""),
        imds=found.get("ImdsSupport", ""),
        tpm=found.get("TpmSupport", ""),
        deprecated_after=found.get("DeprecationTime", ""),
        block_devices=tuple(read_block_device(device) for device in found.get("BlockDeviceMappings", [])),
        product_codes=tuple(sorted(code["ProductCodeId"] for code in found.get("ProductCodes", []))),
        tags=read_tags(found.get("Tags")),
        protection=found.get("DeregistrationProtection", ""),
        last_launched=found.get("LastLaunchedTime", ""),
    )


def read_block_device(found: "BlockDeviceMappingTypeDef") -> BlockDevice:
    """Return an entry of the block-device map from the API's form of it."""
    ebs = found.get("Ebs", {})
    return BlockDevice(
        device_name=found.get("DeviceName", ""),
        snapshot_id=ebs.get("SnapshotId"),
        size_gib=ebs.get("VolumeSize", 0),
        type=ebs.get("VolumeType", ""),
        encrypted=ebs.get("Encrypted", False),
        delete_on_termination=ebs.get("DeleteOnTermination", False),
        virtual_name=found.get("VirtualName"),
    )


def wait_for_image(
    session: Session,
    image_id: str,
    *,
    deadline_seconds: float = AVAILABLE_SECONDS,
    progress: Callable[[str], None] | None = None,
    clock: Clock = CLOCK,
) -> Image:
    """Wait until an image is available. Raises CloudFailed with the cloud's reason, or DeadlinePassed."""
    return wait_until(
        lambda: describe_image(session, image_id),
        lambda image: image.state == "available",
        what=image_id,
        region=session.region,
        deadline_seconds=deadline_seconds,
        progress=progress,
        state=lambda image: image.state,
        failed=lambda image: image.reason or image.state if image.state in FAILED else None,
        missing_codes=MISSING,
        clock=clock,
    )


def deregister_image(session: Session, identity: str, *, clock: Clock = CLOCK) -> None:
    """Deregister an image by id, or all that bear a name of a build, with their snapshots; gone is as good.

    One that is protected loses its protection first. Only snapshots of the same account and the same build are deleted:
    an image may be registered over others'. Raises CloudFailed.
    """
    for image in identified_images(session, identity):
        if image.protection.startswith("enabled"):
            unprotect_image(session, image.image_id)
        try:
            with cloud_errors(image.image_id, session.region):
                session.client("ec2").deregister_image(ImageId=image.image_id)
        except CloudFailed as error:
            if error_code(error) not in MISSING:
                raise
        for snapshot_id in own_snapshots(session, image):
            delete_snapshot(session, snapshot_id, clock=clock)


def identified_images(session: Session, identity: str) -> tuple[Image, ...]:
    """Return the images that an id or a name of a build stands for; none when they are gone."""
    return find_images(session, identity) if is_resource_name(identity) else present_images(session, identity)


def present_images(session: Session, image_id: str) -> tuple[Image, ...]:
    """Return the image with this id if the account has it."""
    with cloud_errors(image_id, session.region):
        answer = session.client("ec2").describe_images(
            Owners=["self"],
            Filters=[{"Name": "image-id", "Values": [image_id]}],
            IncludeDeprecated=True,
            IncludeDisabled=True,
        )
    return tuple(read_image(found) for found in answer["Images"])


def own_snapshots(session: Session, image: Image) -> list[str]:
    """Return the snapshots of an image that were made by the same build as the image, in the same account."""
    own = []
    for snapshot_id in image.snapshot_ids:
        try:
            snapshot = describe_snapshot(session, snapshot_id)
        except CloudFailed as error:
            if error_code(error) not in {"InvalidSnapshot.NotFound"}:
                raise
            continue
        build_id = image.tags.get(BUILD_ID)
        if build_id and snapshot.tags.get(BUILD_ID) == build_id and snapshot.owner_id == image.owner_id:
            own.append(snapshot_id)
    return own
