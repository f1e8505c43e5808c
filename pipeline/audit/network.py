"""Is the network closed: rules open to the world, rules that are stale, groups that are too wide (A02-A07).

The rules that are found can be revoked: first asked with a dry run, then done, then read back.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from functools import partial
from ipaddress import ip_network

from pipeline.audit.findings import Bad, Check, Facts, Line, gather, in_each, judge, of_region
from pipeline.aws import inventory, security_rules
from pipeline.aws.inventory import Possession
from pipeline.aws.network import WIDEST_IPV4, WIDEST_IPV6
from pipeline.aws.security_groups import SecurityGroup
from pipeline.aws.security_rules import Address, Interface, Route, Rule
from pipeline.aws.session import Session
from pipeline.aws.tags import is_expired, is_kept
from pipeline.errors import AssayError, AuditFailed

WEB_PORTS = frozenset({80, 443})
"""What may be open to the world unless the caller says otherwise."""
MANY_PORTS = 1000
WIDE_IPV4 = 24
WIDE_IPV6 = 64
"""Networks with more addresses than these are more than one office."""
HARMLESS = frozenset({"icmp", "icmpv6", "1", "58"})
DEAD_PEERING = frozenset({"deleted", "deleting", "expired", "failed", "rejected"})


class Kind(StrEnum):
    """The kinds of rules that can be revoked."""

    WORLD = "world"
    STALE = "stale"
    WIDE = "wide"


@dataclass(frozen=True)
class NetworkAudit:
    """What was found in the regions, and which rules are bad in which way."""

    lines: tuple[Line, ...]
    rules: dict[str, dict[Kind, tuple[Rule, ...]]]
    """By region; a region whose rules could not be read is not in it."""


READERS = {
    "rules": security_rules.list_rules,
    "groups": security_rules.list_groups,
    "interfaces": security_rules.list_interfaces,
    "routes": security_rules.list_routes,
    "addresses": security_rules.list_addresses,
    "possessions": inventory.list_possessions,
}


def audit_network(
    session: Session, regions: Sequence[str], *, public_ports: frozenset[int] = WEB_PORTS, now: datetime | None = None
) -> NetworkAudit:
    """Return what is open, stale or too wide in each of these regions; what cannot be read is in the lines."""
    there = {region: session.in_region(region) for region in regions}
    facts = gather(in_each(there, READERS))
    lines: list[Line] = []
    rules: dict[str, dict[Kind, tuple[Rule, ...]]] = {}
    for region in there:
        local = of_region(facts, region)
        lines += judge(checks(public_ports, now or datetime.now(UTC)), local, region)
        if not isinstance(local["rules"], AssayError):
            rules[region] = sort_rules(local, public_ports)
    return NetworkAudit(tuple(lines), rules)


def checks(public_ports: frozenset[int], now: datetime) -> tuple[Check, ...]:
    """Return the checks of one region."""
    rules = "ec2:DescribeSecurityGroupRules"
    groups = f"{rules} ec2:DescribeSecurityGroups"
    users = "ec2:DescribeSecurityGroups ec2:DescribeNetworkInterfaces"
    routes = "ec2:DescribeRouteTables"
    world = partial(world_open, public_ports=public_ports)
    left_over = partial(expired, now=now)
    return (
        Check("A02", "no rule is open to the world", rules, ("rules",), lambda found: as_bad(world(found))),
        Check("A02", "no group is over-wide", rules, ("rules",), lambda found: as_bad(over_wide(found))),
        Check("A02", "no rule is stale", groups, ("rules", "groups"), lambda *found: as_bad(stale(*found))),
        Check("A02", "every group is in use", users, ("groups", "interfaces", "rules"), unused_groups),
        Check("A03", "no used group lets everything out", rules, ("rules", "interfaces"), all_out),
        Check("A04", "every route leads somewhere", routes, ("routes",), dead_routes),
        Check("A05", "only a NAT forwards others' packets", f"{users} {routes}", ("interfaces", "routes"), forwarders),
        Check("A06", "every elastic address is used", "ec2:DescribeAddresses", ("addresses",), idle_addresses),
        Check("A07", "nothing of an ended build is left", "ec2:Describe*", ("possessions",), left_over),
    )


def sort_rules(facts: Facts, public_ports: frozenset[int]) -> dict[Kind, tuple[Rule, ...]]:
    """Return the bad rules by kind. Without the list of groups nothing is called stale."""
    rules, groups = facts["rules"], facts["groups"]
    if not isinstance(rules, tuple):
        return {}
    known = groups if isinstance(groups, tuple) else None
    return {
        Kind.WORLD: tuple(world_open(rules, public_ports)),
        Kind.WIDE: tuple(over_wide(rules)),
        Kind.STALE: tuple(stale(rules, known)) if known is not None else (),
    }


def as_bad(rules: Iterable[Rule]) -> Iterator[Bad]:
    """Yield a finding for each rule."""
    yield from (Bad(f"{rule.group_id} {rule.rule_id}", rule.summary) for rule in rules)


def world_open(rules: Iterable[Rule], public_ports: frozenset[int]) -> Iterator[Rule]:
    """Yield the rules that let the world in, but for the ports that are meant for it (A02)."""
    for rule in rules:
        first, last = rule.ports
        public = rule.protocol in {"tcp", "udp", "6", "17"} and first == last and first in public_ports
        if not rule.egress and is_world(rule.network) and rule.protocol not in HARMLESS and not public:
            yield rule


def over_wide(rules: Iterable[Rule]) -> Iterator[Rule]:
    """Yield the rules that open very many ports to more than one office, short of the world (A02)."""
    for rule in rules:
        first, last = rule.ports
        many = rule.protocol not in HARMLESS and last - first + 1 >= MANY_PORTS
        if not rule.egress and many and is_wider(rule.network, WIDE_IPV4, WIDE_IPV6) and not is_world(rule.network):
            yield rule


def is_world(network: str) -> bool:
    """Return whether a network is the Internet, or so much of it that it makes no difference."""
    return is_wider(network, WIDEST_IPV4, WIDEST_IPV6)


def is_wider(network: str, ipv4: int, ipv6: int) -> bool:
    """Return whether a network has a shorter prefix than these; a rule without a network has not."""
    if not network:
        return False
    parsed = ip_network(network, strict=False)
    return parsed.prefixlen < (ipv4 if parsed.version == 4 else ipv6)


def stale(rules: Iterable[Rule], groups: Iterable[SecurityGroup]) -> Iterator[Rule]:
    """Yield the rules that name a group which is gone, of this account or over a peering that ended (A02)."""
    known = {group.group_id for group in groups}
    for rule in rules:
        own = not rule.referenced_account and not rule.peering
        gone = rule.referenced_group not in known
        if rule.referenced_group and ((own and gone) or rule.peering in DEAD_PEERING):
            yield rule


def unused_groups(
    groups: Iterable[SecurityGroup], interfaces: Iterable[Interface], rules: Iterable[Rule]
) -> Iterator[Bad]:
    """A02: a group that nothing bears waits, open, for the next one who picks it."""
    used = {group_id for interface in interfaces for group_id in interface.group_ids}
    named = {rule.referenced_group for rule in rules}
    for group in groups:
        if group.openings and group.name != "default" and group.group_id not in used | named:
            yield Bad(f"{group.group_id} {group.name}", "no network interface bears it, and no rule names it")


def all_out(rules: Iterable[Rule], interfaces: Iterable[Interface]) -> Iterator[Bad]:
    """A03: a guest that may reach everything may send everything everywhere."""
    used = {group_id for interface in interfaces for group_id in interface.group_ids}
    everything = (rule for rule in rules if rule.egress and rule.protocol == "-1" and is_world(rule.network))
    yield from as_bad(rule for rule in everything if rule.group_id in used)


def dead_routes(routes: Iterable[Route]) -> Iterator[Bad]:
    """A04: a route whose target is gone swallows what is sent there."""
    for route in routes:
        if route.state == "blackhole":
            yield Bad(route.table_id, f"{route.destination} leads to {route.target}, which is gone")


def forwarders(interfaces: Iterable[Interface], routes: Iterable[Route]) -> Iterator[Bad]:
    """A05: the source/destination check is off on a NAT instance only, and that is the target of a route."""
    targets = {route.target for route in routes}
    for interface in interfaces:
        routed = targets & {interface.interface_id, interface.instance_id} - {""}
        if interface.kind == "interface" and not interface.checks_source and not routed:
            yield Bad(f"{interface.interface_id} {interface.instance_id}".strip(), "source/destination check is off")


def idle_addresses(addresses: Iterable[Address]) -> Iterator[Bad]:
    """A06: an address that nothing bears is paid for."""
    for address in addresses:
        if not address.associated:
            yield Bad(f"{address.allocation_id} {address.address}", "no instance bears it: release it")


def expired(possessions: Iterable[Possession], now: datetime) -> Iterator[Bad]:
    """A07: what a build made bears its expiry."""
    for possession in possessions:
        if is_expired(possession.tags, now) and not is_kept(possession.tags):
            yield Bad(
                possession.identity, f"{possession.kind} of build {possession.build_id}: `invoke sweep` removes it"
            )


def revoke(session: Session, audit: NetworkAudit, kinds: frozenset[Kind], *, dry_run: bool) -> Iterator[str]:
    """Yield a line for each rule of these kinds, then ask with a dry run, then revoke and read back.

    Nothing is revoked anywhere unless every dry run was accepted. Raises CloudFailed when one is refused, AuditFailed
    when a revoked rule is still there.
    """
    chosen = {
        region: {rule.rule_id: rule for kind in sorted(kinds) for rule in by_kind.get(kind, ())}
        for region, by_kind in audit.rules.items()
    }
    verb = "would revoke" if dry_run else "revokes"
    for region, rules in chosen.items():
        yield from (f"{verb} {rule.group_id} {rule.rule_id} in {region}: {rule.summary}" for rule in rules.values())
        security_rules.revoke_rules(session.in_region(region), rules.values(), dry_run=True)
    if not any(chosen.values()):
        yield "nothing to revoke"
    if dry_run:
        return
    for region, rules in chosen.items():
        if rules:
            there = session.in_region(region)
            security_rules.revoke_rules(there, rules.values(), dry_run=False)
            require_gone(there, frozenset(rules))


def require_gone(session: Session, rule_ids: frozenset[str]) -> None:
    """Read the rules back. Raises AuditFailed: that a call was accepted proves nothing."""
    if left := sorted(rule_ids & {rule.rule_id for rule in security_rules.list_rules(session)}):
        raise AuditFailed(f"revoked, and still there: {', '.join(left)}", region=session.region)
