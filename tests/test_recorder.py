"""Nothing that was recorded is lost: the report is whole on disk at each moment, and claims no more than was seen."""

import io
import json
import threading
from pathlib import Path

import pytest

from pipeline import files
from pipeline.errors import CapacityMissing, FileUnwritable, Interrupted
from pipeline.recorder import Recorder
from pipeline.report.console import Console
from pipeline.report.evidence import Evidence, Finding, Image, Layer, Leak, Resource, Status
from pipeline.report.render import parse_json
from tests.report.evidence_examples import START, result


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


FINDING = Finding(control="R03", layer=Layer.RAW, kind="key", place="block 7", fingerprint="SHA256:abc")
LEAK = Leak(kind="volume", identity="vol-1", region="eu-central-1", reason="in use")


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def recorder(tmp_path: Path, clock: Clock) -> Recorder:
    return make_recorder(tmp_path / "builds" / "b1", clock)


def make_recorder(folder: Path, clock: Clock) -> Recorder:
    console = Console(file=io.StringIO(), terminal=False, clock=clock)
    return Recorder(
        folder, console, build_id=folder.name, spec_name="web", spec_digest="0", region="eu-central-1", clock=clock
    )


def on_disk(recorder: Recorder) -> Evidence:
    return parse_json((recorder.folder / "report.json").read_text())


def test_stages_nest_and_are_timed(recorder: Recorder, clock: Clock) -> None:
    with recorder.stage("launch"):
        clock.now += 1
        with recorder.stage("network"):
            clock.now += 2
        with recorder.stage("instance"):
            clock.now += 3
    launch, *rest = on_disk(recorder).stages
    assert not rest
    assert (launch.name, launch.seconds, launch.status) == ("launch", 6, Status.PASS)
    assert [(part.name, part.seconds) for part in launch.parts] == [("network", 2), ("instance", 3)]


def test_report_is_on_disk_before_the_first_stage_and_claims_nothing(recorder: Recorder) -> None:
    evidence = on_disk(recorder)
    assert evidence.exit_status != 0
    assert evidence.error == "the build has not finished"
    assert evidence.finished is None


def test_stage_that_still_runs_is_not_a_pass(recorder: Recorder) -> None:
    with recorder.stage("launch"):
        with recorder.stage("network"):
            pass
        (launch,) = on_disk(recorder).stages
    assert launch.status is Status.UNREACHABLE
    assert launch.parts[0].status is Status.PASS


def test_failure_is_on_disk_and_goes_on(recorder: Recorder) -> None:
    with pytest.raises(CapacityMissing), recorder.stage("launch"), recorder.stage("instance"):
        raise CapacityMissing("no t3.small", region="eu-central-1")
    (launch,) = on_disk(recorder).stages
    for stage in (launch, *launch.parts):
        assert stage.status is Status.FAIL
        assert "no t3.small (eu-central-1)" in stage.detail
        assert "what to do" in stage.detail


def test_interruption_is_recorded(recorder: Recorder) -> None:
    with pytest.raises(KeyboardInterrupt), recorder.stage("launch"):
        raise KeyboardInterrupt
    assert on_disk(recorder).stages[0].detail == "interrupted"
    assert recorder.finish(KeyboardInterrupt()).exit_status == Interrupted.exit_status


@pytest.mark.parametrize("status", Status)
def test_result_that_is_no_pass_fails_its_stage_and_those_around_it(recorder: Recorder, status: Status) -> None:
    with recorder.stage("prove"), recorder.stage("checks"):
        recorder.add(result("H01", Layer.LIVE, status, "why"))
    (prove,) = recorder.evidence().stages
    expected = Status.FAIL if status in (Status.FAIL, Status.UNREACHABLE) else Status.PASS
    assert (prove.status, prove.parts[0].status) == (expected, expected)


def test_finding_fails_its_stage(recorder: Recorder) -> None:
    with recorder.stage("prove raw"):
        recorder.find(FINDING)
    assert recorder.evidence().stages[0].status is Status.FAIL


@pytest.mark.parametrize(
    ("happens", "exit_status"),
    [
        (lambda recorder: None, 0),
        (lambda recorder: recorder.add(result("H01", Layer.LIVE, Status.PASS)), 0),
        (lambda recorder: recorder.add(result("H01", Layer.LIVE, Status.NOT_APPLICABLE)), 0),
        (lambda recorder: recorder.add(result("H01", Layer.LIVE, Status.FAIL)), 40),
        (lambda recorder: recorder.add(result("H01", Layer.LIVE, Status.UNREACHABLE)), 40),
        (lambda recorder: recorder.find(FINDING), 41),
        (lambda recorder: recorder.leak(LEAK), 60),
    ],
)
def test_build_ends_well_only_when_nothing_is_wrong(recorder: Recorder, happens: object, exit_status: int) -> None:
    happens(recorder)
    evidence = recorder.finish()
    assert evidence.exit_status == exit_status
    assert (evidence.error is None) == (exit_status == 0)
    assert evidence.finished is not None
    assert on_disk(recorder) == evidence


