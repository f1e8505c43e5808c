"""Builds disks with plants on them, without mounting anything: GPT, a file system, swap, and an orphaned volume.

The file system lies in a partition, or in a logical volume of two segments whose second half lies before the first.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.report.evidence import Finding
from tests.planted import lvm
from tests.planted.plants import SYSTEM, Decoy, Plant

MIB = 1 << 20
START, SIZE = 2 * MIB, 320 * MIB
ROOM = SIZE + 20 * MIB
"""Of the first partition: a physical volume has extents that belong to nobody."""
SWAP, LVM, DISK = START + ROOM, START + ROOM + 16 * MIB, START + ROOM + 36 * MIB
TAKING = {"fragments": 0, "edited": 1}
"""What takes blocks, in an order in which nothing is written again."""
PAGE = 4096
BLOCK = 512 * 1024
HALF = SIZE // 2
SEGMENTS = ((42, HALF // lvm.EXTENT), (1, HALF // lvm.EXTENT))


@dataclass(frozen=True)
class Planted:
    """A plant, and where on the disk it lies now: a range in bytes, or the path of its file."""

    plant: Plant
    start: int = -1
    end: int = -1
    path: str = ""


def is_at(finding: Finding, planted: Planted) -> bool:
    """Whether a finding lies where a plant was put."""
    if planted.path:
        return f" {planted.path} " in f"{finding.place} {finding.detail} ".replace(",", " ").replace(";", " ")
    offset = re.search(r"offset (\d+)$", finding.place)
    return bool(offset) and planted.start <= int(offset[1]) < planted.end


def run(*command: str | Path, text: str = "") -> str:
    return subprocess.run(
        [str(part) for part in command], input=text, capture_output=True, text=True, check=True
    ).stdout


class Planter:
    """One disk. `ext4` and `xfs` differ in how the file system is made and asked."""

    gap, end = MIB, DISK - MIB
    """Where nothing lies before the first partition, and behind the last."""

    def __init__(self, folder: Path, kind: str, *, in_volume: bool = False) -> None:
        self.kind = kind
        self.in_volume = in_volume
        self.disk = folder / f"{kind}.raw"
        self.part = folder / f"{kind}.part"
        self.tree = folder / f"{kind}.tree"

    @property
    def name(self) -> str:
        """What it is, for people."""
        return f"{self.kind} in LVM" if self.in_volume else self.kind

    def place(self, offset: int) -> int:
        """Return where on the disk a place of the file system lies."""
        if not self.in_volume:
            return START + offset
        segment, within = divmod(offset, HALF)
        return START + lvm.DATA_START + SEGMENTS[segment][0] * lvm.EXTENT + within

    def place_of(self, content: bytes) -> int:
        """Return where on the disk something in the file system lies."""
        return self.place(self.part.read_bytes().index(content))

    def make(self, plants: list[Plant], decoys: list[Decoy]) -> list[Planted]:
        files = SYSTEM | {plant.where.split(":", 1)[1]: plant.content for plant in plants if ":" in plant.where}
        files |= {decoy.path: decoy.content for decoy in decoys}
        files |= {"/opt/app/slack.txt": b"short\n", "/opt/app/note": b"note\n", "/opt/app/edited": b"nothing\n"}
        files |= {"/opt/app/fragments": b"-" * 2 * PAGE} if self.kind == "xfs" else {}
        files |= {f"/pad/{number:03}": b"." * PAGE for number in range(64)}
        for path, content in files.items():
            target = self.tree / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
        for plant in plants:
            if plant.mode:
                (self.tree / plant.where.split(":", 1)[1][1:]).chmod(plant.mode)
        self.make_file_system()
        planted = list(self.plant_in_files(plants))
        self.assemble()
        return planted + list(self.plant_raw(plants))

    def make_file_system(self) -> None:
        with self.part.open("wb") as file:
            file.truncate(SIZE)
        if self.kind == "ext4":
            run("/sbin/mke2fs", "-q", "-t", "ext4", "-b", str(PAGE), "-d", self.tree, self.part)
        else:
            prototype = self.part.with_suffix(".proto")
            prototype.write_text("/dev/null\n0 0\nd--755 0 0\n" + "".join(self.prototype(self.tree)) + "$\n")
            run("/sbin/mkfs.xfs", "-q", "-f", "-p", prototype, self.part)

    def prototype(self, folder: Path) -> Iterator[str]:
        for path in sorted(folder.iterdir()):
            if path.is_dir():
                yield f"{path.name} d--755 0 0\n"
                yield from self.prototype(path)
                yield "$\n"
            else:
                mode = path.stat().st_mode
                yield f"{path.name} -{'u' if mode & 0o4000 else '-'}-{mode & 0o777:o} 0 0 {path}\n"

    def plant_in_files(self, plants: list[Plant]) -> Iterator[Planted]:
        for plant in sorted(plants, key=lambda plant: TAKING.get(plant.where.partition(":")[0], 2)):
            kind, _, path = plant.where.partition(":")
            if kind == "file":
                yield Planted(plant, path=path)
            elif kind in ("deleted", "truncated", "edited"):
                start = self.place(self.blocks_of(path)[0] * PAGE)
                getattr(self, f"leave_{kind}")(path)
                yield Planted(plant, start, start + len(plant.content))
            elif kind == "xattr":
                self.set_attribute(plant.content.decode())
                start = self.place_of(plant.content)
                yield Planted(plant, start, start + len(plant.content))
            elif kind == "fragments":
                yield self.plant_fragments(plant)

    def leave_deleted(self, path: str) -> None:
        """Remove a file as `rm` does. Of XFS its inode and its extents lose their owner."""
        if self.kind == "ext4":
            self.debugfs(f"rm {path}")
        else:
            self.write_inode(path, "core.nextents 0", "core.size 0", "core.nblocks 0")

    def leave_truncated(self, path: str) -> None:
        """Make a file empty, as `: > file` does."""
        if self.kind == "ext4":
            self.debugfs(f"punch {path} 0")
            self.debugfs(f"set_inode_field {path} size 0")
        else:
            self.write_inode(path, "core.nextents 0", "core.size 0", "core.nblocks 0")

    def leave_edited(self, path: str) -> None:
        """Change a file as `sed -i` does: a new file takes its name. Of XFS the old one's extents are a new file's."""
        if self.kind == "ext4":
            edited = self.tree / "edited"
            edited.write_bytes(b"nothing\n")
            for request in (
                f"write {edited} {path}.new",
                f"rm {path}",
                f"link {path}.new {path}",
                f"unlink {path}.new",
            ):
                self.debugfs(request)
        else:
            block = self.blocks_of("/opt/app/edited")[0]
            self.write_inode(path, f"u3.bmx[0].startblock {block}", "core.size 8")

    def set_attribute(self, text: str) -> None:
        """Give a file an extended attribute."""
        if self.kind == "ext4":
            self.debugfs(f"ea_set /opt/app/note user.token {text}")
        else:
            requests = (f"attr_set -v {len(text)} token", f'write a.sfattr.list[0].value "{text}"')
            self.ask_xfs(f"inode {self.inode_of('/opt/app/note')}", *requests)

    def plant_fragments(self, plant: Plant) -> Planted:
        """A file of single blocks that do not follow each other, with the plant across two of them."""
        content = b"-" * (PAGE - 15) + plant.content
        if self.kind == "ext4":
            for number in range(0, 64, 2):
                self.debugfs(f"rm /pad/{number:03}")
            source = self.tree / "fragments"
            source.write_bytes(content.ljust(6 * PAGE, b"-"))
            self.debugfs(f"write {source} /opt/app/fragments")
            blocks = self.blocks_of("/opt/app/fragments")
        else:
            first, second = self.blocks_of("/opt/app/fragments")
            extents = (
                f"u3.bmx[{number}].{field}" for number in (0, 1) for field in ("startoff", "startblock", "blockcount")
            )
            values = (0, second, 1, 1, first, 1)
            fields = [f"{extent} {value}" for extent, value in zip(extents, values, strict=True)]
            self.write_inode("/opt/app/fragments", *fields[:3], "core.nextents 2", *fields[3:])
            blocks = [second, first]
            for block, start in zip(blocks, (0, PAGE), strict=True):
                self.write(block * PAGE, content[start : start + PAGE], self.part)
        assert all(second != first + 1 for first, second in pairwise(blocks))
        return Planted(plant, path="/opt/app/fragments")

    def assemble(self) -> None:
        with self.disk.open("wb") as file:
            file.truncate(DISK)
        places = ((START, ROOM, "V" if self.in_volume else "L"), (SWAP, 16 * MIB, "S"), (LVM, 16 * MIB, "V"))
        lines = [f"start={start // 512}, size={size // 512}, type={kind}" for start, size, kind in places]
        run("/sbin/sfdisk", "-q", self.disk, text="\n".join(["label: gpt", "unit: sectors", *lines, ""]))
        for half in (0, HALF):
            to = self.place(half) // MIB
            blocks = (f"skip={half // MIB}", f"seek={to}", f"count={HALF // MIB}")
            run("dd", f"if={self.part}", f"of={self.disk}", "bs=1M", *blocks, "conv=notrunc,sparse", "status=none")
        if self.in_volume:
            self.write(START, lvm.physical_volume(ROOM, "system", {"root": SEGMENTS}))
        self.write(LVM, lvm.physical_volume(16 * MIB, "old", {}))
        swap = self.disk.with_suffix(".swap")
        with swap.open("wb") as file:
            file.truncate(16 * MIB)
        run("/sbin/mkswap", "-q", swap)
        self.write(SWAP, swap.read_bytes()[:PAGE])

    def plant_raw(self, plants: list[Plant]) -> Iterator[Planted]:
        free = self.free_places()
        swap, lvm = iter(range(SWAP + 10 * PAGE, LVM, 8 * PAGE)), iter(range(LVM + 2 * MIB, LVM + 16 * MIB, MIB))
        for plant in plants:
            if plant.where == "join":
                place = next(place for place in free if place % BLOCK == BLOCK - PAGE) + PAGE - 40
            elif plant.where in ("free", "swap", "lvm"):
                place = next({"free": free, "swap": swap, "lvm": lvm}[plant.where])
            elif plant.where in ("gap", "end"):
                place = self.gap if plant.where == "gap" else self.end
            elif plant.where == "slack":
                place = self.place(self.blocks_of("/opt/app/slack.txt")[0] * PAGE) + 1000
            elif plant.where == "journal":
                place = self.place(self.journal_block() * PAGE) + 100
            else:
                continue
            self.write(place, plant.content)
            yield Planted(plant, place, place + len(plant.content))

    def write(self, place: int, content: bytes, path: Path | None = None) -> None:
        with (path or self.disk).open("r+b") as file:
            file.seek(place)
            file.write(content)

    def free_places(self) -> Iterator[int]:
        """Places in free space, with room for a plant each."""
        if self.kind == "ext4":
            free = [int(number) for number in re.findall(r"\d+", self.debugfs("ffb 30000 20000").split(":")[1])]
        else:
            table = self.ask_xfs("freesp -d")
            runs = [
                tuple(map(int, line.split()))
                for line in table.splitlines()
                if re.fullmatch(r"\s*\d+\s+\d+\s+\d+", line)
            ]
            group, first, length = max(runs, key=lambda found: found[2])
            first += group * self.group_blocks()
            free = list(range(first, first + length))
        places = (self.place(block * PAGE) for block in free[200:])
        return iter([place for place in places if place % (16 * PAGE) == 15 * PAGE])

    def blocks_of(self, path: str) -> list[int]:
        """The blocks of a file, in order."""
        if self.kind == "ext4":
            return [int(number) for number in self.debugfs(f"blocks {path}").split()]
        found = re.findall(r"startblock (\d+) \((\d+)/(\d+)\) count (\d+)", self.ask_xfs(f"path {path}", "bmap"))
        return [
            int(group) * self.group_blocks() + int(block) + number
            for _, group, block, count in found
            for number in range(int(count))
        ]

    def write_inode(self, path: str, *fields: str) -> None:
        """Write fields of an inode of XFS, in steps between which it is damaged."""
        self.ask_xfs(f"inode {self.inode_of(path)}", *(f"write -d {field}" for field in fields))

    def inode_of(self, path: str) -> str:
        """The number of a file's inode on XFS."""
        return re.findall(r"\d+", self.ask_xfs(f"path {path}", "inode"))[0]

    def group_blocks(self) -> int:
        """The blocks of an allocation group of XFS."""
        return int(self.ask_xfs("sb 0", "p agblocks").split()[-1])

    def ask_xfs(self, *requests: str) -> str:
        options = [part for request in requests for part in ("-c", request)]
        return run("/sbin/xfs_db", "-x", *options, self.part)

    def journal_block(self) -> int:
        """A block in the middle of the journal."""
        if self.kind == "ext4":
            return int(self.debugfs("blocks <8>").split()[300])
        values = self.ask_xfs("sb 0", "p logstart agblklog agblocks")
        start, group_log, group_blocks = (int(number) for number in re.findall(r"= (\d+)", values))
        return (start >> group_log) * group_blocks + (start & (1 << group_log) - 1) + 300

    def debugfs(self, request: str) -> str:
        return run("/sbin/debugfs", "-w", "-R", request, self.part)


def installed(kind: str) -> bool:
    tools = (
        ["/sbin/sfdisk", "/sbin/mkswap", "/sbin/debugfs"]
        if kind == "ext4"
        else ["/sbin/sfdisk", "/sbin/mkfs.xfs", "/sbin/xfs_db"]
    )
    return all(shutil.which(tool) for tool in tools)
