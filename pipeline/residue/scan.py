"""Scanning an image by itself: a file, or any source of blocks, without a build."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import ProofFailed, ResidueFound
from pipeline.report.evidence import Finding, Result
from pipeline.residue.blocks import BlockSource, open_image
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import Progress, prove_raw
from pipeline.residue.secrets import BuildSecret
from pipeline.residue.sift import Allowed


@dataclass(frozen=True)
class ScanReport:
    """What a scan found, and how long it took."""

    results: tuple[Result, ...]
    findings: tuple[Finding, ...]
    digest: str
    """Pins the content of the disk: a copy with the same digest has the same blocks (R06). Empty for a part of it."""
    size_bytes: int
    seconds: float

    def require_clean(self, resource: str, region: str | None = None) -> None:
        """Raise ResidueFound for findings, ProofFailed for what could not be looked at; nothing for a clean disk."""
        if self.findings:
            kinds = ", ".join(sorted({finding.kind for finding in self.findings}))
            raise ResidueFound(f"{len(self.findings)} findings: {kinds}", resource=resource, region=region)
        open_questions = [result.title for result in self.results if result.status.is_failure]
        if open_questions:
            raise ProofFailed(f"not all could be looked at: {open_questions[0]}", resource=resource, region=region)


def scan_source(
    source: BlockSource,
    secrets: Sequence[BuildSecret] = (),
    progress: Progress = lambda text, done, total: None,
    allowed: Allowed | None = None,
    state: Path | None = None,
    whole: BlockSource | None = None,
) -> ScanReport:
    """Search a disk for the patterns, and for secrets where there are any, as `prove_raw` does."""
    started = time.monotonic()
    results, findings, digest = prove_raw(source, secrets, PATTERNS, progress, allowed, state, whole)
    return ScanReport(results, findings, digest, source.size_bytes, time.monotonic() - started)


def scan_image(
    path: Path,
    progress: Progress = lambda text, done, total: None,
    allowed: Allowed | None = None,
    state: Path | None = None,
) -> ScanReport:
    """Search an image file, raw or qcow2. Raises SpecInvalid when there is none, BlockUnreadable when it is damaged."""
    with open_image(path) as image:
        return scan_source(image, (), progress, allowed, state)
