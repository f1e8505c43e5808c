"""Scanning an image by itself: a file, or any source of blocks, without a build."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ProofFailed, ResidueFound
from pipeline.report.results import Finding, Result
from pipeline.residue.back_doors import prove_back_doors
from pipeline.residue.blocks import BlockSource, Spool, open_image
from pipeline.residue.locate import Locator
from pipeline.residue.origin import Written
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import Progress, prove_raw
from pipeline.residue.secrets import BuildSecret
from pipeline.residue.sift import Allowed

NAMED_KINDS = 5
"""An error names so many kinds of findings; the report has all."""


@dataclass(frozen=True)
class ScanReport:
    """What a scan found, and how long it took."""

    results: tuple[Result, ...]
    findings: tuple[Finding, ...]
    digest: str
    """Pins the content of the disk: a copy with the same digest has the same blocks (R06). Empty for a part of it."""
    size_bytes: int
    searched_bytes: int
    """Of the blocks that are written, or that changed: there is nothing in the others."""
    seconds: float

    def require_clean(self, resource: str, region: str | None = None) -> None:
        """Raise ResidueFound for findings, ProofFailed for what could not be looked at; nothing for a clean disk."""
        if self.findings:
            kinds = sorted({finding.kind for finding in self.findings})
            more = f" and {len(kinds) - NAMED_KINDS} other kinds" if len(kinds) > NAMED_KINDS else ""
            raise ResidueFound(
                f"{len(self.findings)} findings: {', '.join(kinds[:NAMED_KINDS])}{more}",
                resource=resource,
                region=region,
                hint="remove what was found where it says; what may stay is waived in a spec by its fingerprint",
            )
        open_questions = [result.detail or result.title for result in self.results if result.status.is_failure]
        if open_questions:
            raise ProofFailed(
                f"not all could be looked at: {open_questions[0]}",
                resource=resource,
                region=region,
                hint="what is unreachable stands in the report with its reason: no pass is given for it",
            )


def scan_source(
    source: BlockSource,
    secrets: Sequence[BuildSecret] = (),
    progress: Progress = lambda text, done, total: None,
    allowed: Allowed | None = None,
    state: Path | None = None,
    whole: BlockSource | None = None,
    written: Written = frozenset(),
) -> ScanReport:
    """Search a disk for the patterns, and for secrets where there are any, as `prove_raw` does, and for back doors.

    `written` is what a build wrote itself. Where only the changed blocks are read (`whole`), back doors are not looked
    for: they are a matter of all files.
    """
    started = time.monotonic()
    with Spool(source) as spool:
        near = source if getattr(source, "is_local", False) else spool
        locator = None if whole else Locator(near)
        results, findings, digest = prove_raw(near, secrets, PATTERNS, progress, allowed, state, whole, locator)
        if locator:
            progress("holding files against their packages", source.size_bytes, source.size_bytes)
            more_results, more_findings = prove_back_doors(locator, allowed or Allowed(), written)
            results, findings = (*results, *more_results), (*findings, *more_findings)
        searched_bytes = sum(1 for _ in near.indices()) * near.block_size
    return ScanReport(results, findings, digest, source.size_bytes, searched_bytes, time.monotonic() - started)


def scan_image(
    path: Path,
    progress: Progress = lambda text, done, total: None,
    allowed: Allowed | None = None,
    state: Path | None = None,
    written: Written = frozenset(),
) -> ScanReport:
    """Search an image file. Raises SpecInvalid when it is none that is known, BlockUnreadable when it is damaged."""
    with open_image(path) as image:
        return scan_source(image, (), progress, allowed, state, written=written)
