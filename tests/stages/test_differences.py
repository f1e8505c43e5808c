"""What a build records of the one before it."""

import io
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.recorder import Recorder
from pipeline.report.console import Console
from pipeline.report.evidence import Change, Evidence, Layer, Status
from pipeline.report.evidence_folder import write_report
from pipeline.report.sbom import Inventory, Package, render_sbom
from pipeline.stages.differences import find_earlier, record_differences
from tests.report.evidence_examples import CLEAN, FULL, START, result

PROVED = CLEAN.model_copy(
    update={"results": tuple(result("H01", layer, Status.PASS) for layer in (Layer.LIVE, Layer.RAW, Layer.FRESH_BOOT))}
)


def write_build(builds: Path, build_id: str, **changes: object) -> Path:
    """Write the evidence of a build that was proved, but for the changes; its packages are its id's."""
    folder = builds / build_id
    folder.mkdir(parents=True)
    evidence = PROVED.model_copy(update={"build_id": build_id, **changes})
    write_report(folder, evidence)
    write_bill(folder, build_id)
    return folder


def write_bill(folder: Path, version: str) -> None:
    inventory = Inventory("deb", "debian", "12", "Debian 12", (Package("nginx", version, "amd64"),))
    (folder / "sbom.cdx.json").write_text(render_sbom(inventory, build_id="b", spec_name="web", made=START))


def now(**changes: object) -> Evidence:
    return PROVED.model_copy(update={"build_id": "b5", **changes})


def test_the_newest_earlier_build_that_was_proved_is_taken(tmp_path: Path) -> None:
    write_build(tmp_path, "b1")
    write_build(tmp_path, "b2")
    write_build(tmp_path, "b3", exit_status=40)
    write_build(tmp_path, "b6")
    (tmp_path / "latest").symlink_to("b6")
    found = find_earlier(tmp_path, now())
    assert found and found.build_id == "b2"


@pytest.mark.parametrize(
    "other",
    [
        {"spec_name": "other"},
        {"region": "us-east-1"},
        {"base_image": None},
        {"exit_status": 60},
        {"results": PROVED.results[:2]},
        {"findings": FULL.findings},
        {"image": None},
    ],
    ids=lambda other: next(iter(other)),
)
def test_what_is_no_proved_build_of_the_same_is_passed_over(tmp_path: Path, other: dict[str, Any]) -> None:
    write_build(tmp_path, "b1", **other)
    assert find_earlier(tmp_path, now()) is None


def test_a_report_that_cannot_be_read_is_passed_over(tmp_path: Path) -> None:
    write_build(tmp_path, "b1")
    (write_build(tmp_path, "b2") / "report.json").write_text('{"spec_name": "debian-12-local"')
    found = find_earlier(tmp_path, now())
    assert found and found.build_id == "b1"


@pytest.fixture
def context(tmp_path: Path) -> Any:
    """A build that has come as far as its bill of materials."""
    recorder = Recorder(
        tmp_path / "b5",
        Console(file=io.StringIO(), terminal=False),
        build_id="b5",
        spec_name=PROVED.spec_name,
        spec_digest="1" * 64,
        region=PROVED.region,
        started=START + timedelta(days=1),
    )
    assert PROVED.base_image and PROVED.image
    recorder.set_base_image(PROVED.base_image)
    recorder.set_image(PROVED.image.model_copy(update={"image_id": "ami-0new"}))
    recorder.add(*PROVED.results[:2])
    write_bill(recorder.folder, "b5")
    return SimpleNamespace(builds=tmp_path, recorder=recorder)


def test_a_build_records_what_is_not_as_before(context: Any) -> None:
    write_build(context.builds, "b1")
    record_differences(context)
    previous = context.recorder.evidence().previous
    assert (previous.build_id, previous.image_id, previous.finished) == ("b1", "ami-0feed", PROVED.finished)
    changes = {subject: changed for subject, changed in previous.changes.items() if changed}
    assert changes["packages"] == (Change(name="nginx amd64", before="b1", after="b5"),)
    assert changes["identity"] == (Change(name="spec digest", before="0" * 64, after="1" * 64),)
    assert changes["controls"] == (Change(name="H01 fresh boot", before="pass", after=""),)
    assert changes.keys() == {"packages", "identity", "controls"}


def test_a_build_that_ended_early_records_none(context: Any) -> None:
    write_build(context.builds, "b1")
    (context.recorder.folder / "sbom.cdx.json").unlink()
    record_differences(context)
    assert context.recorder.evidence().previous is None


def test_a_first_build_records_none(context: Any) -> None:
    record_differences(context)
    assert context.recorder.evidence().previous is None
