"""Which rules are open to the world, stale or too wide, and what else is left over in a network."""

from datetime import UTC, datetime

import pytest

from pipeline.audit import network
from pipeline.audit.findings import Verdict, judge
from pipeline.audit.network import Kind
from pipeline.aws.inventory import Possession
from pipeline.aws.security_groups import SecurityGroup
from pipeline.aws.security_rules import EVERY_PORT, Address, Interface, Route, Rule
from pipeline.errors import CloudFailed

NOW = datetime(2025, 6, 1, tzinfo=UTC)
WEB = frozenset({80, 443})


def rule(network="203.0.113.7/32", ports=(22, 22), protocol="tcp", egress=False, **about):
    return Rule("sgr-1", "sg-1", egress, protocol, ports, network, **about)


@pytest.mark.parametrize(
    ("one", "kinds"),
    [
        (rule(), []),
        (rule("0.0.0.0/0"), [Kind.WORLD]),
        (rule("::/0"), [Kind.WORLD]),
        (rule("128.0.0.0/1"), [Kind.WORLD]),  # half of the Internet is the Internet
        (rule("2000::/3"), [Kind.WORLD]),
        (rule("0.0.0.0/0", (443, 443)), []),
        (rule("0.0.0.0/0", (443, 443), "udp"), []),
        (rule("0.0.0.0/0", (80, 443)), [Kind.WORLD]),
        (rule("0.0.0.0/0", EVERY_PORT, "-1"), [Kind.WORLD]),
        (rule("0.0.0.0/0", (8, -1), "icmp"), []),
        (rule("0.0.0.0/0", (443, 443), "132"), [Kind.WORLD]),
        (rule("0.0.0.0/0", EVERY_PORT, "-1", egress=True), []),
        (rule("10.0.0.0/8"), []),
        (rule("10.0.0.0/8", (0, 65535)), [Kind.WIDE]),
        (rule("10.0.0.0/8", EVERY_PORT, "-1"), [Kind.WIDE]),
        (rule("10.0.0.0/24", EVERY_PORT, "-1"), []),
        (rule("fd00::/48", EVERY_PORT, "-1"), [Kind.WIDE]),
        (rule("", referenced_group="sg-1"), []),
        (rule("", referenced_group="sg-gone"), [Kind.STALE]),
        (rule("", referenced_group="sg-theirs", referenced_account="210987654321", peering="active"), []),
        (rule("", referenced_group="sg-theirs", referenced_account="210987654321", peering="deleted"), [Kind.STALE]),
        (rule("", prefix_list="pl-1"), []),
    ],
)
def test_rules_are_of_the_kinds_that_can_be_revoked(one, kinds):
    facts = {"rules": (one,), "groups": (SecurityGroup("sg-1", "web", "vpc-1", (), (), {}),)}
    sorted_rules = network.sort_rules(facts, WEB)
    assert [kind for kind in Kind if sorted_rules[kind]] == kinds


def test_nothing_is_stale_while_the_groups_are_not_known():
    facts = {"rules": (rule("", referenced_group="sg-gone"),), "groups": CloudFailed("denied")}
    assert not any(network.sort_rules(facts, WEB).values())


EMPTY = {"rules": (), "groups": (), "interfaces": (), "routes": (), "addresses": (), "possessions": ()}
OURS = {
    "assay:build-id": "20250131-235959-1a2b3c",
    "assay:name": "assay-20250131-235959-1a2b3c-ssh",
    "assay:owner": "ana",
}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, []),
        ({"groups": (SecurityGroup("sg-2", "old", "vpc-1", ("tcp 22 from 10.0.0.1/32",), (), {}),)}, ["A02"]),
        ({"groups": (SecurityGroup("sg-2", "old", "vpc-1", (), (), {}),)}, []),
        ({"groups": (SecurityGroup("sg-2", "default", "vpc-1", ("tcp 22 from 10.0.0.1/32",), (), {}),)}, []),
        (
            {
                "rules": (rule("0.0.0.0/0", EVERY_PORT, "-1", egress=True),),
                "interfaces": (Interface("eni-1", frozenset({"sg-1"}), True, "i-1", "interface"),),
            },
            ["A03"],
        ),
        ({"rules": (rule("0.0.0.0/0", EVERY_PORT, "-1", egress=True),)}, []),
        ({"routes": (Route("rtb-1", "10.0.0.0/8", "nat-1", "blackhole"),)}, ["A04"]),
        ({"routes": (Route("rtb-1", "10.0.0.0/8", "nat-1", "active"),)}, []),
        ({"interfaces": (Interface("eni-1", frozenset(), False, "i-1", "interface"),)}, ["A05"]),
        ({"interfaces": (Interface("eni-1", frozenset(), False, "", "nat_gateway"),)}, []),
        (
            {
                "interfaces": (Interface("eni-1", frozenset(), False, "i-1", "interface"),),
                "routes": (Route("rtb-1", "0.0.0.0/0", "i-1", "active"),),
            },
            [],
        ),
        ({"addresses": (Address("eipalloc-1", "198.51.100.7", False),)}, ["A06"]),
        ({"addresses": (Address("eipalloc-1", "198.51.100.7", True),)}, []),
        (
            {
                "possessions": (
                    Possession("instance", "i-1", "r", {**OURS, "assay:expires": "2025-05-31T00:00:00+00:00"}),
                )
            },
            ["A07"],
        ),
        (
            {
                "possessions": (
                    Possession("instance", "i-1", "r", {**OURS, "assay:expires": "2025-06-02T00:00:00+00:00"}),
                )
            },
            [],
        ),
        ({"possessions": (Possession("image", "ami-1", "r", {**OURS, "assay:expires": "never"}),)}, []),
    ],
)
def test_what_is_left_over_fails(changes, expected):
    lines = judge(network.checks(WEB, NOW), EMPTY | changes, "eu-central-1")
    assert [line.control for line in lines if line.verdict is Verdict.FAIL] == expected


def test_a_rule_reads_as_people_say_it():
    assert rule("0.0.0.0/0").summary == "tcp 22 from 0.0.0.0/0"
    assert rule("::/0", EVERY_PORT, "-1", egress=True).summary == "every protocol to ::/0"
    assert rule("", (8000, 8100), referenced_group="sg-2").summary == "tcp 8000-8100 from sg-2"
    assert rule("10.0.0.0/8", EVERY_PORT, "udp").summary == "udp every port from 10.0.0.0/8"
