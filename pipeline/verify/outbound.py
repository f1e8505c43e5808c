"""What an instance reaches for when it boots (V07; seed [2]): what every instance needs, and nothing else."""

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase
from ipaddress import ip_address, ip_network
from urllib.parse import urlsplit

from pipeline.aws.traffic import Flow
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Spec

LINK_LOCAL = tuple(map(ip_network, ("169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32", "fe80::/10", "ff00::/8")))
"""The metadata service, Amazon's clock and resolver, and what never leaves the network: broadcast and multicast."""
DHCP_PORTS = frozenset({67, 547})
NTP_PORT = 123
CLOCKS = ("*.pool.ntp.org", "time.aws.com")
MIRRORS = (
    *("deb.debian.org", "security.debian.org", "cdn-aws.deb.debian.org"),
    *("archive.ubuntu.com", "*.archive.ubuntu.com", "security.ubuntu.com", "ports.ubuntu.com", "*.ports.ubuntu.com"),
    *("cdn.amazonlinux.com", "al2023-repos-*.amazonaws.com", "amazonlinux-*.amazonaws.com"),
)
"""Where the distributions publish their updates (H16)."""
UPDATE_PORTS = frozenset({80, 443})
MOST_SHOWN = 20
NOT_SHOWN = "the cloud shows nobody what an instance sends; VPC flow logs of the subnet would"


def prove_outbound(flows: Sequence[Flow] | None, spec: Spec) -> Result:
    """Return the result for what an instance opened while it booted; None where the cloud does not show it.

    Allowed are DHCP, the metadata service, resolver and clock, and the mirrors of the distribution and of the spec.
    """
    title, status, detail = "a boot reaches for nothing but addresses, the time, metadata and updates", Status.PASS, ""
    if flows is None:
        status, detail = Status.NOT_APPLICABLE, NOT_SHOWN
    elif not flows:
        status, detail = Status.UNREACHABLE, "no packet was captured, not even one for an address"
    elif strange := [str(flow) for flow in flows if not is_expected(flow, mirrors_of(spec))]:
        status, detail = Status.FAIL, "; ".join(strange[:MOST_SHOWN])
    return Result(
        controls=("V07",), layer=Layer.FRESH_BOOT, status=status, title=title, source="verify/outbound", detail=detail
    )


def mirrors_of(spec: Spec) -> tuple[str, ...]:
    """Return the hosts that packages come from: the distributions' own, and the spec's repositories'."""
    own = (urlsplit(one.url).hostname for one in spec.harden.repositories if not one.only_for_build)
    return (*MIRRORS, *filter(None, own))


def is_expected(flow: Flow, mirrors: Iterable[str]) -> bool:
    """Return whether an instance needs to reach this."""
    if any(ip_address(flow.address) in network for network in LINK_LOCAL):
        return True
    if flow.protocol == "udp" and flow.port in DHCP_PORTS:
        return True
    if flow.protocol == "udp" and flow.port == NTP_PORT:
        return matches(flow.name, CLOCKS)
    return flow.protocol == "tcp" and flow.port in UPDATE_PORTS and matches(flow.name, mirrors)


def matches(name: str, patterns: Iterable[str]) -> bool:
    """Return whether a host's name is one of these; * stands for what varies."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)
