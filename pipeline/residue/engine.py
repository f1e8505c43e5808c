"""From blocks to matches.

Joins between blocks hide nothing: each is searched on its own, and what a rule wants to see around a trigger may lie in
three blocks.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import lru_cache

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


class Searcher:
    """The compiled rules: shared by everything that is scanned with them."""

    def __init__(self, rules: Iterable[Rule], matcher: type[Matcher] | None = None) -> None:
        self.targets: list[tuple[Rule, Trigger]] = [(rule, trigger) for rule in rules for trigger in rule.triggers()]
        forms = tuple(trigger.form for _, trigger in self.targets)
        self.matcher: Matcher = matcher(forms) if matcher else open_matcher(forms)  # type: ignore[call-arg]
        self.overlap = self.matcher.longest - 1


class Stream:
    """One sequence of bytes that is being scanned: a disk, or the inside of a container."""

    def __init__(self, searcher: Searcher, inside: tuple[str, ...] = ()) -> None:
        self.searcher = searcher
        self.inside = inside
        self.previous = NOTHING
        self.current = NOTHING

    def feed(self, offset: int, data: bytes) -> Iterator[Match]:
        """Take the next bytes; what lies between them and the last ones was never written and is zeros."""
        if offset != self.current.end:
            yield from self.skip_to(offset)
        yield from self.take(offset, data)

    def skip_to(self, offset: int) -> Iterator[Match]:
        """Pass a gap: the zeros at both of its edges may belong to a match."""
        if self.current.data:
            yield from self.take(self.current.end, zeros(self.searcher.overlap))
            yield from self.settle(b"")
        self.previous = NOTHING
        room = min(offset, self.searcher.overlap)
        self.current = Chunk(offset - room, zeros(room), [])

    def take(self, offset: int, data: bytes) -> Iterator[Match]:
        """Search a chunk and its join with the one before, and decide about the latter."""
        yield from self.settle(data)
        hits = self.hits_across(self.current.data, data)
        if data != zeros(len(data)):
            hits += self.searcher.matcher.find(data)
        self.previous, self.current = self.current, Chunk(offset, data, hits)

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
        for number, place, _ in sorted(self.current.hits, key=lambda hit: hit[1]):
            rule, trigger = self.searcher.targets[number]
            back, forth = rule.reach
            window, start = self.window(place - back, place + forth, following)
            sighting = rule.examine(window, place - start, trigger)
            if sighting:
                yield Match(
                    rule,
                    self.current.offset + place,
                    trigger.encoding,
                    sighting.fingerprint,
                    sighting.detail,
                    self.inside,
                )

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
        self.current = NOTHING


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
