"""A rewritten disk: nothing that was deleted is left, nothing that is there changes, and fsck has no complaint."""

import filecmp
import os
import re
import shutil
import struct
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import DiskNotRewritable
from pipeline.residue.blocks import RawFile
from pipeline.residue.crc32c import crc32c
from pipeline.residue.dead import joined, overlapping, without
from pipeline.residue.ext4 import Ext4
from pipeline.residue.filesystems import SourceFile
from pipeline.residue.locate import Locator
from pipeline.residue.rewrite import Rewrite, find_remains, plan_overwrite, plan_rewrite, rewritten_blocks

MIB = 1 << 20
START, SIZE, SWAP = 2 * MIB, 40 * MIB, 4 * MIB
XFS_SIZE = 320 * MIB
EXT4_FORMS = {
    "as Debian makes it": "-b 4096 -I 256",
    "small blocks": "-b 1024 -O ^64bit",
    "no checksums": "-b 4096 -O ^metadata_csum",
    "groups apart": "-b 1024 -O ^flex_bg,^metadata_csum,^sparse_super,^resize_inode",
    "inline data": "-b 4096 -I 256 -O inline_data",
}
XFS_FORMS = {"version 5": "-m crc=1", "version 4": "-m crc=0", "small blocks": "-b size=1024"}
LONG = "name-that-nobody-should-see-any-more-"


