"""From blocks to matches.

Joins between blocks hide nothing: each is searched on its own, and what a rule wants to see around a trigger may lie in
three blocks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

from pipeline.residue.containers import CONTAINERS, Budget, ContainerKind, Damaged, Decompressor, Deflate, git_objects
from pipeline.residue.encodings import Form, Span
from pipeline.residue.matcher import Hit, Matcher, open_matcher
from pipeline.residue.rules import Rule, Trigger


@dataclass(frozen=True)
class Match:
    """A rule that matched: where, how it was written, and the fingerprint of what was found. Never the secret."""

    rule: Rule
    offset: int
    encoding: str
    fingerprint: str
    detail: str = ""
    inside: tuple[str, ...] = ()
    """The containers that it was in, outermost first; then `offset` is in the innermost one."""
    disk_offset: int = 0
    """Where on the disk it lies, or the outermost container begins."""


@dataclass(frozen=True)
class Chunk:
    """Some bytes of the disk, and what triggered in them."""

    offset: int
    data: bytes
    hits: list[Hit]

    @property
    def end(self) -> int:
        """The offset behind the last byte."""
        return self.offset + len(self.data)


NOTHING = Chunk(0, b"", [])
FED_AT_ONCE = 256 * 1024
"""What comes out of a container is searched when so many bytes are there."""


class Searcher:
    """The compiled rules: shared by everything that is scanned with them."""

    def __init__(self, rules: Iterable[Rule], matcher: type[Matcher] | None = None) -> None:
        self.rules: tuple[Rule, ...] = (*rules, *CONTAINERS)
        self.targets: dict[Form | Span, list[tuple[Rule, Trigger]]] = {}
        for rule in self.rules:
            for trigger in rule.triggers():
                self.targets.setdefault(trigger.form, []).append((rule, trigger))
        self.forms = tuple(self.targets)
        self.matcher: Matcher = matcher(self.forms) if matcher else open_matcher(self.forms)  # type: ignore[call-arg]
        self.overlap = self.matcher.longest - 1

    def hits_in(self, data: bytes) -> list[Hit]:
        """Return what triggers in some bytes; in zeros nothing does."""
        return [] if data == zeros(len(data)) else self.matcher.find(data)


class Stream:
    """One sequence of bytes that is being scanned: a disk, or the inside of a container."""

    def __init__(
        self,
        searcher: Searcher,
        budget: Budget | None = None,
        inside: tuple[str, ...] = (),
        disk_offset: int = 0,
        begin: int = 0,
        end: int | None = None,
    ) -> None:
        """Prepare to scan. What begins before `begin`, or not before `end`, is somebody else's: it is passed over."""
        self.searcher = searcher
        self.budget = budget or Budget()
        self.inside = inside
        self.disk_offset = disk_offset
        self.begin, self.end = begin, end
        self.members: list[Member] = []
        self.previous = NOTHING
        self.current = NOTHING

    def feed(self, offset: int, data: bytes, hits: list[Hit] | None = None) -> Iterator[Match]:
        """Take the next bytes; what lies between them and the last ones was never written and is zeros.

        `hits` is what the searcher's matcher finds in them, where somebody has asked it already.
        """
        if offset != self.current.end:
            yield from self.skip_to(offset)
        yield from self.take(offset, data, hits)

    def skip_to(self, offset: int) -> Iterator[Match]:
        """Pass a gap: the zeros at both of its edges may belong to a match."""
        if self.current.data:
            yield from self.take(self.current.end, zeros(self.searcher.overlap))
            yield from self.settle(b"")
            yield from self.close_members()
        self.previous = NOTHING
        room = min(offset, self.searcher.overlap)
        self.current = Chunk(offset - room, zeros(room), [])

    def take(self, offset: int, data: bytes, hits: list[Hit] | None = None) -> Iterator[Match]:
        """Search a chunk and its join with the one before, and decide about the latter."""
        yield from self.settle(data)
        across = self.hits_across(self.current.data, data)
        within = self.searcher.hits_in(data) if hits is None else hits
        self.previous, self.current = self.current, Chunk(offset, data, across + within)

    def hits_across(self, before: bytes, after: bytes) -> list[Hit]:
        """Return the hits that begin in `before` and end in `after`, with places relative to `after`."""
        overlap = self.searcher.overlap
        tail = before[-overlap:] if overlap else b""
        if not tail:
            return []
        hits = self.searcher.matcher.find(tail + after[:overlap])
        return [(number, start - len(tail), end - len(tail)) for number, start, end in hits if start < len(tail) < end]

    def settle(self, following: bytes) -> Iterator[Match]:
        """Let the rules decide about the hits of the current chunk."""
        yield from self.feed_members(self.current.data)
        if not self.inside:
            for place in filter(self.is_own, git_objects(self.current.data)):
                yield from self.open_member("git object", place, Deflate(15))
        for number, place, _ in sorted(self.current.hits, key=lambda hit: hit[1]):
            if self.is_own(place):
                for rule, trigger in self.searcher.targets[self.searcher.forms[number]]:
                    yield from self.decide(rule, trigger, place, following)

    def is_own(self, place: int) -> bool:
        """Say whether what begins at `place` of the current chunk is this stream's to decide."""
        offset = self.current.offset + place
        return self.begin <= offset and (self.end is None or offset < self.end)

    def decide(self, rule: Rule, trigger: Trigger, place: int, following: bytes) -> Iterator[Match]:
        """Let a rule decide about a hit at `place` of the current chunk; a container is opened."""
        if isinstance(rule, ContainerKind):
            header, _ = self.window(place, place + rule.header, following)
            complete = len(header) == rule.header
            yield from self.open_member(rule.identity, place, rule.open(header) if complete else None)
            return
        back, forth = rule.reach
        window, start = self.window(place - back, place + forth, following)
        sighting = rule.examine(window, place - start, trigger)
        if sighting:
            offset = self.current.offset + place
            on_disk = self.disk_offset if self.inside else offset
            yield Match(rule, offset, trigger.encoding, sighting.fingerprint, sighting.detail, self.inside, on_disk)

    def window(self, start: int, end: int, following: bytes) -> tuple[bytes, int]:
        """Return the bytes from `start` to `end`, relative to the current chunk, and where they really begin."""
        before, here = self.previous.data, self.current.data
        start = max(start, -len(before))
        parts = [here[max(start, 0) : max(end, 0)]]
        if start < 0:
            parts.insert(0, before[len(before) + start : len(before) + min(end, 0)])
        if end > len(here):
            parts.append(following[: end - len(here)])
        return b"".join(parts), start

    def finish(self) -> Iterator[Match]:
        """Decide about what is left: what follows was never written. Nothing may be fed afterwards."""
        yield from self.take(self.current.end, zeros(self.searcher.overlap))
        yield from self.settle(b"")
        yield from self.close_members()
        self.current = NOTHING

    def open_member(self, name: str, place: int, decompressor: Decompressor | None) -> Iterator[Match]:
        """Open what begins at `place` of the current chunk, and search what is there of it already."""
        label = f"{name} at {self.current.offset + place}"
        if decompressor is None:
            return
        if len(self.inside) >= self.budget.depth or len(self.members) >= self.budget.at_once:
            self.budget.stopped.append(f"{label}: nested too deep, or too many at once")
            return
        self.budget.opened += 1
        begins = self.disk_offset if self.inside else self.current.offset + place
        member = Member(decompressor, Stream(self.searcher, self.budget, (*self.inside, label), begins))
        data, _ = self.window(place, len(self.current.data), b"")
        yield from member.feed(data)
        if not member.done:
            self.members.append(member)

    def feed_members(self, data: bytes) -> Iterator[Match]:
        """Let the open containers go on with the next bytes."""
        for member in self.members:
            yield from member.feed(data)
        self.members = [member for member in self.members if not member.done]

    def close_members(self) -> Iterator[Match]:
        """End the containers that are still open: they were cut off here."""
        for member in self.members:
            yield from member.close()
        self.members = []


