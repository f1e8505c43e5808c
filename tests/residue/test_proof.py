"""The proof over whole disks: nothing that could not be read passes, and the digest is one of content."""

import bz2
import gzip
import io
import lzma
import os
import struct
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import zstandard

from pipeline.errors import AssayError, BlockUnreadable, SpecInvalid
from pipeline.report.evidence import Status
from pipeline.residue.blocks import RawFile, open_image
from pipeline.residue.proof import prove_raw
from pipeline.residue.secrets import build_secrets

BLOCK = 8192
MIB = 1 << 20
TOKEN = "tok-" + os.urandom(12).hex()
SECRETS = build_secrets(tokens={"deploy token": TOKEN})


def zipped() -> bytes:
    written = io.BytesIO()
    with zipfile.ZipFile(written, "w") as archive:
        archive.writestr("disk.raw", TOKEN)
    return written.getvalue()


def tarred() -> bytes:
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("disk.vmdk"))
    return written.getvalue()


@dataclass
class Disk:
    """A disk in memory, of which some blocks cannot be read."""

    data: bytes
    broken: frozenset[int] = frozenset()
    breaks_off_at: int | None = None
    block_size: int = BLOCK
    asked: list[int] = field(default_factory=list)

    @property
    def size_bytes(self) -> int:
        return len(self.data)

    def indices(self) -> Iterator[int]:
        return (index for index in range(len(self.data) // BLOCK) if any(self.block(index)))

    def block(self, index: int) -> bytes:
        return self.data[index * BLOCK : (index + 1) * BLOCK]

    def read(self, index: int) -> bytes:
        self.asked.append(index)
        if index in self.broken:
            raise BlockUnreadable("its checksum is wrong", resource=f"block {index}")
        return self.block(index)

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes | AssayError]]:
        for index in indices:
            if index == self.breaks_off_at:
                raise BlockUnreadable("the snapshot is public")
            try:
                yield index, self.read(index)
            except BlockUnreadable as problem:
                yield index, problem


def disk_with(text: bytes, place: int = 3 * BLOCK - 5, **options) -> Disk:
    data = bytearray(b"x" * 8 * BLOCK)
    data[4086:4096] = b"SWAPSPACE2"
    data[place : place + len(text)] = text
    return Disk(bytes(data), **options)


def test_a_secret_of_the_build_fails_and_is_found_but_not_shown() -> None:
    results, findings, _ = prove_raw(disk_with(TOKEN.encode()), SECRETS)
    assert [(result.status, result.controls) for result in results] == [
        (Status.FAIL, ("S07", "R03")),
        (Status.PASS, ("R01",)),
        (Status.PASS, ("R02",)),
        (Status.PASS, ("R04",)),
    ]
    (finding,) = findings
    assert (finding.place, finding.control) == (
        f"swap of the whole disk, offset {3 * BLOCK - 5}",
        "S07",
    )
    assert TOKEN not in repr((results, findings))


def test_a_clean_disk_passes() -> None:
    results, findings, _ = prove_raw(disk_with(b""), SECRETS)
    assert {result.status for result in results} == {Status.PASS}
    assert findings == ()


@pytest.mark.parametrize("fault", [{"broken": frozenset({2})}, {"breaks_off_at": 5}])
def test_what_cannot_be_read_never_passes(fault: dict) -> None:
    results, findings, _ = prove_raw(disk_with(b"", **fault), SECRETS)
    assert {result.status for result in results} == {Status.UNREACHABLE}
    assert findings == ()


def test_a_disk_without_a_written_block_proves_nothing() -> None:
    results, _, _ = prove_raw(Disk(bytes(4 * BLOCK)), SECRETS)
    assert {result.status for result in results} == {Status.UNREACHABLE}


def test_the_range_that_could_not_be_read_is_named() -> None:
    results, _, _ = prove_raw(disk_with(b"", broken=frozenset({2, 3})), SECRETS)
    assert f"bytes {2 * BLOCK}-{4 * BLOCK - 1}: its checksum is wrong" in results[-3].detail


def test_a_source_that_ends_early_never_passes() -> None:
    disk = disk_with(b"")
    disk.read_many = lambda indices: iter([(0, disk.block(0))])  # type: ignore[method-assign]
    results, _, _ = prove_raw(disk, SECRETS)
    assert {result.status for result in results} == {Status.UNREACHABLE}


def test_what_is_found_beside_an_unreadable_block_still_fails() -> None:
    results, _, _ = prove_raw(disk_with(TOKEN.encode(), place=10, broken=frozenset({5})), SECRETS)
    assert results[0].status is Status.FAIL


