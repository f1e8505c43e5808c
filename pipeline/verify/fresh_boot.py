"""What only a fresh boot can prove: who may log in, what the console shows, and the checks of layer B."""

import re
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from pipeline.errors import AssayError
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Spec
from pipeline.verify.ahead import Shell
from pipeline.verify.live import Progress, prove

Key = TypeVar("Key")

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])|[\x00-\x08\x0b-\x1f\x7f]")
FAILED_UNIT = re.compile(r"\[\s*(?:FAILED|DEPEND)\s*\]\s*(?P<what>.+)")
TROUBLE = re.compile(
    r"Kernel panic|\bOops:|Out of memory: Kill|You are in (?:emergency|rescue) mode|Give root password for maintenance"
    r"|EXT4-fs error|XFS .*(?:Corruption|corruption)|I/O error, dev (?!fd)|Traceback \(most recent call last\)"
    r"|GRUB rescue|no bootable device",
    re.IGNORECASE,
)
FINGERPRINTS = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
LOGINS_AT_ONCE = 4
"""Fewer than sshd lets in at once before it drops some by chance (MaxStartups)."""
LONGEST_LINE = 200
MOST_LINES = 20


@dataclass(frozen=True)
class Login(Generic[Key]):
    """An attempt to log in, and whether it should succeed."""

    user: str
    key: Key
    key_name: str
    welcome: bool
    controls: tuple[str, ...]


def plan_logins(spec: Spec, build_key: Key | None, launch_key: Key) -> tuple[Login[Key], ...]:
    """Return who is tried: every account that people know of, with the build's key and with the launch key.

    Those who are welcome come first: some daemons shut a client out for a while after a few refusals. `build_key` is
    None for an image that somebody else built.
    """
    launch_user = spec.image.launch_user
    people = sorted(
        {"root", spec.ssh.user, *(user.name for user in spec.users), *([launch_user] if launch_user else [])}
    )
    logins = []
    if launch_user:
        logins.append(Login(launch_user, launch_key, "the launch key", True, ("H15",)))
    if build_key is not None:
        logins += [Login(user, build_key, "the build's key", False, ("S02", "V01")) for user in people]
    logins += [
        Login(user, launch_key, "the launch key", False, ("H02",) if user == "root" else ("H03", "H11"))
        for user in people
        if user != launch_user
    ]
    return tuple(logins)


def prove_logins(logins: Sequence[Login[Key]], can_log_in: Callable[[str, Key], bool]) -> tuple[Result, ...]:
    """Return one result for each attempt, those of who is welcome first.

    `can_log_in(user, key)` raises an AssayError when sshd could not be asked. It is called from several threads: those
    who should be refused try at the same time, before sshd has shut this address out for the first of them.
    """
    welcome = [prove_login(login, can_log_in) for login in logins if login.welcome]
    strangers = [login for login in logins if not login.welcome]
    with ThreadPoolExecutor(LOGINS_AT_ONCE, "login") as pool:
        return (*welcome, *pool.map(lambda login: prove_login(login, can_log_in), strangers))


def prove_login(login: Login[Key], can_log_in: Callable[[str, Key], bool]) -> Result:
    """Return the result of one attempt."""
    started = time.monotonic()
    status, detail = Status.PASS, ""
    try:
        if can_log_in(login.user, login.key) != login.welcome:
            status, detail = Status.FAIL, "was refused" if login.welcome else "was let in"
    except AssayError as error:
        status, detail = Status.UNREACHABLE, str(error)
    verb = "opens" if login.welcome else "does not open"
    return Result(
        controls=login.controls,
        layer=Layer.FRESH_BOOT,
        status=status,
        title=f"{login.key_name} {verb} the account {login.user}",
        source=f"verify/fresh_boot::login[{login.user}, {login.key_name}]",
        detail=detail,
        seconds=round(time.monotonic() - started, 3),
    )


def prove_console(console: str) -> tuple[Result, ...]:
    """Return what the console log proves: no unit failed, nothing broke, and the host keys were shown (H08, H29)."""
    lines = clean_console(console).splitlines()
    failed = [match["what"].strip() for line in lines if (match := FAILED_UNIT.search(line))]
    trouble = [line.strip() for line in lines if TROUBLE.search(line)]
    fingerprints = [] if FINGERPRINTS.search("\n".join(lines)) else ["no SHA256 fingerprint of a host key"]
    return (
        console_result(console, "failed_units", ("H29",), "the console shows no failed unit", failed),
        console_result(console, "trouble", ("H29",), "the console shows no panic, damage or traceback", trouble),
        console_result(
            console, "host_keys", ("H08",), "the console shows the fingerprints of the host keys", fingerprints
        ),
    )


def console_result(console: str, name: str, controls: tuple[str, ...], title: str, problems: list[str]) -> Result:
    """Return one result about the console; an empty console proves nothing."""
    status = Status.FAIL if problems else Status.PASS
    detail = "; ".join(problem[:LONGEST_LINE] for problem in problems[:MOST_LINES])
    if not console.strip():
        status, detail = Status.UNREACHABLE, "the console is empty"
    return Result(
        controls=controls,
        layer=Layer.FRESH_BOOT,
        status=status,
        title=title,
        source=f"verify/fresh_boot::console[{name}]",
        detail=detail,
    )


def clean_console(console: str) -> str:
    """Return the console as plain text: no colours, no cursor movements, no control characters."""
    return ESCAPES.sub("", console.replace("\r\n", "\n").replace("\r", "\n"))


def prove_fresh_boot(
    shells: Sequence[Shell],
    spec: Spec,
    folder: Path,
    expectations: Mapping[str, str],
    *,
    console: str,
    logins: Sequence[Login[Key]],
    can_log_in: Callable[[str, Key], bool],
    spec_folder: Path | None = None,
    recordings: Path | None = None,
    progress: Progress = lambda result, done, total: None,
) -> tuple[Result, ...]:
    """Return all results of layer B: the checks over the open root shells, the console, and then the logins.

    The logins come last: after them sshd may shut this address out. Raises ProofFailed when no check was collected.
    """
    checks = prove(
        shells,
        Layer.FRESH_BOOT,
        spec,
        folder,
        expectations,
        spec_folder=spec_folder,
        recordings=recordings,
        progress=progress,
    )
    return (*checks, *prove_console(console), *prove_logins(logins, can_log_in))
