"""cloud-init: nothing of the build's instance stays, and a fresh instance comes up by itself."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from checks.fixtures import Ask, File
from pipeline.spec import Spec

GENERATED = (
    "/etc/netplan/50-cloud-init.yaml",
    "/etc/network/interfaces.d/50-cloud-init",
    "/etc/network/interfaces.d/50-cloud-init.cfg",
    "/etc/systemd/network/10-cloud-init-eth0.network",
    "/etc/sysconfig/network-scripts/ifcfg-eth0",
    "/etc/NetworkManager/system-connections/cloud-init-eth0.nmconnection",
    "/etc/ssh/sshd_config.d/50-cloud-init.conf",
    "/etc/sudoers.d/90-cloud-init-users",
)
COPIES = r"""
while [ "$(systemctl is-active cloud-final.service 2>/dev/null)" = activating ]; do sleep 0.2; done
find /var/lib/cloud/instances /run/cloud-init -type f \( -name 'user-data.txt*' -o -name 'vendor-data*.txt*' \
  -o -name cloud-config.txt -o -name obj.pkl -o -name '*-sensitive.json' -o -name 'combined-*.json' \) \
  -exec stat -c '%a %U %n' {} +
"""
"""Their modes are set as the last stage of cloud-init ends."""


@pytest.fixture(autouse=True)
def cloud_init(programs: frozenset[str]) -> None:
    """Only where cloud-init is installed."""
    if "cloud-init" not in programs:
        pytest.skip("cloud-init is not installed")


@pytest.mark.controls("S11", "H22", layers="L")
def test_no_state_ships(files: tuple[File, ...]) -> None:
    """No instance, no user-data, no semaphore: a fresh instance starts from nothing."""
    assert [str(file) for file in files if file.under("/var/lib/cloud") and file.kind != "d"] == []


@pytest.mark.controls("S11", "S14", layers="L")
def test_no_log_ships(files: tuple[File, ...]) -> None:
    """cloud-init's logs are gone."""
    assert [str(file) for file in files if str(file).startswith("/var/log/cloud-init")] == []


@pytest.mark.controls("S10", "S11", "S13", layers="L")
def test_no_generated_configuration_ships(files: tuple[File, ...]) -> None:
    """What cloud-init wrote for the build's instance is gone."""
    assert [str(file) for file in files if str(file) in GENERATED] == []


@pytest.mark.controls("S11", layers="B")
def test_one_instance(ask: Ask) -> None:
    """cloud-init knows of this instance, and of no other."""
    assert len(ask("ls /var/lib/cloud/instances").split()) == 1


@pytest.mark.controls("S11", "H22", layers="B")
def test_old_user_data_is_gone(ask: Ask, fact: Callable[[str], str]) -> None:
    """The user-data of the build is nowhere in cloud-init's state."""
    digests = ask("find /var/lib/cloud -name 'user-data*' -type f -exec sha256sum {} + | cut -d' ' -f1 | sort -u")
    assert fact("user_data_sha256") not in digests.split()


@pytest.mark.controls("H22", layers="B")
def test_user_data_is_private(ask: Ask, spec: Spec) -> None:
    """Only root can read the copies of user-data and of sensitive metadata, and nobody writes them."""
    copies = [line.split(" ", 2) for line in ask(COPIES).splitlines()]
    assert copies, "cloud-init kept no copy at all: did it run?"
    wanted = "400" if spec.harden.first_boot else "600"
    assert [path for mode, owner, path in copies if owner != "root" or mode not in ("400", wanted)] == []


@pytest.fixture
def result(ask: Ask) -> dict[str, Any]:
    """How cloud-init ended. It writes this when it has finished."""
    text = ask("cat /run/cloud-init/result.json 2>/dev/null || true")
    assert text, "cloud-init has not finished"
    ended: dict[str, Any] = json.loads(text)["v1"]
    return ended


@pytest.mark.controls("H15", layers="B")
def test_it_finished(result: dict[str, Any]) -> None:
    """cloud-init is done, and reports no error."""
    assert result["errors"] == []


@pytest.mark.controls("H15", layers="B")
def test_the_metadata_service_was_its_source(result: dict[str, Any]) -> None:
    """The launch key came from the metadata service, not from a file in the image."""
    assert result["datasource"].startswith("DataSourceEc2")


@pytest.mark.controls("H15", layers="LB")
def test_no_key_file_in_a_shared_folder(files: tuple[File, ...]) -> None:
    """No file in /tmp or /var/tmp has the predictable name that key scripts of old used."""
    names = ("my-key", "my-key.pub", "openssh_id.pub", "openssh_id", "ssh-key", "public-key")
    assert [str(file) for file in files if file.under("/tmp", "/var/tmp") and file.name in names] == []