def test_a_secret_that_cannot_be_searched_for_does_not_pass() -> None:
    results, _, _ = prove_raw(disk_with(b""), build_secrets(passwords={"short": "test"}))
    assert results[0].status is Status.NOT_APPLICABLE


def test_the_digest_is_one_of_content() -> None:
    clean, same, other = disk_with(b""), disk_with(b""), disk_with(b"y")
    digests = [prove_raw(disk, ())[2] for disk in (clean, same, other)]
    assert digests[0] == digests[1] != digests[2]


def test_the_digest_does_not_ask_whether_zeros_were_written() -> None:
    disk = Disk(b"x" * BLOCK + bytes(BLOCK) + b"y" * BLOCK)
    dense = Disk(disk.data)
    dense.indices = lambda: iter(range(3))  # type: ignore[method-assign]
    assert prove_raw(disk, ())[2] == prove_raw(dense, ())[2]


def test_a_raw_file_is_read_by_its_written_blocks(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    with path.open("wb") as file:
        file.truncate(64 * BLOCK)
        file.seek(40 * BLOCK + 100)
        file.write(TOKEN.encode())
    with open_image(path, BLOCK) as image:
        assert 40 in list(image.indices())
        assert len(list(image.indices())) < 64
        _, findings, _ = prove_raw(image, SECRETS)
    assert findings[0].place.endswith(f", offset {40 * BLOCK + 100}")


def test_a_file_that_shrinks_while_it_is_read_never_passes(tmp_path: Path) -> None:
    path = tmp_path / "disk.raw"
    path.write_bytes(b"x" * 4 * BLOCK)
    with RawFile(path, BLOCK) as image:
        os.truncate(path, BLOCK)
        results, _, _ = prove_raw(image, SECRETS)
    assert {result.status for result in results} == {Status.UNREACHABLE}


@pytest.mark.parametrize("content", [None, b"", b"QFI\xfbno header at all"])
@pytest.mark.subprocess
def test_what_is_no_image_is_a_clear_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "disk"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(AssayError) as refused:
        open_image(path)
    assert str(path) in str(refused.value)


@pytest.mark.parametrize(
    ("content", "what", "advice"),
    [
        (gzip.compress(TOKEN.encode()), "compressed by gzip", "gzip -dk "),
        (lzma.compress(TOKEN.encode()), "compressed by xz", "xz -dk "),
        (bz2.compress(TOKEN.encode()), "compressed by bzip2", "bzip2 -dk "),
        (zstandard.compress(TOKEN.encode()), "compressed by zstd", "zstd -d "),
        (zipped(), "a zip archive", "unzip "),
        (tarred(), "a tar archive", "tar -xf "),
        (b'# Disk DescriptorFile\nRW 9 FLAT "/etc/shadow" 0\n', "describes a VMDK", "the file that it names"),
    ],
    ids=["gzip", "xz", "bzip2", "zstd", "zip", "tar", "descriptor"],
)
def test_what_may_hold_a_disk_is_no_disk(tmp_path: Path, content: bytes, what: str, advice: str) -> None:
    path = tmp_path / "a disk"
    path.write_bytes(content)
    with pytest.raises(SpecInvalid, match=what) as refused:
        open_image(path)
    assert advice in refused.value.hint
    assert f"'{path}'" in refused.value.hint or what == "describes a VMDK"


@pytest.mark.subprocess
def test_a_qcow2_image_is_searched_with_what_it_is_based_on(tmp_path: Path) -> None:
    import subprocess

    base, overlay = tmp_path / "base.raw", tmp_path / "disk.qcow2"
    base.write_bytes(b"x" * 2 * BLOCK + TOKEN.encode() + b"x" * (6 * BLOCK - len(TOKEN)))
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", base, "-F", "raw", overlay], check=True)
    with open_image(overlay, BLOCK) as image:
        _, findings, _ = prove_raw(image, SECRETS)
        folder = image._folder  # type: ignore[attr-defined]
    assert findings[0].place.endswith(f", offset {2 * BLOCK}")
    assert not folder.exists()


@pytest.mark.parametrize(
    "form",
    ["qcow2 -c", "vmdk -o subformat=monolithicSparse", "vmdk -o subformat=streamOptimized", "vpc", "vhdx", "vdi"],
)
@pytest.mark.subprocess
def test_a_virtual_disk_is_searched_as_a_system_sees_it(tmp_path: Path, form: str) -> None:
    """In the file itself, its pieces lie anywhere, and some formats compress them."""
    import subprocess

    raw, disk = tmp_path / "disk.raw", tmp_path / "disk"
    raw.write_bytes(b"x" * 200 * BLOCK + TOKEN.encode() + b"x" * (824 * BLOCK - len(TOKEN)))
    subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", *form.split(), raw, disk], check=True)
    with open_image(disk, BLOCK) as image:
        results, findings, _ = prove_raw(image, SECRETS)
    assert [finding.place.rpartition(", ")[2] for finding in findings] == [f"offset {200 * BLOCK}"]
    assert results[0].status is Status.FAIL


@pytest.mark.parametrize("size", [3 * BLOCK, 9 * MIB])
def test_a_whole_disk_that_is_not_understood_never_passes(tmp_path: Path, size: int) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"x" * size)
    with open_image(path) as image:
        results, _, _ = prove_raw(image, SECRETS)
    assert [result.detail for result in results if result.status is Status.UNREACHABLE] == [
        "the whole disk holds nothing that is known: its files cannot be named"
    ]


