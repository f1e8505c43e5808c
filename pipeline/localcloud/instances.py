"""Instances: RunInstances makes a real guest, and the states of the API are those of the guest.

A machine is started and stopped in a thread of its own, under its instance's lock; what the guest does by itself (a
power-off) arrives as its exit. Behaviour is that of the EC2 API Reference and of the EC2 User Guide's chapter
"Instance lifecycle".
"""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

import base64
import contextlib
import datetime
import ipaddress
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

from moto.core.responses import ActionResult, EmptyResult
from moto.core.types import Base64EncodedString
from moto.core.utils import utcnow
from moto.ec2.models.instance_types import INSTANCE_TYPES
from moto.ec2.models.instances import (
    Instance,
    InstanceState,
    MetadataOptions,
    Reservation,
    StateReason,
)
from moto.ec2.utils import parse_user_data, random_ami_id

from pipeline.localcloud.guests import Guest, GuestFailed, GuestSettings
from pipeline.localcloud.images import Image, ImageBackend, ImageHandlers, Mapping, describe_codes
from pipeline.localcloud.listing import passes, take_page
from pipeline.localcloud.machines import Reach
from pipeline.localcloud.metadata import InstanceView
from pipeline.localcloud.refusals import Refused, not_found, required

BootMode = Literal["legacy-bios", "uefi"]

CODES = {"pending": 0, "running": 16, "shutting-down": 32, "terminated": 48, "stopping": 64, "stopped": 80}
MOST_MEMORY_MIB = 2048
"""Guests share one host: a larger instance type gets this much, and the API says what the type has."""
FORGET_TERMINATED = datetime.timedelta(hours=1)
COMMON_PORTS = (22, 25, 53, 80, 110, 143, 443, 465, 587, 993, 995, 2222, 3000, 3306, 5432, 6379, 8000, 8080, 8443, 9090)
WIDE_RANGE = 64
FIRMWARE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
MUST_BE_STOPPED = {"InstanceType", "Kernel", "Ramdisk", "UserData", "EnaSupport", "SriovNetSupport"}


class LocalInstance(Instance):
    """moto's instance, with what it leaves out."""

    boot_mode: str | None = None
    current_instance_boot_mode: BootMode = "legacy-bios"
    ena_support = True
    platform_details = "Linux/UNIX"
    usage_operation = "RunInstances"
    ended: datetime.datetime | None = None

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self.codes: list[str] = []
        self.image_record: dict[str, Any] = {}
        super().__init__(*arguments, **options)

    @property
    def public_dns_name(self) -> str:
        """Return no name: none would resolve to an address of this host."""
        return ""

    def set_codes(self, codes: Iterable[str]) -> None:
        """Let the instance have these product codes, and no other."""
        self.codes = list(codes)
        self.product_codes = cast(list[str], describe_codes(self.codes))


FILTERS: dict[str, Callable[[LocalInstance], Any]] = {
    "architecture": lambda instance: instance.architecture,
    "availability-zone": lambda instance: instance.availability_zone,
    "block-device-mapping.device-name": lambda instance: list(instance.block_device_mapping),
    "block-device-mapping.volume-id": lambda instance: [
        block.volume_id for _, block in instance.get_block_device_mapping
    ],
    "client-token": lambda instance: instance.client_token,
    "dns-name": lambda instance: instance.public_dns_name,
    "iam-instance-profile.arn": lambda instance: (instance.iam_instance_profile or {}).get("Arn"),
    "image-id": lambda instance: instance.image_id,
    "instance-id": lambda instance: instance.id,
    "instance-state-code": lambda instance: instance.state_code,
    "instance-state-name": lambda instance: instance.state,
    "instance-type": lambda instance: instance.instance_type,
    "instance.group-id": lambda instance: [group.id for group in instance.security_groups],
    "instance.group-name": lambda instance: [group.name for group in instance.security_groups],
    "ip-address": lambda instance: instance.public_ip if instance.nics else None,
    "key-name": lambda instance: instance.key_name,
    "launch-time": lambda instance: instance.launch_time.strftime("%Y-%m-%dT%H:%M:%S.000Z"),
    "network-interface.network-interface-id": lambda instance: [nic.id for nic in instance.nics.values()],
    "owner-id": lambda instance: instance.owner_id,
    "private-dns-name": lambda instance: instance.private_dns_name,
    "private-ip-address": lambda instance: instance.private_ip,
    "product-code": lambda instance: instance.codes,
    "root-device-name": lambda instance: instance.root_device_name,
    "root-device-type": lambda instance: "ebs",
    "source-dest-check": lambda instance: instance.source_dest_check,
    "state-reason-code": lambda instance: instance.state_reason.code,
    "subnet-id": lambda instance: instance.subnet_id,
    "tenancy": lambda instance: "default",
    "virtualization-type": lambda instance: instance.virtualization_type,
    "vpc-id": lambda instance: instance.vpc_id,
}


def set_state(instance: LocalInstance, name: str, reason: StateReason | None = None, transition: str = "") -> None:
    """Move an instance to a state."""
    instance._state = InstanceState(name, CODES[name])
    instance.state_reason = reason or StateReason()
    instance._reason = transition


def is_forgotten(instance: LocalInstance) -> bool:
    """Tell whether an instance was terminated so long ago that EC2 shows it no more."""
    return instance.ended is not None and utcnow() - instance.ended > FORGET_TERMINATED


