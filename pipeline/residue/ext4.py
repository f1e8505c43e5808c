"""What an ext4 file system no longer refers to: free blocks, unused inodes, unwritten extents, the journal, dead names.

Read from the structures that the kernel's documentation describes (Documentation/filesystems/ext4). Whatever is not
understood for certain is refused: zeroing it could destroy a file.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

from pipeline.errors import DiskNotRewritable
from pipeline.residue.crc32c import START, crc32c
from pipeline.residue.dead import Dead, Range, joined, without
from pipeline.residue.filesystems import Extent, SourceFile

KNOWN_INCOMPATIBLE = 0x3E7C2
"""File types, extents, 64 bit, multiple mount protection, flex_bg, EA inodes, checksum seed, large directories,
inline data, encryption, casefold. Not: recovery needed, an external journal, meta_bg."""
KNOWN_READ_ONLY = 0x357B
"""All but bigalloc, verity (it keeps data behind the end of files), and orphans in the orphan file."""
NEEDS_RECOVERY, ORPHANS_PRESENT = 0x4, 0x10000
CSUM_SEED, METADATA_CSUM, SPARSE_SUPER = 0x2000, 0x400, 0x1
INODE_UNINIT, BLOCK_UNINIT = 0x1, 0x2
INDEXED, EXTENTS, NOT_PLAIN_DIRECTORY = 0x1000, 0x80000, 0x10000000 | 0x40000000 | 0x800
"""Flags of inodes. Directories whose entries are inline, casefolded or encrypted have another form."""
DIRECTORY, REGULAR = 0x4, 0x8
JOURNAL_MAGIC, EXTENTS_MAGIC = 0xC03B3998, 0xF30A
TAIL_BYTES = 12
"""Of a block of a directory with checksums: an entry of no name with the checksum."""


@dataclass(frozen=True)
class Group:
    """A group of blocks: where its bitmaps and its inodes are, in blocks."""

    number: int
    block_bitmap: int
    inode_bitmap: int
    inode_table: int
    flags: int


@dataclass(frozen=True)
class Inode:
    """An inode that is in use."""

    number: int
    mode: int
    flags: int
    generation: int
    block: bytes
    """The 60 bytes that hold the root of the extent tree."""


@dataclass(frozen=True)
class Run:
    """An extent of a file, in blocks."""

    logical: int
    physical: int
    count: int
    unwritten: bool


class Ext4:
    """An ext4 file system that was unmounted cleanly. Offsets are in bytes from its beginning."""

    def __init__(self, file: SourceFile) -> None:
        """Read the superblock. Raises DiskNotRewritable for what is not clean, or not understood."""
        self.file = file
        block = self.superblock = file.read_at(1024, 1024).ljust(1024, b"\0")
        self.incompatible, self.read_only = struct.unpack_from("<II", block, 96)
        self.refuse_unknown()
        self.inodes, blocks_low = struct.unpack_from("<II", block, 0)
        blocks_high = struct.unpack_from("<I", block, 0x150)[0] if self.incompatible & 0x80 else 0
        self.blocks = blocks_high << 32 | blocks_low
        self.first_block, log_size = struct.unpack_from("<II", block, 20)
        self.block_size = 1024 << min(log_size, 6)
        self.blocks_per_group, _, self.inodes_per_group = struct.unpack_from("<III", block, 32)
        (self.inode_size,) = struct.unpack_from("<H", block, 88)
        self.descriptor_size = struct.unpack_from("<H", block, 254)[0] if self.incompatible & 0x80 else 32
        sizes = (self.blocks_per_group, self.inodes_per_group, self.blocks)
        if not all(sizes) or self.inode_size < 128 or self.descriptor_size < 32 or log_size > 5:
            raise DiskNotRewritable("the superblock of ext4 makes no sense")
        if self.blocks * self.block_size > file.get_size():
            raise DiskNotRewritable("the ext4 file system is larger than its partition")

    def refuse_unknown(self) -> None:
        """Raise DiskNotRewritable unless the file system is clean and all of its features are known here."""
        (state,) = struct.unpack_from("<H", self.superblock, 58)
        (last_orphan,) = struct.unpack_from("<I", self.superblock, 0xE8)
        signs = {
            "its journal wants to be replayed": self.incompatible & NEEDS_RECOVERY,
            "it is not marked as clean": not state & 1,
            "deleted files are still held open": last_orphan or self.read_only & ORPHANS_PRESENT,
        }
        if found := [sign for sign, is_there in signs.items() if is_there]:
            raise DiskNotRewritable(f"the ext4 file system was not unmounted cleanly: {', '.join(found)}")
        unknown = self.incompatible & ~KNOWN_INCOMPATIBLE, self.read_only & ~KNOWN_READ_ONLY
        if any(unknown):
            raise DiskNotRewritable(f"ext4 features that are not known: {unknown[0]:#x}, {unknown[1]:#x}")

    @property
    def size(self) -> int:
        """The bytes that the file system takes of its partition."""
        return int(self.blocks * self.block_size)

    @cached_property
    def groups(self) -> tuple[Group, ...]:
        """All groups, from the descriptors behind the first superblock."""
        count = -(-(self.blocks - self.first_block) // self.blocks_per_group)
        size = self.descriptor_size
        table = self.file.read_at((self.first_block + 1) * self.block_size, count * size)
        if len(table) != count * size:
            raise DiskNotRewritable("the group descriptors of ext4 are cut short")
        return tuple(read_group(number, table[number * size : (number + 1) * size]) for number in range(count))

    @cached_property
    def fixed_ranges(self) -> list[Range]:
        """What bitmaps, inode tables, superblocks and descriptors take, wherever they lie."""
        table_blocks = -(-self.inodes_per_group * self.inode_size // self.block_size)
        fixed = [(0, 1)]
        for group in self.groups:
            fixed += [(block, block + 1) for block in (group.block_bitmap, group.inode_bitmap)]
            fixed.append((group.inode_table, group.inode_table + table_blocks))
            if self.has_backup(group.number):
                first = self.first_block + group.number * self.blocks_per_group
                fixed.append((first, first + 1 + self.descriptor_blocks))
        return joined((start * self.block_size, end * self.block_size) for start, end in fixed)

    @property
    def descriptor_blocks(self) -> int:
        """How many blocks the group descriptors take, with what is reserved for their growth."""
        (reserved,) = struct.unpack_from("<H", self.superblock, 0xCE)
        return int(-(-len(self.groups) * self.descriptor_size // self.block_size) + reserved)

    def has_backup(self, number: int) -> bool:
        """Say whether a group begins with a copy of the superblock: in doubt, yes."""
        return not self.read_only & SPARSE_SUPER or number <= 1 or any(is_power(number, base) for base in (3, 5, 7))

    def dead(self) -> Dead:
        """Return everything that nothing refers to. Raises DiskNotRewritable when a structure makes no sense."""
        dead = Dead()
        dead.free_bytes = sum(dead.zero(start, end) for start, end in self.free_blocks())
        for start, end in self.unused_inodes():
            dead.zero(start, end)
        for inode in self.used_inodes():
            runs = list(self.runs(inode))
            for run in runs:
                if run.unwritten:
                    dead.zero(run.physical * self.block_size, (run.physical + run.count) * self.block_size)
            if inode.mode >> 12 == DIRECTORY and inode.flags & EXTENTS and not inode.flags & NOT_PLAIN_DIRECTORY:
                self.clean_directory(inode, runs, dead)
        return dead

    def free_blocks(self) -> Iterator[Range]:
        """Yield what is free, in bytes: of a group that was never used, no bitmap says what its structures take."""
        return without(joined(self.free_ranges()), self.fixed_ranges)

    def free_ranges(self) -> Iterator[Range]:
        """Yield the ranges of blocks that are marked free, in bytes."""
        for group in self.groups:
            first = self.first_block + group.number * self.blocks_per_group
            count = min(self.blocks_per_group, self.blocks - first)
            bits = "0" * count if group.flags & BLOCK_UNINIT else self.bitmap(group.block_bitmap, count)
            for run in re.finditer("0+", bits):
                yield (first + run.start()) * self.block_size, (first + run.end()) * self.block_size

    def was_structure(self, block: bytes) -> bool:
        """Say whether a block that is free now was one of a folder, or of the tree of a file's extents."""
        checked = TAIL_BYTES * bool(self.read_only & METADATA_CSUM)
        magic, _, most, depth = struct.unpack_from("<HHHH", block)
        if magic == EXTENTS_MAGIC:
            return most == len(block) // 12 - 1 and all(
                place < self.blocks for place in extent_places(block[12 : 12 * (most + 1)], depth)
            )
        try:
            return not any(block[start:end].strip(b"\0") for start, end in dead_names(block, len(block) - checked))
        except DiskNotRewritable:
            return False

    def bitmap(self, block: int, count: int) -> str:
        """Return a bitmap as a text of 0 and 1."""
        data = self.file.read_at(block * self.block_size, -(-count // 8))
        if len(data) < -(-count // 8):
            raise DiskNotRewritable("a bitmap of ext4 lies outside of its partition")
        return format(int.from_bytes(data, "little"), "b").zfill(len(data) * 8)[::-1][:count]

    def inodes_in_use(self, group: Group) -> str:
        """Return the inodes of a group as a text of 0 and 1."""
        unused = group.flags & INODE_UNINIT
        return "0" * self.inodes_per_group if unused else self.bitmap(group.inode_bitmap, self.inodes_per_group)

    def unused_inodes(self) -> Iterator[Range]:
        """Yield the ranges of inodes that are not in use: they keep targets of links and attributes of the deleted."""
        for group in self.groups:
            table = group.inode_table * self.block_size
            for run in re.finditer("0+", self.inodes_in_use(group)):
                yield table + run.start() * self.inode_size, table + run.end() * self.inode_size

    def used_inodes(self) -> Iterator[Inode]:
        """Yield the inodes that are in use."""
        for group in self.groups:
            table = group.inode_table * self.block_size
            for run in re.finditer("1+", self.inodes_in_use(group)):
                size = (run.end() - run.start()) * self.inode_size
                data = self.file.read_at(table + run.start() * self.inode_size, size)
                first = group.number * self.inodes_per_group + run.start() + 1
                for number, place in enumerate(range(0, size, self.inode_size), first):
                    yield read_inode(number, data[place : place + 128])

    def runs(self, inode: Inode) -> Iterator[Run]:
        """Yield the extents of a file; none where it has no extent tree."""
        if inode.flags & EXTENTS and inode.mode >> 12 in (DIRECTORY, REGULAR):
            yield from self.extent_tree(inode.block, 5)

    def extent_tree(self, node: bytes, depth: int) -> Iterator[Run]:
        """Yield the extents of a node of the tree and of all below."""
        magic, entries, _, level = struct.unpack_from("<HHHH", node)
        if magic != EXTENTS_MAGIC or level > depth or 12 * (entries + 1) > len(node):
            raise DiskNotRewritable("an extent tree of ext4 makes no sense")
        for number in range(entries):
            first, second, third, fourth = struct.unpack_from("<IHHI", node, 12 * (number + 1))
            if level == 0:
                unwritten = second > 0x8000
                yield Run(first, third << 32 | fourth, second - 0x8000 if unwritten else second, unwritten)
            else:
                below_low, below_high = struct.unpack_from("<IH", node, 12 * (number + 1) + 4)
                below = self.file.read_at((below_high << 32 | below_low) * self.block_size, self.block_size)
                yield from self.extent_tree(below.ljust(12, b"\0"), level - 1)

    def clean_directory(self, inode: Inode, runs: list[Run], dead: Dead) -> None:
        """Mark what is left of removed names in the blocks of a directory."""
        for run in runs:
            if run.unwritten:
                continue
            data = self.file.read_at(run.physical * self.block_size, run.count * self.block_size)
            for number in range(run.count):
                place = (run.physical + number) * self.block_size
                block = data[number * self.block_size : (number + 1) * self.block_size]
                if inode.flags & INDEXED and run.logical + number == 0:
                    dead.clean(place, unused_index(block))
                else:
                    self.clean_leaf(inode, place, block, dead)

    def clean_leaf(self, inode: Inode, place: int, block: bytes, dead: Dead) -> None:
        """Mark the removed names of one block, and mend its checksum, which must have been right before."""
        with_checksum = bool(self.read_only & METADATA_CSUM)
        if struct.unpack_from("<IH", block) == (0, len(block)):
            return  # a node of the index of a large directory: hashes, no names
        gaps = [
            (start, end)
            for start, end in dead_names(block, len(block) - TAIL_BYTES * with_checksum)
            if any(block[start:end])
        ]
        if not gaps:
            return
        dead.names += dead.clean(place, gaps)
        if with_checksum:
            if self.leaf_checksum(inode, block) != block[-4:]:
                raise DiskNotRewritable(f"the checksum of directory {inode.number} is wrong")
            cleaned = bytearray(block)
            for start, end in gaps:
                cleaned[start:end] = bytes(end - start)
            dead.patches[place + len(block) - 4] = self.leaf_checksum(inode, bytes(cleaned))

    def leaf_checksum(self, inode: Inode, block: bytes) -> bytes:
        """Return the checksum of a block of a directory: over the file system, the inode, and all but the tail."""
        (stored,) = struct.unpack_from("<I", self.superblock, 0x270)
        seed = stored if self.incompatible & CSUM_SEED else crc32c(self.superblock[104:120], START)
        seed = crc32c(struct.pack("<II", inode.number, inode.generation), seed)
        return struct.pack("<I", crc32c(block[:-TAIL_BYTES], seed))


def extent_places(records: bytes, depth: int) -> Iterator[int]:
    """Yield where the records of a node of an extent tree point to, those too that it no longer counts."""
    for _, second, third, fourth in struct.iter_unpack("<IHHI", records):
        yield (fourth & 0xFFFF) << 32 | third << 16 | second if depth else third << 32 | fourth


def read_group(number: int, descriptor: bytes) -> Group:
    """Return a group from its descriptor."""
    low = struct.unpack_from("<III", descriptor)
    high = struct.unpack_from("<III", descriptor, 32) if len(descriptor) >= 64 else (0, 0, 0)
    block_bitmap, inode_bitmap, table = (upper << 32 | lower for lower, upper in zip(low, high, strict=True))
    return Group(number, block_bitmap, inode_bitmap, table, flags=struct.unpack_from("<H", descriptor, 18)[0])


def read_inode(number: int, raw: bytes) -> Inode:
    """Return an inode from its first 128 bytes."""
    if len(raw) < 128:
        raise DiskNotRewritable("the inodes of ext4 are cut short")
    (mode,) = struct.unpack_from("<H", raw)
    (flags,) = struct.unpack_from("<I", raw, 32)
    (generation,) = struct.unpack_from("<I", raw, 100)
    return Inode(number, mode, flags, generation, raw[40:100])


def dead_names(block: bytes, end: int) -> Iterator[Range]:
    """Yield the ranges of a directory's block that no entry's name takes."""
    place = 0
    while place < end:
        inode, length, name_length = struct.unpack_from("<IHB", block, place)
        used = 8 + (name_length if inode else 0)
        if length < 8 or length % 4 or used > length or place + length > end:
            raise DiskNotRewritable("a directory of ext4 makes no sense")
        if used < length:
            yield place + used, place + length
        place += length


def unused_index(block: bytes) -> list[Range]:
    """Return what the root of a directory's index does not use: names from before it had an index, and old hashes.

    Its checksum covers only the entries that count.
    """
    if len(block) < 40:
        raise DiskNotRewritable("a directory of ext4 is cut short")
    limit, count = struct.unpack_from("<HH", block, 32)
    start, end = 32 + 8 * count, 32 + 8 * limit
    if not 1 <= count <= limit or end > len(block):
        raise DiskNotRewritable("the index of a directory of ext4 makes no sense")
    return [(start, end)] if any(block[start:end]) else []


def journal_ranges(file: SourceFile, extents: tuple[Extent, ...]) -> Iterator[Range]:
    """Yield the journal but for its superblock. Raises DiskNotRewritable when it is still to be replayed."""
    for number, run in enumerate(extents):
        head = 0
        if number == 0:
            magic, _, _, head = struct.unpack_from(">IIII", file.read_at(run.physical, 16).ljust(16, b"\0"))
            (start,) = struct.unpack_from(">I", file.read_at(run.physical + 28, 4).ljust(4, b"\1"))
            if magic != JOURNAL_MAGIC or start or not 1024 <= head <= 65536:
                raise DiskNotRewritable("the journal of ext4 is not empty")
        yield run.physical + head, run.physical + run.size


def is_power(number: int, base: int) -> bool:
    """Say whether a number is a power of a base."""
    power = base
    while power < number:
        power *= base
    return power == number
