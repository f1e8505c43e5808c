"""Accounts and sudo as a disk has them (V02, H14; seed [2], Balduzzi 2012)."""

import re
from collections.abc import Iterator

from pipeline.residue.origin import Doubt, Origin

SUDOERS = re.compile(r"/etc/sudoers|/etc/sudoers\.d/[^.~/]+")
"""sudo leaves out what has a dot in its name or ends with ~ (sudoers(5))."""
RIGHTS = re.compile(r"/etc/(?:polkit-1/(?:rules\.d|localauthority)/.+|doas\.conf|doas\.d/.+)")
GRANT = re.compile(r"(?!Defaults|[A-Za-z]+_Alias\b|[@#]include)[^\s#][^=]*=.*")
NO_PASSWORD = re.compile(r"\bNOPASSWD\b|!\s*authenticate\b")
INCLUDE = re.compile(r"[@#]include(?:dir)?\s+(\S+)")
EQUAL_ROOT = ("disk", "docker", "lxd", "incus-admin", "shadow", "kmem", "libvirt", "root")
EVERYWHERE = ("root", "%sudo", "%admin", "%wheel")
"""Whom the file of the distribution itself grants sudo."""
LOCKED = re.compile(r"x|[!*].*")


def doubts(origin: Origin) -> Iterator[Doubt]:
    """Yield the accounts that are root under another name, need no password, and the grants that nobody explains."""
    yield from accounts(origin)
    yield from groups(origin)
    yield from grants(origin)
    for entry in origin.unexplained(RIGHTS):
        yield Doubt("V02", "rule that grants rights of root", entry.path)


def accounts(origin: Origin) -> Iterator[Doubt]:
    """Yield second roots, and accounts that need no password or have one where everybody can read it."""
    for line in origin.system.text("/etc/passwd").splitlines():
        name, password, number, *_ = (*line.split(":"), "", "", "")
        if number.lstrip("0") == "" and number and name != "root":
            yield Doubt("V02", "second root", "/etc/passwd", f"the account {name} has the user id 0")
        if name[:1] in ("+", "-"):
            yield Doubt("V02", "accounts from the network", "/etc/passwd")
        elif password == "" and number:
            yield Doubt("H14", "account without a password", "/etc/passwd", f"the account {name}")
        elif number and not LOCKED.fullmatch(password):
            yield Doubt("H14", "password in the open", "/etc/passwd", f"the account {name}")
    for line in origin.system.text("/etc/shadow").splitlines():
        name, separator, rest = line.partition(":")
        if separator and rest.startswith(":"):
            yield Doubt("H14", "account without a password", "/etc/shadow", f"the account {name}")


def groups(origin: Origin) -> Iterator[Doubt]:
    """Yield who is in a group whose members can become root by themselves."""
    for line in origin.system.text("/etc/group").splitlines():
        name, _, _, members = (*line.split(":"), "", "", "")[:4]
        if name in EQUAL_ROOT and members.strip(", ") not in ("", "root"):
            yield Doubt("V02", "member of a group that equals root", "/etc/group", f"{members} in {name}")


def grants(origin: Origin) -> Iterator[Doubt]:
    """Yield every rule of sudo that is no package's and not the spec's."""
    for entry in origin.unexplained(SUDOERS):
        lines = "\n".join(origin.lines(entry)).replace("\\\n", "").splitlines()
        for line in map(str.strip, lines):
            other = INCLUDE.fullmatch(line)
            if NO_PASSWORD.search(line):
                yield Doubt("V02", "sudo without a password", entry.path, line.split()[0])
            elif other and other[1].rstrip("/") not in ("/etc/sudoers.d", "sudoers.d"):
                yield Doubt("V02", "rules of sudo in another place", entry.path, other[1])
            elif GRANT.fullmatch(line) and not (entry.path == "/etc/sudoers" and line.split()[0] in EVERYWHERE):
                yield Doubt("V02", "grant of sudo", entry.path, line.split()[0])
