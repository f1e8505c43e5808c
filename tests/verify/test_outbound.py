"""What a boot may reach, as a table."""

import pytest

from pipeline.aws.traffic import Flow
from pipeline.report.evidence import Status
from pipeline.verify.outbound import prove_outbound
from tests.harden.signing_key import SIGNING_KEY
from tests.verify.specs import make_spec

LEASE = Flow("udp", "255.255.255.255", 67, "")
SPEC = make_spec(
    harden={
        "repositories": [
            {"name": "vendor", "url": "https://vendor.example/apt", "key": SIGNING_KEY},
            {"name": "tools", "url": "https://tools.example/apt", "key": SIGNING_KEY, "only_for_build": True},
        ]
    }
)


@pytest.mark.parametrize(
    "flow",
    [
        LEASE,
        Flow("udp", "172.31.0.1", 67, ""),
        Flow("udp", "169.254.169.253", 53, ""),
        Flow("tcp", "169.254.169.254", 80, ""),
        Flow("udp", "169.254.169.123", 123, ""),
        Flow("udp", "198.51.100.9", 123, "0.debian.pool.ntp.org"),
        Flow("tcp", "198.51.100.7", 80, "deb.debian.org"),
        Flow("tcp", "2001:db8::7", 443, "vendor.example"),
        Flow("icmp", "ff02::2", 0, ""),
    ],
)
def test_what_every_instance_needs_passes(flow):
    assert prove_outbound((LEASE, flow), SPEC).status is Status.PASS


@pytest.mark.parametrize(
    "flow",
    [
        Flow("tcp", "198.51.100.7", 443, ""),
        Flow("tcp", "198.51.100.7", 443, "evil.example"),
        Flow("tcp", "198.51.100.7", 443, "deb.debian.org.evil.example"),
        Flow("tcp", "198.51.100.7", 22, "deb.debian.org"),
        Flow("tcp", "198.51.100.7", 443, "tools.example"),
        Flow("udp", "198.51.100.7", 53, ""),
        Flow("udp", "198.51.100.7", 514, "log.example"),
        Flow("udp", "198.51.100.7", 123, "evil.example"),
        Flow("icmp", "198.51.100.7", 0, ""),
        Flow("47", "198.51.100.7", 0, ""),
    ],
)
def test_anything_else_fails_and_is_named(flow):
    result = prove_outbound((LEASE, flow), SPEC)
    assert (result.status, result.detail) == (Status.FAIL, str(flow))


def test_a_capture_without_a_packet_proves_nothing():
    assert prove_outbound((), SPEC).status is Status.UNREACHABLE


def test_a_cloud_that_does_not_show_it_is_not_asked():
    result = prove_outbound(None, SPEC)
    assert result.status is Status.NOT_APPLICABLE
    assert "flow logs" in result.detail
