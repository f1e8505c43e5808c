"""A rewritten XFS that the kernel has used: no removed name, value or target is left, and the kernel goes on."""

import os
import random
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import AssayError, DiskNotRewritable
from pipeline.residue.blocks import RawFile
from pipeline.residue.rewrite import plan_rewrite
from pipeline.residue.xfs_inodes import Shape, attribute_remains, index_remains, name_remains
from tests.residue.test_rewrite import MIB, XFS_SIZE, Disk, held_by, rewrite, run

DEAD = [b"DEADNAME", b"DEADATTRIBUTE", b"DEADVALUE", b"DEADTARGET"]
FORMS = {"as it is made": "", "small blocks and large folders": "-b size=1024 -n size=8192"}
SHAPE = Shape(4096, 4096, 512, has_checksums=True, has_file_types=True, place=lambda address: address)


@contextmanager
def mounted(image: Path, folder: Path) -> Iterator[Path]:
    """Mount an image, or skip the test where that cannot be done."""
    folder.mkdir(exist_ok=True)
    done = subprocess.run(["mount", "-o", "loop", image, folder], capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"XFS cannot be mounted here: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        run("umount", folder)


def use(root: Path) -> None:
    """Make and remove names of all lengths, in folders of all forms, attributes, links, and a file with holes."""
    chance = random.Random(3)
    for number, count in enumerate((3, 8, 40, 300, 1500)):
        fill_folder(root / f"folder{number}", count, chance)
    for number in range(30):
        change_attributes(root / f"file{number}", number, chance)
        link = root / f"link{number}"
        link.symlink_to("DEADTARGET" + "t" * chance.randrange(700))
        os.sync()
        link.unlink()
        if number % 2:
            link.symlink_to("LIVE" + "t" * chance.randrange(700))
    with (root / "holes").open("wb") as file:
        for number in range(400):
            file.seek(number * 16384)
            file.write(b"piece %d" % number)
    with (root / "set aside").open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, MIB)


def fill_folder(folder: Path, count: int, chance: random.Random) -> None:
    folder.mkdir()
    for name in range(count):
        (folder / f"DEADNAME{name}{'x' * chance.randrange(30)}").write_bytes(b"%d" % name)
    os.sync()
    for path in sorted(folder.iterdir()):
        if chance.random() < 0.5:
            path.unlink()
        else:
            path.rename(path.with_name(path.name.replace("DEAD", "LIVE")))


def change_attributes(path: Path, count: int, chance: random.Random) -> None:
    path.write_bytes(b"held")
    for attribute in range(count):
        os.setxattr(path, f"user.DEADATTRIBUTE{attribute}", b"DEADVALUE" * chance.randrange(1, 40))
    os.sync()
    for attribute in range(count):
        os.removexattr(path, f"user.DEADATTRIBUTE{attribute}")
        if attribute % 3 == 0:
            os.setxattr(path, f"user.LIVE{attribute}", b"LIVE" * chance.randrange(1, 20))


def tree(root: Path) -> dict[str, object]:
    """Return everything that can be seen of a tree."""
    seen: dict[str, object] = {}
    for path in sorted(root.rglob("*")):
        names = sorted(os.listxattr(path, follow_symlinks=False))
        values = [(name, os.getxattr(path, name, follow_symlinks=False)) for name in names]
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        seen[str(path.relative_to(root))] = (path.lstat().st_mode, path.lstat().st_ino, content, values)
    return seen


