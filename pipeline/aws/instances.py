"""Instances: launched with IMDSv2 required and everything tagged, watched, stopped, terminated."""

import base64
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import TYPE_CHECKING, Literal

from pipeline.aws.creation import find_or_create
from pipeline.aws.session import Session, cloud_errors, dry_run, error_code, tolerating
from pipeline.aws.tags import BUILD_ID, NAME, Tags, is_resource_name, read_tags
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CapacityMissing, CloudFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import (
        EbsBlockDeviceTypeDef,
        FilterTypeDef,
        InstanceTypeDef,
        RunInstancesRequestTypeDef,
    )

MISSING = frozenset({"InvalidInstanceID.NotFound"})
OTHER_ZONE_MAY_DO = frozenset({"Unsupported"})
"""The zone does not offer the instance type; CapacityMissing is the other reason to try the next zone."""
CONSOLE_NOT_LIVE = frozenset({"UnsupportedOperation", "InvalidParameterCombination", "InvalidParameterValue"})

PROTECTED = "OperationNotPermitted"
TAGGED: "tuple[ResourceTypeType, ...]" = ("instance", "volume", "network-interface")
RUNNING_SECONDS = 600.0
STOPPED_SECONDS = 900.0
TERMINATED_SECONDS = 900.0
ENDED = frozenset({"shutting-down", "terminated"})


@dataclass(frozen=True)
class RootVolume:
    """What the root volume is to be; None leaves it as the image has it."""

    device_name: str
    size_gib: int | None = None
    type: Literal["gp2", "gp3", "io1", "io2", "standard"] | None = None
    kms_key_id: str | None = None


@dataclass(frozen=True)
class Launch:
    """What is asked of RunInstances."""

    image_id: str
    type: str
    key_name: str
    security_group_ids: tuple[str, ...]
    subnet_ids: tuple[str, ...]
    """Tried in this order while a zone has no capacity or does not offer the type."""
    other_types: tuple[str, ...] = ()
    """Tried in this order when no subnet has room for `type`."""
    public_address: bool = True
    user_data: str = ""
    """Never a secret: everybody on the instance can read it (A21)."""
    root_volume: RootVolume | None = None
    on_shutdown: Literal["stop", "terminate"] = "stop"
    profile: str | None = None
    """The name of an instance profile."""
    protected: bool = False
    """Refuse its termination, until that is lifted (A07)."""
    spot: bool = False
    """Of spare capacity; its request is persistent, because only such an instance can be stopped."""


@dataclass(frozen=True)
class Instance:
    """An instance as the cloud describes it."""

    instance_id: str
    image_id: str
    state: str
    reason: str
    public_address: str | None
    private_address: str | None
    zone: str
    type: str
    key_name: str
    root_device_name: str
    root_volume_id: str | None
    http_tokens: str
    hop_limit: int
    security_group_ids: tuple[str, ...]
    product_codes: tuple[str, ...]
    instance_profile: str
    """The profile that gives it a role; empty without one."""
    tags: dict[str, str]
    subnet_id: str = ""
    checks_source: bool = True
    """Whether it drops packets that are not from or for itself: only a NAT does not (A05)."""
    lasting_disks: tuple[str, ...] = ()
    """Its devices whose volumes would outlive it."""
    parts: tuple[str, ...] = ()
    """The ids of its volumes and interfaces."""
    spot_request_id: str | None = None
    profile: str | None = None
    """The name of its instance profile."""


def launch_instance(session: Session, tags: Tags, name: str, launch: Launch) -> str:
    """Launch one instance and return its id; the first type gets it for which a subnet has capacity, in their order.

    IMDSv2 is required with a hop limit of 1, and the instance, its volumes and its interface are tagged from the
    first moment. The client token is derived from the name: a repeated call returns the same instance. Raises
    CapacityMissing when no subnet's zone has capacity, CloudFailed for every other refusal.
    """
    last: CloudFailed | None = None
    for instance_type, subnet_id in product((launch.type, *launch.other_types), launch.subnet_ids):
        try:
            return launch_in(session, tags, name, replace(launch, type=instance_type), subnet_id)
        except CloudFailed as error:
            if not isinstance(error, CapacityMissing) and error_code(error) not in OTHER_ZONE_MAY_DO:
                raise
            last = error
    if last is None:
        raise CloudFailed("no subnet to launch in", resource=name, region=session.region)
    raise last


