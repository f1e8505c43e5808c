"""What survives a restart: one file, replaced atomically after each call that changes something.

It holds the control plane's own objects (pickled: they are moto's and ours, and moto's version is pinned). The file is
in the user's own directory, readable and writable by nobody else. Disks keep an index of their own; `load` is followed
by a reconciliation, so that a crash between the two leaves neither garbage nor records without a disk.
"""

import os
import pickle
from pathlib import Path
from typing import Any

FORMAT = 1


class StateRefused(RuntimeError):
    """The state cannot be read by this version; the message says what to do."""


def save_state(path: Path, content: dict[str, Any], moto_version: str) -> None:
    """Write the state: whole, on the disk, or not at all. Raises OSError."""
    record = pickle.dumps((FORMAT, moto_version, content), protocol=5)
    temporary = path.with_suffix(".new")
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(record)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    directory = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def load_state(path: Path, moto_version: str) -> dict[str, Any] | None:
    """Return the state, or None when there is none yet. Raises StateRefused for one of another version."""
    if not path.exists():
        return None
    advice = "`python -m pipeline.localcloud reset` begins anew"
    if path.stat().st_uid != os.geteuid():
        raise StateRefused(f"{path} belongs to somebody else: {advice}")
    try:
        found_format, found_moto, content = pickle.loads(path.read_bytes())  # noqa: S301 -- our own, and nobody else's
    except Exception as error:
        raise StateRefused(f"{path} cannot be read ({type(error).__name__}: {error}): {advice}") from error
    if (found_format, found_moto) != (FORMAT, moto_version):
        raise StateRefused(f"{path} was written by moto {found_moto}, this is {moto_version}: {advice}")
    return dict(content)