@pytest.mark.end_to_end
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_a_used_file_system_keeps_nothing_that_was_removed(tmp_path: Path, form: str) -> None:
    if os.geteuid() != 0 or not shutil.which("mkfs.xfs", path="/sbin:/usr/sbin"):
        pytest.skip("only root can mount XFS, and mkfs.xfs must be installed")
    image, folder = tmp_path / "image", tmp_path / "mounted"
    with image.open("wb") as file:
        file.truncate(XFS_SIZE)
    run("/sbin/mkfs.xfs", "-q", *form.split(), image)
    with mounted(image, folder):
        use(folder)
    with mounted(image, folder):
        before = tree(folder)
    assert held_by(image, DEAD) == set(DEAD)
    after = rewrite(image)
    assert held_by(after, DEAD) == set()
    run("/sbin/xfs_repair", "-n", after)
    with mounted(after, folder):
        assert tree(folder) == before
        shutil.rmtree(folder / "folder4")
        (folder / "new").write_bytes(b"written")
    run("/sbin/xfs_repair", "-n", after)


class Damaged:
    """A disk of which some bytes are others."""

    def __init__(self, disk: RawFile, changes: dict[int, int]) -> None:
        self.disk, self.changes = disk, changes
        self.size_bytes, self.block_size = disk.size_bytes, disk.block_size

    def indices(self) -> Iterable[int]:
        return self.disk.indices()

    def read(self, index: int) -> bytes:
        block = bytearray(self.disk.read(index))
        for place, value in self.changes.items():
            if place // self.block_size == index and place % self.block_size < len(block):
                block[place % self.block_size] = value
        return bytes(block)

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes | AssayError]]:
        return ((index, self.read(index)) for index in indices)


@pytest.mark.end_to_end
def test_a_damaged_xfs_is_refused_or_read_but_never_a_crash(tmp_path: Path) -> None:
    if not shutil.which("mkfs.xfs", path="/sbin:/usr/sbin"):
        pytest.skip("mkfs.xfs is not installed")
    part = Disk(tmp_path, "xfs", "-m crc=1").part
    written = [place for place, value in enumerate(part.read_bytes()[:MIB]) if value]

    @settings(max_examples=6, deadline=None)
    @given(st.dictionaries(st.sampled_from(written), st.integers(0, 255), max_size=12))
    def damage(changes: dict[int, int]) -> None:
        with RawFile(part) as disk:
            try:
                plan_rewrite(Damaged(disk, changes))
            except DiskNotRewritable:
                return

    damage()


@given(st.binary(max_size=4096), st.sampled_from([b"XDB3", b"XDD3", b"XDF3"]))
def test_a_block_of_a_folder_is_read_or_refused(content: bytes, magic: bytes) -> None:
    block = (magic + content).ljust(4096, b"\0")[:4096]
    try:
        ranges = list(name_remains(block, SHAPE))
    except DiskNotRewritable:
        return
    assert all(start <= end <= 4096 + 8 or magic == b"XDF3" for start, end in ranges)


@given(st.binary(max_size=4088), st.sampled_from([b"\x3b\xee", b"\x3e\xbe", b"\x3d\xf1", b"\x3d\xff", b"\xfb\xee"]))
def test_a_block_of_attributes_is_read_or_refused(content: bytes, magic: bytes) -> None:
    block = (bytes(8) + magic + content).ljust(4096, b"\0")[:4096]
    try:
        ranges = index_remains(block) if magic[1] in (0xBE, 0xF1, 0xFF) else attribute_remains(block)
    except DiskNotRewritable:
        return
    assert all(0 <= start <= end <= 4096 for start, end in ranges)


def test_removed_names_are_what_no_entry_takes() -> None:
    live = (5).to_bytes(8, "big") + b"\4live\1" + b"\0\0"
    gone = b"\xff\xff" + (32).to_bytes(2, "big") + b"a name that is gone!!!!!!!" + b"\0\x50"
    rest = b"\xff\xff" + (4096 - 64 - 16 - 32).to_bytes(2, "big")
    block = (b"XDD3".ljust(64, b"\0") + live + gone + rest).ljust(4096, b"\0")
    kept = bytearray(block)
    for start, end in name_remains(block, SHAPE):
        kept[start:end] = bytes(end - start)
    assert b"gone" not in kept
    assert b"live" in kept
