"""Searching a disk in several processes at once, each a part of it: of one process, only one thread may decide.

What begins in a part is that part's, wherever it ends. So each process reads the block before its part too, because a
join lies behind it, and goes on behind its part until what it has opened there has ended. What the parts give together
is what one process would give.
"""

import os
import signal
import warnings
from bisect import bisect_left
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from multiprocessing.connection import Connection, Pipe, wait
from typing import Any

from pipeline.block_digest import hash_block
from pipeline.errors import AssayError
from pipeline.residue.blocks import BlockSource
from pipeline.residue.checkpoint import flat
from pipeline.residue.containers import Budget
from pipeline.residue.engine import Match, Searcher, Stream

PART_BLOCKS = 128
"""Blocks of a part, or fewer: so few that all processes end at about the same time, whatever lies where."""
TOLD_EVERY = 64
"""Blocks between two messages about progress."""
BEHIND = 2
"""Blocks behind a part that are always read: one for the joins, one for what begins in a join."""

Tell = Callable[[int], object]
"""Called with a number of blocks that were searched since the last time."""


@dataclass
class Found:
    """What became of one part."""

    matches: list[Match] = field(default_factory=list)
    hashes: list[tuple[int, str]] = field(default_factory=list)
    unreadable: list[tuple[int, str]] = field(default_factory=list)
    bytes_read: int = 0
    budget: Budget = field(default_factory=Budget)
    """What its search opened, and what that gave."""


def divide(numbers: Sequence[int], first: int) -> list[range]:
    """Return the parts of a disk that hold these block numbers.

    They follow each other without a gap, from block `first` on: what begins in a hole is somebody's too.
    """
    starts = [first, *numbers[PART_BLOCKS::PART_BLOCKS]]
    return [range(start, stop) for start, stop in pairwise([*starts, numbers[-1] + 1])]


def search_part(
    source: BlockSource,
    numbers: Sequence[int],
    part: range,
    searcher: Searcher,
    budget: Budget,
    tell: Tell = lambda blocks: None,
) -> Found:
    """Return what begins in a part of a disk that has blocks of these numbers.

    A block of the part that cannot be read is in `unreadable`.
    """
    size = source.block_size
    stream = Stream(searcher, budget, begin=part.start * size, end=part.stop * size)
    found = Found(budget=budget)
    for place in range(bisect_left(numbers, part.start - 1), len(numbers)):
        index = numbers[place]
        if index >= part.stop + BEHIND and not stream.members:
            break
        try:
            data = source.read(index)
        except AssayError as problem:
            if index in part:
                found.unreadable.append((index, problem.message))
            continue
        found.matches += stream.feed(index * size, data)
        if index in part:
            found.hashes.append((index, hash_block(data)))
            found.bytes_read += len(data)
            if len(found.hashes) % TOLD_EVERY == 0:
                tell(TOLD_EVERY)
    found.matches += stream.finish()
    return found


def search_parts(
    source: BlockSource,
    numbers: Sequence[int],
    parts: Sequence[range],
    searcher: Searcher,
    budget: Budget,
    processes: int,
    tell: Tell,
) -> Iterator[tuple[range, Found]]:
    """Yield each part with what begins in it, in order. So many processes are at work, each on the next part.

    `budget` is what all have together. Of a process that was killed, all blocks are unreadable. Raises RuntimeError
    for a defect.
    """
    found: dict[range, Found] = {}
    waiting = (Search(source, numbers, part, searcher, budget.rest()) for part in parts)
    with closing(as_they_end(waiting, processes, tell)) as ending:
        for part in parts:
            while part not in found:
                ended, one = next(ending)
                found[ended] = one
            one = found.pop(part)
            budget.take(one.budget)
            yield part, one


@dataclass(frozen=True)
class Search:
    """What one process does."""

    source: BlockSource
    numbers: Sequence[int]
    part: range
    searcher: Searcher
    budget: Budget

    def run(self, connection: Connection) -> None:
        """Search, and send what was found: rules stay at home, and go by their number."""
        found = search_part(self.source, self.numbers, self.part, self.searcher, self.budget, connection.send)
        numbers = {id(rule): number for number, rule in enumerate(self.searcher.rules)}
        rules = [numbers[id(match.rule)] for match in found.matches]
        connection.send((rules, [flat(match) for match in found.matches], replace(found, matches=[])))


def as_they_end(waiting: Iterator[Search], processes: int, tell: Tell) -> Generator[tuple[range, Found], None, None]:
    """Yield parts with what begins in them as their processes end; so many are at work as long as any search waits."""
    running: dict[Any, tuple[Search, ExitStack]] = {}
    try:
        while True:
            for search in islice(waiting, processes - len(running)):
                process = ExitStack()
                running[process.enter_context(forked(search))] = search, process
            if not running:
                return
            for connection in wait(list(running)):
                message = receive(connection)
                if isinstance(message, int):
                    tell(message)
                    continue
                search, process = running.pop(connection)
                process.close()
                found = bring_home(message, search.searcher) if message else lost(search.numbers, search.part)
                yield search.part, found
    finally:
        for _, process in running.values():
            process.close()


def bring_home(message: Any, searcher: Searcher) -> Found:  # noqa: ANN401 - what `Search.run` sends
    """Return what a process sent, with the searcher's rules."""
    rules, matches, found = message
    own = [Match(rule=searcher.rules[rule], **match) for rule, match in zip(rules, matches, strict=True)]
    at_home: Found = replace(found, matches=own)
    return at_home


def lost(numbers: Sequence[int], part: range) -> Found:
    """Return what is known of a part whose process was killed: nothing, of all of its blocks."""
    reason = "the process that searched it was ended"
    return Found(unreadable=[(index, reason) for index in numbers if index in part])


def receive(connection: Any) -> Any:  # noqa: ANN401
    """Return what a process sent; None when it is gone. Raises RuntimeError with what broke it."""
    try:
        message = connection.recv()
    except (EOFError, ConnectionError):
        return None
    if isinstance(message, str):
        raise RuntimeError(f"searching a part of the disk broke: {message}")
    return message


@contextmanager
def forked(search: Search) -> Iterator[Any]:
    """Search in a process of its own, and give the connection that it sends to. It ends when the block is left.

    It is forked, so that the compiled rules need not be compiled again, and it ends without tidying up: what this
    process has open is not its.
    """
    ours, theirs = Pipe(duplex=False)
    with warnings.catch_warnings():
        # Python 3.12 warns of locks that other threads may hold: the search takes none but its own.
        warnings.simplefilter("ignore", DeprecationWarning)
        process = os.fork()
    if process == 0:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever forked it hears that too, and ends it
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            ours.close()
            search.run(theirs)
            status = 0
        except BaseException as problem:
            theirs.send(f"{type(problem).__name__}: {problem}")
        finally:
            os._exit(status)
    theirs.close()
    try:
        yield ours
    finally:
        ours.close()
        os.kill(process, signal.SIGKILL)
        os.waitpid(process, 0)
