"""Whose a file of a system is: a package's, the spec's, or nobody's."""

import hashlib
import re
from dataclasses import dataclass

from pipeline.residue.filesystems import Entry
from pipeline.residue.system import System

Written = frozenset[tuple[str, str]]
"""What the build itself wrote: paths, and the SHA-256 of what it wrote there."""

SAYS_NOTHING = re.compile(r"\s*(#.*)?")


def digest_of(content: bytes) -> str:
    """Return the digest by which `Written` knows a file."""
    return hashlib.sha256(content).hexdigest()


@dataclass(frozen=True)
class Doubt:
    """Something on a system that could be a back door: nobody says that it is theirs."""

    control: str
    kind: str
    path: str
    detail: str = ""


class Origin:
    """Says of the files of one system whose they are."""

    def __init__(self, system: System, written: Written = frozenset()) -> None:
        self.system = system
        self.packages = system.packages
        self._written = written
        self._written_paths = {path for path, _ in written}

    def is_ours(self, entry: Entry) -> bool:
        """Say whether a file is, byte by byte, what the spec's own steps wrote."""
        if entry.path not in self._written_paths:
            return False
        return (entry.path, digest_of(self.system.content(entry))) in self._written

    def explains(self, entry: Entry) -> bool:
        """Say whether a file is a package's, a copy of one, or the spec's."""
        return self.packages.vouches_for(entry) or self.packages.repeats(entry) or self.is_ours(entry)

    def explains_or_empty(self, entry: Entry) -> bool:
        """Say the same of a text, which may also say nothing: no line but comments."""
        return self.explains(entry) or all(map(SAYS_NOTHING.fullmatch, self.lines(entry)))

    def lines(self, entry: Entry) -> list[str]:
        """Return the lines of a text."""
        return self.system.content(entry).decode("utf-8", "replace").splitlines()

    def unexplained(self, pattern: re.Pattern[str]) -> list[Entry]:
        """Return the files at paths that match as a whole, and are nobody's and not empty."""
        return [
            entry for entry in self.system.files if pattern.fullmatch(entry.path) and not self.explains_or_empty(entry)
        ]
