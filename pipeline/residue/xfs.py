"""What an XFS file system no longer refers to: the free extents of its groups, their reserves, and its log.

Read from the tree of free space by block number (XFS Algorithms & Data Structures, AG Free Space Management). Of the
log, the record of the unmount stays, and of every other sector its cycle number, by which XFS finds that record. What
inodes, folders and attributes hold is `xfs_inodes.py`'s.
"""

import struct
from collections.abc import Iterator

from pipeline.errors import DiskNotRewritable
from pipeline.residue.crc32c import START, crc32c
from pipeline.residue.dead import Dead, Range
from pipeline.residue.filesystems import Extent, SourceFile, xfs_log, xfs_place
from pipeline.residue.xfs_inodes import Inodes, Shape

FREE_SPACE, INODES = {b"ABTB": 16, b"AB3B": 56}, {b"IABT": 16, b"IAB3": 56}
"""The trees of free space by block number and of inodes, in versions 4 and 5, with the bytes of a node's header."""
KNOWN_INCOMPATIBLE = 0xEF
"""File types, sparse inodes, UUID of metadata, big times, many extents, exchanges, parents. Not: needs repair."""
SPARSE_INODES, FILE_TYPES, OLD_FILE_TYPES = 0x2, 0x1, 0x200
LOG_MAGIC = b"\xfe\xed\xba\xbe"
LOG_BLOCK = 512
LOG_PIECE = 1 << 20
UNMOUNT, UNMOUNT_BYTES = 0x20, 20
RECORD_CRC, RECORD_BYTES = 32, 328
"""Of the header of a record of the log: where its checksum is, and its size."""
RESERVE_HEADER = 36
NOBODY = 0xFFFFFFFF
CONTENT = (b"XARM", b"XSLM")
DEEPEST = 9


