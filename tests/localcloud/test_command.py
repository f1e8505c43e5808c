"""`python -m pipeline.localcloud`: start, status, stop and reset, in a home of its own."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from pipeline.localcloud.__main__ import parse_arguments, serve_arguments
from tests.localcloud.clouds import base_image, launch, state_of, wait_for

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.end_to_end


class Command:
    """Runs the command with a home."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.environment = {**os.environ, "ASSAY_CLOUD_HOME": str(home)}

    def __call__(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "pipeline.localcloud", *arguments]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=120)

    def start(self, *arguments: str) -> dict[str, Any]:
        done = self("start", "--guests", "fake", "--json", *arguments)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))


@pytest.fixture
def command(tmp_path: Path) -> Iterator[Command]:
    made = Command(tmp_path / "home")
    yield made
    made("stop")


def client_of(started: dict[str, Any]) -> Any:
    variables = started["environment"]
    return boto3.client(
        "ec2",
        endpoint_url=variables["AWS_ENDPOINT_URL"],
        region_name=variables["AWS_REGION"],
        aws_access_key_id=variables["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=variables["AWS_SECRET_ACCESS_KEY"],
        config=Config(proxies={}),
    )


def test_the_options_of_start_are_those_of_the_process_that_serves() -> None:
    asked = ["--processors=1", "--base=trixie", "--guests=fake", "--no-egress", "--port=9", "--faults=file"]
    served = parse_arguments(["serve", *serve_arguments(parse_arguments(["start", *asked]))])
    assert served == parse_arguments(["serve", *asked])


def test_a_cloud_starts_once_stops_and_is_reset(command: Command) -> None:
    assert command("status").returncode == 3
    first = command.start()
    assert command.start()["pid"] == first["pid"]
    other = command("start", "--guests", "fake", "--base", "trixie")
    assert (other.returncode, "without trixie" in other.stderr) == (1, True)
    other = command(
        "start", "--guests", "fake", "--image", "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*"
    )
    assert (other.returncode, "without noble" in other.stderr) == (1, True)
    image_id = base_image(client_of(first))
    assert image_id in command("status").stdout
    exports = command("start", "--guests", "fake").stdout
    assert f"export AWS_ENDPOINT_URL={first['url']}" in exports
    assert command("stop").returncode == 0
    assert json.loads(command("status", "--json").stdout) == {"running": False}
    assert command("reset").returncode == 0
    assert not (command.home / "disks").exists() and not (command.home / "state.pickle").exists()
    assert base_image(client_of(command.start())) == image_id, "the id comes from the content"


def test_a_killed_cloud_starts_again_with_what_it_had(command: Command) -> None:
    started = command.start()
    instance_id = launch(client_of(started))
    os.kill(started["pid"], signal.SIGKILL)
    again = command.start()
    assert again["pid"] != started["pid"]
    ec2 = client_of(again)
    assert state_of(ec2, instance_id) == "stopped"
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait_for(lambda: state_of(ec2, instance_id), "terminated")


def test_faults_are_set_from_the_beginning(command: Command, tmp_path: Path) -> None:
    file = tmp_path / "faults.json"
    file.write_text(json.dumps({"faults": [{"kind": "throttle", "action": "DescribeVpcs"}]}))
    ec2 = client_of(command.start("--faults", str(file)))
    assert ec2.describe_vpcs()["ResponseMetadata"]["RetryAttempts"] == 1


def test_what_hinders_the_start_is_one_line_and_a_status(command: Command, tmp_path: Path) -> None:
    done = command("start", "--guests", "fake", "--faults", str(tmp_path / "none.json"))
    assert done.returncode == 1
    assert "none.json" in done.stderr and "Traceback" not in done.stderr
    command.home.joinpath("state.pickle").write_bytes(b"torn")
    done = command("start", "--guests", "fake")
    assert done.returncode == 1 and "reset" in done.stderr and "Traceback" not in done.stderr


def test_a_reader_that_has_seen_enough_is_no_failure(command: Command) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    line = [sys.executable, "-m", "pipeline.localcloud", "reset"]
    done = subprocess.run(line, cwd=ROOT, env=command.environment, stdout=writer, stderr=subprocess.PIPE, timeout=120)
    os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_wrong_usage_is_status_two() -> None:
    with pytest.raises(SystemExit) as failure:
        parse_arguments(["begin"])
    assert failure.value.code == 2
