"""What is found of what was planted: `invoke bench --only planted`. On ext4 and XFS, in partitions and in LVM.

The peers see what a mounted file system shows: its files are laid out in a folder for them. A plant is found when
something is found where it lies; everything that is found elsewhere is a false alarm. Each second is one of wall clock.
At last an image is built from a base image that is planted, and what is left of the plants is counted.
"""

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pipeline.residue.blocks import open_image
from pipeline.residue.locate import Locator
from tests.bench import planted_build
from tests.bench.peers import Peer, find_peers, names_in
from tests.bench.rows import Row
from tests.planted.planter import Planted, installed
from tests.planted.search import PlantedDisk, plant, search

DISKS = (("ext4", False), ("xfs", False), ("ext4", True), ("xfs", True))
"""The file system, and whether it lies in a logical volume. The peers are asked about the first alone."""


@dataclass(frozen=True)
class Outcome:
    """How a tool did on one disk."""

    found: int
    missed: int
    false: int
    seconds: float


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return the rows: found, false alarms and seconds, for each kind of disk and each peer."""
    rows: list[Row] = []
    for number, (kind, in_volume) in enumerate(DISKS):
        if installed(kind):
            with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
                planted = plant(Path(folder), kind, in_volume=in_volume)
                rows += rows_of(planted, find_peers(Path(folder)) if number == 0 else [])
    return rows + planted_build.measure(start_local_cloud)


def rows_of(planted: PlantedDisk, peers: list[Peer]) -> list[Row]:
    """Return the rows for one disk."""
    ours = search_blocks(planted)
    rows = compare(planted, ours)
    if peers:
        files = lay_out(planted.disk, planted.disk.with_suffix(".files"))
        for peer in peers:
            if peer.program:
                rows += compare(planted, ours, peer.name, search_files(peer, files, planted.planted))
            else:
                rows += compare(planted, ours, f"{peer.name}: not installed")
    return rows


def compare(disk: PlantedDisk, ours: Outcome, peer: str = "", theirs: Outcome | None = None) -> list[Row]:
    """Return the rows of ours, alone or beside a peer."""
    versions = f"pyperscan {version('pyperscan')}"
    in_files = sum(bool(each.path) for each in disk.planted)
    of = f"{len(disk.planted)}, {in_files} of them in files"
    values = (
        (f"{disk.name}: plants found of {of}", "plants", "found", str(len(disk.planted))),
        (f"{disk.name}: plants missed", "plants", "missed", "0"),
        (f"{disk.name}: false alarms", "places", "false", "0"),
        (f"{disk.name}: the whole search", "s", "seconds", ""),
    )
    return [
        Row(measure, unit, getattr(ours, name), peer, getattr(theirs, name, None), bound, 1, versions)
        for measure, unit, name, bound in values
    ]


def search_blocks(planted: PlantedDisk) -> Outcome:
    """Search the disk as the proof does."""
    started = time.monotonic()
    searched = search(planted)
    seconds = time.monotonic() - started
    return Outcome(len(planted.planted) - len(searched.missed), len(searched.missed), len(searched.false), seconds)


def lay_out(disk: Path, folder: Path) -> Path:
    """Write the files of a disk into a folder, as a mounted file system would show them."""
    with open_image(disk) as image:
        for _, file_system in Locator(image).file_systems():
            for entry in file_system.entries:
                if entry.is_file and entry.path.startswith("/"):
                    target = folder / entry.path[1:]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(b"".join(file_system.read(entry)))
    return folder


def search_files(peer: Peer, folder: Path, planted: list[Planted]) -> Outcome:
    """Let a peer search the files."""
    started = time.monotonic()
    told = subprocess.run([str(peer.program), *peer.command], cwd=folder, capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    named = names_in(told.stdout, folder)
    wanted = {each.path for each in planted if each.path}
    found = sum(each.path in named for each in planted if each.path)
    return Outcome(found, len(planted) - found, len(named - wanted), seconds)
