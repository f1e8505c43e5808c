"""Firewall and metadata service as tables: facts and options in, rules out."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.harden import firewall, harden_steps, metadata
from pipeline.spec import FirewallOptions, MetadataOptions
from tests.harden.samples import AMAZON, DEBIAN, spec, text_of


def rules(listen: list[dict[str, Any]] | None = None, **options: Any) -> list[str]:
    wanted = spec(harden={"listen": listen or [], "firewall": options})
    assert wanted.harden.firewall
    return [line.strip() for line in firewall.chains(wanted, wanted.harden.firewall).splitlines()]


@pytest.mark.parametrize(
    ("listen", "options", "present", "absent"),
    [
        ([], {}, ["tcp dport 22 accept", "chain forward {", "icmp type echo-request accept"], ["tcp dport 443 accept"]),
        ([{"port": 443}], {}, ["tcp dport 443 accept", "tcp dport 22 accept"], []),
        ([{"port": 53, "protocol": "udp"}], {}, ["udp dport 53 accept"], ["tcp dport 53 accept"]),
        (
            [{"port": 443, "sources": ["2001:db8::/32", "10.0.0.0/8", "192.0.2.0/24"]}],
            {},
            [
                "ip saddr { 10.0.0.0/8, 192.0.2.0/24 } tcp dport 443 accept",
                "ip6 saddr { 2001:db8::/32 } tcp dport 443 accept",
            ],
            ["tcp dport 443 accept"],
        ),
        ([], {"ssh_sources": ["10.0.0.0/8"]}, ["ip saddr { 10.0.0.0/8 } tcp dport 22 accept"], ["tcp dport 22 accept"]),
        ([], {"answer_ping": False}, [], ["icmp type echo-request accept", "icmpv6 type echo-request accept"]),
        ([], {"forward": True}, [], ["chain forward {"]),
    ],
)
def test_an_option_is_a_rule(
    listen: list[dict[str, Any]], options: dict[str, Any], present: list[str], absent: list[str]
) -> None:
    found = rules(listen, **options)
    assert [rule for rule in present if rule not in found] == []
    assert [rule for rule in absent if rule in found] == []


def test_every_chain_of_the_firewall_drops_what_it_does_not_accept() -> None:
    heads = [line for line in rules() if line.startswith("type")]
    assert len(heads) == 2
    assert all(line.endswith("policy drop;") for line in heads)


def test_the_ports_of_ssh_before_and_after_its_change_are_open() -> None:
    moved = spec(ssh={"port": 2022}, harden={"sshd": {"port": 2222}, "firewall": {}})
    assert firewall.ssh_ports(moved) == (2022, 2222)
    assert firewall.ssh_ports(spec(harden={"sshd": None, "firewall": {}})) == (22,)


def test_the_firewall_is_last_and_its_package_comes_first() -> None:
    steps = harden_steps(DEBIAN, spec(harden={"firewall": {}, "metadata": {}}))
    subjects = [step.subject for step in steps]
    assert subjects[-1] == "firewall"
    assert subjects.count("packages") == 1
    assert subjects.index("packages") < subjects.index("metadata") < subjects.index("sshd")
    (package,) = (step for step in steps if step.subject == "packages")
    assert (package.title, package.controls) == ("install nftables", ("H20", "H21"))


def test_nothing_is_installed_for_a_spec_that_asks_for_neither() -> None:
    assert "nftables" not in text_of(harden_steps(DEBIAN, spec()))
    by_route = harden_steps(DEBIAN, spec(harden={"metadata": {"reachable": "while-booting"}}))
    assert "nftables" not in text_of(by_route)
    assert "blackhole 169.254.169.254/32" in text_of(by_route)
    assert "blackhole fd00:ec2::254/128" in text_of(by_route)


def test_each_family_has_its_own_file_and_tool() -> None:
    wanted = spec(harden={"firewall": {}})
    assert "main=/etc/nftables.conf" in text_of(harden_steps(DEBIAN, wanted))
    amazon = text_of(harden_steps(AMAZON, wanted))
    assert "main=/etc/sysconfig/nftables.conf" in amazon
    assert "dnf -y -q install $wanted" in amazon


def test_root_reaches_the_metadata_service_and_so_do_the_users_of_the_spec() -> None:
    assert "meta skuid { root } accept" in metadata.chains(())
    assert "meta skuid { root, web } accept" in metadata.chains(("web",))
    text = metadata.chains(())
    assert text.index("established,related accept") < text.index("meta skuid") < text.index("reject")
    for address in ("ip daddr 169.254.169.254", "ip6 daddr fd00:ec2::254"):
        assert f"{address} goto owner" in text
        assert f"{address} drop" in text


def test_the_route_waits_for_cloud_init_where_there_is_one() -> None:
    options = MetadataOptions(reachable="while-booting")
    assert "WantedBy=cloud-init.target" in text_of(metadata.steps(DEBIAN, options))
    assert "WantedBy=multi-user.target" in text_of(metadata.steps(replace(DEBIAN, cloud_init=None), options))


def test_a_rollback_takes_the_firewall_away_for_good() -> None:
    (step,) = firewall.steps(DEBIAN, spec(harden={"firewall": {}}), FirewallOptions())
    assert "file=/etc/nftables.d/assay-firewall.nft" in text_of([step])
    assert "nft delete table inet assay_firewall" in firewall.rollback_command()
    assert "rm -f /etc/nftables.d/assay-firewall.nft" in firewall.rollback_command()
