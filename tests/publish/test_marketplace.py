"""What AWS Marketplace would refuse, and the new version of a product."""

from dataclasses import replace

import pytest
import yaml

from pipeline.aws import change_sets, images
from pipeline.aws.change_sets import ChangeSet
from pipeline.errors import MarketplaceRefused, SpecInvalid
from pipeline.publish import marketplace
from pipeline.spec import Harden, Marketplace, Port, Repository, load_spec
from tests.fake_cloud import ROOT
from tests.harden.signing_key import SIGNING_KEY

SELLER = "123456789012"
PRODUCT = {
    "seller": SELLER,
    "product_id": "prod-abcdefghij123",
    "access_role": f"arn:aws:iam::{SELLER}:role/MarketplaceIngestion",
    "operating_system": "DEBIAN",
    "operating_system_version": "12",
    "instance_type": "t3.small",
    "usage": "Log in by ssh as admin.",
    "ports": [{"port": 22, "sources": ["0.0.0.0/0"]}],
}
BASE = load_spec(ROOT / "specs" / "debian-12.yaml")
SPEC = BASE.model_copy(
    update={"release": BASE.release.model_copy(update={"marketplace": Marketplace.model_validate(PRODUCT)})}
)
IMAGE = images.read_image(
    {
        "ImageId": "ami-0123456789abcdef0",
        "State": "available",
        "VirtualizationType": "hvm",
        "RootDeviceType": "ebs",
        "BlockDeviceMappings": [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-1", "Encrypted": False}}],
    }
)
ENCRYPTED = replace(IMAGE, block_devices=tuple(replace(one, encrypted=True) for one in IMAGE.block_devices))


def hardened(**changes):
    return SPEC.model_copy(update={"harden": Harden(**changes)})


@pytest.mark.parametrize(
    ("spec", "image", "account", "region", "problem"),
    [
        (SPEC, IMAGE, SELLER, "eu-central-1", "in us-east-1: it is in eu-central-1"),
        (SPEC, replace(IMAGE, virtualization="paravirtual"), SELLER, "us-east-1", "HVM: it is paravirtual"),
        (SPEC, replace(IMAGE, root_device_type="instance-store"), SELLER, "us-east-1", "it is instance-store"),
        (SPEC, ENCRYPTED, SELLER, "us-east-1", "a snapshot is encrypted"),
        (SPEC, replace(IMAGE, public=True), SELLER, "us-east-1", "it is public"),
        (SPEC, replace(IMAGE, state="disabled"), SELLER, "us-east-1", "it is disabled"),
        (SPEC, IMAGE, "210987654321", "us-east-1", f"it is 210987654321, not {SELLER}"),
        (hardened(listen=(Port(port=443),)), IMAGE, SELLER, "us-east-1", "not in release.marketplace.ports: 443"),
        (
            hardened(
                repositories=(Repository(name="v", url="https://v.s3.eu-west-1.amazonaws.com/apt", key=SIGNING_KEY),)
            ),
            IMAGE,
            SELLER,
            "us-east-1",
            "eu-west-1.amazonaws.com/apt names one",
        ),
    ],
)
def test_each_condition_of_the_marketplace_is_found(spec, image, account, region, problem):
    with pytest.raises(MarketplaceRefused) as raised:
        marketplace.require_conditions(spec, image, account, region)
    assert len(raised.value.problems) == 1 and problem in raised.value.problems[0]


def test_what_is_met_passes_a22():
    found = marketplace.require_conditions(SPEC, IMAGE, SELLER, "us-east-1")
    assert len(found) == 9
    assert {(one.controls, one.status) for one in found} == {(("A22",), "pass")}


def test_the_change_names_the_image_its_login_and_its_ports():
    change = marketplace.new_version(SPEC, IMAGE, "20250131-235959-1a2b3c")
    (option,) = change["DetailsDocument"]["DeliveryOptions"]
    details = option["Details"]["AmiDeliveryOptionDetails"]
    assert details["AmiSource"] == {
        "AmiId": IMAGE.image_id,
        "AccessRoleArn": PRODUCT["access_role"],
        "UserName": "admin",
        "OperatingSystemName": "DEBIAN",
        "OperatingSystemVersion": "12",
        "ScanningPort": 22,
    }
    assert details["SecurityGroups"] == [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": ["0.0.0.0/0"]}]
    assert change["Entity"] == {"Type": "AmiProduct@1.0", "Identifier": PRODUCT["product_id"]}


@pytest.mark.parametrize("status", ["SUCCEEDED", "FAILED", "CANCELLED"])
def test_only_a_change_set_that_succeeded_is_a_pass(monkeypatch, status):
    monkeypatch.setattr(change_sets, "start_change_set", lambda *_: "cs-1")
    monkeypatch.setattr(
        change_sets, "follow_change_set", lambda *_: ChangeSet("cs-1", status, ("SCAN_ERROR: an old kernel",))
    )
    if status == "SUCCEEDED":
        assert marketplace.submit_version(None, SPEC, IMAGE, "1", lambda _: None).status == "pass"
        return
    with pytest.raises(MarketplaceRefused, match=f"the change set {status.lower()}") as raised:
        marketplace.submit_version(None, SPEC, IMAGE, "1", lambda _: None)
    assert raised.value.problems == ("SCAN_ERROR: an old kernel",)


def test_a_spec_without_a_product_is_refused():
    with pytest.raises(SpecInvalid, match="names no product"):
        marketplace.require_marketplace(BASE)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"share": {"public": True}}, "an image that is sold can never be public"),
        ({"image": {"encryption": {"kms_key_id": "alias/mine"}}}, "takes no encrypted image"),
        ({"harden": {"launch_user_sudo": False}}, "wants an administrator"),
        ({"region": "eu-central-1"}, "lacks us-east-1"),
        ({"release": {"marketplace": PRODUCT | {"seller": "12345"}}}, "12 digits"),
        ({"release": {"marketplace": PRODUCT | {"product_id": "my product"}}}, "is not the id of a product"),
        ({"release": {"marketplace": PRODUCT | {"access_role": "role/x"}}}, "is not the whole ARN of a role"),
    ],
)
def test_a_spec_that_cannot_be_sold_is_refused_when_it_is_read(tmp_path, change, problem):
    valid = {
        "name": "web",
        "region": "us-east-1",
        "base_image": {"filter": {"name": "debian-12-*", "owner": "136693071363"}},
        "release": {"marketplace": PRODUCT},
    }
    path = tmp_path / "web.yaml"
    path.write_text(yaml.safe_dump(valid))
    assert load_spec(path).release.marketplace
    path.write_text(yaml.safe_dump(valid | change))
    with pytest.raises(SpecInvalid, match=problem):
        load_spec(path)
