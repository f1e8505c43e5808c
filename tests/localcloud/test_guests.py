"""Guests: what can be told without one, and one that runs from launch to the boot of its own snapshot."""

import re
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.localcloud import guests
from pipeline.localcloud.authority import Authority
from pipeline.localcloud.base_image import default_cache, make_base_image
from pipeline.localcloud.disks import DiskStore
from pipeline.localcloud.emulator import SLOW_BEFORE, choose_emulator
from pipeline.localcloud.guests import Guest
from pipeline.localcloud.metadata import MetadataServer
from pipeline.localcloud.traffic import Flow, find_flows
from pipeline.localcloud.wire import Steering, Wire
from tests.localcloud.machine import MAC, Machine, debian_disks, settings_for, view, wait_until

TOKEN = (
    "curl -s -m 10 -o /dev/null -w '%{http_code}' -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' "
    "http://169.254.169.254/latest/api/token || true"
)
KNOCK = "timeout 2 bash -c 'exec 3<>/dev/tcp/198.51.100.7/8443' || true"
PROCESSES = 50

USERNET = """Hub -1 (net0):
  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ
  TCP[ESTABLISHED]   22   172.31.0.10    22      172.31.0.1 40022     0     0
  TCP[SYN_SENT]      23   172.31.0.10    80      172.31.0.1 40080     0     0
  TCP[HOST_FORWARD]  21     127.0.0.1 36111     172.31.0.10    22     0     0
"""


def test_a_forward_and_the_state_of_a_connection_are_found_in_qemus_listing() -> None:
    assert guests.find_forward(USERNET, 22) == 36111
    assert guests.find_forward(USERNET, 80) is None
    assert guests.find_state(USERNET, 22, 40022) == "ESTABLISHED"
    assert guests.find_state(USERNET, 80, 40080) == "SYN_SENT"
    assert guests.find_state(USERNET, 22, 40080) is None


def test_the_uuid_of_a_machine_begins_with_ec2_and_stays() -> None:
    first = guests.instance_uuid("i-1")
    assert first == guests.instance_uuid("i-1") != guests.instance_uuid("i-2")
    assert first.startswith("ec2") and [len(part) for part in first.split("-")] == [8, 4, 4, 4, 12]


def test_a_disk_that_a_snapshot_froze_is_refused(tmp_path: Path) -> None:
    frozen = tmp_path / "disk.qcow2"
    frozen.touch(mode=0o400)
    metadata = MetadataServer(tmp_path, Authority(tmp_path))
    guest = Guest(settings_for(frozen), tmp_path, view, lambda: None, metadata, Wire().plug_in("i-1", MAC, Steering()))
    with pytest.raises(guests.GuestFailed, match="not vol-1's file any more"):
        guest.start()
    assert not guest.running


def flows_of(machine: Machine) -> list[Flow]:
    """Return what a guest has opened since it was started."""
    return find_flows(machine.guest.capture, machine.guest.settings.mac)


def translated(machine: Machine) -> int:
    """Return how many blocks of the guest's code the emulator has translated."""
    return int(re.findall(r"TB count +(\d+)", machine.guest._running_monitor().execute_human("info jit"))[0])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DiskStore]:
    image = make_base_image("bookworm", default_cache(), print)
    disks = DiskStore(tmp_path_factory.mktemp("disks"))
    disks.import_snapshot("snap-base", image.path, image.size_gib)
    yield disks
    disks.collect()


