"""Stage 1, the network: what the spec names, or made for the build; and what is read back of it (A02-A07)."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from pipeline.aws import instances, network, offers, security_groups, vpcs
from pipeline.aws.instances import Instance
from pipeline.aws.security_groups import Permission, in_words
from pipeline.aws.session import Session
from pipeline.aws.vpcs import EVERYWHERE, Kind
from pipeline.errors import ProofFailed
from pipeline.guest.shell import Login
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Network
from pipeline.stages.context import Context

SOURCE = "stages/network"


@dataclass(frozen=True)
class Group:
    """A security group of the build, and what it is meant to let through."""

    group_id: str
    openings: tuple[Permission, ...]
    outlets: tuple[Permission, ...]


@dataclass(frozen=True)
class MadeNetwork:
    """A network of the build's own."""

    vpc_id: str
    gateway_id: str
    public_subnet_id: str
    private_subnet_id: str
    private_table_id: str
    entries: frozenset[vpcs.Entry]
    address_id: str | None = None
    """The allocation of the NAT's elastic address; None where nothing goes out through a NAT."""
    nat_id: str | None = None
    """A NAT gateway or a NAT instance."""


@dataclass(frozen=True)
class Door:
    """The way into guests of this build, and out of them."""

    security_group_ids: tuple[str, ...]
    """Of the guests that are proved."""
    subnet_ids: tuple[str, ...]
    groups: tuple[Group, ...] = ()
    """The groups that the build made; none where the spec names some."""
    made: MadeNetwork | None = None
    gate: Group | None = None
    """The group of the bastion and of the NAT instance."""
    bastion: Login | None = None
    """How guests are reached that are behind a bastion."""


def open_door(context: Context) -> Door:
    """Find or make the network, and the security group that lets ssh in from where it is to come alone (A02-A04).

    Raises CloudFailed; what was made is in the journal.
    """
    wanted = context.spec.network
    if wanted.create:
        made = make_network(context, wanted)
        private = wanted.address == "private"
        door = Door((), (made.private_subnet_id if private else made.public_subnet_id,), made=made)
        vpc_id = made.vpc_id
    else:
        subnets = network.find_subnets(context.session, wanted.subnet_id)
        door = Door(wanted.security_group_ids, tuple(subnet.subnet_id for subnet in subnets))
        vpc_id = subnets[0].vpc_id
    if wanted.security_group_ids:
        return door
    if wanted.makes_gate:
        return make_pair(context, door, vpc_id)
    sources = [Permission(context.spec.ssh.port, cidrs)] if (cidrs := ssh_sources(context.session, wanted)) else []
    group = make_group(context, "ssh", vpc_id, sources, outlets(wanted))
    return replace(door, security_group_ids=(group.group_id,), groups=(group,))


def ssh_sources(session: Session, wanted: Network) -> tuple[str, ...]:
    """Return the networks from which ssh comes; none with Session Manager, which is asked from inside."""
    if wanted.connect == "session-manager" and not wanted.makes_gate:
        return ()
    cidrs = (network.caller_address(session),) if wanted.ssh_from == "caller" else wanted.ssh_from
    return network.check_cidrs(cidrs)


def outlets(wanted: Network) -> tuple[Permission, ...]:
    """Return what guests may reach (A03)."""
    return tuple(Permission(one.port, one.to, protocol=one.protocol) for one in wanted.egress)


def make_group(
    context: Context, role: str, vpc_id: str, openings: list[Permission], outlets: tuple[Permission, ...]
) -> Group:
    """Make a security group that lets this in and this out."""
    name, session = context.name(role), context.session

    def make() -> str:
        group_id = security_groups.create_security_group(
            session, context.tags, name, vpc_id=vpc_id, description="of a build, for its time"
        )
        security_groups.let_in(session, group_id, openings)
        security_groups.let_out(session, group_id, outlets)
        return group_id

    group_id = context.journal.create(
        "security-group", name, context.region, make, partial(security_groups.delete_security_group, session)
    )
    return Group(group_id, tuple(openings), outlets)


def make_pair(context: Context, door: Door, vpc_id: str) -> Door:
    """Make the pair of groups: the public one, of the gate, and the private one, which trusts the first by its id."""
    wanted, session, port = context.spec.network, context.session, context.spec.ssh.port
    assert wanted.create
    out = outlets(wanted)
    inside = (wanted.create.cidr,)
    sources = Permission(port, ssh_sources(session, wanted))
    public = make_group(context, "public", vpc_id, [sources], (*out, Permission(port, inside)))
    private = make_group(context, "private", vpc_id, [Permission(port, group_id=public.group_id)], out)
    forwarded = [Permission(one.port, group_id=private.group_id, protocol=one.protocol) for one in out]
    if wanted.makes_nat == "instance":
        security_groups.let_in(session, public.group_id, forwarded)
        public = replace(public, openings=(*public.openings, *forwarded))
    return replace(door, security_group_ids=(private.group_id,), groups=(public, private), gate=public)


