"""A waiver lets a thing stay until its day, and no longer: what a pattern found, and what a file's name gives away."""

import datetime
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.report.evidence import Finding
from pipeline.residue.blocks import RawFile, open_image
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import prove_raw
from pipeline.residue.rules import fingerprint_of
from pipeline.residue.scan import scan_source
from pipeline.residue.secrets import build_secrets
from pipeline.residue.sift import Allowed
from pipeline.spec import Waiver
from tests.planted.plants import word

TODAY = datetime.date(2026, 11, 22)
NAMED = b"ls\n"
PATTERN = f"STRIPE=sk_live_{word(24)}".encode()

pytestmark = [
    pytest.mark.subprocess,
    pytest.mark.skipif(not shutil.which("mke2fs", path="/sbin:/usr/sbin"), reason="mke2fs is not installed"),
]


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("disk")
    (folder / "tree/root").mkdir(parents=True)
    (folder / "tree/root/.bash_history").write_bytes(NAMED)
    (folder / "tree/root/notes").write_bytes(PATTERN)
    command = ["/sbin/mke2fs", "-q", "-t", "ext4", "-d", folder / "tree", folder / "disk.raw", "8M"]
    subprocess.run(command, check=True)
    return folder / "disk.raw"


def found(disk: Path, *waivers: Waiver) -> tuple[Finding, ...]:
    with open_image(disk) as image:
        return prove_raw(image, (), PATTERNS, allowed=Allowed(waivers, today=TODAY))[1]


class Changed:
    """The blocks of a disk that differ from an earlier one."""

    block_size = 4096

    def __init__(self, disk: RawFile, changed: list[int]) -> None:
        self.disk, self.changed = disk, changed
        self.size_bytes = disk.size_bytes
        self.read, self.read_many = disk.read, disk.read_many

    def indices(self) -> list[int]:
        return self.changed


def test_changed_blocks_alone_are_searched_and_what_they_hold_still_has_a_place(disk: Path) -> None:
    with open_image(disk, 4096) as image:
        (holding,) = [index for index in image.indices() if PATTERN in image.read(index)]
        results, findings, digest = prove_raw(Changed(image, [holding]), (), PATTERNS, whole=image)
        silent = prove_raw(Changed(image, []), (), PATTERNS, whole=image)
    assert digest == ""
    assert sorted(finding.place.split(" of ")[0] for finding in findings) == [
        "file /root/.bash_history",
        "file /root/notes",
    ]
    (read,) = [result for result in results if "R01" in result.controls]
    assert read.title.startswith("every changed block was read: 4096 bytes")
    assert [finding.kind for finding in silent[1]] == ["history"]
    assert all(result.status == "pass" for result in silent[0] if "R01" in result.controls)


def test_a_scan_of_changed_blocks_pins_nothing_and_looks_for_files_on_the_whole_disk(disk: Path) -> None:
    with open_image(disk, 4096) as image:
        (holding,) = [index for index in image.indices() if PATTERN in image.read(index)]
        report = scan_source(Changed(image, [holding]), whole=image)
    assert report.digest == ""
    assert {finding.place.split(" of ")[0] for finding in report.findings} == {
        "file /root/.bash_history",
        "file /root/notes",
    }


def waiver(fingerprint: str, days: int) -> Waiver:
    expires = TODAY + datetime.timedelta(days=days)
    return Waiver(fingerprint=fingerprint, reason="a test of waivers", expires=expires)


def test_waivers_hold_until_their_day(disk: Path) -> None:
    both = found(disk)
    assert sorted(finding.control for finding in both) == ["S04", "S07"]
    assert fingerprint_of(NAMED) in {finding.fingerprint for finding in both}
    assert found(disk, *(waiver(finding.fingerprint, 0) for finding in both)) == ()


def test_an_expired_waiver_silences_nothing_and_is_named(disk: Path) -> None:
    both = found(disk)
    again = found(disk, *(waiver(finding.fingerprint, -1) for finding in both))
    assert [finding.fingerprint for finding in again] == [finding.fingerprint for finding in both]
    assert all("its waiver expired on 2026-11-21" in finding.detail for finding in again)


@pytest.mark.parametrize(("names_its_size", "is_there"), [(True, False), (False, True)])
def test_what_is_compiled_of_a_package_s_source_is_the_package_s(
    tmp_path: Path, names_its_size: bool, is_there: bool
) -> None:
    """Test data of libraries are keys: as bytes they stand in the compiled module alone."""
    source, tree = b"KEY = compute()\n", tmp_path / "tree"
    size = len(source) if names_its_size else 7
    token = "tok-" + os.urandom(12).hex()
    head = b"\xcb\r\r\n" + bytes(8) + size.to_bytes(4, "little")
    digest = hashlib.md5(source, usedforsecurity=False).hexdigest()
    files = {
        "usr/lib/python3/keydata.py": source,
        "usr/lib/python3/__pycache__/keydata.cpython-312.pyc": head + PATTERN + b" " + token.encode(),
        "var/lib/dpkg/info/keys.md5sums": f"{digest}  usr/lib/python3/keydata.py\n".encode(),
    }
    for path, content in files.items():
        (tree / path).parent.mkdir(parents=True, exist_ok=True)
        (tree / path).write_bytes(content)
    subprocess.run(["/sbin/mke2fs", "-q", "-t", "ext4", "-d", tree, tmp_path / "disk.raw", "8M"], check=True)
    assert bool(found(tmp_path / "disk.raw")) is is_there
    with open_image(tmp_path / "disk.raw") as image:
        secrets = build_secrets(tokens={"deploy token": token})
        assert prove_raw(image, secrets, PATTERNS)[1], "a secret of the build is nobody's"
