"""Everything that a build would do, the guest programs included. Nothing is made and nothing is spent."""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pipeline.audit.findings import Line, as_table
from pipeline.aws import network
from pipeline.aws.images import Image
from pipeline.aws.session import Session
from pipeline.aws.tags import Tags, new_build_id
from pipeline.base_lock import lock_path, read_lock
from pipeline.guest.program import compile_program
from pipeline.guest.proxy_command import PROGRAMS
from pipeline.harden import harden_steps
from pipeline.harden.assumed_guest import assume_facts
from pipeline.preflight import look_ahead
from pipeline.scrub import power_off_command, scrub_steps
from pipeline.spec import Harden, Spec, spec_digest
from pipeline.spec.profiles import settings_of
from pipeline.stages.launch import find_base

BUILD_ID = "BUILD-ID"
RECIPE = "launch → harden → scrub → prove live → seal → prove raw and fresh boot → keep → release"


@dataclass(frozen=True)
class Plan:
    """What would happen, in sections of lines, and the programs that the guest would run."""

    sections: tuple[tuple[str, tuple[str, ...]], ...]
    programs: tuple[tuple[str, str], ...]
    ahead: tuple[Line, ...] = ()
    """What would stand in the way; empty when the cloud was not asked."""

    def as_text(self) -> str:
        """Return the plan as people read it; every secret is masked."""
        sections = [f"{title}\n" + "\n".join(f"  {line}" for line in lines) for title, lines in self.sections]
        programs = [f"=== program: {name}\n{text}" for name, text in self.programs]
        return "\n\n".join((*sections, *programs))

    def as_json(self) -> str:
        """Return the plan as JSON."""
        return json.dumps({"sections": dict(self.sections), "programs": dict(self.programs)}, indent=2)


def make_plan(spec: Spec, *, spec_path: Path, session: Session | None, builds: Path, update_base: bool = False) -> Plan:
    """Return the plan of a build; without a session, what only the cloud knows is left out.

    Raises BaseImageRefused, CredentialsRefused, CloudFailed as the build itself would.
    """
    facts = assume_facts(spec)
    base, ahead = ask_cloud(spec, spec_path, session, builds, update_base)
    assumed = f"compiled for {facts.pretty_name}; a build asks the guest itself"
    return Plan(
        sections=(
            ("spec", (f"{spec_path.name}: {spec.name}, sha256 {spec_digest(spec)}", f"recipe: {RECIPE}")),
            ("base image", base),
            ("instance", describe_instance(spec, session)),
            ("hardening", describe_hardening(spec)),
            ("image", describe_image(spec)),
            ("share", describe_share(spec)),
            ("release", describe_release(spec)),
            ("preflight", tuple(as_table(ahead)) if ahead else ("the cloud was not asked",)),
            ("guest programs", (assumed,)),
        ),
        ahead=ahead,
        programs=(
            ("harden", compile_program(harden_steps(facts, spec)).masked),
            ("scrub", compile_program(scrub_steps(facts, spec)).masked),
            ("power off", power_off_command(facts)),
        ),
    )


def ask_cloud(
    spec: Spec, spec_path: Path, session: Session | None, builds: Path, update_base: bool
) -> tuple[tuple[str, ...], tuple[Line, ...]]:
    """Return which base image would be taken (A01), and what would stand in the way (A20)."""
    locked = read_lock(lock_path(spec_path, spec.cloud, builds))
    if session is None:
        return (f"locked: {locked.describe()}" if locked else "nothing is locked yet", "the cloud was not asked"), ()
    base, choice = find_base(session, spec, locked, update=update_base)
    lines = [f"takes {choice.base.describe()}", *describe_disks(base)]
    if choice.change:
        lines.append(f"change: {choice.change}")
    now = datetime.now(UTC)
    tags = Tags(new_build_id(now), spec_digest(spec), session.caller_arn, now, spec.image.own_tags)
    return tuple(lines), look_ahead(session, spec, base, tags, spec.image_name(tags.build_id, now.date()))


def describe_disks(base: Image) -> list[str]:
    """Return a line for each disk of the base image."""
    return [f"{disk.device_name}: {disk.size_gib} GiB {disk.type} of {disk.snapshot_id}" for disk in base.block_devices]


def describe_instance(spec: Spec, session: Session | None) -> tuple[str, ...]:
    """Return what would be launched, and who could reach it (A02)."""
    instance = spec.instance
    types = ", or without capacity ".join((instance.type, *instance.types))
    return (
        f"{types} in {spec.region}, IMDSv2 required",
        *(["of spare capacity (spot): it may be taken back during the build"] if instance.spot else []),
        *([f"with the instance profile {instance.profile}"] if instance.profile else []),
        *(["protected from termination until the end, which is tried"] if instance.termination_protection else []),
        *describe_network(spec, session),
        *describe_way_in(spec),
        f"a temporary ed25519 key for {spec.ssh.user}; the host key is pinned from the console",
        "removed at the end: instance, key pairs, security group, snapshot of the fresh volume",
    )


