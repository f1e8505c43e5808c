"""FAT, as the EFI system partition has it: its files by pytsk3, and what no name leads to by its own table.

Read from the structures of Microsoft's FAT specification (fatgen103). Its kind is told as Linux does it: FAT32 has no
size of the table in 16 bits, and otherwise the number of clusters decides.
"""

import importlib
import stat
import struct
from array import array
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from pipeline.errors import DiskNotRewritable
from pipeline.residue.dead import Dead, Range
from pipeline.residue.filesystems import Entry, Extent, FileSystem, SourceFile, fstab_names, image_of

SECTOR_SIZES = (512, 1024, 2048, 4096)
ENTRY = 32
"""Bytes of an entry of a folder. A long name takes several before the one with the file's own."""
END, REMOVED = 0x00, 0xE5
"""The first byte of the first entry that was never used, and of one that was removed."""
LABEL, FOLDER = 0x08, 0x10
"""Attributes of an entry; one of a long name has that of a label, too."""
FEWEST_FAT16, FIRST = 4085, 2
"""Clusters: how many make a FAT16 of a FAT12, and the number of the first one."""
MODES = {1: stat.S_IFREG | 0o700, 2: stat.S_IFDIR | 0o700}
"""By pytsk3's types of files. FAT keeps no modes: root's alone, as systems mount what they boot from."""
UNALLOCATED = 2
"""pytsk3's flag of a name that was removed."""
LABEL_OF_VOLUME = b" (Volume Label Entry)"
"""What pytsk3 adds to the label, which is no file."""


