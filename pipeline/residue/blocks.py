"""Where blocks come from: the protocol that every source serves, and the source for files, raw or virtual disks.

EBS direct is served by `aws/blocks.py`, which cannot import this room: the protocol is structural.
"""

import contextlib
import errno
import json
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self

from pipeline.errors import AssayError, BlockUnreadable, SpecInvalid

BLOCK_SIZE = 512 * 1024
"""The block of EBS direct, in bytes."""

VIRTUAL_DISKS = (
    (0, b"QFI\xfb", "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"conectix", "vpc"),
    (0, b"vhdxfile", "vhdx"),
    (64, b"\x7f\x10\xda\xbe", "vdi"),
)
"""Where the magic of a format is, and QEMU's name of the format: in none of them is a disk as a system sees it."""

WRAPPED = (
    (0, b"\x1f\x8b", "is compressed by gzip", "unpack it first: gzip -dk FILE"),
    (0, b"\xfd7zXZ\0", "is compressed by xz", "unpack it first: xz -dk FILE"),
    (0, b"BZh", "is compressed by bzip2", "unpack it first: bzip2 -dk FILE"),
    (0, b"\x28\xb5\x2f\xfd", "is compressed by zstd", "unpack it first: zstd -d FILE"),
    (0, b"PK\x03\x04", "is a zip archive", "unpack it first: unzip FILE"),
    (257, b"ustar", "is a tar archive, as an OVA is", "unpack it first, and scan the disk in it: tar -xf FILE"),
    (0, b"# Disk DescriptorFile", "only describes a VMDK disk", "scan the file that it names"),
)
"""What is no disk but may hold one, and what to do first: in compressed data no secret is seen whole."""

MAGIC_BYTES = 512


class BlockSource(Protocol):
    """A disk as numbered blocks. A block that is not in `indices()` was never written and reads as zeros."""

    @property
    def size_bytes(self) -> int:
        """The size of the whole disk."""

    @property
    def block_size(self) -> int:
        """The size of a block in bytes; only the last block of a file may be shorter."""

    def indices(self) -> Iterable[int]:
        """Return the numbers of the written blocks, in rising order."""

    def read(self, index: int) -> bytes:
        """Return one block. Raises an AssayError when it cannot be read or its checksum is wrong."""

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes | AssayError]]:
        """Yield blocks in the order asked, many in flight. A block that cannot be read comes as its error."""


class RawFile:
    """A raw disk image in a file; holes of the file are blocks that were never written."""

    is_local = True
    """Reading a block again costs nothing."""

    def __init__(self, path: Path, block_size: int = BLOCK_SIZE) -> None:
        self.path = path
        self.block_size = block_size
        try:
            self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError as problem:
            raise BlockUnreadable(f"cannot open the image: {problem.strerror}", resource=str(path)) from problem
        self.size_bytes = os.lseek(self._descriptor, 0, os.SEEK_END)
        self.identity = f"{path} {os.fstat(self._descriptor).st_mtime_ns}"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file. A second call does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def indices(self) -> Iterator[int]:
        """Yield the numbers of the blocks that hold data (SEEK_DATA); all of them where the file system cannot tell."""
        following = 0
        for start, end in data_ranges(self._descriptor, self.size_bytes):
            first = max(start // self.block_size, following)
            following = max(following, -(-end // self.block_size))
            yield from range(first, following)

    def read(self, index: int) -> bytes:
        """Return one block; the last may be shorter. Raises BlockUnreadable."""
        start = index * self.block_size
        wanted = min(self.block_size, self.size_bytes - start)
        try:
            data = os.pread(self._descriptor, wanted, start)
        except OSError as problem:
            raise BlockUnreadable(
                f"block {index} cannot be read: {problem.strerror}", resource=str(self.path)
            ) from problem
        if len(data) != wanted:
            raise BlockUnreadable(f"block {index} is cut short: {len(data)} of {wanted} bytes", resource=str(self.path))
        return data

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes | AssayError]]:
        """Yield blocks in the order asked; a block that cannot be read comes as its error."""
        for index in indices:
            try:
                yield index, self.read(index)
            except BlockUnreadable as problem:
                yield index, problem


def data_ranges(descriptor: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """Yield (start, end) of each range of an open file that is not a hole, in bytes."""
    position = 0
    while position < size_bytes:
        try:
            start = os.lseek(descriptor, position, os.SEEK_DATA)
        except OSError as problem:
            only_a_hole_is_left = problem.errno == errno.ENXIO and os.fstat(descriptor).st_size >= size_bytes
            if not only_a_hole_is_left:
                yield position, size_bytes
            return
        position = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, position


class Spool:
    """A source whose blocks are kept in a temporary file as they pass by, so that what is far away is read once.

    The file has no name, and takes as much space as the blocks that are not zeros.
    """

    is_local = True

    def __init__(self, source: BlockSource) -> None:
        self._source = source
        self.size_bytes = source.size_bytes
        self.block_size = source.block_size
        self.identity = getattr(source, "identity", "")
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - it lives as long as the spool
        self._kept: set[int] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()

    def indices(self) -> Iterable[int]:
        """Return the numbers of the written blocks, in rising order."""
        return self._source.indices()

    def read(self, index: int) -> bytes:
        """Return one block, from the file where it is kept. Raises an AssayError when the source cannot give it."""
        if index not in self._kept:
            data = self._source.read(index)
            self._keep(index, data)
            return data
        return os.pread(self._file.fileno(), self.block_size, index * self.block_size)

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes | AssayError]]:
        """Yield blocks in the order asked, and keep them. When the disk is full, they are read again."""
        wanted = list(indices)
        if self._kept.issuperset(wanted):
            yield from ((index, self.read(index)) for index in wanted)
            return
        for index, data in self._source.read_many(wanted):
            if not isinstance(data, AssayError):
                self._keep(index, data)
            yield index, data

    def _keep(self, index: int, data: bytes) -> None:
        """Write a block into the file, unless its disk is full."""
        with contextlib.suppress(OSError):
            if os.pwrite(self._file.fileno(), data, index * self.block_size) == len(data):
                self._kept.add(index)


