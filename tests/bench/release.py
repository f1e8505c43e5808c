"""Releases that go wrong, ours and Packer's: what each leaves behind.

    python -m tests.bench.release

Each call that changes something is refused, throttled, or its answer is lost, and the process is killed at it, one at a
time, on a local cloud whose guests boot nothing. Packer (amazon-ebs, communicator `none`) makes an AMI of an instance,
copies it into a second region and shares it with an account and with everybody; ours does so with an image that was
proved. What is counted is what the failed runs leave: for ours also after `invoke sweep`, which Packer has none of. A
run that is killed at its last call may have released everything by then: what is public is counted also where something
of the release is missing.
"""

import os
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from pipeline.aws.session import Session
from pipeline.aws.tags import read_tags
from pipeline.sweep import sweep_builds
from tests.bench import draw_table, packer
from tests.bench.rows import Row
from tests.fake_cloud import CONSUMER, FakeCloud, base_image, running_fake_cloud
from tests.publish.faulty import ERROR, KINDS, READING
from tests.publish.scripted_release import HOME, REGIONS
from tests.publish.test_fault_matrix import PRIVATE, orphans, read_holders, run_releases

PACKER_KINDS = ("error", "throttle", "lost-response", "kill")
DEADLINE_SECONDS = 300.0
TAGS = {"team": "web"}
PUBLIC, TOO_EARLY = "public images", "public images, the release unfinished"
HANG_SECONDS = 3.0
"""How long the answer is held back at which Packer is killed."""


@dataclass
class Tally:
    """What the runs of one matrix left."""

    ends: Counter[str] = field(default_factory=Counter)
    left: Counter[str] = field(default_factory=Counter)

    def add(self, end: str, found: dict[str, int]) -> None:
        """Add a run; what a run left that ended well is counted only where it is not what was asked for."""
        failed = end != "0"
        self.ends["failed or killed" if failed else "exit 0"] += 1
        for what, count in found.items():
            if failed or what == "other resources":
                self.left[what] += count
        if not failed and found["other resources"]:
            self.ends["exit 0, and something was left"] += 1


def measure(_: Callable[[], dict[str, str]]) -> list[Row]:
    """Run both matrices, each on a cloud of its own, and return the rows."""
    with TemporaryDirectory() as folder, running_fake_cloud(Path(folder) / "ours") as cloud:
        builds = Path(folder) / "keep"
        builds.mkdir()
        ours, swept = measure_ours(cloud, builds)
    theirs = None
    if shutil.which("packer"):
        with TemporaryDirectory() as folder, running_fake_cloud(Path(folder) / "theirs") as cloud:
            theirs = measure_packer(cloud, Path(folder))
    return list(rows(ours, swept, theirs))


def open_regions(cloud: FakeCloud) -> Session:
    """Let images become public in both regions."""
    session = cloud.open(HOME)
    for region in REGIONS:
        session.in_region(region).client("ec2").disable_image_block_public_access()
    return session


def measure_ours(cloud: FakeCloud, builds: Path) -> tuple[Tally, int]:
    """Run our matrix, and return what it left, and how many orphans were left after the sweep."""
    session = open_regions(cloud)
    run_releases(cloud, builds, ["20250131-235959-ffffff none"])
    calls = (builds / "20250131-235959-ffffff" / "calls").read_text().splitlines()
    changing = [call for call in calls if not call.split()[1].startswith(READING)]
    matrix = [f"{kind} {call}" for call in changing for kind in KINDS]
    lines = {f"20250131-235959-{number:06x}": strike for number, strike in enumerate(matrix)}
    ends = run_releases(cloud, builds, [f"{build_id} {strike}" for build_id, strike in lines.items()])
    held = read_holders(session, list(ends))
    tally = Tally()
    for build_id, end in ends.items():
        shared = [one.split()[1] for one in held[build_id]]
        public = shared.count("public")
        early = 0 if held[build_id] >= PRIVATE else public
        tally.add(end, {PUBLIC: public, TOO_EARLY: early, "shared images": shared.count("consumer"),
                        "other resources": 0})  # fmt: skip
    tally.left["images and snapshots"] = len(orphans(session))
    sweep_builds(session, builds)
    return tally, len(orphans(session))


def measure_packer(cloud: FakeCloud, folder: Path) -> Tally:
    """Run Packer's matrix."""
    session = open_regions(cloud)
    cloud.ask("DELETE", "calls", {})
    end = run_packer(cloud, session, folder, "whole")
    if end != "0":
        raise RuntimeError(f"packer ended with {end}: {(folder / 'log').read_text()[-2000:]}")
    made = [one["action"] for one in cloud.ask("GET", "calls", {})["calls"]]
    remove_everything(session)
    calls = [(action, number) for action, count in Counter(made).items() for number in range(count)]
    tally = Tally()
    for action, number in calls:
        if action.startswith(READING):
            continue
        for kind in PACKER_KINDS:
            name = f"{kind}-{action}-{number}"
            with cloud.faults(fault(kind, action, number)):
                end = run_packer(cloud, session, folder, name, killed_at=(action, number) if kind == "kill" else None)
            tally.add(end, what_is_left(session))
            remove_everything(session)
    return tally


