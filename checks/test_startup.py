"""What starts by itself: nothing that no package brought."""

import re
from collections.abc import Callable

import pytest

from checks.fixtures import Ask, File, Kind, is_job, is_pam_module

SPOOLS = ("/var/spool/cron", "/var/spool/at", "/var/spool/atjobs")
LOADED = ("/etc/ld.so.preload", "/etc/suid-debug", "/etc/ld.so.nohwcap.preload")
LATE = ("/etc/rc.local", "/etc/rc.d/rc.local", "/etc/rc.d/rc.local.sh")
LOOSE_PAM = r"""
grep -rhsE -e '^[^#]*pam_exec\.so' -e '^[^#]*auth[[:space:]]+sufficient[[:space:]]+pam_permit\.so' /etc/pam.d; true
"""
USER_UNIT = re.compile(
    r"^(/root/\.config/systemd|/home/[^/]+/\.config/systemd|/etc/systemd/user|/etc/xdg/autostart)/.*\.(service|timer)$",
    re.DOTALL,
)


@pytest.mark.controls("V04", "S17", layers="LB")
def test_no_user_has_jobs(files: tuple[File, ...]) -> None:
    """No user has a crontab or an at job."""
    jobs = [one for one in files if one.under(*SPOOLS) and one.kind == "f" and one.name not in (".SEQ", ".placeholder")]
    assert [str(one) for one in jobs if one.size] == []


@pytest.mark.controls("V04", layers="LB")
def test_system_jobs_belong_to_packages(unpackaged: Callable[[Kind], list[str]]) -> None:
    """Each system job of cron came with a package."""
    assert unpackaged(is_job) == []


@pytest.mark.controls("V05", layers="LB")
def test_nothing_is_loaded_into_every_program(files: tuple[File, ...]) -> None:
    """The loader puts no library into every program."""
    assert [str(one) for one in files if str(one) in LOADED and one.size] == []


@pytest.mark.controls("V04", layers="LB")
def test_no_late_script(files: tuple[File, ...]) -> None:
    """No rc.local."""
    assert [str(one) for one in files if str(one) in LATE and one.kind == "f" and one.mode & 0o111] == []


@pytest.mark.controls("V04", layers="LB")
def test_no_user_units(files: tuple[File, ...]) -> None:
    """No user brings units of their own."""
    assert [str(one) for one in files if one.kind == "f" and USER_UNIT.search(one.path)] == []


@pytest.mark.controls("V05", layers="LB")
def test_pam_asks_no_stranger(ask: Ask) -> None:
    """PAM lets nobody in without asking, and runs no script."""
    assert ask(LOOSE_PAM).splitlines() == []


@pytest.mark.controls("V05", layers="LB")
def test_pam_modules_belong_to_packages(files: tuple[File, ...], unpackaged: Callable[[Kind], list[str]]) -> None:
    """Each module of PAM came with a package."""
    assert any(is_pam_module(file) for file in files), "there is no module of PAM"
    assert unpackaged(is_pam_module) == []
