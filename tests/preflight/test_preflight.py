"""What would stop a build or its release is said before anything is made, all of it at once."""

import json
from datetime import UTC, datetime

import pytest

from pipeline import preflight
from pipeline.audit.findings import Line, Verdict
from pipeline.aws import images, roles
from pipeline.aws.encryption_keys import EncryptionKey
from pipeline.aws.network import Subnet
from pipeline.aws.region_settings import AllowedImages
from pipeline.aws.tags import Tags
from pipeline.build import build_image
from pipeline.errors import PreflightFailed
from pipeline.report.console import Console
from pipeline.spec import Release, Share, Spec, load_spec
from tests.fake_cloud import ROOT, FakeCloud, base_image, fake_cloud, holdings, make_image

__all__ = ["fake_cloud"]
PATH = ROOT / "specs" / "debian-12-local.yaml"
SPEC = load_spec(PATH)
POLICY = json.dumps(
    {"Statement": {"Effect": "Allow", "Principal": {"AWS": "210987654321"}, "Action": "kms:*", "Resource": "*"}}
)
KEY = EncryptionKey("k-1", "Enabled", "ENCRYPT_DECRYPT", "CUSTOMER", POLICY)


def image(**about):
    described = {"ImageId": "ami-1", "Name": "web", "OwnerId": "136693071363"} | about
    return images.read_image(described)


def subnet(zone):
    return Subnet("subnet-1", "vpc-1", zone, True)


CODES = {"ProductCodes": [{"ProductCodeId": "abc"}]}