def fault(kind: str, action: str, number: int) -> dict[str, Any]:
    """Return the fault that strikes one call; a kill holds its answer back."""
    where = {"action": action, "after": number, "times": 1}
    if kind == "error":
        return {**ERROR, **where}
    return {"kind": "latency", "seconds": HANG_SECONDS, **where} if kind == "kill" else {"kind": kind, **where}


def run_packer(
    cloud: FakeCloud, session: Session, folder: Path, name: str, killed_at: tuple[str, int] | None = None
) -> str:
    """Let Packer make a public AMI in two regions, and return its exit status, or `killed`."""
    template = packer.write_template(
        folder,
        endpoint=cloud.endpoint,
        region=HOME,
        name=name,
        source_ami=base_image(session).image_id,
        scripts=[],
        communicator="none",
        ami_regions=[region for region in REGIONS if region != HOME],
        ami_groups=["all"],
        ami_users=[CONSUMER],
        snapshot_users=[CONSUMER],
        tags=TAGS,
    )
    if killed_at is None:
        return str(packer.run(template, cloud.environment, folder / "log", DEADLINE_SECONDS).returncode)
    cloud.ask("DELETE", "calls", {})
    with packer.started(template, cloud.environment, folder / "log") as process:
        action, number = killed_at
        while process.poll() is None and cloud.ask("GET", "calls", {})["count"].get(action, 0) <= number:
            time.sleep(0.02)
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    time.sleep(HANG_SECONDS)  # until the call that was under way is done
    return "killed"


def what_is_left(session: Session) -> dict[str, int]:
    """Count what is in the account."""
    found: Counter[str] = Counter({PUBLIC: 0, "shared images": 0, "other resources": 0})
    finished = True
    for region in REGIONS:
        ec2 = session.in_region(region).client("ec2")
        images = ec2.describe_images(Owners=["self"])["Images"]
        shared = ec2.describe_images(ExecutableUsers=[CONSUMER])["Images"]
        tagged = [image for image in images if TAGS.items() <= read_tags(image.get("Tags")).items()]
        finished = finished and len(images) == len(shared) == len(tagged) == 1
        found[PUBLIC] += sum(image["Public"] for image in images)
        found["shared images"] += len(shared)
        found["images and snapshots"] += len(images) + len(ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"])
        found["other resources"] += len(list(other_resources(ec2)))
    return {**found, TOO_EARLY: 0 if finished else found[PUBLIC]}


def other_resources(ec2: Any) -> Iterator[tuple[str, str]]:
    """Yield what a build needs only while it runs: instances, groups, key pairs."""
    for page in ec2.describe_instances()["Reservations"]:
        for one in page["Instances"]:
            if one["State"]["Name"] != "terminated":
                yield "instance", one["InstanceId"]
    yield from (
        ("group", one["GroupId"])
        for one in ec2.describe_security_groups()["SecurityGroups"]
        if one["GroupName"] != "default"
    )
    yield from (("key", one["KeyName"]) for one in ec2.describe_key_pairs()["KeyPairs"])


def remove_everything(session: Session) -> None:
    """Empty the account for the next run."""
    for region in REGIONS:
        ec2 = session.in_region(region).client("ec2")
        for image in ec2.describe_images(Owners=["self"])["Images"]:
            ec2.deregister_image(ImageId=image["ImageId"])
        for snapshot in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]:
            ec2.delete_snapshot(SnapshotId=snapshot["SnapshotId"])
        remover = {
            "instance": lambda one, ec2=ec2: ec2.terminate_instances(InstanceIds=[one]),
            "group": lambda one, ec2=ec2: ec2.delete_security_group(GroupId=one),
            "key": lambda one, ec2=ec2: ec2.delete_key_pair(KeyName=one),
        }
        for kind, identity in list(other_resources(ec2)):
            remover[kind](identity)


def rows(ours: Tally, swept: int, theirs: Tally | None) -> Iterator[Row]:
    """Yield the figures."""
    peer, versions = ("packer build", f"packer {packer.version()}") if theirs else ("", "")

    def row(measure: str, own: float, other: float | None, bound: str = "") -> Row:
        return Row(measure, "number", own, peer, other, bound, 1, versions)

    for what in ("exit 0", "failed or killed", "exit 0, and something was left"):
        yield row(f"runs: {what}", ours.ends[what], theirs.ends[what] if theirs else None)
    for what, bound in ((PUBLIC, ""), (TOO_EARLY, "0"), ("shared images", ""), ("other resources", "0")):
        yield row(f"left by failed runs: {what}", ours.left[what], theirs.left[what] if theirs else None, bound)
    left = "images and snapshots"
    yield row(f"left by failed runs: {left}", ours.left[left], theirs.left[left] if theirs else None)
    yield row(f"left after a sweep: {left}", swept, theirs.left[left] if theirs else None, "0")


if __name__ == "__main__":
    Console(width=200).print(draw_table("release", measure(dict)))