def make_network(context: Context, wanted: Network) -> MadeNetwork:
    """Make a VPC with a public and a private subnet, an internet gateway, routes and an access list (A04)."""
    assert wanted.create
    session, tags, cidr = context.session, context.tags, wanted.create.cidr
    vpc_id = make(context, "vpc", "vpc", lambda name: vpcs.create_vpc(session, tags, name, cidr))
    gateway_id = make(
        context,
        "internet-gateway",
        "internet-gateway",
        lambda name: vpcs.create_internet_gateway(session, tags, name),
    )
    vpcs.attach_internet_gateway(session, gateway_id, vpc_id)
    tables = {
        role: make(
            context, "route-table", f"{role}-routes", lambda name: vpcs.create_route_table(session, tags, name, vpc_id)
        )
        for role in ("public", "private")
    }
    vpcs.lead_out(session, tables["public"], gateway_id)
    sources = ssh_sources(session, wanted)
    entries = vpcs.plan_entries(cidr, [Permission(context.spec.ssh.port, sources)] if sources else [], outlets(wanted))
    acl_id = make(
        context,
        "network-acl",
        "access-list",
        lambda name: vpcs.create_network_acl(session, tags, name, vpc_id, entries),
    )
    instance = context.spec.instance
    zone = offers.first_zone(session, (instance.type, *instance.types))
    subnets = {
        role: make(
            context,
            "subnet",
            f"{role}-subnet",
            lambda name, half=half: vpcs.create_subnet(session, tags, name, vpc_id=vpc_id, cidr=half, zone=zone),  # type: ignore[misc]
        )
        for role, half in zip(("public", "private"), vpcs.halves(cidr), strict=True)
    }
    for role, subnet_id in subnets.items():
        vpcs.connect_subnet(session, subnet_id, table_id=tables[role], acl_id=acl_id)
    made = MadeNetwork(vpc_id, gateway_id, subnets["public"], subnets["private"], tables["private"], frozenset(entries))
    return make_nat_gateway(context, made) if wanted.makes_nat == "gateway" else made


def make(context: Context, kind: Kind, role: str, call: Callable[[str], str]) -> str:
    """Make one thing of a network under its name, in the journal."""
    name = context.name(role)
    return context.journal.create(
        kind,
        name,
        context.region,
        lambda: call(name),
        lambda identity: vpcs.delete_things(context.session, identity, kind),
    )


def make_nat_gateway(context: Context, made: MadeNetwork) -> MadeNetwork:
    """Let the private subnet out through a NAT gateway with an elastic address (A05, A06)."""
    session, tags = context.session, context.tags
    address_id = make(context, "elastic-ip", "nat-address", lambda name: vpcs.allocate_address(session, tags, name))
    nat_id = make(
        context,
        "natgateway",
        "nat",
        lambda name: vpcs.create_nat_gateway(
            session, tags, name, subnet_id=made.public_subnet_id, allocation_id=address_id
        ),
    )
    vpcs.wait_for_nat_gateway(session, nat_id, "available", progress=context.recorder.progress)
    vpcs.lead_out(session, made.private_table_id, nat_id)
    return replace(made, address_id=address_id, nat_id=nat_id)


def route_through(context: Context, made: MadeNetwork, instance_id: str) -> MadeNetwork:
    """Let the private subnet out through a NAT instance: it forwards, and bears an elastic address (A05, A06)."""
    session, tags = context.session, context.tags
    instances.forward_for_others(session, instance_id)
    address_id = make(context, "elastic-ip", "nat-address", lambda name: vpcs.allocate_address(session, tags, name))
    vpcs.associate_address(session, address_id, instance_id)
    vpcs.lead_out(session, made.private_table_id, instance_id)
    return replace(made, address_id=address_id, nat_id=instance_id)


def prove_network(context: Context, door: Door, instance: Instance) -> None:
    """Read back what the instance and its network are, and record whether they are as the spec says (A02-A07)."""
    with context.recorder.stage("network"):
        results = (
            *group_results(context, door),
            *route_results(context, door, instance),
            *instance_results(context, instance),
        )
        context.recorder.add(*results)
    if bad := sorted({result.controls[0] for result in results if result.status.is_failure}):
        raise ProofFailed(f"the network is not as the spec says: {', '.join(bad)}", resource=instance.instance_id)


