"""What an XFS file system no longer refers to: the free extents of its allocation groups, and the groups' reserves.

Read from the tree of free space by block number (XFS Algorithms & Data Structures, AG Free Space Management). Its log
and the dead entries of its folders stay: their checksums and cycle numbers are what XFS trusts a disk by.
"""

import struct
from collections.abc import Iterator

from pipeline.errors import DiskNotRewritable
from pipeline.residue.dead import Dead, Range
from pipeline.residue.filesystems import Extent, SourceFile, xfs_log

TREE_MAGIC = {b"ABTB": 16, b"AB3B": 56}
"""The tree of free space by block number, in versions 4 and 5, with the bytes of a node's header."""
LOG_MAGIC = b"\xfe\xed\xba\xbe"
LOG_BLOCK = 512
LOG_PIECE = 1 << 20
UNMOUNT = 0x20
RESERVE_HEADER = 36
NOBODY = 0xFFFFFFFF
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
        sensible = self.block_size in {1 << power for power in range(9, 17)} and self.sector >= 512
        if block[:4] != b"XFSB" or not sensible or not self.groups:
            raise DiskNotRewritable("the superblock of XFS makes no sense")
        if self.size > file.get_size():
            raise DiskNotRewritable("the XFS file system is larger than its partition")

    @property
    def size(self) -> int:
        """The bytes that the file system takes of its partition."""
        return int(self.blocks * self.block_size)

    def dead(self) -> Dead:
        """Return the free extents of all groups. Raises DiskNotRewritable when it is not clean, or makes no sense."""
        if not self.is_clean():
            raise DiskNotRewritable("the log of XFS is not empty")
        dead = Dead()
        for group in range(self.groups):
            dead.free_bytes += sum(dead.zero(start, end) for start, end in self.free_ranges(group))
        return dead

    def is_clean(self) -> bool:
        """Say whether the newest record of the log is that of an unmount: there is nothing to replay."""
        newest, clean = -1, False
        for extent in xfs_log(self.file).extents:
            for place in self.log_records(extent):
                header = self.file.read_at(extent.physical + place, LOG_BLOCK).ljust(LOG_BLOCK, b"\0")
                (number,) = struct.unpack_from(">Q", header, 16)
                if number > newest:
                    (size,) = struct.unpack_from(">I", header, 320)
                    behind = (place + LOG_BLOCK * max(1, -(-size // 32768))) % extent.size
                    operation = self.file.read_at(extent.physical + behind, 12).ljust(12, b"\0")
                    alone = struct.unpack_from(">I", header, 40)[0] == 1
                    newest, clean = number, alone and bool(operation[9] & UNMOUNT)
        return clean

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
        found = list(self.records(base, self.leftmost_leaf(base, root, levels)))
        if any(start + count > last for start, count in found) or sum(count for _, count in found) != free:
            raise DiskNotRewritable(f"the free space of group {group} of XFS does not add up")
        for start, count in (*found, *((block, 1) for block in self.reserve(base, header))):
            yield (base + start) * self.block_size, (base + start + count) * self.block_size

    def reserve(self, base: int, header: bytes) -> Iterator[int]:
        """Yield the blocks that a group holds back for its own trees: what was deleted may be in them."""
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
            yield block

    def leftmost_leaf(self, base: int, root: int, levels: int) -> int:
        """Return the first leaf below a root."""
        for level in range(levels - 1, 0, -1):
            node, header = self.node(base, root, level)
            most = (len(node) - header) // 12
            (root,) = struct.unpack_from(">I", node, header + 8 * most)
        return root

    def records(self, base: int, leaf: int) -> Iterator[tuple[int, int]]:
        """Yield the free extents of a leaf and of those to the right of it: first block and count."""
        seen: set[int] = set()
        while leaf != NOBODY:
            if leaf in seen:
                raise DiskNotRewritable("the free space of XFS goes in a circle")
            seen.add(leaf)
            node, header = self.node(base, leaf, 0)
            (count,) = struct.unpack_from(">H", node, 6)
            if header + 8 * count > len(node):
                raise DiskNotRewritable("the free space of XFS makes no sense")
            for number in range(count):
                first, blocks = struct.unpack_from(">II", node, header + 8 * number)
                yield first, blocks
            (leaf,) = struct.unpack_from(">I", node, 12)

    def node(self, base: int, block: int, level: int) -> tuple[bytes, int]:
        """Return a node of the tree and the size of its header."""
        node = self.file.read_at((base + block) * self.block_size, self.block_size)
        header = TREE_MAGIC.get(node[:4])
        if block >= self.group_blocks or header is None or struct.unpack_from(">H", node, 4)[0] != level:
            raise DiskNotRewritable("the free space of XFS makes no sense")
        return node, header
