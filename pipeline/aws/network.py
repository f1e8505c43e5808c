"""Where the build instance is launched, and who may reach it: subnets, the caller's address, the security group."""

import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING

from pipeline.aws.creation import find_or_create
from pipeline.aws.session import Session, cloud_errors, dry_run, error_code
from pipeline.aws.tags import NAME, Tags, is_resource_name, read_tags
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CloudFailed, SpecInvalid

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, IpPermissionTypeDef, SecurityGroupTypeDef

MISSING = frozenset({"InvalidGroup.NotFound", "InvalidGroupId.Malformed"})
IN_USE = frozenset({"DependencyViolation", "InvalidGroup.InUse"})
RELEASE_SECONDS = 300.0
"""A terminated instance keeps its network interface, and so its group, for up to a few minutes."""

ADDRESS_SERVICE = "https://checkip.amazonaws.com"
ADDRESS_SECONDS = 10
WIDEST_IPV4 = 8
WIDEST_IPV6 = 16
"""A CIDR that is wider than these is the Internet in disguise: two halves of it are as open as 0.0.0.0/0."""


@dataclass(frozen=True)
class Subnet:
    """A subnet that instances can be launched in."""

    subnet_id: str
    vpc_id: str
    zone: str
    gives_public_addresses: bool


@dataclass(frozen=True)
class SecurityGroup:
    """A security group, with the ports and CIDRs that may come in, as `22 from 203.0.113.7/32`."""

    group_id: str
    name: str
    vpc_id: str
    openings: tuple[str, ...]
    tags: dict[str, str]


def find_subnets(session: Session, subnet_id: str | None = None) -> tuple[Subnet, ...]:
    """Return the subnet that the spec names, or the default subnets of every zone, in the order of the zones.

    Raises CloudFailed when the named one is missing, or when the account has no default VPC with a subnet.
    """
    filters: list[FilterTypeDef] = [{"Name": "default-for-az", "Values": ["true"]}]
    ec2 = session.client("ec2")
    with cloud_errors(subnet_id or "the default subnets", session.region):
        answer = ec2.describe_subnets(SubnetIds=[subnet_id]) if subnet_id else ec2.describe_subnets(Filters=filters)
    if not answer["Subnets"]:
        raise CloudFailed(
            "there is no default VPC with a subnet",
            region=session.region,
            hint="name network.subnet_id in the spec, or run `aws ec2 create-default-vpc`",
        )
    subnets = (
        Subnet(
            subnet_id=found["SubnetId"],
            vpc_id=found["VpcId"],
            zone=found.get("AvailabilityZone", ""),
            gives_public_addresses=found.get("MapPublicIpOnLaunch", False),
        )
        for found in answer["Subnets"]
    )
    return tuple(sorted(subnets, key=lambda subnet: subnet.zone))


def caller_address(session: Session) -> str:
    """Return the address from which the cloud sees the caller (A02): on a cloud of this machine, 127.0.0.1.

    Raises CloudFailed when it cannot be found out, or is not an address of the Internet.
    """
    if session.loopback:
        return "127.0.0.1"
    hint = "name the network that you come from in network.ssh_from"
    try:
        with urllib.request.urlopen(ADDRESS_SERVICE, timeout=ADDRESS_SECONDS) as answer:
            address = ip_address(answer.read(100).decode("ascii").strip())
    except (OSError, ValueError) as error:
        raise CloudFailed(f"your own address is not known: {error}", resource=ADDRESS_SERVICE, hint=hint) from error
    if not address.is_global:
        raise CloudFailed(f"{address} is not an address of the Internet", resource=ADDRESS_SERVICE, hint=hint)
    return str(address)


def check_cidrs(cidrs: Sequence[str]) -> tuple[str, ...]:
    """Return the networks in their canonical form; an address alone is a network of one.

    Raises SpecInvalid with every one that is not a network, or so wide that ssh would be open to the world (A02).
    """
    problems, networks = [], []
    for cidr in cidrs:
        try:
            network = ip_network(cidr, strict=False)
        except ValueError:
            problems.append(f"{cidr}: not an IPv4 or IPv6 network")
            continue
        if network.prefixlen < (WIDEST_IPV4 if isinstance(network, IPv4Network) else WIDEST_IPV6):
            problems.append(f"{cidr}: ssh would be open to the world")
        networks.append(str(network))
    if not cidrs:
        problems.append("no network is named: nobody could log in")
    if problems:
        raise SpecInvalid("network.ssh_from is refused", tuple(problems))
    return tuple(networks)


