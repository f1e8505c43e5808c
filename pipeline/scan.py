"""The recipe that searches one disk for what no image may hold: a file, a snapshot, or an image's snapshots."""

import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SpecInvalid
from pipeline.report.results import Status
from pipeline.report.sarif import Examined, render_sarif
from pipeline.residue.origin import Written
from pipeline.residue.proof import Progress
from pipeline.residue.scan import ScanReport, scan_image, scan_source
from pipeline.residue.sift import Allowed

if TYPE_CHECKING:
    from pipeline.aws.session import Session
    from pipeline.spec import Spec

MIB = 1 << 20


def scan(
    image: str,
    ami: str,
    snapshot: str,
    open_session: "Callable[[], Session]",
    progress: Progress,
    changed: str = "",
    spec: "Spec | None" = None,
    state: str = "",
) -> dict[str, ScanReport]:
    """Search exactly one of a file, an AMI, or a snapshot, and return a report for each disk, by its name.

    With `changed`, the id of an earlier snapshot of the same volume, only the blocks of `snapshot` that differ from it
    are read. What the spec waives, its users' keys, and what its hardening writes are no findings. An interrupted scan
    goes on from the file `state`, of several snapshots from one with the snapshot's id at its end. A file needs neither
    cloud nor spec, and no more memory than its search. Raises SpecInvalid unless exactly one is named, CloudFailed when
    the cloud refuses.
    """
    if sum(map(bool, (image, ami, snapshot))) != 1:
        raise SpecInvalid("nothing to scan, or too much", hint="name one of --image FILE, --ami ID, --snapshot ID")
    if changed and not snapshot:
        raise SpecInvalid("only snapshots have changed blocks", hint="name --snapshot ID beside --changed ID")
    allowed, written = expected_by(spec) if spec else (Allowed(), frozenset())
    progress = with_rate(progress)
    kept = Path(state) if state else None
    if image:
        return {image: scan_image(Path(image), progress, allowed, kept, written=written)}
    from pipeline.aws import images
    from pipeline.aws.blocks import SnapshotBlocks

    session = open_session()
    if changed:
        since, whole = SnapshotBlocks(session, snapshot, since=changed), SnapshotBlocks(session, snapshot)
        return {snapshot: scan_source(since, progress=progress, allowed=allowed, state=kept, whole=whole)}
    snapshot_ids = images.describe_image(session, ami).snapshot_ids if ami else (snapshot,)
    return {
        found: scan_source(
            SnapshotBlocks(session, found),
            progress=progress,
            allowed=allowed,
            state=Path(f"{state}.{found}" if len(snapshot_ids) > 1 else state) if state else None,
            written=written,
        )
        for found in snapshot_ids
    }


def expected_by(spec: "Spec") -> tuple[Allowed, Written]:
    """Return what a spec lets stay on a disk, and what its hardening writes on a guest that nobody can ask."""
    from pipeline.harden.assumed_guest import assume_facts
    from pipeline.stages.expected import allowed_by, written_by

    return allowed_by(spec), written_by(assume_facts(spec), spec)


def with_rate(progress: Progress, now: Callable[[], float] = time.monotonic) -> Progress:
    """Return a progress that counts in MiB and says how many of them a second."""
    started = now()

    def report(text: str, done: int, total: int) -> None:
        rate = done / MIB / max(now() - started, 1e-9)
        progress(f"MiB {text}, {rate:.0f} MiB/s", done // MIB, total // MIB)

    return report


def describe(name: str, report: ScanReport) -> list[str]:
    """Return a report as lines: what was found where, what could not be looked at, and how fast it was."""
    rate = report.searched_bytes / MIB / max(report.seconds, 1e-9)
    return [
        f"{name}: {report.size_bytes / 2**30:.2f} GiB, {report.searched_bytes / MIB:.1f} MiB of it searched "
        f"in {report.seconds:.1f} s ({rate:.0f} MiB/s)",
        f"  sha256 over its blocks: {report.digest or 'none, as only the changed blocks were read'}",
        *(f"  {found.control} {found.kind} at {found.place} [{found.fingerprint}]" for found in report.findings),
        *(
            f"  {result.status}: {result.title}: {result.detail}"
            for result in report.results
            if result.status is Status.UNREACHABLE
        ),
        f"  {len(report.findings)} findings",
    ]


def as_sarif(reports: dict[str, ScanReport]) -> str:
    """Return the reports as a SARIF 2.1.0 file, with a run for each disk."""
    return render_sarif(
        [Examined(name, report.results, report.findings, report.digest) for name, report in reports.items()]
    )


def as_json(reports: dict[str, ScanReport]) -> dict[str, object]:
    """Return the reports as JSON values."""
    return {
        name: {
            "digest": report.digest,
            "size_bytes": report.size_bytes,
            "searched_bytes": report.searched_bytes,
            "seconds": round(report.seconds, 3),
            "findings": [asdict(finding) for finding in report.findings],
            "results": [asdict(result) for result in report.results],
        }
        for name, report in reports.items()
    }
