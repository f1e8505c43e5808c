"""Where on a disk a match lies (R02): file, slack, free space, journal, swap, or outside all partitions."""

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property

from pipeline.errors import AssayError
from pipeline.residue.blocks import BlockSource
from pipeline.residue.fat import open_fat
from pipeline.residue.filesystems import Entry, FileSystem, Partition, SourceFile, read_partitions
from pipeline.residue.lvm import volumes_in
from pipeline.residue.vouch import PackageDatabase

LIBRARIES = {"ext": "pyfsext", "xfs": "pyfsxfs"}
NOT_UNDERSTOOD = {
    "luks": "encrypted data: what it is is not known",
    "lvm": "logical volumes that are not understood: they were searched raw, but their files cannot be named",
    "btrfs": "btrfs: it was searched raw, but its files cannot be named, and compressed ones not be seen",
}
"""What no pass may be given for, and why."""


class Space(StrEnum):
    """What a place on a disk is to the system that lives there."""

    FILE = "file"
    SLACK = "slack"
    DIRECTORY = "directory"
    FREE = "free space"
    METADATA = "metadata"
    NO_FILE = "free space or metadata"
    JOURNAL = "journal"
    SWAP = "swap"
    OUTSIDE = "outside the partitions"
    UNKNOWN = "not understood"


@dataclass(frozen=True)
class Place:
    """A place on a disk."""

    offset: int
    space: Space
    partition: str
    path: str = ""
    file_system: FileSystem | None = None
    entry: Entry | None = None

    def __str__(self) -> str:
        name = f"{self.space.value} {self.path}" if self.path else self.space.value
        where = "" if self.space is Space.OUTSIDE else f" of {self.partition}"
        return f"{name}{where}, offset {self.offset}"


class Locator:
    """Says of offsets what they are. Reads the partition table and a file system when it is first asked about them."""

    def __init__(self, source: BlockSource) -> None:
        self.file = SourceFile(source)
        self.problems: list[str] = []
        self._opened: dict[Partition, FileSystem | None] = {}
        self._packages: dict[int, PackageDatabase] = {}

    @cached_property
    def partitions(self) -> list[Partition]:
        """All ranges of the disk, in order; logical volumes come last."""
        return volumes_in(self.file, read_partitions(self.file))

    def file_systems(self) -> list[tuple[Partition, FileSystem]]:
        """Return every file system that is understood. What is not, or cannot be read, is in `problems`."""
        opened = [(partition, self._open(partition)) for partition in self.partitions]
        return [(partition, file_system) for partition, file_system in opened if file_system]

    def packages_of(self, file_system: FileSystem) -> PackageDatabase:
        """Return the package database on a file system: it is read, and files are held against it, once."""
        return self._packages.setdefault(id(file_system), PackageDatabase(file_system))

    def place_of(self, offset: int) -> Place:
        """Return what an offset of the disk is."""
        holding = [part for part in self.partitions if part.within(offset) is not None]
        if not holding:
            return Place(offset, Space.OUTSIDE, "")
        partition = holding[-1]
        if partition.content == "outside":
            return Place(offset, Space.OUTSIDE, "")
        if partition.content in ("swap", "unowned"):
            space = Space.SWAP if partition.content == "swap" else Space.NO_FILE
            return Place(offset, space, partition.name)
        file_system = self._open(partition)
        if file_system is None:
            return Place(offset, Space.UNKNOWN, f"{partition.name} ({partition.content})")
        return place_in(file_system, partition, offset)

    def _open(self, partition: Partition) -> FileSystem | None:
        """Return the file system of a partition with its files read, or None; what is wrong is noted once."""
        if partition not in self._opened:
            self._opened[partition] = None
            try:
                file_system = open_file_system(self.file, partition)
                self.problems += parts_missing(partition, file_system, self.file.get_size())
                if file_system:
                    file_system.entries  # noqa: B018 - reads them: a damaged one fails here
                    self.problems += [
                        f"{partition.name}: an entry of {folder} cannot be read" for folder in file_system.unread[:5]
                    ]
                self._opened[partition] = file_system
            except (OSError, RuntimeError, AssayError, ValueError) as problem:
                self.problems.append(f"{partition.name} ({partition.content}) cannot be read: {first_line(problem)}")
            kind, _, detail = partition.content.partition(" ")
            if kind in NOT_UNDERSTOOD:
                self.problems.append(f"{partition.name} holds {detail or ''} {NOT_UNDERSTOOD[kind]}".replace("  ", " "))
            elif partition.may_hide_files:
                self.problems.append(f"{partition.name} holds nothing that is known: its files cannot be named")
        return self._opened[partition]


def open_file_system(file: SourceFile, partition: Partition) -> FileSystem | None:
    """Return the file system of a partition, or None when it is not understood. Raises OSError when damaged."""
    part = file.joined(partition.runs)
    if partition.content == "vfat":
        return open_fat(part)
    if partition.content not in LIBRARIES:
        return None
    volume = importlib.import_module(LIBRARIES[partition.content]).volume()
    volume.open_file_object(part)
    return FileSystem(partition.content, part, volume)


def parts_missing(partition: Partition, file_system: FileSystem | None, disk_bytes: int) -> Iterator[str]:
    """Yield what says that an image was cut short: what is missing may hold anything."""
    if any(run.physical + run.size > disk_bytes for run in partition.runs):
        yield f"{partition.name} goes on behind the end of the disk: it was cut short"
    elif file_system and file_system.size_bytes > partition.size:
        yield f"the file system of {partition.name} goes on behind its end: it was cut short"


def place_in(file_system: FileSystem, partition: Partition, offset: int) -> Place:
    """Return what an offset of the disk is to the file system that it lies in."""
    within = partition.within(offset) or 0
    owner = file_system.owner(within)
    if owner is None:
        free = file_system.is_free(within)
        space = Space.NO_FILE if free is None else Space.FREE if free else Space.METADATA
        return Place(offset, space, partition.name)
    entry, place = owner
    if entry.path == "<journal>":
        space = Space.JOURNAL
    elif entry.is_directory:
        space = Space.DIRECTORY
    else:
        space = Space.FILE if place < entry.size else Space.SLACK
    path = "" if space is Space.JOURNAL else entry.path
    return Place(offset, space, partition.name, path, file_system, entry)


def first_line(problem: BaseException) -> str:
    """Return the first line of an error."""
    return (str(problem).splitlines() or [type(problem).__name__])[0][:200]
