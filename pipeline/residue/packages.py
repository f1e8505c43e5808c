"""Programs, libraries, PAM and the loader, held against the package database (V05, V08; debsums, rpm -Va; seed [2])."""

import re
from collections.abc import Iterator

from pipeline.residue.filesystems import Entry
from pipeline.residue.origin import Doubt, Origin
from pipeline.residue.vouch import in_usr, source_of

PROGRAMS = re.compile(
    r"/(?:usr/(?:local/)?)?s?bin/.+|/usr/games/.+|/usr/local/games/.+|/usr/libexec/.+|/opt/(?:.+/)?s?bin/.+"
)
LIBRARIES = re.compile(r"/(?:usr/(?:local/)?)?lib(?:32|64|x32|exec)?/.+\.so(?:\.[0-9.]+)?")
LOADER = re.compile(r"/etc/ld\.so\.(?:preload|conf|conf\.d/.+)")
PAM_MODULES = re.compile(r"/(?:usr/)?lib(?:64)?/(?:[^/]+/)?security/.+")
PAM = re.compile(r"/etc/pam\.(?:d/.+|conf)")
PAM_STACKS = re.compile(
    r"/etc/pam\.d/(?:common-(?:account|auth|password|session|session-noninteractive)|[a-z]+-auth(?:-ac)?|postlogin(?:-ac)?)"
)
"""Files that the distribution's tool writes from templates: no package has their content."""
LETS_ANYBODY_IN = re.compile(
    r"(?m)^\s*auth\s+(?:sufficient|\[[^\]]*success=(?:done|ok|[0-9]+)[^\]]*\])\s+pam_(?:permit|rootok|succeed_if|listfile)\.so|^[^#\n]*pam_(?:exec|script|python)\.so|^[^#\n]*\s/(?!(?:usr/)?lib(?:64)?/)\S+\.so"
)
ELF, SCRIPT = b"\x7fELF", b"#!"
CONSOLE_SETUP = re.compile(r"/etc/console-setup/cached_setup_(?:font|keyboard|terminal)\.sh")
CONSOLE = r"(?: [<>] '/dev/tty[0-9]+')?"
MADE_BY_SETUPCON = re.compile(
    r"\s*(?:|#!/bin/sh|setfont (?:'-C' '/dev/tty[0-9]+' )?'/(?:usr/share/consolefonts|etc/console-setup)/[\w.-]+'"
    rf"|kbd_mode '-[a-z]'{CONSOLE}|printf '\\033%%[@G]'{CONSOLE}"
    r"|loadkeys '/etc/console-setup/cached_[\w.-]+' > '/dev/null'|mkdir -p /run/console-setup"
    r"|> /run/console-setup/font-loaded|rm /run/console-setup/keymap_loaded|exit 0|fi|done|\{ :"
    r"|if \[ -f /run/console-setup/keymap_loaded \]; then|if ls /dev/fb\* >/dev/null 2>/dev/null; then"
    r"|for i in /dev/vcs\[0-9\]\*; do|\} < /dev/tty\$\{(?P<tty>i#/dev/|1#)vcs\} > /dev/tty\$\{(?P=tty)vcs\})\s*"
)
"""The lines of the scripts that console-setup writes for the console's font and keyboard."""
MAINTAINER_SCRIPT = re.compile(r"(/var/lib/dpkg/info/[^/]+)\.(?:preinst|postinst|prerm|postrm|config)")


def doubts(origin: Origin) -> Iterator[Doubt]:
    """Yield what differs from its package, and what runs and is no package's."""
    yield from loader_and_pam(origin)
    yield from changed(origin)
    yield from strange_programs(origin)


def loader_and_pam(origin: Origin) -> Iterator[Doubt]:
    """Yield what every program loads, and what decides who may log in, where nobody explains it."""
    for entry in origin.unexplained(LOADER):
        kind = "library for all programs" if entry.path.endswith("preload") else "folder of libraries"
        yield Doubt("V05", kind, entry.path)
    for entry in origin.unexplained(PAM):
        text = "\n".join(origin.lines(entry))
        if not PAM_STACKS.fullmatch(entry.path) or LETS_ANYBODY_IN.search(text):
            yield Doubt("V05", "rule of PAM", entry.path)
    for entry in origin.unexplained(PAM_MODULES):
        yield Doubt("V05", "module of PAM", entry.path)


def changed(origin: Origin) -> Iterator[Doubt]:
    """Yield the files of packages that are no longer what their package brought; settings are meant to be changed."""
    packages = origin.packages
    for entry in origin.system.files:
        if not packages.names(entry) or in_usr(entry.path[1:]) in packages.configuration:
            continue
        if not packages.vouches_for(entry) and not origin.is_ours(entry):
            yield Doubt("V05", "file that differs from its package", entry.path)


def strange_programs(origin: Origin) -> Iterator[Doubt]:
    """Yield programs and libraries that no package brought: in the folders for them, and executable ones anywhere."""
    for entry in origin.system.files:
        if origin.packages.names(entry) or is_maintainer_script(origin, entry) or is_made_by_setupcon(origin, entry):
            continue
        placed = PROGRAMS.fullmatch(entry.path) or LIBRARIES.fullmatch(entry.path)
        if (placed or (entry.is_program and is_code(origin, entry))) and not origin.explains_or_empty(entry):
            yield Doubt("V08", "program that is no package's", entry.path)
        source = source_of(entry)
        if source and not belongs_to_source(origin, entry, source):
            yield Doubt("V08", "compiled code without its source", entry.path)


def is_maintainer_script(origin: Origin, entry: Entry) -> bool:
    """Say whether a script belongs to the database itself: it came with a package that is listed."""
    script = MAINTAINER_SCRIPT.fullmatch(entry.path)
    return script is not None and origin.system.find(f"{script[1]}.list") is not None


def is_made_by_setupcon(origin: Origin, entry: Entry) -> bool:
    """Say whether a script says nothing but what console-setup writes."""
    return bool(CONSOLE_SETUP.fullmatch(entry.path)) and all(map(MADE_BY_SETUPCON.fullmatch, origin.lines(entry)))


def is_code(origin: Origin, entry: Entry) -> bool:
    """Say whether the kernel would run a file."""
    return next(iter(origin.system.read(entry)), b"").startswith((ELF, SCRIPT))


def belongs_to_source(origin: Origin, entry: Entry, source: str) -> bool:
    """Say whether compiled Python lies beside a source that is a package's; outside of /usr it need not."""
    if not entry.path.startswith("/usr/"):
        return True
    return origin.packages.is_compiled_of(origin.system.find(source), entry)
