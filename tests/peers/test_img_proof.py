"""img-proof launches an instance of an image, runs its tests over ssh, stops and starts it, and takes it away again."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.guest.keys import make_key_pair
from tests.end_to_end import cloud_client, cloud_status

pytestmark = pytest.mark.end_to_end

REGION = "us-east-1"
DEBIAN = "136693071363"
NAME = "img-proof"
SSH_SECONDS = 900
DEADLINE_SECONDS = 2400
TESTS = """
def test_launch_user_is_an_administrator(host):
    assert host.user().name == "admin"
    assert host.check_output("sudo id -u") == "0"


def test_machine_is_ec2(host):
    assert host.check_output("systemd-detect-virt") == "amazon"
    assert host.file("/etc/debian_version").content_string.startswith("12.")
    assert host.service("ssh").is_running
"""
FAILING = """
def test_nobody_has_a_file_like_this(host):
    assert host.file("/etc/no-such-file").exists
"""


@pytest.fixture
def access(local_cloud: dict[str, str], tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A private key whose public one the cloud knows, and a security group that lets ssh in."""
    ec2 = cloud_client(local_cloud, "ec2", REGION)
    pair = make_key_pair(NAME)
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_text(pair.private_openssh.reveal)
    ec2.import_key_pair(KeyName=NAME, PublicKeyMaterial=pair.public_openssh.encode())
    group = ec2.create_security_group(GroupName=NAME, Description="ssh from this machine")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="127.0.0.0/8")
    yield key, group
    remove(ec2, list(launched(ec2)))
    ec2.delete_security_group(GroupId=group)
    ec2.delete_key_pair(KeyName=NAME)


def test_an_image_is_launched_tested_and_rebooted(
    local_cloud: dict[str, str], python_peers: Path, access: tuple[Path, str], tmp_path: Path
) -> None:
    if cloud_status(local_cloud)["ssh_port"] != 22:
        pytest.skip("img-proof knows port 22 only, which users other than root do not get here")
    ec2 = cloud_client(local_cloud, "ec2", REGION)
    key, group = access
    tests = tmp_path / "tests"
    tests.mkdir()
    (tests / "test_debian.py").write_text(TESTS)
    (tests / "test_failing.py").write_text(FAILING)
    options = {
        "distro": "sles",
        "region": REGION,
        "image-id": ec2.describe_images(Owners=[DEBIAN])["Images"][0]["ImageId"],
        "instance-type": "t3.small",
        "root-disk-size": "8",
        "ssh-user": "admin",
        "ssh-private-key-file": str(key),
        "ssh-key-name": NAME,
        "security-group-id": group,
        "test-dirs": str(tests),
        "results-dir": str(tmp_path / "results"),
        "history-log": str(tmp_path / "history"),
        "timeout": str(SSH_SECONDS),
        "retry-count": "1",
    }
    command = [str(python_peers / "img-proof"), "--no-color", "test", "--no-default-test-dirs", "--cleanup"]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    ran = subprocess.run(
        [*command, "ec2", "test_debian", "test_hard_reboot", "test_failing"],
        cwd=tmp_path,
        env=environment(local_cloud, tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
    )
    results = read_results(tmp_path / "results", ran.stdout)
    outcomes = {test["nodeid"].split("::")[-1].partition("[")[0]: test["outcome"] for test in results["tests"]}
    assert outcomes == {
        "test_launch_user_is_an_administrator": "passed",
        "test_machine_is_ec2": "passed",
        "test_hard_reboot": "passed",
        "test_nobody_has_a_file_like_this": "failed",
    }, ran.stdout
    assert ran.returncode == 1
    assert list(launched(ec2).values()) in (["shutting-down"], ["terminated"])


def environment(cloud: dict[str, str], home: Path) -> dict[str, str]:
    """Without what this run of pytest would tell img-proof's own, and without the user's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | cloud | {"HOME": str(home)}


def read_results(folder: Path, said: str) -> dict[str, Any]:
    found = list(folder.rglob("*.results"))
    assert len(found) == 1, said
    results: dict[str, Any] = json.loads(found[0].read_text())
    return results


def launched(ec2: Any) -> dict[str, str]:
    """The instances that img-proof launched, and their states."""
    pages = ec2.describe_instances(Filters=[{"Name": "key-name", "Values": [NAME]}])["Reservations"]
    return {one["InstanceId"]: one["State"]["Name"] for page in pages for one in page["Instances"]}


def remove(ec2: Any, instance_ids: list[str]) -> None:
    if instance_ids:
        ec2.terminate_instances(InstanceIds=instance_ids)
        gone = ec2.get_waiter("instance_terminated")
        gone.wait(InstanceIds=instance_ids, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
