"""Where the build instance is launched, and from where it may be reached: subnets, and the caller's address."""

import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network, ip_address, ip_network
from typing import TYPE_CHECKING

from pipeline.aws.session import Session, cloud_errors
from pipeline.errors import CloudFailed, SpecInvalid

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

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
