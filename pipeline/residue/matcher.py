"""Finding forms in a buffer: Hyperscan where its wheel exists, otherwise the standard library, which finds the same."""

import re
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pipeline.residue.encodings import Form, expression_of

Buffer = bytes | bytearray | memoryview
Hit = tuple[int, int]
"""The number of a form, and the place in the buffer where it begins."""


class Matcher(Protocol):
    """Finds all places of all forms in a buffer."""

    name: str
    longest: int

    def find(self, buffer: Buffer) -> list[Hit]:
        """Return every hit, in any order."""


class FastMatcher:
    """Hyperscan through pyperscan: gigabytes a second."""

    name = "hyperscan"

    def __init__(self, forms: tuple[Form, ...]) -> None:
        import pyperscan

        self.longest = max(map(len, forms), default=1)
        flag = pyperscan.Flag.DOTALL
        patterns = [
            pyperscan.Pattern(expression_of(form), flag, tag=(number, len(form))) for number, form in enumerate(forms)
        ]
        self._hits: list[Hit] = []
        self._database = pyperscan.BlockDatabase(*patterns)
        self._scanner = self._database.build(self._hits, recorder(pyperscan.Scan.Continue))

    def find(self, buffer: Buffer) -> list[Hit]:
        """Return every hit, in any order."""
        self._scanner.scan(buffer)
        if not self._hits:
            return []
        hits = self._hits.copy()
        self._hits.clear()
        return hits


def recorder(go_on: Any) -> Callable[[list[Hit], tuple[int, int], int, int], Any]:  # noqa: ANN401 - pyperscan has no types for it
    """Return the callback that notes a hit: every form has one length, so the end of a match gives its start."""

    def record(hits: list[Hit], tag: tuple[int, int], _start: int, end: int) -> Any:  # noqa: ANN401
        hits.append((tag[0], end - tag[1]))
        return go_on

    return record


class SlowMatcher:
    """The standard library: the same hits, hundreds of times slower."""

    name = "standard library (slow)"

    def __init__(self, forms: tuple[Form, ...]) -> None:
        self.longest = max(map(len, forms), default=1)
        self._searches = [search_for(number, form) for number, form in enumerate(forms)]

    def find(self, buffer: Buffer) -> list[Hit]:
        """Return every hit, in any order."""
        data = bytes(buffer)
        return [hit for search in self._searches for hit in search(data)]


def search_for(number: int, form: Form) -> Callable[[bytes], Iterable[Hit]]:
    """Return a function that finds one form, by the longest literal run in it, or as an expression if it has none."""
    start, literal = longest_literal(form)
    whole = re.compile(expression_of(form), re.DOTALL)

    def by_literal(data: bytes) -> Iterable[Hit]:
        place = data.find(literal)
        while place >= 0:
            if place >= start and whole.match(data, place - start):
                yield number, place - start
            place = data.find(literal, place + 1)

    def by_expression(data: bytes) -> Iterable[Hit]:
        return ((number, found.start()) for found in overlapping.finditer(data))

    overlapping = re.compile(b"(?=" + expression_of(form) + b")", re.DOTALL)
    return by_literal if len(literal) >= 3 else by_expression


def longest_literal(form: Form) -> tuple[int, bytes]:
    """Return where the longest run of single bytes in a form begins, and the run."""
    best = (0, b"")
    start = 0
    for place in range(len(form) + 1):
        if place == len(form) or len(form[place]) > 1:
            if place - start > len(best[1]):
                best = (start, b"".join(form[start:place]))
            start = place + 1
    return best


def open_matcher(forms: tuple[Form, ...]) -> Matcher:
    """Return the fastest matcher that this machine has."""
    try:
        return FastMatcher(forms) if forms else SlowMatcher(forms)
    except ImportError:
        return SlowMatcher(forms)
