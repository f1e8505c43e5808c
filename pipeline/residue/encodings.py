"""What a secret looks like in other clothes: pure functions from byte classes to byte classes, and back.

A *form* is a fixed number of byte classes, each the set of values that its place may have. Triggers are forms, so that
the end of a match gives its start, and so that each of them can be dressed in UTF-16 and in base64 by rule.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from enum import StrEnum

Form = tuple[bytes, ...]
"""For each place the values that it may have, sorted."""


@dataclass(frozen=True)
class Span:
    """What has no fixed length: it begins with `head`, which is not in it again, and its first end is its only end."""

    head: bytes
    expression: bytes
    longest: int

    def __len__(self) -> int:
        return self.longest


BASE64_ALPHABET = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
BASE64_RUN = rb"[A-Za-z0-9+/_-]"
SPACE = b" \t\r\n"


class Encoding(StrEnum):
    """How a match was written on the disk."""

    PLAIN = "plain"
    UTF16 = "UTF-16"
    HEX = "hex"
    BASE64_0 = "base64"
    BASE64_1 = "base64 shifted by 1"
    BASE64_2 = "base64 shifted by 2"


BASE64_SHIFTS = {Encoding.BASE64_0: 0, Encoding.BASE64_1: 1, Encoding.BASE64_2: 2}

TOKEN = re.compile(rb"(\[(?:\\.[0-9a-f]{0,2}|[^\]\\])+\]|\\x[0-9a-f]{2}|\\.|.)(?:\{(\d+)\})?", re.DOTALL)
ALL_BYTES = bytes(range(256))


def parse_form(expression: bytes) -> Form:
    r"""Return the form of a small regular expression: bytes, \xNN, [classes], each with {n} or not; (?i) in front."""
    flags = re.DOTALL
    if expression.startswith(b"(?i)"):
        flags |= re.IGNORECASE
        expression = expression[4:]
    form: list[bytes] = []
    for token in TOKEN.finditer(expression):
        allowed = b"".join(re.findall(token[1], ALL_BYTES, flags))
        form.extend([allowed] * int(token[2] or 1))
    return tuple(form)


def literal_form(text: bytes) -> Form:
    """Return the form that only `text` has."""
    return tuple(text[place : place + 1] for place in range(len(text)))


def expression_of(form: Form | Span) -> bytes:
    """Return a form as a regular expression that both engines understand."""
    if isinstance(form, Span):
        return form.expression
    return b"".join(b"\\x%02x" % place[0] if len(place) == 1 else class_of(place) for place in form)


def class_of(values: bytes) -> bytes:
    """Return a class of byte values as a regular expression."""
    if len(values) == 256:
        return b"[\\x00-\\xff]"
    return b"[" + b"".join(b"\\x%02x" % value for value in values) + b"]"


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


def utf16_form(form: Form) -> Form:
    """Return a form in UTF-16, without the zero at its edge: so it is found in both byte orders.

    Zeros at the end of the form itself are left out: disks are full of them, and looking at each costs time.
    """
    while len(form) > 1 and form[-1] == b"\0":
        form = form[:-1]
    wide: list[bytes] = []
    for place in form:
        wide += [place, b"\0"]
    return tuple(wide[:-1])


def hex_forms(text: bytes) -> tuple[Form, ...]:
    """Return the form of `text` in hexadecimal digits, of either case."""
    digits = text.hex().encode()
    return (tuple(bytes(sorted({*digit.lower(), *digit.upper()})) for digit in literal_form(digits)),)


def base64_form(form: Form, shift: int) -> Form:
    """Return the form of the base64 digits that lie wholly in `form`, when `shift` bytes (0-2) stand before it.

    Standard and URL-safe alphabets are both allowed.
    """
    bits = 8 * (shift + len(form))
    first = -(-8 * shift // 6)
    return tuple(base64_place(form, 6 * digit - 8 * shift) for digit in range(first, bits // 6))


def base64_place(form: Form, bit: int) -> bytes:
    """Return the base64 digits that the six bits from `bit` of a form may give."""
    place, within = divmod(bit, 8)
    if within <= 2:
        digits = {value >> (2 - within) & 63 for value in form[place]}
    else:
        high = {value << (within - 2) & 63 for value in form[place]}
        low = {value >> (10 - within) for value in form[place + 1]}
        digits = {first | second for first in high for second in low}
    values = {BASE64_ALPHABET[digit] for digit in digits}
    values |= {ord("-")} if 62 in digits else set()
    values |= {ord("_")} if 63 in digits else set()
    return bytes(sorted(values))


def base64_text(text: bytes, shift: int) -> bytes:
    """Return the base64 digits that lie wholly in `text`, when `shift` bytes (0-2) stand before it."""
    encoded = base64.b64encode(b"\0" * shift + text)
    return encoded[-(-8 * shift // 6) : 8 * (shift + len(text)) // 6]


def decode_utf16(window: bytes, place: int) -> tuple[bytes, int]:
    """Return every second byte of a window, and where `place` is in that."""
    return window[place % 2 :: 2], place // 2


def decode_base64(window: bytes, place: int, shift: int) -> tuple[bytes, int]:
    """Return what the base64 digits around `place` mean, and where the form that begins there begins in it.

    White space between digits is skipped. Returns (b"", 0) when there is nothing to decode.
    """
    digits_before = -(-8 * shift // 6)
    before = re.search(rb"[A-Za-z0-9+/_\-\s]*\Z", window[:place])
    back = (before[0] if before else b"").translate(None, SPACE)
    if len(back) < digits_before:
        return b"", 0
    back = back[(len(back) - digits_before) % 4 :]
    after = re.match(rb"[A-Za-z0-9+/_\-\s]*", window[place:])
    digits = (back + (after[0] if after else b"").translate(None, SPACE)).translate(bytes.maketrans(b"-_", b"+/"))
    try:
        decoded = base64.b64decode(digits[: len(digits) // 4 * 4] + padded_rest(digits))
    except binascii.Error:
        return b"", 0
    return decoded, (len(back) - digits_before) // 4 * 3 + shift


def padded_rest(digits: bytes) -> bytes:
    """Return the last digits, after the last whole four, as a whole four; nothing when a single digit is left."""
    rest = digits[len(digits) // 4 * 4 :]
    return b"" if len(rest) < 2 else rest + b"=" * (4 - len(rest))
