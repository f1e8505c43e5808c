"""The operating system on a disk: the files of all of its file systems as they are when it runs, without running it."""

import posixpath
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import cached_property

from pipeline.residue.filesystems import Entry, FileSystem, Partition
from pipeline.residue.locate import Locator
from pipeline.residue.rules import fingerprint_in, fingerprint_of
from pipeline.residue.vouch import PackageDatabase

MOST_LINKS = 40
"""Links that a path may lead over, as in Linux (path_resolution(7))."""
LARGEST_TEXT = 8 << 20
"""Settings are never longer: what is longer is no text to read as a whole."""
SIGNS = ("/etc/passwd", "/etc/os-release", "/usr/lib/os-release")


class System:
    """One operating system: its root file system, and those that its fstab mounts below."""

    def __init__(
        self,
        root: FileSystem,
        mounted: dict[str, FileSystem] | None = None,
        packages: PackageDatabase | None = None,
    ) -> None:
        """Take the root file system, others by the folders where they are mounted, and the root's package database."""
        self._packages = None if mounted else packages
        self._entries: dict[str, Entry] = {}
        self._mounted: dict[str, FileSystem] = {}
        """Where what lies in a mounted file system is read from."""
        self.folders: dict[str, FileSystem] = {"": root, **(mounted or {})}
        for folder in sorted(self.folders):
            hidden = [path for path in self._entries if folder and path.startswith(f"{folder}/")]
            for path in hidden:
                del self._entries[path]
            for entry in self.folders[folder].entries:
                path = folder + entry.path.rstrip("/") or "/"
                self._entries[path] = entry if path == entry.path else replace(entry, path=path)
                if folder:
                    self._mounted[path] = self.folders[folder]

    @property
    def entries(self) -> tuple[Entry, ...]:
        """Everything that has a path."""
        return tuple(self._entries.values())

    @cached_property
    def files(self) -> tuple[Entry, ...]:
        """The regular files."""
        return tuple(entry for entry in self._entries.values() if entry.is_file and entry.path[0] == "/")

    @cached_property
    def packages(self) -> PackageDatabase:
        """What the system's package database says."""
        return self._packages or PackageDatabase(self)

    def read(self, entry: Entry) -> Iterator[bytes]:
        """Yield the content of a file in pieces."""
        return self._mounted.get(entry.path, self.folders[""]).read(entry)

    def content(self, entry: Entry) -> bytes:
        """Return the content of a file; of a very large one, its beginning."""
        content = b""
        for piece in self.read(entry):
            content += piece
            if len(content) >= LARGEST_TEXT:
                break
        return content

    def text(self, path: str) -> str:
        """Return the content of a file as text; nothing where there is none."""
        entry = self.find(path)
        return self.content(entry).decode("utf-8", "replace") if entry and entry.is_file else ""

    def entry(self, path: str) -> Entry | None:
        """Return what lies at a path itself, a symbolic link too, or None."""
        return self._entries.get(path)

    def find(self, path: str) -> Entry | None:
        """Return what a path leads to, over symbolic links, or None."""
        return self._entries.get(self.resolve(path) or "")

    def resolve(self, path: str) -> str | None:
        """Return a path without symbolic links in it; None for one that goes in a circle."""
        done, waiting, links = "", [part for part in path.split("/") if part not in ("", ".")], 0
        while waiting:
            part = waiting.pop(0)
            if part == "..":
                done = posixpath.dirname(done).rstrip("/")
                continue
            entry = self._entries.get(f"{done}/{part}")
            if entry is None or not entry.is_link:
                done = f"{done}/{part}"
                continue
            links += 1
            if links > MOST_LINKS:
                return None
            if entry.target.startswith("/"):
                done = ""
            waiting = [step for step in entry.target.split("/") if step not in ("", ".")] + waiting
        return done or "/"

    def fingerprint(self, entry: Entry) -> str:
        """Return the fingerprint of a file's content, or of where a link points."""
        return fingerprint_of(entry.target.encode()) if entry.is_link else fingerprint_in(self.read(entry))


def find_systems(locator: Locator) -> list[System]:
    """Return every operating system on a disk; none on a disk of data."""
    opened = locator.file_systems()
    names = {name: file_system for partition, file_system in opened for name in names_of(partition, file_system)}
    systems = []
    for _, file_system in opened:
        paths = {entry.path for entry in file_system.entries}
        if paths.intersection(SIGNS[1:]) and SIGNS[0] in paths:
            packages = locator.packages_of(file_system)
            systems.append(System(file_system, mounted_below(file_system, names), packages))
    return systems


def mounted_below(root: FileSystem, names: dict[str, FileSystem]) -> dict[str, FileSystem]:
    """Return the file systems of the disk that the fstab of a root mounts below it, by folder."""
    mounted = {}
    for line in System(root).text("/etc/fstab").splitlines():
        device, folder, *_ = (*line.split("#")[0].split(), "", "")
        found = names.get(device.replace('"', ""))
        if found is not None and found is not root and folder.startswith("/") and folder != "/":
            mounted[folder.rstrip("/")] = found
    return mounted


def names_of(partition: Partition, file_system: FileSystem) -> Iterator[str]:
    """Yield what fstab may call a file system: by UUID, by label, or by the name of its logical volume."""
    yield from file_system.names
    volume = re.fullmatch(r"logical volume ([^/ ]+)/([^/ ]+)", partition.name)
    if volume:
        group, name = volume[1], volume[2]
        yield f"/dev/{group}/{name}"
        yield f"/dev/mapper/{group.replace('-', '--')}-{name.replace('-', '--')}"