def user_initiated(instance: LocalInstance, name: str) -> None:
    """Move an instance to a state because the user asked for it."""
    code = "Client.UserInitiatedShutdown"
    moment = utcnow().strftime("%Y-%m-%d %H:%M:%S GMT")
    set_state(instance, name, StateReason(f"{code}: User initiated shutdown", code), f"User initiated ({moment})")


@dataclass(frozen=True)
class Change:
    """A state change as StopInstances, StartInstances and TerminateInstances answer it."""

    instance_id: str
    before: InstanceState
    after: InstanceState

    def describe(self) -> dict[str, Any]:
        """Return it as the API has it."""
        return {
            "InstanceId": self.instance_id,
            "PreviousState": {"Code": self.before.code, "Name": self.before.name},
            "CurrentState": {"Code": self.after.code, "Name": self.after.name},
        }


def merge_mappings(image: Image, asked: Iterable[Mapping]) -> list[Mapping]:
    """Return the block devices of a launch: the image's, changed and extended by those that the caller names."""
    merged = {mapping["DeviceName"]: mapping for mapping in image.mappings if "Ebs" in mapping}
    for mapping in asked:
        name = mapping["DeviceName"]
        if mapping.get("NoDevice") is not None:
            merged.pop(name, None)
        elif "Ebs" in mapping:
            base = merged.get(name, {"DeviceName": name, "Ebs": {}})
            changed = {key: value for key, value in mapping["Ebs"].items() if value is not None}
            other = changed.get("SnapshotId") not in (None, base["Ebs"].get("SnapshotId"))
            if other and name == image.root_device_name:
                raise Refused("InvalidBlockDeviceMapping", "snapshotId cannot be modified on root device")
            merged[name] = {"DeviceName": name, "Ebs": {**base["Ebs"], **changed}}
    if image.root_device_name not in merged:
        raise Refused("InvalidBlockDeviceMapping", f"The root device {image.root_device_name} can't be left out")
    root = merged.pop(image.root_device_name)
    return [root, *merged.values()]


def firmware(image: Image, instance_type: str) -> BootMode:
    """Return how a guest boots: UEFI when the image wants it, or prefers it and the host has it; BIOS otherwise."""
    supported = INSTANCE_TYPES.get(instance_type, {}).get("SupportedBootModes", ["legacy-bios", "uefi"])
    if image.boot_mode == "uefi":
        return "uefi"
    if image.boot_mode == "uefi-preferred" and "uefi" in supported and FIRMWARE.exists():
        return "uefi"
    return "legacy-bios"


