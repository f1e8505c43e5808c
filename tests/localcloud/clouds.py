"""Clouds for tests: a server in a thread, with guests that boot nothing, and clients for any account and region."""

import contextlib
import time
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

from pipeline.localcloud.accounts import BUILDER_ACCOUNT, SECRET, access_key
from pipeline.localcloud.authority import Authority
from pipeline.localcloud.fake_guests import FakeGuest
from pipeline.localcloud.seeding import make_fake_base
from pipeline.localcloud.server import Server
from pipeline.localcloud.service import open_cloud

OTHER_ACCOUNT = "210987654321"
REGION = "us-east-1"


@cache
def authority() -> dict[str, bytes]:
    """Return the files of an authority: all clouds of a process have the same, as its key takes a while to make."""
    with TemporaryDirectory() as folder:
        Authority(Path(folder))
        return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


class LocalCloud:
    """A cloud that serves in this process. One at a time: moto's state is the process's."""

    def __init__(self, home: Path) -> None:
        self.home = home
        (home / "authority").mkdir(exist_ok=True)
        for name, content in authority().items():
            (home / "authority" / name).write_bytes(content)
        self.cloud = open_cloud(home, FakeGuest, [make_fake_base(home)])
        self.server = Server(self.cloud, 0)
        self.server.start()
        self._clients: dict[tuple[str, str, str], Any] = {}

    def client(self, service: str, account: str = BUILDER_ACCOUNT, region: str = REGION) -> Any:
        """Return a botocore client that tries each call once."""
        key = (service, account, region)
        if key not in self._clients:
            self._clients[key] = boto3.client(
                service,
                endpoint_url=self.server.url,
                region_name=region,
                aws_access_key_id=access_key(account),
                aws_secret_access_key=SECRET,
                config=Config(proxies={}, retries={"total_max_attempts": 1}),
            )
        return self._clients[key]

    def stop(self) -> None:
        """Stop as the service does."""
        self.server.stop(1.0)


@contextlib.contextmanager
def running(home: Path) -> Iterator[LocalCloud]:
    """Run a cloud with the state of `home`."""
    started = LocalCloud(home)
    try:
        yield started
    finally:
        started.stop()


def wait_for(ask: Callable[[], Any], wanted: object, deadline_seconds: float = 120.0) -> None:
    """Wait until the answer is the wanted one."""
    deadline = time.monotonic() + deadline_seconds
    while (found := ask()) != wanted:
        assert time.monotonic() < deadline, f"still {found}, not {wanted}"
        time.sleep(0.01)


def refused(code: str, ask: Callable[[], Any]) -> str:
    """Assert that a call is refused with a code, and return the message."""
    try:
        answer = ask()
    except ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return str(error.response["Error"]["Message"])
    raise AssertionError(f"not refused with {code}: {answer}")


def base_image(ec2: Any) -> str:
    """Return the id of Debian's image."""
    return str(ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"])


def launch(ec2: Any, image_id: str | None = None, **options: Any) -> str:
    """Launch one instance and wait until it runs."""
    options = {"InstanceType": "t3.small", "MinCount": 1, "MaxCount": 1, **options}
    made = ec2.run_instances(ImageId=image_id or base_image(ec2), **options)
    instance_id = str(made["Instances"][0]["InstanceId"])
    wait_for(lambda: state_of(ec2, instance_id), "running")
    return instance_id


def instance_of(ec2: Any, instance_id: str) -> Any:
    """Return an instance's description."""
    return ec2.describe_instances(InstanceIds=[instance_id])["Reservations"][0]["Instances"][0]


def state_of(ec2: Any, instance_id: str) -> str:
    """Return an instance's state."""
    return str(instance_of(ec2, instance_id)["State"]["Name"])


def image_of(ec2: Any, image_id: str) -> Any:
    """Return an image's description."""
    return ec2.describe_images(ImageIds=[image_id])["Images"][0]


def make_image(ec2: Any, name: str, **options: Any) -> str:
    """Make an image of a new instance, which is gone afterwards, and wait until the image is available."""
    instance_id = launch(ec2)
    image_id = str(ec2.create_image(InstanceId=instance_id, Name=name, NoReboot=True, **options)["ImageId"])
    wait_for(lambda: image_of(ec2, image_id)["State"], "available")
    ec2.terminate_instances(InstanceIds=[instance_id])
    return image_id


def snapshot_of(ec2: Any, image_id: str) -> str:
    """Return the id of an image's root snapshot."""
    return str(image_of(ec2, image_id)["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"])
