"""What a package database vouches for byte by byte. Files are never trusted by their path: plants hide in paths."""

import hashlib
import re
from collections.abc import Iterator
from functools import cached_property
from typing import Protocol

from pipeline.residue import rpm
from pipeline.residue.filesystems import Entry

MERGED = ("bin/", "sbin/", "lib/", "lib32/", "lib64/", "libx32/")
"""Folders that are links into /usr: packages may still name files by them."""
DPKG = "/var/lib/dpkg/"
INSTALLED = re.compile(r"^Package: (\S+)\nStatus: \S+ \S+ installed$", re.MULTILINE)
ALGORITHMS = {32: "md5", 40: "sha1", 64: "sha256", 96: "sha384", 128: "sha512"}
"""By the digits of a digest."""

COMPILED = re.compile(r"(?P<folder>.*/)__pycache__/(?P<name>[^/]+)\.(?:cpython|pypy)[^/]*\.pyc")
PYC_HEADER = 16


class Files(Protocol):
    """A file system, or a system of several."""

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything that has a path."""

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield the content of a file in pieces."""


class PackageDatabase:
    """The hashes of dpkg or rpm, read from the image itself: of the files of packages, configuration included."""

    def __init__(self, files: Files) -> None:
        self._files = files
        self._digests: dict[tuple[str, str], str] = {}
        self.configuration: set[str] = set()
        """Paths, as in `hashes`, of files that are meant to be changed."""
        self.modes: dict[str, int] = {}
        """The modes that packages give to files; dpkg keeps none."""

    @cached_property
    def hashes(self) -> dict[str, tuple[str, ...]]:
        """The digests that packages give for each path, without its leading slash."""
        hashes: dict[str, tuple[str, ...]] = {}
        for entry in self._files.entries:
            if entry.path.startswith(f"{DPKG}info/") and entry.path.endswith(".md5sums"):
                for line in self._text(entry).splitlines():
                    digest, _, path = line.partition("  ")
                    if len(digest) == 32:
                        add(hashes, in_usr(path), digest)
            elif entry.path == f"{DPKG}status":
                for line in self._text(entry).splitlines():
                    words = line.split(" ")
                    if line.startswith(" /") and len(words) >= 3 and len(words[2]) == 32:
                        path = in_usr(words[1][1:])
                        self.configuration.add(path)
                        add(hashes, path, words[2])
            elif entry.path in rpm.DATABASES and entry.is_file:
                self._take_rpm(hashes, entry)
        for path, other in self._diversions():
            add(hashes, other, *hashes.get(path, ()))
        return hashes

    @cached_property
    def paths(self) -> frozenset[str]:
        """Every path that some package has, links and folders too, as in `hashes`."""
        paths = set(self.hashes) | self.modes.keys()
        for entry in self._files.entries:
            if entry.path.startswith(f"{DPKG}info/") and entry.path.endswith(".list"):
                paths.update(in_usr(line[1:]) for line in self._text(entry).splitlines())
        return frozenset(paths)

    @cached_property
    def installed(self) -> frozenset[str]:
        """The names of the packages that are installed."""
        names: set[str] = set()
        for entry in self._files.entries:
            if entry.path == f"{DPKG}status":
                names.update(INSTALLED.findall(self._text(entry)))
            elif entry.path in rpm.DATABASES and entry.is_file:
                database = b"".join(self._files.read(entry))
                names.update(package.name for package in rpm.read_packages(database))
        return frozenset(names)

    @cached_property
    def contents(self) -> frozenset[str]:
        """Every digest that some package gives."""
        return frozenset(digest for digests in self.hashes.values() for digest in digests)

    @cached_property
    def algorithms(self) -> frozenset[str]:
        """What the digests of packages are made with."""
        return frozenset(ALGORITHMS[len(digest)] for digest in self.contents)

    @property
    def is_known(self) -> bool:
        """Whether there is a database that names files."""
        return bool(self.hashes)

    def names(self, entry: Entry) -> bool:
        """Say whether some package has a file at this path, with a digest."""
        return in_usr(entry.path[1:]) in self.hashes

    def lists(self, entry: Entry) -> bool:
        """Say whether some package has anything at this path: a file, a link or a folder."""
        return in_usr(entry.path[1:]) in self.paths

    def vouches_for(self, entry: Entry) -> bool:
        """Say whether a file is, byte by byte, what a package put there."""
        known = self.hashes.get(in_usr(entry.path[1:]), ())
        return any(self._digest(entry, ALGORITHMS[len(digest)]) == digest for digest in known)

    def vouches_for_source_of(self, entry: Entry) -> bool:
        """Say whether a file is compiled Python that lies beside a package's source."""
        source = source_of(entry)
        return source is not None and self.is_compiled_of(self._by_path.get(source), entry)

    def is_compiled_of(self, source: Entry | None, entry: Entry) -> bool:
        """Say whether a source is what a package put there, and compiled Python names its size (PEP 552).

        That it is what the source compiles to is not known without the same Python.
        """
        if source is None or not self.vouches_for(source):
            return False
        head = next(iter(self._files.read(entry)), b"")[:PYC_HEADER]
        flags, size = int.from_bytes(head[4:8], "little"), int.from_bytes(head[12:16], "little")
        return bool(flags) or size == source.size & 0xFFFFFFFF

    @cached_property
    def _by_path(self) -> dict[str, Entry]:
        """The sources of Python by their paths."""
        return {entry.path: entry for entry in self._files.entries if entry.path.endswith(".py")}

    def repeats(self, entry: Entry) -> bool:
        """Say whether a file has the content of some package's file: packages copy what they bring."""
        return any(self._digest(entry, algorithm) in self.contents for algorithm in self.algorithms)

    def _take_rpm(self, hashes: dict[str, tuple[str, ...]], entry: Entry) -> None:
        for file in rpm.read_files(b"".join(self._files.read(entry))):
            path = in_usr(file.path[1:])
            self.modes[path] = file.mode
            if file.is_configuration:
                self.configuration.add(path)
            if len(file.digest) in ALGORITHMS:
                add(hashes, path, file.digest)

    def _diversions(self) -> Iterator[tuple[str, str]]:
        """Yield where a package's file lies instead of where the package has it (dpkg-divert(1))."""
        for entry in self._files.entries:
            if entry.path == f"{DPKG}diversions":
                lines = self._text(entry).splitlines()
                pairs = zip(lines[::3], lines[1::3], strict=False)
                yield from ((in_usr(path[1:]), in_usr(other[1:])) for path, other in pairs)

    def _digest(self, entry: Entry, algorithm: str) -> str:
        """Return the digest of a file, which is read once."""
        key = (entry.path, algorithm)
        if key not in self._digests:
            digest = hashlib.new(algorithm, usedforsecurity=False)
            for piece in self._files.read(entry):
                digest.update(piece)
            self._digests[key] = digest.hexdigest()
        return self._digests[key]

    def _text(self, entry: Entry) -> str:
        """Return a small file of the database as text."""
        return b"".join(self._files.read(entry)).decode("utf-8", "replace")


def source_of(entry: Entry) -> str | None:
    """Return the path of the source that a file was compiled of; None for what is no compiled Python."""
    compiled = COMPILED.fullmatch(entry.path)
    return f"{compiled['folder']}{compiled['name']}.py" if compiled else None


def add(hashes: dict[str, tuple[str, ...]], path: str, *digests: str) -> None:
    """Give a path more digests. A tuple takes a fifth of a set's memory, and nearly every file has one digest."""
    hashes[path] = (*hashes.get(path, ()), *digests)


def in_usr(path: str) -> str:
    """Return a path as it is where /bin, /lib and so on are links into /usr."""
    return f"usr/{path}" if path.startswith(MERGED) else path
