"""Looking into gzip, xz, bzip2, zstd, zip members and git objects as their bytes pass by, truncated ones too (R04).

Nothing is read twice: a container is opened where its magic is, fed with the blocks that follow, and dropped when its
data ends or makes no sense. Memory and output are bounded; what was stopped at a bound is counted, and is not a pass.
"""

import bz2
import lzma
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Protocol

from pipeline.residue.encodings import Encoding, parse_form
from pipeline.residue.rules import Sighting, Trigger

PIECE = 256 * 1024
"""What a decompressor may give at once, in bytes."""

SLICE = 16 * 1024
"""What deflate is fed with at once: damage in it costs a second try, byte by byte."""

SMALL_SLICE = 1024
"""What the others are fed with at once: what it gave is lost when it is damaged, and a bomb gives little."""

WINDOW_LIMIT = 128 * 1024 * 1024
"""The dictionary that xz and zstd may ask for, in bytes."""


class Damaged(Exception):
    """The data makes no sense as what its magic says."""


@dataclass
class Budget:
    """What all containers of a scan may use together, and what became of them."""

    output_bytes: int = 16 << 30
    member_bytes: int = 1 << 30
    depth: int = 3
    at_once: int = 64
    opened: int = 0
    came_out: int = 0
    stopped: list[str] = field(default_factory=list)

    def rest(self) -> "Budget":
        """Return what is left, for a search that keeps its own account."""
        return replace(self, output_bytes=self.output_bytes - self.came_out, opened=0, came_out=0, stopped=[])

    def take(self, used: "Budget") -> None:
        """Add the account of such a search to this one."""
        self.came_out += used.came_out
        self.opened += used.opened
        self.stopped += used.stopped


class Decompressor(Protocol):
    """Turns what is fed into what it holds."""

    finished: bool

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out, in pieces of a few hundred kibibytes at most. Raises Damaged."""


class Deflate:
    """A deflate stream: gzip, zlib or the bare stream of a zip member, by its window bits."""

    def __init__(self, window_bits: int, skip: int = 0) -> None:
        self._stream = zlib.decompressobj(window_bits)
        self._skip = skip
        self.finished = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out, to the last byte before the damage. Raises Damaged."""
        data, self._skip = data[self._skip :], max(0, self._skip - len(data))
        for start in range(0, len(data), SLICE):
            before = self._stream.copy()
            try:
                pieces = list(self._inflate(data[start : start + SLICE]))
            except zlib.error:
                self._stream = before
                yield from self._salvage(data[start : start + SLICE])
                return
            yield from pieces
            if self.finished:
                return

    def _inflate(self, data: bytes) -> Iterator[bytes]:
        """Yield what some bytes give."""
        while not self.finished:
            piece = self._stream.decompress(data, PIECE)
            data = self._stream.unconsumed_tail
            self.finished = self._stream.eof
            if piece:
                yield piece
            if not data and len(piece) < PIECE:
                return

    def _salvage(self, data: bytes) -> Iterator[bytes]:
        """Yield what some bytes give, one by one, until the damage. Raises Damaged."""
        for number in range(len(data)):
            try:
                yield from list(self._inflate(data[number : number + 1]))
            except zlib.error as problem:
                raise Damaged from problem


class Bounded:
    """xz or bzip2, whose classes share an interface."""

    def __init__(self, stream: "lzma.LZMADecompressor | bz2.BZ2Decompressor") -> None:
        self._stream = stream
        self.finished = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out. Raises Damaged."""
        for start in range(0, len(data), SMALL_SLICE):
            try:
                piece = self._stream.decompress(data[start : start + SMALL_SLICE], PIECE)
                while piece:
                    yield piece
                    piece = b"" if self._stream.eof or self._stream.needs_input else self._stream.decompress(b"", PIECE)
            except (lzma.LZMAError, OSError, EOFError, ValueError) as problem:
                raise Damaged from problem
            self.finished = self._stream.eof
            if self.finished:
                return


class Zstandard:
    """zstd: fed in small slices, so that a bomb cannot give much at once."""

    def __init__(self) -> None:
        import zstandard

        self._error = zstandard.ZstdError
        self._stream = zstandard.ZstdDecompressor(max_window_size=WINDOW_LIMIT).decompressobj()
        self.finished = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out. Raises Damaged."""
        for start in range(0, len(data), SMALL_SLICE):
            if self.finished:
                return
            try:
                piece = self._stream.decompress(data[start : start + SMALL_SLICE])
            except self._error as problem:
                raise Damaged from problem
            self.finished = self._stream.eof
            if piece:
                yield piece


