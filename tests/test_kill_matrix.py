"""Killed at any line of its journal, a build leaves nothing behind after a sweep, and never loses what it kept.

Every line is tried twice: before it is written (the call was made, and nobody wrote down its answer), and after.
"""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.aws.session import Session
from pipeline.journal import read_journal
from pipeline.sweep import sweep_builds
from tests.fake_cloud import FakeCloud, fake_cloud

__all__ = ["fake_cloud"]
pytestmark = [pytest.mark.loopback, pytest.mark.subprocess]

ALL_LINES = 99


class Builder:
    """Runs scripted builds, one after another, in a process that forks them."""

    def __init__(self, cloud: FakeCloud, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "tests.scripted_build", cloud.endpoint, str(folder)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | cloud.environment
        )

    def run(self, line: int, moment: str) -> str:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f"{line} {moment}\n")
        self.process.stdin.flush()
        return self.process.stdout.readline().strip()

    def newest_journal(self) -> Path:
        return max(self.folder.iterdir()) / "journal.jsonl"

    def close(self) -> None:
        self.process.communicate(timeout=60)


@pytest.fixture
def builder(fake_cloud: FakeCloud, tmp_path: Path) -> Iterator[Builder]:
    builder = Builder(fake_cloud, tmp_path)
    yield builder
    builder.close()


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
    }


def kept(journal: Path) -> set[str]:
    """Return what a journal says is kept."""
    return {entry.identity for entry in read_journal(journal).entries if entry.kept and entry.identity}


def test_a_build_that_is_killed_at_any_line_leaves_nothing_behind(builder: Builder, fake_cloud: FakeCloud) -> None:
    session = fake_cloud.open()
    before = holdings(session)
    assert builder.run(ALL_LINES, "after") == "exit 0"
    assert holdings(session) == before | kept(builder.newest_journal())
    lines = len(builder.newest_journal().read_text().splitlines())
    assert lines >= 15
    expected = holdings(session)
    for line in range(1, lines + 1):
        for moment in ("before", "after"):
            assert builder.run(line, moment) == "killed"
            swept = sweep_builds(session, builder.folder)
            assert swept.exit_status == 0, swept.lines()
            journal = builder.newest_journal()
            expected |= kept(journal)
            assert holdings(session) == expected, f"killed {moment} line {line}: {swept.lines()}"
            assert not any(entry.open for entry in read_journal(journal).entries)
    assert sweep_builds(session, builder.folder).lines() == ["nothing to remove"]
