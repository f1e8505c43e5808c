"""How a fresh instance came up."""

import pytest

from checks.fixtures import Ask


@pytest.mark.controls("H29", layers="B")
def test_no_unit_failed(ask: Ask, systemd: None) -> None:
    """No unit failed."""
    failed = ask("systemctl list-units --failed --plain --no-legend --no-pager")
    assert [line.split()[0] for line in failed.splitlines()] == []


@pytest.mark.controls("H29", layers="B")
def test_the_system_is_up(ask: Ask, systemd: None) -> None:
    """The boot is complete, and the system is not degraded."""
    assert ask("systemctl is-system-running || true") == "running"


@pytest.mark.controls("H29", layers="B")
def test_file_systems_are_writable(ask: Ask) -> None:
    """The root file system is mounted for writing: it was not damaged."""
    mounted = [line.split() for line in ask("cat /proc/mounts").splitlines()]
    options = [fields[3] for fields in mounted if fields[1] == "/"]
    assert "rw" in options[-1].split(",")
