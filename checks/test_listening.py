"""Who listens: ssh, and what the spec says is served. Sockets on the loopback address are nobody else's business."""

import re

import pytest

from checks.fixtures import Ask
from pipeline.spec import Spec

SOCKETS = "ss -Hlntup"
OWN_ADDRESS = re.compile(r"^(127\.|\[?::1\]?$|\[?::ffff:127\.)")
LEASES = {"68", "546"}
LEASE_CLIENTS = {"systemd-network", "dhclient", "dhcpcd", "dhcpcd5", "NetworkManager"}
"""Clients of DHCP wait for the answers to what they asked."""


@pytest.fixture
def sockets(ask: Ask) -> dict[tuple[str, int], str]:
    """The sockets that hear the network: protocol and port, and the programs behind them."""
    found: dict[tuple[str, int], str] = {}
    for line in ask(SOCKETS).splitlines():
        protocol, _, _, _, address, _, *users = line.split(maxsplit=6)
        place, _, port = address.rpartition(":")
        programs = ", ".join(sorted(set(re.findall(r'\("([^"]+)"', " ".join(users)))))
        for_leases = protocol == "udp" and port in LEASES and programs in LEASE_CLIENTS
        if not OWN_ADDRESS.match(place.partition("%")[0]) and not for_leases:
            found[protocol, int(port)] = programs
    return found


def allowed(spec: Spec) -> set[tuple[str, int]]:
    """Return which sockets may be there: ssh's, before and after the change of its port, and the spec's."""
    ssh = {spec.ssh.port} | ({spec.harden.sshd.port} if spec.harden.sshd else set())
    return {("tcp", port) for port in ssh} | {(one.protocol, one.port) for one in spec.harden.listen}


@pytest.mark.controls("H18", layers="LB")
def test_only_what_the_spec_allows_listens(spec: Spec, sockets: dict[tuple[str, int], str]) -> None:
    """Nothing listens to the network but ssh and what the spec names in harden.listen."""
    assert sockets, "not even ssh listens"
    strange = {socket: programs for socket, programs in sockets.items() if socket not in allowed(spec)}
    assert [f"{port}/{protocol} ({programs})" for (protocol, port), programs in strange.items()] == []


@pytest.mark.controls("H18", layers="B")
def test_what_the_spec_says_is_served_is_served(spec: Spec, sockets: dict[tuple[str, int], str]) -> None:
    """A fresh instance serves every port that the spec names in harden.listen."""
    assert [f"{one.port}/{one.protocol}" for one in spec.harden.listen if (one.protocol, one.port) not in sockets] == []
