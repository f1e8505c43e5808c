"""A disk as the whole of its blocks: each of them readable, and one hash over all (R06)."""

import hashlib
from collections.abc import Iterable, Iterator

from pipeline.errors import AssayError


def require_readable(blocks: Iterable[tuple[int, bytes | AssayError]]) -> Iterator[tuple[int, bytes]]:
    """Yield blocks as `read_many` gives them. Raises the error of the first that could not be read."""
    for index, data in blocks:
        if isinstance(data, AssayError):
            raise data
        yield index, data


def digest_blocks(size_bytes: int, block_size: int, blocks: Iterable[tuple[int, bytes]]) -> str:
    """Return what pins the content of a disk, from its blocks in rising order."""
    return digest_hashes(size_bytes, block_size, ((index, hash_block(data)) for index, data in blocks))


def hash_block(data: bytes) -> str:
    """Return the hash of a block; zeros have none: a copy may have them written or not."""
    return "" if data == bytes(len(data)) else hashlib.sha256(data).hexdigest()


def digest_hashes(size_bytes: int, block_size: int, hashes: Iterable[tuple[int, str]]) -> str:
    """Return what pins the content of a disk: SHA-256 over its size, and over number and hash of each block.

    The hashes come in rising order. Blocks without one, which are zeros, do not count.
    """
    pin = Pin(size_bytes, block_size)
    for index, value in hashes:
        pin.add(index, value)
    return pin.digest()


class Pin:
    """The digest of a disk while its blocks pass by in rising order."""

    def __init__(self, size_bytes: int, block_size: int) -> None:
        self._whole = hashlib.sha256(f"assay blocks 1 {size_bytes} {block_size}\n".encode())
        self._last = -1

    def add(self, index: int, value: str) -> bool:
        """Take the hash of a block once, and say whether it was taken. Zeros have none, and do not count."""
        taken = bool(value) and index > self._last
        if taken:
            self._whole.update(f"{index} {value}\n".encode())
            self._last = index
        return taken

    def digest(self) -> str:
        """Return the digest of all blocks so far."""
        return self._whole.hexdigest()
