"""What makes a machine this machine: the image has none of it, and each instance makes its own."""

import re
from collections.abc import Callable

import pytest

from checks.fixtures import Ask, File

SECRETS = ("/var/lib/systemd/random-seed", "/var/lib/urandom/random-seed", "/var/lib/systemd/credential.secret")
LEASES = ("/var/lib/dhcp", "/var/lib/dhclient", "/var/lib/dhcpcd", "/var/lib/NetworkManager")
RULES = ("/etc/udev/rules.d/70-persistent-net.rules", "/etc/udev/rules.d/75-persistent-net-generator.rules")
PRIVATE_NAME = re.compile(r"\bip-\d+-\d+-\d+-\d+\b|\bi-[0-9a-f]{8,17}\b")


@pytest.mark.controls("S12", layers="L")
def test_no_machine_id_ships(ask: Ask) -> None:
    """The machine id is empty, so that each instance makes its own at its first boot."""
    assert ask("cat /etc/machine-id 2>/dev/null || true").strip() in ("", "uninitialized")


@pytest.mark.controls("S12", layers="LB")
def test_dbus_uses_the_machine_id(files: tuple[File, ...], layer: str, ask: Ask) -> None:
    """D-Bus has no id of its own, or the same one."""
    own = [file for file in files if str(file) == "/var/lib/dbus/machine-id" and file.kind == "f" and file.size]
    if layer == "B" and own:
        assert ask("cmp -s /etc/machine-id /var/lib/dbus/machine-id && echo same || echo different") == "same"
    else:
        assert [str(file) for file in own] == []


@pytest.mark.controls("S12", layers="L")
def test_no_random_seed_ships(files: tuple[File, ...]) -> None:
    """No random seed and no key for credentials: two instances must not share them."""
    assert [str(file) for file in files if str(file) in SECRETS and file.size] == []


@pytest.mark.controls("S12", layers="L")
def test_no_name_in_a_storage_network_ships(ask: Ask) -> None:
    """No iSCSI and no NVMe name: two instances must not be one initiator."""
    names = "/etc/iscsi/initiatorname.iscsi /etc/nvme/hostid /etc/nvme/hostnqn"
    assert ask(f"grep -Es '^(InitiatorName=|nqn|[0-9a-f]{{8}}-)' {names}; true").splitlines() == []


@pytest.mark.controls("S12", layers="B")
def test_the_machine_id_is_new(ask: Ask, fact: Callable[[str], str]) -> None:
    """This instance has a machine id, and it is not the build's."""
    assert ask("cat /etc/machine-id") != fact("machine_id")


@pytest.mark.controls("S12", layers="B")
def test_the_machine_id_is_valid(ask: Ask) -> None:
    """The machine id is 32 hex digits, and not a constant."""
    machine_id = ask("cat /etc/machine-id")
    assert re.fullmatch(r"[0-9a-f]{32}", machine_id)
    assert len(set(machine_id)) > 4


@pytest.mark.controls("S13", layers="L")
def test_no_lease_ships(files: tuple[File, ...]) -> None:
    """No DHCP lease and no connection of the build's network."""
    leases = [file for file in files if file.under(*LEASES) and file.kind == "f" and file.size]
    assert [str(file) for file in leases] == []


@pytest.mark.controls("S13", layers="LB")
def test_no_interface_is_pinned(files: tuple[File, ...]) -> None:
    """No rule ties the name of an interface to the build's hardware address."""
    assert [str(file) for file in files if str(file) in RULES and file.size] == []


@pytest.mark.controls("S13", layers="L")
def test_no_host_name_ships(ask: Ask) -> None:
    """The host name of the build's instance is not in the image."""
    named = ask("cat /etc/hostname /etc/hosts /etc/mailname 2>/dev/null || true")
    assert PRIVATE_NAME.findall(named) == []


@pytest.mark.controls("S13", layers="B")
def test_the_host_name_is_not_the_builds(naming_the_build: list[str]) -> None:
    """Nothing in /etc names the instance that the image was built on."""
    assert [path for path in naming_the_build if path.startswith("/etc/")] == []
