"""What is found of what was planted: `invoke bench --only planted`. On ext4 and on XFS, beside the peers on the PATH.

The peers see what a mounted file system shows: its files are laid out in a folder for them. A plant is found when
something is found where it lies; everything that is found elsewhere is a false alarm. Each second is one of wall clock.
"""

import json
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

from pipeline.residue.blocks import open_image
from pipeline.residue.locate import Locator
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import prove_raw
from tests.bench.rows import Row
from tests.bench.scan import alternation
from tests.planted.planter import Planted, Planter, installed, is_at
from tests.planted.plants import decoys, plants


@dataclass(frozen=True)
class Outcome:
    """How a tool did on one disk."""

    found: int
    false: int
    seconds: float


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return the rows: found, false alarms and seconds, for each file system and each peer."""
    rows = []
    for kind in ("ext4", "xfs"):
        if installed(kind):
            with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
                rows += rows_of(Planter(Path(folder), kind))
    return rows


def rows_of(planter: Planter) -> list[Row]:
    """Return the rows for one disk."""
    planted = planter.make(plants(), decoys())
    ours = search_blocks(planter.disk, planted)
    files = lay_out(planter.disk, planter.disk.with_suffix(".files"))
    theirs = {
        peer: search_files(command, files, planted) for peer, command in PEERS.items() if shutil.which(command[0])
    }
    rows = [row for peer, outcome in theirs.items() for row in compare(planter.kind, len(planted), ours, peer, outcome)]
    return rows or compare(planter.kind, len(planted), ours)


def compare(kind: str, planted: int, ours: Outcome, peer: str = "", theirs: Outcome | None = None) -> list[Row]:
    """Return the three rows of ours beside a peer."""
    versions = f"pyperscan {version('pyperscan')}"
    values = (
        (f"{kind}: plants found of {planted}", "plants", "found", str(planted)),
        (f"{kind}: false alarms", "places", "false", "0"),
        (f"{kind}: the whole search", "s", "seconds", ""),
    )
    return [
        Row(measure, unit, getattr(ours, name), peer, getattr(theirs, name, None), bound, 1, versions)
        for measure, unit, name, bound in values
    ]


def search_blocks(disk: Path, planted: list[Planted]) -> Outcome:
    """Search the disk as the proof does."""
    started = time.monotonic()
    with open_image(disk) as image:
        _, findings, _ = prove_raw(image, (), PATTERNS)
    seconds = time.monotonic() - started
    found = sum(
        any(finding.control == each.plant.control and is_at(finding, each) for finding in findings) for each in planted
    )
    false = sum(not any(is_at(finding, each) for each in planted) for finding in findings)
    return Outcome(found, false, seconds)


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


PEERS = {
    "detect-secrets": ("detect-secrets", "scan", "--all-files", "."),
    "ripgrep, the same patterns": ("rg", "-lauuU", "--no-unicode", "PATTERNS", "."),
}
"""How each peer is called in the folder of files. It prints their names, or JSON with them under `results`."""


def search_files(command: tuple[str, ...], folder: Path, planted: list[Planted]) -> Outcome:
    """Let a peer search the files."""
    started = time.monotonic()
    arguments = [alternation() if part == "PATTERNS" else part for part in command]
    told = subprocess.run(arguments, cwd=folder, capture_output=True, text=True, check=False).stdout
    seconds = time.monotonic() - started
    named = names_in(told)
    wanted = {each.path for each in planted if each.path}
    return Outcome(len(wanted & named), len(named - wanted), seconds)


def names_in(told: str) -> set[str]:
    """Return the files that a peer named, as paths of the disk."""
    names = json.loads(told)["results"] if told.startswith("{") else told.splitlines()
    return {f"/{os.path.normpath(name)}" for name in names}