class LocalInstanceBackend(ImageBackend):
    """The instances of one account in one region, over its images."""

    def run_instances(
        self,
        image_id: str,
        count: int,
        user_data: Base64EncodedString | None,
        security_group_names: list[str],
        **options: Any,
    ) -> Reservation:
        """Launch instances of an image: records and disks now, the machines in threads of their own."""
        self.cloud.check_room()
        image = self.launchable_image(self.resolve_image_id(image_id))
        self.check_launch(image, options)
        asked = options.pop("block_device_mappings", [])
        mappings = merge_mappings(image, asked)
        for mapping in asked:
            if (mapping.get("Ebs") or {}).get("SnapshotId") not in (None, *image.snapshot_ids):
                self.find_snapshot(mapping["Ebs"]["SnapshotId"])
        options["block_device_mappings"] = [self.volume_request(mapping) for mapping in mappings]
        if not options.get("subnet_id") and not options.get("nics"):
            options["subnet_id"] = self.default_subnet_id(options.get("placement"))
        known = set(self.reservations)
        try:
            reservation = super().run_instances(image.id, count, user_data, security_group_names, **options)
        except BaseException:
            self.undo_launch(set(self.reservations) - known)
            raise
        for instance in cast(list[LocalInstance], reservation.instances):
            self.complete_instance(instance, image, options.get("metadata_options") or {})
            self.cloud.later(partial(self.boot, instance))
        image.last_launched_time = utcnow()
        return reservation

    def check_launch(self, image: Image, options: dict[str, Any]) -> None:
        """Refuse a type or a key pair that does not exist, and an architecture that the type does not have."""
        instance_type = options["instance_type"]
        described = INSTANCE_TYPES.get(instance_type)
        if described is None:
            message = f"Invalid value '{instance_type}' for InstanceType."
            raise Refused("InvalidParameterValue", message)
        architectures = described["ProcessorInfo"]["SupportedArchitectures"]
        if image.architecture not in architectures:
            message = (
                f"The architecture '{','.join(architectures)}' of the specified instance type does not match the"
                f" architecture '{image.architecture}' of the specified AMI. Specify an instance type and an AMI that"
                " have matching architectures, and try again."
            )
            raise Refused("InvalidParameterValue", message)
        if image.architecture != "x86_64":
            raise Refused("Unsupported", f"The local cloud runs x86_64 guests, not {image.architecture}")
        key_name = options.get("key_name")
        if key_name and key_name not in self.key_pairs:
            raise Refused("InvalidKeyPair.NotFound", f"The key pair '{key_name}' does not exist")

    def undo_launch(self, reservation_ids: set[str]) -> None:
        """Take away what a launch that failed half-way made."""
        for reservation_id in reservation_ids:
            for instance in cast(list[LocalInstance], self.reservations.pop(reservation_id).instances):
                self.release(instance)
                self.tags.pop(instance.id, None)

    def volume_request(self, mapping: Mapping) -> Mapping:
        """Return a block device as moto's launch wants it."""
        ebs = mapping["Ebs"]
        request = {name: ebs.get(name) for name in ("SnapshotId", "VolumeSize", "VolumeType", "KmsKeyId")}
        request["VolumeType"] = request["VolumeType"] or "gp2"
        request["Encrypted"] = bool(ebs.get("Encrypted"))
        request["DeleteOnTermination"] = ebs.get("DeleteOnTermination", True)
        return {"DeviceName": mapping["DeviceName"], "Ebs": request}

    def resolve_image_id(self, image_id: str) -> str:
        """Return the image id, looked up where it is `resolve:ssm:PARAMETER[:VERSION]`."""
        if not (image_id or "").startswith("resolve:ssm:"):
            return image_id
        name = image_id.removeprefix("resolve:ssm:")
        value = self.read_parameter(name)
        if value is None:
            message = f"Invalid value '{image_id}' for parameter ImageId: the parameter {name} does not exist"
            raise Refused("InvalidParameterValue", message)
        return value

    def default_subnet_id(self, zone: str | None) -> str:
        """Return the default subnet of a zone, or the first one."""
        subnets = self.get_default_subnets()
        if not subnets:
            raise Refused("VPCIdNotSpecified", "No default VPC for this user")
        if zone and zone not in subnets:
            raise Refused("InvalidParameterValue", f"Invalid availability zone: [{zone}]")
        return str((subnets[zone] if zone else subnets[min(subnets)]).id)

    def complete_instance(self, instance: LocalInstance, image: Image, asked: dict[str, Any]) -> None:
        """Give a new instance what moto leaves out, and an address that can be reached.

        An image that demands IMDSv2 decides what the launch has not `asked` of the metadata service.
        """
        set_state(instance, "pending")
        instance.hypervisor, instance.root_device_type = "xen", "ebs"
        instance.root_device_name = image.root_device_name
        instance.ena_support, instance.sriov_net_support = image.ena_support, image.sriov_net_support or "simple"
        instance.boot_mode, instance.current_instance_boot_mode = (
            image.boot_mode,
            firmware(image, instance.instance_type),
        )
        instance.set_codes(image.product_codes)
        instance.image_record = {"Name": image.name, "CreationDate": image.creation_date, "OwnerId": image.owner_id}
        instance.kernel_id = image.kernel_id or ""
        if image.imds_support == "v2.0":
            defaults = {"HttpTokens": "required", "HttpPutResponseHopLimit": 2}
            instance.metadata_options = MetadataOptions({**defaults, **asked})
        for nic in instance.nics.values():
            nic.delete_on_termination = True
        instance.security_groups = list(instance.nics[0].group_set)
        self.give_address(instance)

    def give_address(self, instance: LocalInstance) -> None:
        """Replace the random public address, where an instance has one, by one of 127.0.0.0/8."""
        nic = instance.nics[0]
        if nic.public_ip is not None or str(nic.public_ip_auto_assign).lower() == "true":
            nic.public_ip = self.machines.addresses.take()

    def take_address(self, instance: LocalInstance) -> None:
        """Give back the public address."""
        nic = instance.nics.get(0)
        if nic is not None and nic.public_ip and nic.public_ip.startswith("127."):
            self.machines.addresses.release(nic.public_ip)
            nic.public_ip = None

    def boot(self, instance: LocalInstance) -> None:
        """Start the machine of a pending instance. One that does not start is terminated, as on EC2."""
        with self.machines.lock(instance.id):
            with self.cloud.lock:
                if instance.state != "pending":
                    return
                settings = self.guest_settings(instance)
            try:
                self.start_machine(instance, settings)
            except (GuestFailed, OSError, KeyError) as error:
                self.fail_boot(instance, str(error))
                return
            with self.cloud.changing():
                if instance.state == "pending" and self.machines.running(instance.id):
                    set_state(instance, "running")

    def start_machine(self, instance: LocalInstance, settings: GuestSettings) -> None:
        """Start the guest of an instance."""
        self.machines.start(
            settings,
            lambda: self.view(instance),
            lambda guest: self.after_exit(instance, guest),
            self.reach(instance),
        )

    def reach(self, instance: LocalInstance) -> Reach:
        """Return what is asked about an instance at each connection."""
        return Reach(lambda port, source: self.may_connect(instance, port, source), lambda: self.open_ports(instance))

    def fail_boot(self, instance: LocalInstance, message: str) -> None:
        """Terminate an instance whose machine did not start, and say why."""
        with self.cloud.changing():
            code = "Server.InternalError"
            set_state(instance, "terminated", StateReason(f"{code}: {message}", code), "Server.InternalError")
            instance.ended = utcnow()
            self.release(instance)

    def guest_settings(self, instance: LocalInstance) -> GuestSettings:
        """Return what the machine of an instance is made of now."""
        described = INSTANCE_TYPES.get(instance.instance_type, {})
        blocks = dict(instance.get_block_device_mapping)
        order = [instance.root_device_name, *(name for name in sorted(blocks) if name != instance.root_device_name)]
        disks = tuple(
            (name, blocks[name].volume_id, self.machines.disks.volume_path(blocks[name].volume_id)) for name in order
        )
        return GuestSettings(
            instance_id=instance.id,
            private_address=str(instance.private_ip),
            public_address=instance.public_ip or "",
            mac=instance.nics[0].mac_address,
            processors=min(described.get("VCpuInfo", {}).get("DefaultVCpus", 1), self.machines.processors),
            memory_mib=min(described.get("MemoryInfo", {}).get("SizeInMiB", 1024), MOST_MEMORY_MIB),
            boot_mode=instance.current_instance_boot_mode,
            disks=disks,
            egress=self.machines.egress and self.lets_anything_out(instance),
            instance_type=instance.instance_type,
        )

    def after_exit(self, instance: LocalInstance, guest: Guest) -> None:
        """Follow a guest that has ended: stopped if that was asked for, else what the instance says of a power-off."""
        if not self.machines.is_current(instance.id, guest):
            return
        with self.cloud.changing():
            if instance.state in ("shutting-down", "terminated", "stopped"):
                return
            self.machines.close_proxy(instance.id)
            if instance.state == "stopping":
                self.finish_stop(instance)
                return
            code = "Client.InstanceInitiatedShutdown"
            reason = StateReason(f"{code}: Instance initiated shutdown", code)
            if instance.instance_initiated_shutdown_behavior == "terminate":
                set_state(instance, "terminated", reason)
                instance.ended = utcnow()
                self.release(instance)
            else:
                set_state(instance, "stopped", reason)
                self.take_address(instance)

    def finish_stop(self, instance: LocalInstance) -> None:
        """Let a stopping instance be stopped: its public address is gone, its disks stay."""
        set_state(instance, "stopped", instance.state_reason, instance._reason)
        self.take_address(instance)

    def release(self, instance: LocalInstance) -> None:
        """Take away what a terminated instance had: interfaces, and the volumes that are to go with it."""
        self.machines.forget(instance.id)
        self.take_address(instance)
        for device, block in instance.get_block_device_mapping:
            volume = self.volumes.get(block.volume_id)
            del instance.block_device_mapping[device]
            if volume is None:
                continue
            volume.attachment = None
            if block.delete_on_termination:
                del self.volumes[volume.id]
                self.tags.pop(volume.id, None)
                self.drop_disk(volume.id)
        for nic in list(instance.nics.values()):
            nic.stop()
            if nic.delete_on_termination:
                with contextlib.suppress(Exception):
                    nic.delete()

    def one_instance(self, instance_id: str) -> LocalInstance:
        """Return an instance, of moto's own look-up, or refuse."""
        instance = self.get_instance_by_id(instance_id)
        if instance is None:
            raise not_found("instance", instance_id)
        return cast(LocalInstance, instance)

    def stop(self, instance: LocalInstance, *, force: bool = False) -> Change:
        """Power an instance off; it is `stopping` until its guest is gone."""
        before = instance._state
        if instance.state in ("stopped", "stopping"):
            return Change(instance.id, before, before)
        if instance.state != "running":
            raise Refused("IncorrectInstanceState", f"Instance '{instance.id}' is {instance.state}, not running")
        if instance.disable_api_stop:
            raise Refused(
                "OperationNotPermitted",
                f"The instance '{instance.id}' may not be stopped. Modify its 'disableApiStop' instance attribute"
                " and try again.",
            )
        user_initiated(instance, "stopping")
        self.cloud.later(lambda: self.power_off(instance, force=force))
        return Change(instance.id, before, instance._state)

    def power_off(self, instance: LocalInstance, *, force: bool) -> None:
        """Wait until the machine of a stopping instance is off."""
        with self.machines.lock(instance.id):
            self.machines.shut_down(instance.id, force=force)
            with self.cloud.changing():
                if instance.state == "stopping":
                    self.finish_stop(instance)

    def start(self, instance: LocalInstance) -> Change:
        """Start a stopped instance, with a new public address."""
        before = instance._state
        if instance.state in ("running", "pending"):
            return Change(instance.id, before, before)
        if instance.state != "stopped":
            raise Refused(
                "IncorrectInstanceState",
                f"The instance '{instance.id}' is not in a state from which it can be started.",
            )
        set_state(instance, "pending")
        instance.launch_time = utcnow()
        self.give_address(instance)
        self.cloud.later(lambda: self.boot(instance))
        return Change(instance.id, before, instance._state)

    def terminate(self, instance: LocalInstance) -> Change:
        """End an instance for good."""
        before = instance._state
        if instance.state in ("shutting-down", "terminated"):
            return Change(instance.id, before, before)
        if instance.disable_api_termination:
            raise Refused(
                "OperationNotPermitted",
                f"The instance '{instance.id}' may not be terminated. Modify its 'disableApiTermination' instance"
                " attribute and try again.",
            )
        user_initiated(instance, "shutting-down")
        self.cloud.later(lambda: self.end(instance))
        return Change(instance.id, before, instance._state)

    def end(self, instance: LocalInstance) -> None:
        """Pull the plug of an instance that is shutting down, and take everything away."""
        with self.machines.lock(instance.id):
            self.machines.shut_down(instance.id, force=True)
            with self.cloud.changing():
                if instance.state == "shutting-down":
                    user_initiated(instance, "terminated")
                    instance.ended = utcnow()
                    self.release(instance)

    def forget_terminated(self) -> None:
        """Drop instances that were terminated an hour ago, with their consoles."""
        for reservation_id, reservation in list(self.reservations.items()):
            instances = cast(list[LocalInstance], reservation.instances)
            for instance in filter(is_forgotten, instances):
                self.machines.discard(instance.id)
            reservation.instances = [instance for instance in instances if not is_forgotten(instance)]
            if not reservation.instances:
                del self.reservations[reservation_id]

    def recover_instances(self) -> None:
        """After a restart: nothing runs any more, and what was ending has ended."""
        for instance in cast(list[LocalInstance], self.all_instances()):
            if instance.state == "shutting-down":
                user_initiated(instance, "terminated")
                instance.ended = utcnow()
                self.release(instance)
            elif instance.state in ("pending", "running", "stopping"):
                set_state(instance, "stopped", instance.state_reason, "Server.InstanceStop: the local cloud stopped")
                instance.nics[0].public_ip = None

    def rules(self, instance: LocalInstance) -> list[Any]:
        """Return the ingress rules of the groups of an instance."""
        return [rule for group in groups_of(instance) for rule in group.ingress_rules]

    def lets_anything_out(self, instance: LocalInstance) -> bool:
        """Tell whether the security groups let an instance out at all; each connection is judged on the wire too."""
        return any(group.egress_rules for group in groups_of(instance))

    def may_connect(self, instance: LocalInstance, port: int, source: str) -> bool:
        """Tell whether the security groups let an address connect to a port now."""
        with self.cloud.lock:
            return any(rule_admits(rule, "tcp", port, source) for rule in self.rules(instance))

    def open_ports(self, instance: LocalInstance) -> set[int]:
        """Return the ports that the security groups open to anybody; of wide ranges the common ones."""
        with self.cloud.lock:
            return {port for rule in self.rules(instance) for port in rule_ports(rule)}

    def view(self, instance: LocalInstance) -> InstanceView:
        """Return what the metadata service answers for an instance now."""
        with self.cloud.lock:
            return self.make_view(instance)

    def make_view(self, instance: LocalInstance) -> InstanceView:
        """Put the view together."""
        subnet = self.get_subnet(str(instance.subnet_id))
        groups = list(instance.nics[0].group_set)
        options = instance.metadata_options
        key = self.key_pairs.get(str(instance.key_name))
        role_name, profile_arn = self.role_of(instance)
        tags = self.tags.get(instance.id, {}) if options.instance_metadata_tags == "enabled" else None
        user_data = base64.b64decode(str(instance.user_data)) if instance.user_data else None
        devices = {"ami": instance.root_device_name, "root": instance.root_device_name}
        others = [name for name, _ in instance.get_block_device_mapping if name != instance.root_device_name]
        devices |= {f"ebs{number}": name for number, name in enumerate(others, 1)}
        return InstanceView(
            instance_id=instance.id,
            image_id=instance.image_id,
            account_id=self.account_id,
            region=self.region_name,
            zone=str(instance.availability_zone),
            instance_type=instance.instance_type,
            private_address=str(instance.private_ip),
            mac=instance.nics[0].mac_address,
            public_address=instance.public_ip,
            hostname=instance.private_dns_name,
            public_keys={key.key_name: key.public_key.strip()} if key else {},
            user_data=user_data,
            product_codes=tuple(instance.codes),
            tokens_required=options.http_tokens == "required",
            hop_limit=int(options.http_put_response_hop_limit or 1),
            endpoint_enabled=options.http_endpoint != "disabled",
            role_name=role_name,
            role_profile_arn=profile_arn,
            role_credentials=lambda: self.role_credentials(role_name),
            launch_time=instance.launch_time.strftime("%Y-%m-%dT%H:%M:%SZ"),
            launch_index=int(instance.ami_launch_index),
            architecture=instance.architecture,
            reservation_id=self.reservation_of(instance),
            security_groups=tuple(group.name for group in groups),
            security_group_ids=tuple(group.id for group in groups),
            interface_id=instance.nics[0].id,
            subnet_id=subnet.id,
            subnet_cidr=subnet.cidr_block,
            vpc_id=subnet.vpc_id,
            vpc_cidr=self.get_vpc(subnet.vpc_id).cidr_block,
            zone_id=subnet._availability_zone.zone_id,
            tags=dict(tags) if tags is not None else None,
            block_devices=devices,
        )

    def reservation_of(self, instance: LocalInstance) -> str:
        """Return the id of the reservation that an instance was launched in."""
        return next((key for key, found in self.reservations.items() if instance in found.instances), "")

    def make_image(self, params: Any, tags: dict[str, str], snapshot_tags: dict[str, str]) -> Image:
        """Make an image of an instance: snapshots of its volumes now, or after a shutdown where it runs."""
        self.cloud.check_room()
        required(params, "InstanceId", "Name")
        instance = self.one_instance(params["InstanceId"])
        if instance.state not in ("running", "stopped"):
            message = f"The instance {instance.id} is {instance.state}, neither running nor stopped"
            raise Refused("IncorrectState", message)
        self.check_name(params["Name"])
        image_id = random_ami_id()
        mappings, pairs = self.image_mappings(instance, image_id, params.get("BlockDeviceMappings") or [])
        codes = {
            *instance.codes,
            *(code for volume_id, _ in pairs for code in self.one_volume(volume_id).product_codes),
        }
        image = Image(
            id=image_id,
            name=params["Name"],
            owner_id=self.account_id,
            region=self.region_name,
            description=params.get("Description") or "",
            architecture=instance.architecture,
            boot_mode=params.get("BootModeOverride") or instance.boot_mode,
            root_device_name=instance.root_device_name,
            mappings=mappings,
            ena_support=bool(instance.ena_support),
            sriov_net_support=instance.sriov_net_support,
            imds_support=self.inherited_imds(instance),
            product_codes=sorted(codes),
            source_instance_id=instance.id,
            source_image_id=instance.image_id,
            source_image_region=self.region_name,
        )
        running = instance.state == "running"
        reboot = running and not params.get("NoReboot")
        if not reboot:
            try:
                self.take_snapshots(instance, pairs)
            except Exception:
                for _, snapshot_id in pairs:
                    self.own_snapshots.pop(snapshot_id, None)
                raise
        self.add_image(image, tags)
        self.create_tags([snapshot_id for _, snapshot_id in pairs], snapshot_tags)
        self.cloud.later(lambda: self.finish_image(instance, image, pairs, reboot=reboot))
        return image

    def inherited_imds(self, instance: LocalInstance) -> str | None:
        """Return the IMDS support of the image that an instance was launched from."""
        source = self.image_in(self.region_name, instance.image_id)
        return source.imds_support if source else None

    def image_mappings(
        self, instance: LocalInstance, image_id: str, asked: list[Mapping]
    ) -> tuple[list[Mapping], list[tuple[str, str]]]:
        """Return an image's block devices and the pairs of volume and pending snapshot that they are made of."""
        changes = {mapping["DeviceName"]: mapping for mapping in asked}
        mappings, pairs = [], []
        for device, block in instance.get_block_device_mapping:
            change = changes.pop(device, {})
            if change.get("NoDevice") is not None:
                continue
            volume = self.one_volume(block.volume_id)
            snapshot = self.snapshot_record(volume, f"Created by CreateImage({instance.id}) for {image_id}")
            pairs.append((volume.id, snapshot.id))
            ebs = {
                "SnapshotId": snapshot.id,
                "VolumeSize": volume.size,
                "VolumeType": volume.volume_type,
                "DeleteOnTermination": bool(block.delete_on_termination),
                "Encrypted": bool(volume.encrypted),
            }
            mappings.append({"DeviceName": device, "Ebs": ebs | change.get("Ebs", {})})
        mappings += [self.complete_mapping(mapping) for mapping in changes.values() if mapping.get("NoDevice") is None]
        return mappings, pairs

    def take_snapshots(self, instance: LocalInstance, pairs: list[tuple[str, str]]) -> None:
        """Freeze the volumes of an instance, through its guest when it runs."""
        guest = self.machines.running(instance.id)
        for volume_id, snapshot_id in pairs:
            self.machines.disks.snapshot_volume(volume_id, snapshot_id, guest)

    def finish_image(
        self, instance: LocalInstance, image: Image, pairs: list[tuple[str, str]], *, reboot: bool
    ) -> None:
        """Complete a pending image; where the instance runs and may be rebooted, shut it down for the snapshots."""
        if reboot:
            try:
                self.snapshot_between_boots(instance, pairs)
            except (GuestFailed, OSError, KeyError) as error:
                with self.cloud.changing():
                    image.state, image.state_reason = "failed", f"Client.InternalError: {error}"
                return
        self.settle_snapshots([snapshot_id for _, snapshot_id in pairs])
        self.settle_image(image)

    def snapshot_between_boots(self, instance: LocalInstance, pairs: list[tuple[str, str]]) -> None:
        """Power off, snapshot and start again; the instance stays `running` all the time, as on EC2."""
        with self.machines.lock(instance.id):
            guest = self.machines.running(instance.id)
            if guest is not None:
                self.machines.shut_down_for_restart(instance.id)
            self.take_snapshots(instance, pairs)
            if guest is not None and instance.state == "running":
                try:
                    self.start_machine(instance, self.guest_settings(instance))
                except (GuestFailed, OSError, KeyError) as error:
                    self.fail_boot(instance, str(error))


