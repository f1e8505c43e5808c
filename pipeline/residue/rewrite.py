"""A disk with zeros wherever nothing refers to it (S22): free blocks, slack, journals, dead names, gaps.

What the file systems' own structures say is held against what another library says of every file: when a byte would be
zeroed that a file holds, nothing is rewritten at all.
"""

import bisect
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

from pipeline.block_digest import require_readable
from pipeline.errors import DiskNotRewritable
from pipeline.residue.blocks import BlockSource
from pipeline.residue.dead import Dead, Range, joined, overlapping, without
from pipeline.residue.ext4 import Ext4, journal_ranges
from pipeline.residue.fat import Fat
from pipeline.residue.filesystems import SECTOR, Entry, FileSystem, Partition, SourceFile
from pipeline.residue.locate import Locator
from pipeline.residue.lvm import metadata_ranges
from pipeline.residue.xfs import Xfs

SWAP_HEADER = 4096
GPT_MAGIC = b"EFI PART"
PAGE = 4096
READERS: dict[str, type[Ext4] | type[Xfs] | type[Fat]] = {"ext": Ext4, "xfs": Xfs, "vfat": Fat}
"""What says of each kind of file system what nothing refers to."""
NUMBER = re.compile(rb"[0-9]{1,10}\n?")
"""What tools that change accounts leave of their lock files: the number of a process."""


@dataclass(frozen=True)
class Rewrite:
    """How a disk is rewritten."""

    ranges: tuple[Range, ...]
    """What becomes zeros, in order and apart, in bytes."""
    patches: tuple[tuple[int, bytes], ...]
    """What else changes, in order; none goes over the edge of a sector."""
    free_bytes: int
    names: int

    def apply(self, offset: int, data: bytes) -> bytes:
        """Return a piece of the disk, of whole sectors, as it is to be."""
        changed, end = bytearray(data), offset + len(data)
        first = bisect.bisect_right(self.ranges, offset, key=lambda found: found[1])
        for start, stop in overlapping([(offset, end)], islice(self.ranges, first, None)):
            changed[start - offset : stop - offset] = bytes(stop - start)
        for place, patch in self.patches[bisect.bisect_left(self.patches, (offset, b"")) :]:
            if place >= end:
                break
            changed[place - offset : place - offset + len(patch)] = patch
        return bytes(changed)


@dataclass(frozen=True)
class Overwrite:
    """What overwriting the free blocks on the guest reaches."""

    free: tuple[Range, ...]
    """The free blocks, in order and apart, in bytes."""
    readers: tuple[tuple[Partition, Ext4 | Xfs], ...]

    def is_structure(self, place: int) -> bool:
        """Say whether a free page is what is left of a folder or of a tree of blocks.

        The file that fills the disk needs such a tree itself, and folders go after it: names and numbers stay (S22).
        """
        for partition, reader in self.readers:
            within = partition.within(place)
            if within is not None:
                begin = within // reader.block_size * reader.block_size
                return reader.was_structure(reader.file.read_at(begin, reader.block_size))
        return False


def plan_rewrite(source: BlockSource, locator: Locator | None = None) -> Rewrite:
    """Return what of a disk becomes zeros. Raises DiskNotRewritable when anything on it is not understood.

    A `locator` of the same disk spares reading its file systems again.
    """
    locator, dead = locator or Locator(source), Dead()
    for partition in locator.partitions:
        try:
            dead.add(dead_in(locator, partition), partition.ranges_of)
        except (OSError, RuntimeError, ValueError, struct.error, IndexError) as problem:
            raise DiskNotRewritable(f"{partition.name} cannot be read: {type(problem).__name__}") from problem
    ranges = joined(dead.ranges)
    for partition, file_system in locator.file_systems():
        refuse_damage(partition, file_system, ranges)
    return Rewrite(tuple(ranges), tuple(sorted(dead.patches.items())), dead.free_bytes, dead.names)


def plan_overwrite(source: BlockSource) -> Overwrite:
    """Return the free blocks of a disk's file systems: what overwriting them on the guest turns into zeros, no more.

    Raises DiskNotRewritable for a file system that is not ext4, XFS or FAT, is not clean, or is not understood.
    """
    locator = Locator(source)
    free: list[Range] = []
    readers: list[tuple[Partition, Ext4 | Xfs]] = []
    for partition in locator.partitions:
        try:
            if partition.content in READERS:
                reader = READERS[partition.content](locator.file.joined(partition.runs))
                if not isinstance(reader, Fat):  # whose file that fills the disk needs no tree
                    readers.append((partition, reader))
                for start, end in reader.free_blocks():
                    free += partition.ranges_of(start, end)
            elif may_hold_files(partition):
                raise DiskNotRewritable(f"{partition.name} holds {partition.content}: what is free in it is not known")
        except (OSError, RuntimeError, ValueError, struct.error, IndexError) as problem:
            raise DiskNotRewritable(f"{partition.name} cannot be read: {type(problem).__name__}") from problem
    return Overwrite(tuple(joined(free)), tuple(readers))


def may_hold_files(partition: Partition) -> bool:
    """Say whether a range of the disk, of a kind that is not read here, is more than swap, firmware's, or nobody's."""
    if partition.content in ("outside", "swap", "unowned"):
        return False
    return partition.content != "unknown" or partition.may_hide_files


