"""A network of a build's own: VPC, internet gateway, routes, access list, subnets, NAT, elastic address (A04-A06).

Every kind of thing is made, found by its name and removed in the same way; what differs stands in `KINDS`.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import IPv4Network
from typing import TYPE_CHECKING, Any, Literal

from pipeline.aws.creation import find_or_create
from pipeline.aws.security_groups import Permission
from pipeline.aws.session import Session, cloud_errors, dry_run, error_code, tolerating
from pipeline.aws.tags import BUILD_ID, NAME, Tags, is_resource_name, read_tags
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CloudFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_ec2.type_defs import (
        CreateNetworkAclEntryRequestTypeDef,
        CreateRouteRequestTypeDef,
        FilterTypeDef,
        RouteTypeDef,
    )

Kind = Literal["vpc", "internet-gateway", "route-table", "network-acl", "subnet", "elastic-ip", "natgateway"]
"""As the tags of the API name them."""

EVERYWHERE = "0.0.0.0/0"
PROTOCOLS = {"tcp": "6", "udp": "17"}
ANSWERS = (1024, 65535)
"""Ports that answers go to: an access list knows no connections."""
IN_USE = frozenset({"DependencyViolation", "InvalidIPAddress.InUse", "InvalidNetworkAcl.InUse"})
RELEASE_SECONDS = 300.0
"""What the cloud itself needs to let go of a thing: the interfaces of what was just removed."""
NAT_SECONDS = 600.0
NAT_GONE = frozenset({"deleted", "deleting"})


@dataclass(frozen=True)
class Noun:
    """How things of one kind are listed and removed."""

    list_all: "Callable[[EC2Client, list[FilterTypeDef]], Iterable[Any]]"
    identity: str
    """Where a listed thing has its id."""
    delete: "Callable[[EC2Client, str], object]"
    missing: Collection[str]


def delete_gateway(ec2: "EC2Client", gateway_id: str) -> None:
    """Detach an internet gateway from its VPC, and delete it."""
    for gateway in ec2.describe_internet_gateways(InternetGatewayIds=[gateway_id])["InternetGateways"]:
        for attachment in gateway.get("Attachments", []):
            ec2.detach_internet_gateway(InternetGatewayId=gateway_id, VpcId=attachment.get("VpcId", ""))
    ec2.delete_internet_gateway(InternetGatewayId=gateway_id)


def release_address(ec2: "EC2Client", allocation_id: str) -> None:
    """Take an elastic address from the instance that has it, and release it."""
    for address in ec2.describe_addresses(AllocationIds=[allocation_id])["Addresses"]:
        if address.get("InstanceId"):
            ec2.disassociate_address(AssociationId=address.get("AssociationId", ""))
    ec2.release_address(AllocationId=allocation_id)


def list_nat_gateways(ec2: "EC2Client", filters: "list[FilterTypeDef]") -> Iterator[Any]:
    """Yield the NAT gateways that are there: a deleted one is listed for an hour."""
    for page in ec2.get_paginator("describe_nat_gateways").paginate(Filters=filters):
        yield from (one for one in page["NatGateways"] if one.get("State") not in NAT_GONE)


KINDS: dict[Kind, Noun] = {
    "natgateway": Noun(
        list_nat_gateways,
        "NatGatewayId",
        lambda ec2, identity: ec2.delete_nat_gateway(NatGatewayId=identity),
        {"NatGatewayNotFound", "InvalidNatGatewayID.NotFound"},
    ),
    "elastic-ip": Noun(
        lambda ec2, filters: ec2.describe_addresses(Filters=filters)["Addresses"],
        "AllocationId",
        release_address,
        {"InvalidAllocationID.NotFound"},
    ),
    "subnet": Noun(
        lambda ec2, filters: ec2.describe_subnets(Filters=filters)["Subnets"],
        "SubnetId",
        lambda ec2, identity: ec2.delete_subnet(SubnetId=identity),
        {"InvalidSubnetID.NotFound"},
    ),
    "network-acl": Noun(
        lambda ec2, filters: ec2.describe_network_acls(Filters=filters)["NetworkAcls"],
        "NetworkAclId",
        lambda ec2, identity: ec2.delete_network_acl(NetworkAclId=identity),
        {"InvalidNetworkAclID.NotFound"},
    ),
    "route-table": Noun(
        lambda ec2, filters: ec2.describe_route_tables(Filters=filters)["RouteTables"],
        "RouteTableId",
        lambda ec2, identity: ec2.delete_route_table(RouteTableId=identity),
        {"InvalidRouteTableID.NotFound"},
    ),
    "internet-gateway": Noun(
        lambda ec2, filters: ec2.describe_internet_gateways(Filters=filters)["InternetGateways"],
        "InternetGatewayId",
        delete_gateway,
        {"InvalidInternetGatewayID.NotFound"},
    ),
    "vpc": Noun(
        lambda ec2, filters: ec2.describe_vpcs(Filters=filters)["Vpcs"],
        "VpcId",
        lambda ec2, identity: ec2.delete_vpc(VpcId=identity),
        {"InvalidVpcID.NotFound"},
    ),
}
"""In the order in which things can be removed: what uses others goes before them."""


@dataclass(frozen=True)
class Thing:
    """One thing of a network."""

    identity: str
    tags: dict[str, str]


@dataclass(frozen=True)
class Entry:
    """One entry of an access list; all of them allow."""

    number: int
    egress: bool
    protocol: str
    """Its number in IP, `-1` for all."""
    ports: tuple[int, int] | None
    network: str


@dataclass(frozen=True)
class Layout:
    """What was read back of a network."""

    default_routes: dict[str, str]
    """By subnet: where everything goes that is not of the VPC; subnets without such a route are not in it."""
    entries: dict[str, frozenset[Entry]]
    """By subnet: what its access list allows."""


def list_things(session: Session, kind: Kind, name: str | None = None) -> tuple[Thing, ...]:
    """Return the things of a kind that have a build's id, or that bear a name of a build. Raises CloudFailed."""
    filters: list[FilterTypeDef] = (
        [{"Name": f"tag:{NAME}", "Values": [name]}] if name else [{"Name": "tag-key", "Values": [BUILD_ID]}]
    )
    noun = KINDS[kind]
    with cloud_errors(name or kind, session.region):
        found = list(noun.list_all(session.client("ec2"), filters))
    return tuple(Thing(one[noun.identity], read_tags(one.get("Tags"))) for one in found)