def groups_of(instance: LocalInstance) -> list[Any]:
    """Return the security groups of an instance."""
    return list(instance.nics[0].group_set) if instance.nics else list(instance.security_groups)


def rule_admits(rule: Any, protocol: str, port: int, peer: str, peer_groups: Collection[str] = ()) -> bool:
    """Tell whether a security group's rule is about a packet and its peer: by its address, or by its groups."""
    if rule.ip_protocol not in ("-1", protocol):
        return False
    if rule.ip_protocol in ("tcp", "udp") and not rule.from_port <= port <= rule.to_port:
        return False
    if rule.cidr_ipv4:
        return ipaddress.ip_address(peer) in ipaddress.ip_network(rule.cidr_ipv4, strict=False)
    return rule.source_group.get("GroupId") in peer_groups


def rule_ports(rule: Any) -> Iterable[int]:
    """Return the TCP ports that a rule is about; of a wide range the common ones."""
    if rule.ip_protocol == "-1":
        return COMMON_PORTS
    if rule.ip_protocol != "tcp":
        return ()
    if rule.to_port - rule.from_port < WIDE_RANGE:
        return range(rule.from_port, rule.to_port + 1)
    return [port for port in COMMON_PORTS if rule.from_port <= port <= rule.to_port]


class InstanceHandlers(ImageHandlers):
    """Answers the actions on instances that moto answers otherwise, or not at all."""

    @property
    def backend(self) -> LocalInstanceBackend:
        """The caller's account in the request's region."""
        return self.ec2_backend  # type: ignore[no-any-return]

    def run_instances(self) -> ActionResult:
        """RunInstances: moto reads the request, `LocalInstanceBackend.run_instances` does the work."""
        required(self.params, "MaxCount", "MinCount")
        template = self.template_data()
        for name in ("ImageId", "InstanceType", "KeyName"):
            if not self.params.get(name) and template.get(name):
                self.params[name] = template[name]
        required(self.params, "ImageId")
        most = int(self.params["MaxCount"])
        if not 1 <= int(self.params["MinCount"]) <= most <= 20:
            raise Refused("InvalidParameterValue", "MinCount and MaxCount must be 1 to 20, and in this order")
        self.params["MinCount"] = most
        result = super().run_instances()
        for instance in cast(Reservation, result.result).instances:
            instance.disable_api_termination = bool(self.params.get("DisableApiTermination"))
            for interface in instance.nics.values():
                interface.add_tags(self.tags_for("network-interface"))
        return result

    def _parse_block_device_mapping(self) -> list[Mapping]:
        """Return the block devices as the caller names them, over those of the launch template."""
        return [
            *(self.template_data().get("BlockDeviceMappings") or []),
            *(self.params.get("BlockDeviceMappings") or []),
        ]

    def template_data(self) -> dict[str, Any]:
        """Return the launch template's data, or nothing."""
        template = self.params.get("LaunchTemplate")
        return dict(self.backend._get_template_from_args(template).data) if template else {}

    def describe_instances(self) -> ActionResult:
        """DescribeInstances, without what was terminated long ago."""
        self.backend.forget_terminated()
        wanted = self.params.get("InstanceIds") or []
        if wanted and self.params.get("MaxResults"):
            message = "The parameter instancesSet cannot be used with the parameter maxResults"
            raise Refused("InvalidParameterCombination", message)
        for instance_id in wanted:
            self.backend.one_instance(instance_id)
        filters = self.filters()
        found = []
        for reservation in self.backend.all_reservations():
            reservation.instances = [
                instance
                for instance in cast(list[LocalInstance], reservation.instances)
                if (not wanted or instance.id in wanted)
                and passes(filters, instance, FILTERS, self.backend.tags.get(instance.id, {}))
            ]
            if reservation.instances:
                found.append(reservation)
        page, token = take_page(found, self.params)
        return ActionResult({"Reservations": page, "NextToken": token})

    def named_instances(self) -> list[LocalInstance]:
        """Return the instances that the request names: all of them, or a refusal."""
        required(self.params, "InstanceIds")
        return [self.backend.one_instance(instance_id) for instance_id in self.params["InstanceIds"]]

    def create_image(self) -> ActionResult:
        """CreateImage."""
        image = self.backend.make_image(self.params, self.tags_for("image"), self.tags_for("snapshot"))
        return ActionResult({"ImageId": image.id})

    def stop_instances(self) -> ActionResult:
        """StopInstances."""
        force = bool(self.params.get("Force"))
        changes = [self.backend.stop(instance, force=force) for instance in self.named_instances()]
        return ActionResult({"StoppingInstances": [change.describe() for change in changes]})

    def start_instances(self) -> ActionResult:
        """StartInstances."""
        changes = [self.backend.start(instance) for instance in self.named_instances()]
        return ActionResult({"StartingInstances": [change.describe() for change in changes]})

    def terminate_instances(self) -> ActionResult:
        """TerminateInstances."""
        changes = [self.backend.terminate(instance) for instance in self.named_instances()]
        return ActionResult({"TerminatingInstances": [change.describe() for change in changes]})

    def reboot_instances(self) -> ActionResult:
        """RebootInstances."""
        for instance in self.named_instances():
            if instance.state != "running":
                message = f"Instance '{instance.id}' is {instance.state}, not running"
                raise Refused("IncorrectInstanceState", message)
            self.backend.machines.reboot(instance.id)
        return EmptyResult()

    def get_console_output(self) -> ActionResult:
        """GetConsoleOutput: the last 64 KiB of the serial console."""
        instance = self.backend.one_instance(self.params["InstanceId"])
        said = self.backend.machines.console(instance.id)[-65536:]
        output = base64.b64encode(said).decode() if said else None
        return ActionResult({"InstanceId": instance.id, "Timestamp": utcnow(), "Output": output})

    def get_console_screenshot(self) -> ActionResult:
        """GetConsoleScreenshot: PNG here, JPG on EC2."""
        instance = self.backend.one_instance(self.params["InstanceId"])
        picture = self.backend.machines.screenshot(instance.id)
        if picture is None:
            raise Refused("IncorrectInstanceState", f"Instance '{instance.id}' has no screen now")
        return ActionResult({"InstanceId": instance.id, "ImageData": base64.b64encode(picture).decode()})

    def describe_instance_image_metadata(self) -> ActionResult:
        """DescribeInstanceImageMetadata: which image each instance was launched from."""
        wanted = set(self.params.get("InstanceIds") or [])
        known = cast(list[LocalInstance], self.backend.all_instances())
        instances = [item for item in known if not wanted or item.id in wanted]
        answers = [
            {
                "InstanceId": instance.id,
                "InstanceType": instance.instance_type,
                "LaunchTime": instance.launch_time,
                "AvailabilityZone": instance.availability_zone,
                "State": {"Code": instance.state_code, "Name": instance.state},
                "OwnerId": self.backend.account_id,
                "ImageMetadata": {
                    "ImageId": instance.image_id,
                    "Name": instance.image_record["Name"],
                    "OwnerId": instance.image_record["OwnerId"],
                    "CreationDate": instance.image_record["CreationDate"].strftime("%Y-%m-%dT%H:%M:%S.000Z"),
                    "State": "available",
                },
            }
            for instance in instances
        ]
        return ActionResult({"InstanceImageMetadata": answers})

    def describe_instance_attribute(self) -> ActionResult:
        """DescribeInstanceAttribute; moto answers those that it keeps."""
        required(self.params, "InstanceId", "Attribute")
        instance = self.backend.one_instance(self.params["InstanceId"])
        attribute = self.params["Attribute"]
        if attribute == "enaSupport":
            return ActionResult({"InstanceId": instance.id, "EnaSupport": {"Value": bool(instance.ena_support)}})
        if attribute == "productCodes":
            return ActionResult({"InstanceId": instance.id, "ProductCodes": instance.product_codes})
        if attribute == "blockDeviceMapping":
            return ActionResult({"InstanceId": instance.id, "BlockDeviceMappings": instance.block_device_mappings})
        if attribute == "userData":
            value = {"Value": str(instance.user_data)} if instance.user_data else {}
            return ActionResult({"InstanceId": instance.id, "UserData": value})
        return super().describe_instance_attribute()

    def modify_instance_attribute(self) -> ActionResult:
        """ModifyInstanceAttribute: each attribute changes itself and nothing else."""
        required(self.params, "InstanceId")
        instance = self.backend.one_instance(self.params["InstanceId"])
        changes = attribute_changes(self.params)
        if set(changes) & MUST_BE_STOPPED and instance.state != "stopped":
            message = f"The instance '{instance.id}' is not in the 'stopped' state."
            raise Refused("IncorrectInstanceState", message)
        for name, value in changes.items():
            modify_attribute(instance, name, value)
        for mapping in self.params.get("BlockDeviceMappings") or []:
            change_deletion(instance, mapping)
        if self.params.get("Groups"):
            self.change_groups(instance, self.params["Groups"])
        return EmptyResult()

    def change_groups(self, instance: LocalInstance, group_ids: list[str]) -> None:
        """Replace the security groups of an instance and of its first interface."""
        groups = []
        for group_id in group_ids:
            group = self.backend.get_security_group_from_id(group_id)
            if group is None:
                raise Refused("InvalidGroup.NotFound", f"The security group '{group_id}' does not exist")
            groups.append(group)
        instance.security_groups = groups
        instance.nics[0]._group_set = list(groups)

    def modify_instance_metadata_options(self) -> ActionResult:
        """ModifyInstanceMetadataOptions: what is not named stays."""
        instance = self.backend.one_instance(self.params["InstanceId"])
        old = instance.metadata_options
        kept = {
            "HttpTokens": old.http_tokens,
            "HttpPutResponseHopLimit": old.http_put_response_hop_limit,
            "HttpEndpoint": old.http_endpoint,
            "HttpProtocolIpv6": old.http_protocol_ipv6,
            "InstanceMetadataTags": old.instance_metadata_tags,
        }
        changed = {name: self.params[name] for name in kept if self.params.get(name) is not None}
        instance.metadata_options = MetadataOptions({**kept, **changed})
        return ActionResult({"InstanceId": instance.id, "InstanceMetadataOptions": instance.metadata_options})


