"""The rules of every security group of a region, and what else is open or left over in its network (A02-A07)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from pipeline.aws.security_groups import SecurityGroup, list_security_groups
from pipeline.aws.session import Session, cloud_errors
from pipeline.aws.session import dry_run as asked_only

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef, SecurityGroupRuleTypeDef

EVERY_PORT = (0, 65535)
ROUTE_TARGETS = (
    "NetworkInterfaceId",
    "InstanceId",
    "NatGatewayId",
    "GatewayId",
    "TransitGatewayId",
    "VpcPeeringConnectionId",
)
ROUTE_DESTINATIONS = ("DestinationCidrBlock", "DestinationIpv6CidrBlock", "DestinationPrefixListId")


@dataclass(frozen=True)
class Rule:
    """One rule of a security group."""

    rule_id: str
    group_id: str
    egress: bool
    protocol: str
    """`tcp`, `udp`, `icmp`, `-1` for all …"""
    ports: tuple[int, int]
    network: str
    """A CIDR, or empty when the rule names a group or a prefix list."""
    referenced_group: str = ""
    referenced_account: str = ""
    """Of the group that is named, when it is another account than the rule's own."""
    peering: str = ""
    """The state of the VPC peering over which the group is referenced."""
    prefix_list: str = ""

    @property
    def summary(self) -> str:
        """The rule as people say it: `tcp 22 from 0.0.0.0/0`."""
        first, last = self.ports
        ports = "every port" if self.ports == EVERY_PORT else str(first) if first == last else f"{first}-{last}"
        what = "every protocol" if self.protocol == "-1" else f"{self.protocol} {ports}"
        return f"{what} {'to' if self.egress else 'from'} {self.network or self.referenced_group or self.prefix_list}"


@dataclass(frozen=True)
class Interface:
    """A network interface: what uses a group, and what forwards packets of others."""

    interface_id: str
    group_ids: frozenset[str]
    checks_source: bool
    instance_id: str
    kind: str
    """`interface` for an instance's own; NAT gateways and other services have kinds of their own."""


@dataclass(frozen=True)
class Route:
    """A route to somewhere, and whether its target still exists."""

    table_id: str
    destination: str
    target: str
    state: str


@dataclass(frozen=True)
class Address:
    """An elastic address."""

    allocation_id: str
    address: str
    associated: bool


def list_rules(session: Session) -> tuple[Rule, ...]:
    """Return every rule of every group of the region. Raises CloudFailed."""
    return rules_of(session)


def rules_of(session: Session, *group_ids: str) -> tuple[Rule, ...]:
    """Return every rule of these groups, or of every group of the region. Raises CloudFailed."""
    filters: list[FilterTypeDef] = [{"Name": "group-id", "Values": list(group_ids)}] if group_ids else []
    with cloud_errors("the security groups' rules", session.region):
        pages = session.client("ec2").get_paginator("describe_security_group_rules").paginate(Filters=filters)
        return tuple(read_rule(rule, session.account_id) for page in pages for rule in page["SecurityGroupRules"])


def read_rule(found: "SecurityGroupRuleTypeDef", own_account: str) -> Rule:
    """Return a rule of this account from the API's form of it."""
    protocol, first, last = found.get("IpProtocol", "-1"), found.get("FromPort", -1), found.get("ToPort", -1)
    whole = protocol == "-1" or (protocol in {"tcp", "udp"} and first == -1)
    referenced = found.get("ReferencedGroupInfo", {})
    account = referenced.get("UserId", "")
    return Rule(
        rule_id=found.get("SecurityGroupRuleId", ""),
        group_id=found.get("GroupId", ""),
        egress=found.get("IsEgress", False),
        protocol=protocol,
        ports=EVERY_PORT if whole else (first, last),
        network=found.get("CidrIpv4") or found.get("CidrIpv6") or "",
        referenced_group=referenced.get("GroupId", ""),
        referenced_account=account if account != own_account else "",
        peering=referenced.get("PeeringStatus", ""),
        prefix_list=found.get("PrefixListId", ""),
    )


def list_groups(session: Session) -> tuple[SecurityGroup, ...]:
    """Return every security group of the region. Raises CloudFailed."""
    return list_security_groups(session, (), "the security groups")


def list_interfaces(session: Session) -> tuple[Interface, ...]:
    """Return every network interface of the region. Raises CloudFailed."""
    with cloud_errors("the network interfaces", session.region):
        pages = session.client("ec2").get_paginator("describe_network_interfaces").paginate()
        found = [interface for page in pages for interface in page["NetworkInterfaces"]]
    return tuple(
        Interface(
            interface_id=one.get("NetworkInterfaceId", ""),
            group_ids=frozenset(group["GroupId"] for group in one.get("Groups", []) if "GroupId" in group),
            checks_source=one.get("SourceDestCheck", True),
            instance_id=one.get("Attachment", {}).get("InstanceId", ""),
            kind=one.get("InterfaceType", "interface"),
        )
        for one in found
    )


def list_routes(session: Session) -> tuple[Route, ...]:
    """Return every route of the region. Raises CloudFailed."""
    with cloud_errors("the route tables", session.region):
        pages = session.client("ec2").get_paginator("describe_route_tables").paginate()
        tables = [table for page in pages for table in page["RouteTables"]]
    return tuple(
        Route(
            table_id=table.get("RouteTableId", ""),
            destination=first_of(route, ROUTE_DESTINATIONS) or "",
            target=first_of(route, ROUTE_TARGETS) or "a target",
            state=route.get("State", ""),
        )
        for table in tables
        for route in table.get("Routes", [])
    )


def first_of(found: Mapping[str, object], keys: Iterable[str]) -> str | None:
    """Return the first of these values that is there."""
    return next((str(found[key]) for key in keys if found.get(key)), None)


def list_addresses(session: Session) -> tuple[Address, ...]:
    """Return every elastic address of the region. Raises CloudFailed."""
    with cloud_errors("the elastic addresses", session.region):
        found = session.client("ec2").describe_addresses()["Addresses"]
    return tuple(
        Address(one.get("AllocationId", ""), one.get("PublicIp", ""), bool(one.get("AssociationId"))) for one in found
    )


def revoke_rules(session: Session, rules: Iterable[Rule], *, dry_run: bool) -> None:
    """Revoke rules of what may come in by their ids, one call for each group. Raises CloudFailed.

    A dry run asks only whether it would be allowed, and changes nothing.
    """
    ordered = sorted((rule for rule in rules if not rule.egress), key=lambda rule: rule.group_id)
    for group_id, members in groupby(ordered, key=lambda rule: rule.group_id):
        with asked_only(group_id, session.region) if dry_run else cloud_errors(group_id, session.region):
            session.client("ec2").revoke_security_group_ingress(
                GroupId=group_id, SecurityGroupRuleIds=[rule.rule_id for rule in members], DryRun=dry_run
            )