def delete_things(
    session: Session,
    identity: str,
    kind: Kind,
    *,
    deadline_seconds: float = RELEASE_SECONDS,
    clock: Clock = CLOCK,
) -> None:
    """Delete a thing by its id, or all of its kind that bear a name of a build; what is gone is as good.

    Waits while something uses it that is being removed. Raises CloudFailed, DeadlinePassed.
    """
    named = is_resource_name(identity)
    identities = [thing.identity for thing in list_things(session, kind, identity)] if named else [identity]
    for one in identities:
        wait_until(
            partial(try_to_delete, session, kind, one),
            bool,
            what=one,
            region=session.region,
            deadline_seconds=deadline_seconds,
            missing_codes=IN_USE,
            sightings=1,
            clock=clock,
        )
        if kind == "natgateway":
            wait_for_nat_gateway(session, one, "deleted", clock=clock)


def try_to_delete(session: Session, kind: Kind, identity: str) -> bool:
    """Delete a thing, and return True when it is gone. Raises CloudFailed, also when it is in use."""
    with tolerating(KINDS[kind].missing, identity, session.region):
        KINDS[kind].delete(session.client("ec2"), identity)
    return True


def make(session: Session, kind: Kind, name: str, call: "Callable[[EC2Client], str]") -> str:
    """Make one thing exactly once, and return its id. Raises CloudFailed.

    No answer that is lost may be asked for again: nothing but the name tells these things apart.
    """

    def create() -> str:
        with cloud_errors(name, session.region):
            return call(session.client("ec2", once=True))

    return find_or_create(
        lambda: [thing.identity for thing in list_things(session, kind, name)],
        create,
        what=name,
        region=session.region,
    )


