"""The difference to what the packages brought: every file of the system's own is theirs, or made by their scripts.

A running system has no base image to compare with; the proof of its blocks has, and compares every file by its content.
"""

import re

import pytest

from checks.fixtures import Ask, File, kept
from pipeline.spec import Spec

UNOWNED = r"""
{ if command -v dpkg-query >/dev/null; then cat /var/lib/dpkg/info/*.list /var/lib/dpkg/diversions; else rpm -qal; fi
  echo '##'
  find /usr -xdev \( -type f -o -type l ! -lname '/etc/alternatives/*' \); } | awk '
    $0 == "##" { listed = 1; next }
    !listed { sub(/^\/(bin|sbin|lib|lib32|lib64|libx32)\//, "/usr&"); known[$0]; next }
    !($0 in known)'
"""
"""Packages may know /usr/bin/x as /bin/x, from before the two folders became one."""
MADE_BY_PACKAGES = re.compile(
    r"/usr/(?:.+/__pycache__/[^/]+\.pyc|local/.+|lib/(?:modules/.+|sysimage/.+|udev/hwdb\.bin|locale/.+|fontconfig/cache/.+)"
    r"|(?:lib|lib64)/(?:.+/)?(?:gdk-pixbuf-2\.0/.+\.cache|gconv/gconv-modules\.cache)"
    r"|lib/python3/dist-packages/twisted/plugins/dropin\.cache|lib/systemd/system/screen-cleanup\.service"
    r"|share/(?:info/dir(?:\.old)?|(?:mime|icons|applications|glib-2\.0/schemas|fonts)/.+))"
)
"""What scripts of packages write; and modules of the kernel and /usr/local, which have checks of their own."""
CHANGED = r"""
if command -v dpkg-query >/dev/null; then
  dpkg-query -W -f='${Conffiles}\n' | awk 'NF == 2 && $2 ~ /^[0-9a-f]+$/ { print $2 "  " $1 }' |
    LC_ALL=C md5sum -c --quiet 2>/dev/null | sed 's/: FAILED$//'
else
  rpm -Va --configfiles --nomtime | awk '$1 ~ /^..5/ { print $NF }'
fi
true
"""
EDITED = frozenset(
    (
        *("/etc/login.defs", "/etc/ssh/moduli", "/etc/ssh/sshd_config", "/etc/default/grub", "/etc/nftables.conf"),
        *("/etc/sysconfig/nftables.conf", "/etc/dnf/automatic.conf", "/etc/selinux/config", "/etc/fstab", "/etc/hosts"),
        *("/etc/shells", "/etc/environment", "/etc/machine-id", "/etc/hostname"),
    )
)
"""What the hardening changes in part, and what each system has of its own."""


@pytest.mark.controls("V10", "V08", layers="LB")
def test_every_file_of_the_system_is_a_package_s(ask: Ask, spec: Spec, files: tuple[File, ...]) -> None:
    """In /usr there is nothing but what packages brought or made, and what the spec keeps."""
    unowned = {path for path in ask(UNOWNED).splitlines() if not MADE_BY_PACKAGES.fullmatch(path)}
    assert [str(file) for file in files if str(file) in unowned and not kept(spec, file)] == []


@pytest.mark.controls("V10", layers="LB")
def test_settings_of_packages_are_changed_by_nobody_else(ask: Ask, spec: Spec, files: tuple[File, ...]) -> None:
    """The configuration that packages brought is as they brought it, but for what the hardening changes."""
    changed = set(ask(CHANGED).splitlines()) - EDITED
    assert [str(file) for file in files if str(file) in changed and not kept(spec, file)] == []