class GitPack:
    """A git pack: one deflate stream after another, each behind a header that says its type."""

    def __init__(self) -> None:
        self._pending = b""
        self._left: int | None = None
        self._object: zlib._Decompress | None = None
        self.finished = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield what comes out, objects one after the other. Raises Damaged."""
        self._pending += data
        if self._left is None:
            if len(self._pending) < 12:
                return
            self._left = int.from_bytes(self._pending[8:12], "big")
            self._pending = self._pending[12:]
        while self._left and (self._object or len(self._pending) > 64):
            self._object = self._object or self._open()
            try:
                piece = self._object.decompress(self._pending, PIECE)
            except zlib.error as problem:
                raise Damaged from problem
            self._pending = self._object.unconsumed_tail
            if self._object.eof:
                self._pending, self._object = self._object.unused_data, None
                self._left -= 1
                piece += b"\n"
            if piece:
                yield piece
            elif not self._pending:
                return
        self.finished = self._left == 0

    def _open(self) -> "zlib._Decompress":
        """Skip the header of the next object: type and size, and for a delta what it is based on."""
        place = 0
        kind = self._pending[0] >> 4 & 7
        while self._pending[place] & 0x80:
            place = self._checked(place + 1)
        place += 1
        if kind == 6:
            while self._pending[place] & 0x80:
                place = self._checked(place + 1)
            place += 1
        elif kind == 7:
            place += 20
        elif kind in (0, 5):
            raise Damaged
        self._pending = self._pending[place:]
        return zlib.decompressobj()

    @staticmethod
    def _checked(place: int) -> int:
        """Return a place in a header, which is never long. Raises Damaged."""
        if place > 20:
            raise Damaged
        return place


@dataclass(frozen=True)
class ContainerKind:
    """A kind of container: the magic that triggers it, and how it is opened. A rule that never matches by itself."""

    identity: str
    magic: bytes
    header: int
    """How many bytes `open` wants to see; the magic may come later than the first of them."""
    open: Callable[[bytes], Decompressor | None]

    controls = ("R04",)
    kind = "container"
    reach = (0, 0)

    def triggers(self) -> tuple[Trigger, ...]:
        """Return the magic."""
        return (Trigger(parse_form(self.magic), Encoding.PLAIN),)

    def examine(self, window: bytes, place: int, trigger: Trigger) -> Sighting | None:
        """Return nothing: what is inside decides."""
        return None


def open_gzip(header: bytes) -> Decompressor | None:
    """Return the decompressor of gzip."""
    return Deflate(31)


def open_zip_member(header: bytes) -> Decompressor | None:
    """Return the decompressor of a deflated, unencrypted zip member: its name and extra field stand before it."""
    encrypted = header[6] & 1
    skip = 30 + int.from_bytes(header[26:28], "little") + int.from_bytes(header[28:30], "little")
    return None if encrypted or len(header) < 30 else Deflate(-15, skip)


def open_xz(header: bytes) -> Decompressor | None:
    """Return the decompressor of xz."""
    return Bounded(lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=WINDOW_LIMIT))


def open_bzip2(header: bytes) -> Decompressor | None:
    """Return the decompressor of bzip2."""
    return Bounded(bz2.BZ2Decompressor())


def open_zstd(header: bytes) -> Decompressor | None:
    """Return the decompressor of zstd."""
    return Zstandard()


def open_git_pack(header: bytes) -> Decompressor | None:
    """Return the reader of a git pack of version 2 or 3."""
    return GitPack() if header[4:8] in (b"\0\0\0\2", b"\0\0\0\3") else None


CONTAINERS = (
    ContainerKind("gzip", rb"\x1f\x8b\x08[\x00-\x1f].{4}[\x00\x02\x04][\x00-\x0d\xff]", 10, open_gzip),
    ContainerKind("zip member", rb"PK\x03\x04[\x0a-\x40]\x00..\x08\x00", 30, open_zip_member),
    ContainerKind("xz", rb"\xfd7zXZ\x00\x00[\x00-\x0f]", 12, open_xz),
    ContainerKind("bzip2", rb"BZh[1-9]1AY&SY", 10, open_bzip2),
    ContainerKind("zstd", rb"\x28\xb5\x2f\xfd[\x00-\xff]", 6, open_zstd),
    ContainerKind("git pack", rb"PACK\x00\x00", 12, open_git_pack),
)


def git_objects(data: bytes) -> Iterator[int]:
    """Yield where loose git objects begin: they are zlib streams at the beginning of a file, so of a page."""
    pages = data[::4096]
    page = pages.find(b"x")
    while page >= 0:
        start = page * 4096
        if data[start + 1 : start + 2] in (b"\x01", b"\x5e", b"\x9c", b"\xda") and is_git_object(
            data[start : start + 96]
        ):
            yield start
        page = pages.find(b"x", page + 1)


def is_git_object(header: bytes) -> bool:
    """Say whether a zlib stream begins as a git object does."""
    try:
        beginning = zlib.decompressobj().decompress(header, 12)
    except zlib.error:
        return False
    return beginning.startswith((b"blob ", b"commit ", b"tree ", b"tag "))
