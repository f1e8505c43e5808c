"""awspub uploads a disk, makes images of it in two regions, shares and publishes them, and finds them done again."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.end_to_end import cloud_client
from tests.fake_cloud import FakeCloud, fake_cloud

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

REGIONS = ("us-east-1", "eu-central-1")
CONSUMER = "210987654321"
BUCKET = "disks-to-import"
MIB = 1 << 20
DEADLINE_SECONDS = 300
CONFIGURATION = """
awspub:
  s3: {bucket_name: disks-to-import}
  source: {path: disk.vmdk, architecture: x86_64}
  tags: {team: web}
  images:
    web-shared:
      description: for one consumer
      boot_mode: uefi-preferred
      regions: [us-east-1, eu-central-1]
      root_device_volume_size: 2
      imds_support: v2.0
      share: ["210987654321", "aws-cn:111111111111"]
      tags: {tier: front}
    web-public:
      description: for everybody
      boot_mode: uefi
      tpm_support: v2.0
      regions: [us-east-1]
      public: true
      ssm_parameter: [{name: /images/web/latest, description: the newest}]
    web-trial:
      description: for nobody
      boot_mode: legacy-bios
      regions: [us-east-1]
      temporary: true
"""


class Awspub:
    """Runs awspub with one configuration."""

    def __init__(self, programs: Path, cloud: FakeCloud, folder: Path) -> None:
        self.program, self.cloud, self.folder = programs / "awspub", cloud, folder
        (folder / "images.yaml").write_text(CONFIGURATION)
        make_disk(folder)

    def run(self, verb: str) -> dict[str, dict[str, str]]:
        """Return the ids of the images by name and region, as awspub prints them."""
        ran = subprocess.run(
            [self.program, "--log-file", "awspub.log", verb, "images.yaml"],
            cwd=self.folder,
            env=os.environ | self.cloud.environment | {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
        )
        assert ran.returncode == 0, ran.stderr + (self.folder / "awspub.log").read_text()
        return json.loads(ran.stdout)["images"] if ran.stdout else {}


def make_disk(folder: Path) -> None:
    """Write a VMDK, as awspub wants it, of a disk with something at both of its ends: several parts of an upload."""
    raw = folder / "disk.raw"
    with raw.open("wb") as file:
        file.write(os.urandom(20 * MIB))
        file.seek(1023 * MIB)
        file.write(b"the end".ljust(MIB, b"\0"))
    command = "qemu-img convert -O vmdk -o subformat=streamOptimized disk.raw disk.vmdk"
    subprocess.run(command.split(), cwd=folder, check=True)


@pytest.fixture
def awspub(python_peers: Path, fake_cloud: FakeCloud, tmp_path: Path) -> Awspub:
    cloud_client(fake_cloud.environment, "s3", "us-east-1").create_bucket(Bucket=BUCKET)
    return Awspub(python_peers, fake_cloud, tmp_path)


def test_images_are_made_shared_and_published_once(awspub: Awspub) -> None:
    made = awspub.run("create")
    assert set(made) == {"web-shared", "web-public", "web-trial"}
    assert set(made["web-shared"]) == set(REGIONS)
    for region in REGIONS:
        check_shared_image(cloud_client(awspub.cloud.environment, "ec2", region), made["web-shared"][region])
    check_disk(awspub, made["web-shared"]["us-east-1"])

    assert awspub.run("create") == made
    assert awspub.run("list") == made

    ec2 = cloud_client(awspub.cloud.environment, "ec2", "us-east-1")
    assert not image_of(ec2, made["web-public"]["us-east-1"])["Public"]
    ec2.disable_image_block_public_access()
    awspub.run("publish")
    public = image_of(ec2, made["web-public"]["us-east-1"])
    assert public["Public"] and public["TpmSupport"] == "v2.0" and public["BootMode"] == "uefi"
    assert {"Group": "all"} in volume_permissions(ec2, public)
    assert not image_of(ec2, made["web-shared"]["us-east-1"])["Public"]
    systems_manager = cloud_client(awspub.cloud.environment, "ssm", "us-east-1")
    assert systems_manager.get_parameter(Name="/images/web/latest")["Parameter"]["Value"] == public["ImageId"]

    awspub.run("cleanup")
    left = {image["Name"] for image in ec2.describe_images(Owners=["self"])["Images"]}
    assert left == {"web-shared", "web-public"}


def check_shared_image(ec2: Any, image_id: str) -> None:
    """The image is as configured, and shared with the consumer only, its snapshot too."""
    image = image_of(ec2, image_id)
    assert (image["State"], image["Public"], image["BootMode"]) == ("available", False, "uefi-preferred")
    assert (image["ImdsSupport"], image["EnaSupport"], image["Architecture"]) == ("v2.0", True, "x86_64")
    assert image["BlockDeviceMappings"][0]["Ebs"]["VolumeSize"] == 2
    tags = {tag["Key"]: tag["Value"] for tag in image["Tags"]}
    assert tags["team"] == "web" and tags["tier"] == "front" and any(key.startswith("awspub:") for key in tags)
    permissions = ec2.describe_image_attribute(ImageId=image_id, Attribute="launchPermission")
    assert permissions["LaunchPermissions"] == [{"UserId": CONSUMER}]
    assert volume_permissions(ec2, image) == [{"UserId": CONSUMER}]


def check_disk(awspub: Awspub, image_id: str) -> None:
    """The blocks of the image's snapshot are those of the disk that was uploaded."""
    ec2, ebs = (cloud_client(awspub.cloud.environment, name, "us-east-1") for name in ("ec2", "ebs"))
    snapshot_id = image_of(ec2, image_id)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    listed = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)
    size = listed["BlockSize"]
    with (awspub.folder / "disk.raw").open("rb") as disk:
        for block in (listed["Blocks"][0], listed["Blocks"][-1]):
            answer = ebs.get_snapshot_block(
                SnapshotId=snapshot_id, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"]
            )
            disk.seek(block["BlockIndex"] * size)
            assert answer["BlockData"].read() == disk.read(size)
    assert (listed["Blocks"][0]["BlockIndex"], listed["Blocks"][-1]["BlockIndex"]) == (0, 1023 * MIB // size)


def image_of(ec2: Any, image_id: str) -> dict[str, Any]:
    (image,) = ec2.describe_images(ImageIds=[image_id])["Images"]
    found: dict[str, Any] = image
    return found


def volume_permissions(ec2: Any, image: dict[str, Any]) -> Any:
    snapshot_id = image["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"]
    answer = ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")
    return answer["CreateVolumePermissions"]