def describe_network(spec: Spec, session: Session | None) -> tuple[str, ...]:
    """Return where the instance would be, who could reach it, and what it could reach (A02-A06)."""
    wanted = spec.network
    own = "the caller's own address" if session is None else f"{network.caller_address(session)}/32"
    sources = (own,) if wanted.ssh_from == "caller" else wanted.ssh_from
    if wanted.create:
        nat = {"gateway": "a NAT gateway", "instance": "a NAT instance of the base image"}[wanted.create.nat]
        where = [
            f"a VPC of {wanted.create.cidr}: public and private subnet, internet gateway, routes, access list; removed",
            *([f"{nat} with an elastic address, for the private subnet"] if wanted.address == "private" else []),
        ]
    else:
        where = [f"subnet {wanted.subnet_id or 'of the default VPC'}"]
    if wanted.security_group_ids:
        return (*where, f"security groups {', '.join(wanted.security_group_ids)}")
    opened = "nothing comes in" if wanted.connect == "session-manager" else f"from {', '.join(sources)}"
    reached = ", ".join(f"{one.protocol} {one.port} to {' and '.join(one.to)}" for one in wanted.egress)
    return (
        *where,
        f"a security group: tcp {spec.ssh.port} {opened}",
        f"and out of it {reached or 'nothing'}",
    )


def describe_way_in(spec: Spec) -> tuple[str, ...]:
    """Return how the instance would be reached, and what that needs."""
    wanted = spec.network
    match wanted.connect:
        case "bastion" if wanted.bastion:
            return (f"through the bastion {wanted.bastion.user}@{wanted.bastion.host}, known by its host key",)
        case "bastion":
            return ("through a bastion of the base image in the public subnet, removed at the end",)
        case "session-manager" | "instance-connect" as way:
            needs = " and ".join(f"{name} {'.'.join(map(str, oldest))}" for name, oldest in PROGRAMS[way].items())
            agent = "; the SSM agent in the base image" if way == "session-manager" else "; an endpoint in the VPC"
            return (f"through {way}: needs {needs} or newer here{agent}",)
    return (f"by its {wanted.address} address",)


def describe_hardening(spec: Spec) -> tuple[str, ...]:
    """Return the profiles with what each option serves, where the spec decided otherwise, and what it waives."""
    harden = spec.harden
    names = (harden.profile,) if isinstance(harden.profile, str) else harden.profile
    lines = [f"profile {' + '.join(names)}"]
    for setting in settings_of(names):
        found = value_of(harden, setting.option)
        wanted = "on" if setting.value == {} else setting.value
        kept = found is not None if setting.value == {} else found == setting.value
        decided = "" if kept else f"; the spec says {found}"
        lines.append(f"{setting.option}: {wanted} ({setting.control}; {setting.source}){decided}")
    if harden.tool_updates:
        tools = ", ".join(harden.tool_updates.packages)
        lines.append(
            f"updated at each boot, over the network and unproved: {tools} (H32), {harden.tool_updates.reason}"
        )
    lines += [f"waived until {one.expires}: {one.control}, {one.reason}" for one in spec.waivers]
    return tuple(lines)


def value_of(harden: Harden, option: str) -> object:
    """Return the value of an option, by its place below `harden`; None where something around it is off."""
    value: object = harden
    for key in option.split("."):
        value = getattr(value, key, None)
    return value


def describe_image(spec: Spec) -> tuple[str, ...]:
    """Return what would be registered."""
    image = spec.image
    disks = [f"{disk.device_name}: {disk.size_gib} GiB {disk.type}" for disk in image.block_devices]
    return (
        spec.image_name(BUILD_ID, datetime.now(UTC).date()),
        f"description: {image.description or 'none'}",
        f"{image.architecture}, boot mode {image.boot_mode or 'of the base image'}, IMDS {image.imds}",
        f"encrypted with {image.encryption.kms_key_id}" if image.encryption else "encrypted as the account's default",
        f"the launch key goes to {image.launch_user or 'nobody'}",
        *(disks or ["disks as the base image"]),
        *(f"tag {key}={value}" for key, value in image.tags.items()),
    )


def describe_share(spec: Spec) -> tuple[str, ...]:
    """Return who would get the image, the public last."""
    share = spec.share
    return (
        *(f"account {account}: launch, and copy of the snapshots" for account in share.accounts),
        *(f"launch: {arn}" for arn in (*share.organizations, *share.organizational_units)),
        *(f"product code {code} must be there" for code in share.product_codes),
        *(["everybody, last of all"] if share.public else []),
    ) or ("nobody",)


def describe_release(spec: Spec) -> tuple[str, ...]:
    """Return where else the image would go, and what would be set on it everywhere."""
    release = spec.release
    return (
        *(f"{region}: a copy, its blocks held against the proved ones" for region in release.regions),
        *([f"deprecated after {release.deprecate_after_days} days"] if release.deprecate_after_days else []),
        *(["protected from deregistration"] if release.protect else []),
        *([f"its id in the parameter {release.parameter}"] if release.parameter else []),
    ) or ("nowhere else",)
