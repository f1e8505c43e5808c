"""A rewritten disk with logical volumes: zeros in what no volume has, and in what is free in the volumes."""

import filecmp
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.errors import DiskNotRewritable
from pipeline.residue.blocks import RawFile
from pipeline.residue.locate import Locator
from pipeline.residue.rewrite import plan_rewrite
from tests.planted import lvm
from tests.residue.test_rewrite import MIB, SIZE, START, Disk, contents, held_by, rewrite, run

SEGMENTS = {"root": [(0, 4), (9, 6)], "swap_1": [(4, 2)]}
VOLUME = lvm.DATA_START + 17 * lvm.EXTENT + 12288


class LogicalDisk:
    """A GPT disk with one physical volume: ext4 in two pieces, swap between them, and space that no volume has."""

    def __init__(self, folder: Path) -> None:
        self.inner = Disk(folder, "ext4", "-b 4096")
        self.path = folder / "logical.raw"
        with self.path.open("wb") as file:
            file.truncate(START + VOLUME + 2 * MIB)
        run("/sbin/sfdisk", "-q", self.path, text=f"label: gpt\nstart={START // 512}, size={VOLUME // 512}, type=V\n")
        self.write(0, lvm.physical_volume(VOLUME, "system", SEGMENTS))
        root = self.inner.part.read_bytes()
        for place in range(0, len(root), lvm.EXTENT):
            self.write(self.place("root", place), root[place : place + lvm.EXTENT])
        swap = folder / "swap"
        with swap.open("wb") as file:
            file.truncate(2 * lvm.EXTENT)
        run("/sbin/mkswap", "-q", swap)
        self.write(self.place("swap_1", 0), swap.read_bytes())
        self.dead = [text for text in self.inner.dead if text in root]
        gone = lvm.DATA_START + 7 * lvm.EXTENT
        for place in (1100, 500_000, lvm.DATA_START - 100, gone + 99, VOLUME - 2000, self.place("swap_1", 9000)):
            self.dead.append(self.inner.canary())
            self.write(place, self.dead[-1])

    def place(self, name: str, offset: int) -> int:
        """Where in the physical volume a place of a logical volume lies."""
        for first, count in SEGMENTS[name]:
            if offset < count * lvm.EXTENT:
                return lvm.DATA_START + first * lvm.EXTENT + offset
            offset -= count * lvm.EXTENT
        raise AssertionError("behind the end")

    def write(self, place: int, content: bytes) -> None:
        self.inner.write(self.path, START + place, content)


@pytest.mark.subprocess
def test_what_no_logical_volume_refers_to_is_gone(tmp_path: Path) -> None:
    disk = LogicalDisk(tmp_path)
    assert held_by(disk.path, disk.dead) == set(disk.dead)
    assert len(disk.dead) > 8
    after = rewrite(disk.path)
    assert held_by(after, disk.dead) == set()
    old, new = contents(disk.path), contents(after)
    assert {**old, "<journal>": b""} == {**new, "<journal>": b""}
    assert len(new) > 200
    with RawFile(after) as source:
        locator = Locator(source)
        volumes = {one.name: one for one in locator.partitions}
        assert volumes["logical volume system/swap_1"].content == "swap"
        root = tmp_path / "root"
        root.write_bytes(locator.file.joined(volumes["logical volume system/root"].runs).read_at(0, SIZE))
    run("/sbin/e2fsck", "-fn", root)
    assert filecmp.cmp(rewrite(after), after, shallow=False)


@pytest.mark.parametrize("old", ["stripe_count = 1", '"pv0", 10', 'type = "striped"'])
def test_volumes_that_are_not_understood_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str) -> None:
    original = lvm.metadata
    monkeypatch.setattr(lvm, "metadata", lambda *given: [line.replace(old, old[:-3]) for line in original(*given)])
    path = tmp_path / "disk"
    path.write_bytes(lvm.physical_volume(VOLUME, "system", {"root": [(10, 4)]}))
    os.truncate(path, VOLUME)
    with RawFile(path) as source, pytest.raises(DiskNotRewritable):
        plan_rewrite(source)


@pytest.mark.subprocess
def test_disks_of_the_real_tools_are_rewritten(tmp_path: Path) -> None:
    """With device-mapper or without: the metadata goes through a loop device, the volumes are never active."""
    if not shutil.which("lvm", path="/sbin:/usr/sbin") or os.geteuid() != 0:
        pytest.skip("there is no LVM2 here, or no right to use it")
    path = tmp_path / "disk"
    with path.open("wb") as file:
        file.truncate(256 * MIB)
    try:
        loop = run("/sbin/losetup", "-f", "--show", path).strip()
    except (AssertionError, OSError):
        pytest.skip("no loop device can be set up here")
    devices = ("--config", f'devices {{ filter = ["a|{loop}$|", "r|.*|"] use_devicesfile = 0 }}')

    def lvm2(command: str, *arguments: str) -> None:
        run("/sbin/lvm", command, "--driverloaded", "n", "-y", *devices, *arguments)

    try:
        lvm2("pvcreate", loop)
        lvm2("vgcreate", "group", loop)
        for name, size in (("first", "20M"), ("gone-for-good", "12M")):
            lvm2("lvcreate", "-an", "-Zn", "-Wn", "-L", size, "-n", name, "group")
        lvm2("lvextend", "-L", "40M", "group/first")
        lvm2("lvremove", "group/gone-for-good")
    finally:
        subprocess.run(["/sbin/losetup", "-d", loop], check=False)
    assert held_by(path, [b"gone-for-good {"])
    with RawFile(path) as source:
        first = next(one for one in Locator(source).partitions if one.name == "logical volume group/first")
    assert [(run.logical, run.size) for run in first.runs] == [(0, 20 * MIB), (20 * MIB, 20 * MIB)]
    after = rewrite(path)
    with RawFile(after) as source:
        assert first in Locator(source).partitions
    assert held_by(after, [b"gone-for-good {"]) == set()
