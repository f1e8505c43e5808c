"""How much the account may have of what a build makes, and how much of it is there (A20).

The codes are from Service Quotas, "Amazon Elastic Compute Cloud (Amazon EC2)" and "Amazon Virtual Private Cloud (Amazon
VPC)". A local cloud has none of these quotas.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pipeline.aws.session import Session, cloud_errors, error_code
from pipeline.errors import CloudFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2 import EC2Client

NOT_APPLIED = "NoSuchResourceException"
"""What Service Quotas says of a quota that nobody changed, where it knows the default alone."""
ON_DEMAND = {
    "standard": "L-1216C47A",
    "dl": "L-6E869C2A",
    "f": "L-74FC7D96",
    "g": "L-DB2E81BA",
    "hpc": "L-F7808C92",
    "inf": "L-1945791B",
    "p": "L-417A185B",
    "trn": "L-2C3B7624",
    "u": "L-43DA4232",
    "x": "L-7295265B",
}
SPOT = {
    "standard": "L-34B43A08",
    "dl": "L-85EED4F7",
    "f": "L-88CF9481",
    "g": "L-3819A6DF",
    "inf": "L-B5D1601B",
    "p": "L-7212CCBC",
    "trn": "L-6B0D517C",
    "x": "L-E3A00192",
}
"""Of running instances, in vCPUs, by family (EC2 User Guide, "On-Demand Instance quotas", "Spot Instance quotas")."""
STANDARD = frozenset("acdhimrtz")
COUNTED = ["pending", "running", "stopping"]


@dataclass(frozen=True)
class Usage:
    """A quota, and how much of it is in use."""

    limit: int
    used: int


@dataclass(frozen=True)
class Counted:
    """A quota of things that are counted."""

    what: str
    service: str
    code: str
    asked: str
    """The call that lists the things."""
    list_all: "Callable[[EC2Client], Iterator[Any]]"


def pages(operation: str, key: str, **parameters: object) -> "Callable[[EC2Client], Iterator[Any]]":
    """Return what yields all things that an operation lists."""

    def list_all(ec2: "EC2Client") -> Iterator[Any]:
        for page in ec2.get_paginator(operation).paginate(**parameters):  # type: ignore[call-overload]
            yield from page[key]

    return list_all


VPCS = Counted("VPCs", "vpc", "L-F678F1CE", "ec2:DescribeVpcs", pages("describe_vpcs", "Vpcs"))
INTERNET_GATEWAYS = Counted(
    "internet gateways",
    "vpc",
    "L-A4707A72",
    "ec2:DescribeInternetGateways",
    pages("describe_internet_gateways", "InternetGateways"),
)
SECURITY_GROUPS = Counted(
    "security groups",
    "vpc",
    "L-E79EC296",
    "ec2:DescribeSecurityGroups",
    pages("describe_security_groups", "SecurityGroups"),
)
ELASTIC_ADDRESSES = Counted(
    "elastic addresses",
    "ec2",
    "L-0263D0A3",
    "ec2:DescribeAddresses",
    lambda ec2: iter(ec2.describe_addresses()["Addresses"]),
)
PUBLIC_IMAGES = Counted(
    "public images",
    "ec2",
    "L-0E3CBAB9",
    "ec2:DescribeImages",
    pages(
        "describe_images",
        "Images",
        Owners=["self"],
        Filters=[{"Name": "is-public", "Values": ["true"]}],
        IncludeDeprecated=True,
        IncludeDisabled=True,
    ),
)
NAT_GATEWAYS = Counted(
    "NAT gateways of a zone",
    "vpc",
    "L-FE5A380F",
    "ec2:DescribeNatGateways",
    pages(
        "describe_nat_gateways",
        "NatGateways",
        Filters=[{"Name": "state", "Values": ["pending", "available", "deleting"]}],
    ),
)


def read_usage(session: Session, quota: Counted, ours: str = "") -> Usage:
    """Return a quota and how much of it is used, an image of the name `ours` not counted. Raises CloudFailed."""
    limit = read_limit(session, quota.service, quota.code)
    with cloud_errors(quota.what, session.region):
        found = list(quota.list_all(session.client("ec2")))
    return Usage(limit, sum(not ours or thing.get("Name") != ours for thing in found))


def read_zone_usage(session: Session, zone: str) -> Usage:
    """Return the quota of NAT gateways and how many are in a zone, by their subnets. Raises CloudFailed."""
    limit = read_limit(session, NAT_GATEWAYS.service, NAT_GATEWAYS.code)
    ec2 = session.client("ec2")
    with cloud_errors(NAT_GATEWAYS.what, session.region):
        subnets = [gateway["SubnetId"] for gateway in NAT_GATEWAYS.list_all(ec2)]
        near = pages("describe_subnets", "Subnets", Filters=[{"Name": "availability-zone", "Values": [zone]}])
        there = {subnet["SubnetId"] for subnet in near(ec2)}
    return Usage(limit, sum(subnet in there for subnet in subnets))


def read_limit(session: Session, service: str, code: str) -> int:
    """Return a quota as it applies to the account, or as AWS gives it to everybody. Raises CloudFailed."""
    quotas = session.client("service-quotas")
    try:
        with cloud_errors(code, session.region):
            return int(quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"])
    except CloudFailed as error:
        if error_code(error) != NOT_APPLIED:
            raise
    with cloud_errors(code, session.region):
        return int(quotas.get_aws_default_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]["Value"])


def family_of(instance_type: str) -> str:
    """Return the family under which EC2 counts an instance type."""
    letters = re.match(r"[a-z]+", instance_type)
    family = letters[0] if letters else ""
    if family in ON_DEMAND:
        return family
    return "g" if family in ("gr", "vt") else "standard" if family[:1] in STANDARD else family[:1]


def read_vcpu_usage(session: Session, instance_type: str, *, spot: bool = False) -> Usage | None:
    """Return the quota of vCPUs of a type's family and how many run; None where the family has none.

    What runs of spare capacity (spot) has a quota of its own. Raises CloudFailed.
    """
    family, codes = family_of(instance_type), SPOT if spot else ON_DEMAND
    if family not in codes:
        return None
    limit, used = read_limit(session, "ec2", codes[family]), 0
    running = pages("describe_instances", "Reservations", Filters=[{"Name": "instance-state-name", "Values": COUNTED}])
    with cloud_errors(instance_type, session.region):
        for instance in (one for page in running(session.client("ec2")) for one in page["Instances"]):
            alike = (instance.get("InstanceLifecycle") == "spot") is spot
            if alike and family_of(instance.get("InstanceType", "")) == family:
                cpu = instance.get("CpuOptions", {})
                used += cpu.get("CoreCount", 1) * cpu.get("ThreadsPerCore", 1)
    return Usage(limit, used)


def vcpus_of(session: Session, instance_type: str) -> int:
    """Return how many vCPUs an instance of a type has. Raises CloudFailed."""
    with cloud_errors(instance_type, session.region):
        found = session.client("ec2").describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]  # type: ignore[list-item]
    return found[0].get("VCpuInfo", {}).get("DefaultVCpus", 1) if found else 1
