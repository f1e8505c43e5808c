"""The proof on raw blocks: every written block is read once, searched, and pinned by a digest (R01, R03, R06)."""

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.errors import AssayError
from pipeline.report.evidence import Finding, Layer, Result, Status
from pipeline.residue.blocks import BlockSource
from pipeline.residue.containers import Budget
from pipeline.residue.engine import Match, Searcher, Stream, zeros
from pipeline.residue.rules import Rule
from pipeline.residue.secrets import BuildSecret

Progress = Callable[[str, int, int], None]
"""Called with a text, the bytes done and the bytes to do."""


@dataclass
class Reading:
    """One pass over the blocks of a disk: the digest so far, and what could not be read."""

    source: BlockSource
    progress: Progress
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    hashing: bool = True

    def __post_init__(self) -> None:
        self.digest = hashlib.sha256(b"assay blocks 1 %d %d\n" % (self.source.size_bytes, self.source.block_size))
        self.bytes_read = 0

    def blocks(self) -> Iterator[tuple[int, bytes]]:
        """Yield (offset, data) of every block that could be read; the others are in `unreadable`."""
        wanted = list(self.source.indices())
        size = self.source.block_size
        done = 0
        if not wanted:
            self.unreadable.append((0, "the disk has no written block: there is nothing to prove"))
        for index, data in guarded(self.source, wanted):
            done += 1
            if isinstance(data, AssayError):
                self.unreadable.append((index, data.message))
                continue
            self.take(index, data)
            yield index * size, data
            if done % 64 == 0 or done == len(wanted):
                self.progress("searching blocks", done * size, len(wanted) * size)

    def take(self, index: int, data: bytes) -> None:
        """Add a block to the digest. Zeros do not count: a copy may have them written or not."""
        self.bytes_read += len(data)
        if self.hashing and data != zeros(len(data)):
            self.digest.update(index.to_bytes(8, "big") + hashlib.sha256(data).digest())


def guarded(source: BlockSource, wanted: Sequence[int]) -> Iterator[tuple[int, bytes | AssayError]]:
    """Yield blocks; when reading breaks off altogether, every block still to come is an error, never silence."""
    following = 0
    try:
        for index, data in source.read_many(wanted):
            following += 1
            yield index, data
        problem = AssayError("the reading ended before the last block")
    except AssayError as broken:
        problem = broken
    for index in wanted[following:]:
        yield index, problem


def prove_raw(
    source: BlockSource,
    secrets: Sequence[BuildSecret],
    patterns: Sequence[Rule] = (),
    progress: Progress = lambda text, done, total: None,
) -> tuple[tuple[Result, ...], tuple[Finding, ...], str]:
    """Search every written block for a build's secrets and for patterns (R03, R04). Return (results, findings, digest).

    The digest pins the content: sha256 over the numbers and hashes of all blocks that are not zeros. A range that could
    not be read makes every result `unreachable`, never a pass. Raises nothing for what it finds.
    """
    rules: tuple[Rule, ...] = (*secrets, *patterns)
    searcher = Searcher(rules)
    reading = Reading(source, progress)
    budget = Budget()
    stream = Stream(searcher, budget)
    matches: list[Match] = []
    for offset, data in reading.blocks():
        matches += stream.feed(offset, data)
    matches += stream.finish()
    findings = tuple(finding_of(match) for match in merged(matches))
    results = (
        *results_of(rules, matches, reading),
        reading_result(reading, searcher.matcher.name),
        containers_result(budget, reading),
    )
    return results, findings, reading.digest.hexdigest()


def merged(matches: Sequence[Match]) -> list[Match]:
    """Return matches without those that say the same of the same place: a key is found by each of its halves."""
    kept: list[Match] = []
    last: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for match in sorted(matches, key=lambda match: (match.inside, match.offset)):
        what = (match.rule.identity, match.fingerprint, match.inside)
        if match.offset - last.get(what, -1 << 62) > 512:
            kept.append(match)
        last[what] = match.offset
    return kept


def finding_of(match: Match) -> Finding:
    """Return a match as a finding: place, kind and fingerprint."""
    place = " in ".join((f"offset {match.offset}", *reversed(match.inside)))
    written = "" if match.encoding == "plain" else f"written as {match.encoding}"
    return Finding(
        control=match.rule.controls[0],
        layer=Layer.RAW,
        kind=match.rule.kind,
        place=place,
        fingerprint=match.fingerprint,
        detail="; ".join(part for part in (match.rule.identity, written, match.detail) if part),
    )


def results_of(rules: Sequence[Rule], matches: Sequence[Match], reading: Reading) -> Iterator[Result]:
    """Yield one result for each secret, and one for each control that patterns serve."""
    found = {id(match.rule) for match in matches}
    for rule in rules:
        if isinstance(rule, BuildSecret):
            yield result_of(f"{rule.identity} is on no block", "residue/secrets", (rule,), found, reading)
    patterns = [rule for rule in rules if not isinstance(rule, BuildSecret)]
    for control in sorted({rule.controls[0] for rule in patterns}):
        serving = tuple(rule for rule in patterns if rule.controls[0] == control)
        yield result_of(f"no residue of {control} on any block", "residue/patterns", serving, found, reading)


def result_of(title: str, source: str, rules: Sequence[Rule], found: set[int], reading: Reading) -> Result:
    """Return what is known after the search for some rules. What was found fails, even if not all could be read."""
    controls = tuple(dict.fromkeys(control for rule in rules for control in rule.controls))
    kinds = sorted({rule.kind for rule in rules if id(rule) in found})
    status, detail = Status.PASS, ""
    reason = next((rule.unsearchable for rule in rules if isinstance(rule, BuildSecret)), "")
    if kinds:
        status, detail = Status.FAIL, "found: " + ", ".join(kinds)
    elif reading.unreadable:
        status, detail = Status.UNREACHABLE, f"{len(reading.unreadable)} blocks could not be read"
    elif reason:
        status, detail = Status.NOT_APPLICABLE, reason
    return Result(controls=controls, layer=Layer.RAW, status=status, title=title, source=source, detail=detail)


def reading_result(reading: Reading, engine: str) -> Result:
    """Return whether every written block was read, with the ranges that were not."""
    ranges = ", ".join(
        f"bytes {first * reading.source.block_size}-{(last + 1) * reading.source.block_size - 1}: {reason}"
        for first, last, reason in joined(reading.unreadable)
    )
    return Result(
        controls=("R01",),
        layer=Layer.RAW,
        status=Status.UNREACHABLE if ranges else Status.PASS,
        title=f"every written block was read: {reading.bytes_read} bytes with {engine}",
        source="residue/proof",
        detail=ranges,
    )


def containers_result(budget: Budget, reading: Reading) -> Result:
    """Return whether every container was looked into to its end (R04)."""
    return Result(
        controls=("R04",),
        layer=Layer.RAW,
        status=Status.UNREACHABLE if budget.stopped or reading.unreadable else Status.PASS,
        title=f"compressed data was looked into: {budget.opened} members",
        source="residue/containers",
        detail="; ".join(budget.stopped[:20]),
    )


def joined(unreadable: Sequence[tuple[int, str]]) -> Iterator[tuple[int, int, str]]:
    """Yield runs of blocks that failed for the same reason: first, last, reason."""
    run: tuple[int, int, str] | None = None
    for index, reason in unreadable:
        if run and index == run[1] + 1 and reason == run[2]:
            run = (run[0], index, reason)
            continue
        if run:
            yield run
        run = (index, index, reason)
    if run:
        yield run
