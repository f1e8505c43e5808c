"""The host firewall, as the kernel has it: what is not allowed is dropped, and nothing but the spec's ports is allowed.

A packet must be accepted by every chain of the input hook. So one chain that drops what it does not know decides, and
what other tables say can only take away.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from checks.fixtures import Ask
from pipeline.spec import FirewallOptions, Spec

RULES = "PATH=$PATH:/usr/sbin:/sbin; command -v nft >/dev/null && nft -j list ruleset || echo '{\"nftables\": []}'"
LOADED_AT_BOOT = "ls -L /etc/systemd/system/*.wants/nftables.service /etc/nftables.conf /etc/sysconfig/nftables.conf"

Rule = list[dict[str, Any]]
Ports = set[tuple[str, int, frozenset[str]]]


@pytest.fixture
def wanted(spec: Spec) -> FirewallOptions:
    """What the spec says of the firewall."""
    if spec.harden.firewall is None:
        pytest.skip("the spec does not ask for a host firewall (harden.firewall)")
    return spec.harden.firewall


@pytest.fixture
def ruleset(ask: Ask) -> list[dict[str, Any]]:
    """All tables, chains and rules of the kernel's packet filter."""
    entries: list[dict[str, Any]] = json.loads(ask(RULES))["nftables"]
    return entries


def dropping_chains(ruleset: list[dict[str, Any]], hook: str) -> list[dict[str, Any]]:
    """Return the chains of a hook that drop what they do not accept, for both families of addresses."""
    chains = [entry["chain"] for entry in ruleset if "chain" in entry]
    return [one for one in chains if (one["family"], one.get("hook"), one.get("policy")) == ("inet", hook, "drop")]


def rules_of(ruleset: list[dict[str, Any]], chain: dict[str, Any]) -> Iterator[Rule]:
    """Yield what the rules of a chain say, in their order."""
    for entry in ruleset:
        rule = entry.get("rule")
        if rule and (rule["family"], rule["table"], rule["chain"]) == ("inet", chain["table"], chain["name"]):
            yield rule["expr"]


def is_harmless(rule: Rule) -> bool:
    """Return whether a rule lets nothing in, or only what the kernel itself needs or asked for."""
    if not {"accept", "jump", "goto", "queue", "vmap", "xt", "map"} & {word for part in rule for word in part}:
        return True
    return any(is_harmless_match(part["match"]) for part in rule if "match" in part)


def is_harmless_match(match: dict[str, Any]) -> bool:
    """Return whether what it selects may come in: answers, ICMP, leases, and what is this machine's own."""
    if match["op"] not in ("==", "in"):
        return False
    (kind, left), right = next(iter(match["left"].items())), match["right"]
    values = set(right) if isinstance(right, list) else {right} if isinstance(right, (str, int)) else set()
    return (
        (kind == "ct" and left.get("key") == "state" and bool(values) and values <= {"established", "related"})
        or (kind == "meta" and left.get("key") in ("iif", "iifname") and values == {"lo"})
        or (kind == "payload" and left["protocol"] in ("icmp", "icmpv6"))
        or (kind == "payload" and (left["protocol"], left["field"]) == ("udp", "dport") and values in ({68}, {546}))
    )


def ports_of(rule: Rule) -> Ports:
    """Return what a rule lets in: protocol, port and sources; what is not understood is port 0."""
    protocol, ports, sources = "?", [0], frozenset[str]()
    for match in (part["match"] for part in rule if "match" in part):
        left, right = match["left"].get("payload", {}), match["right"]
        values = right["set"] if isinstance(right, dict) and "set" in right else [right]
        if left.get("field") == "dport" and match["op"] == "==" and all(isinstance(value, int) for value in values):
            protocol, ports = left["protocol"], values
        elif left.get("field") == "saddr" and match["op"] == "==":
            sources = frozenset(map(name_network, values))
        else:
            return {("?", 0, frozenset({json.dumps(rule)}))}
    return {(protocol, port, sources) for port in ports}


def name_network(value: Any) -> str:
    """Return a network as specs write it."""
    if isinstance(value, dict) and "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    return f"{value}/{128 if ':' in str(value) else 32}"


def allowed_ports(spec: Spec, firewall: FirewallOptions) -> Ports:
    """Return what the spec lets in; the addresses of the two families are let in by rules of their own."""
    ssh = {spec.ssh.port} | ({spec.harden.sshd.port} if spec.harden.sshd else set())
    every = [("tcp", port, firewall.ssh_sources) for port in ssh]
    every += [(one.protocol, one.port, one.sources) for one in spec.harden.listen]
    found: Ports = set()
    for protocol, port, sources in every:
        by_family = [{one for one in sources if (":" in one) == is_new} for is_new in (False, True)]
        found |= {(protocol, port, frozenset(family)) for family in by_family if family or not sources}
    return found


@pytest.mark.controls("H20", layers="LB")
def test_what_comes_in_is_dropped(wanted: FirewallOptions, ruleset: list[dict[str, Any]]) -> None:
    """What no rule accepts is dropped, of IPv4 and of IPv6."""
    assert dropping_chains(ruleset, "input")


@pytest.mark.controls("H20", layers="LB")
def test_only_the_ports_of_the_spec_are_open(
    spec: Spec, wanted: FirewallOptions, ruleset: list[dict[str, Any]]
) -> None:
    """ssh and the ports of the spec are open, each to the sources of the spec, and nothing else is."""
    opened = [
        {port for rule in rules_of(ruleset, chain) if not is_harmless(rule) for port in ports_of(rule)}
        for chain in dropping_chains(ruleset, "input")
    ]
    assert opened == [allowed_ports(spec, wanted)]


@pytest.mark.controls("H20", layers="LB")
def test_nothing_is_passed_on(wanted: FirewallOptions, ruleset: list[dict[str, Any]]) -> None:
    """What is for another machine is dropped, unless the spec has containers."""
    if wanted.forward:
        pytest.skip("the spec lets packets through (harden.firewall.forward)")
    assert dropping_chains(ruleset, "forward")


@pytest.mark.controls("H20", layers="LB")
def test_the_firewall_comes_up_at_boot(wanted: FirewallOptions, ask: Ask) -> None:
    """The firewall is loaded at each boot."""
    assert len(ask(f"{LOADED_AT_BOOT} 2>/dev/null; true").split()) >= 2
