"""A machine for tests: a guest with its proxy and a key, as the control plane has it, and the way into it."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from pipeline.guest.keys import KeyPair, load_key_file, read_host_keys
from pipeline.guest.shell import DirectConnector, Shell, connect
from pipeline.localcloud.authority import Authority
from pipeline.localcloud.base_image import default_cache, make_base_image
from pipeline.localcloud.disks import DiskStore
from pipeline.localcloud.guests import Guest, GuestSettings
from pipeline.localcloud.metadata import InstanceView, MetadataServer
from pipeline.localcloud.network import AddressPlan, PortProxy, public_port
from pipeline.localcloud.routing import goes_too_far
from pipeline.localcloud.wire import Steering, Wire

BOOT_SECONDS = 900.0
MAC = "02:00:00:00:00:10"
NO_LOGIN = 255
"""How ssh ends without a login. A guest that boots restarts its server, or has no key yet: that is asked again."""
KEYS_ARE_SHOWN = "-----END SSH HOST KEY KEYS-----"


def settings_for(disk: Path, **changes: object) -> GuestSettings:
    plain = GuestSettings(
        instance_id="i-0123456789abcdef0",
        private_address="172.31.0.10",
        public_address="127.9.8.7",
        mac=MAC,
        processors=1,
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
            Wire().plug_in(self.view.instance_id, MAC, self.steering()),
        )
        self.may_connect = True
        self.proxy = PortProxy(self.address, self.guest.dial, lambda port, source: self.may_connect, lambda: {22})
        self.started = time.monotonic()
        self.guest.start()

    def steering(self) -> Steering:
        """Return who says where its packets go: all out, but for a token that is asked for from too far away."""
        return Steering(is_stopped=lambda packet: goes_too_far(packet, self.view.hop_limit))

    @property
    def console(self) -> str:
        """What it has printed."""
        return self.guest.console().decode(errors="replace")

    @property
    def launch_key(self) -> KeyPair:
        """The key that it was launched with."""
        return load_key_file(self.key)

    @property
    def way(self) -> DirectConnector:
        """Where it answers."""
        return DirectConnector(self.address, public_port(22, self.proxy.low_ports))

    def host_keys(self, boots: int = 1) -> tuple[str, ...]:
        """Wait until it has shown its host keys, at so many boots, and return them."""
        wait_until(lambda: self.console.count(KEYS_ARE_SHOWN) >= boots, self.guest)
        return read_host_keys(self.console)

    def log_in(self, user: str = "admin") -> Shell:
        """Return a session, once it lets us in."""
        return connect(self.way, user, self.launch_key, self.host_keys(), BOOT_SECONDS)

    def ssh(self, command: str, deadline_seconds: float = 600) -> str:
        options = "-o BatchMode=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null -o LogLevel=ERROR"
        line = [
            "ssh",
            *options.split(),
            "-i",
            str(self.key),
            "-p",
            str(self.way.port),
            f"admin@{self.address}",
            command,
        ]
        answers: list[subprocess.CompletedProcess[str]] = []

        def logged_in() -> bool:
            answers.append(subprocess.run(line, capture_output=True, text=True, timeout=deadline_seconds))
            return answers[-1].returncode != NO_LOGIN

        wait_until(logged_in, self.guest, deadline_seconds)
        assert answers[-1].returncode == 0, (command, answers[-1].stdout, answers[-1].stderr)
        return answers[-1].stdout

    def greeting(self, deadline_seconds: float = 30) -> bytes:
        """Return the first bytes of the ssh server, or raise what ended the connection."""
        with self.way.open_socket(deadline_seconds) as connection:
            return connection.recv(64)

    def wait_for_port(self) -> None:
        wait_until(lambda: 22 in self.proxy.open_ports(), self.guest)
        print(f"port 22 answered after {time.monotonic() - self.started:.1f} s")

    def close(self) -> None:
        self.proxy.close()
        self.guest.destroy()
        self.addresses.release(self.address)


def wait_until(condition: Callable[[], bool], guest: Guest, deadline_seconds: float = 900) -> None:
    deadline = time.monotonic() + deadline_seconds
    while not condition():
        assert guest.running and time.monotonic() < deadline, guest.console()[-3000:].decode(errors="replace")
        time.sleep(0.1)


def debian_disks(folder: Path, release: str = "bookworm") -> tuple[DiskStore, int]:
    """Return a store with a volume `vol-1` of Debian's base image, and its size in GiB."""
    image = make_base_image(release, default_cache(), print)
    disks = DiskStore(folder / "disks")
    disks.import_snapshot("snap-base", image.path, image.size_gib)
    disks.create_volume("vol-1", image.size_gib, "snap-base")
    return disks, image.size_gib


@contextmanager
def booted_debian(folder: Path) -> Iterator[Machine]:
    """Boot Debian's base image, and shut it down at the end."""
    machine = Machine(folder, debian_disks(folder)[0], "vol-1")
    try:
        yield machine
    finally:
        machine.close()