class Xfs:
    """An XFS file system that was unmounted, or remounted read-only. Offsets are in bytes from its beginning."""

    def __init__(self, file: SourceFile) -> None:
        """Read the superblock. Raises DiskNotRewritable when it makes no sense."""
        self.file = file
        block = file.read_at(0, 512).ljust(512, b"\0")
        self.block_size, self.blocks = struct.unpack_from(">IQ", block, 4)
        self.group_blocks, self.groups = struct.unpack_from(">II", block, 84)
        (self.sector,) = struct.unpack_from(">H", block, 102)
        (self.incompatible,) = struct.unpack_from(">I", block, 216)
        (self.inode_size,) = struct.unpack_from(">H", block, 104)
        self.has_checksums = block[101] & 0xF == 5
        self.uuid = block[32:48]
        old = struct.unpack_from(">I", block, 200)[0] & OLD_FILE_TYPES
        self.shape = Shape(
            block_size=self.block_size,
            folder_block_size=self.block_size << min(block[192], 7),
            inode_size=self.inode_size,
            has_checksums=self.has_checksums,
            has_file_types=bool(self.incompatible & FILE_TYPES if self.has_checksums else old),
            place=xfs_place(file),
        )
        self.inodes_per_block_log = block[123]
        sensible = self.block_size in {1 << power for power in range(9, 17)} and self.sector >= 512
        if block[:4] != b"XFSB" or not sensible or not self.groups:
            raise DiskNotRewritable("the superblock of XFS makes no sense")
        if struct.unpack_from(">Q", block, 24)[0] or (self.has_checksums and self.incompatible & ~KNOWN_INCOMPATIBLE):
            raise DiskNotRewritable("XFS with features that are not known")
        if self.size > file.get_size():
            raise DiskNotRewritable("the XFS file system is larger than its partition")

    @property
    def size(self) -> int:
        """The bytes that the file system takes of its partition."""
        return int(self.blocks * self.block_size)

    def dead(self) -> Dead:
        """Return everything that nothing refers to. Raises DiskNotRewritable when it is not clean or understood."""
        dead = Dead()
        self.clean_log(dead)
        inodes = Inodes(self.file, self.shape, dead)
        for group in range(self.groups):
            unowned = (*self.free_ranges(group), *self.reserve(group))
            dead.free_bytes += sum(dead.zero(start, end) for start, end in unowned)
            for place, free, holes in self.chunks(group):
                inodes.clean_chunk(place, free, holes)
        return dead

    def clean_log(self, dead: Dead) -> None:
        """Mark the log but for the record of the unmount, its newest. Raises DiskNotRewritable when it is another."""
        for log in xfs_log(self.file).extents:
            newest = self.newest_record(log)
            header = self.file.read_at(log.physical + newest, LOG_BLOCK).ljust(LOG_BLOCK, b"\0")
            first, end = self.body_of(log, newest, header)
            body = self.file.read_at(log.physical + first, end - first)
            if struct.unpack_from(">I", header, 40)[0] != 1 or len(body) < UNMOUNT_BYTES or not body[9] & UNMOUNT:
                raise DiskNotRewritable("the log of XFS is not empty")
            kept = {at for at in (newest, *range(first, end, LOG_BLOCK))}
            for place, sector in self.log_sectors(log):
                if place in kept or not any(sector[4:]):
                    continue
                dead.zero(log.physical + place + 4, log.physical + place + LOG_BLOCK)
                if sector[:4] == LOG_MAGIC:
                    dead.patches[log.physical + place] = sector[4:8]
            self.clean_unmount(dead, log.physical + newest, header, log.physical + first, body)

    def clean_unmount(self, dead: Dead, place: int, header: bytes, body_place: int, body: bytes) -> None:
        """Mark what lies behind the unmount in its record, and mend the record's checksum where it has one."""
        cleaned = bytearray(body)
        for sector in range(0, len(body), LOG_BLOCK):
            start = max(sector + 4, UNMOUNT_BYTES)
            end = min(sector + LOG_BLOCK, len(body))
            dead.zero(body_place + start, body_place + end)
            cleaned[start:end] = bytes(end - start)
        stored = header[RECORD_CRC : RECORD_CRC + 4]
        if not any(stored):
            return
        if record_checksum(header, body) != stored:
            raise DiskNotRewritable("the checksum of the log of XFS is wrong")
        dead.patches[place + RECORD_CRC] = record_checksum(header, bytes(cleaned))

    def newest_record(self, log: Extent) -> int:
        """Return where in the log its newest record begins."""
        numbered = [(struct.unpack_from(">Q", sector, 16)[0], place) for place, sector in self.records_of(log)]
        if not numbered:
            raise DiskNotRewritable("the log of XFS is not empty")
        return max(numbered)[1]

    def records_of(self, log: Extent) -> Iterator[tuple[int, bytes]]:
        """Yield the first sectors of the records of the log."""
        for place in self.log_records(log):
            yield place, self.file.read_at(log.physical + place, LOG_BLOCK).ljust(LOG_BLOCK, b"\0")

    def body_of(self, log: Extent, place: int, header: bytes) -> Range:
        """Return where in the log the content of a record lies."""
        (length,) = struct.unpack_from(">I", header, 12)
        (size,) = struct.unpack_from(">I", header, 320)
        first = (place + LOG_BLOCK * max(1, -(-size // 32768))) % log.size
        if first + length > log.size or length > log.size:
            raise DiskNotRewritable("the log of XFS makes no sense")
        return first, first + length

    def log_sectors(self, log: Extent) -> Iterator[tuple[int, bytes]]:
        """Yield the sectors of the log that hold anything, with their places in it."""
        for piece in range(0, log.size, LOG_PIECE):
            data = self.file.read_at(log.physical + piece, min(LOG_PIECE, log.size - piece))
            if not any(data):
                continue
            for place in range(0, len(data), LOG_BLOCK):
                yield piece + place, data[place : place + LOG_BLOCK]

    def log_records(self, log: Extent) -> Iterator[int]:
        """Yield where in the log its records begin."""
        for piece in range(0, log.size, LOG_PIECE):
            data = self.file.read_at(log.physical + piece, min(LOG_PIECE, log.size - piece))
            place = data.find(LOG_MAGIC)
            while place >= 0:
                if place % LOG_BLOCK == 0:
                    yield piece + place
                place = data.find(LOG_MAGIC, place + 1)

    def free_ranges(self, group: int) -> Iterator[Range]:
        """Yield the free extents of a group, which its header must agree with in sum."""
        base = group * self.group_blocks
        header = self.file.read_at(base * self.block_size + self.sector, 64).ljust(64, b"\0")
        root, levels = struct.unpack_from(">I", header, 16)[0], struct.unpack_from(">I", header, 28)[0]
        (free,) = struct.unpack_from(">I", header, 52)
        if header[:4] != b"XAGF" or not 1 <= levels <= DEEPEST:
            raise DiskNotRewritable(f"the header of group {group} of XFS makes no sense")
        last = min(self.group_blocks, self.blocks - base)
        leaf = self.leftmost_leaf(base, root, levels, FREE_SPACE, 8)
        found = list(self.records(base, leaf, FREE_SPACE, ">II"))
        if any(start + count > last for start, count in found) or sum(count for _, count in found) != free:
            raise DiskNotRewritable(f"the free space of group {group} of XFS does not add up")
        for start, count in found:
            yield (base + start) * self.block_size, (base + start + count) * self.block_size

    def free_blocks(self) -> Iterator[Range]:
        """Yield the free extents of all groups: what writing a file until the disk is full can reach."""
        for group in range(self.groups):
            yield from self.free_ranges(group)

    def was_structure(self, block: bytes) -> bool:
        """Say whether a block that is free now was one of a folder or a tree: version 5 writes its UUID into each.

        So it does into values of attributes and targets of links, which are content.
        """
        return self.uuid in block[:64] and block[:4] not in CONTENT

    def reserve(self, group: int) -> Iterator[Range]:
        """Yield the blocks that a group holds back for its own trees: what was deleted may be in them."""
        base = group * self.group_blocks
        header = self.file.read_at(base * self.block_size + self.sector, 64).ljust(64, b"\0")
        first, last, count = struct.unpack_from(">III", header, 40)
        sector = self.file.read_at(base * self.block_size + 3 * self.sector, self.sector)
        begin = RESERVE_HEADER if sector[:4] == b"XAFL" else 0
        size = (self.sector - begin) // 4
        if count and (max(first, last) >= size or (last - first) % size + 1 != count):
            raise DiskNotRewritable("the reserve of a group of XFS makes no sense")
        for number in range(count):
            (block,) = struct.unpack_from(">I", sector, begin + 4 * ((first + number) % size))
            if block >= self.group_blocks:
                raise DiskNotRewritable("the reserve of a group of XFS makes no sense")
            yield (base + block) * self.block_size, (base + block + 1) * self.block_size

    def chunks(self, group: int) -> Iterator[tuple[int, int, int]]:
        """Yield the chunks of inodes of a group: where each lies, in bytes, and its masks of free ones and of holes."""
        base = group * self.group_blocks
        header = self.file.read_at(base * self.block_size + 2 * self.sector, 64).ljust(64, b"\0")
        root, levels = struct.unpack_from(">II", header, 20)
        if header[:4] != b"XAGI" or not 1 <= levels <= DEEPEST:
            raise DiskNotRewritable(f"the inodes of group {group} of XFS make no sense")
        leaf = self.leftmost_leaf(base, root, levels, INODES, 4)
        for first, holes, free in self.records(base, leaf, INODES, ">IHxxQ"):
            block, within = first >> self.inodes_per_block_log, first & (1 << self.inodes_per_block_log) - 1
            place = (base + block) * self.block_size + within * self.inode_size
            if block >= self.group_blocks:
                raise DiskNotRewritable(f"the inodes of group {group} of XFS make no sense")
            yield place, free, holes if self.incompatible & SPARSE_INODES else 0

    def leftmost_leaf(self, base: int, root: int, levels: int, kind: dict[bytes, int], key_bytes: int) -> int:
        """Return the first leaf below a root."""
        for level in range(levels - 1, 0, -1):
            node, header = self.node(base, root, level, kind)
            most = (len(node) - header) // (key_bytes + 4)
            (root,) = struct.unpack_from(">I", node, header + key_bytes * most)
        return root

    def records(self, base: int, leaf: int, kind: dict[bytes, int], form: str) -> Iterator[tuple[int, ...]]:
        """Yield the records of a leaf and of those to the right of it."""
        seen: set[int] = set()
        size = struct.calcsize(form)
        while leaf != NOBODY:
            if leaf in seen:
                raise DiskNotRewritable("a tree of XFS goes in a circle")
            seen.add(leaf)
            node, header = self.node(base, leaf, 0, kind)
            (count,) = struct.unpack_from(">H", node, 6)
            if header + size * count > len(node):
                raise DiskNotRewritable("a tree of XFS makes no sense")
            for number in range(count):
                yield struct.unpack_from(form, node, header + size * number)
            (leaf,) = struct.unpack_from(">I", node, 12)

    def node(self, base: int, block: int, level: int, kind: dict[bytes, int]) -> tuple[bytes, int]:
        """Return a node of a tree and the size of its header."""
        node = self.file.read_at((base + block) * self.block_size, self.block_size)
        header = kind.get(node[:4])
        if block >= self.group_blocks or header is None or struct.unpack_from(">H", node, 4)[0] != level:
            raise DiskNotRewritable("a tree of XFS makes no sense")
        return node, header


def record_checksum(header: bytes, body: bytes) -> bytes:
    """Return the checksum of a record of the log: over its header, without the checksum itself, and its content."""
    seed = crc32c(header[:RECORD_CRC] + bytes(4) + header[RECORD_CRC + 4 : RECORD_BYTES], START)
    return struct.pack("<I", crc32c(body, seed) ^ 0xFFFFFFFF)
