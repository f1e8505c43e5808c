"""What a build changed: every file that differs from the base image is the spec's, a package's, or reported (V10)."""

import re
from collections.abc import Iterator, Sequence

from pipeline.residue.filesystems import Entry
from pipeline.residue.origin import Doubt, Origin
from pipeline.residue.packages import is_made_by_setupcon
from pipeline.residue.system import System

EDITED = re.compile(
    r"/etc/(?:passwd|shadow|group|gshadow|subuid|subgid|login\.defs|fstab|hostname|hosts|resolv\.conf|localtime|timezone"
    r"|adjtime|machine-id|ssh/sshd_config|ssh/moduli|selinux/config|default/grub|dnf/automatic\.conf|iscsi/initiatorname\.iscsi|nftables\.conf"
    r"|sysconfig/nftables\.conf|sysconfig/clock|\.pwd\.lock|\.updated)"
)
"""What steps of the hardening and the scrub change in part. Accounts and ssh have proofs of their own."""
MADE_BY_PACKAGES = re.compile(
    r"/var/(?:lib|cache|log|spool|mail|tmp|local|opt)/.*|/var/\.updated|/run/.*"
    r"|/etc/(?:ld\.so\.cache|mailcap|shells|ca-certificates\.conf|ssl/certs/.+|pki/ca-trust/extracted/.+|pam\.d/common-[a-z-]+"
    r"|alternatives/.+|rc[0-6S]\.d/.+|selinux/[^/]+/(?:policy|contexts|active)/.+|udev/hwdb\.bin|apparmor\.d/(?:local|cache)/.+"
    r"|python3/debian_config|apt/sources\.list~?|crypto-policies/(?:back-ends|state)/.+|environment|audit/audit\.rules(?:\.prev)?)"
    r"|/usr/(?:.+/)?__pycache__/[^/]+\.pyc|/(?:usr/)?lib/modules/[^/]+/modules\.[^/]+"
    r"|/usr/(?:share/info/dir(?:\.old)?|lib/udev/hwdb\.bin|lib/locale/.+|share/(?:mime|icons|applications|glib-2\.0/schemas|fonts)/.*)"
    r"|/boot/(?:initrd|initramfs).*|/initrd\.img(?:\.old)?|/boot/grub2?/.+|/boot/loader/.+"
    r"|/snap/README|/etc/console-setup/cached_[^/]+\.gz|/boot/efi/EFI/[^/]+/(?:grub\.cfg|[^/]+\.CSV)"
)
"""What scripts of packages write: state, which runs nothing, and what other proofs look into."""
AUTHORIZED_KEYS = re.compile(r"(?:/root|/home/[^/]+)/\.ssh/authorized_keys")
"""Whose keys they are is told by the search for keys (S02)."""
USER_IN_ADDRESS = re.compile(r"(?<=://)[^/@\s\"]+:[^/@\s\"]+@")
SETS_CREDENTIAL = re.compile(r"(?:EC2_|AWS_|[A-Z_]*(?:PASSWORD|PASSWD|SECRET|KEY|TOKEN))[A-Z_]*[\s=]")
"""What the scrub takes out of settings that must stay (S05, S08)."""
ENABLED = re.compile(r"/etc/systemd/(?:system|user)/.+")


def doubts(origin: Origin, base: System, kept: Sequence[str] = ()) -> Iterator[Doubt]:
    """Yield what differs from the base image and nobody explains. `kept` is what the spec says stays: its own files."""
    for entry in origin.system.entries:
        if not (entry.is_file or entry.is_link) or not entry.path.startswith("/"):
            continue
        if any(entry.path == path or entry.path.startswith(f"{path.rstrip('/')}/") for path in kept):
            continue
        if not (
            is_expected(origin, entry) or is_unchanged(origin, entry, base) or lost_credentials(origin, entry, base)
        ):
            yield Doubt("V10", "change that nobody explains", entry.path, "it is not in the base image, or not so")


def is_expected(origin: Origin, entry: Entry) -> bool:
    """Say whether a file is one that a build changes, by its origin or by its path."""
    if any(paths.fullmatch(entry.path) for paths in (EDITED, MADE_BY_PACKAGES, AUTHORIZED_KEYS)):
        return True
    if entry.is_file:
        return origin.explains_or_empty(entry) or is_made_by_setupcon(origin, entry)
    return is_explained_link(origin, entry)


def is_explained_link(origin: Origin, entry: Entry) -> bool:
    """Say whether a link is a package's, leads to what somebody explains, or switches something off."""
    if entry.target == "/dev/null" or origin.packages.lists(entry):
        return True
    found = origin.system.find(entry.path)
    if found is None:
        return ENABLED.fullmatch(entry.path) is not None
    return found.is_file and origin.explains(found)


def is_unchanged(origin: Origin, entry: Entry, base: System) -> bool:
    """Say whether the base image has the same at the same path."""
    before = base.entry(entry.path)
    if before is None or (before.mode, before.size, before.target) != (entry.mode, entry.size, entry.target):
        return False
    return entry.is_link or base.fingerprint(before) == origin.system.fingerprint(entry)


def lost_credentials(origin: Origin, entry: Entry, base: System) -> bool:
    """Say whether a setting is as the base image has it, without the credentials that stood there."""
    before = base.entry(entry.path)
    if before is None or not (entry.is_file and before.is_file) or before.mode != entry.mode:
        return False
    left = iter(origin.lines(entry))
    expected = next(left, None)
    for line in base.text(entry.path).splitlines():
        if expected == USER_IN_ADDRESS.sub("", line):
            expected = next(left, None)
        elif not SETS_CREDENTIAL.search(line):
            return False
    return expected is None
