"""Joins hide nothing, gaps are zeros, and the slow engine finds what the fast one finds."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from pipeline.residue.encodings import Encoding, Form, expression_of, literal_form, parse_form
from pipeline.residue.engine import Searcher, Stream, scan
from pipeline.residue.matcher import FastMatcher, SlowMatcher
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.rules import Sighting, Trigger, undress

BLOCK = 4096


@dataclass(frozen=True)
class Needle:
    """A rule for tests: matches when the bytes around the trigger are the whole needle."""

    text: bytes
    trigger_length: int = 8
    identity: str = "needle"
    controls: tuple[str, ...] = ("R03",)
    kind: str = "needle"

    @property
    def reach(self) -> tuple[int, int]:
        return (0, len(self.text))

    def triggers(self) -> tuple[Trigger, ...]:
        return (Trigger(literal_form(self.text[: self.trigger_length]), Encoding.PLAIN),)

    def examine(self, window: bytes, place: int, trigger: Trigger) -> Sighting | None:
        decoded, start = undress(window, place, trigger.encoding)
        return Sighting("seen") if decoded[start : start + len(self.text)] == self.text else None


def written(disk: bytes, block: int = BLOCK) -> list[tuple[int, bytes]]:
    """The blocks of a disk that are not all zeros."""
    blocks = [(start // block, disk[start : start + block]) for start in range(0, len(disk), block)]
    return [(index, data) for index, data in blocks if any(data)]


def offsets(blocks: Sequence[tuple[int, bytes]], *needles: Needle) -> list[int]:
    return [match.offset for match in scan(blocks, Searcher(needles), BLOCK)]


@given(st.integers(0, 5 * BLOCK - 200), st.integers(8, 200))
def test_a_needle_is_found_at_every_place(place: int, length: int) -> None:
    needle = Needle(bytes(1 + number % 250 for number in range(length)))
    disk = bytearray(b"." * 5 * BLOCK)
    disk[place : place + length] = needle.text
    assert offsets(written(bytes(disk)), needle) == [place]


def test_a_rule_sees_a_whole_block_beyond_the_join() -> None:
    needle = Needle(b"a needle" + bytes(range(1, 251)) * 16)
    disk = b"." * (BLOCK - 8) + needle.text + b"." * 2 * BLOCK
    assert offsets(written(disk[: 3 * BLOCK]), needle) == [BLOCK - 8]


@given(st.integers(1, 7), st.booleans())
def test_zeros_at_the_edge_of_a_hole_belong_to_a_needle(zeros: int, at_end: bool) -> None:
    secret = b"12345678"[zeros:]
    needle = Needle(secret + bytes(zeros) if at_end else bytes(zeros) + secret)
    disk = bytearray(5 * BLOCK)
    place = 3 * BLOCK - len(secret) if at_end else 3 * BLOCK - zeros
    disk[place : place + 8] = needle.text
    disk[0] = 1
    assert place in offsets(written(bytes(disk)), needle)


def test_nothing_is_found_across_a_hole_that_is_not_there() -> None:
    needle = Needle(b"12345678")
    blocks = [(0, b"." * (BLOCK - 4) + b"1234"), (2, b"5678" + b"." * (BLOCK - 4))]
    assert offsets(blocks, needle) == []


forms = st.sampled_from(
    [rb"ab", rb"AKIA[A-Z2-7]{4}", rb"(?i)secret[=:]", rb"[0-9]{3}", rb"x\x00y\x00", rb"[\x00-\xff]{2}q", rb"aa"]
)
soup = st.lists(
    st.sampled_from(
        [b"ab", b"a", b"b", b"AKIA", b"QWER", b"secret", b"SeCrEt=", b"123", b"x\0y\0", b"q", b"\xff", b"\n"]
    )
).map(b"".join)


@given(st.lists(forms, min_size=1, max_size=5, unique=True), soup)
def test_both_matchers_find_the_same(expressions: list[bytes], data: bytes) -> None:
    parsed = tuple(parse_form(expression) for expression in expressions)
    assert sorted(FastMatcher(parsed).find(data)) == sorted(SlowMatcher(parsed).find(data))


WIDE = tuple(
    trigger.form
    for pattern in PATTERNS
    for trigger in pattern.triggers()
    if trigger.encoding is Encoding.UTF16 and isinstance(trigger.form, tuple)
)


@cache
def matchers() -> tuple[FastMatcher, SlowMatcher]:
    return FastMatcher(WIDE), SlowMatcher(WIDE)


@given(st.lists(st.tuples(st.sampled_from(WIDE), st.integers(0, 255), st.binary(max_size=3)), max_size=6))
def test_both_matchers_find_the_same_in_utf16(placed: list[tuple[Form, int, bytes]]) -> None:
    data = b"".join(bytes(values[pick % len(values)] for values in form) + rest for form, pick, rest in placed)
    fast, slow = (sorted(matcher.find(data)) for matcher in matchers())
    assert fast == slow
    assert {WIDE[number] for number, _, _ in fast} >= {form for form, _, _ in placed}


def test_an_expression_has_the_length_of_its_form() -> None:
    form = parse_form(rb"ghp_[0-9A-Za-z]{3}\.")
    assert expression_of(form).startswith(b"\\x67\\x68\\x70\\x5f[")
    assert len(form) == 8


def test_chunks_of_any_size_can_be_fed() -> None:
    needle = Needle(b"0123456789abcdef")
    stream = Stream(Searcher([needle]), inside=("gzip",))
    data = b"." * 100 + needle.text + b"." * 50
    matches = [match for start in (0, 50, 100) for match in stream.feed(start, data[start : start + 50])]
    matches += [match for match in stream.feed(150, data[150:])] + list(stream.finish())
    assert [(match.offset, match.inside) for match in matches] == [(100, ("gzip",))]
