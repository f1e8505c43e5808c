"""Guests: what can be told without one, and one that runs from launch to the boot of its own snapshot."""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.localcloud import guests
from pipeline.localcloud.authority import Authority
from pipeline.localcloud.base_image import default_cache, make_base_image
from pipeline.localcloud.disks import DiskStore
from pipeline.localcloud.guests import Guest, GuestSettings
from pipeline.localcloud.metadata import InstanceView, MetadataServer
from pipeline.localcloud.network import AddressPlan, PortProxy, public_port
from pipeline.localcloud.traffic import Flow, find_flows
from pipeline.localcloud.wire import Steering, Wire

KNOCK = "timeout 2 bash -c 'exec 3<>/dev/tcp/198.51.100.7/8443' || true"
MAC = "02:00:00:00:00:10"
NO_LOGIN = 255
"""How ssh ends without a login. A guest that boots restarts its server, or has no key yet: that is asked again."""

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


def settings_for(disk: Path, **changes: object) -> GuestSettings:
    plain = GuestSettings(
        instance_id="i-0123456789abcdef0",
        private_address="172.31.0.10",
        public_address="127.9.8.7",
        mac=MAC,
        processors=2,
        memory_mib=1024,
        boot_mode="legacy-bios",
        disks=(("/dev/xvda", "vol-1", disk),),
    )
    return replace(plain, **changes)  # type: ignore[arg-type]


def view() -> InstanceView:
    return InstanceView(
        instance_id="i-0123456789abcdef0",
        image_id="ami-0123456789abcdef0",
        account_id="123456789012",
        region="us-east-1",
        zone="us-east-1a",
        instance_type="t3.small",
        private_address="172.31.0.10",
        mac=MAC,
        tokens_required=True,
    )


class Machine:
    """One guest with its proxy and a key, as the control plane has it."""

    def __init__(self, folder: Path, store: DiskStore, volume_id: str, **changes: object) -> None:
        self.key = folder / "key"
        if not self.key.exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(self.key)], check=True)
        self.view = replace(
            view(),
            instance_id=f"i-{time.time_ns():x}",
            public_keys={"test": self.key.with_suffix(".pub").read_text().strip()},
        )
        self.addresses = AddressPlan()
        self.address = self.addresses.take()
        disk = store.volume_path(volume_id)
        settings = settings_for(
            disk,
            instance_id=self.view.instance_id,
            public_address=self.address,
            disks=(("/dev/xvda", volume_id, disk),),
            **changes,
        )
        self.exits: list[float] = []
        metadata = MetadataServer(folder / "m", Authority(folder / "authority"))
        self.guest = Guest(
            settings,
            folder / self.view.instance_id,
            lambda: self.view,
            lambda: self.exits.append(time.time()),
            metadata,
            Wire().plug_in(self.view.instance_id, MAC, Steering()),
        )
        self.may_connect = True
        self.proxy = PortProxy(self.address, self.guest.dial, lambda port, source: self.may_connect, lambda: {22})
        self.started = time.monotonic()
        self.guest.start()

    def ssh(self, command: str, deadline_seconds: float = 600) -> str:
        options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        port = str(public_port(22, self.proxy.low_ports))
        line = ["ssh", *options.split(), "-i", str(self.key), "-p", port, f"admin@{self.address}", command]
        answers: list[subprocess.CompletedProcess[str]] = []

        def logged_in() -> bool:
            answers.append(subprocess.run(line, capture_output=True, text=True, timeout=deadline_seconds))
            return answers[-1].returncode != NO_LOGIN

        wait_until(logged_in, self.guest, deadline_seconds)
        assert answers[-1].returncode == 0, (command, answers[-1].stdout, answers[-1].stderr)
        return answers[-1].stdout

    def greeting(self, deadline_seconds: float = 30) -> bytes:
        """Return the first bytes of the ssh server, or raise what ended the connection."""
        port = public_port(22, self.proxy.low_ports)
        with socket.create_connection((self.address, port), deadline_seconds) as connection:
            return connection.recv(64)

    def wait_for_port(self) -> None:
        wait_until(lambda: 22 in self.proxy.open_ports(), self.guest)
        print(f"port 22 answered after {time.monotonic() - self.started:.1f} s")

    def close(self) -> None:
        self.proxy.close()
        self.guest.destroy()
        self.addresses.release(self.address)


def flows_of(machine: Machine) -> list[Flow]:
    """Return what a guest has opened since it was started."""
    return find_flows(machine.guest.capture, machine.guest.settings.mac)


def wait_until(condition: Callable[[], bool], guest: Guest, deadline_seconds: float = 900) -> None:
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        assert guest.running and time.monotonic() < deadline, guest.console()[-3000:].decode(errors="replace")
        time.sleep(0.1)


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
    image = make_base_image("trixie", default_cache(), print)
    disks = DiskStore(tmp_path / "disks")
    disks.import_snapshot("snap-base", image.path, image.size_gib)
    disks.create_volume("vol-1", image.size_gib, "snap-base")
    machine = Machine(tmp_path, disks, "vol-1", boot_mode="uefi")
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