def dead_in(locator: Locator, partition: Partition) -> Dead:
    """Return what is dead in one range of the disk, from its beginning."""
    if partition.content in READERS:
        return dead_in_file_system(locator, partition)
    dead = Dead()
    if partition.content == "outside":
        for start, end in outside_ranges(locator.file, partition):
            dead.zero(start - partition.start, end - partition.start)
    elif partition.content == "swap":
        dead.zero(SWAP_HEADER, partition.size)
    elif partition.content == "unowned":
        kept = metadata_ranges(locator.file)
        for start, end in without([(partition.start, partition.start + partition.size)], kept):
            dead.free_bytes += dead.zero(start - partition.start, end - partition.start)
    elif may_hold_files(partition):
        raise DiskNotRewritable(f"{partition.name} holds {partition.content}: what is free in it is not known")
    return dead


def dead_in_file_system(locator: Locator, partition: Partition) -> Dead:
    """Return what is dead in a file system, in the slack of its files, and behind its end."""
    part = locator.file.joined(partition.runs)
    opened = dict(locator.file_systems()).get(partition)
    if opened is None:
        raise DiskNotRewritable(f"{partition.name} cannot be read: {'; '.join(locator.problems)}")
    reader = READERS[partition.content](part)
    dead = reader.dead()
    for entry in opened.entries:
        if entry.path == "<journal>" and partition.content == "ext":
            for start, end in journal_ranges(part, entry.extents):
                dead.zero(start, end)
        elif entry.is_file:
            for start, end in slack(entry):
                dead.zero(start, end)
    dead.zero(reader.size, partition.size)
    return dead


def slack(entry: Entry) -> Iterator[Range]:
    """Yield what lies behind the end of a file in its last block, and in blocks that were set aside for it."""
    for run in entry.extents:
        used = min(run.size, max(0, entry.size - run.logical))
        if used < run.size:
            yield run.physical + used, run.physical + run.size


def refuse_damage(partition: Partition, file_system: FileSystem, ranges: list[Range]) -> None:
    """Raise DiskNotRewritable when a range to be zeroed holds a part of a file, or of a folder but for its names."""
    held = joined(
        on_disk
        for entry in file_system.entries
        if entry.is_file and entry.path != "<journal>"
        for run in entry.extents
        if entry.size > run.logical
        for on_disk in partition.ranges_of(run.physical, run.physical + min(run.size, entry.size - run.logical))
    )
    for start, end in overlapping(held, ranges):
        place = file_system.owner(partition.within(start) or 0)
        whose = place[0].path if place else "a file"
        raise DiskNotRewritable(f"{end - start} bytes of {whose} of {partition.name} are marked free")


def outside_ranges(file: SourceFile, gap: Partition) -> Iterator[Range]:
    """Yield what of a gap outside the partitions becomes zeros: not partition tables, and no boot loader.

    Without a GUID partition table, boot loaders and tables lie in the gaps before partitions: only the last is zeroed.
    """
    if file.read_at(SECTOR, 8) != GPT_MAGIC:
        if gap.start and gap.start + gap.size >= file.get_size() - SECTOR:
            yield gap.start, gap.start + gap.size
        return
    (copy,) = struct.unpack("<Q", file.read_at(SECTOR + 32, 8))
    kept = [(0, SECTOR), *table_ranges(file, SECTOR), *table_ranges(file, copy * SECTOR)]
    yield from without([(gap.start, gap.start + gap.size)], joined(kept))


def table_ranges(file: SourceFile, place: int) -> Iterator[Range]:
    """Yield what a GUID partition table takes: its header and its entries. Raises DiskNotRewritable (UEFI 5.3)."""
    header = file.read_at(place, 92)
    if header[:8] != GPT_MAGIC:
        raise DiskNotRewritable("the copy of the partition table is damaged")
    (entries,) = struct.unpack_from("<Q", header, 72)
    count, size = struct.unpack_from("<II", header, 80)
    yield place, place + SECTOR
    yield entries * SECTOR, entries * SECTOR + -(-count * size // SECTOR) * SECTOR


def count_remains(source: BlockSource, rewrite: Rewrite) -> int:
    """Return how many bytes of a disk a rewrite would change: of one that was rewritten, none. Raises an AssayError."""
    count = 0
    for index, data in require_readable(source.read_many(list(source.indices()))):
        changed = rewrite.apply(index * source.block_size, data)
        if changed != data:
            count += sum(before != after for before, after in zip(data, changed, strict=True))
    return count


def find_remains(source: BlockSource, overwrite: Overwrite) -> Iterator[Range]:
    """Yield the free pages of a disk that hold content: neither zeros, nor names and numbers of a removed structure.

    Raises an AssayError for a block that cannot be read.
    """
    for index, data in require_readable(source.read_many(list(source.indices()))):
        offset = index * source.block_size
        first = bisect.bisect_right(overwrite.free, offset, key=lambda found: found[1])
        for start, end in overlapping([(offset, offset + len(data))], islice(overwrite.free, first, None)):
            for page in range(start, end, PAGE):
                written = data[page - offset : min(page + PAGE, end) - offset].strip(b"\0")
                if written and not NUMBER.fullmatch(written) and not overwrite.is_structure(page):
                    yield page, min(page + PAGE, end)


def rewritten_blocks(source: BlockSource, rewrite: Rewrite) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks that a rewrite changes, as they are to be. Raises an AssayError for one that cannot be read."""
    for index, data in require_readable(source.read_many(list(source.indices()))):
        changed = rewrite.apply(index * source.block_size, data)
        if changed != data:
            yield index, changed
