"""The proof on raw blocks: every written block is read once, searched, and pinned by a digest (R01-R06)."""

import bisect
import contextlib
import ctypes
import os
from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from pipeline.block_digest import Pin, hash_block
from pipeline.errors import AssayError
from pipeline.report.results import Finding, Layer, Result, Status
from pipeline.residue.blocks import BlockSource, RawFile, Spool
from pipeline.residue.checkpoint import EVERY_BLOCKS, Checkpoint
from pipeline.residue.containers import Budget
from pipeline.residue.engine import Match, Searcher, Stream
from pipeline.residue.locate import Locator, first_line
from pipeline.residue.matcher import Hit
from pipeline.residue.named import NAMED
from pipeline.residue.parts import divide, search_parts
from pipeline.residue.rules import Rule
from pipeline.residue.secrets import BuildSecret
from pipeline.residue.sift import Allowed, Sieve, Sifted, finding_of, fragmented_matches

WORTH_PARTING = 512
"""Blocks below which a disk is searched in one process: the others would hardly have begun."""

Progress = Callable[[str, int, int], None]
"""Called with a text, the bytes done and the bytes to do."""


@dataclass
class Reading:
    """One pass over the blocks of a disk: what pins them so far, and what could not be read."""

    source: BlockSource
    progress: Progress
    partial: bool = False
    """Only some blocks of the disk are read: those that changed."""
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    bytes_read: int = 0

    def __post_init__(self) -> None:
        self.pin = Pin(self.source.size_bytes, self.source.block_size)

    def blocks(self, first: int) -> Iterator[tuple[int, bytes]]:
        """Yield (number, data) of every block from `first` that could be read; the others are in `unreadable`."""
        block_size, total = self.source.block_size, sum(1 for _ in self.source.indices())
        if not total and not self.partial:
            self.unreadable.append((0, "the disk has no written block: there is nothing to prove"))
        earlier = sum(1 for index in self.source.indices() if index < first)
        for done, (index, data) in enumerate(guarded(self.source, first), earlier + 1):
            if isinstance(data, AssayError):
                self.unreadable.append((index, data.message))
                continue
            self.bytes_read += len(data)
            yield index, data
            if done % 64 == 0 or done == total:
                self.progress("searching blocks", done * block_size, total * block_size)

    def digest(self) -> str:
        """Return what pins the content: one hash over the numbers and the hashes of all blocks that are not zeros.

        Of a part of the disk it would pin nothing: then it is empty.
        """
        return "" if self.partial else self.pin.digest()


def guarded(source: BlockSource, first: int) -> Iterator[tuple[int, bytes | AssayError]]:
    """Yield the blocks from `first`; when reading breaks off, every block still to come is an error, never silence."""

    def wanted() -> Iterator[int]:
        return (index for index in source.indices() if index >= first)

    following = 0
    try:
        for index, data in source.read_many(wanted()):
            following += 1
            yield index, data
        problem = AssayError("the reading ended before the last block")
    except AssayError as broken:
        problem = broken
    for index in islice(wanted(), following, None):
        yield index, problem


def prove_raw(
    source: BlockSource,
    secrets: Sequence[BuildSecret],
    patterns: Sequence[Rule] = (),
    progress: Progress = lambda text, done, total: None,
    allowed: Allowed | None = None,
    state: Path | None = None,
    whole: BlockSource | None = None,
    locator: Locator | None = None,
) -> tuple[tuple[Result, ...], tuple[Finding, ...], str]:
    """Search every written block for a build's secrets and for patterns. Return (results, findings, digest).

    With patterns, files that must not ship by their names are findings too. `allowed` is what the spec lets stay. The
    digest pins the content: sha256 over the numbers and hashes of all blocks that are not zeros. A range that could not
    be read makes every result `unreachable`, never a pass. With `state`, a file, an interrupted scan goes on where it
    was. Where `source` gives only the blocks that changed, `whole` is the disk, so that what is found has a place; then
    there is no digest. A `locator` of the same disk spares reading its file systems again. Raises nothing for what it
    finds.
    """
    rules: tuple[Rule, ...] = (*secrets, *patterns)
    subject = f"{getattr(source, 'identity', '')} {source.size_bytes} {source.block_size}"
    checkpoint = Checkpoint(state, subject, rules)
    with ExitStack() as spools:
        near = near_by(source, spools)
        disk = near_by(whole, spools) if whole else None
        return prove(near, rules, progress, allowed or Allowed(), checkpoint, disk, locator)


