"""Finding forms in a buffer: Hyperscan where its wheel exists, otherwise the standard library, which finds the same."""

import re
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol

from pipeline.residue.dead import joined
from pipeline.residue.encodings import Form, Span, expression_of, longest_literal

Hit = tuple[int, int, int]
"""The number of a form, and the places in the buffer where it begins and ends."""


class Matcher(Protocol):
    """Finds all places of all forms in a buffer."""

    name: str
    longest: int

    def find(self, buffer: bytes) -> list[Hit]:
        """Return every hit, in any order."""


SIGN_LENGTH = 5
"""So many letters of a form in UTF-16 are rare; fewer signs of that length stand for all such forms than of another."""


class FastMatcher:
    """Hyperscan through pyperscan: gigabytes a second.

    Forms in UTF-16 are searched for only around what is a sign of them: with all of their zeros among the literals,
    Hyperscan would go at less than half the speed.
    """

    name = "hyperscan"

    def __init__(self, forms: tuple[Form | Span, ...]) -> None:
        self.longest = max(map(len, forms), default=1)
        self._forms = forms
        wide = {number: form for number, form in enumerate(forms) if isinstance(form, tuple) and is_wide(form)}
        expressions = {number: expression_of(form) for number, form in enumerate(forms)}
        near = [(number, expression) for number, expression in expressions.items() if number not in wide]
        self._sign = len(forms)
        self._database = Database([*near, *((self._sign, sign) for sign in signs_of(tuple(wide.values())))])
        self._wide = Database([(number, expressions[number]) for number in wide])

    def find(self, buffer: bytes) -> list[Hit]:
        """Return every hit, in any order. Threads may ask at the same time."""
        found = self._database.ends_in(buffer)
        if not found:
            return []
        signs = [(max(0, end - self.longest), end + self.longest) for number, end in found if number == self._sign]
        ends = [(number, end) for number, end in found if number != self._sign]
        for start, end in joined(signs):
            ends += [(number, start + place) for number, place in self._wide.ends_in(buffer[start:end])]
        return [(number, start_of(self._forms[number], buffer, end), end) for number, end in ends]


class Database:
    """Expressions that Hyperscan has compiled, each with a number."""

    def __init__(self, expressions: Iterable[tuple[int, bytes]]) -> None:
        import pyperscan

        flag = pyperscan.Flag.DOTALL
        patterns = [pyperscan.Pattern(expression, flag, tag=number) for number, expression in expressions]
        self._database = pyperscan.BlockDatabase(*patterns) if patterns else None
        self._record = recorder(pyperscan.Scan.Continue)
        self._own = threading.local()

    def ends_in(self, buffer: bytes) -> list[tuple[int, int]]:
        """Return number and end of each match. Each thread has a scanner of its own."""
        if self._database is None:
            return []
        if not hasattr(self._own, "scanner"):
            self._own.ends = []
            self._own.scanner = self._database.build(self._own.ends, self._record)
        ends: list[tuple[int, int]] = self._own.ends
        self._own.scanner.scan(buffer)
        found = ends[:]
        ends.clear()
        return found


def is_wide(form: Form) -> bool:
    """Say whether a form is in UTF-16, and has letters enough for a sign."""
    return all(place == b"\0" for place in form[1::2]) and len(next(pieces(form), b"")) >= 3


def pieces(form: Form) -> Iterator[bytes]:
    """Yield what of a form in UTF-16 is letters, in any case: all runs as long as a sign, or the longest there are."""
    folded = [set(values.lower()) for values in form[::2]]
    for length in range(SIGN_LENGTH, 0, -1):
        runs = (folded[start : start + length] for start in range(len(folded) - length + 1))
        found = [bytes(letter for (letter,) in run) for run in runs if all(len(one) == 1 for one in run)]
        if found:
            yield from found
            return


def signs_of(forms: tuple[Form, ...]) -> Iterator[bytes]:
    """Yield expressions of which one at least is in every form: of the pieces of each, the one that most forms have."""
    counts = Counter(piece for form in forms for piece in set(pieces(form)))
    for piece in dict.fromkeys(max(sorted(pieces(form)), key=counts.__getitem__) for form in forms):
        yield b"(?i:" + b"\\x00".join(b"\\x%02x" % letter for letter in piece) + b")"


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