def create_vpc(session: Session, tags: Tags, name: str, cidr: str) -> str:
    """Make a VPC with a network of its own, and return its id."""
    tagged = tags.specification(name, "vpc")
    return make(
        session,
        "vpc",
        name,
        lambda ec2: ec2.create_vpc(CidrBlock=cidr, TagSpecifications=tagged)["Vpc"]["VpcId"],
    )


def may_create_vpc(session: Session, tags: Tags, name: str, cidr: str) -> None:
    """Ask whether a VPC could be made, with DryRun: nothing is made (A20). Raises CloudFailed if not."""
    with dry_run(name, session.region):
        session.client("ec2").create_vpc(DryRun=True, CidrBlock=cidr, TagSpecifications=tags.specification(name, "vpc"))


def may_allocate_address(session: Session, tags: Tags, name: str) -> None:
    """Ask whether an elastic address could be had, with DryRun: nothing is made (A20). Raises CloudFailed if not."""
    with dry_run(name, session.region):
        session.client("ec2").allocate_address(
            DryRun=True, Domain="vpc", TagSpecifications=tags.specification(name, "elastic-ip")
        )


def create_internet_gateway(session: Session, tags: Tags, name: str) -> str:
    """Make an internet gateway, attached to nothing, and return its id."""
    tagged = tags.specification(name, "internet-gateway")
    return make(
        session,
        "internet-gateway",
        name,
        lambda ec2: ec2.create_internet_gateway(TagSpecifications=tagged)["InternetGateway"]["InternetGatewayId"],
    )


def may_create_internet_gateway(session: Session, tags: Tags, name: str) -> None:
    """Ask whether an internet gateway could be made, with DryRun (A20). Raises CloudFailed if not."""
    with dry_run(name, session.region):
        session.client("ec2").create_internet_gateway(
            DryRun=True, TagSpecifications=tags.specification(name, "internet-gateway")
        )


def attach_internet_gateway(session: Session, gateway_id: str, vpc_id: str) -> None:
    """Attach an internet gateway to a VPC."""
    with tolerating({"Resource.AlreadyAssociated"}, gateway_id, session.region):
        session.client("ec2").attach_internet_gateway(InternetGatewayId=gateway_id, VpcId=vpc_id)


def create_route_table(session: Session, tags: Tags, name: str, vpc_id: str) -> str:
    """Make a route table that leads nowhere but through the VPC, and return its id."""
    tagged = tags.specification(name, "route-table")
    return make(
        session,
        "route-table",
        name,
        lambda ec2: ec2.create_route_table(VpcId=vpc_id, TagSpecifications=tagged)["RouteTable"]["RouteTableId"],
    )


def lead_out(session: Session, table_id: str, target_id: str) -> None:
    """Add the default route of a table, to an internet gateway, a NAT gateway or an instance."""
    request: CreateRouteRequestTypeDef = {"RouteTableId": table_id, "DestinationCidrBlock": EVERYWHERE}
    if target_id.startswith("igw-"):
        request["GatewayId"] = target_id
    elif target_id.startswith("nat-"):
        request["NatGatewayId"] = target_id
    else:
        request["InstanceId"] = target_id
    with tolerating({"RouteAlreadyExists"}, table_id, session.region):
        session.client("ec2").create_route(**request)


def create_network_acl(session: Session, tags: Tags, name: str, vpc_id: str, entries: Iterable[Entry]) -> str:
    """Make an access list that allows what its entries say and nothing else, and return its id."""
    tagged = tags.specification(name, "network-acl")
    acl_id = make(
        session,
        "network-acl",
        name,
        lambda ec2: ec2.create_network_acl(VpcId=vpc_id, TagSpecifications=tagged)["NetworkAcl"]["NetworkAclId"],
    )
    for entry in entries:
        with tolerating({"NetworkAclEntryAlreadyExists"}, acl_id, session.region):
            session.client("ec2").create_network_acl_entry(**entry_request(acl_id, entry))
    return acl_id


