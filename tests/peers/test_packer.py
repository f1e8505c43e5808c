"""Packer builds an AMI on the local cloud: by ssh, with a copy in another region, sharing and tags, and cleans up."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.bench import packer
from tests.end_to_end import cloud_client, cloud_status

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not shutil.which("packer"), reason="packer is not installed (ci/packages-peers)"),
]
REGION, OTHER_REGION = "us-east-1", "eu-west-1"
CONSUMER = "210987654321"
DEBIAN = "136693071363"
BUILD_SECONDS = 1800
SCRIPT = """set -eu
test "$(id -u)" = 0
cloud-init status --wait >/dev/null || test $? = 2
echo provisioned >/etc/packer-was-here
sync
"""


def test_an_ami_with_a_copy_shared_and_tagged(local_cloud: dict[str, str], tmp_path: Path) -> None:
    here, there = (cloud_client(local_cloud, "ec2", region) for region in (REGION, OTHER_REGION))
    before = holdings(here)
    script = tmp_path / "provision.sh"
    script.write_text(SCRIPT)
    template = packer.write_template(
        tmp_path,
        endpoint=local_cloud["AWS_ENDPOINT_URL"],
        region=REGION,
        name="packer-end-to-end",
        source_ami=here.describe_images(Owners=[DEBIAN])["Images"][0]["ImageId"],
        scripts=[script],
        ssh_port=cloud_status(local_cloud)["ssh_port"],
        ami_description="made by Packer",
        ami_regions=[OTHER_REGION],
        ami_users=[CONSUMER],
        snapshot_users=[CONSUMER],
        tags={"team": "web"},
        snapshot_tags={"team": "disks"},
    )
    built = packer.run(template, local_cloud, tmp_path / "packer.log", BUILD_SECONDS)
    assert built.returncode == 0, (tmp_path / "packer.log").read_text()

    images = [only_image(ec2) for ec2 in (here, there)]
    try:
        for ec2, image in zip((here, there), images, strict=True):
            assert image["Name"] == "packer-end-to-end" and image["State"] == "available"
            check_image(ec2, image)
        assert images[0]["ImageId"] != images[1]["ImageId"]
        assert holdings(here) == before
    finally:
        for ec2, image in zip((here, there), images, strict=True):
            ec2.deregister_image(ImageId=image["ImageId"])
            ec2.delete_snapshot(SnapshotId=root_snapshot(image))


def check_image(ec2: Any, image: dict[str, Any]) -> None:
    """The image and its snapshot are shared with the consumer, and tagged."""
    permissions = ec2.describe_image_attribute(ImageId=image["ImageId"], Attribute="launchPermission")
    assert permissions["LaunchPermissions"] == [{"UserId": CONSUMER}]
    snapshot_id = root_snapshot(image)
    volumes = ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
    assert volumes["CreateVolumePermissions"] == [{"UserId": CONSUMER}]
    assert {"Key": "team", "Value": "web"} in image["Tags"]
    (snapshot,) = ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    assert {"Key": "team", "Value": "disks"} in snapshot["Tags"]
    assert snapshot["State"] == "completed"


def only_image(ec2: Any) -> dict[str, Any]:
    (image,) = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": ["packer-*"]}])["Images"]
    found: dict[str, Any] = image
    return found


def root_snapshot(image: dict[str, Any]) -> str:
    return str(image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])


def holdings(ec2: Any) -> set[str]:
    """All that a build makes on its way and has to take away again."""
    instances = [one for page in ec2.describe_instances()["Reservations"] for one in page["Instances"]]
    return {
        *(one["InstanceId"] for one in instances if one["State"]["Name"] != "terminated"),
        *(one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]),
        *(one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]),
        *(one["KeyName"] for one in ec2.describe_key_pairs()["KeyPairs"]),
    }