def create_security_group(
    session: Session, tags: Tags, name: str, *, vpc_id: str, port: int, cidrs: Sequence[str]
) -> str:
    """Make the build's security group, open on one TCP port for these networks only, and return its id (A02).

    Raises SpecInvalid when a network is too wide, CloudFailed when the cloud refuses.
    """
    permission = ssh_permission(port, check_cidrs(cidrs))
    ec2 = session.client("ec2")

    def create() -> str:
        with cloud_errors(name, session.region):
            made = ec2.create_security_group(
                GroupName=name,
                Description="ssh to a build instance, for the time of the build",
                VpcId=vpc_id,
                TagSpecifications=tags.specification(name, "security-group"),
            )
        return made["GroupId"]

    group_id = find_or_create(
        lambda: [group.group_id for group in find_security_groups(session, name)],
        create,
        what=name,
        region=session.region,
        taken_codes={"InvalidGroup.Duplicate"},
    )
    try:
        with cloud_errors(group_id, session.region):
            ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=[permission])
    except CloudFailed as error:
        if error_code(error) != "InvalidPermission.Duplicate":
            raise
    return group_id


def may_create_security_group(session: Session, tags: Tags, name: str, vpc_id: str) -> None:
    """Ask whether a security group could be made, with DryRun: nothing is made (A20). Raises CloudFailed if not."""
    with dry_run(name, session.region):
        session.client("ec2").create_security_group(
            DryRun=True,
            GroupName=name,
            Description="asked before a build",
            VpcId=vpc_id,
            TagSpecifications=tags.specification(name, "security-group"),
        )


def ssh_permission(port: int, networks: Sequence[str]) -> "IpPermissionTypeDef":
    """Return the one rule of the group: a TCP port for these networks."""
    return {
        "IpProtocol": "tcp",
        "FromPort": port,
        "ToPort": port,
        "IpRanges": [{"CidrIp": text, "Description": "ssh to the build"} for text in networks if ":" not in text],
        "Ipv6Ranges": [{"CidrIpv6": text, "Description": "ssh to the build"} for text in networks if ":" in text],
    }


def find_security_groups(session: Session, name: str) -> tuple[SecurityGroup, ...]:
    """Return the security groups that bear a name of a build."""
    with cloud_errors(name, session.region):
        pages = (
            session.client("ec2")
            .get_paginator("describe_security_groups")
            .paginate(Filters=[{"Name": f"tag:{NAME}", "Values": [name]}])
        )
        return tuple(read_security_group(found) for page in pages for found in page["SecurityGroups"])


def describe_security_group(session: Session, group_id: str) -> SecurityGroup:
    """Return a security group with its openings. Raises CloudFailed when there is none."""
    with cloud_errors(group_id, session.region):
        (found,) = session.client("ec2").describe_security_groups(GroupIds=[group_id])["SecurityGroups"]
    return read_security_group(found)


def read_security_group(found: "SecurityGroupTypeDef") -> SecurityGroup:
    """Return a security group from the API's form of it."""
    openings = [
        f"{rule.get('FromPort', 'every port')} from {network}"
        for rule in found.get("IpPermissions", [])
        for network in (
            *(entry["CidrIp"] for entry in rule.get("IpRanges", [])),
            *(entry["CidrIpv6"] for entry in rule.get("Ipv6Ranges", [])),
            *(entry["PrefixListId"] for entry in rule.get("PrefixListIds", [])),
            *(entry.get("GroupId", "") for entry in rule.get("UserIdGroupPairs", [])),
        )
    ]
    return SecurityGroup(
        group_id=found["GroupId"],
        name=found.get("GroupName", ""),
        vpc_id=found.get("VpcId", ""),
        openings=tuple(sorted(openings)),
        tags=read_tags(found.get("Tags")),
    )


def delete_security_group(
    session: Session, identity: str, *, deadline_seconds: float = RELEASE_SECONDS, clock: Clock = CLOCK
) -> None:
    """Delete a security group by id, or all that bear a name of a build; what is gone is as good.

    Waits while a terminated instance's network interface still uses it. Raises CloudFailed, DeadlinePassed.
    """
    if is_resource_name(identity):
        group_ids = [group.group_id for group in find_security_groups(session, identity)]
    else:
        group_ids = [identity]
    for group_id in group_ids:
        delete_when_free(session, group_id, deadline_seconds, clock)


def delete_when_free(session: Session, group_id: str, deadline_seconds: float, clock: Clock) -> None:
    """Delete one group as soon as no network interface uses it."""
    wait_until(
        lambda: try_to_delete(session, group_id),
        bool,
        what=group_id,
        region=session.region,
        deadline_seconds=deadline_seconds,
        missing_codes=IN_USE,
        sightings=1,
        clock=clock,
    )


def try_to_delete(session: Session, group_id: str) -> bool:
    """Delete a group, and return True when it is gone. Raises CloudFailed, also when it is in use."""
    try:
        with cloud_errors(group_id, session.region):
            session.client("ec2").delete_security_group(GroupId=group_id)
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
    return True