def near_by(source: BlockSource, spools: ExitStack) -> BlockSource:
    """Return a source of the same blocks that can be read again without cost."""
    return source if getattr(source, "is_local", False) else spools.enter_context(Spool(source))


def prove(
    source: BlockSource,
    rules: Sequence[Rule],
    progress: Progress,
    allowed: Allowed,
    checkpoint: Checkpoint,
    whole: BlockSource | None = None,
    locator: Locator | None = None,
) -> tuple[tuple[Result, ...], tuple[Finding, ...], str]:
    """Search a disk whose blocks can be read again without cost: once for matches, and then for where they lie."""
    searcher = Searcher(rules)
    reading, budget = Reading(source, progress, whole is not None), Budget()
    parted = isinstance(source, RawFile) and is_worth_parting(source)
    matches = (search_in_parts if parted else search)(reading, searcher, budget, checkpoint)
    give_memory_back()
    locator = locator or Locator(whole or source)
    sieve = Sieve(locator, allowed)
    with_names = any(not isinstance(rule, BuildSecret) for rule in rules)
    try:
        matches += fragmented_matches(locator, searcher, budget)
        sifted = sieve.sift(matches)
        named = tuple(sieve.named()) if with_names else ()
    except (AssayError, OSError, RuntimeError) as problem:
        locator.problems.append(f"reading the file systems broke off: {first_line(problem)}")
        sifted, named = Sifted([(match, sieve.nowhere(match)) for match in matches]), ()
    findings = (*(finding_of(match, place, allowed) for match, place in sifted.located), *named)
    results = (
        *results_of(rules, sifted, named, reading),
        reading_result(reading, searcher.matcher.name),
        location_result(locator, sifted, reading),
        containers_result(budget, reading),
    )
    checkpoint.finish()
    give_memory_back()
    return results, findings, reading.digest()


def search(reading: Reading, searcher: Searcher, budget: Budget, checkpoint: Checkpoint) -> list[Match]:
    """Return all matches on a disk, in containers too.

    The state is written where no container is open. To go on, one block is read again: a join may lie behind it.
    """
    stream = Stream(searcher, budget)
    matches, saved = checkpoint.matches, checkpoint.next_block
    for known in checkpoint.hashes:
        reading.pin.add(*known)
    for index, data, hits, digest in looked_at(reading.blocks(max(0, saved - 1)), searcher):
        matches += stream.feed(index * reading.source.block_size, data, hits)
        if reading.pin.add(index, digest):
            checkpoint.note(index, digest)
        if index - saved >= EVERY_BLOCKS and not stream.members and not reading.unreadable:
            saved = index
            checkpoint.save(index, matches)
    matches += stream.finish()
    return matches


def is_worth_parting(source: BlockSource) -> bool:
    """Say whether a disk is large enough, and the machine has the processors, to search it in several processes."""
    return processors() > 1 and sum(1 for _ in source.indices()) >= WORTH_PARTING


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0))


def search_in_parts(reading: Reading, searcher: Searcher, budget: Budget, checkpoint: Checkpoint) -> list[Match]:
    """Return the same as `search`, with a process on each processor. The state is written as parts end."""
    source, block_size = reading.source, reading.source.block_size
    matches, saved = checkpoint.matches, checkpoint.next_block
    written = array("Q", source.indices())  # eight bytes each: a terabyte has two million
    left = written[bisect.bisect_left(written, saved) :]
    done = len(written) - len(left)
    for known in checkpoint.hashes:
        reading.pin.add(*known)

    def tell(blocks: int) -> None:
        nonlocal done
        done += blocks
        reading.progress("searching blocks", done * block_size, len(written) * block_size)

    parts = divide(left, saved) if left else []
    for part, found in search_parts(source, written, parts, searcher, budget, processors(), tell):
        matches += found.matches
        reading.bytes_read += found.bytes_read
        reading.unreadable += found.unreadable
        for index, digest in found.hashes:
            if reading.pin.add(index, digest):
                checkpoint.note(index, digest)
        if part.stop - saved >= EVERY_BLOCKS and not reading.unreadable:
            saved = part.stop
            checkpoint.save(saved, matches)
    tell(len(written) - done)
    return matches


