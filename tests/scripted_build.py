"""A build that kills itself: every kind of resource through the journal, up to the line at which it is to die.

Run as `python -m tests.scripted_build ENDPOINT FOLDER`, with credentials in the environment. Each line of its standard
input is a build: its id, the number of the journal's line at which it dies, and `before` or `after`. It forks them,
some side by side, and answers with the same line and what became of it.
"""

import os
import signal
import sys
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from pipeline.aws import images, instances, keys, launch_permissions, network, snapshots
from pipeline.aws.session import Session, open_session
from pipeline.aws.tags import Tags, mark_kept, resource_name
from pipeline.journal import Journal

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ9Qb2Xk1v4yU2pQ0o8t1f0sJc7xw6l3n5m9r4s2q1eD a@b"
SIDE_BY_SIDE = 8
"""Builds at a time: each mostly waits."""
CONSUMER = "210987654321"
DEBIAN_ACCOUNT = "136693071363"


class MortalJournal(Journal):
    """Dies by SIGKILL at one of its lines: before it is written, or after."""

    def __init__(self, path: Path, build_id: str, cloud: str, line: int, moment: str) -> None:
        self.lines = 0
        self.last = (line, moment)
        super().__init__(path, build_id, cloud)

    def _write(self, event: str, **values: Any) -> None:
        self.lines += 1
        self.die_at("before")
        super()._write(event, **values)
        self.die_at("after")

    def die_at(self, moment: str) -> None:
        if (self.lines, moment) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class Build:
    """Makes what a build makes, without the guest."""

    def __init__(self, session: Session, build_id: str, journal: Journal) -> None:
        self.session = session
        self.journal = journal
        expires = datetime.now(UTC) + timedelta(hours=4)
        self.tags = Tags(build_id, "sha256:00", session.caller_arn, expires)

    def name(self, role: str) -> str:
        return resource_name(self.tags.build_id, role)

    def create(self, kind: str, role: str, make: Any, remove: Any) -> str:
        name = self.name(role)
        return self.journal.create(
            kind,
            name,
            self.session.region,
            make=lambda: make(self.session, self.tags, name),
            undo=lambda handle: remove(self.session, handle),
        )

    def run(self) -> None:
        with self.journal:
            image_id, snapshot_id = self.make_all()
            mark_kept(self.session, [image_id, snapshot_id])
            self.journal.keep(image_id, snapshot_id)
            leaks = self.journal.undo_all()
            assert not leaks, leaks

    def make_all(self) -> tuple[str, str]:
        root_volume_id, base = self.launch()
        self.snapshot("fresh", root_volume_id)
        snapshot_id = self.snapshot("sealed", root_volume_id)
        registration = images.registration_like(
            base, name=self.name("image"), description="", root_snapshot_id=snapshot_id
        )
        image_id = self.create(
            "image",
            "image",
            lambda session, tags, name: images.register_image(session, tags, name, registration),
            images.deregister_image,
        )
        images.wait_for_image(self.session, image_id)
        granted = launch_permissions.LaunchPermissions(accounts=frozenset({CONSUMER}))
        launch_permissions.grant_launch(self.session, image_id, granted)
        snapshots.change_snapshot_permissions(self.session, snapshot_id, add=[CONSUMER])
        return image_id, snapshot_id

    def launch(self) -> tuple[str, images.Image]:
        base = base_image(self.session)
        subnets = network.find_subnets(self.session)
        group_id = self.create(
            "security-group",
            "ssh",
            lambda session, tags, name: network.create_security_group(
                session, tags, name, vpc_id=subnets[0].vpc_id, port=22, cidrs=["127.0.0.1"]
            ),
            network.delete_security_group,
        )
        key_name = self.create(
            "key-pair",
            "key",
            lambda session, tags, name: keys.import_key_pair(session, tags, name, PUBLIC_KEY),
            keys.delete_key_pair,
        )
        wanted = instances.Launch(base.image_id, "t3.small", key_name, (group_id,), (subnets[0].subnet_id,))
        instance_id = self.create(
            "instance",
            "build",
            lambda session, tags, name: instances.launch_instance(session, tags, name, wanted),
            instances.terminate_instance,
        )
        instance = instances.wait_running(self.session, instance_id)
        assert instance.root_volume_id
        return instance.root_volume_id, base

    def snapshot(self, role: str, volume_id: str) -> str:
        snapshot_id = self.create(
            "snapshot",
            role,
            lambda session, tags, name: snapshots.create_snapshot(session, tags, name, volume_id),
            snapshots.delete_snapshot,
        )
        snapshots.wait_for_snapshot(self.session, snapshot_id)
        return snapshot_id


def base_image(session: Session) -> images.Image:
    """Return the newest image of Debian's account."""
    found = session.client("ec2").describe_images(Owners=[DEBIAN_ACCOUNT])["Images"]
    return max(map(images.read_image, found), key=lambda image: image.creation_date)


def main() -> None:
    endpoint, folder = sys.argv[1:]
    elsewhere = open_session("us-west-2", endpoint)
    elsewhere.client("ec2")  # the model of EC2 is read here once, and not by every build
    running: dict[int, str] = {}
    for position in sys.stdin.read().splitlines():
        if len(running) == SIDE_BY_SIDE:
            report_one(running)
        running[fork(elsewhere, Path(folder), *position.split())] = position
    while running:
        report_one(running)


def fork(elsewhere: Session, folder: Path, build_id: str, line: str, moment: str) -> int:
    """Start a build in a process of its own and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        build(elsewhere.in_region("us-east-1"), folder / build_id, int(line), moment)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def build(session: Session, folder: Path, line: int, moment: str) -> None:
    folder.mkdir()
    journal = MortalJournal(folder / "journal.jsonl", folder.name, session.cloud, line, moment)
    Build(session, folder.name, journal).run()


def report_one(running: dict[int, str]) -> None:
    """Wait for the next build that ends, and say how."""
    pid, status = os.wait()
    end = "killed" if os.WIFSIGNALED(status) else f"exit {os.waitstatus_to_exitcode(status)}"
    print(f"{running.pop(pid)} {end}", flush=True)


if __name__ == "__main__":
    main()