def launch_in(session: Session, tags: Tags, name: str, launch: Launch, subnet_id: str) -> str:
    """Launch in one subnet and return the instance's id.

    Missing capacity comes with status 500, which botocore would take for a passing fault and repeat for minutes.
    """

    def create() -> str:
        with cloud_errors(name, session.region):
            made = session.client("ec2", once=True).run_instances(**launch_request(tags, name, launch, subnet_id))
        return made["Instances"][0]["InstanceId"]

    return find_or_create(
        lambda: [instance.instance_id for instance in find_instances(session, name)],
        create,
        what=name,
        region=session.region,
    )


def launch_request(tags: Tags, name: str, launch: Launch, subnet_id: str) -> "RunInstancesRequestTypeDef":
    """Return the parameters of RunInstances."""
    request: RunInstancesRequestTypeDef = {
        "ClientToken": client_token(name, subnet_id, launch.type),
        "ImageId": launch.image_id,
        "InstanceType": launch.type,  # type: ignore[typeddict-item]
        "KeyName": launch.key_name,
        "MinCount": 1,
        "MaxCount": 1,
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": subnet_id,
                "Groups": list(launch.security_group_ids),
                "AssociatePublicIpAddress": launch.public_address,
                "DeleteOnTermination": True,
            }
        ],
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "InstanceInitiatedShutdownBehavior": launch.on_shutdown,
        "TagSpecifications": tags.specification(name, *TAGGED),
    }
    if launch.user_data:
        request["UserData"] = launch.user_data
    if launch.profile:
        request["IamInstanceProfile"] = {"Name": launch.profile}
    if launch.protected:
        request["DisableApiTermination"] = True
    if launch.spot:
        request["InstanceMarketOptions"] = {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
        }
        request["TagSpecifications"] = tags.specification(name, *TAGGED, "spot-instances-request")
    if launch.root_volume:
        request["BlockDeviceMappings"] = [
            {"DeviceName": launch.root_volume.device_name, "Ebs": root_options(launch.root_volume)}
        ]
    return request


def root_options(root: RootVolume) -> "EbsBlockDeviceTypeDef":
    """Return the EBS options of the root volume; it never outlives its instance."""
    options: EbsBlockDeviceTypeDef = {"DeleteOnTermination": True}
    if root.size_gib is not None:
        options["VolumeSize"] = root.size_gib
    if root.type is not None:
        options["VolumeType"] = root.type
    if root.kms_key_id is not None:
        options["Encrypted"] = True
        options["KmsKeyId"] = root.kms_key_id
    return options


def client_token(*parts: str) -> str:
    """Return a client token of 64 ASCII characters that is the same for the same parts."""
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def may_launch(
    session: Session,
    tags: Tags,
    name: str,
    image_id: str,
    instance_type: str,
    subnet_id: str | None,
    profile: str | None = None,
) -> None:
    """Ask whether an instance could be launched, with DryRun: nothing is made (A20). Raises CloudFailed if not.

    With a profile, the right to pass its role is asked too.
    """
    request: RunInstancesRequestTypeDef = {
        "DryRun": True,
        "ImageId": image_id,
        "InstanceType": instance_type,  # type: ignore[typeddict-item]
        "MinCount": 1,
        "MaxCount": 1,
        "TagSpecifications": tags.specification(name, *TAGGED),
    }
    if subnet_id:
        request["SubnetId"] = subnet_id
    if profile:
        request["IamInstanceProfile"] = {"Name": profile}
    with dry_run(image_id, session.region):
        session.client("ec2", once=True).run_instances(**request)


def describe_instance(session: Session, instance_id: str) -> Instance:
    """Return an instance. Raises CloudFailed when there is none."""
    with cloud_errors(instance_id, session.region):
        answer = session.client("ec2").describe_instances(InstanceIds=[instance_id])
    (found,) = (instance for reservation in answer["Reservations"] for instance in reservation["Instances"])
    return read_instance(found)


def read_user_data(session: Session, instance_id: str) -> str:
    """Return the user-data that the cloud keeps for an instance; nothing where it has none. Raises CloudFailed."""
    with cloud_errors(instance_id, session.region):
        answer = session.client("ec2").describe_instance_attribute(InstanceId=instance_id, Attribute="userData")
    return base64.b64decode(answer.get("UserData", {}).get("Value", "")).decode("utf-8", "replace")


def find_instances(session: Session, name: str) -> tuple[Instance, ...]:
    """Return the instances that bear a name of a build and are not ended."""
    filters: list[FilterTypeDef] = [
        {"Name": f"tag:{NAME}", "Values": [name]},
        {"Name": "instance-state-name", "Values": ["pending", "running", "stopping", "stopped"]},
    ]
    with cloud_errors(name, session.region):
        pages = session.client("ec2").get_paginator("describe_instances").paginate(Filters=filters)
        return tuple(
            read_instance(found)
            for page in pages
            for reservation in page["Reservations"]
            for found in reservation["Instances"]
        )


