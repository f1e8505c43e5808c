"""Privilege: every way to become root is one that the distribution ships."""

import re
import shlex
from collections.abc import Callable

import pytest

from checks.fixtures import GROUP, Ask, File, Kind, is_privileged

KNOWN = frozenset(
    (
        *("at", "chage", "chfn", "chsh", "crontab", "dbus-daemon-launch-helper", "dotlockfile", "expiry", "fusermount"),
        *("fusermount3", "gpasswd", "grub2-set-bootflag", "mount", "newgidmap", "newgrp", "newuidmap", "ntfs-3g"),
        *(
            "pam_extrausers_chkpwd",
            "pam_timestamp_check",
            "passwd",
            "ping",
            "pkexec",
            "polkit-agent-helper-1",
            "screen",
        ),
        *("snap-confine", "ssh-agent", "ssh-keysign", "su", "sudo", "umount", "unix_chkpwd", "userhelper", "utempter"),
        *("wall", "write", "write.ul"),
    )
)
"""The set-user-id and set-group-id programs of Debian, Ubuntu and Amazon Linux server images."""
KNOWN_CAPABILITIES = re.compile(
    r"/(ping|arping|clockdiff|mtr-packet|newuidmap|newgidmap|snap-confine|gst-ptp-helper) [a-z_,]+[=+][eip]+$"
)
SYSTEM_FOLDERS = ("/bin/", "/sbin/", "/usr/bin/", "/usr/sbin/", "/usr/lib", "/usr/libexec/")
DANGEROUS_GROUPS = ("disk", "docker", "lxd", "shadow", "kmem", "mem", "libvirt")


@pytest.mark.controls("V03", layers="LB")
def test_set_user_id_programs_are_known(files: tuple[File, ...]) -> None:
    """Set-user-id and set-group-id programs are the distribution's, in its folders."""
    privileged = [file for file in files if is_privileged(file)]
    strange = [one for one in privileged if one.name not in KNOWN or not str(one).startswith(SYSTEM_FOLDERS)]
    assert [f"{one} {one.mode:o} {one.owner}" for one in strange] == []


@pytest.mark.controls("V03", "V08", layers="LB")
def test_set_user_id_programs_belong_to_packages(unpackaged: Callable[[Kind], list[str]]) -> None:
    """Each set-user-id program belongs to a package."""
    assert unpackaged(is_privileged) == []


@pytest.mark.controls("V03", layers="LB")
def test_file_capabilities_are_known(files: tuple[File, ...], programs: frozenset[str], ask: Ask) -> None:
    """File capabilities are the distribution's."""
    if "getcap" not in programs:
        pytest.skip("getcap is not installed")
    runnable = [one for one in files if one.kind == "f" and one.mode & 0o111]
    elsewhere = " ".join(
        shlex.quote(str(one)) for one in runnable if not one.under("/usr/bin", "/usr/sbin", "/usr/lib")
    )
    question = f"PATH=$PATH:/sbin:/usr/sbin; getcap -r /usr/bin /usr/sbin /usr/lib {elsewhere} 2>/dev/null; true"
    found = ask(question).splitlines()
    assert [line for line in found if not KNOWN_CAPABILITIES.search(line)] == []


@pytest.mark.controls("V02", layers="LB")
def test_nobody_is_in_a_group_that_equals_root(ask: Ask) -> None:
    """Nobody is in a group whose members can become root by themselves."""
    groups = [line for line in ask(GROUP).splitlines() if line.partition(":")[0] in DANGEROUS_GROUPS]
    assert [line for line in groups if not line.endswith(":")] == []


@pytest.mark.controls("V02", "H12", layers="LB")
def test_sudoers_are_private_and_valid(files: tuple[File, ...], ask: Ask) -> None:
    """Only root can change what sudo allows, and sudo can read all of it."""
    rules = [one for one in files if str(one) == "/etc/sudoers" or one.under("/etc/sudoers.d")]
    assert [str(one) for one in rules if one.owner != "root" or one.mode & 0o022] == []
    if rules:
        assert ask("visudo -c -q 2>&1; true") == ""


@pytest.mark.controls("V02", "H25", layers="LB")
def test_nobody_can_change_programs_and_settings(files: tuple[File, ...]) -> None:
    """What root runs or reads can be changed by root only."""
    places = ("/etc", "/usr", "/boot", "/opt", "/root", "/lib", "/bin", "/sbin")
    open_to_all = [one for one in files if one.under(*places) and one.kind in "fd" and one.mode & 0o002]
    assert [str(one) for one in open_to_all if not (one.kind == "d" and one.mode & 0o1000)] == []


@pytest.mark.controls("V02", "H25", layers="LB")
def test_shared_folders_are_sticky(files: tuple[File, ...]) -> None:
    """In a folder that all may write to, nobody can remove another's files."""
    assert [str(one) for one in files if one.kind == "d" and one.mode & 0o002 and not one.mode & 0o1000] == []


@pytest.mark.controls("H14", "H25", layers="LB")
def test_account_files_are_private(files: tuple[File, ...]) -> None:
    """Only root can read password hashes, and only root can change accounts."""
    modes = {"/etc/passwd": 0o022, "/etc/group": 0o022, "/etc/shadow": 0o137, "/etc/gshadow": 0o137}
    found = {str(one): one for one in files if str(one) in modes}
    assert [path for path, one in found.items() if one.owner != "root" or one.mode & modes[path]] == []
    assert {"/etc/passwd", "/etc/shadow"} <= found.keys()
