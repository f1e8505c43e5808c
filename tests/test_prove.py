"""What the proof of an image that exists does otherwise than a build."""

import pytest

from pipeline.prove import without_way_out
from pipeline.spec import Spec

SPEC = {"name": "web", "region": "eu-central-1", "base_image": {"id": "ami-0123456789abcdef0", "owner": "123456789012"}}


@pytest.mark.parametrize(
    ("network", "ports"),
    [
        ({}, []),
        ({"scan_ports": True}, []),
        ({"egress": [{"port": 443}]}, [443]),
        ({"connect": "session-manager"}, [80, 443]),
        ({"security_group_ids": ["sg-0123456789abcdef0"]}, [80, 443]),
    ],
)
def test_an_image_that_may_be_anybody_s_gets_no_way_out_unless_the_spec_opens_one(network, ports):
    spec = Spec.model_validate({**SPEC, "network": network})

    closed = without_way_out(spec)

    assert [one.port for one in closed.network.egress] == ports
    assert closed.network.scan_ports == spec.network.scan_ports
