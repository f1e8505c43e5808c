"""What is compressed is seen: whole, cut off, nested, and across block joins. Bombs and nonsense are bounded."""

import bz2
import gzip
import io
import lzma
import os
import zipfile
import zlib
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from pipeline.residue.containers import Budget, Damaged, Deflate, GitPack
from pipeline.residue.engine import Searcher, Stream
from pipeline.residue.secrets import build_secrets

BLOCK = 8192
TOKEN = "tok-" + os.urandom(12).hex()
SEARCHER = Searcher(build_secrets(tokens={"deploy token": TOKEN}))
TEXT = os.urandom(9000).hex().encode() + b"\n" + TOKEN.encode() + b"\n" + os.urandom(9000).hex().encode()


def zipped(data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a/first.txt", b"nothing here")
        archive.writestr("a/second.txt", data)
    return file.getvalue()


def packed(data: bytes) -> bytes:
    """A git pack of two blobs."""
    body = b"PACK\0\0\0\2\0\0\0\2"
    for blob in (b"first", data):
        size, header = len(blob), []
        byte = 3 << 4 | size & 15
        size >>= 4
        while size:
            header.append(byte | 0x80)
            byte, size = size & 0x7F, size >> 7
        body += bytes([*header, byte]) + zlib.compress(blob)
    return body + os.urandom(64)


WAYS: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
    "zstd": zstandard.compress,
    "zip": zipped,
    "git pack": packed,
    "git object": lambda data: zlib.compress(b"blob %d\0" % len(data) + data),
    "gzip in xz": lambda data: lzma.compress(gzip.compress(data)),
    "xz in a zip in gzip": lambda data: gzip.compress(zipped(lzma.compress(data))),
}


def found(data: bytes, budget: Budget | None = None, place: int = 4096) -> list[tuple[str, ...]]:
    disk = os.urandom(4096)[:place].ljust(place, b"!") + data
    disk += b"\n" * (-len(disk) % BLOCK)
    stream = Stream(SEARCHER, budget)
    matches = [
        match for start in range(0, len(disk), BLOCK) for match in stream.feed(start, disk[start : start + BLOCK])
    ]
    return [match.inside for match in (*matches, *stream.finish())]


@pytest.mark.parametrize("way", WAYS)
def test_a_secret_is_found_inside(way: str) -> None:
    assert len(found(WAYS[way](TEXT))) >= 1


@pytest.mark.parametrize("way", ["gzip", "xz", "zstd", "zip"])
@pytest.mark.parametrize("place", [4096, BLOCK - 1, BLOCK - 3, BLOCK - 20])
def test_the_magic_may_lie_across_a_join(way: str, place: int) -> None:
    assert len(found(WAYS[way](TEXT), place=place)) == 1


def test_it_is_found_in_gzip_without_its_footer_and_in_what_was_cut_off() -> None:
    whole = gzip.compress(TEXT)
    assert found(whole[:-8])
    assert found(whole[: len(whole) * 3 // 4] + b"\xff" * 5000)
    assert not found(whole[: len(whole) // 4] + b"\xff" * 5000)


def test_a_member_says_where_it_is() -> None:
    assert found(lzma.compress(gzip.compress(TEXT)))[0] == ("xz at 4096", "gzip at 0")


def test_a_bomb_is_stopped_and_said_so() -> None:
    budget = Budget(member_bytes=8 << 20)
    found(gzip.compress(bytes(64 << 20)) + TEXT, budget)
    assert "gzip at 4096: stopped after" in budget.stopped[0]


def test_nesting_is_bounded_and_said_so() -> None:
    budget = Budget(depth=2)
    found(gzip.compress(gzip.compress(gzip.compress(TEXT))), budget)
    assert "nested too deep" in budget.stopped[0]


@given(st.binary(max_size=300))
def test_nonsense_behind_a_magic_does_not_raise(data: bytes) -> None:
    for magic in (
        b"\x1f\x8b\x08\0\0\0\0\0\0\3",
        b"PK\3\4\x14\0\0\0\x08\0",
        b"\xfd7zXZ\0\0\4",
        b"BZh91AY&SY",
        b"\x28\xb5\x2f\xfd\x24",
        b"PACK\0\0\0\2\0",
    ):
        found(magic + data)


@given(st.binary(max_size=300), st.integers(1, 50))
def test_a_git_pack_of_nonsense_is_damaged_at_most(data: bytes, size: int) -> None:
    pack = GitPack()
    try:
        for start in range(0, len(data), size):
            list(pack.feed(b"PACK\0\0\0\2\0\0\0\5"[start:] + data[start : start + size]))
    except Damaged:
        pass


@given(st.binary(max_size=2000), st.integers(1, 64))
def test_deflate_gives_the_same_in_any_slices(data: bytes, size: int) -> None:
    packed_data = gzip.compress(data)
    stream = Deflate(31)
    out = b"".join(
        b"".join(stream.feed(packed_data[start : start + size])) for start in range(0, len(packed_data), size)
    )
    assert out == data
    assert stream.finished