def read_instance(found: "InstanceTypeDef") -> Instance:
    """Return an instance from the API's form of it."""
    root_name = found.get("RootDeviceName", "")
    volumes = {device["DeviceName"]: device["Ebs"]["VolumeId"] for device in found.get("BlockDeviceMappings", [])}
    metadata = found.get("MetadataOptions", {})
    return Instance(
        instance_id=found["InstanceId"],
        image_id=found.get("ImageId", ""),
        state=found["State"]["Name"],
        reason=found.get("StateReason", {}).get("Message") or found.get("StateTransitionReason", ""),
        public_address=found.get("PublicIpAddress") or None,
        private_address=found.get("PrivateIpAddress") or None,
        zone=found.get("Placement", {}).get("AvailabilityZone", ""),
        type=found.get("InstanceType", ""),
        key_name=found.get("KeyName", ""),
        root_device_name=root_name,
        root_volume_id=volumes.get(root_name),
        http_tokens=metadata.get("HttpTokens", ""),
        hop_limit=metadata.get("HttpPutResponseHopLimit", 0),
        security_group_ids=tuple(group["GroupId"] for group in found.get("SecurityGroups", [])),
        product_codes=tuple(code["ProductCodeId"] for code in found.get("ProductCodes", [])),
        instance_profile=found.get("IamInstanceProfile", {}).get("Arn", ""),
        tags=read_tags(found.get("Tags")),
        subnet_id=found.get("SubnetId", ""),
        checks_source=found.get("SourceDestCheck", True),
        lasting_disks=tuple(
            device["DeviceName"]
            for device in found.get("BlockDeviceMappings", [])
            if not device["Ebs"].get("DeleteOnTermination")
        ),
        parts=(*volumes.values(), *(one["NetworkInterfaceId"] for one in found.get("NetworkInterfaces", []))),
        spot_request_id=found.get("SpotInstanceRequestId") or None,
        profile=found.get("IamInstanceProfile", {}).get("Arn", "").rpartition("/")[2] or None,
    )


def wait_running(
    session: Session,
    instance_id: str,
    *,
    deadline_seconds: float = RUNNING_SECONDS,
    progress: Callable[[str], None] | None = None,
    clock: Clock = CLOCK,
) -> Instance:
    """Wait until an instance runs. One that ends instead raises CloudFailed with the cloud's reason."""
    return wait_for_state(session, instance_id, "running", deadline_seconds, progress, clock, missing_codes=MISSING)


def reboot_instance(session: Session, instance_id: str) -> None:
    """Ask an instance to reboot. It stays `running` for the cloud: only the guest itself shows when it is back."""
    with cloud_errors(instance_id, session.region):
        session.client("ec2").reboot_instances(InstanceIds=[instance_id])


def start_instance(session: Session, instance_id: str, *, progress: Callable[[str], None] | None = None) -> Instance:
    """Start a stopped instance and wait until it runs. Its public address may be another one. Raises CloudFailed."""
    with cloud_errors(instance_id, session.region):
        session.client("ec2").start_instances(InstanceIds=[instance_id])
    return wait_running(session, instance_id, progress=progress)


def stop_instance(
    session: Session,
    instance_id: str,
    *,
    deadline_seconds: float = STOPPED_SECONDS,
    progress: Callable[[str], None] | None = None,
    clock: Clock = CLOCK,
) -> Instance:
    """Stop an instance, unless it stops by itself already, and wait until it is stopped (A08)."""
    with cloud_errors(instance_id, session.region):
        session.client("ec2").stop_instances(InstanceIds=[instance_id])
    return wait_stopped(session, instance_id, deadline_seconds=deadline_seconds, progress=progress, clock=clock)


def wait_stopped(
    session: Session,
    instance_id: str,
    *,
    deadline_seconds: float = STOPPED_SECONDS,
    progress: Callable[[str], None] | None = None,
    clock: Clock = CLOCK,
) -> Instance:
    """Wait until an instance is stopped. One that ends instead raises CloudFailed: its disk is gone."""
    return wait_for_state(session, instance_id, "stopped", deadline_seconds, progress, clock)


