"""Installed services: each runs without rights, as a user and in a group of its own."""

import pytest

from checks.fixtures import Account, Ask
from pipeline.spec import Spec

QUESTION = (
    "systemctl show -p Id -p LoadState -p User -p Group -p DynamicUser -p NoNewPrivileges -p MainPID -p ActiveState"
)
RUNNING = r"""
for pid in %s; do
  [ "$pid" = 0 ] || awk -v pid=$pid '/^(Uid|Gid|CapEff):/ { print pid, $1, (NF > 2 ? $3 : $2) }' /proc/$pid/status
done
"""
"""Of each process: its effective user, group and capabilities."""
NET_BIND_SERVICE = 1 << 10


@pytest.fixture
def units(spec: Spec, ask: Ask, systemd: None) -> dict[str, dict[str, str]]:
    """What systemd says of each service that the spec names, after all drop-ins."""
    if not spec.harden.services:
        pytest.skip("the spec names no services (harden.services)")
    names = " ".join(sorted(one.unit for one in spec.harden.services))
    found = {}
    for paragraph in ask(f"{QUESTION} {names}").split("\n\n"):
        properties = dict(line.split("=", 1) for line in paragraph.splitlines())
        found[properties["Id"]] = properties
    return found


@pytest.mark.controls("H23", layers="LB")
def test_services_have_users_of_their_own(
    spec: Spec, units: dict[str, dict[str, str]], accounts: dict[str, Account]
) -> None:
    """systemd starts each service as its own user, in its own group, and nothing makes it root again."""
    for service in spec.harden.services:
        unit = units[service.unit]
        assert unit["LoadState"] == "loaded"
        assert (unit["User"], unit["Group"], unit["NoNewPrivileges"]) == (service.account, service.account, "yes")
        account = accounts[service.account]
        assert account.uid > 0 and not account.may_log_in
        assert [one.name for one in accounts.values() if one.uid == account.uid] == [service.account]


@pytest.mark.controls("H23", layers="B")
def test_running_services_are_not_root(
    spec: Spec, units: dict[str, dict[str, str]], accounts: dict[str, Account], ask: Ask
) -> None:
    """On a fresh boot each service runs: as its user, in its group, and with no capability but that for low ports."""
    pids = {service.unit: units[service.unit]["MainPID"] for service in spec.harden.services}
    lines = [line.split() for line in ask(RUNNING % " ".join(pids.values())).splitlines()]
    for service in spec.harden.services:
        assert units[service.unit]["ActiveState"] == "active"
        account = accounts[service.account]
        found = {name: value for pid, name, value in lines if pid == pids[service.unit]}
        assert (int(found["Uid:"]), int(found["Gid:"])) == (account.uid, account.gid)
        assert int(found["CapEff:"], 16) & ~(NET_BIND_SERVICE if service.low_ports else 0) == 0
