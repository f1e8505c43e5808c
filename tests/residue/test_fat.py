"""FAT, the EFI system partition: its files are named, what was deleted from it is gone, and fsck has no complaint."""

import os
import shutil
import struct
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import DiskNotRewritable
from pipeline.report.evidence import Status
from pipeline.residue.blocks import RawFile
from pipeline.residue.fat import Fat
from pipeline.residue.filesystems import SourceFile
from pipeline.residue.locate import Locator
from pipeline.residue.proof import prove_raw
from pipeline.residue.rewrite import find_remains, plan_overwrite, plan_rewrite, rewritten_blocks
from pipeline.residue.secrets import build_secrets

MIB = 1 << 20
FORMS = {
    "FAT12": (2, "-F 12"),
    "FAT16, as the local cloud has it": (32, ""),
    "FAT16, large clusters": (48, "-F 16 -s 16"),
    "FAT32, as Debian has it": (64, "-F 32"),
    "FAT32, sectors of a kibibyte": (80, "-F 32 -s 1 -S 1024"),
}
FAT12 = FORMS["FAT12"]
LONG = "qzwxv, a name that nobody should see any more"

pytestmark = [
    pytest.mark.subprocess,
    pytest.mark.skipif(not shutil.which("mcopy"), reason="mtools is not installed"),
]


