"""Only what was proved is shared again."""

from datetime import UTC, datetime

import pytest

from pipeline.errors import ReleaseFailed, SpecInvalid
from pipeline.report.evidence import Evidence, Finding, Image, Layer, Result, Status
from pipeline.report.evidence_folder import read_report
from pipeline.report.render import render_json
from pipeline.share import proved_image

IMAGE = Image(image_id="ami-1", name="web", region="eu-central-1", snapshot_ids=("snap-1",))
FINDING = Finding(control="S02", layer=Layer.RAW, kind="public key", place="offset 7", fingerprint="0011")


def result(layer: Layer, status: Status = Status.PASS) -> Result:
    return Result(controls=("H01",), layer=layer, status=status, title="a check", source="checks/test_x.py")


PROVED = Evidence(
    build_id="20250131-235959-1a2b3c",
    spec_name="web",
    spec_digest="sha256:00",
    region="eu-central-1",
    started=datetime(2025, 1, 31, 23, 59, 59, tzinfo=UTC),
    image=IMAGE,
    results=tuple(result(layer) for layer in (Layer.LIVE, Layer.RAW, Layer.FRESH_BOOT)),
)


def test_a_proved_image_may_be_shared():
    assert proved_image(PROVED) == IMAGE


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"image": None}, "it made no image"),
        ({"findings": (FINDING,)}, "found: public key"),
        ({"results": PROVED.results[:2]}, "nothing was proved at layer B"),
        ({"results": ()}, "nothing was proved at layer L"),
        ({"results": (*PROVED.results, result(Layer.AWS, Status.FAIL))}, "not a pass: a check"),
        ({"results": (*PROVED.results, result(Layer.RAW, Status.UNREACHABLE))}, "not a pass: a check"),
    ],
)
def test_an_image_that_is_not_proved_is_refused_with_the_reason(change, reason):
    with pytest.raises(ReleaseFailed, match=reason):
        proved_image(PROVED.model_copy(update=change))


def test_the_report_of_a_build_is_read_back(tmp_path):
    (tmp_path / "report.json").write_text(render_json(PROVED))

    assert read_report(tmp_path) == PROVED


@pytest.mark.parametrize("content", [None, "", "{}", "[1]"])
def test_a_folder_without_a_report_is_no_build(tmp_path, content):
    if content is not None:
        (tmp_path / "report.json").write_text(content)
    with pytest.raises(SpecInvalid, match="no report"):
        read_report(tmp_path)
