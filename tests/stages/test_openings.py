"""What a security group lets in is what is meant, port by port."""

import pytest

from pipeline.aws.security_rules import EVERY_PORT, Rule
from pipeline.report.evidence import Layer, Status
from pipeline.stages.openings import intended_openings, lets_in, prove_rules
from tests.harden.samples import spec


def rule(protocol: str, first: int, last: int, network: str = "203.0.113.7/32") -> Rule:
    return Rule("sgr-1", "sg-1", egress=False, protocol=protocol, ports=(first, last), network=network)


SSH = rule("tcp", 22, 22)
ONLY_SSH = frozenset({("tcp", 22)})


@pytest.mark.parametrize(
    ("rules", "detail"),
    [
        ([SSH], ""),
        ([SSH, rule("tcp", 22, 22, "198.51.100.0/24")], ""),
        ([SSH, rule("tcp", 80, 80)], "tcp 80 from 203.0.113.7/32"),
        ([SSH, rule("udp", 22, 22)], "udp 22 from 203.0.113.7/32"),
        ([rule("tcp", 22, 65535)], "tcp 22-65535 from 203.0.113.7/32"),
        ([SSH, rule("-1", *EVERY_PORT)], "every protocol from 203.0.113.7/32"),
        ([], "no rule lets anything in"),
    ],
)
def test_each_rule_is_for_a_port_that_is_meant(rules, detail):
    result = prove_rules(rules, ONLY_SSH)
    assert (result.status, result.detail) == (Status.FAIL if detail else Status.PASS, detail)
    assert (result.controls, result.layer) == (("H19",), Layer.AWS)


def test_a_group_of_the_build_is_for_ssh_alone_and_one_of_the_spec_for_what_is_served():
    listen = [{"port": 443}, {"port": 514, "protocol": "udp"}]
    own = spec(harden={"listen": listen})
    given = spec(harden={"listen": listen}, network={"security_group_ids": ["sg-0123456789abcdef0"]})
    assert intended_openings(own) == {("tcp", 22)}
    assert intended_openings(given) == {("tcp", 22), ("tcp", 443), ("udp", 514)}


@pytest.mark.parametrize(
    ("one", "reached"),
    [(rule("tcp", 400, 500), True), (rule("-1", *EVERY_PORT), True), (rule("udp", 443, 443), False), (SSH, False)],
)
def test_which_rules_let_a_port_in(one, reached):
    assert lets_in(one, "tcp", 443) is reached