class Member:
    """A container that is being looked into."""

    def __init__(self, decompressor: Decompressor, stream: Stream) -> None:
        self.decompressor = decompressor
        self.stream = stream
        self.pending = bytearray()
        self.searched = 0
        self.done = False

    def feed(self, data: bytes) -> Iterator[Match]:
        """Search what the next bytes give; close when the data ends, makes no sense, or is more than the budget."""
        try:
            for piece in self.decompressor.feed(data):
                self.pending += piece
                if len(self.pending) >= FED_AT_ONCE:
                    yield from self.search()
                    if self.is_over_budget():
                        yield from self.close()
                        return
        except Damaged:
            yield from self.close()
            return
        if self.decompressor.finished:
            yield from self.close()

    def search(self) -> Iterator[Match]:
        """Search what came out since the last time."""
        data = bytes(self.pending)
        self.pending.clear()
        yield from self.stream.feed(self.searched, data)
        self.searched += len(data)
        self.stream.budget.came_out += len(data)

    def is_over_budget(self) -> bool:
        """Say whether enough came out, and note that not all was searched."""
        budget = self.stream.budget
        over = self.searched > budget.member_bytes or budget.came_out > budget.output_bytes
        if over:
            budget.stopped.append(f"{self.stream.inside[-1]}: stopped after {self.searched} bytes")
        return over

    def close(self) -> Iterator[Match]:
        """Search what is left and end."""
        self.done = True
        if self.pending:
            yield from self.search()
        yield from self.stream.finish()


@lru_cache(maxsize=8)
def zeros(size: int) -> bytes:
    """Return `size` zeros, the same object for the same size."""
    return bytes(size)


def scan(blocks: Iterable[tuple[int, bytes]], searcher: Searcher, block_size: int) -> Iterator[Match]:
    """Yield the matches in numbered blocks, which come in rising order; missing ones are zeros."""
    stream = Stream(searcher)
    for index, data in blocks:
        yield from stream.feed(index * block_size, data)
    yield from stream.finish()
