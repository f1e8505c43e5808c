"""A base image with plants on it, as somebody careless left it, for a build to clean.

What a build is to remove lies where its scrub looks, or where the spec forbids it. What was deleted lies wherever the
file system had put it.
"""

import mmap
import re
import subprocess
from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.localcloud.base_image import END_SECTOR, ROOT_SECTOR, SECTOR
from pipeline.residue.encodings import literal_form
from pipeline.residue.matcher import open_matcher
from tests.planted.planter import MIB, Planted, Planter
from tests.planted.plants import FORBIDDEN as FORBIDDEN_BY_SPEC
from tests.planted.plants import Build, Plant, plants

FORBIDDEN = ("/opt/app", "/root/keys.txt", FORBIDDEN_BY_SPEC)
"""What the spec of the build forbids: files that only their owner knows."""
HOMES = {"/home/admin": "/var/www", "/var/lib/postgresql": "/var/list", "/var/lib/app": "/var/list"}
"""Homes of accounts that the base image has, instead of those that it has not."""
MOVED = {
    "/var/www/backup.txt": "/opt/app/backup.txt",
    "/var/lib/cloud/instance/user-data.txt": "/var/lib/cloud/instances/i-0b5e0d7c3a19f2468/user-data.txt",
    "/etc/apt/apt.conf.d/01proxy": "/etc/apt/apt.conf.d/02proxy",
}
"""What would stop the guest from booting where it was."""
LEFT_OUT = ("file:/etc/shadow",)
"""What is no residue but an account, which the build refuses instead of removing it."""
SHORTEST, PIECE = 16, 24
"""So many bytes of what was planted, and not in the base image before, are nowhere by chance."""
LOGIN = re.compile(rb"://[^/@\s]+:[^/@\s]+@")
PLACES = {"swap": "free", "lvm": "free", "fragments": "file:/opt/app/fragments"}
"""The base image has no swap partition and no volumes, and room enough for a file in one piece."""


class PlantedBase(Planter):
    """A base image, with an ext4 root in its first partition."""

    gap, end = MIB // 2, END_SECTOR * SECTOR + MIB // 8

    def __init__(self, disk: Path) -> None:
        """Take the image to plant into: it is changed."""
        super().__init__(disk.parent, "ext4")
        self.disk = disk
        self.part = Path(f"{disk}?offset={ROOT_SECTOR * SECTOR}")
        self.tree = disk.with_suffix(".tree")

    def place(self, offset: int) -> int:
        """Return where on the disk a place of the file system lies."""
        return ROOT_SECTOR * SECTOR + offset

    def place_of(self, content: bytes) -> int:
        """Return where on the disk something lies."""
        with self.disk.open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as mapped:
            return mapped.find(content)

    def plant_all(self) -> list[Planted]:
        """Plant everything, and return what was planted."""
        wanted = [adapted(plant) for plant in [*plants(), *Build().plants()] if plant.where not in LEFT_OUT]
        files = {path: plant.content for plant in wanted for _, _, path in [plant.where.partition(":")] if path}
        self.write_files(files | {"/opt/app/slack.txt": b"short\n", "/opt/app/note": b"note\n"})
        return [*self.plant_in_files(wanted), *self.plant_raw(wanted)]

    def write_files(self, files: dict[str, bytes]) -> None:
        """Write files with all of their folders, in one run of debugfs. What is there already stays or goes."""
        self.tree.mkdir()
        requests = [f"mkdir {folder}" for folder in folders_of(files)]
        for number, (path, content) in enumerate(files.items()):
            source = self.tree / str(number)
            source.write_bytes(content)
            requests += [f"rm {path}", f"write {source} {path}"]
        told = "\n".join([*requests, ""])
        subprocess.run(["/sbin/debugfs", "-w", "-f", "-", self.part], input=told, capture_output=True, text=True)


def folders_of(paths: Iterable[str]) -> list[str]:
    """Return all folders of paths, the upper ones first."""
    return sorted({str(folder) for path in paths for folder in Path(path).parents} - {"/"})


def adapted(plant: Plant) -> Plant:
    """Return a plant where it lies on a base image."""
    kind, _, path = plant.where.partition(":")
    for home, other in HOMES.items():
        path = re.sub(f"^{home}/", f"{other}/", path)
    content = plant.content.replace(b"http::Proxy ", b"http::Proxy::mirror.acme.io ")
    return replace(
        plant, where=":".join(filter(None, (PLACES.get(kind, kind), MOVED.get(path, path)))), content=content
    )


def canaries(planted: list[Planted], base: Iterable[bytes]) -> dict[bytes, str]:
    """Return pieces of the plants, by which each is known wherever it is, with the plant's name.

    What the base image holds anyway, as the text of a script or a manual, says nothing.
    """
    pieces = {piece: each.plant.name for each in planted for piece in pieces_of(each.plant.content)}
    known_before = pieces_in(base, pieces)
    return {piece: name for piece, name in pieces.items() if piece not in known_before}


def pieces_of(content: bytes) -> Iterator[bytes]:
    """Yield the first, the middle and the last bytes of a plant; nothing of what is short, or mostly one byte.

    Of an address with a login, that alone: the scrub may take it out and leave the address.
    """
    logins = [login.end() - PIECE for login in LOGIN.finditer(content)]
    for start in logins or {0, (len(content) - PIECE) // 2, len(content) - PIECE}:
        piece = content[max(0, start) : start + PIECE]
        if len(piece) >= SHORTEST and len(set(piece)) >= 8:
            yield piece


def pieces_in(blocks: Iterable[bytes], pieces: Iterable[bytes]) -> set[bytes]:
    """Return which pieces are somewhere in blocks that follow each other."""
    known = tuple(pieces)
    matcher = open_matcher(tuple(map(literal_form, known)))
    found: set[bytes] = set()
    before = b""
    for data in blocks:
        found |= {known[number] for number, _, _ in matcher.find(before[-PIECE:] + data)}
        before = data
    return found
