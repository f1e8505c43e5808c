"""The recipe that searches one disk for what no image may hold: a file, a snapshot, or an image's snapshots."""

from collections.abc import Callable
from pathlib import Path

from pipeline.aws import images
from pipeline.aws.blocks import SnapshotBlocks
from pipeline.aws.session import Session
from pipeline.errors import SpecInvalid
from pipeline.harden.assumed_guest import assume_facts
from pipeline.report.sarif import Examined, render_sarif
from pipeline.residue.proof import Progress
from pipeline.residue.scan import ScanReport, scan_image, scan_source
from pipeline.residue.sift import Allowed
from pipeline.spec import Spec
from pipeline.stages.prove import allowed_by, written_by


def scan(
    image: str,
    ami: str,
    snapshot: str,
    open_session: Callable[[], Session],
    progress: Progress,
    changed: str = "",
    spec: Spec | None = None,
) -> dict[str, ScanReport]:
    """Search exactly one of a file, an AMI, or a snapshot, and return a report for each disk, by its name.

    With `changed`, the id of an earlier snapshot of the same volume, only the blocks of `snapshot` that differ from it
    are read. What the spec waives, its users' keys, and what its hardening writes are no findings. Raises SpecInvalid
    unless exactly one is named, CloudFailed when the cloud refuses.
    """
    if sum(map(bool, (image, ami, snapshot))) != 1:
        raise SpecInvalid("nothing to scan, or too much", hint="name one of --image FILE, --ami ID, --snapshot ID")
    if changed and not snapshot:
        raise SpecInvalid("only snapshots have changed blocks", hint="name --snapshot ID beside --changed ID")
    allowed = allowed_by(spec) if spec else Allowed()
    written = written_by(assume_facts(spec), spec) if spec else frozenset()
    if image:
        return {image: scan_image(Path(image), progress, allowed, written=written)}
    session = open_session()
    if changed:
        since, whole = SnapshotBlocks(session, snapshot, since=changed), SnapshotBlocks(session, snapshot)
        return {snapshot: scan_source(since, progress=progress, allowed=allowed, whole=whole)}
    snapshot_ids = images.describe_image(session, ami).snapshot_ids if ami else (snapshot,)
    return {
        found: scan_source(SnapshotBlocks(session, found), progress=progress, allowed=allowed, written=written)
        for found in snapshot_ids
    }


def describe(name: str, report: ScanReport) -> list[str]:
    """Return a report as lines: what was found where, what could not be looked at, and how fast it was."""
    rate = report.size_bytes / 1e6 / max(report.seconds, 1e-9)
    return [
        f"{name}: {report.size_bytes / 2**30:.2f} GiB in {report.seconds:.1f} s ({rate:.0f} MB/s)",
        f"  sha256 over its blocks: {report.digest or 'none, as only the changed blocks were read'}",
        *(f"  {found.control} {found.kind} at {found.place} [{found.fingerprint}]" for found in report.findings),
        *(
            f"  {result.status}: {result.title}: {result.detail}"
            for result in report.results
            if result.status not in {"pass", "not-applicable"} and not report.findings
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
            "seconds": round(report.seconds, 3),
            "findings": [finding.model_dump(mode="json") for finding in report.findings],
            "results": [result.model_dump(mode="json") for result in report.results],
        }
        for name, report in reports.items()
    }