def wait_for_state(
    session: Session,
    instance_id: str,
    wanted: str,
    deadline_seconds: float,
    progress: Callable[[str], None] | None,
    clock: Clock,
    missing_codes: frozenset[str] = frozenset(),
) -> Instance:
    """Wait until an instance is in a state. One that ends instead raises CloudFailed with the cloud's reason."""
    return wait_until(
        lambda: describe_instance(session, instance_id),
        lambda instance: instance.state == wanted,
        what=instance_id,
        region=session.region,
        deadline_seconds=deadline_seconds,
        progress=progress,
        state=lambda instance: instance.state,
        failed=lambda instance: instance.reason or instance.state if instance.state in ENDED else None,
        missing_codes=missing_codes,
        clock=clock,
    )


def read_console(session: Session, instance_id: str) -> str:
    """Return what the console shows: the newest output where the instance type can, else the last recorded one.

    Empty when nothing was recorded yet. Raises CloudFailed.
    """
    ec2 = session.client("ec2")
    try:
        with cloud_errors(instance_id, session.region):
            return ec2.get_console_output(InstanceId=instance_id, Latest=True).get("Output", "")
    except CloudFailed as error:
        if error_code(error) not in CONSOLE_NOT_LIVE:
            raise
    with cloud_errors(instance_id, session.region):
        return ec2.get_console_output(InstanceId=instance_id).get("Output", "")


def terminate_instance(
    session: Session,
    identity: str,
    *,
    deadline_seconds: float = TERMINATED_SECONDS,
    progress: Callable[[str], None] | None = None,
    clock: Clock = CLOCK,
) -> None:
    """Terminate an instance by id, or all that bear a name of a build, and wait until they are; gone is as good."""
    if is_resource_name(identity):
        instance_ids = [instance.instance_id for instance in find_instances(session, identity)]
    else:
        instance_ids = [identity]
    for instance_id in instance_ids:
        start_to_terminate(session, instance_id)
    for instance_id in instance_ids:
        wait_terminated(session, instance_id, deadline_seconds=deadline_seconds, progress=progress, clock=clock)


def start_to_terminate(session: Session, instance_id: str) -> None:
    """Ask for the end of an instance; one that is gone is as good. Its protection is lifted first, if it has any."""
    with tolerating(MISSING, instance_id, session.region):
        try:
            with cloud_errors(instance_id, session.region):
                session.client("ec2").terminate_instances(InstanceIds=[instance_id])
        except CloudFailed as error:
            if error_code(error) != PROTECTED:
                raise
            session.client("ec2").modify_instance_attribute(
                InstanceId=instance_id, DisableApiTermination={"Value": False}
            )
            session.client("ec2").terminate_instances(InstanceIds=[instance_id])


def try_to_terminate(session: Session, instance_id: str) -> str:
    """Ask for the end of an instance that is protected from it, and return how that was refused (A07).

    Empty when it was not refused: then the instance ends.
    """
    try:
        with cloud_errors(instance_id, session.region):
            session.client("ec2").terminate_instances(InstanceIds=[instance_id])
    except CloudFailed as error:
        if error_code(error) != PROTECTED:
            raise
        return str(error)
    return ""


def forward_for_others(session: Session, instance_id: str) -> None:
    """Switch the source/destination check off: what a NAT instance needs, and no other (A05)."""
    with cloud_errors(instance_id, session.region):
        session.client("ec2").modify_instance_attribute(InstanceId=instance_id, SourceDestCheck={"Value": False})


def untagged(session: Session, identities: Sequence[str], build_id: str) -> tuple[str, ...]:
    """Return those of these resources that do not bear the tag of a build (A07)."""
    filters: list[FilterTypeDef] = [
        {"Name": "resource-id", "Values": list(identities)},
        {"Name": "key", "Values": [BUILD_ID]},
    ]
    with cloud_errors(", ".join(identities), session.region):
        pages = session.client("ec2").get_paginator("describe_tags").paginate(Filters=filters)
        found = {tag.get("ResourceId") for page in pages for tag in page["Tags"] if tag.get("Value") == build_id}
    return tuple(identity for identity in identities if identity not in found)


def wait_terminated(
    session: Session,
    instance_id: str,
    *,
    deadline_seconds: float = TERMINATED_SECONDS,
    progress: Callable[[str], None] | None = None,
    clock: Clock = CLOCK,
) -> None:
    """Wait until an instance is terminated, or no longer listed."""
    wait_until(
        lambda: state_or_gone(session, instance_id),
        lambda state: state == "terminated",
        what=instance_id,
        region=session.region,
        deadline_seconds=deadline_seconds,
        progress=progress,
        clock=clock,
    )


def state_or_gone(session: Session, instance_id: str) -> str:
    """Return an instance's state; one that the cloud no longer lists is terminated."""
    try:
        return describe_instance(session, instance_id).state
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
        return "terminated"
