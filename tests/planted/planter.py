"""Builds disks with plants on them, without mounting anything: GPT, a file system, swap, and an orphaned volume."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from pipeline.report.evidence import Finding
from tests.planted.plants import Decoy, Plant

MIB = 1 << 20
START, SIZE = 2 * MIB, 320 * MIB
SWAP, LVM, DISK = START + SIZE, START + SIZE + 16 * MIB, START + SIZE + 36 * MIB
PAGE = 4096
BLOCK = 512 * 1024


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
    return bool(offset) and planted.start - 64 <= int(offset[1]) < planted.end


def run(*command: str | Path, text: str = "") -> str:
    return subprocess.run(
        [str(part) for part in command], input=text, capture_output=True, text=True, check=True
    ).stdout


class Planter:
    """One disk. `ext4` and `xfs` differ in how the file system is made and asked."""

    def __init__(self, folder: Path, kind: str) -> None:
        self.kind = kind
        self.disk = folder / f"{kind}.raw"
        self.part = folder / f"{kind}.part"
        self.tree = folder / f"{kind}.tree"

    def make(self, plants: list[Plant], decoys: list[Decoy]) -> list[Planted]:
        files = {plant.where.split(":", 1)[1]: plant.content for plant in plants if ":" in plant.where}
        files |= {decoy.path: decoy.content for decoy in decoys}
        files |= {"/opt/app/slack.txt": b"short\n", "/opt/app/note": b"note\n", "/opt/app/holder": b"held\n" * 100}
        files |= {f"/pad/{number:03}": b"." * PAGE for number in range(64)}
        for path, content in files.items():
            target = self.tree / path[1:]
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
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
                yield f"{path.name} ---644 0 0 {path}\n"

    def plant_in_files(self, plants: list[Plant]) -> Iterator[Planted]:
        for plant in plants:
            kind, _, path = plant.where.partition(":")
            if kind == "file":
                yield Planted(plant, path=path)
            elif kind == "deleted":
                start = START + self.blocks_of(path)[0] * PAGE
                if self.kind == "ext4":
                    self.debugfs(f"rm {path}")
                yield Planted(plant, start, start + len(plant.content), "" if self.kind == "ext4" else path)
            elif kind == "xattr" and self.kind == "ext4":
                self.debugfs(f"ea_set /opt/app/note user.token {plant.content.decode()}")
                yield Planted(plant, START, START + SIZE)
            elif kind == "fragments" and self.kind == "ext4":
                yield self.plant_fragments(plant)

    def plant_fragments(self, plant: Plant) -> Planted:
        """A file of single blocks that do not follow each other, with the plant across two of them."""
        for number in range(0, 64, 2):
            self.debugfs(f"rm /pad/{number:03}")
        source = self.tree / "fragments"
        source.write_bytes((b"-" * (PAGE - 15) + plant.content).ljust(6 * PAGE, b"-"))
        self.debugfs(f"write {source} /opt/app/fragments")
        blocks = self.blocks_of("/opt/app/fragments")
        assert all(second != first + 1 for first, second in pairwise(blocks))
        return Planted(plant, path="/opt/app/fragments")

    def assemble(self) -> None:
        with self.disk.open("wb") as file:
            file.truncate(DISK)
        places = ((START, SIZE, "L"), (SWAP, 16 * MIB, "S"), (LVM, 16 * MIB, "V"))
        lines = [f"start={start // 512}, size={size // 512}, type={kind}" for start, size, kind in places]
        run("/sbin/sfdisk", "-q", self.disk, text="\n".join(["label: gpt", "unit: sectors", *lines, ""]))
        run(
            "dd",
            f"if={self.part}",
            f"of={self.disk}",
            "bs=1M",
            f"seek={START // MIB}",
            "conv=notrunc,sparse",
            "status=none",
        )
        swap = self.disk.with_suffix(".swap")
        with swap.open("wb") as file:
            file.truncate(16 * MIB)
        run("/sbin/mkswap", "-q", swap)
        self.write(SWAP, swap.read_bytes()[:PAGE])
        self.write(LVM + 512, b"LABELONE" + bytes(24))

    def plant_raw(self, plants: list[Plant]) -> Iterator[Planted]:
        free = self.free_places()
        swap, lvm = iter(range(SWAP + 10 * PAGE, LVM, 8 * PAGE)), iter(range(LVM + MIB, LVM + 16 * MIB, MIB))
        for plant in plants:
            if plant.where == "join":
                place = next(place for place in free if place % BLOCK == BLOCK - PAGE) + PAGE - 40
            elif plant.where in ("free", "swap", "lvm"):
                place = next({"free": free, "swap": swap, "lvm": lvm}[plant.where])
            elif plant.where in ("gap", "end"):
                place = MIB if plant.where == "gap" else DISK - MIB
            elif plant.where == "slack":
                place = START + self.blocks_of("/opt/app/slack.txt")[0] * PAGE + 1000
            elif plant.where == "journal":
                place = START + self.journal_block() * PAGE + 100
            else:
                continue
            self.write(place, plant.content)
            yield Planted(plant, place, place + len(plant.content))

    def write(self, place: int, content: bytes) -> None:
        with self.disk.open("r+b") as file:
            file.seek(place)
            file.write(content)

    def free_places(self) -> Iterator[int]:
        """Places in free space, with room for a plant each."""
        if self.kind == "ext4":
            free = [int(number) for number in re.findall(r"\d+", self.debugfs("ffb 30000 20000").split(":")[1])]
        else:
            table = run("/sbin/xfs_db", "-r", "-c", "freesp -d", self.part)
            group_blocks = int(run("/sbin/xfs_db", "-r", "-c", "sb 0", "-c", "p agblocks", self.part).split()[-1])
            runs = [
                tuple(map(int, line.split()))
                for line in table.splitlines()
                if re.fullmatch(r"\s*\d+\s+\d+\s+\d+", line)
            ]
            group, first, length = max(runs, key=lambda found: found[2])
            free = list(range(group * group_blocks + first, group * group_blocks + first + length))
        chosen = [START + block * PAGE for block in free[200:] if (START + block * PAGE) % (16 * PAGE) == 15 * PAGE]
        return iter(chosen)

    def blocks_of(self, path: str) -> list[int]:
        """The blocks of a file, in order."""
        if self.kind == "ext4":
            return [int(number) for number in self.debugfs(f"blocks {path}").split()]
        inode = next(iter(re.findall(r"\d+", self.inode_of(path))))
        bmap = run("/sbin/xfs_db", "-r", "-c", f"inode {inode}", "-c", "bmap", self.part)
        found = re.findall(r"startblock (\d+) \((\d+)/(\d+)\) count (\d+)", bmap)
        group_blocks = int(run("/sbin/xfs_db", "-r", "-c", "sb 0", "-c", "p agblocks", self.part).split()[-1])
        return [
            int(group) * group_blocks + int(block) + number
            for _, group, block, count in found
            for number in range(int(count))
        ]

    def inode_of(self, path: str) -> str:
        return run("/sbin/xfs_db", "-r", "-c", f"path {path}", "-c", "inode", self.part)

    def journal_block(self) -> int:
        """A block in the middle of the journal."""
        if self.kind == "ext4":
            return int(self.debugfs("blocks <8>").split()[300])
        values = run("/sbin/xfs_db", "-r", "-c", "sb 0", "-c", "p logstart agblklog agblocks", self.part)
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
