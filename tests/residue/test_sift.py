"""A waiver lets a thing stay until its day, and no longer: what a pattern found, and what a file's name gives away."""

import datetime
import shutil
import subprocess
from pathlib import Path

import pytest

from pipeline.report.evidence import Finding
from pipeline.residue.blocks import open_image
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import prove_raw
from pipeline.residue.rules import fingerprint_of
from pipeline.residue.sift import Allowed
from pipeline.spec import Waiver
from tests.planted.plants import plants

TODAY = datetime.date(2026, 11, 22)
NAMED = b"ls\n"
PATTERN = next(plant.content for plant in plants() if plant.name == "Stripe key")

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
