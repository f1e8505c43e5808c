"""Packages: the programs that guard the door are byte for byte the distribution's."""

import pytest

from checks.fixtures import Ask, File

GUARDS = (
    "openssh-server openssh-client sudo login passwd libpam-modules libpam-modules-bin libpam-runtime libpam0g libc6"
    " bash dash coreutils util-linux apt dpkg gpgv debian-archive-keyring ubuntu-keyring ca-certificates libnss-systemd"
)
GUARDS_OF_RPM = "openssh-server sudo shadow-utils pam glibc bash coreutils util-linux dnf rpm ca-certificates"


@pytest.mark.controls("V05", layers="LB")
def test_guards_are_unchanged(ask: Ask, family: str, packages: dict[str, tuple[str, str]]) -> None:
    """The files of the packages that let people in are as the packages brought them; settings aside."""
    if family == "debian":
        known = sorted(name for name in packages if name.partition(":")[0] in GUARDS.split())
        assert known, "none of them is installed"
        changed = ask(f"dpkg --verify {' '.join(known)} 2>/dev/null; true")
    else:
        changed = ask(f"for name in {GUARDS_OF_RPM}; do rpm -q $name >/dev/null && rpm -V --nomtime $name; done; true")
    lines = [line for line in changed.splitlines() if " c /" not in line and not line.startswith("missing")]
    assert lines == []


@pytest.mark.controls("V08", layers="LB")
def test_no_program_outside_of_packages(files: tuple[File, ...]) -> None:
    """Where administrators put programs of their own, there are none that the spec does not explain."""
    places = ("/usr/local/bin", "/usr/local/sbin", "/usr/local/lib", "/usr/local/libexec")
    found = [one for one in files if one.under(*places) and one.kind == "f" and one.mode & 0o111]
    assert [str(one) for one in found] == []


@pytest.mark.controls("V08", "V04", layers="LB")
def test_no_program_in_a_data_folder(files: tuple[File, ...]) -> None:
    """No program hides where only data belongs."""
    places = ("/tmp", "/var/tmp", "/var/log", "/var/cache", "/var/spool", "/var/mail", "/dev/shm", "/lost+found")
    assert [str(one) for one in files if one.under(*places) and one.kind == "f" and one.mode & 0o111] == []
