"""What differs between two builds is said by subject, and what is the same is not."""

import json
from pathlib import Path

import pytest

from pipeline.diff import Change, compare_builds, find_changes
from pipeline.errors import SpecInvalid
from pipeline.report.evidence import Evidence, Finding, Layer, Status
from pipeline.report.evidence_folder import write_report
from pipeline.report.sbom import Inventory, Package, render_sbom
from tests.report.evidence_examples import CLEAN, START, result

OPENSSH = Package("openssh-server", "9.2-1", "amd64", installed_bytes=2**20)
CURL = Package("curl", "7.88", "amd64", installed_bytes=3 * 2**20)
FINDING = Finding(control="R03", layer=Layer.RAW, kind="key", place="block 7", fingerprint="00ff")


def write_build(folder: Path, evidence: Evidence, *packages: Package) -> Path:
    write_report(folder, evidence)
    inventory = Inventory("deb", "debian", "12", "Debian", packages)
    bill = render_sbom(inventory, build_id=evidence.build_id, spec_name=evidence.spec_name, made=START)
    (folder / "sbom.cdx.json").write_text(bill)
    return folder


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write_build(tmp_path / "b1", CLEAN, OPENSSH, CURL)


def test_equal_builds_do_not_differ(before: Path) -> None:
    difference = compare_builds(before, before)
    assert not any(difference.subjects.values())
    assert list(difference.lines()) == [
        "from b1 to b1",
        *(f"{subject}: nothing changed" for subject in difference.subjects),
    ]


def test_every_subject_says_what_changed(before: Path, tmp_path: Path) -> None:
    newer = CLEAN.model_copy(
        update={
            "build_id": "b2",
            "spec_digest": "1" * 64,
            "results": (result("H01", Layer.LIVE, Status.FAIL), result("H02", Layer.LIVE, Status.PASS)),
            "findings": (FINDING,),
        }
    )
    newer_openssh = Package("openssh-server", "9.2-2", "amd64", installed_bytes=2 * 2**20)
    after = write_build(tmp_path / "b2", newer, newer_openssh, Package("nginx", "1.22", "amd64"))
    difference = compare_builds(before, after)
    lines = {subject: [change.line() for change in changes] for subject, changes in difference.subjects.items()}
    assert lines == {
        "identity": [f"~ spec digest {'0' * 64} → {'1' * 64}"],
        "packages": ["- curl amd64 7.88", "+ nginx amd64 1.22", "~ openssh-server amd64 9.2-1 → 9.2-2"],
        "sizes": ["~ installed 4.0 MiB → 2.0 MiB"],
        "controls": ["- H01 fresh boot pass", "~ H01 live pass → fail", "+ H02 live pass", "+ R03 raw fail"],
        "results": [
            "- fresh boot: checks/test_sshd.py::test_it H01 holds pass",
            "~ live: checks/test_sshd.py::test_it H01 holds pass → fail",
            "+ live: checks/test_sshd.py::test_it H02 holds pass",
        ],
        "findings": ["+ R03 key 00ff block 7"],
    }
    shown = list(difference.lines())
    assert shown[0] == "from b1 to b2"
    assert "packages: 3 changed" in shown
    document = json.loads(difference.as_json())
    assert document["subjects"]["sizes"] == [{"name": "installed", "from": "4.0 MiB", "to": "2.0 MiB"}]


def test_order_of_names_is_the_alphabet_s() -> None:
    changes = list(find_changes({"b": "1", "a": "1"}, {"c": "1"}))
    assert changes == [Change("a", "1", ""), Change("b", "1", ""), Change("c", "", "1")]


@pytest.mark.parametrize("text", [None, "x", "{}"])
def test_build_without_a_bill_is_said(before: Path, text: str | None) -> None:
    bill = before / "sbom.cdx.json"
    if text is None:
        bill.unlink()
    else:
        bill.write_text(text)
    with pytest.raises(SpecInvalid, match="no bill of materials"):
        compare_builds(before, before)


def test_no_such_build_is_said(before: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="no report"):
        compare_builds(before, tmp_path / "b3")
