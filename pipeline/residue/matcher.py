"""Finding forms in a buffer: Hyperscan where its wheel exists, otherwise the standard library, which finds the same."""

import re
import threading
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from pipeline.residue.encodings import Form, Span, expression_of, longest_literal

Hit = tuple[int, int, int]
"""The number of a form, and the places in the buffer where it begins and ends."""


class Matcher(Protocol):
    """Finds all places of all forms in a buffer."""

    name: str
    longest: int

    def find(self, buffer: bytes) -> list[Hit]:
        """Return every hit, in any order."""


class FastMatcher:
    """Hyperscan through pyperscan: gigabytes a second."""

    name = "hyperscan"

    def __init__(self, forms: tuple[Form | Span, ...]) -> None:
        import pyperscan

        self.longest = max(map(len, forms), default=1)
        flag = pyperscan.Flag.DOTALL
        patterns = [pyperscan.Pattern(expression_of(form), flag, tag=number) for number, form in enumerate(forms)]
        self._forms = forms
        self._database = pyperscan.BlockDatabase(*patterns)
        self._record = recorder(pyperscan.Scan.Continue)
        self._own = threading.local()

    def find(self, buffer: bytes) -> list[Hit]:
        """Return every hit, in any order. Threads may ask at the same time: each has a scanner of its own."""
        if not hasattr(self._own, "scanner"):
            self._own.ends = []
            self._own.scanner = self._database.build(self._own.ends, self._record)
        ends: list[tuple[int, int]] = self._own.ends
        self._own.scanner.scan(buffer)
        if not ends:
            return []
        hits = [(number, start_of(self._forms[number], buffer, end), end) for number, end in ends]
        ends.clear()
        return hits


def start_of(form: Form | Span, buffer: bytes, end: int) -> int:
    """Return where a hit that ends at `end` begins: Hyperscan does not say, but every form tells."""
    return buffer.rindex(form.head, 0, end) if isinstance(form, Span) else end - len(form)


def recorder(go_on: Any) -> Callable[[list[tuple[int, int]], int, int, int], Any]:  # noqa: ANN401 - untyped there
    """Return the callback that notes a hit: the number of its form, and its end."""

    def record(hits: list[tuple[int, int]], number: int, _start: int, end: int) -> Any:  # noqa: ANN401
        hits.append((number, end))
        return go_on

    return record


class SlowMatcher:
    """The standard library: the same hits, hundreds of times slower."""

    name = "standard library (slow)"

    def __init__(self, forms: tuple[Form | Span, ...]) -> None:
        self.longest = max(map(len, forms), default=1)
        self._searches = [search_for(number, form) for number, form in enumerate(forms)]

    def find(self, buffer: bytes) -> list[Hit]:
        """Return every hit, in any order."""
        return [hit for search in self._searches for hit in search(buffer)]


def search_for(number: int, form: Form | Span) -> Callable[[bytes], Iterable[Hit]]:
    """Return a function that finds one form, by the longest literal run in it, or as an expression if it has none."""
    start, literal = (0, form.head) if isinstance(form, Span) else longest_literal(form)
    whole = re.compile(expression_of(form), re.DOTALL)

    def by_literal(data: bytes) -> Iterable[Hit]:
        place = data.find(literal)
        while place >= 0:
            found = whole.match(data, place - start) if place >= start else None
            if found:
                yield number, found.start(), found.end()
            place = data.find(literal, place + 1)

    def by_expression(data: bytes) -> Iterable[Hit]:
        return ((number, found.start(), found.start() + len(form)) for found in overlapping.finditer(data))

    overlapping = re.compile(b"(?=" + expression_of(form) + b")", re.DOTALL)
    return by_literal if len(literal) >= 3 else by_expression


def open_matcher(forms: tuple[Form | Span, ...]) -> Matcher:
    """Return the fastest matcher that this machine has."""
    try:
        return FastMatcher(forms) if forms else SlowMatcher(forms)
    except ImportError:
        return SlowMatcher(forms)
