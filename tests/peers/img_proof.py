"""img-proof, as its users run it: on instances of the local cloud, over ssh, with tests of ours."""

import json
import os
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.guest.keys import make_key_pair
from tests.end_to_end import cloud_client

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


@dataclass(frozen=True)
class Access:
    """A private key whose public one the cloud knows as NAME, and a security group that lets ssh in."""

    key: Path
    group_id: str


@contextmanager
def access(cloud: dict[str, str], folder: Path) -> Iterator[Access]:
    """Make a key and a group, and remove them at the end, with every instance that was launched with the key."""
    ec2 = cloud_client(cloud, "ec2", REGION)
    pair = make_key_pair(NAME)
    key = folder / "key"
    key.touch(mode=0o600)
    key.write_text(pair.private_openssh.reveal)
    ec2.import_key_pair(KeyName=NAME, PublicKeyMaterial=pair.public_openssh.encode())
    group = ec2.create_security_group(GroupName=NAME, Description="ssh from this machine")["GroupId"]
    ec2.authorize_security_group_ingress(GroupId=group, IpProtocol="tcp", FromPort=22, ToPort=22, CidrIp="127.0.0.0/8")
    try:
        yield Access(key, group)
    finally:
        remove(ec2, list(launched(ec2)))
        ec2.delete_security_group(GroupId=group)
        ec2.delete_key_pair(KeyName=NAME)


def debian(cloud: dict[str, str]) -> str:
    """Return the id of Debian's image."""
    return str(cloud_client(cloud, "ec2", REGION).describe_images(Owners=[DEBIAN])["Images"][0]["ImageId"])


def run_img_proof(
    program: Path, cloud: dict[str, str], folder: Path, way_in: Access, names: Sequence[str], **options: str
) -> tuple[int, dict[str, str], str]:
    """Run tests of TESTS and FAILING, or of its own, and return its status, each test's outcome, and what it said.

    It launches and removes an instance, unless `running_instance_id` names one.
    """
    tests = folder / "tests"
    tests.mkdir()
    (tests / "test_debian.py").write_text(TESTS)
    (tests / "test_failing.py").write_text(FAILING)
    options = {
        "distro": "sles",
        "region": REGION,
        "instance-type": "t3.small",
        "root-disk-size": "8",
        "ssh-user": "admin",
        "ssh-private-key-file": str(way_in.key),
        "ssh-key-name": NAME,
        "security-group-id": way_in.group_id,
        "test-dirs": str(tests),
        "results-dir": str(folder / "results"),
        "history-log": str(folder / "history"),
        "timeout": str(SSH_SECONDS),
        "retry-count": "1",
    } | {name.replace("_", "-"): value for name, value in options.items()}
    clean_up = "--no-cleanup" if "running-instance-id" in options else "--cleanup"
    command = [str(program), "--no-color", "test", "--no-default-test-dirs", clean_up]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    ran = subprocess.run(
        [*command, "ec2", *names],
        cwd=folder,
        env=environment(cloud, folder),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    results = read_results(folder / "results", ran.stdout)
    outcomes = {test["nodeid"].split("::")[-1].partition("[")[0]: test["outcome"] for test in results["tests"]}
    return ran.returncode, outcomes, ran.stdout


def environment(cloud: dict[str, str], home: Path) -> dict[str, str]:
    """Without what this run of pytest would tell img-proof's own, and without the user's configuration."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    return kept | cloud | {"HOME": str(home)}


def read_results(folder: Path, said: str) -> dict[str, Any]:
    """Return the results that it wrote."""
    found = list(folder.rglob("*.results"))
    assert len(found) == 1, said
    results: dict[str, Any] = json.loads(found[0].read_text())
    return results


def launched(ec2: Any) -> dict[str, str]:
    """Return the instances that were launched with the key, and their states."""
    pages = ec2.describe_instances(Filters=[{"Name": "key-name", "Values": [NAME]}])["Reservations"]
    return {one["InstanceId"]: one["State"]["Name"] for page in pages for one in page["Instances"]}


def remove(ec2: Any, instance_ids: list[str]) -> None:
    """Terminate instances, and wait until they are gone."""
    if instance_ids:
        ec2.terminate_instances(InstanceIds=instance_ids)
        gone = ec2.get_waiter("instance_terminated")
        gone.wait(InstanceIds=instance_ids, WaiterConfig={"Delay": 1, "MaxAttempts": 120})