def entry_request(acl_id: str, entry: Entry) -> "CreateNetworkAclEntryRequestTypeDef":
    """Return the parameters of CreateNetworkAclEntry."""
    request: CreateNetworkAclEntryRequestTypeDef = {
        "NetworkAclId": acl_id,
        "RuleNumber": entry.number,
        "RuleAction": "allow",
        "Egress": entry.egress,
        "Protocol": entry.protocol,
        "CidrBlock": entry.network,
    }
    if entry.ports:
        request["PortRange"] = {"From": entry.ports[0], "To": entry.ports[1]}
    return request


def plan_entries(cidr: str, openings: Sequence[Permission], outlets: Sequence[Permission]) -> tuple[Entry, ...]:
    """Return what an access list allows: the VPC itself, what may come in, what may leave, and the answers of both.

    It filters neither the VPC's resolver nor the metadata service (VPC User Guide, "Network ACL basics"). A network
    of a build has no IPv6.
    """
    wanted: list[tuple[bool, str, tuple[int, int] | None, str]] = [(False, "-1", None, cidr), (True, "-1", None, cidr)]
    for egress, permissions in ((False, openings), (True, outlets)):
        for one in permissions:
            protocol = PROTOCOLS[one.protocol]
            for network in one.networks:
                if ":" not in network:
                    wanted.append((egress, protocol, (one.port, one.port), network))
                    wanted.append((not egress, protocol, ANSWERS, network))
    unique = dict.fromkeys(wanted)
    return tuple(
        Entry(number, *values)
        for direction in (False, True)
        for number, values in enumerate((one for one in unique if one[0] is direction), start=100)
    )


def create_subnet(session: Session, tags: Tags, name: str, *, vpc_id: str, cidr: str, zone: str) -> str:
    """Make a subnet in a zone, and return its id."""
    tagged = tags.specification(name, "subnet")
    return make(
        session,
        "subnet",
        name,
        lambda ec2: ec2.create_subnet(VpcId=vpc_id, CidrBlock=cidr, AvailabilityZone=zone, TagSpecifications=tagged)[
            "Subnet"
        ]["SubnetId"],
    )


def connect_subnet(session: Session, subnet_id: str, *, table_id: str, acl_id: str) -> None:
    """Give a subnet its route table and its access list."""
    ec2 = session.client("ec2")
    with tolerating({"Resource.AlreadyAssociated"}, subnet_id, session.region):
        ec2.associate_route_table(RouteTableId=table_id, SubnetId=subnet_id)
    with cloud_errors(subnet_id, session.region):
        for acl in ec2.describe_network_acls(Filters=[{"Name": "association.subnet-id", "Values": [subnet_id]}])[
            "NetworkAcls"
        ]:
            for association in acl.get("Associations", []):
                if association.get("SubnetId") == subnet_id and acl.get("NetworkAclId") != acl_id:
                    ec2.replace_network_acl_association(
                        AssociationId=association.get("NetworkAclAssociationId", ""), NetworkAclId=acl_id
                    )


def halves(cidr: str) -> tuple[str, str]:
    """Return the two halves of a network: for the public subnet, and for the private one."""
    public, private = IPv4Network(cidr).subnets(prefixlen_diff=1)
    return str(public), str(private)


def allocate_address(session: Session, tags: Tags, name: str) -> str:
    """Get an elastic address, and return its allocation id (A06)."""
    tagged = tags.specification(name, "elastic-ip")
    return make(
        session,
        "elastic-ip",
        name,
        lambda ec2: ec2.allocate_address(Domain="vpc", TagSpecifications=tagged)["AllocationId"],
    )


def associate_address(session: Session, allocation_id: str, instance_id: str) -> None:
    """Give an instance an elastic address that nothing else has: it is never taken from another (A06)."""
    with cloud_errors(allocation_id, session.region):
        session.client("ec2").associate_address(
            AllocationId=allocation_id, InstanceId=instance_id, AllowReassociation=False
        )


def create_nat_gateway(session: Session, tags: Tags, name: str, *, subnet_id: str, allocation_id: str) -> str:
    """Make a NAT gateway in a public subnet, and return its id; it works when `wait_for_nat_gateway` has returned."""
    tagged = tags.specification(name, "natgateway")
    return make(
        session,
        "natgateway",
        name,
        lambda ec2: ec2.create_nat_gateway(
            SubnetId=subnet_id, AllocationId=allocation_id, TagSpecifications=tagged, ClientToken=name
        )["NatGateway"]["NatGatewayId"],
    )