def group_results(context: Context, door: Door) -> Iterator[Result]:
    """A02, A03: the groups let through what they are to, and nothing else."""
    found = {one.group_id: one for one in security_groups.describe_security_groups(context.session, *all_groups(door))}
    if not door.groups:
        world = [rule for group in found.values() for rule in group.openings if opens_ssh(rule, context.spec.ssh.port)]
        yield compare("A02", "the groups given let nobody in by ssh from everywhere", [], world)
        yield result("A03", "the way out is that of the groups given", Status.NOT_APPLICABLE, "`audit.network` looks")
        return
    for group in door.groups:
        read = found[group.group_id]
        yield compare(
            "A02",
            f"{read.name} lets in what it is to, and nothing else",
            list(in_words(group.openings, "from")),
            list(read.openings),
        )
        yield compare(
            "A03",
            f"{read.name} lets out what is declared, and nothing else",
            list(in_words(group.outlets, "to")),
            list(read.outlets),
        )


def all_groups(door: Door) -> tuple[str, ...]:
    """Return every security group that matters."""
    return tuple(dict.fromkeys((*door.security_group_ids, *(group.group_id for group in door.groups))))


def opens_ssh(rule: str, port: int) -> bool:
    """Return whether a rule in words lets everybody reach the port of ssh."""
    what, _, peer = rule.partition(" from ")
    if peer not in (EVERYWHERE, "::/0"):
        return False
    ports = what.split()[-1]
    first, _, last = ports.partition("-")
    return not first.isdecimal() or int(first) <= port <= int(last or first)


def route_results(context: Context, door: Door, instance: Instance) -> Iterator[Result]:
    """A04, A05: the instance is in its subnet, routes and access lists are as made, and only a NAT forwards."""
    yield compare("A04", "the instance is in a subnet of the spec", True, instance.subnet_id in door.subnet_ids)
    yield compare("A05", "the instance drops packets that are not its own", True, instance.checks_source)
    made = door.made
    if made is None:
        return
    layout = vpcs.read_layout(context.session, made.vpc_id)
    routes = {made.public_subnet_id: made.gateway_id}
    if made.nat_id:
        routes[made.private_subnet_id] = made.nat_id
    yield compare("A04", "each subnet leads where it is to", routes, layout.default_routes)
    entries = {subnet_id: made.entries for subnet_id in (made.public_subnet_id, made.private_subnet_id)}
    yield compare("A04", "the access list of each subnet is as declared", entries, layout.entries)
    if made.nat_id and made.address_id:
        address = vpcs.describe_address(context.session, made.address_id)
        yield compare("A06", "the elastic address is the NAT's", made.nat_id, address.bearer)
    if made.nat_id and made.nat_id.startswith("i-"):
        nat = instances.describe_instance(context.session, made.nat_id)
        yield compare("A05", "the NAT instance forwards", False, nat.checks_source)
    elif made.nat_id:
        yield compare("A05", "the NAT gateway works", "available", vpcs.nat_state(context.session, made.nat_id))


def instance_results(context: Context, instance: Instance) -> Iterator[Result]:
    """A07, A21: protected where the spec asks it, nothing outlives the instance, all is tagged, and no other role."""
    yield compare(
        "A21", "the instance has no role but that of the spec", context.spec.instance.profile, instance.profile
    )
    yield compare("A07", "no volume outlives the instance", (), instance.lasting_disks)
    parts = (instance.instance_id, *instance.parts)
    bare = instances.untagged(context.session, parts, context.build_id)
    yield compare("A07", "the instance, its volumes and its interfaces are tagged", (), bare)
    if context.spec.instance.termination_protection:
        refusal = instances.try_to_terminate(context.session, instance.instance_id)
        yield compare("A07", "its termination was tried, and refused", True, bool(refusal))


def compare(control: str, title: str, wanted: object, found: object) -> Result:
    """Return the result of holding what was read back against what was meant."""
    if wanted == found:
        return result(control, title, Status.PASS)
    return result(control, title, Status.FAIL, f"wanted {wanted!r}, found {found!r}")


def result(control: str, title: str, status: Status, detail: str = "") -> Result:
    """Return a result of the network."""
    return Result(controls=(control,), layer=Layer.AWS, status=status, title=title, source=SOURCE, detail=detail)
