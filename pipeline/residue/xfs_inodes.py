"""What the inodes, folders and attributes of an XFS file system still hold of what was deleted.

Read from the structures of XFS Algorithms & Data Structures (chapters Inodes, Directories, Extended Attributes). Where
bytes of a structure with a checksum become zeros, its checksum must have been right before, and is made anew.
"""

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pipeline.errors import DiskNotRewritable
from pipeline.residue.crc32c import START, crc32c
from pipeline.residue.dead import Dead, Range, joined, without
from pipeline.residue.filesystems import SourceFile

CHUNK = 64
"""Inodes are made so many at once; a bit of a mask of 16 is for four of them."""
LOCAL, EXTENTS, TREE = 1, 2, 3
"""Where a fork keeps what it holds: in the inode, in extents that the inode lists, or in those of a tree."""
DIRECTORY, REGULAR, LINK = 0o4, 0o10, 0o12
MANY_EXTENTS = 0x10
BLOCK_FOLDER, DATA_FOLDER, FREE_INDEX = (b"XD2B", b"XDB3"), (b"XD2D", b"XDD3"), (b"XD2F", b"XDF3")
INDEXES = {b"\xfe\xbe": 16, b"\xd2\xf1": 16, b"\xd2\xff": 16, b"\x3e\xbe": 64, b"\x3d\xf1": 64, b"\x3d\xff": 64}
"""Nodes and leaves of indexes of folders and attributes, without checksums and with, and the bytes of their headers."""
ONLY_LEAF = (b"\xd2\xf1", b"\x3d\xf1")
UNUSED = 0xFFFF
ATTRIBUTES, ATTRIBUTES_WITH_CHECKSUM = b"\xfb\xee", b"\x3b\xee"
ATTRIBUTE_LOCAL = 1
REMOTE_VALUE, REMOTE_LINK = b"XARM", b"XSLM"
REMOTE_HEADER = 56
DEEPEST = 9


@dataclass(frozen=True)
class Shape:
    """What the superblock says of the sizes that matter here."""

    block_size: int
    folder_block_size: int
    inode_size: int
    has_checksums: bool
    has_file_types: bool
    place: Callable[[int], int]
    """Where a block address lies, both in bytes."""


@dataclass(frozen=True)
class Run:
    """An extent of a fork, in blocks."""

    logical: int
    address: int
    count: int
    unwritten: bool


@dataclass(frozen=True)
class Fork:
    """The part of an inode that says where its content or its attributes are."""

    format: int
    begin: int
    size: int
    """Where in the inode it lies, in bytes."""
    extents: int


