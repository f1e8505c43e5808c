"""What the system on a disk consists of, read from its files: packages, users, units, settings. Nothing of it runs."""

import hashlib
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from pipeline.errors import BlockUnreadable
from pipeline.residue import rpm
from pipeline.residue.blocks import BlockSource
from pipeline.residue.filesystems import Entry
from pipeline.residue.locate import Locator
from pipeline.residue.system import System, find_systems
from pipeline.residue.vouch import DPKG, in_usr

Values = Mapping[str, str]

NEVER_COMPARED = ("/proc/", "/sys/", "/dev/", "/run/", "/lost+found/", "/var/lib/dpkg/", "<")
"""What is no part of an image: what a kernel shows, the journal; and what the list of packages says already."""
UNIT_LINK = re.compile(r"/etc/systemd/(?:system|user)/(?P<by>[^/]+)\.(?:wants|requires|upholds)/(?P<unit>[^/]+)")
UNIT_FILE = re.compile(r"/etc/systemd/(?:system|user)/(?P<unit>[^/]+(?:\.d/[^/]+\.conf)?)")
SETTINGS = re.compile(r"/(?P<place>etc|usr/local/lib|usr/lib|lib)/sysctl\.d/(?P<name>[^/]+\.conf)")
SETTING = re.compile(r"^\s*-?\s*(?P<name>[\w./*-]+)\s*=\s*(?P<value>.*?)\s*$")
PLACES = ("lib", "usr/lib", "usr/local/lib", "etc")
"""Folders of settings: a file of a later one stands instead of one with the same name (sysctl.d(5))."""


@dataclass(frozen=True)
class Contents:
    """A system, by subject: for each the names of things, and what is to be said of them."""

    subjects: Mapping[str, Values]
    owners: Values
    """Which package a path came with, where the database of packages says so."""


def read_contents(source: BlockSource) -> Contents | None:
    """Return what the system on a disk consists of; None for a disk without one. Raises BlockUnreadable.

    Every file is read: two that have the same size may differ.
    """
    locator = Locator(source)
    try:
        systems = find_systems(locator)
        if not systems:
            return None
        if locator.problems or systems[0].folders[""].unread:
            raise BlockUnreadable("; ".join(locator.problems) or "some folders cannot be read")
        return contents_of(systems[0])
    except (OSError, RuntimeError, ValueError) as problem:
        raise BlockUnreadable(f"the files cannot be read: {problem}") from problem


def contents_of(system: System) -> Contents:
    """Return what a system consists of."""
    packages, owners = read_packages(system)
    return Contents(
        {
            "packages": packages,
            "users": dict(users_of(system)),
            "units": dict(units_of(system)),
            "privileged programs": dict(privileged(system)),
            "kernel settings": dict(kernel_settings(system)),
            "sizes": sizes_of(system, packages),
            "files": {entry.path: describe(system, entry) for entry in system.entries if is_compared(entry)},
        },
        owners,
    )


def read_packages(system: System) -> tuple[Values, Values]:
    """Return the version of each package, and which package brought each path."""
    versions: dict[str, str] = {}
    owners: dict[str, str] = {}
    for stanza in system.text(f"{DPKG}status").split("\n\n"):
        fields = dict(re.findall(r"^(\S+): (.*)$", stanza, re.MULTILINE))
        if fields.get("Status", "").endswith(" installed"):
            versions[f"{fields.get('Package')} {fields.get('Architecture', '')}".strip()] = fields.get("Version", "")
    for entry in system.files:
        name = entry.path.removeprefix(f"{DPKG}info/")
        if name != entry.path and name.endswith(".list"):
            owner = name.removesuffix(".list").partition(":")[0]
            owners |= {in_usr(line[1:]): owner for line in system.text(entry.path).splitlines()}
        elif entry.path in rpm.DATABASES:
            for package in rpm.read_packages(b"".join(system.read(entry))):
                versions[f"{package.name} {package.architecture}".strip()] = package.version
                owners |= {in_usr(path[1:]): package.name for path in package.paths}
    return versions, owners


