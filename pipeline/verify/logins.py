"""Who may log in to a fresh instance: every account of it is tried, with every key and password that could be left.

One connection tries one account with all of it: ssh lets nobody change the user, and each connection costs the guest
a process. sshd drops connections at random when too many wait (MaxStartups), and since OpenSSH 9.8 it shuts an address
out for a while after some refusals (PerSourcePenalties): neither may be taken for a refusal.
"""

import time
from collections.abc import Callable, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from pipeline.errors import AssayError
from pipeline.guest.shell import PASSWORD_METHODS, Answer
from pipeline.report.evidence import Layer, Result, Status

Key = TypeVar("Key")

AT_ONCE = 4
"""Accounts that are tried side by side: fewer than sshd lets wait (MaxStartups); and the penalties of these four begin
when all of them are in already."""
MOST_ACCOUNTS = 300
"""Of an image that has more, the report says that they were not all tried."""
WELL_KNOWN_PASSWORDS = ("password", "changeme", "root", "toor", "admin", "123456")
ACCOUNTS = "getent passwd | cut -d : -f 1"
PENALTIES = "/usr/sbin/sshd -T 2>/dev/null | grep -i '^persourcepenalties ' | grep -qvi ' no$'"
"""Succeeds where sshd shuts out who is refused."""
FORGIVE = """for unit in ssh.service sshd.service; do
  if systemctl is-active --quiet $unit; then
    systemctl reset-failed $unit
    systemctl restart $unit
    break
  fi
done"""
"""What sshd holds against addresses ends with its process; sessions go on. systemd counts starts, and would give it up
after a few in ten seconds: `reset-failed` ends that count."""
NAMES_SHOWN = 10


@dataclass(frozen=True)
class Attempts(Generic[Key]):
    """What is tried on every account: nothing, the keys, and passwords."""

    launch_user: str
    """Whose account the launch key opens, and no other."""
    launch_key: Key
    build_key: Key | None
    """None for an image that somebody else built."""

    def keys(self) -> tuple[Key, ...]:
        """Return the keys, in the order in which they are tried."""
        return (self.launch_key,) if self.build_key is None else (self.launch_key, self.build_key)

    def passwords(self, user: str) -> tuple[str, ...]:
        """Return passwords that an account must not have: none, its own name, and well-known ones (H14)."""
        return tuple(dict.fromkeys(("", user, *WELL_KNOWN_PASSWORDS)))


TryAll = Callable[[str, Sequence[Key | None], Sequence[str]], Answer]
"""Tries one user with these keys, None being nothing at all, and then with these passwords. Raises AssayError."""


@dataclass(frozen=True)
class Tried:
    """What came of one account."""

    user: str
    nothing: bool = False
    launch_key: bool = False
    build_key: bool = False
    password: bool = False
    offers_passwords: bool = False
    unknown: str = ""
    """Why it could not be tried."""


def prove_logins(
    attempts: Attempts[Key],
    accounts: Collection[str],
    try_all: TryAll[Key],
    forgive: Callable[[], object] = lambda: None,
) -> tuple[Result, ...]:
    """Return what all accounts together prove: who is welcome gets in, and nobody else by anything.

    `try_all` is called from several threads. `forgive` is called after each few accounts, so that sshd does not shut
    this address out.
    """
    started = time.monotonic()
    users = [attempts.launch_user, *sorted({"root", *filter(None, accounts)} - {attempts.launch_user})]
    asked = users[:MOST_ACCOUNTS]
    tried: list[Tried] = []
    with ThreadPoolExecutor(AT_ONCE, "login") as pool:
        for first in range(0, len(asked), AT_ONCE):
            tried += pool.map(lambda user: try_account(attempts, user, try_all), asked[first : first + AT_ONCE])
            forgive()
    tried += [Tried(user, unknown=f"more than {MOST_ACCOUNTS} accounts") for user in users[MOST_ACCOUNTS:]]
    seconds = round(time.monotonic() - started, 3)
    return tuple(replace(result, seconds=seconds) for result in judge(attempts, tried))


def try_account(attempts: Attempts[Key], user: str, try_all: TryAll[Key]) -> Tried:
    """Try everything on one account."""
    keys = attempts.keys()
    try:
        answer = try_all(user, (None, *keys), attempts.passwords(user))
    except AssayError as error:
        return Tried(user, unknown=str(error))
    nothing, launch_key, *more = answer.opened
    return Tried(
        user,
        nothing=nothing,
        launch_key=launch_key,
        build_key=more[0] if len(keys) == 2 else False,
        password=any(more[len(keys) - 1 :]),
        offers_passwords=bool(answer.methods & PASSWORD_METHODS),
    )


def judge(attempts: Attempts[Key], tried: Sequence[Tried]) -> tuple[Result, ...]:
    """Return the results of all attempts, by what was tried."""
    own, *others = tried
    root = [one for one in others if one.user == "root"]
    others = [one for one in others if one.user != "root"]
    build_key = ("build_key", ("S02", "V01"))
    return (
        welcomed(own),
        refused(root, "the launch key does not open root", "root", ("H02",), lambda one: one.launch_key),
        refused(others, "the launch key opens no other account", "others", ("H03", "H11"), lambda one: one.launch_key),
        *(
            [refused(tried, "the build's key opens no account", *build_key, lambda one: one.build_key)]
            if attempts.build_key is not None
            else []
        ),
        refused(tried, "no account opens with nothing at all", "nothing", ("H01", "H14"), lambda one: one.nothing),
        refused(tried, "no account is asked for a password", "methods", ("H01",), lambda one: one.offers_passwords),
        refused(
            tried,
            "no account opens with an empty password, its own name or a well-known one",
            "passwords",
            ("H14",),
            lambda one: one.password,
        ),
    )


def welcomed(one: Tried) -> Result:
    """Return the result for the account that the launch key opens (H15)."""
    status = Status.PASS if one.launch_key else Status.UNREACHABLE if one.unknown else Status.FAIL
    detail = "" if one.launch_key else one.unknown or "was refused"
    return login_result(f"the launch key opens the account {one.user}", "welcome", ("H15",), status, detail)


def refused(
    tried: Sequence[Tried], title: str, name: str, controls: tuple[str, ...], let_in: Callable[[Tried], bool]
) -> Result:
    """Return the result for what must open nothing. Who could not be asked is no pass."""
    opened = [one.user for one in tried if let_in(one)]
    unknown = [f"{one.user}: {one.unknown}" for one in tried if one.unknown]
    if opened:
        status, detail = Status.FAIL, enumerate_some(opened)
    elif unknown:
        status, detail = Status.UNREACHABLE, f"not asked: {enumerate_some(unknown)}"
    else:
        status, detail = Status.PASS, ""
    return login_result(f"{title} ({len(tried)} tried)", name, controls, status, detail)


def enumerate_some(names: Sequence[str]) -> str:
    """Return the first names, and how many more there are."""
    more = len(names) - NAMES_SHOWN
    return "; ".join(names[:NAMES_SHOWN]) + (f"; and {more} more" if more > 0 else "")


def login_result(title: str, name: str, controls: tuple[str, ...], status: Status, detail: str) -> Result:
    """Return one result about logins."""
    return Result(
        controls=controls,
        layer=Layer.FRESH_BOOT,
        status=status,
        title=title,
        source=f"verify/logins[{name}]",
        detail=detail,
    )
