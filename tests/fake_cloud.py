"""A local cloud of a test's own, with guests that boot nothing: a real endpoint for everything but the guests."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from pipeline.aws import images, snapshots
from pipeline.aws.blocks import BLOCK_SIZE, write_snapshot
from pipeline.aws.session import Session, open_session
from pipeline.aws.tags import Tags, resource_name

ROOT = Path(__file__).resolve().parent.parent
PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9Qb2Xk1v4yU2pQ0o8t1f0sJc7xw6l3n5m9r4s2q1eD a@b"
CONSUMER = "210987654321"
DEBIAN_ACCOUNT = "136693071363"
DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclass(frozen=True)
class FakeCloud:
    """A cloud that runs."""

    endpoint: str
    environment: dict[str, str]

    def open(self, region: str = "us-east-1", **changes: str) -> Session:
        """Return a session of the cloud's own account."""
        environment = self.environment | changes
        return open_session(
            region,
            endpoint_url=environment["AWS_ENDPOINT_URL"],
            access_key=environment["AWS_ACCESS_KEY_ID"],
            secret_key=environment["AWS_SECRET_ACCESS_KEY"],
        )

    @contextmanager
    def faults(self, *faults: dict[str, Any]) -> Iterator[None]:
        """Let things go wrong for a while."""
        self.ask("PUT", "faults", {"faults": list(faults)})
        try:
            yield
        finally:
            self.ask("DELETE", "faults", {})

    def ask(self, method: str, name: str, body: dict[str, Any]) -> Any:
        """Ask the cloud's own API."""
        request = urllib.request.Request(f"{self.endpoint}/_cloud/{name}", json.dumps(body).encode(), method=method)
        with DIRECT.open(request, timeout=30) as answer:
            return json.loads(answer.read())


@pytest.fixture(scope="module")
def fake_cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FakeCloud]:
    """Start a cloud in a folder of its own, and stop it."""
    with running_fake_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud


@contextmanager
def running_fake_cloud(home: Path) -> Iterator[FakeCloud]:
    """Run a cloud with fake guests in this folder."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("ASSAY_CLOUD_HOME", str(home))
        command = [sys.executable, "-m", "pipeline.localcloud"]
        started = subprocess.run(
            [*command, "start", "--guests=fake", "--json"], cwd=ROOT, check=True, stdout=subprocess.PIPE, timeout=120
        )
        answer = json.loads(started.stdout)
        try:
            yield FakeCloud(answer["url"], answer["environment"])
        finally:
            subprocess.run([*command, "stop"], cwd=ROOT, check=True, timeout=120)


def base_image(session: Session) -> images.Image:
    """Return the newest image of Debian's account."""
    found = session.client("ec2").describe_images(Owners=[DEBIAN_ACCOUNT])["Images"]
    return max(map(images.read_image, found), key=lambda image: image.creation_date)


def make_image(session: Session, tags: Tags, image_name: str, *blocks: tuple[int, bytes]) -> images.Image:
    """Register an image of one's own over a snapshot with these blocks, and wait for it."""
    role = f"{image_name}-test"
    written = blocks or ((0, os.urandom(BLOCK_SIZE)),)
    snapshot_id = write_snapshot(session, tags, resource_name(tags.build_id, f"{role}-root"), 1, written)
    snapshots.wait_for_snapshot(session, snapshot_id)
    like_base = images.registration_like(
        base_image(session), name=image_name, description="of a test", root_snapshot_id=snapshot_id
    )
    return images.wait_for_image(
        session, images.register_image(session, tags, resource_name(tags.build_id, role), like_base)
    )


def holdings(session: Session) -> set[str]:
    """Return all that is in the account, whatever its tags."""
    ec2 = session.client("ec2")
    instances = [one for page in ec2.describe_instances()["Reservations"] for one in page["Instances"]]
    return {
        *(one["InstanceId"] for one in instances if one["State"]["Name"] != "terminated"),
        *(one["VolumeId"] for one in ec2.describe_volumes()["Volumes"]),
        *(one["ImageId"] for one in ec2.describe_images(Owners=["self"])["Images"]),
        *(one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]),
        *(one["GroupId"] for one in ec2.describe_security_groups()["SecurityGroups"]),
        *(one["KeyName"] for one in ec2.describe_key_pairs()["KeyPairs"]),
        *(one["NetworkInterfaceId"] for one in ec2.describe_network_interfaces()["NetworkInterfaces"]),
        *(one["VpcId"] for one in ec2.describe_vpcs()["Vpcs"]),
        *(one["SubnetId"] for one in ec2.describe_subnets()["Subnets"]),
        *(one["InternetGatewayId"] for one in ec2.describe_internet_gateways()["InternetGateways"]),
        *(one["RouteTableId"] for one in ec2.describe_route_tables()["RouteTables"]),
        *(one["NetworkAclId"] for one in ec2.describe_network_acls()["NetworkAcls"]),
        *(one["AllocationId"] for one in ec2.describe_addresses()["Addresses"]),
        *(one["NatGatewayId"] for one in ec2.describe_nat_gateways()["NatGateways"] if one["State"] != "deleted"),
    }
