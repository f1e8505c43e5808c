"""Releases that go wrong at one call: the real release over two regions, in processes that may be killed.

Run as `python -m tests.publish.scripted_release ENDPOINT FOLDER`, with credentials in the environment. Each line of its
standard input is a release: the build id, what goes wrong, and with which call (region, action, the how many-th), or
`none`. It forks them, some side by side, and answers with the build id and how it ended. A build whose image is there
already is released again.
"""

import os
import sys
import time
import traceback
from datetime import UTC, datetime, timedelta
from pathlib import Path

from pipeline.aws import images
from pipeline.aws.blocks import BLOCK_SIZE, GIB
from pipeline.aws.session import open_session
from pipeline.aws.tags import Tags, mark_kept
from pipeline.aws.wait import CLOCK
from pipeline.block_digest import digest_blocks
from pipeline.errors import AssayError
from pipeline.journal import Journal
from pipeline.publish.copies import Proved
from pipeline.publish.release import Release
from pipeline.spec import Release as Options
from pipeline.spec import Share, Spec, load_spec
from tests.fake_cloud import CONSUMER, ROOT, make_image
from tests.publish.faulty import Call, Strike, Wire, WiredSession, wired

HOME, ABROAD = "eu-central-1", "us-east-1"
REGIONS = (HOME, ABROAD)
SPEC = load_spec(ROOT / "specs" / "debian-12-local.yaml")
SIDE_BY_SIDE = 8
"""Releases at a time: each mostly waits."""
LONGEST_REST_SECONDS = 0.05
"""Nothing that is waited for here takes longer."""
BLOCK = (0, b"assay" + bytes(BLOCK_SIZE - 5))
DIGEST = digest_blocks(GIB, BLOCK_SIZE, [BLOCK])


def parameter(build_id: str) -> str:
    """Return the parameter of a build's release: each has one of its own."""
    return f"/images/{build_id}"


def spec_of(folder: Path) -> Spec:
    """Return a spec that asks for everything; what becomes of copies is the name of the folder of the builds."""
    options = Options(
        regions=(ABROAD,),
        parameter=parameter(folder.name),
        deprecate_after_days=30,
        protect=True,
        copies_on_failure="remove" if folder.parent.name == "remove" else "keep",
    )
    return SPEC.model_copy(update={"share": Share(accounts=(CONSUMER,), public=True), "release": options})


def release(session: WiredSession, folder: Path, strike: Strike | None) -> None:
    """Release the image of a build, and let one call of it go wrong."""
    build_id = folder.name
    folder.mkdir(exist_ok=True)
    tags = Tags(build_id, "sha256:00", "tests", datetime.now(UTC) + timedelta(hours=6))
    found = images.images_called(session, build_id)
    image = found[0] if found else make_image(session, tags, build_id, BLOCK)
    if not found:
        mark_kept(session, (image.image_id, *image.snapshot_ids))
    session.wire.arm(strike)
    with Journal(folder / "journal.jsonl", build_id, session.cloud) as journal:
        proved = Proved(image, HOME, (DIGEST,))
        run = Release(session, spec_of(folder), proved, tags, journal, lambda *_: None, lambda _: None)
        try:
            run.perform()
        except BaseException:
            journal.undo_all()
            raise
        finally:
            (folder / "calls").write_text("\n".join(map(str, session.wire.calls)))


def fork(session: WiredSession, folder: Path, line: str) -> int:
    """Start a release in a process of its own and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    build_id, kind, *call = line.split()
    strike = Strike(Call(call[0], call[1], int(call[2])), kind) if call else None
    status = 1
    try:
        release(session, folder / build_id, strike)
        status = 0
    except AssayError as error:
        (folder / build_id / "error").write_text(str(error))
        status = error.exit_status
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def open_wired(endpoint: str) -> WiredSession:
    """Return a session whose clients are made, and have no connection yet: a fork makes its own."""
    session = wired(open_session(HOME, endpoint), Wire())
    session.__dict__["caller"] = session.caller
    for region in REGIONS:
        for name, once in (("ec2", False), ("ec2", True), ("ebs", False), ("ssm", False)):
            session.in_region(region).client(name, once=once)
    return session


def main() -> None:
    endpoint, folder = sys.argv[1:]
    session = open_wired(endpoint)
    object.__setattr__(CLOCK, "rest", lambda seconds: time.sleep(min(seconds, LONGEST_REST_SECONDS)))
    running: dict[int, str] = {}
    for line in sys.stdin.read().splitlines():
        if len(running) == SIDE_BY_SIDE:
            report_one(running)
        running[fork(session, Path(folder), line)] = line.split()[0]
    while running:
        report_one(running)


def report_one(running: dict[int, str]) -> None:
    """Wait for the next release that ends, and say how."""
    pid, status = os.wait()
    end = "killed" if os.WIFSIGNALED(status) else str(os.waitstatus_to_exitcode(status))
    print(f"{running.pop(pid)} {end}", flush=True)


if __name__ == "__main__":
    main()