def test_stage_that_failed_silently_fails_the_build(recorder: Recorder) -> None:
    try:
        with recorder.stage("seal"):
            raise CapacityMissing("no room")
    except CapacityMissing:
        pass
    assert recorder.finish().exit_status == 40


@pytest.mark.parametrize(("error", "exit_status"), [(CapacityMissing("x"), 14), (ZeroDivisionError("x"), 1)])
def test_error_decides_the_exit_status(recorder: Recorder, error: Exception, exit_status: int) -> None:
    recorder.leak(LEAK)
    evidence = recorder.finish(error)
    assert evidence.exit_status == exit_status
    assert evidence.leaks == (LEAK,)


def test_resources_are_asked_for_at_each_write(recorder: Recorder) -> None:
    made: list[Resource] = []
    recorder.take_resources(lambda: made)
    recorder.write()
    made.append(Resource(kind="instance", identity="i-1", region="eu-central-1", created=START))
    recorder.set_image(Image(image_id="ami-1", name="web", region="eu-central-1", snapshot_ids=("snap-1",)))
    recorder.write()
    evidence = on_disk(recorder)
    assert [resource.identity for resource in evidence.resources] == ["i-1"]
    assert evidence.image is not None
    assert evidence.image.image_id == "ami-1"


def test_threads_record_into_the_stage_that_runs(recorder: Recorder) -> None:
    both = threading.Barrier(2, timeout=10)

    def prove(name: str, layer: Layer) -> None:
        with recorder.stage(name):
            both.wait()
            recorder.progress("half", 1, 2)
            for number in range(50):
                recorder.add(result(f"H{number}", layer, Status.PASS))
            with recorder.stage("inner"):
                both.wait()

    with recorder.stage("prove"):
        threads = [
            threading.Thread(target=prove, args=pair) for pair in (("raw", Layer.RAW), ("boot", Layer.FRESH_BOOT))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(timeout=20)
    (prove_stage,) = on_disk(recorder).stages
    assert sorted(part.name for part in prove_stage.parts) == ["boot", "raw"]
    assert all([inner.name for inner in part.parts] == ["inner"] for part in prove_stage.parts)
    assert len(on_disk(recorder).results) == 100


def test_thread_without_a_stage_around_it_has_one_of_its_own(recorder: Recorder) -> None:
    def prove() -> None:
        with recorder.stage("raw"):
            pass

    thread = threading.Thread(target=prove)
    thread.start()
    thread.join(timeout=20)
    assert [stage.name for stage in recorder.evidence().stages] == ["raw"]


def test_latest_follows_the_newest_build(tmp_path: Path, clock: Clock) -> None:
    latest = tmp_path / "latest"
    for name in ("b1", "b2"):
        make_recorder(tmp_path / name, clock)
        assert latest.resolve() == tmp_path / name
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["b1", "b2", "latest"]


def test_latest_that_is_no_link_is_left_alone(tmp_path: Path, clock: Clock) -> None:
    (tmp_path / "latest").mkdir()
    make_recorder(tmp_path / "b1", clock)
    assert not (tmp_path / "latest").is_symlink()


def test_artefacts_are_saved_inside_the_folder_only(recorder: Recorder) -> None:
    recorder.save("program.sh", "#!/bin/sh\n")
    recorder.save("consoles/fresh.log", b"\xff\x1b")
    assert (recorder.folder / "program.sh").read_text() == "#!/bin/sh\n"
    assert (recorder.folder / "consoles" / "fresh.log").read_bytes() == b"\xff\x1b"
    for name in ("../x", "/tmp/x", "a/../../x"):
        with pytest.raises(ValueError, match="leads out"):
            recorder.save(name, "x")


def test_write_that_fails_leaves_the_old_report_whole(recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = (recorder.folder / "report.json").read_text()
    with monkeypatch.context() as broken:
        broken.setattr(files.os, "fsync", fail_for_want_of_space)
        with pytest.raises(FileUnwritable, match="No space left"), recorder.stage("launch"):
            pass
        with pytest.raises(CapacityMissing), recorder.stage("seal"):
            raise CapacityMissing("x")
        with pytest.raises(FileUnwritable):
            recorder.finish()
    assert (recorder.folder / "report.json").read_text() == before
    left = {entry.name for entry in recorder.folder.iterdir()}
    assert left == {"junit.xml", "report.html", "report.json", "report.sarif"}


def fail_for_want_of_space(descriptor: int) -> None:
    raise OSError(28, "No space left on device")


def test_defect_is_named_as_one(recorder: Recorder) -> None:
    with pytest.raises(ZeroDivisionError), recorder.stage("launch"):
        raise ZeroDivisionError("oops")
    assert on_disk(recorder).stages[0].detail == "a defect of Assay: ZeroDivisionError: oops"


def test_report_is_json_with_the_controls(recorder: Recorder) -> None:
    recorder.add(result("H01", Layer.LIVE, Status.PASS))
    recorder.finish()
    document = json.loads((recorder.folder / "report.json").read_text())
    assert document["controls"] == {"H01": {"L": "pass"}}