@pytest.mark.parametrize(("mib", "status"), [(8, Status.PASS), (9, Status.UNREACHABLE)])
def test_only_a_small_partition_is_left_to_a_boot_loader(tmp_path: Path, mib: int, status: Status) -> None:
    path = tmp_path / "disk"
    path.write_bytes(partitioned(b"x" * mib * MIB))
    with open_image(path) as image:
        results, _, _ = prove_raw(image, SECRETS)
    assert {result.status for result in results if result.controls == ("R02",)} == {status}


@pytest.mark.parametrize("file_system", ["ext4", "xfs"])
@pytest.mark.parametrize("in_partition", [False, True])
@pytest.mark.subprocess
def test_an_image_that_was_cut_short_never_passes(tmp_path: Path, file_system: str, in_partition: bool) -> None:
    """What is missing may hold anything, though all that is there is clean."""
    import subprocess

    made, path = tmp_path / "made", tmp_path / "disk"
    size = {"ext4": 16, "xfs": 300}[file_system] * MIB
    with made.open("wb") as file:
        file.truncate(size)
    subprocess.run(["/sbin/mkfs." + file_system, "-q", made], check=True)
    whole = made.read_bytes()
    path.write_bytes(partitioned(whole) if in_partition else whole)
    assert problems_of(path) == []
    os.truncate(path, path.stat().st_size - MIB)
    assert any("was cut short" in problem for problem in problems_of(path))


def partitioned(content: bytes) -> bytes:
    """Return a disk with a partition table of the oldest kind, and one partition."""
    entry = struct.pack("<B3xB3xII", 0, 0x83, MIB // 512, len(content) // 512)
    return (b"\0" * 446 + entry).ljust(510, b"\0") + b"\x55\xaa" + bytes(MIB - 512) + content


def problems_of(path: Path) -> list[str]:
    with open_image(path) as image:
        results, _, _ = prove_raw(image, SECRETS)
    return [result.detail for result in results if result.status is not Status.PASS]


class Interrupted(Exception):
    pass


def test_an_interrupted_scan_goes_on_and_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.residue.proof.EVERY_BLOCKS", 2)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0})
    place = 6 * BLOCK - 5
    whole = prove_raw(disk_with(TOKEN.encode(), place), SECRETS)

    class Breaking(Disk):
        def read(self, index: int) -> bytes:
            if index == 7:
                raise Interrupted
            return super().read(index)

    disk = disk_with(TOKEN.encode(), place)
    state = tmp_path / "state.json"
    with pytest.raises(Interrupted):
        prove_raw(Breaking(disk.data), SECRETS, state=state)
    assert TOKEN not in state.read_text()
    disk.asked.clear()
    again = prove_raw(disk, SECRETS, state=state)
    assert again[1:] == whole[1:]
    assert disk.asked[0] >= 3
    assert not state.exists()


def test_the_state_of_another_disk_or_other_rules_is_not_used(tmp_path: Path) -> None:
    state = tmp_path / "state.json"
    state.write_text('{"key": "another", "next_block": 7}')
    disk = disk_with(b"")
    prove_raw(disk, SECRETS, state=state)
    assert disk.asked[0] == 0


def test_what_is_far_away_is_read_once() -> None:
    disk = disk_with(TOKEN.encode())
    prove_raw(disk, SECRETS)
    assert sorted(disk.asked) == sorted(set(disk.asked))
