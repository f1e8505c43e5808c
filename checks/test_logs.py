"""Logs: the image brings none, and a fresh instance has only its own."""

from collections.abc import Callable

import pytest

from checks.fixtures import Ask, File

PLACES = ("/var/log", "/var/account")
SINGLE = ("/var/lib/logrotate/status", "/var/lib/logrotate.status", "/var/lib/systemd/linger")
SUDO_LOG = "/var/log/sudo.log"
FIRST_USE = f'date -d "$(head -n 1 {SUDO_LOG} | cut -c 1-15)" +%s'
CLOCK_ERROR = 5
"""Seconds by which the clock may have been wrong at boot."""


@pytest.mark.controls("S14", layers="L")
def test_no_log_ships(files: tuple[File, ...]) -> None:
    """No log has content: text, journal, logins, audit, statistics, accounting.

    sudo writes down the session that asks this, so its log is not looked at here but on the fresh boot.
    """
    logs = [file for file in files if file.under(*PLACES) and file.kind == "f" and str(file) != SUDO_LOG]
    assert [str(file) for file in logs if file.size] == []


@pytest.mark.controls("S14", layers="L")
def test_no_journal_ships(files: tuple[File, ...]) -> None:
    """No journal, not even an empty one: its folder's name is the machine id."""
    assert [str(file) for file in files if file.under("/var/log/journal")] == []


@pytest.mark.controls("S14", layers="L")
def test_no_log_state_ships(files: tuple[File, ...]) -> None:
    """The state of log rotation is gone: it tells when which log was written."""
    assert [str(file) for file in files if str(file) in SINGLE and file.size and file.kind == "f"] == []


@pytest.mark.controls("S14", layers="B")
def test_logs_are_of_this_boot(files: tuple[File, ...], booted: float, first_boot: None) -> None:
    """No log is older than this instance."""
    logs = [file for file in files if file.under(*PLACES) and file.kind == "f" and file.size]
    assert [str(file) for file in logs if file.changed < booted - CLOCK_ERROR] == []


@pytest.mark.controls("S14", "H12", layers="B")
def test_the_log_of_sudo_is_of_this_boot(files: tuple[File, ...], ask: Ask, booted: float, first_boot: None) -> None:
    """The first use of sudo that was written down is of this boot."""
    if not any(str(file) == SUDO_LOG and file.size for file in files):
        pytest.skip("sudo has no log of its own")
    assert float(ask(FIRST_USE)) >= booted - CLOCK_ERROR


@pytest.mark.controls("S14", layers="B")
def test_the_journal_is_of_this_boot(ask: Ask, systemd: None, fact: Callable[[str], str]) -> None:
    """The journal does not know the boot of the build."""
    boots = ask("journalctl --list-boots --no-pager -q | awk '{ print $2 }'")
    assert fact("boot_id").replace("-", "") not in boots.split()


@pytest.mark.controls("S14", layers="B")
def test_logs_do_not_name_the_build(naming_the_build: list[str]) -> None:
    """No log names the instance that the image was built on."""
    assert [path for path in naming_the_build if not path.startswith("/etc/")] == []