ATTRIBUTES = {
    "InstanceType": "instance_type",
    "Kernel": "kernel",
    "Ramdisk": "ramdisk",
    "UserData": "user_data",
    "DisableApiTermination": "disable_api_termination",
    "DisableApiStop": "disable_api_stop",
    "InstanceInitiatedShutdownBehavior": "instance_initiated_shutdown_behavior",
    "SourceDestCheck": "source_dest_check",
    "EbsOptimized": "ebs_optimized",
    "EnaSupport": "ena_support",
    "SriovNetSupport": "sriov_net_support",
}


def attribute_changes(params: Any) -> dict[str, Any]:
    """Return the attributes that a request changes, from both of its forms."""
    changes = {
        name: params[name]["Value"]
        for name in ATTRIBUTES
        if isinstance(params.get(name), dict) and params[name].get("Value") is not None
    }
    attribute = params.get("Attribute")
    if attribute:
        name = attribute[0].upper() + attribute[1:]
        if name not in ATTRIBUTES:
            raise Refused("InvalidParameterValue", f"Value ({attribute}) for parameter attribute is invalid.")
        value = params.get("Value")
        changes[name] = value if value not in ("true", "false") else value == "true"
    return changes


def modify_attribute(instance: LocalInstance, name: str, value: Any) -> None:
    """Change one attribute of an instance."""
    if name == "InstanceType" and value not in INSTANCE_TYPES:
        raise Refused("InvalidParameterValue", f"Invalid value '{value}' for InstanceType.")
    if name == "InstanceInitiatedShutdownBehavior" and value not in ("stop", "terminate"):
        raise Refused("InvalidParameterValue", f"Value ({value}) for instanceInitiatedShutdownBehavior is invalid.")
    if name == "UserData":
        value = parse_user_data(value)
    setattr(instance, ATTRIBUTES[name], value)


def change_deletion(instance: LocalInstance, mapping: Mapping) -> None:
    """Change whether a volume goes with its instance."""
    name = mapping["DeviceName"]
    block = instance.block_device_mapping.get(name)
    if block is None:
        raise Refused("InvalidInstanceAttributeValue", f"No device is currently mapped at {name}")
    wanted = (mapping.get("Ebs") or {}).get("DeleteOnTermination")
    if wanted is not None:
        block.delete_on_termination = bool(wanted)
