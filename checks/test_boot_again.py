"""What an instance made at its first boot stays: a later one, by a reboot or a stop and a start, makes nothing anew."""

from collections.abc import Callable

import pytest

from checks.fixtures import Ask

Fact = Callable[[str], str]

BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
HOST_KEYS = "cat /etc/ssh/ssh_host_*_key.pub | sha256sum | cut -c 1-64"
ROOT_PASSWORD = "getent shadow root | cut -d : -f 2 | sha256sum | cut -c 1-64"
AUTHORIZED_KEYS = """getent passwd | cut -d : -f 6 | sort -u | while read -r home; do
  cat "$home/.ssh/authorized_keys" 2>/dev/null; done | sha256sum | cut -c 1-64"""


@pytest.mark.controls("H29", layers="B")
def test_it_booted_again(fact: Fact, ask: Ask) -> None:
    """This is another boot than the one before."""
    assert fact("earlier_boot_id") != ask(BOOT_ID)


@pytest.mark.controls("H29", "S12", layers="B")
def test_the_machine_id_stays(fact: Fact, ask: Ask) -> None:
    """The machine id is the one of the first boot: an instance stays who it is."""
    assert fact("earlier_machine_id") == ask("cat /etc/machine-id")


@pytest.mark.controls("H29", "S01", layers="B")
def test_the_host_keys_stay(fact: Fact, ask: Ask) -> None:
    """The host keys are those of the first boot: whoever pinned them still gets in."""
    assert fact("earlier_host_keys") == ask(HOST_KEYS)


@pytest.mark.controls("H29", "H13", layers="B")
def test_the_root_password_stays(fact: Fact, ask: Ask) -> None:
    """The root password was made random at the first boot, and never again."""
    assert fact("earlier_root_password") == ask(ROOT_PASSWORD)


@pytest.mark.controls("H29", "H15", layers="B")
def test_authorized_keys_stay(fact: Fact, ask: Ask) -> None:
    """The same keys open the same accounts."""
    assert fact("earlier_authorized_keys") == ask(AUTHORIZED_KEYS)
