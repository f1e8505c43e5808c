"""Text from guests and clouds, made safe to show: a console log may hold anything, escape sequences too."""

import re

_UNSAFE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f"  # control characters: they move cursors, change titles, end XML
    "\u200e\u200f\u202a-\u202e\u2066-\u2069"  # direction marks: they let a text read as another
    "\ud800-\udfff\ufffe\uffff]"  # what neither UTF-8 nor XML can hold
)


def make_visible(text: str) -> str:
    """Return a text in which each character that a terminal or XML would act on is written out (ESC as x1b)."""
    text = text.replace("\r\n", "\n")
    return _UNSAFE.sub(lambda match: match[0].encode("unicode_escape").decode("ascii"), text)


def first_line(text: str, length: int = 200) -> str:
    """Return the first line of a text, safe to show and not longer than a terminal can take."""
    line = make_visible(text.strip()).split("\n", 1)[0]
    return line if len(line) <= length else line[: length - 1] + "…"


def format_seconds(seconds: float) -> str:
    """Return a duration as people read it: `0.4 s`, `41 s`, `3 min 05 s`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60:02d} s"
