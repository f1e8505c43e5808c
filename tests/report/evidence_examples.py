"""Evidence to render: everything that a report can hold, with text that tries to break out of it."""

from datetime import UTC, datetime, timedelta

from pipeline.report.evidence import (
    BaseImage,
    Change,
    Evidence,
    Finding,
    Image,
    Layer,
    Leak,
    Previous,
    Resource,
    Result,
    Stage,
    Status,
)

START = datetime(2025, 11, 2, 12, 0, tzinfo=UTC)
NASTY = "got \x1b[31m\x1b]0;owned\x07 ]]> <b>&amp; [bold]x[/bold] \x00\ufffe\u202e"


def result(control: str, layer: Layer, status: Status, detail: str = "") -> Result:
    return Result(
        controls=(control,),
        layer=layer,
        status=status,
        title=f"{control} holds",
        source="checks/test_sshd.py::test_it",
        detail=detail,
        seconds=0.25,
    )


FULL = Evidence(
    build_id="b1",
    spec_name="debian-12-local",
    spec_digest="0" * 64,
    region="eu-central-1",
    started=START,
    finished=START + timedelta(seconds=185),
    base_image=BaseImage(
        image_id="ami-00000001", owner_id="136693071363", name="debian-12", creation_date="2025-01-01T00:00:00.000Z"
    ),
    image=Image(image_id="ami-0feed", name="web-b1", region="eu-central-1", snapshot_ids=("snap-1",)),
    stages=(
        Stage(name="launch", started=START, seconds=41.2, status=Status.PASS),
        Stage(
            name="prove fresh boot",
            started=START,
            seconds=61,
            status=Status.FAIL,
            detail="a check failed",
            parts=(Stage(name="checks", started=START, seconds=3.2, status=Status.FAIL, detail=NASTY),),
        ),
    ),
    results=(
        result("H01", Layer.LIVE, Status.PASS),
        result("H01", Layer.FRESH_BOOT, Status.PASS),
        result("H01", Layer.FRESH_BOOT, Status.FAIL, NASTY),
        result("H02", Layer.FRESH_BOOT, Status.UNREACHABLE, "no answer"),
        result("H04", Layer.LIVE, Status.NOT_APPLICABLE, "sshd 9.2 does not know it"),
    ),
    findings=(
        Finding(
            control="R03", layer=Layer.RAW, kind="private key", place="block 7", fingerprint="SHA256:abc", detail=NASTY
        ),
    ),
    resources=(Resource(kind="instance", identity="i-1", region="eu-central-1", created=START),),
    leaks=(Leak(kind="volume", identity="vol-1", region="eu-central-1", reason="in use"),),
    previous=Previous(
        build_id="b0",
        image_id="ami-0fade",
        finished=START - timedelta(days=1),
        changes={
            "identity": (Change(name="base image", before="ami-00000000 debian-12", after="ami-00000001 debian-12"),),
            "packages": (
                Change(name="curl amd64", before="7.88.1-10", after="7.88.1-11"),
                Change(name="telnetd amd64", before="0.17-41", after=""),
                Change(name=NASTY, before="", after="1"),
            ),
            "results": tuple(
                Change(name=f"live: checks/test_sshd.py::test_{number}", before="pass", after="fail")
                for number in range(30)
            ),
            "ports": (),
        },
    ),
    error="one check failed\n  what to do: read the report",
    exit_status=40,
)
CLEAN = FULL.model_copy(
    update={
        "stages": FULL.stages[:1],
        "results": FULL.results[:2],
        "findings": (),
        "leaks": (),
        "error": None,
        "exit_status": 0,
    }
)
