"""A step: one small change to a guest, with the test that says whether it is needed. Pure values, nothing runs here."""

import shlex
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Secret:
    """Text that a guest program needs and nobody else may see: it prints masked."""

    reveal: str = field(repr=False)
    label: str = "secret"

    def __str__(self) -> str:
        return f"«{self.label}»"


Script = str | tuple[str | Secret, ...]
"""POSIX sh. A tuple is the concatenation of its parts; a `Secret` part is quoted for the shell when it is compiled."""


@dataclass(frozen=True)
class Step:
    """One change, run as root under `sh` (dash, busybox ash or bash).

    Test and action run in `/` under `set -eu`, umask 022 and LC_ALL=C, without standard input; `exit` ends only them.
    Under `set -e` every line of a test must hold, except that `! command` and all but the last part of `a && b` never
    end a script: write `if command; then exit 1; fi` for what must not be, unless it is the last line.
    """

    subject: str
    """The file that it comes from: `sshd`, `users`, `history` …"""
    controls: tuple[str, ...]
    title: str
    action: Script
    test: Script | None = None
    """Exit status 0 when there is nothing to do. A step without one runs always and says itself whether it changed
    anything, by its last line of output being `changed` or `unchanged`."""
    optional: bool = False
    """A failure is recorded and the program goes on."""


def reveal(script: Script) -> str:
    """Return a script with its secrets, each quoted for the shell, as the guest runs it."""
    return render(script, lambda secret: shlex.quote(secret.reveal))


def mask(script: Script) -> str:
    """Return a script with its secrets masked, as people may read it."""
    return render(script, str)


def render(script: Script, secret_text: Callable[[Secret], str]) -> str:
    """Return a script as one text, each secret through `secret_text`."""
    parts: Iterable[str | Secret] = (script,) if isinstance(script, str) else script
    return "".join(secret_text(part) if isinstance(part, Secret) else part for part in parts)
