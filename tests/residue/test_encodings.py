"""Forms in other clothes: each is compared with what Python's own codecs make of a text that has the form."""

import base64
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.residue.encodings import (
    BASE64_SHIFTS,
    base64_form,
    base64_text,
    decode_base64,
    decode_utf16,
    expression_of,
    hex_forms,
    literal_form,
    parse_form,
    utf16_form,
)

texts = st.binary(min_size=4, max_size=60)
shifts = st.sampled_from(sorted(BASE64_SHIFTS.values()))


def found(form, data: bytes) -> re.Match[bytes] | None:
    return re.search(expression_of(form), data, re.DOTALL)


@pytest.mark.parametrize(
    ("expression", "example", "other"),
    [
        (rb"AKIA[A-Z2-7]{4}", b"AKIAQ2Z7", b"AKIAQ1Z7"),
        (rb"(?i)begin\x00", b"BeGiN\0", b"BeGiN "),
        (rb"\$y\$[./0-9A-Za-z]", b"$y$j", b"$y$-"),
        (rb"a.c", b"a\nc", b"abd"),
    ],
)
def test_a_form_has_what_its_expression_matches(expression: bytes, example: bytes, other: bytes) -> None:
    form = parse_form(expression)
    assert len(form) == len(example)
    assert found(form, example)
    assert not found(form, other)


@given(texts, st.binary(max_size=9), st.binary(max_size=9))
def test_base64_of_a_text_is_found_wherever_it_begins(text: bytes, before: bytes, after: bytes) -> None:
    encoded = base64.b64encode(before + text + after)
    form = base64_form(literal_form(text), len(before) % 3)
    assert found(form, encoded)
    assert found(form, base64.urlsafe_b64encode(before + text + after))


@given(texts, shifts)
def test_base64_text_and_base64_form_agree(text: bytes, shift: int) -> None:
    assert found(base64_form(literal_form(text), shift), base64_text(text, shift))


@given(texts, st.binary(max_size=40), st.binary(max_size=40), st.integers(16, 76))
def test_base64_is_decoded_from_the_middle_of_wrapped_lines(
    text: bytes, before: bytes, after: bytes, width: int
) -> None:
    encoded = base64.b64encode(before + text + after)
    shift = len(before) % 3
    form = base64_form(literal_form(text), shift)
    place = next(found.start() for found in [found_at(form, encoded, len(before))])
    lines = b"\n".join(encoded[start : start + width] for start in range(0, len(encoded), width))
    moved = place + place // width
    decoded, start = decode_base64(b"!" + lines + b"\n\0", moved + 1, shift)
    assert decoded[start : start + len(text)] == text


def found_at(form, encoded: bytes, offset: int) -> re.Match[bytes]:
    place = -(-8 * offset // 6)
    matched = re.compile(expression_of(form), re.DOTALL).match(encoded, place)
    assert matched
    return matched


@given(st.text(st.characters(min_codepoint=1, max_codepoint=126), min_size=2, max_size=40))
def test_utf16_is_found_and_decoded_in_both_byte_orders(text: str) -> None:
    form = utf16_form(literal_form(text.encode()))
    for codec in ("utf-16-le", "utf-16-be"):
        data = b"\xff\xfe" + text.encode(codec) + b"\0\0"
        matched = found(form, data)
        assert matched
        decoded, place = decode_utf16(data, matched.start())
        assert decoded[place : place + len(text)] == text.encode()


@given(texts)
def test_hex_is_found_in_either_case(text: bytes) -> None:
    (form,) = hex_forms(text)
    assert found(form, text.hex().encode())
    assert found(form, text.hex().upper().encode())


@given(st.binary(max_size=200), st.integers(0, 200), shifts)
def test_decoding_what_is_not_base64_does_not_raise(window: bytes, place: int, shift: int) -> None:
    decode_base64(window, min(place, len(window)), shift)
