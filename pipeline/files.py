"""Files that must be whole: a report, a log, a lock."""

import os
import tempfile
from pathlib import Path

from pipeline.errors import FileUnwritable


def write_atomically(path: Path, content: str | bytes) -> None:
    """Write a file so that a reader, or a crash, finds the old content or the new one, and never a part.

    Raises FileUnwritable when the disk is full, or the folder may not be written.
    """
    data = content.encode(errors="backslashreplace") if isinstance(content, str) else content
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            try:
                file.write(data)
                file.flush()
                os.fchmod(file.fileno(), 0o644)
                os.fsync(file.fileno())
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
    except OSError as error:
        raise FileUnwritable(f"cannot be written: {error.strerror}", resource=str(path)) from error