class Efi:
    """A FAT file system with files, removed ones, and canaries that nothing refers to."""

    def __init__(self, folder: Path, form: tuple[int, str]) -> None:
        self.folder, self.path = folder, folder / "efi"
        with self.path.open("wb") as file:
            file.truncate(form[0] * MIB)
        run("/sbin/mkfs.vfat", *form[1].split(), "-n", "EFI", "-i", "1A2B3C4D", self.path)
        self.live: dict[str, bytes] = {}
        self.dead: list[bytes] = []
        run("mmd", "-i", self.path, "::EFI", "::EFI/debian", "::EFI/gone")
        for number in range(40):
            self.put(f"EFI/debian/small-{number:02}-{'long' * (number % 9)}.cfg", os.urandom(3000 + number * 7))
        self.put("EFI/debian/shimx64.efi", os.urandom(100_001))

    def put(self, name: str, content: bytes) -> None:
        source = self.folder / "source"
        source.write_bytes(content)
        run("mcopy", "-o", "-i", self.path, source, f"::{name}")
        self.live[f"/{name}"] = content

    def remove(self, *names: str) -> None:
        run("mdel", "-i", self.path, *(f"::{name}" for name in names))
        for name in names:
            del self.live[f"/{name}"]

    def canary(self) -> bytes:
        self.dead.append(f"canary-{uuid.uuid4()}".encode())
        return self.dead[-1]

    def plant(self) -> None:
        """Delete what holds canaries, and write others where no file is."""
        self.put(f"EFI/gone/{LONG}.key", self.canary() * 40)
        self.put("EFI/debian/secret.key", self.canary() * 40)
        self.remove(f"EFI/gone/{LONG}.key", "EFI/debian/secret.key")
        run("mrd", "-i", self.path, "::EFI/gone")
        self.dead += [LONG[:5].encode("utf-16-le"), b"ECRET  KEY"]
        shim = "EFI/debian/shimx64.efi"
        with RawFile(self.path) as source:
            fat = Fat(SourceFile(source))
            ((_, file_system),) = Locator(source).file_systems()
            last = next(entry for entry in file_system.entries if entry.path == f"/{shim}").extents[-1]
        self.write(last.physical + 100_001 - last.logical, self.canary())
        end = fat.place(fat.clusters + 2)
        used = last.physical + 100_001 - last.logical - fat.data_start
        self.write(fat.data_start + -(-used // fat.block_size) * fat.block_size - 50, self.canary())
        folder = next(entry for entry in file_system.entries if entry.path == "/EFI").extents[0]
        self.write(folder.physical + 512 - 50, self.canary())
        if fat.size - end > 50:
            self.write(end, self.canary())
        self.write(fat.place(fat.clusters + 1), self.canary())
        if fat.table_size - fat.table_used > 50:
            self.write(fat.table_start + fat.table_size - 50, self.canary())

    def write(self, place: int, content: bytes) -> None:
        with self.path.open("r+b") as file:
            file.seek(place)
            file.write(content)


def run(*command: str | Path) -> str:
    environment = {"PATH": os.environ["PATH"], "MTOOLS_SKIP_CHECK": "1"}
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def rewrite(path: Path) -> Path:
    made = path.with_name(f"new-{path.name}")
    shutil.copy(path, made)
    with RawFile(path) as source, made.open("r+b") as file:
        for index, data in rewritten_blocks(source, plan_rewrite(source)):
            file.seek(index * source.block_size)
            file.write(data)
    return made


def contents(path: Path) -> dict[str, bytes]:
    with RawFile(path) as source:
        locator = Locator(source)
        ((_, file_system),) = locator.file_systems()
        assert locator.problems == []
        return {entry.path: b"".join(file_system.read(entry)) for entry in file_system.entries if entry.is_file}


def held_by(path: Path, dead: Sequence[bytes]) -> set[bytes]:
    data = path.read_bytes()
    return {text for text in dead if text in data}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_what_is_dead_is_gone_and_what_lives_is_as_it_was(tmp_path: Path, form: tuple[int, str]) -> None:
    efi = Efi(tmp_path, form)
    efi.plant()
    assert contents(efi.path) == efi.live
    assert held_by(efi.path, efi.dead) == set(efi.dead)
    after = rewrite(efi.path)
    assert held_by(after, efi.dead) == set()
    assert contents(after) == efi.live
    run("/sbin/fsck.vfat", "-n", after)
    assert rewrite(after).read_bytes() == after.read_bytes()
    with RawFile(efi.path) as before, RawFile(after) as clean:
        assert list(find_remains(before, plan_overwrite(before)))
        assert list(find_remains(clean, plan_overwrite(clean))) == []


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_clusters_are_free_that_fsck_counts_as_free(tmp_path: Path, form: tuple[int, str]) -> None:
    efi = Efi(tmp_path, form)
    said = run("/sbin/fsck.vfat", "-n", "-v", efi.path)
    used, clusters = map(int, said.split()[-2].split("/"))
    with RawFile(efi.path) as source:
        fat = Fat(SourceFile(source))
        free = sum(end - start for start, end in fat.free_blocks()) // fat.block_size
    assert (fat.clusters, fat.clusters - free) == (clusters, used)


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_fstab_knows_it_by_its_serial_number_and_its_label(tmp_path: Path, form: tuple[int, str]) -> None:
    with RawFile(Efi(tmp_path, form).path) as source:
        ((_, file_system),) = Locator(source).file_systems()
        assert file_system.names == ("UUID=1A2B-3C4D", "LABEL=EFI")


def test_a_secret_has_a_place(tmp_path: Path) -> None:
    efi = Efi(tmp_path, FAT12)
    token = "tok-" + os.urandom(12).hex()
    efi.put("EFI/debian/grub.cfg", f"set token={token}".encode())
    efi.put("EFI/debian/gone.cfg", f"{token}".encode())
    efi.remove("EFI/debian/gone.cfg")
    with RawFile(efi.path) as source:
        _, findings, _ = prove_raw(source, build_secrets(tokens={"deploy token": token}))
    assert {finding.place.split(",")[0] for finding in findings} == {
        "file /EFI/debian/grub.cfg of the whole disk",
        "free space of the whole disk",
    }


def test_a_secret_in_a_file_in_pieces_is_found(tmp_path: Path) -> None:
    """The second half of the secret lies in another place than the first, so no search of the disk itself sees it."""
    efi = Efi(tmp_path, FAT12)
    token = "tok-" + os.urandom(12).hex()
    with RawFile(efi.path) as source:
        fat = Fat(SourceFile(source))
        free = sum(end - start for start, end in fat.free_blocks())
    for name in ("one", "two", "three"):
        efi.put(name, b"x" * fat.block_size)
    efi.put("rest", b"x" * (free - 3 * fat.block_size))
    efi.remove("one", "three")
    efi.put("pieces", b"x" * (fat.block_size - 10) + token.encode())
    assert token.encode() not in efi.path.read_bytes()
    with RawFile(efi.path) as source:
        _, findings, _ = prove_raw(source, build_secrets(tokens={"deploy token": token}))
    assert ["in file /pieces" in finding.detail for finding in findings] == [True]


def test_clusters_behind_the_end_of_a_file_are_dead(tmp_path: Path) -> None:
    efi = Efi(tmp_path, FAT12)
    content = efi.live["/EFI/debian/shimx64.efi"]
    efi.write(entry_of(efi, b"SHIMX64 EFI") + 28, struct.pack("<I", 500))
    after = rewrite(efi.path)
    assert contents(after)["/EFI/debian/shimx64.efi"] == content[:500]
    assert held_by(after, [content[500:540], content[-100:], content[50_000:50_100]]) == set()


def entry_of(efi: Efi, name: bytes) -> int:
    """Where the short entry of a name lies."""
    return efi.path.read_bytes().index(name)


def damage_copy(efi: Efi, fat: Fat) -> None:
    efi.write(fat.table_start + fat.table_size + 300, b"\x12")


def damage_size(efi: Efi, _: Fat) -> None:
    efi.write(entry_of(efi, b"SHIMX64 EFI") + 28, struct.pack("<I", 900_000))


def damage_chain(efi: Efi, _: Fat) -> None:
    efi.write(entry_of(efi, b"SHIMX64 EFI") + 26, b"\xff\x7f")


def damage_names(efi: Efi, _: Fat) -> None:
    """Two names lead to the same clusters."""
    first, second = entry_of(efi, b"SMALL-~1CFG"), entry_of(efi, b"SMALL-~2CFG")
    efi.write(first + 26, efi.path.read_bytes()[second + 26 : second + 28])


def damage_loop(efi: Efi, fat: Fat) -> None:
    """A file's last cluster is followed by its second."""
    data = efi.path.read_bytes()
    number = struct.unpack_from("<H", data, entry_of(efi, b"SHIMX64 EFI") + 26)[0]
    links = bytearray(data[fat.table_start : fat.table_start + fat.table_size])
    place, odd = divmod((number + 1) * 3, 2)
    (pair,) = struct.unpack_from("<H", links, place)
    pair = number << 4 | pair & 0xF if odd else number | pair & 0xF000
    struct.pack_into("<H", links, place, pair)
    for begin in fat.table_starts():
        efi.write(begin, bytes(links))


def damage_folder(efi: Efi, _: Fat) -> None:
    """A folder that holds itself."""
    data = efi.path.read_bytes()
    inner, outer = (entry_of(efi, name) for name in (b"GONE       ", b"EFI        \x10"))
    efi.write(inner + 26, data[outer + 26 : outer + 28])


def damage_free(efi: Efi, fat: Fat) -> None:
    """The table has a file's clusters for free, in both copies."""
    for number in range(fat.tables):
        efi.write(fat.table_start + number * fat.table_size + 100, bytes(400))


@pytest.mark.parametrize(
    "damage",
    [damage_copy, damage_size, damage_chain, damage_names, damage_loop, damage_folder, damage_free],
    ids=lambda it: it.__name__,
)
def test_what_is_damaged_is_refused(tmp_path: Path, damage) -> None:
    efi = Efi(tmp_path, FAT12)
    with RawFile(efi.path) as source:
        fat = Fat(SourceFile(source))
        plan_rewrite(source)
    damage(efi, fat)
    with RawFile(efi.path) as source, pytest.raises(DiskNotRewritable):
        plan_rewrite(source)


def test_a_folder_that_holds_itself_never_passes(tmp_path: Path) -> None:
    efi = Efi(tmp_path, FAT12)
    with RawFile(efi.path) as source:
        damage_folder(efi, Fat(SourceFile(source)))
        results, _, _ = prove_raw(source, build_secrets(tokens={"deploy token": os.urandom(9).hex()}))
    assert [result.status for result in results if "R02" in result.controls] == [Status.UNREACHABLE]


def test_a_file_system_that_was_cut_short_never_passes(tmp_path: Path) -> None:
    efi = Efi(tmp_path, FORMS["FAT32, as Debian has it"])
    os.truncate(efi.path, 60 * MIB)
    with RawFile(efi.path) as source:
        results, _, _ = prove_raw(source, build_secrets(tokens={"deploy token": os.urandom(9).hex()}))
    assert [result.status for result in results if "R02" in result.controls] == [Status.UNREACHABLE]


def test_any_damage_is_read_or_refused_but_never_a_crash(tmp_path: Path) -> None:
    efi = Efi(tmp_path, FAT12)
    good = efi.path.read_bytes()
    with RawFile(efi.path) as source:
        end = Fat(SourceFile(source)).data_start + 4096

    @settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(st.tuples(st.integers(0, end) | st.integers(0, 90), st.integers(0, 255)), max_size=20))
    def damage(changes: list[tuple[int, int]]) -> None:
        bad = bytearray(good)
        for place, value in changes:
            bad[place] = value
        efi.path.write_bytes(bad)
        with RawFile(efi.path) as source:
            locator = Locator(source)
            locator.file_systems()
            try:
                plan_rewrite(source, locator)
            except DiskNotRewritable:
                return

    damage()
