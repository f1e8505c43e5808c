"""What pins the content of a disk: one hash over its blocks, the same for every true copy of it (R06)."""

import hashlib
from collections.abc import Iterable


def digest_blocks(size_bytes: int, block_size: int, blocks: Iterable[tuple[int, bytes]]) -> str:
    """Return SHA-256 over the size and over number and hash of every block that is not zeros, in rising order.

    Zeros do not count: a copy may have them written or not. A proof on raw blocks pins what it searched by the same.
    """
    whole = hashlib.sha256(f"assay blocks 1 {size_bytes} {block_size}\n".encode())
    for index, data in blocks:
        if data.strip(b"\0"):
            whole.update(f"{index} {hashlib.sha256(data).hexdigest()}\n".encode())
    return whole.hexdigest()