def users_of(system: System) -> Iterator[tuple[str, str]]:
    """Yield each account: its number, home, shell, and the groups that it is a member of."""
    groups = [line.split(":") for line in system.text("/etc/group").splitlines()]
    for line in system.text("/etc/passwd").splitlines():
        match line.split(":"):
            case [name, _, number, _, _, home, shell]:
                held = sorted(group[0] for group in groups if len(group) == 4 and name in group[3].split(","))
                yield name, " ".join([number, home, shell, *([f"in {','.join(held)}"] if held else [])])


def units_of(system: System) -> Iterator[tuple[str, str]]:
    """Yield what administrators and packages did to units: enabled, masked, or written in /etc."""
    for entry in system.entries:
        if link := UNIT_LINK.fullmatch(entry.path):
            yield f"{link['unit']} by {link['by']}", "enabled"
        elif (unit := UNIT_FILE.fullmatch(entry.path)) and entry.is_link:
            yield unit["unit"], "masked" if entry.target == "/dev/null" else f"is {entry.target.rpartition('/')[2]}"
        elif unit and entry.is_file:
            yield unit["unit"], f"written in /etc, {digest_of(system, entry)}"


def privileged(system: System) -> Iterator[tuple[str, str]]:
    """Yield the programs that are set-user-id, set-group-id, or have capabilities."""
    for entry in system.files:
        if entry.is_program and (entry.mode & 0o6000 or entry.capabilities):
            rights = f" with capabilities {entry.capabilities.hex()}" if entry.capabilities else ""
            yield entry.path, f"{entry.mode & 0o7777:04o}{rights}"


def kernel_settings(system: System) -> Iterator[tuple[str, str]]:
    """Yield the settings of the kernel in the order in which a boot reads them, the last wins (sysctl.d(5))."""
    files: dict[str, tuple[int, str]] = {}
    for entry in system.files:
        if found := SETTINGS.fullmatch(entry.path):
            files[found["name"]] = max(files.get(found["name"], (-1, "")), (PLACES.index(found["place"]), entry.path))
    for path in [*(files[name][1] for name in sorted(files)), "/etc/sysctl.conf"]:
        for line in system.text(path).splitlines():
            if setting := SETTING.match(line):
                yield setting["name"].replace("/", "."), setting["value"]


def sizes_of(system: System, packages: Values) -> Values:
    """Return how many files and bytes there are, in all and in each folder of the root."""
    folders: Counter[str] = Counter()
    for entry in system.files:
        if is_compared(entry):
            folders["/" + entry.path.split("/")[1]] += entry.size
    return {
        "packages": str(len(packages)),
        "files": str(sum(map(is_compared, system.files))),
        "all files": mebibytes(sum(folders.values())),
        **{folder: mebibytes(size) for folder, size in sorted(folders.items())},
    }


def mebibytes(size: int) -> str:
    """Return a size in bytes as people read it."""
    return f"{size / 2**20:.1f} MiB"


def is_compared(entry: Entry) -> bool:
    """Return whether an entry is a part of the image: a file or a link, not what a kernel shows."""
    return (entry.is_file or entry.is_link) and not entry.path.startswith(NEVER_COMPARED)


def describe(system: System, entry: Entry) -> str:
    """Return what a file is: its mode, size and digest, or where a link points."""
    if entry.is_link:
        return f"→ {entry.target}"
    return f"{entry.mode & 0o7777:04o} {entry.size} bytes {digest_of(system, entry)}"


def digest_of(system: System, entry: Entry) -> str:
    """Return the beginning of the SHA-256 digest of a file's content."""
    digest = hashlib.sha256()
    for piece in system.read(entry):
        digest.update(piece)
    return digest.hexdigest()[:12]
