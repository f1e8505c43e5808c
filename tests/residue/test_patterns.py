"""Patterns: unique, complete, the same with both engines, and silent about decoys in every encoding."""

import base64
import random
import re
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.residue import confirm
from pipeline.residue.encodings import Encoding
from pipeline.residue.engine import Searcher, Stream
from pipeline.residue.matcher import FastMatcher, Matcher, SlowMatcher
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.rules import Trigger
from tests.planted.plants import decoys, plants

BLOCK = 65536


@cache
def searcher_of(matcher: type[FastMatcher | SlowMatcher]) -> Searcher:
    return Searcher(PATTERNS, matcher)


def found(searcher: Searcher, disk: bytes) -> set[tuple[str, int, str, str, tuple[str, ...]]]:
    stream = Stream(searcher)
    matches = [
        match for start in range(0, len(disk), BLOCK) for match in stream.feed(start, disk[start : start + BLOCK])
    ]
    matches += stream.finish()
    return {(match.rule.identity, match.offset, match.encoding, match.fingerprint, match.inside) for match in matches}


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    names = [pattern.identity for pattern in PATTERNS]
    assert len(names) >= 60
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.identity)
def test_an_expression_compiles_and_its_anchors_are_not_too_short(pattern) -> None:
    assert pattern.compiled
    assert all(len(trigger.form) >= 4 for trigger in pattern.triggers())


def test_both_engines_find_the_same_plants_and_decoys() -> None:
    disk = b"\n".join([*(plant.content for plant in plants()), *(decoy.content for decoy in decoys())])
    fast = found(searcher_of(FastMatcher), disk)
    assert fast == found(searcher_of(SlowMatcher), disk)
    assert len({identity for identity, *_ in fast}) >= 40


fragments = st.sampled_from([anchor for pattern in PATTERNS for anchor in pattern.anchors if isinstance(anchor, bytes)])


@given(st.lists(fragments | st.binary(max_size=40), max_size=12).map(b"".join))
def test_both_engines_find_the_same_in_anything(data: bytes) -> None:
    assert found(searcher_of(FastMatcher), data) == found(searcher_of(SlowMatcher), data)


@pytest.mark.parametrize("decoy", decoys(), ids=lambda decoy: decoy.name)
@pytest.mark.parametrize("way", ["plain", "base64", "utf-16"])
def test_a_decoy_is_silent(decoy, way: str) -> None:
    data = decoy.content
    if way == "base64":
        data = base64.encodebytes(data)
    elif way == "utf-16":
        data = data.decode("latin-1").encode("utf-16")
    assert found(searcher_of(FastMatcher), b"\n" + data + b"\n") == set()


@given(st.binary(max_size=400), st.sampled_from(PATTERNS), st.sampled_from(Encoding))
def test_no_rule_fails_on_nonsense(window: bytes, pattern, encoding: Encoding) -> None:
    pattern.examine(window, len(window) // 2, Trigger((b"x",), encoding, 8))


@given(st.data())
def test_no_confirmation_fails_on_what_its_expression_matches(data) -> None:
    pattern = data.draw(st.sampled_from(PATTERNS))
    text = data.draw(st.from_regex(pattern.compiled))
    for match in pattern.compiled.finditer(text):
        pattern.check(match)


def test_text_is_searched_in_five_forms_and_binary_structures_in_one() -> None:
    by_name = {pattern.identity: pattern for pattern in PATTERNS}
    assert {trigger.encoding for trigger in by_name["npm-token"].triggers()} == set(Encoding) - {Encoding.HEX}
    assert {trigger.encoding for trigger in by_name["core-dump"].triggers()} == {Encoding.PLAIN}


def test_both_matchers_say_which_they_are() -> None:
    matchers: tuple[Matcher, Matcher] = (searcher_of(FastMatcher).matcher, searcher_of(SlowMatcher).matcher)
    assert "slow" not in matchers[0].name
    assert "slow" in matchers[1].name


def test_an_instance_id_is_found_whatever_chance_made_it() -> None:
    expression = re.compile(rb"(?P<secret>i-0[0-9a-f]{16})")
    chance = random.Random(7)
    drawn = [b"i-0%016x" % chance.getrandbits(64) for _ in range(3000)]
    chosen = [b"i-0f5e9e05f99916f16", *drawn]
    assert [secret for secret in chosen if confirm.identifier(expression.search(secret)) is None] == []
    for example in (b"i-0123456789abcdef0", b"i-00000000000000000"):
        assert confirm.identifier(expression.search(example)) is None


@pytest.mark.parametrize("word", [b"yOuR", b"XxXx", b"AAAAAAAA"])
def test_a_key_is_found_also_where_chance_wrote_a_word_of_manuals(word: bytes) -> None:
    body = base64.b64encode(random.Random(7).randbytes(1200))
    lines = body[:300] + word + body[300 + len(word) :]
    key = b"-----BEGIN ENCRYPTED PRIVATE KEY-----\n" + lines + b"\n-----END ENCRYPTED PRIVATE KEY-----\n"
    assert any("PRIVATE" in identity.upper() for identity, *_ in found(searcher_of(FastMatcher), key))
