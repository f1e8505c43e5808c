"""Partitions and file systems of a disk, read only and without mounting: which file owns which bytes.

pytsk3 reads the partition table; libfsext and libfsxfs read ext2-4 and XFS, through one and the same interface. FAT is
`fat.py`'s.
"""

import bisect
import importlib
import io
import stat
import struct
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pipeline.errors import BlockUnreadable
from pipeline.residue.blocks import BlockSource

SECTOR = 512
CACHED_BLOCKS = 4
PIECE = 512 * 1024
"""How much of a file is read at once, in bytes."""
EXT_JOURNAL_INODE = 8
WHOLE_DISK = "the whole disk"
FIRMWARE_BYTES = 8 * 1024 * 1024
"""A partition of at most this that is not understood is a boot loader's or firmware's own."""
EXT_64BIT = 0x80
CAPABILITIES = "security.capability"


@dataclass(frozen=True, slots=True)
class Extent:
    """A run of a file: where in the file, where on what it lies on, how long, all in bytes."""

    logical: int
    physical: int
    size: int


class SourceFile(io.RawIOBase):
    """Ranges of a disk as a file, as the file system libraries want it. Blocks that were never written are zeros."""

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self._written = flags_of(source)
        self._cache: OrderedDict[int, bytes] = OrderedDict()
        self._extents: tuple[Extent, ...] = (Extent(0, 0, source.size_bytes),)
        self._size = source.size_bytes
        self._position = 0

    def part(self, start: int, size: int) -> "SourceFile":
        """Return a range of this file as a file of its own."""
        return self.joined((Extent(0, start, size),))

    def joined(self, extents: Sequence[Extent]) -> "SourceFile":
        """Return ranges of this file, which follow each other in that order, as a file of its own."""
        other = SourceFile.__new__(SourceFile)
        pieces = (
            Extent(extent.logical + piece.logical, piece.physical, piece.size)
            for extent in extents
            for piece in self._pieces(extent.physical, extent.size)
        )
        size = sum(extent.size for extent in extents)
        other.__dict__.update(self.__dict__, _extents=tuple(pieces), _size=size, _position=0)
        return other

    def _pieces(self, offset: int, size: int) -> Iterator[Extent]:
        """Yield where on the disk a range of this file lies; `logical` counts from the range's beginning."""
        for extent in self._extents:
            start, end = max(offset, extent.logical), min(offset + size, extent.logical + extent.size)
            if start < end:
                yield Extent(start - offset, extent.physical + start - extent.logical, end - start)

    def read(self, size: int = -1) -> bytes:
        """Return the next bytes."""
        size = min(size if size >= 0 else self._size, max(0, self._size - self._position))
        data = self.read_at(self._position, size)
        self._position += len(data)
        return data

    def read_at(self, offset: int, size: int) -> bytes:
        """Return bytes from a place, cut off at the end of the file."""
        size = max(0, min(size, self._size - offset))
        block_size = self._source.block_size
        if len(self._extents) == 1:  # a partition, of which a library reads thousands of small pieces
            index, within = divmod(self._extents[0].physical + offset, block_size)
            if within + size <= block_size:
                return self._block(index)[within : within + size]
        parts = []
        for run in self._pieces(offset, size):
            position, end = run.physical, run.physical + run.size
            while position < end:
                index, within = divmod(position, block_size)
                piece = self._block(index)[within : within + end - position]
                parts.append(piece)
                position += len(piece) or run.size
        return b"".join(parts)

    def _block(self, index: int) -> bytes:
        """Return a block through a small cache: metadata is read in small pieces."""
        if not self._written[index : index + 1].strip(b"\0"):
            return bytes(self._source.block_size)
        if index in self._cache:
            self._cache.move_to_end(index)
        else:
            self._cache[index] = self._source.read(index)
            if len(self._cache) > CACHED_BLOCKS:
                self._cache.popitem(last=False)
        return self._cache[index]

    def seek(self, offset: int, whence: int = 0) -> int:
        """Move to a place."""
        self._position = {0: 0, 1: self._position, 2: self._size}[whence] + offset
        return self._position

    def tell(self) -> int:
        """Return the place."""
        return self._position

    def get_size(self) -> int:
        """Return the size in bytes, as the libraries ask for it."""
        return self._size


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or a directory of a file system."""

    path: str
    inode: int
    size: int
    mode: int
    extents: tuple[Extent, ...] = ()
    target: str = ""
    """Where a symbolic link points."""
    capabilities: bytes = b""
    """The rights of a program that is not set-user-id, as the kernel keeps them (capabilities(7))."""

    @property
    def is_directory(self) -> bool:
        """Whether it is a directory."""
        return stat.S_ISDIR(self.mode)

    @property
    def is_file(self) -> bool:
        """Whether it is a regular file."""
        return stat.S_ISREG(self.mode)

    @property
    def is_link(self) -> bool:
        """Whether it is a symbolic link."""
        return stat.S_ISLNK(self.mode)

    @property
    def is_program(self) -> bool:
        """Whether it is a regular file that somebody may execute."""
        return self.is_file and bool(self.mode & 0o111)

    @property
    def is_fragmented(self) -> bool:
        """Whether its content lies in more than one place: a secret may be cut where a raw search cannot see it."""
        return any(
            second.physical != first.physical + first.size
            for first, second in zip(self.extents, self.extents[1:], strict=False)
        )


@dataclass
class FileSystem:
    """An ext2-4 or XFS file system."""

    kind: str
    file: SourceFile
    volume: Any = field(repr=False)
    unread: list[str] = field(default_factory=list)
    """The folders with an entry that could not be read. Known when `entries` was asked for."""

    @property
    def size_bytes(self) -> int:
        """How large it is by its own superblock (kernel documentation of ext4, XFS Algorithms & Data Structures)."""
        if self.kind == "xfs":
            block_size, blocks = struct.unpack(">IQ", self.file.read_at(4, 12).ljust(12, b"\0"))
            return int(block_size * blocks)
        superblock = self.file.read_at(1024, 1024).ljust(1024, b"\0")
        (blocks,), (log_block_size,) = (struct.unpack_from("<I", superblock, at) for at in (4, 24))
        if struct.unpack_from("<I", superblock, 96)[0] & EXT_64BIT:
            blocks |= struct.unpack_from("<I", superblock, 336)[0] << 32
        return int(blocks << 10 + min(log_block_size, 6))

    @property
    def names(self) -> tuple[str, str]:
        """What fstab may call it, by its superblock: by UUID, or by label."""
        block = self.file.read_at(0, 2048).ljust(2048, b"\0")
        uuid, label = (block[32:48], block[108:120]) if self.kind == "xfs" else (block[1128:1144], block[1144:1160])
        digits = uuid.hex()
        parts = (digits[start:end] for start, end in ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32)))
        return fstab_names("-".join(parts), label)

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Everything that has a name, and the journal."""
        root = self.volume.get_root_directory()
        if root is None:
            raise OSError("it has no root directory")
        place = xfs_place(self.file) if self.kind == "xfs" else lambda physical: physical
        return (*walk(root, place, self.unread), *self._journal())

    @cached_property
    def _runs(self) -> list[tuple[Extent, Entry]]:
        """All extents, by where they lie, and whose each is."""
        return sorted(((run, entry) for entry in self.entries for run in entry.extents), key=begin_of)

    def owner(self, offset: int) -> tuple[Entry, int] | None:
        """Return the file that owns a place, and the place in the file."""
        at = bisect.bisect_right(self._runs, offset, key=begin_of) - 1
        if at < 0:
            return None
        run, entry = self._runs[at]
        within = offset - run.physical
        return (entry, run.logical + within) if within < run.size else None

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield the content of a file, in pieces of at most a block; holes are zeros."""
        position = 0
        for run in entry.extents:
            while position < min(run.logical, entry.size):
                gap = bytes(min(PIECE, run.logical - position, entry.size - position))
                yield gap
                position += len(gap)
            while position < min(run.logical + run.size, entry.size):
                size = min(PIECE, run.logical + run.size - position, entry.size - position)
                yield self.file.read_at(run.physical + position - run.logical, size)
                position += size
        while position < entry.size:
            gap = bytes(min(PIECE, entry.size - position))
            yield gap
            position += len(gap)

    def is_free(self, offset: int) -> bool | None:
        """Say whether the block at a place is marked free; None where it is not known (XFS keeps no bitmap)."""
        return ext_block_is_free(self.file, offset) if self.kind == "ext" else None

    def _journal(self) -> Iterator[Entry]:
        """Yield the journal: it has no name."""
        if self.kind == "ext":
            try:
                journal = self.volume.get_file_entry_by_inode(EXT_JOURNAL_INODE)
            except OSError:
                return
            yield entry_of(journal, "<journal>", lambda physical: physical)
        else:
            yield xfs_log(self.file)


def fstab_names(uuid: str, label: bytes) -> tuple[str, str]:
    """Return what fstab may call a file system; its label is padded."""
    return f"UUID={uuid}", "LABEL=" + label.rstrip(b"\0 ").decode("utf-8", "replace")


def begin_of(run: tuple[Extent, Entry]) -> int:
    """Return where an extent begins on its file system."""
    return run[0].physical


def flags_of(source: BlockSource) -> bytearray:
    """Return for each block of a disk whether it was ever written."""
    flags = bytearray(-(-source.size_bytes // source.block_size))
    for index in source.indices():
        flags[index : index + 1] = b"\1"
    return flags


def walk(
    root: Any,  # noqa: ANN401 - the libraries have no types
    place: Callable[[int], int],
    unread: list[str],
) -> Iterator[Entry]:
    """Yield every entry below a directory. What cannot be read is left out, and its folder noted in `unread`."""
    waiting = [("", root)]
    yield entry_of(root, "/", place)
    while waiting:
        path, directory = waiting.pop()
        for number in range(directory.get_number_of_sub_file_entries()):
            try:
                child = directory.get_sub_file_entry(number)
                entry = entry_of(child, f"{path}/{child.get_name()}", place)
            except OSError:
                unread.append(path or "/")
                continue
            yield entry
            if entry.is_directory:
                waiting.append((entry.path, child))


def entry_of(node: Any, path: str, place: Callable[[int], int]) -> Entry:  # noqa: ANN401
    """Return a library's file entry as a value."""
    mode = node.get_file_mode()
    entry = Entry(path, node.get_inode_number(), node.get_size(), mode, tuple(extents_of(node, place)))
    if entry.is_link:
        return replace(entry, target=node.get_symbolic_link_target() or "")
    if entry.is_program and node.has_extended_attribute_by_name(CAPABILITIES):
        return replace(entry, capabilities=node.get_extended_attribute_by_name(CAPABILITIES).read(64))
    return entry


