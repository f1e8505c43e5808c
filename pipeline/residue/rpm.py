"""The files that the database of rpm vouches for, read from its SQLite form (rpm 4.16 and later; lib/header.c)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

DATABASES = ("/usr/lib/sysimage/rpm/rpmdb.sqlite", "/var/lib/rpm/rpmdb.sqlite")
STRINGS, NUMBERS = (6, 8, 9), {2: "B", 3: "H", 4: "I", 5: "Q"}
NAME, VERSION, RELEASE, ARCHITECTURE = 1000, 1001, 1002, 1022
DIRECTORIES, BASENAMES, DIRECTORY_OF, DIGESTS, MODES, FLAGS = 1118, 1117, 1116, 1035, 1030, 1037
CONFIGURATION = 1
JOURNAL_VERSIONS = slice(18, 20)
"""Of SQLite's header: 2 where a write-ahead log is in use, which a database in memory cannot have."""

Value = list[str] | list[int]


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """A file as its package has it."""

    path: str
    digest: str
    mode: int
    is_configuration: bool


@dataclass(frozen=True, slots=True)
class InstalledPackage:
    """A package, and the paths of its files."""

    name: str
    version: str
    architecture: str
    paths: tuple[str, ...]


def read_files(database: bytes) -> Iterator[PackagedFile]:
    """Yield the files of all packages. Raises ValueError for what is no such database, or a damaged one."""
    for header in read_headers(database):
        yield from files_of(header)


def read_packages(database: bytes) -> Iterator[InstalledPackage]:
    """Yield all packages. Raises ValueError for what is no such database, or a damaged one."""
    for header in read_headers(database):
        tags = read_header(header)
        name, version, release, architecture = (
            str((tags.get(tag) or [""])[0]) for tag in (NAME, VERSION, RELEASE, ARCHITECTURE)
        )
        paths = tuple(file.path for file in files_of(header))
        yield InstalledPackage(name, f"{version}-{release}", architecture, paths)


def read_headers(database: bytes) -> list[bytes]:
    """Return the header of each package. Raises ValueError for what is no such database, or a damaged one."""
    import sqlite3

    plain = bytearray(database)
    plain[JOURNAL_VERSIONS] = b"\1\1"
    try:
        with sqlite3.connect(":memory:") as connection:
            connection.deserialize(bytes(plain))
            return [bytes(blob) for (blob,) in connection.execute("SELECT blob FROM Packages")]
    except (sqlite3.Error, TypeError) as problem:
        raise ValueError("the database of rpm cannot be read") from problem


def files_of(header: bytes) -> Iterator[PackagedFile]:
    """Yield the files of one package."""
    tags = read_header(header)
    folders, numbers = tags.get(DIRECTORIES, []), tags.get(DIRECTORY_OF, [])
    modes, flags = tags.get(MODES, []), tags.get(FLAGS, [])
    for place, (name, digest) in enumerate(zip(tags.get(BASENAMES, []), tags.get(DIGESTS, []), strict=False)):
        try:
            folder, mode, flag = folders[int(numbers[place])], int(modes[place]), int(flags[place])
        except IndexError as problem:
            raise ValueError("a package of rpm makes no sense") from problem
        yield PackagedFile(f"{folder}{name}", str(digest), mode, bool(flag & CONFIGURATION))


def read_header(header: bytes) -> dict[int, Value]:
    """Return the values of a header by their tags, those of the kinds that are asked for."""
    if len(header) < 8:
        raise ValueError("a package of rpm is cut short")
    count, size = struct.unpack_from(">II", header)
    begin = 8 + 16 * count
    if begin + size > len(header):
        raise ValueError("a package of rpm is cut short")
    tags: dict[int, Value] = {}
    for place in range(8, begin, 16):
        tag, kind, offset, number = struct.unpack_from(">IIII", header, place)
        if kind in STRINGS:
            tags[tag] = read_strings(header, begin + offset, number)
        elif kind in NUMBERS and begin + offset + number * struct.calcsize(NUMBERS[kind]) <= len(header):
            tags[tag] = list(struct.unpack_from(f">{number}{NUMBERS[kind]}", header, begin + offset))
    return tags


def read_strings(header: bytes, place: int, number: int) -> list[str]:
    """Return strings that end with a zero each."""
    parts = header[place:].split(b"\0", number) if number <= len(header) else []
    return [part.decode("utf-8", "surrogateescape") for part in parts[:number]]