class Fat:
    """The table and the folders of a FAT file system. Offsets are in bytes from its beginning."""

    def __init__(self, file: SourceFile) -> None:
        """Read the boot sector. Raises DiskNotRewritable when it makes no sense."""
        self.file = file
        boot = file.read_at(0, 512).ljust(512, b"\0")
        self.sector, per_cluster, reserved, self.tables = struct.unpack_from("<HBHB", boot, 11)
        root_entries, few, table_sectors, many = struct.unpack_from("<HHxH8xI", boot, 17)
        self.is_fat32 = not table_sectors
        if self.is_fat32:
            table_sectors, self.root = struct.unpack_from("<I4xI", boot, 36)
        if self.sector not in SECTOR_SIZES or not per_cluster or not self.tables or not reserved or not table_sectors:
            raise DiskNotRewritable("the boot sector of FAT makes no sense")
        self.block_size = self.sector * per_cluster
        self.size: int = (few or many) * self.sector
        self.table_start, self.table_size = reserved * self.sector, table_sectors * self.sector
        self.root_start = self.table_start + self.tables * self.table_size
        self.data_start = self.root_start + -(-root_entries * ENTRY // self.sector) * self.sector
        self.clusters = (self.size - self.data_start) // self.block_size
        self.bits = 32 if self.is_fat32 else 16 if self.clusters >= FEWEST_FAT16 else 12
        self.table_used = -(-(self.clusters + FIRST) * self.bits // 8)
        if self.clusters <= 0 or self.table_used > self.table_size:
            raise DiskNotRewritable("the boot sector of FAT makes no sense")

    @cached_property
    def next_of(self) -> Sequence[int]:
        """Return what the table says of each cluster: 0 when it is free, and otherwise which one follows."""
        table = self.file.read_at(self.table_start, self.table_used)
        if len(table) < self.table_used:
            raise DiskNotRewritable("the table of FAT is cut short")
        if self.bits == 12:
            padded = table + b"\0"
            pairs = (padded[number * 3 // 2] | padded[number * 3 // 2 + 1] << 8 for number in range(self.clusters + 2))
            return array("I", (pair >> 4 if number % 2 else pair & 0xFFF for number, pair in enumerate(pairs)))
        if self.bits == 16:
            return array("I", (number for (number,) in struct.iter_unpack("<H", table)))
        return array("I", (number & 0x0FFFFFFF for (number,) in struct.iter_unpack("<I", table)))

    def is_free(self, offset: int) -> bool:
        """Say whether the table has a place for free."""
        number = (offset - self.data_start) // self.block_size + FIRST
        return offset >= self.data_start and number < len(self.next_of) and not self.next_of[number]

    def free_blocks(self) -> Iterator[Range]:
        """Yield the runs of free clusters."""
        yield from self.runs_of(not number for number in self.next_of)

    def runs_of(self, wanted: Iterator[bool]) -> Iterator[Range]:
        """Yield where those clusters lie that are wanted, of all by their numbers."""
        start = 0
        for number, is_wanted in enumerate(wanted):
            if is_wanted and number >= FIRST:
                start = start or number
            elif start:
                yield self.place(start), self.place(number)
                start = 0
        if start:
            yield self.place(start), self.place(self.clusters + FIRST)

    def place(self, number: int) -> int:
        """Return where a cluster begins."""
        return int(self.data_start + (number - FIRST) * self.block_size)

    def dead(self) -> Dead:
        """Return what no name leads to: clusters, what lies behind files, removed names. Raises DiskNotRewritable."""
        self.refuse_different_tables()
        dead, led_to = Dead(), bytearray(self.clusters + FIRST)
        if self.is_fat32:
            folders = [self.chain(self.root, led_to)]
        else:
            folders = []
            self.clean_folder([(self.root_start, self.data_start)], dead, led_to, folders)
        while folders:
            clusters = folders.pop()
            self.clean_folder([(self.place(at), self.place(at + 1)) for at in clusters], dead, led_to, folders)
        dead.free_bytes += sum(dead.zero(start, end) for start, end in self.runs_of(not known for known in led_to))
        for begin in self.table_starts():
            dead.zero(begin + self.table_used, begin + self.table_size)
        dead.zero(self.place(self.clusters + FIRST), self.size)
        return dead

    def table_starts(self) -> Iterator[int]:
        """Yield where each copy of the table begins."""
        return (self.table_start + number * self.table_size for number in range(self.tables))

    def refuse_different_tables(self) -> None:
        """Raise DiskNotRewritable when the copies of the table do not say the same."""
        first, *others = (self.file.read_at(begin, self.table_used) for begin in self.table_starts())
        if any(other != first for other in others):
            raise DiskNotRewritable("the copies of the table of FAT differ")

    def clean_folder(self, ranges: list[Range], dead: Dead, led_to: bytearray, folders: list[list[int]]) -> None:
        """Mark the removed names of a folder and all behind its last; note where its files lie, and its folders."""
        ended = False
        for start, end in ranges:
            data = self.file.read_at(start, end - start)
            for at in range(0, len(data), ENTRY):
                entry = data[at : at + ENTRY]
                ended = ended or entry[0] == END
                if ended:
                    dead.zero(start + at, start + len(data))
                    break
                if entry[0] == REMOVED:
                    dead.names += any(entry[1:])
                    dead.zero(start + at + 1, start + at + ENTRY)
                elif not entry[11] & LABEL and entry[:11] not in (b".".ljust(11), b"..".ljust(11)):
                    self.follow(entry, dead, led_to, folders)

    def follow(self, entry: bytes, dead: Dead, led_to: bytearray, folders: list[list[int]]) -> None:
        """Note where a file or a folder lies; mark what is behind the end of a file."""
        high, low, size = struct.unpack_from("<H4xHI", entry, 20)
        first = (high << 16 if self.is_fat32 else 0) | low
        if entry[11] & FOLDER:
            folders.append(self.chain(first, led_to))
            return
        clusters = self.chain(first, led_to) if first else []
        if len(clusters) * self.block_size < size:
            raise DiskNotRewritable("a file of FAT is longer than the table says")
        for number, at in enumerate(clusters):
            used = min(self.block_size, max(0, size - number * self.block_size))
            dead.zero(self.place(at) + used, self.place(at + 1))

    def chain(self, first: int, led_to: bytearray) -> list[int]:
        """Return the clusters of a file or a folder. Raises DiskNotRewritable for one that two names lead to."""
        clusters, number, last = [], first, (1 << min(self.bits, 28)) - 8
        while number < last:
            if not FIRST <= number < self.clusters + FIRST or led_to[number] or not self.next_of[number]:
                raise DiskNotRewritable("the table of FAT is damaged")
            led_to[number] = 1
            clusters.append(number)
            number = self.next_of[number]
        return clusters


class FatFileSystem(FileSystem):
    """A FAT file system, whose files pytsk3 reads."""

    @cached_property
    def table(self) -> Fat:
        """What its table says. Raises DiskNotRewritable when its boot sector makes no sense."""
        return Fat(self.file)

    @property
    def size_bytes(self) -> int:
        """How large it is by its boot sector."""
        return self.table.size

    @property
    def names(self) -> tuple[str, str]:
        """What fstab may call it, by its boot sector: by serial number, or by label."""
        boot = self.file.read_at(0, 512).ljust(512, b"\0")
        place = 67 if self.table.is_fat32 else 39
        serial = boot[place : place + 4][::-1].hex().upper()
        return fstab_names(f"{serial[:4]}-{serial[4:]}", boot[place + 4 : place + 15])

    @cached_property
    def entries(self) -> tuple[Entry, ...]:
        """Everything that has a name. Raises OSError for a folder that holds itself."""
        return tuple(self._walk())

    def is_free(self, offset: int) -> bool | None:
        """Say whether the cluster at a place is marked free."""
        return self.table.is_free(offset)

    def _walk(self) -> Iterator[Entry]:
        """Yield every entry. What cannot be read is left out, and its folder noted in `unread`."""
        root = self._entry("/", self.volume.open_meta(self.volume.info.root_inum))
        waiting, seen = [("", self.volume.open_dir("/"))], {root.extents}
        yield root
        while waiting:
            path, folder = waiting.pop()
            for child in folder:
                name = child.info.name
                if name.flags & UNALLOCATED or name.name in (b".", b".."):
                    continue
                try:
                    entry = self._entry(f"{path}/{name.name.decode('utf-8', 'replace')}", child)
                    below = child.as_directory() if entry.is_directory else None
                except OSError:
                    self.unread.append(path or "/")
                    continue
                if below and entry.extents in seen:
                    raise OSError(f"the folder {entry.path} is another one, too")
                if below:
                    seen.add(entry.extents)
                    waiting.append((entry.path, below))
                if entry.mode and (entry.size or not name.name.endswith(LABEL_OF_VOLUME)):
                    yield entry

    def _entry(self, path: str, node: Any) -> Entry:  # noqa: ANN401 - pytsk3 has no types
        """Return what pytsk3 says of a file as a value; without a mode for what is none, as the table itself."""
        meta, size = node.info.meta, self.volume.info.block_size
        if meta is None:
            raise OSError("its entry is damaged")
        runs = [run for attribute in node for run in attribute]
        extents = tuple(Extent(run.offset * size, run.addr * size, run.len * size) for run in runs)
        return Entry(path, meta.addr, meta.size, MODES.get(int(meta.type), 0), extents)


def open_fat(file: SourceFile) -> FatFileSystem:
    """Return the FAT file system of a partition. Raises OSError when pytsk3 does not understand it."""
    pytsk3 = importlib.import_module("pytsk3")
    return FatFileSystem("vfat", file, pytsk3.FS_Info(image_of(file)))