def give_memory_back() -> None:
    """Return to the system what was freed: glibc keeps it, and holes of another size are of no use to what follows."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


def looked_at(blocks: Iterator[tuple[int, bytes]], searcher: Searcher) -> Iterator[tuple[int, bytes, list[Hit], str]]:
    """Yield blocks in order with their hits and hashes, which a thread on each processor finds ahead.

    Both let other threads of Python run. No more blocks are held than are looked at and as many again.
    """
    ahead: deque[tuple[int, bytes, Future[tuple[list[Hit], str]]]] = deque()
    at_once = processors()
    with ThreadPoolExecutor(at_once, "search") as pool:
        for index, data in blocks:
            ahead.append((index, data, pool.submit(look_at, data, searcher)))
            if len(ahead) > 2 * at_once:
                index, data, looked = ahead.popleft()
                yield index, data, *looked.result()
        for index, data, looked in ahead:
            yield index, data, *looked.result()


def look_at(data: bytes, searcher: Searcher) -> tuple[list[Hit], str]:
    """Return what triggers in a block, and its hash; zeros have none."""
    return searcher.hits_in(data), hash_block(data)


def results_of(rules: Sequence[Rule], sifted: Sifted, named: Sequence[Finding], reading: Reading) -> Iterator[Result]:
    """Yield one result for each secret, and one for each control that patterns or file names serve."""
    found = {rule_key(match.rule): match.rule.kind for match, _ in sifted.located}
    for rule in rules:
        if isinstance(rule, BuildSecret):
            kinds = {rule.kind} if rule_key(rule) in found else set()
            yield result_of(
                f"{rule.identity} is on no block", "residue/secrets", rule.controls, kinds, reading, rule.unsearchable
            )
    patterns = [rule for rule in rules if not isinstance(rule, BuildSecret)]
    names = {rule.control for rule in NAMED} if patterns else set()
    for control in sorted({rule.controls[0] for rule in patterns} | names):
        serving = [rule for rule in patterns if rule.controls[0] == control]
        kinds = {rule.kind for rule in serving if rule_key(rule) in found}
        kinds |= {finding.kind for finding in named if finding.control == control}
        also = dict.fromkeys((control, *(other for rule in serving for other in rule.controls)))
        yield result_of(f"no residue of {control} on any block", "residue/patterns", tuple(also), kinds, reading)


def rule_key(rule: Rule) -> tuple[str, str]:
    """Return what tells rules apart."""
    return type(rule).__name__, rule.identity


def result_of(
    title: str, source: str, controls: tuple[str, ...], kinds: set[str], reading: Reading, unsearchable: str = ""
) -> Result:
    """Return what is known after a search. What was found fails, even if not all could be read."""
    status, detail = Status.PASS, ""
    if kinds:
        status, detail = Status.FAIL, "found: " + ", ".join(sorted(kinds))
    elif reading.unreadable:
        status, detail = Status.UNREACHABLE, f"{len(reading.unreadable)} blocks could not be read"
    elif unsearchable:
        status, detail = Status.NOT_APPLICABLE, unsearchable
    return Result(controls=controls, layer=Layer.RAW, status=status, title=title, source=source, detail=detail)


def reading_result(reading: Reading, engine: str) -> Result:
    """Return whether every written block was read, with the ranges that were not (R01)."""
    which = "changed" if reading.partial else "written"
    ranges = ", ".join(
        f"bytes {first * reading.source.block_size}-{(last + 1) * reading.source.block_size - 1}: {reason}"
        for first, last, reason in joined(reading.unreadable)
    )
    return Result(
        controls=("R01",),
        layer=Layer.RAW,
        status=Status.UNREACHABLE if ranges else Status.PASS,
        title=f"every {which} block was read: {reading.bytes_read} bytes with {engine}",
        source="residue/proof",
        detail=ranges,
    )


def location_result(locator: Locator, sifted: Sifted, reading: Reading) -> Result:
    """Return whether what the disk holds was understood, so that matches have places (R02)."""
    return Result(
        controls=("R02",),
        layer=Layer.RAW,
        status=Status.UNREACHABLE if locator.problems or reading.unreadable else Status.PASS,
        title=f"file systems were read: {sifted.vouched} matches are packages' own, {sifted.waived} waived",
        source="residue/locate",
        detail="; ".join(locator.problems),
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
