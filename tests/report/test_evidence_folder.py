"""What a build leaves on disk: every form of the evidence, and each build found again."""

from pathlib import Path

import pytest

from pipeline.errors import SpecInvalid
from pipeline.report.evidence_folder import find_page, read_report, write_report
from tests.report.evidence_examples import CLEAN, FULL


def test_report_is_written_in_every_form_and_reads_back(tmp_path: Path) -> None:
    write_report(tmp_path, FULL)
    assert {path.name for path in tmp_path.iterdir()} == {"report.json", "report.html", "report.sarif", "junit.xml"}
    assert read_report(tmp_path) == FULL
    write_report(tmp_path, CLEAN)
    assert "<h1>Proved</h1>" in find_page(tmp_path).read_text()


def test_build_from_before_there_were_pages_gets_one(tmp_path: Path) -> None:
    write_report(tmp_path / "b1", CLEAN)
    (tmp_path / "b1" / "report.html").unlink()
    (tmp_path / "latest").symlink_to("b1")
    page = find_page(tmp_path / "latest")
    assert page == tmp_path / "b1" / "report.html"
    assert "<h1>Proved</h1>" in page.read_text()


def test_no_such_build_is_said(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="no report of such a build"):
        find_page(tmp_path / "b2")
    (tmp_path / "report.json").write_text("{}")
    with pytest.raises(SpecInvalid):
        read_report(tmp_path)