@pytest.mark.end_to_end
def test_a_guest_from_launch_to_the_boot_of_its_own_snapshot(store: DiskStore, tmp_path: Path) -> None:
    store.create_volume("vol-1", 6, "snap-base")
    machine = Machine(tmp_path, store, "vol-1")
    try:
        machine.wait_for_port()
        assert machine.ssh("sudo id -u; systemd-detect-virt").split() == ["0", "amazon"]
        print(f"ssh login after {time.monotonic() - machine.started:.1f} s")
        machine.ssh("cloud-init status --wait")
        print(f"cloud-init done after {time.monotonic() - machine.started:.1f} s")
        assert b"-----BEGIN SSH HOST KEY KEYS-----" in machine.guest.console()
        assert int(machine.ssh("df --output=size -BG / | tail -n 1").strip(" G\n")) >= 5
        assert machine.ssh("systemctl --failed --no-legend") == ""
        assert "172.31.0.10" in machine.ssh("ip -br address")
        machine.ssh("sudo apt-get -q update >/dev/null && apt-cache show nftables >/dev/null")
        if choose_emulator().version >= (SLOW_BEFORE,):
            before = translated(machine)
            machine.ssh(f"for number in $(seq {PROCESSES}); do /bin/true; done")
            assert translated(machine) - before < PROCESSES * 500, "a library is translated once, not in each process"
        assert machine.ssh(TOKEN) == "200"
        assert machine.ssh(f"sudo sysctl -qw net.ipv4.ip_default_ttl=63; {TOKEN}") == "000", "as from a container"
        machine.view = replace(machine.view, hop_limit=2)
        assert machine.ssh(f"{TOKEN}; sudo sysctl -qw net.ipv4.ip_default_ttl=64") == "200"
        machine.ssh(KNOCK)
        assert Flow("tcp", "198.51.100.7", 8443) in flows_of(machine)
        assert {flow.port for flow in flows_of(machine)} >= {53, 67, 80}
        assert 22 not in {flow.port for flow in flows_of(machine)}, "that came from outside"
        machine.ssh("echo live | sudo tee /root/mark && sudo sync")
        store.snapshot_volume("vol-1", "snap-live", machine.guest)
        machine.ssh("echo cold | sudo tee /root/mark")
        assert (machine.guest.screenshot() or b"").startswith(b"\x89PNG")
        assert machine.greeting().startswith(b"SSH-2.0-")
        machine.may_connect = False
        with pytest.raises(ConnectionError):
            machine.greeting()
        machine.may_connect = True
        machine.guest.shut_down(900)
        assert not machine.guest.running and len(machine.exits) == 1
        assert b"Power down" in machine.guest.console()
    finally:
        machine.close()
    store.snapshot_volume("vol-1", "snap-cold", None)
    changed = store.changed_blocks("snap-base", "snap-cold")
    assert changed and set(changed) <= {*store.list_blocks("snap-base"), *store.list_blocks("snap-cold")}
    store.create_volume("vol-2", 6, "snap-cold")
    second = Machine(tmp_path, store, "vol-2", egress=False)
    try:
        second.wait_for_port()
        assert second.ssh("sudo cat /root/mark").strip() == "cold"
        assert {flow.port for flow in flows_of(second)} >= {67, 80}, "what does not get out is seen too"
        assert second.ssh("curl -s -m 5 http://deb.debian.org/ >/dev/null || echo shut").strip() == "shut"
    finally:
        second.close()


@pytest.mark.end_to_end
def test_debian_13_boots_by_uefi_and_reboots(tmp_path: Path) -> None:
    machine = Machine(tmp_path, debian_disks(tmp_path, "trixie")[0], "vol-1", boot_mode="uefi")
    try:
        machine.wait_for_port()
        print(f"cloud-init: {machine.ssh('cloud-init status --wait; cloud-init --version 2>&1').split()}")
        print(f"cloud-init done after {time.monotonic() - machine.started:.1f} s")
        machine.ssh("test -d /sys/firmware/efi && sudo update-grub 2>&1 && test $(systemctl --failed | grep -c ●) = 0")
        before = machine.ssh("cat /proc/sys/kernel/random/boot_id")
        machine.guest.reboot()
        wait_until(
            lambda: len(re.findall(rb"Cloud-init v\. .* finished at", machine.guest.console())) == 2, machine.guest
        )
        machine.wait_for_port()
        assert machine.ssh("cat /proc/sys/kernel/random/boot_id") != before
        assert not machine.exits
    finally:
        machine.close()
