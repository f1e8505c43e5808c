"""What `invoke scan` says: how far and how fast it is, what was found, and what could not be looked at."""

import json
import re
from collections.abc import Sequence
from pathlib import Path

import pytest

from pipeline.errors import ResidueFound, SpecInvalid
from pipeline.residue.checkpoint import EVERY_BLOCKS, Checkpoint
from pipeline.residue.engine import Match
from pipeline.residue.scan import ScanReport, scan_image
from pipeline.scan import MIB, as_json, as_sarif, describe, scan, with_rate
from tests.planted.plants import checked_token

BLOCK = 512 * 1024


def write_disk(path: Path, *, blocks: int = 4) -> Path:
    with path.open("wb") as file:
        file.truncate(64 * MIB)
        for index in range(blocks):
            file.seek(index * BLOCK)
            file.write(b"text " * 100)
        file.seek(10 * MIB)
        file.write(b"token: " + checked_token("ghp_") + b"\n")
    return path


def search(image: Path, state: str = "", told: list[tuple[str, int, int]] | None = None):
    heard = told if told is not None else []
    return scan(str(image), "", "", pytest.fail, lambda *what: heard.append(what), state=state)


def test_exactly_one_thing_is_scanned() -> None:
    for image, ami, snapshot in (("", "", ""), ("a", "b", ""), ("", "b", "c")):
        with pytest.raises(SpecInvalid, match="nothing to scan, or too much"):
            scan(image, ami, snapshot, pytest.fail, lambda *_: None)
    with pytest.raises(SpecInvalid, match="only snapshots"):
        scan("a", "", "", pytest.fail, lambda *_: None, changed="snap-1")


def test_progress_counts_mebibytes_and_their_rate() -> None:
    told: list[tuple[str, int, int]] = []
    moments = iter([0.0, 2.0])
    with_rate(lambda *what: told.append(what), lambda: next(moments))("searching blocks", 30 * MIB, 120 * MIB)
    assert told == [("MiB searching blocks, 15 MiB/s", 30, 120)]


def test_what_was_found_is_told_in_each_form_and_never_the_secret(tmp_path: Path) -> None:
    image = write_disk(tmp_path / "disk.raw")
    reports = search(image)
    (report,) = reports.values()
    lines = describe(str(image), report)
    assert "0.06 GiB, 2.5 MiB of it searched" in lines[0]
    assert any("S07 GitHub token" in line and "offset 10485767" in line for line in lines)
    assert lines[-1] == "  1 findings"
    assert json.loads(json.dumps(as_json(reports)))[str(image)]["findings"][0]["control"] == "S07"
    assert "GitHub token" in as_sarif(reports)
    assert "ghp_" not in "\n".join([*lines, json.dumps(as_json(reports)), as_sarif(reports)])
    with pytest.raises(ResidueFound, match="1 findings: GitHub token") as error:
        report.require_clean(str(image))
    assert "build" not in error.value.describe()


def bytes_read(report: ScanReport) -> int:
    (title,) = (result.title for result in report.results if "R01" in result.controls)
    return int(re.findall(r"read: (\d+) bytes", title)[0])


@pytest.mark.subprocess
def test_an_interrupted_scan_goes_on_from_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    image, state = write_disk(tmp_path / "disk.raw", blocks=0), tmp_path / "state"
    with image.open("r+b") as file:
        for index in range(2 * EVERY_BLOCKS):
            file.seek(64 * MIB + index * BLOCK)
            file.write(b"x")
    whole = scan_image(image)
    save = Checkpoint.save

    def interrupted(checkpoint: Checkpoint, next_block: int, matches: Sequence[Match]) -> None:
        save(checkpoint, next_block, matches)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Checkpoint, "save", interrupted)
        search(image, str(state))
    assert state.exists()
    (report,) = search(image, str(state)).values()
    assert 0 < bytes_read(report) < bytes_read(whole)
    assert (report.findings, report.digest) == (whole.findings, whole.digest)
    assert not state.exists()