def extents_of(node: Any, place: Callable[[int], int]) -> Iterator[Extent]:  # noqa: ANN401
    """Yield the runs of a file that lie on the disk; none for what is small enough to lie in the inode."""
    try:
        count = node.get_number_of_extents()
    except OSError:  # its content is inside of its inode
        return
    logical = 0
    for number in range(count):
        physical, size, flags = node.get_extent(number)
        if not flags & 1:
            yield Extent(logical, place(physical), size)
        logical += size


def ext_block_is_free(file: SourceFile, offset: int) -> bool | None:
    """Say whether a block is free in the bitmap of an ext2-4 file system (kernel documentation of ext4)."""
    superblock = file.read_at(1024, 1024).ljust(1024, b"\0")
    first_block, log_block_size = struct.unpack_from("<II", superblock, 20)
    (blocks_per_group,) = struct.unpack_from("<I", superblock, 32)
    (incompatible,) = struct.unpack_from("<I", superblock, 96)
    block_size = 1024 << min(log_block_size, 6)
    descriptor_size = struct.unpack_from("<H", superblock, 254)[0] if incompatible & EXT_64BIT else 32
    if not blocks_per_group or descriptor_size < 32:
        return None
    group, within = divmod(offset // block_size - first_block, blocks_per_group)
    descriptor = file.read_at((first_block + 1) * block_size + group * descriptor_size, descriptor_size)
    if len(descriptor) < descriptor_size:
        return None
    bitmap = struct.unpack_from("<I", descriptor, 0)[0]
    if descriptor_size >= 64:
        bitmap |= struct.unpack_from("<I", descriptor, 32)[0] << 32
    uninitialised = struct.unpack_from("<H", descriptor, 18)[0] & 2
    byte = file.read_at(bitmap * block_size + within // 8, 1)
    return None if not byte else bool(uninitialised) or not byte[0] >> within % 8 & 1


def xfs_place(file: SourceFile) -> Callable[[int], int]:
    """Return what turns an XFS block address, in bytes, into a place in bytes.

    An address is a group and a block in it, in a power of two (XFS Algorithms & Data Structures, superblocks).
    """
    superblock = file.read_at(0, 512).ljust(512, b"\0")
    block_size, group_blocks = (int.from_bytes(superblock[at : at + 4], "big") for at in (4, 84))
    group_log = superblock[124]
    if not block_size or group_log > 31:
        raise ValueError("the superblock of XFS makes no sense")

    def place(address: int) -> int:
        block, within = divmod(address, block_size)
        return ((block >> group_log) * group_blocks + (block & (1 << group_log) - 1)) * block_size + within

    return place


def xfs_log(file: SourceFile) -> Entry:
    """Return the log inside an XFS file system, from its superblock."""
    superblock = file.read_at(0, 512).ljust(512, b"\0")
    block_size, start, blocks = (
        struct.unpack_from(form, superblock, at)[0] for form, at in ((">I", 4), (">Q", 48), (">I", 96))
    )
    if not start:
        return Entry("<journal>", 0, 0, 0)
    return Entry(
        "<journal>", 0, blocks * block_size, 0, (Extent(0, xfs_place(file)(start * block_size), blocks * block_size),)
    )


@dataclass(frozen=True)
class Partition:
    """A range of the disk, in bytes: of the partition table, of nobody, a partition, or a logical volume."""

    name: str
    start: int
    size: int
    content: str
    """`ext` `xfs` `swap` `lvm` `luks` `btrfs` `vfat` `unknown`, `outside` for what no partition owns, or `unowned` for
    what no logical volume does."""
    extents: tuple[Extent, ...] = ()
    """Where a logical volume lies; anything else lies in one piece."""

    @property
    def runs(self) -> tuple[Extent, ...]:
        """Where it lies on the disk."""
        return self.extents or (Extent(0, self.start, self.size),)

    @property
    def may_hide_files(self) -> bool:
        """Whether nobody knows what it holds, and it is more than a boot loader or firmware needs: a partition."""
        is_firmware = self.size <= FIRMWARE_BYTES and self.name != WHOLE_DISK and not self.extents
        return self.content == "unknown" and not is_firmware

    def within(self, offset: int) -> int | None:
        """Return which place of it an offset of the disk is; none when it lies elsewhere."""
        for run in self.runs:
            if run.physical <= offset < run.physical + run.size:
                return run.logical + offset - run.physical
        return None

    def ranges_of(self, start: int, end: int) -> Iterator[tuple[int, int]]:
        """Yield the ranges of the disk that a range of it takes."""
        for run in self.runs:
            first, last = max(start, run.logical), min(end, run.logical + run.size)
            if first < last:
                yield run.physical + first - run.logical, run.physical + last - run.logical

    def offset_of(self, place: int) -> int:
        """Return the offset on the disk of a place in it. Raises ValueError behind its end."""
        for run in self.runs:
            if run.logical <= place < run.logical + run.size:
                return run.physical + place - run.logical
        raise ValueError(f"{self.name} has no place {place}")


def read_partitions(file: SourceFile) -> list[Partition]:
    """Return all ranges of a disk, in order; a disk without a partition table is one range."""
    pytsk3 = importlib.import_module("pytsk3")
    try:
        table = list(pytsk3.Volume_Info(image_of(file)))
    except RuntimeError as problem:
        raise BlockUnreadable("the partition table cannot be read") from problem
    except OSError:
        return [Partition(WHOLE_DISK, 0, file.get_size(), content_of(file, 0))]
    return list(named_ranges(file, table))


def image_of(file: SourceFile) -> Any:  # noqa: ANN401 - pytsk3 has no types
    """Return a file as pytsk3 wants it."""
    pytsk3 = importlib.import_module("pytsk3")
    base: Any = pytsk3.Img_Info
    image = type(
        "Image",
        (base,),
        {"read": lambda _, offset, size: file.read_at(offset, size), "get_size": lambda _: file.get_size()},
    )
    return image(url="", type=pytsk3.TSK_IMG_TYPE_EXTERNAL)


def named_ranges(file: SourceFile, table: list[Any]) -> Iterator[Partition]:
    """Yield what pytsk3 found, with what each range holds. Its safety table is not a place."""
    number = 0
    for part in table:
        start, size = part.start * SECTOR, part.len * SECTOR
        if part.flags & 1:
            number += 1
            yield Partition(f"partition {number}", start, size, content_of(file, start))
        elif part.flags & 2:
            yield Partition("the gap outside the partitions", start, size, "outside")


def content_of(file: SourceFile, start: int) -> str:
    """Say by its magic what a range holds."""
    head = file.read_at(start, 8192)
    if file.read_at(start + 0x10040, 8) == b"_BHRfS_M":
        return "btrfs"
    if head[1080:1082] == b"\x53\xef":
        return "ext"
    magics = (
        (0, b"XFSB", "xfs"),
        (4086, b"SWAPSPACE2", "swap"),
        (0, b"LUKS\xba\xbe", "luks"),
        (54, b"FAT", "vfat"),
        (82, b"FAT", "vfat"),
    )
    for place, magic, content in magics:
        if head[place : place + len(magic)] == magic:
            return content
    return "lvm" if any(head[sector : sector + 8] == b"LABELONE" for sector in range(0, 2048, SECTOR)) else "unknown"