class Disk:
    """A GPT disk with one file system, swap, and canaries: what is dead, and what must live."""

    def __init__(self, folder: Path, kind: str, form: str) -> None:
        self.kind, self.path, self.part = kind, folder / "disk.raw", folder / "part"
        self.size = SIZE if kind == "ext4" else XFS_SIZE
        self.dead: list[bytes] = []
        self.tree = folder / "tree"
        self.fill_tree()
        with self.part.open("wb") as file:
            file.truncate(self.size)
        getattr(self, f"make_{kind}")(form.split())
        self.assemble()
        self.plant_raw()

    def fill_tree(self) -> None:
        for number in range(300):
            file = self.tree / f"many/{LONG}{number:04}"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(b"%d " % number * (number * 7 + 1))
        (self.tree / "few").mkdir()
        for name in ("stays", f"{LONG}goes", "stays too"):
            (self.tree / "few" / name).write_bytes(os.urandom(5000) if name != "stays" else b"tiny")

    def canary(self) -> bytes:
        self.dead.append(f"canary-{uuid.uuid4()}".encode())
        return self.dead[-1]

    def make_ext4(self, form: list[str]) -> None:
        run("/sbin/mke2fs", "-q", "-t", "ext4", *form, "-d", self.tree, self.part)
        deleted = self.tree.parent / "deleted"
        deleted.write_bytes(self.canary() * 500)
        requests = [f"write {deleted} /few/secret", "rm /few/secret"]
        requests += [f"symlink /few/link {self.canary().decode()}", "rm /few/link", f"rm /few/{LONG}goes"]
        requests += [f"rm /many/{LONG}{number:04}" for number in range(0, 300, 3)]
        run("/sbin/debugfs", "-w", "-f", "-", self.part, text="\n".join(requests) + "\n")
        self.dead += [f"{LONG}goes".encode(), f"{LONG}0003".encode(), f"{LONG}0297".encode()]
        journal = run("/sbin/debugfs", "-R", "blocks <8>", self.part).split()
        block_size = int(re.findall(r"Block size:\s+(\d+)", run("/sbin/dumpe2fs", "-h", self.part))[0])
        for number in (journal[1], journal[-1]):
            self.write(self.part, int(number) * block_size + 50, self.canary())
        tail = run("/sbin/debugfs", "-R", "blocks /few/stays\\ too", self.part).split()
        if tail:
            self.write(self.part, int(tail[-1]) * block_size + 5000 % block_size + 20, self.canary())

    def make_xfs(self, form: list[str]) -> None:
        prototype = self.part.with_suffix(".proto")
        lines = ["/dev/null", "0 0", "d--755 0 0"]
        for folder in sorted(self.tree.iterdir()):
            files = [f"{path.name} ---644 0 0 {path}" for path in sorted(folder.iterdir()) if " " not in path.name]
            lines += [f"{folder.name} d--755 0 0", *files, "$"]
        prototype.write_text("\n".join([*lines, "$", ""]))
        run("/sbin/mkfs.xfs", "-q", "-f", *form, "-p", prototype, self.part)
        shown = run("/sbin/xfs_db", "-r", "-c", "sb 0", "-c", "p agblocks blocksize", self.part)
        group_blocks, block_size = (int(value) for value in re.findall(r"= (\d+)", shown))
        table = run("/sbin/xfs_db", "-r", "-c", "freesp -d", self.part)
        free = [tuple(map(int, line)) for line in re.findall(r"^\s+(\d+)\s+(\d+)\s+(\d+)$", table, re.MULTILINE)]
        self.write(self.part, self.log() + 300 * 512 + 40, self.canary())
        for group, first, count in free:
            for block in {first, first + count - 1}:
                self.write(self.part, (group * group_blocks + block) * block_size + 17, self.canary())

    def log(self) -> int:
        """Where in the part the log of XFS lies."""
        shown = run("/sbin/xfs_db", "-r", "-c", "sb 0", "-c", "p logstart agblklog agblocks blocksize", self.part)
        start, group_log, group_blocks, size = (int(value) for value in re.findall(r"= (\d+)", shown))
        return ((start >> group_log) * group_blocks + (start & (1 << group_log) - 1)) * size

    def assemble(self) -> None:
        with self.path.open("wb") as file:
            file.truncate(START + self.size + SWAP + 2 * MIB)
        places = ((START, self.size, "L"), (START + self.size, SWAP, "S"))
        lines = [f"start={start // 512}, size={size // 512}, type={kind}" for start, size, kind in places]
        run("/sbin/sfdisk", "-q", self.path, text="\n".join(["label: gpt", "unit: sectors", *lines, ""]))
        self.put_file_system()
        swap = self.path.with_suffix(".swap")
        with swap.open("wb") as file:
            file.truncate(SWAP)
        run("/sbin/mkswap", "-q", swap)
        self.write(self.path, START + self.size, swap.read_bytes()[:4096])

    def put_file_system(self) -> None:
        places = ("bs=1M", f"seek={START // MIB}", "conv=notrunc", "status=none")
        run("dd", f"if={self.part}", f"of={self.path}", *places)

    def plant_raw(self) -> None:
        after = START + self.size + SWAP
        for place in (MIB, START - 60, START + self.size + 9000, after + 100, after + 2 * MIB - 40 * 512):
            self.write(self.path, place, self.canary())

    def write(self, path: Path, place: int, content: bytes) -> None:
        with path.open("r+b") as file:
            file.seek(place)
            file.write(content)

    def check(self, disk: Path) -> str:
        """Run the file system's own check and return what it says. It fails for anything that is wrong."""
        self.part.unlink()
        run("dd", f"if={disk}", f"of={self.part}", "bs=1M", f"skip={START // MIB}", "conv=sparse", "status=none")
        os.truncate(self.part, self.size)
        if self.kind == "ext4":
            shown = run("/sbin/dumpe2fs", self.part)
            for copy in re.findall(r"Backup superblock at (\d+)", shown):
                run("/sbin/dumpe2fs", "-h", "-o", f"superblock={copy}", self.part)
        return run(*(("/sbin/e2fsck", "-fn") if self.kind == "ext4" else ("/sbin/xfs_repair", "-n")), self.part)


