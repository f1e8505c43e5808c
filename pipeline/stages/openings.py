"""Part of stage 7: what an instance is open for. The security group as it is read back, a scan from outside (H19)."""

from collections.abc import Collection, Iterator

from pipeline.aws.security_rules import Rule, rules_of
from pipeline.guest.shell import DirectConnector
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Spec
from pipeline.stages.context import Context
from pipeline.stages.guests import Guest
from pipeline.verify.port_scan import prove_ports, prove_udp_ports

Opening = tuple[str, int]
"""A protocol and a port."""


def prove_openings(context: Context, guest: Guest) -> tuple[Result, ...]:
    """Return what the instance's groups let in, and, where the spec asks for scans, what answers from outside."""
    spec, connector = context.spec, guest.connector
    rules = [rule for rule in rules_of(context.session, *guest.instance.security_group_ids) if not rule.egress]
    results = [prove_rules(rules, intended_openings(spec))]
    if spec.network.scan_ports and isinstance(connector, DirectConnector):
        served = {port for protocol, port in intended_openings(spec) if protocol == "tcp" and port != spec.ssh.port}
        reachable = {port for port in served if any(lets_in(rule, "tcp", port) for rule in rules)}
        udp = {one.port for one in spec.harden.listen if one.protocol == "udp"}
        with context.recorder.stage("port scan"):
            results.append(prove_ports(connector.address, {connector.port, *reachable}))
            results.append(prove_udp_ports(connector.address, udp))
    return tuple(results)


def intended_openings(spec: Spec) -> frozenset[Opening]:
    """Return what a group is meant to let in: ssh, and what the image serves where the spec brings its own groups."""
    served = {(one.protocol, one.port) for one in spec.harden.listen} if spec.network.security_group_ids else set()
    asked_from_inside = spec.network.connect == "session-manager" and not spec.network.makes_gate
    return frozenset(served if asked_from_inside else {("tcp", spec.ssh.port), *served})


def prove_rules(rules: Collection[Rule], intended: frozenset[Opening]) -> Result:
    """Return the result for the rules that let something in: each is for one port that is meant."""
    problems = [rule.summary for rule in rules if (rule.protocol, *rule.ports) not in single_ports(intended)]
    if intended and not rules:
        problems = ["no rule lets anything in"]
    return Result(
        controls=("H19",),
        layer=Layer.AWS,
        status=Status.FAIL if problems else Status.PASS,
        title="the instance's security groups let in what a scan may find, and nothing else",
        source="stages/openings",
        detail="; ".join(problems),
    )


def single_ports(intended: Collection[Opening]) -> Iterator[tuple[str, int, int]]:
    """Yield the openings as rules have them: from one port to itself."""
    return ((protocol, port, port) for protocol, port in intended)


def lets_in(rule: Rule, protocol: str, port: int) -> bool:
    """Return whether a rule is for a port."""
    return rule.protocol in (protocol, "-1") and rule.ports[0] <= port <= rule.ports[1]
