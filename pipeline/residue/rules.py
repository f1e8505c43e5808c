"""What the engine searches for: a rule has forms that trigger it, and says of each trigger whether it is a match."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.residue.encodings import (
    BASE64_SHIFTS,
    Encoding,
    Form,
    Span,
    base64_form,
    decode_base64,
    decode_utf16,
    literal_form,
    longest_literal,
    utf16_form,
)

LONG_ENOUGH = 5
"""A literal run of so many bytes is rare on any disk."""


def fingerprint_of(secret: bytes) -> str:
    """Return what a report may show of a secret: 12 digits of its SHA-256."""
    return fingerprint_in([secret])


def fingerprint_in(pieces: Iterable[bytes]) -> str:
    """Return the same of what comes in pieces: a file may be of any size."""
    digest = hashlib.sha256()
    for piece in pieces:
        digest.update(piece)
    return digest.hexdigest()[:12]


@dataclass(frozen=True)
class Sighting:
    """What a rule saw around a trigger."""

    fingerprint: str
    detail: str = ""


@dataclass(frozen=True)
class Trigger:
    """One form of one rule. The engine finds the form; the rule decides."""

    form: Form | Span = field(repr=False)
    encoding: Encoding
    length: int = 1
    """How long it is when it is not encoded."""


class Rule(Protocol):
    """Something that must not be on a disk."""

    @property
    def identity(self) -> str:
        """The rule's name in reports."""

    @property
    def controls(self) -> tuple[str, ...]:
        """The controls of the catalogue that a match violates; the first is the one that a finding carries."""

    @property
    def kind(self) -> str:
        """What was found, in words."""

    @property
    def reach(self) -> tuple[int, int]:
        """How many bytes before and after the start of a trigger the rule wants to see."""

    def triggers(self) -> tuple[Trigger, ...]:
        """Return every form that the rule is triggered by."""

    def examine(self, window: bytes, place: int, trigger: Trigger) -> Sighting | None:
        """Decide about a trigger whose form begins at `place` in `window`."""


def dress(form: Form) -> tuple[Trigger, ...]:
    """Return the triggers of a form: plain, in UTF-16, and in base64 wherever it may begin."""
    return tuple(trigger for spelt in spell_out(form) for trigger in dress_one(spelt))


def spell_out(form: Form) -> tuple[Form, ...]:
    """Return a form as several whose literal runs are longer, where a small class cuts them short.

    Hyperscan looks for literals first: one of three bytes in a set slows it down fivefold.
    """
    small = [place for place, values in enumerate(form) if 1 < len(values) <= 8]
    if not small or len(small) > 2 or longest_literal(form)[1][LONG_ENOUGH:]:
        return (form,)
    place = small[0]
    return tuple(
        spelt for value in form[place] for spelt in spell_out((*form[:place], bytes([value]), *form[place + 1 :]))
    )


def dress_one(form: Form) -> tuple[Trigger, ...]:
    """Return the five triggers of one form."""
    return (
        Trigger(form, Encoding.PLAIN, len(form)),
        Trigger(utf16_form(form), Encoding.UTF16, len(form)),
        *(Trigger(base64_form(form, shift), encoding, len(form)) for encoding, shift in BASE64_SHIFTS.items()),
    )


def undress(window: bytes, place: int, encoding: Encoding) -> tuple[bytes, int]:
    """Return a window as it was before it was encoded, and where `place` is in that."""
    if encoding is Encoding.UTF16:
        return decode_utf16(window, place)
    if encoding in BASE64_SHIFTS:
        return decode_base64(window, place, BASE64_SHIFTS[encoding])
    return window, place


def dress_text(text: bytes) -> tuple[Trigger, ...]:
    """Return the triggers of a literal text."""
    return dress(literal_form(text))