def run(*command: str | Path, text: str = "") -> str:
    done = subprocess.run([str(part) for part in command], input=text, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rewrite(disk: Path) -> Path:
    """Write the rewritten disk beside the disk."""
    made = disk.with_name(f"new-{disk.name}")
    run("cp", "--sparse=always", disk, made)
    with RawFile(disk) as source, made.open("r+b") as file:
        for index, data in rewritten_blocks(source, plan_rewrite(source)):
            file.seek(index * source.block_size)
            file.write(data)
    return made


def overwrite(disk: Path) -> Path:
    """Write beside a disk what it is when only its free blocks were overwritten."""
    made = disk.with_name(f"overwritten-{disk.name}")
    with RawFile(disk) as source, made.open("wb") as file:
        file.truncate(source.size_bytes)
        plan = Rewrite(plan_overwrite(source).free, (), 0, 0)
        for index, data in source.read_many(source.indices()):
            assert isinstance(data, bytes)
            file.seek(index * source.block_size)
            file.write(plan.apply(index * source.block_size, data))
    return made


def free_and_not_zero(disk: Path) -> int:
    with RawFile(disk) as source:
        return sum(end - start for start, end in find_remains(source, plan_overwrite(source)))


def held_by(disk: Path, dead: list[bytes]) -> set[bytes]:
    """Return which of some texts, none longer than a sector, are on a disk."""
    wanted, found = re.compile(b"|".join(sorted(map(re.escape, dead), reverse=True))), set()
    with RawFile(disk) as source:
        tail = b""
        for _, data in source.read_many(source.indices()):
            found |= set(wanted.findall(tail + data))
            tail = data[-512:]
    return found


def contents(disk: Path) -> dict[str, bytes]:
    with RawFile(disk) as source:
        ((_, file_system),) = Locator(source).file_systems()
        return {entry.path: b"".join(file_system.read(entry)) for entry in file_system.entries if entry.is_file}


def forms() -> Iterator[object]:
    for kind, known, tool in (("ext4", EXT4_FORMS, "debugfs"), ("xfs", XFS_FORMS, "xfs_db")):
        missing = pytest.mark.skipif(not shutil.which(tool, path="/sbin:/usr/sbin"), reason=f"{tool} is not installed")
        for name, form in known.items():
            slow = [pytest.mark.end_to_end] if kind == "xfs" else []
            yield pytest.param(kind, form, id=f"{kind} {name}", marks=[missing, *slow])


@pytest.mark.subprocess
@pytest.mark.parametrize(("kind", "form"), list(forms()))
def test_what_is_dead_is_gone_and_what_lives_is_as_it_was(tmp_path: Path, kind: str, form: str) -> None:
    disk = Disk(tmp_path, kind, form)
    assert held_by(disk.path, disk.dead) == set(disk.dead)
    after = rewrite(disk.path)
    assert held_by(after, disk.dead) == set()
    old, new = contents(disk.path), contents(after)
    old.pop("<journal>", None)
    new.pop("<journal>", None)
    assert old == new
    assert len(new) > 200
    run("/sbin/sfdisk", "-V", after)
    disk.check(after)
    assert filecmp.cmp(rewrite(after), after, shallow=False)
    assert free_and_not_zero(disk.path) > 0
    assert free_and_not_zero(after) == free_and_not_zero(overwrite(disk.path)) == 0
    assert held_by(overwrite(disk.path), disk.dead) > set(), "slack, names and the journal are not free blocks"


@pytest.mark.subprocess
def test_names_left_in_an_indexed_folder_are_gone(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "ext4", "-b 1024")
    subprocess.run(["/sbin/e2fsck", "-fyD", disk.part], capture_output=True, check=False)
    run("/sbin/debugfs", "-w", "-R", f"rm /many/{LONG}0100", disk.part)
    assert "Root node dump" in run("/sbin/debugfs", "-R", "htree_dump /many", disk.part)
    root = int(re.findall(r"\(0\):(\d+)", run("/sbin/debugfs", "-R", "stat /many", disk.part))[0])
    disk.write(disk.part, root * 1024 + 900, disk.canary())
    disk.put_file_system()
    dead = [f"{LONG}0100".encode(), disk.dead[-1]]
    assert held_by(disk.path, dead) == set(dead)
    after = rewrite(disk.path)
    assert held_by(after, dead) == set()
    disk.check(after)


@pytest.mark.subprocess
def test_a_removed_folder_is_known_from_content(tmp_path: Path) -> None:
    part, tree = tmp_path / "part", tmp_path / "tree"
    (tree / "folder").mkdir(parents=True)
    for number in range(40):
        (tree / f"folder/name-{number}").write_bytes(b"text of a file\n" * 300)
    with part.open("wb") as file:
        file.truncate(SIZE)
    run("/sbin/mke2fs", "-q", "-t", "ext4", "-b", "4096", "-d", tree, part)
    with RawFile(part) as source:
        reader = Ext4(SourceFile(source))

        def blocks(path: str) -> list[bytes]:
            numbers = run("/sbin/debugfs", "-R", f"blocks {path}", part).split()
            return [reader.file.read_at(int(number) * 4096, 4096) for number in numbers]

        (folder,) = blocks("/folder")
        assert reader.was_structure(folder)
        assert not any(map(reader.was_structure, blocks("/folder/name-7")))
        tree_node = b"\x0a\xf3\1\0\x54\1\0\0\0\0\0\0" + struct.pack("<IHHI", 7, 100, 0, 9000)
        assert reader.was_structure(tree_node.ljust(4092, b"\0") + b"sum.")
        assert not reader.was_structure(tree_node.ljust(4080, b"\0") + b"a secret" + b"pad to 4")
        assert not reader.was_structure(tree_node + b"a secret of some length".ljust(4072, b"\0"))
        assert not reader.was_structure(folder[:-200] + b"a secret".ljust(188) + folder[-12:])

    @given(st.binary(min_size=1024, max_size=1024))
    def anything(block: bytes) -> None:
        assert reader.was_structure(block) in (True, False)

    anything()


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        ("ssv state 0", "not unmounted cleanly: it is not marked as clean$"),
        ("feature needs_recovery", "not unmounted cleanly: its journal wants to be replayed$"),
        ("ssv last_orphan 12", "not unmounted cleanly: deleted files are still held open$"),
        ("feature meta_bg", "not known"),
        ("feature sparse_super2", "cannot be read"),
        ("freeb {block}", "marked free"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path: Path, request_: str, reason: str) -> None:
    disk = Disk(tmp_path, "ext4", "-b 4096")
    block = run("/sbin/debugfs", "-R", f"blocks /many/{LONG}0299", disk.part).split()[0]
    run("/sbin/debugfs", "-w", "-R", request_.format(block=block), disk.part)
    disk.put_file_system()
    with RawFile(disk.path) as source, pytest.raises(DiskNotRewritable, match=reason):
        plan_rewrite(source)


@pytest.mark.end_to_end
def test_a_log_that_is_to_be_replayed_is_refused(tmp_path: Path) -> None:
    if not shutil.which("xfs_db", path="/sbin:/usr/sbin"):
        pytest.skip("xfs_db is not installed")
    disk = Disk(tmp_path, "xfs", "-m crc=1")
    disk.write(disk.path, START + disk.log() + 40, (7).to_bytes(4, "big"))
    with RawFile(disk.path) as source, pytest.raises(DiskNotRewritable, match="the log of XFS is not empty"):
        plan_rewrite(source)


@pytest.mark.parametrize("content", [b"LABELONE", b"anything"])
def test_a_large_disk_that_is_not_understood_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "disk"
    path.write_bytes(content.rjust(520, b"\0"))
    os.truncate(path, 100 * MIB)
    with RawFile(path) as source, pytest.raises(DiskNotRewritable, match="is not known"):
        plan_rewrite(source)


@pytest.mark.subprocess
def test_a_damaged_file_system_is_refused_or_read_but_never_a_crash(tmp_path: Path) -> None:
    disk = Disk(tmp_path, "ext4", "-b 1024")
    good = bytearray(disk.path.read_bytes())

    @settings(max_examples=15, deadline=None)
    @given(st.lists(st.tuples(st.integers(START + 1024, START + 300 * 1024), st.integers(0, 255)), max_size=40))
    def damage(changes: list[tuple[int, int]]) -> None:
        bad = bytearray(good)
        for place, value in changes:
            bad[place] = value
        disk.path.write_bytes(bad)
        with RawFile(disk.path) as source:
            try:
                plan_rewrite(source)
            except DiskNotRewritable:
                return

    damage()


def test_the_checksum_is_the_one_of_the_standard() -> None:
    assert crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


def test_copies_of_the_superblock_lie_where_powers_say() -> None:
    file_system = Ext4.__new__(Ext4)
    file_system.read_only = 1
    assert [number for number in range(130) if file_system.has_backup(number)] == [
        0,
        1,
        3,
        5,
        7,
        9,
        25,
        27,
        49,
        81,
        125,
    ]


RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 9))).map(
    lambda found: joined((start, start + size) for start, size in found if size)
)


@given(RANGES, RANGES)
def test_ranges_are_sets_of_bytes(first: list, second: list) -> None:
    def as_set(ranges) -> set[int]:
        return {byte for start, end in ranges for byte in range(start, end)}

    assert as_set(overlapping(first, second)) == as_set(first) & as_set(second)
    assert as_set(without(first, second)) == as_set(first) - as_set(second)