def wait_for_nat_gateway(
    session: Session,
    nat_id: str,
    wanted: Literal["available", "deleted"],
    *,
    progress: Callable[[str], None] | None = None,
    clock: Clock = CLOCK,
) -> None:
    """Wait until a NAT gateway works, or is gone: then its address is free. Raises CloudFailed, DeadlinePassed."""
    wait_until(
        lambda: nat_state(session, nat_id),
        lambda state: state == wanted,
        what=nat_id,
        region=session.region,
        deadline_seconds=NAT_SECONDS,
        progress=progress,
        failed=lambda state: state if state == "failed" and wanted == "available" else None,
        clock=clock,
    )


def nat_state(session: Session, nat_id: str) -> str:
    """Return the state of a NAT gateway; one that is not listed is deleted."""
    try:
        with cloud_errors(nat_id, session.region):
            found = session.client("ec2").describe_nat_gateways(NatGatewayIds=[nat_id])["NatGateways"]
    except CloudFailed as error:
        if error_code(error) not in KINDS["natgateway"].missing:
            raise
        return "deleted"
    return found[0].get("State", "") if found else "deleted"


def read_layout(session: Session, vpc_id: str) -> Layout:
    """Return how a VPC's subnets are routed and filtered, as the cloud says. Raises CloudFailed."""
    filters: list[FilterTypeDef] = [{"Name": "vpc-id", "Values": [vpc_id]}]
    ec2 = session.client("ec2")
    with cloud_errors(vpc_id, session.region):
        tables = ec2.describe_route_tables(Filters=filters)["RouteTables"]
        lists = ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
    routes = {
        association["SubnetId"]: target_of(route)
        for table in tables
        for association in table.get("Associations", [])
        for route in table.get("Routes", [])
        if "SubnetId" in association and route.get("DestinationCidrBlock") == EVERYWHERE
    }
    entries = {
        association["SubnetId"]: frozenset(
            Entry(
                number=entry.get("RuleNumber", 0),
                egress=entry.get("Egress", False),
                protocol=entry.get("Protocol", "-1"),
                ports=(entry["PortRange"].get("From", 0), entry["PortRange"].get("To", 0))
                if "PortRange" in entry
                else None,
                network=entry.get("CidrBlock", ""),
            )
            for entry in acl.get("Entries", [])
            if entry.get("RuleAction") == "allow"
        )
        for acl in lists
        for association in acl.get("Associations", [])
        if "SubnetId" in association
    }
    return Layout(routes, entries)


def target_of(route: "RouteTypeDef") -> str:
    """Return where a route leads, and whether that is still there."""
    target = route.get("NatGatewayId") or route.get("InstanceId") or route.get("GatewayId") or "nowhere"
    return target if route.get("State", "active") == "active" else f"{target}, which is gone"


@dataclass(frozen=True)
class ElasticAddress:
    """An elastic address, and what it belongs to."""

    address: str
    bearer: str
    """The instance, or the NAT gateway; empty when nothing has it."""


def describe_address(session: Session, allocation_id: str) -> ElasticAddress:
    """Return an elastic address. Raises CloudFailed when it is not there."""
    ec2 = session.client("ec2")
    with cloud_errors(allocation_id, session.region):
        (found,) = ec2.describe_addresses(AllocationIds=[allocation_id])["Addresses"]
        bearer = found.get("InstanceId") or ""
        if not bearer and found.get("AssociationId"):
            filters: list[FilterTypeDef] = [{"Name": "state", "Values": ["available"]}]
            bearer = next(
                (
                    gateway.get("NatGatewayId", "")
                    for gateway in list_nat_gateways(ec2, filters)
                    for address in gateway.get("NatGatewayAddresses", [])
                    if address.get("AllocationId") == allocation_id
                ),
                "",
            )
    return ElasticAddress(found.get("PublicIp", ""), bearer)