@pytest.mark.parametrize(
    ("found", "bad"),
    [
        (preflight.not_enabled({"eu-central-1": "opt-in-not-required"}, "eu-central-1"), 0),
        (preflight.not_enabled({"eu-central-1": "opted-in"}, "eu-central-1"), 0),
        (preflight.not_enabled({"eu-central-1": "not-opted-in"}, "eu-central-1"), 1),
        (preflight.not_enabled({}, "eu-central-1"), 1),
        (preflight.not_offered(frozenset({"a", "b"}), (subnet("b"),)), 0),
        (preflight.not_offered(frozenset({"a"}), (subnet("b"), subnet("c"))), 1),
        (preflight.not_offered(frozenset(), (subnet("b"),)), 1),
        (preflight.not_offered(frozenset({"a"}), ()), 0),
        (preflight.not_installed(()), 0),
        (preflight.not_installed(("aws 2 or newer",)), 1),
        (preflight.too_wide(({"Statement": {"Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "*"}},)), 0),
        (preflight.too_wide(({"Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]},)), 1),
        (preflight.too_wide(({"Statement": {"Effect": "Allow", "Action": ["s3:*"], "Resource": "arn:x"}},)), 0),
        (preflight.too_wide(({"Statement": {"Effect": "Allow", "Action": ["s3:*", "iam:*"], "Resource": "*"}},)), 2),
        (preflight.too_wide(({"Statement": {"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}},)), 1),
        (preflight.too_wide(({"Statement": {"Effect": "Deny", "Action": "*", "Resource": "*"}},)), 0),
        (preflight.not_allowed(AllowedImages("disabled", (frozenset({"111111111111"}),)), image()), 0),
        (preflight.not_allowed(AllowedImages("enabled", (frozenset({"111111111111"}),)), image()), 1),
        (preflight.not_allowed(AllowedImages("enabled", (frozenset({"136693071363"}),)), image()), 0),
        (preflight.not_allowed(AllowedImages("enabled", (frozenset({"amazon"}),)), image()), 0),
        (preflight.not_allowed(AllowedImages("enabled", (frozenset(),)), image()), 0),
        (preflight.wrong_codes(image(), (), True), 0),
        (preflight.wrong_codes(image(), ("abc",), False), 1),
        (preflight.wrong_codes(image(**CODES), ("abc",), False), 0),
        (preflight.wrong_codes(image(**CODES), (), False), 1),
        (preflight.wrong_codes(image(**CODES), ("abc",), True), 1),
        (preflight.name_taken((image(),)), 1),
        (preflight.blocked("block-new-sharing"), 1),
        (preflight.blocked(""), 1),
        (preflight.blocked("unblocked"), 0),
        (preflight.default_encrypted(None, True), 0),
        (preflight.default_encrypted("alias/aws/ebs", False), 1),
        (preflight.default_encrypted("arn:aws:kms:eu-central-1:111122223333:key/1", False), 0),
        (preflight.default_encrypted("arn:aws:kms:eu-central-1:111122223333:key/1", True), 1),
        (preflight.default_encrypted("", False), 1),
        (preflight.unusable_key(KEY, ("210987654321",)), 0),
        (preflight.unusable_key(KEY, ("210987654321", "111111111111")), 1),
        (preflight.unusable_key(EncryptionKey("k-1", "Disabled", "ENCRYPT_DECRYPT", "CUSTOMER", ""), ()), 1),
        (preflight.unusable_key(EncryptionKey("k-1", "Enabled", "SIGN_VERIFY", "CUSTOMER", ""), ()), 1),
        (
            preflight.unusable_key(
                EncryptionKey("k-1", "Enabled", "ENCRYPT_DECRYPT", "AWS", POLICY), ("210987654321",)
            ),
            1,
        ),
    ],
)
def test_each_reason_is_found_and_nothing_else(found, bad):
    assert len(list(found)) == bad


def test_every_problem_is_named_at_once_and_what_is_unknown_stops_nothing():
    def line(verdict, title):
        return Line("A20", verdict, "eu-central-1", "thing", title, "detail", "ec2:Call")

    lines = [line(Verdict.PASS, "one"), line(Verdict.UNKNOWN, "two")]
    assert preflight.require_ready(lines) == ("eu-central-1: two: thing detail",)
    with pytest.raises(PreflightFailed) as raised:
        preflight.require_ready([*lines, line(Verdict.FAIL, "three"), line(Verdict.UNREACHABLE, "four")])
    assert [problem.split(":")[1].strip() for problem in raised.value.problems] == ["three", "four"]


def spec_with(share: Share | None = None, *regions: str) -> Spec:
    return SPEC.model_copy(update={"share": share or Share(), "release": Release(regions=regions)})


def look(cloud: FakeCloud, spec: Spec, image_name: str = "web-1") -> list[tuple[str, str, str]]:
    """Return what does not pass, in how many calls whatever."""
    session = cloud.open(spec.region)
    tags = Tags("20250131-235959-1a2b3c", "sha256:00", session.caller_arn, datetime.now(UTC))
    lines = preflight.look_ahead(session, spec, base_image(session), tags, image_name)
    return [(line.region, line.verdict.value, line.title) for line in lines if line.verdict is not Verdict.PASS]


@pytest.mark.end_to_end
def test_nothing_stands_in_the_way_and_nothing_is_made(fake_cloud):
    session = fake_cloud.open(SPEC.region)
    before = holdings(session)
    assert look(fake_cloud, spec_with(Share(accounts=("210987654321",)), "us-east-1")) == []
    assert holdings(session) == before


@pytest.mark.end_to_end
def test_each_region_of_a_release_is_asked(fake_cloud):
    fake_cloud.open("us-east-1").client("ec2").disable_image_block_public_access()
    home, name = SPEC.region, "the image may become public"
    assert look(fake_cloud, spec_with(Share(public=True), "us-east-1")) == [(home, "fail", name)]
    assert ("ap-east-1", "fail", "the region may be used") in look(fake_cloud, spec_with(None, "ap-east-1"))


@pytest.mark.end_to_end
def test_a_release_alone_asks_every_region_too(fake_cloud):
    spec = spec_with(Share(public=True), "ap-east-1")
    with pytest.raises(PreflightFailed, match="enable-region --region-name ap-east-1"):
        preflight.require_ready(preflight.look_at_regions(fake_cloud.open(SPEC.region), spec, "web-1"))


@pytest.mark.end_to_end
def test_a_right_that_is_missing_fails_and_a_setting_that_may_not_be_read_is_unknown(fake_cloud):
    refused = {"kind": "error", "code": "UnauthorizedOperation", "status": 403, "times": 0}
    with fake_cloud.faults({**refused, "action": "ImportKeyPair"}, {**refused, "action": "GetAllowedImagesSettings"}):
        assert look(fake_cloud, spec_with()) == [
            (SPEC.region, "fail", "the caller may make what a build makes"),
            (SPEC.region, "unknown", "the base image may be launched"),
        ]


@pytest.mark.end_to_end
def test_a_type_that_is_not_offered_and_a_name_that_is_taken_end_a_build_before_its_first_resource(
    fake_cloud, tmp_path
):
    session = fake_cloud.open(SPEC.region)
    tags = Tags("20250131-235959-1a2b3c", "sha256:00", session.caller_arn, datetime.now(UTC))
    taken = make_image(session, tags, "taken")
    before = holdings(session)
    wanted = SPEC.model_copy(
        update={
            "instance": SPEC.instance.model_copy(update={"type": "t99.small"}),
            "image": SPEC.image.model_copy(update={"name": "taken"}),
        }
    )
    evidence = build_image(wanted, spec_path=PATH, session=session, builds=tmp_path, console=Console(quiet=True))
    assert evidence.exit_status == PreflightFailed.exit_status
    assert "t99.small is offered" in (evidence.error or "")
    assert taken.image_id in (evidence.error or "")
    assert evidence.resources == ()
    assert holdings(session) == before


@pytest.mark.end_to_end
def test_a_role_that_may_do_everything_is_found(fake_cloud: FakeCloud):
    session = fake_cloud.open()
    iam = session.client("iam")
    trust = '{"Version": "2012-10-17", "Statement": []}'
    wide = '{"Version": "2012-10-17", "Statement": {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}}'
    iam.create_instance_profile(InstanceProfileName="build")
    iam.create_role(RoleName="build", AssumeRolePolicyDocument=trust)
    iam.add_role_to_instance_profile(InstanceProfileName="build", RoleName="build")
    assert list(roles.wide_rights(roles.read_role_policies(session, "build"))) == []
    iam.put_role_policy(RoleName="build", PolicyName="wide", PolicyDocument=wide)
    attached = iam.create_policy(PolicyName="wider", PolicyDocument=wide.replace("ec2:", ""))["Policy"]["Arn"]
    iam.attach_role_policy(RoleName="build", PolicyArn=attached)
    assert sorted(roles.wide_rights(roles.read_role_policies(session, "build"))) == ["*", "ec2:*"]