class VirtualDisk(RawFile):
    """A disk in a format of `VIRTUAL_DISKS`, with what it is based on, as a system sees it.

    It is read through a sparse raw copy in a temporary folder that `close` removes.
    """

    def __init__(self, path: Path, form: str, block_size: int = BLOCK_SIZE, folder: Path | None = None) -> None:
        refuse_unreadable(path, form)
        self._folder = Path(tempfile.mkdtemp(prefix="assay-scan-", dir=folder))
        raw = self._folder / "disk.raw"
        try:
            qemu_img("convert", "-f", form, "-O", "raw", "-S", "4k", str(path), str(raw), about=path)
            super().__init__(raw, block_size)
        except BaseException:
            shutil.rmtree(self._folder, ignore_errors=True)
            raise
        self.path = path

    def close(self) -> None:
        """Close the copy and remove it."""
        super().close()
        shutil.rmtree(self._folder, ignore_errors=True)


def open_image(path: Path, block_size: int = BLOCK_SIZE) -> RawFile:
    """Return the disk in `path`, told apart by its first bytes. Raises BlockUnreadable, SpecInvalid."""
    hint = "give a disk image: raw, qcow2, VMDK, VHD, VHDX or VDI"
    if not path.is_file() and not path.is_block_device():
        raise SpecInvalid("there is no such image file", resource=str(path), hint=hint)
    try:
        with path.open("rb") as file:
            begin = file.read(MAGIC_BYTES)
    except OSError as problem:
        raise BlockUnreadable(f"cannot open the image: {problem.strerror}", resource=str(path)) from problem
    for place, magic, what, how in WRAPPED:
        if begin[place:].startswith(magic):
            advice = how.replace("FILE", shlex.quote(str(path)))
            raise SpecInvalid(f"the image {what}", resource=str(path), hint=advice)
    forms = [form for place, magic, form in VIRTUAL_DISKS if begin[place:].startswith(magic)]
    image = VirtualDisk(path, forms[0], block_size) if forms else RawFile(path, block_size)
    if image.size_bytes == 0:
        image.close()
        raise BlockUnreadable("the image is empty", resource=str(path), hint=hint)
    return image


def refuse_unreadable(path: Path, form: str) -> None:
    """Raise BlockUnreadable for an encrypted image, and for one that refers to anything but plain files."""
    facts = json.loads(qemu_img("info", "--output=json", "-f", form, str(path), about=path))
    if facts.get("encrypted"):
        raise BlockUnreadable(
            "the image is encrypted", resource=str(path), hint="decrypt it first: what cannot be read cannot be proved"
        )
    behind = str(facts.get("full-backing-filename", ""))
    if behind.startswith("json:") or "://" in behind:
        raise BlockUnreadable("the image is based on something that is not a file", resource=str(path))


def qemu_img(*arguments: str, about: Path) -> bytes:
    """Run qemu-img and return its output. Raises BlockUnreadable with its last line."""
    try:
        return subprocess.run(["qemu-img", *arguments], check=True, capture_output=True).stdout
    except FileNotFoundError as problem:
        raise BlockUnreadable("qemu-img is not installed", resource=str(about), hint="install qemu-utils") from problem
    except subprocess.CalledProcessError as problem:
        lines = problem.stderr.decode(errors="replace").strip().splitlines() or ["no reason given"]
        raise BlockUnreadable(f"qemu-img cannot read the image: {lines[-1]}", resource=str(about)) from problem
