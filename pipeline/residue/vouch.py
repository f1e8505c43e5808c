"""What a package database vouches for byte by byte. Files are never trusted by their path: plants hide in paths."""

import hashlib
from functools import cache, cached_property

from pipeline.residue.filesystems import Entry, FileSystem

MERGED = ("bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/")
"""Folders that are links into /usr: packages may still name files by them."""


class PackageDatabase:
    """The hashes of dpkg, read from the image itself: of the files of packages, configuration included."""

    def __init__(self, file_system: FileSystem) -> None:
        self._file_system = file_system
        self._verdicts: dict[str, bool] = {}

    @cached_property
    def hashes(self) -> dict[str, set[str]]:
        """The MD5 digests that packages give for each path, without its leading slash."""
        hashes: dict[str, set[str]] = {}
        for entry in self._file_system.entries:
            if entry.path.startswith("/var/lib/dpkg/info/") and entry.path.endswith(".md5sums"):
                for line in self._text(entry).splitlines():
                    digest, _, path = line.partition("  ")
                    hashes.setdefault(in_usr(path), set()).add(digest)
            elif entry.path == "/var/lib/dpkg/status":
                for line in self._text(entry).splitlines():
                    words = line.split(" ")
                    if line.startswith(" /") and len(words) == 3 and len(words[2]) == 32:
                        hashes.setdefault(in_usr(words[1][1:]), set()).add(words[2])
        return hashes

    def vouches_for(self, entry: Entry) -> bool:
        """Say whether a file is, byte by byte, what a package put there."""
        if entry.path not in self._verdicts:
            known = self.hashes.get(in_usr(entry.path[1:]))
            self._verdicts[entry.path] = bool(known) and self._digest(entry) in known  # type: ignore[operator]
        return self._verdicts[entry.path]

    def _digest(self, entry: Entry) -> str:
        """Return the MD5 of a file: the hash that packages carry."""
        digest = hashlib.md5(usedforsecurity=False)
        for piece in self._file_system.read(entry):
            digest.update(piece)
        return digest.hexdigest()

    def _text(self, entry: Entry) -> str:
        """Return a small file of the database as text."""
        return b"".join(self._file_system.read(entry)).decode("utf-8", "replace")


@cache
def in_usr(path: str) -> str:
    """Return a path as it is where /bin, /lib and so on are links into /usr."""
    return f"usr/{path}" if path.startswith(MERGED) else path
