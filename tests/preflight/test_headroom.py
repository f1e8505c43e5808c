"""What a spec's build needs of each quota, and what is said where that is not there."""

import pytest

from pipeline import preflight
from pipeline.audit.findings import Verdict, judge
from pipeline.aws import quotas
from pipeline.aws.quotas import Usage
from pipeline.aws.session import Session
from pipeline.preflight import headroom
from pipeline.spec import Instance, Network, Share, load_spec
from tests.fake_cloud import ROOT

SPEC = load_spec(ROOT / "specs" / "debian-12.yaml")
FULL = Usage(limit=5, used=5)


def spec_with(**network):
    return SPEC.model_copy(update={"network": Network.model_validate(network)})


@pytest.mark.parametrize(
    ("network", "needed"),
    [
        ({}, {"security groups": 1}),
        ({"security_group_ids": ["sg-0123456789abcdef0"]}, {}),
        ({"create": {}}, {"VPCs": 1, "internet gateways": 1, "security groups": 2}),
        (
            {"create": {}, "address": "private", "connect": "bastion"},
            {
                "VPCs": 1,
                "internet gateways": 1,
                "security groups": 3,
                "elastic addresses": 1,
                "NAT gateways of a zone": 1,
            },
        ),
        (
            {"create": {"nat": "instance"}, "address": "private", "connect": "session-manager"},
            {"VPCs": 1, "internet gateways": 1, "security groups": 3, "elastic addresses": 1},
        ),
    ],
)
def test_a_build_needs_what_its_network_makes(network, needed):
    assert {quota.what: count for quota, count in headroom.needed_of(spec_with(**network)).items()} == needed


@pytest.mark.parametrize(
    ("usage", "needed", "bad"),
    [(None, 8, 0), (Usage(8, 6), 2, 0), (Usage(8, 7), 2, 1), (FULL, 1, 1), (Usage(0, 0), 1, 1)],
)
def test_what_does_not_fit_is_said(usage, needed, bad):
    assert len(list(headroom.over(usage, needed))) == bad


def lines(spec, **facts):
    """Return what of a build's quotas does not pass, where all that is not named has room."""
    roomy = {fact: Usage(100, 0) for check in headroom.headroom_checks(spec) for fact in check.needs}
    found = judge(headroom.headroom_checks(spec), roomy | {headroom.VCPUS: 2} | facts, "eu-central-1")
    return {line.title: line.detail for line in found if line.verdict is Verdict.FAIL}


def test_each_full_quota_has_a_line_with_its_remedy():
    spec = spec_with(create={}, address="private", connect="bastion")
    assert lines(spec) == {}
    for quota in headroom.needed_of(spec):
        ((title, detail),) = lines(spec, **{headroom.fact_of(quota.what): FULL}).items()
        assert title == f"the quota of {quota.what} allows it"
        assert "5 in use, of 5" in detail and "Service Quotas" in detail


def test_a_bastion_runs_beside_the_guest():
    room = {headroom.fact_of(headroom.VCPUS): Usage(limit=3, used=0)}
    assert lines(spec_with(create={}), **room) == {}
    assert list(lines(spec_with(create={}, connect="bastion"), **room)) == ["the quota of vCPUs allows it"]


@pytest.fixture
def far(source):
    """A session of AWS: of it quotas are asked."""
    return Session(source, "eu-central-1")


@pytest.fixture
def source():
    import boto3

    return boto3.Session(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="x", region_name="eu-central-1")


def test_everything_that_is_judged_is_asked(far):
    spec = spec_with(create={}, address="private", connect="bastion")
    spec = spec.model_copy(update={"instance": Instance(type="t3.small", spot=True), "share": Share(public=True)})
    asked = headroom.headroom_readers(far, spec)
    assert {fact for check in headroom.headroom_checks(spec) for fact in check.needs} == set(asked)
    for new in (True, False):
        readers = preflight.target_readers(far, spec, "web-1", new=new)
        checks = preflight.target_checks(spec, far.region, new=new, quotas=True)
        assert {fact for check in checks for fact in check.needs} == {"regions", *readers}
        assert headroom.fact_of(quotas.PUBLIC_IMAGES.what) in readers