class Inodes:
    """Cleans the inodes of one file system, and what they refer to."""

    def __init__(self, file: SourceFile, shape: Shape, dead: Dead) -> None:
        """Take what is to be read, and where what is dead is noted."""
        self.file = file
        self.shape = shape
        self.dead = dead

    def clean_chunk(self, place: int, free: int, holes: int) -> None:
        """Clean the inodes of one chunk, which begins at a place; `free` and `holes` are masks of the tree's record."""
        size = self.shape.inode_size
        data = self.file.read_at(place, CHUNK * size)
        for number in range(CHUNK):
            if not holes >> number // 4 & 1:
                self.clean_inode(
                    place + number * size, data[number * size : (number + 1) * size], bool(free >> number & 1)
                )

    def clean_inode(self, place: int, inode: bytes, is_free: bool) -> None:
        """Mark what an inode does not use of itself, and clean what it refers to."""
        if inode[:2] != b"IN" or len(inode) < self.shape.inode_size:
            raise DiskNotRewritable("an inode of XFS makes no sense")
        core = 176 if inode[4] >= 3 else 100
        if is_free:
            self.clean(place, inode, [(core, len(inode))], 100 if inode[4] >= 3 else None)
            return
        kind = struct.unpack_from(">H", inode, 2)[0] >> 12
        data, attributes = forks_of(inode, core)
        unused = [*unused_in(inode, data, struct.unpack_from(">Q", inode, 56)[0])]
        if attributes:
            (taken,) = struct.unpack_from(">H", inode, attributes.begin)
            unused += unused_in(inode, attributes, taken)
        self.clean(place, inode, unused, 100 if inode[4] >= 3 else None)
        runs = list(self.runs_of(inode, data))
        for run in runs:
            if run.unwritten and kind == REGULAR:
                self.dead.zero(self.at(run.address), self.at(run.address) + run.count * self.shape.block_size)
        if kind == DIRECTORY and data.format != LOCAL:
            self.clean_folder(runs)
        elif kind == LINK and data.format != LOCAL:
            self.clean_blocks(runs, remote_remains)
        if attributes and attributes.format != LOCAL:
            self.clean_blocks(list(self.runs_of(inode, attributes)), attribute_remains)

    def at(self, address: int) -> int:
        """Return where a block lies, in bytes."""
        return self.shape.place(address * self.shape.block_size)

    def clean(self, place: int, block: bytes, unused: list[Range], checksum_at: int | None) -> None:
        """Mark ranges of a structure, and mend its checksum where it has one."""
        gaps = [(start, end) for start, end in unused if any(block[start:end])]
        if not gaps:
            return
        self.dead.clean(place, gaps)
        if checksum_at is not None:
            self.dead.patches[place + checksum_at] = mended_checksum(block, gaps, checksum_at)

    def runs_of(self, inode: bytes, fork: Fork) -> Iterator[Run]:
        """Yield the extents of a fork."""
        if fork.format == EXTENTS:
            yield from read_runs(inode[fork.begin : fork.begin + 16 * fork.extents])
        elif fork.format == TREE:
            root = inode[fork.begin : fork.begin + fork.size]
            level, count = struct.unpack_from(">HH", root)
            yield from self.below(root[4:], level, count)

    def below(self, node: bytes, level: int, count: int) -> Iterator[Run]:
        """Yield the extents below a node of a tree, given from its keys on; addresses are behind the room for keys."""
        most = len(node) // 16
        if not 1 <= level <= DEEPEST or count > most:
            raise DiskNotRewritable("a tree of extents of XFS makes no sense")
        for address in struct.unpack_from(f">{count}Q", node, 8 * most):
            block = self.file.read_at(self.at(address), self.shape.block_size)
            header = {b"BMAP": 24, b"BMA3": 72}.get(block[:4])
            if header is None or struct.unpack_from(">H", block, 4)[0] != level - 1:
                raise DiskNotRewritable("a tree of extents of XFS makes no sense")
            (records,) = struct.unpack_from(">H", block, 6)
            if level > 1:
                yield from self.below(block[header:], level - 1, records)
            else:
                yield from read_runs(block[header : header + 16 * records])

    def clean_folder(self, runs: list[Run]) -> None:
        """Mark what is left in the blocks of a folder. Such a block may be of several, that lie apart."""
        size, block_size = self.shape.folder_block_size, self.shape.block_size
        places = [self.at(run.address + number) for run in runs for number in range(run.count)]
        for first in range(0, len(places), size // block_size):
            group = places[first : first + size // block_size]
            block = b"".join(self.file.read_at(place, block_size) for place in group)
            is_index = block[8:10] in INDEXES
            remains = index_remains(block) if is_index else name_remains(block, self.shape)
            gaps = [gap for gap in remains if any(block[gap[0] : gap[1]])]
            if not gaps:
                continue
            self.dead.names += not is_index
            for start, end in gaps:
                for number in range(start // block_size, -(-end // block_size)):
                    low, high = max(start, number * block_size), min(end, (number + 1) * block_size)
                    self.dead.zero(group[number] + low % block_size, group[number] + low % block_size + high - low)
            if self.shape.has_checksums:
                checksum_at = 12 if is_index else 4
                self.dead.patches[group[0] + checksum_at] = mended_checksum(block, gaps, checksum_at)

    def clean_blocks(self, runs: list[Run], remains: Callable[[bytes], list[Range]]) -> None:
        """Mark what single blocks of attributes or links do not use."""
        for run in runs:
            for number in range(run.count):
                place = self.at(run.address + number)
                block = self.file.read_at(place, self.shape.block_size)
                self.clean(place, block, remains(block), 12 if self.shape.has_checksums else None)


def forks_of(inode: bytes, core: int) -> tuple[Fork, Fork | None]:
    """Return where an inode keeps what its content is, and what its attributes are, if it has any."""
    extents, attribute_extents = struct.unpack_from(">IH", inode, 76)
    if inode[4] >= 3 and struct.unpack_from(">Q", inode, 120)[0] & MANY_EXTENTS:
        (extents,), (attribute_extents,) = struct.unpack_from(">Q", inode, 24), struct.unpack_from(">I", inode, 76)
    split = core + 8 * inode[82] if inode[82] else len(inode)
    if split > len(inode):
        raise DiskNotRewritable("an inode of XFS makes no sense")
    data = Fork(inode[5], core, split - core, extents)
    return data, Fork(inode[83], split, len(inode) - split, attribute_extents) if split < len(inode) else None


def unused_in(inode: bytes, fork: Fork, local_size: int) -> Iterator[Range]:
    """Yield what a fork does not use of its room in the inode. Trees have no names in theirs."""
    used = {LOCAL: local_size, EXTENTS: 16 * fork.extents}.get(fork.format, fork.size)
    if used > fork.size or fork.begin + fork.size > len(inode):
        raise DiskNotRewritable("an inode of XFS makes no sense")
    yield fork.begin + used, fork.begin + fork.size


def read_runs(records: bytes) -> Iterator[Run]:
    """Yield extents from their packed form: a flag, 54 bits, 52 bits and 21 bits."""
    for high, low in struct.iter_unpack(">QQ", records):
        yield Run(high >> 9 & (1 << 54) - 1, (high & 0x1FF) << 43 | low >> 21, low & (1 << 21) - 1, bool(high >> 63))


def name_remains(block: bytes, shape: Shape) -> Iterator[Range]:
    """Yield what of a block of names no entry's name takes, or of one that lists free room."""
    magic = block[:4]
    if magic in FREE_INDEX:
        (count,) = struct.unpack_from(">I", block, 52 if shape.has_checksums else 8)
        yield (64 if shape.has_checksums else 16) + 2 * count, len(block)
        return
    if magic not in (*BLOCK_FOLDER, *DATA_FOLDER):
        raise DiskNotRewritable("a folder of XFS makes no sense")
    place, end = 64 if shape.has_checksums else 16, len(block)
    if magic in BLOCK_FOLDER:
        end -= 8 + 8 * struct.unpack_from(">I", block, end - 8)[0]
    while place < end:
        tag, length = struct.unpack_from(">HH", block, place)
        if tag == UNUSED:
            used = 4
        else:
            used = 9 + block[place + 8] + shape.has_file_types
            length = -(-(used + 2) // 8) * 8
        if length < 8 or length % 8 or place + length > end:
            raise DiskNotRewritable("a folder of XFS makes no sense")
        yield place + used, place + length - 2
        place += length


def index_remains(block: bytes) -> list[Range]:
    """Return what of a node or leaf of an index its entries do not take: it may have held names before."""
    header, end = INDEXES[block[8:10]], len(block)
    (count,) = struct.unpack_from(">H", block, 56 if header == 64 else 12)
    if block[8:10] in ONLY_LEAF:
        end -= 4 + 2 * struct.unpack_from(">I", block, end - 4)[0]
    if header + 8 * count > end:
        raise DiskNotRewritable("an index of XFS makes no sense")
    return [(header + 8 * count, end)]


def attribute_remains(block: bytes) -> list[Range]:
    """Return what of a block no attribute takes."""
    if block[8:10] in INDEXES:
        return index_remains(block)
    if block[8:10] not in (ATTRIBUTES, ATTRIBUTES_WITH_CHECKSUM):
        return remote_remains(block)
    header, fields = (80, 56) if block[8:10] == ATTRIBUTES_WITH_CHECKSUM else (32, 12)
    (count,) = struct.unpack_from(">H", block, fields)
    used = [(0, header + 8 * count)]
    if used[0][1] > len(block):
        raise DiskNotRewritable("the attributes of a file of XFS make no sense")
    for number in range(count):
        place, flags = struct.unpack_from(">HB", block, header + 8 * number + 4)
        if flags & ATTRIBUTE_LOCAL:
            value, name = struct.unpack_from(">HB", block, place)
            used.append((place, place + 3 + name + value))
        else:
            used.append((place, place + 9 + block[place + 8]))
    if any(end > len(block) for _, end in used):
        raise DiskNotRewritable("the attributes of a file of XFS make no sense")
    return list(without([(0, len(block))], joined(used)))


def remote_remains(block: bytes) -> list[Range]:
    """Return what of a block behind a value or a link's target is left; without a header, its length is not known."""
    if block[:4] not in (REMOTE_VALUE, REMOTE_LINK):
        return []
    end = REMOTE_HEADER + struct.unpack_from(">I", block, 8)[0]
    if end > len(block):
        raise DiskNotRewritable("a value of XFS makes no sense")
    return [(end, len(block))]


def mended_checksum(block: bytes, gaps: list[Range], place: int) -> bytes:
    """Return the checksum of a structure with zeros in its gaps. Raises DiskNotRewritable when it was wrong before."""
    if checksum_of(block, place) != block[place : place + 4]:
        raise DiskNotRewritable("a checksum of XFS is wrong")
    cleaned = bytearray(block)
    for start, end in gaps:
        cleaned[start:end] = bytes(end - start)
    return checksum_of(bytes(cleaned), place)


def checksum_of(block: bytes, place: int) -> bytes:
    """Return the checksum of a structure that keeps it at a place, which counts as zeros."""
    seed = crc32c(block[place + 4 :], crc32c(bytes(4), crc32c(block[:place], START)))
    return struct.pack("<I", seed ^ 0xFFFFFFFF)
