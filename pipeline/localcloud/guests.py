"""Guests: one QEMU process for each running instance.

A guest has what an instance of EC2 shows it: its private address by DHCP, the metadata service at 169.254.169.254, the
vendor "Amazon EC2" in SMBIOS, a serial console that is kept, and disks. QEMU needs neither root nor KVM. It ends with
the process that started it, as an instance ends when its host loses power. A reboot is another QEMU on the same disks:
measured, an emulated guest that is reset takes five times as long to load its kernel.
"""

import contextlib
import hashlib
import select
import shlex
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.localcloud.emulator import accelerator, choose_emulator
from pipeline.localcloud.metadata import InstanceView, MetadataServer
from pipeline.localcloud.network import (
    METADATA_ADDRESS,
    RESOLVER_ADDRESS,
    AddressRefused,
    gateway_address,
    guest_network,
)
from pipeline.localcloud.qmp import Monitor, MonitorFailed
from pipeline.localcloud.traffic import PACKET_BYTES
from pipeline.localcloud.wire import Plug

EMULATED_CPU = "qemu64,+ssse3,+sse4.1,+sse4.2,+popcnt"
"""x86-64-v2. `max` also has what emulation pays for at every step: measured, a boot took a quarter longer with it."""
FIRMWARE = Path("/usr/share/OVMF")
START_SECONDS = 30.0
DIAL_SECONDS = 1.0
DIAL_POLL_SECONDS = 0.1
REBOOT_SECONDS = 240.0


class GuestFailed(RuntimeError):
    """A guest could not be started, or did not do what it was told; the message says what QEMU said."""


@dataclass(frozen=True)
class GuestSettings:
    """What an instance is made of. The first disk is the root; device names are EC2's (/dev/xvda).

    `egress` off means that the guest reaches the metadata service, and is reached through the proxy, and nothing else.
    """

    instance_id: str
    private_address: str
    public_address: str
    mac: str
    processors: int
    memory_mib: int
    boot_mode: Literal["legacy-bios", "uefi"]
    disks: tuple[tuple[str, str, Path], ...]
    egress: bool = True
    instance_type: str = "t3.small"


class Guest:
    """One instance's machine. Thread safe. Its directory keeps the console over stop and start, and so over objects.

    `on_exit` is called in a thread of the guest's once for each start that succeeded, whatever ended QEMU.
    `metadata` serves the instance while it runs; `instance_view` is asked at each of its requests.
    """

    def __init__(
        self,
        settings: GuestSettings,
        directory: Path,
        instance_view: Callable[[], InstanceView],
        on_exit: Callable[[], None],
        metadata: MetadataServer,
        plug: Plug,
    ) -> None:
        self.settings, self.directory, self.plug = settings, directory, plug
        self.instance_view, self.on_exit, self.metadata = instance_view, on_exit, metadata
        self._process: subprocess.Popen[bytes] | None = None
        self._monitor: Monitor | None = None
        self._exited = threading.Event()
        self._exited.set()
        self._ready = self._reboots = False
        self._lock = threading.RLock()
        self._forwards: dict[int, tuple[str, int]] = {}
        self._nodes: dict[str, str] = {}
        self._paths: dict[str, Path] = {}

    @property
    def running(self) -> bool:
        """Whether QEMU runs."""
        return not self._exited.is_set()

    def start(self) -> None:
        """Start QEMU and return when QMP answers. Raises GuestFailed, and leaves nothing behind then."""
        with self._lock:
            if self.running:
                raise GuestFailed(f"{self.settings.instance_id} runs already")
            self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._paths = {volume_id: path for _, volume_id, path in self.settings.disks}
            self._boot()

    def _boot(self) -> None:
        """Start a QEMU and return when it answers. Raises GuestFailed, and leaves none behind then."""
        self._check_disks()
        self._forwards, self._ready, self._reboots = {}, False, False
        self._nodes = {volume_id: f"disk{index}" for index, volume_id in enumerate(self._paths)}
        socket_path = self.metadata.serve(self.settings.instance_id, self.instance_view)
        ours, theirs = socket.socketpair()
        try:
            with contextlib.ExitStack() as ends:
                ends.enter_context(theirs)
                channels = {name: ends.enter_context(end).fileno() for name, end in self.plug.open().items()}
                command = self._command(socket_path, theirs.fileno(), channels)
                self._launch(command, (theirs.fileno(), *channels.values()))
            self._monitor = Monitor(ours, self._take_event)
            self._monitor.execute("qmp_capabilities", deadline_seconds=START_SECONDS)
            self._ready = True
        except (OSError, MonitorFailed, AddressRefused) as error:
            self.destroy()
            ours.close()
            self.plug.close()
            self.metadata.close(self.settings.instance_id)
            raise GuestFailed(f"{self.settings.instance_id}: {self._said() or error}") from error

    def shut_down(self, deadline_seconds: float) -> None:
        """Press the power button, wait for the guest to go, and pull the plug after the deadline."""
        self._power_down()
        if not self._exited.wait(deadline_seconds):
            self.destroy()

    def destroy(self) -> None:
        """Pull the plug, and wait until QEMU is gone."""
        self._reboots = False
        if self._process is not None and self.running:
            self._process.kill()
            self._exited.wait(30)

    def reboot(self) -> None:
        """Ask the guest to shut down, and boot it again then, or after four minutes as EC2 does. Returns at once."""
        self._reboots = True
        process = self._process
        self._power_down()

        def reset() -> None:
            if self._reboots and self._process is process and process is not None:
                process.kill()

        timer = threading.Timer(REBOOT_SECONDS, reset)
        timer.daemon = True
        timer.start()

    def console(self) -> bytes:
        """Return what the serial console has said since the instance's first start."""
        with contextlib.suppress(FileNotFoundError):
            return (self.directory / "console.log").read_bytes()
        return b""

    @property
    def capture(self) -> Path:
        """Where the packets to and from the guest are kept, since its last start."""
        return self.directory / "traffic.pcap"

    def screenshot(self) -> bytes | None:
        """Return the screen as PNG, or None when the guest does not run."""
        picture = self.directory / "screen.png"
        try:
            self._running_monitor().execute("screendump", {"filename": str(picture), "format": "png"})
            return picture.read_bytes()
        except (MonitorFailed, FileNotFoundError):
            return None
        finally:
            picture.unlink(missing_ok=True)

    def dial(self, port: int) -> socket.socket:
        """Connect to a port of the guest. Returns a connection that the guest accepted; raises OSError otherwise."""
        connection = socket.create_connection(self.forward(port), DIAL_SECONDS)
        try:
            self._wait_accepted(connection, port)
        except BaseException:
            connection.close()
            raise
        connection.settimeout(None)
        return connection

    def forward(self, port: int) -> tuple[str, int]:
        """Return the loopback address behind which QEMU reaches the guest's port. Raises ConnectionRefusedError.

        QEMU accepts there even when the guest does not: `dial` tells the difference.
        """
        with self._lock:
            if port not in self._forwards:
                try:
                    monitor = self._running_monitor()
                    rule = f"tcp:127.0.0.1:0-{self.settings.private_address}:{port}"
                    said = monitor.execute_human(f"hostfwd_add net0 {rule}").strip()
                    found = find_forward(monitor.execute_human("info usernet"), port)
                except MonitorFailed as error:
                    raise ConnectionRefusedError(str(error)) from error
                if found is None:
                    raise ConnectionRefusedError(f"{self.settings.instance_id}: no way to port {port}: {said}")
                self._forwards[port] = ("127.0.0.1", found)
            return self._forwards[port]

    def switch_overlay(self, volume_id: str, overlay: Path) -> None:
        """Let QEMU write a disk to the overlay from now on (a live snapshot). Raises GuestFailed, KeyError."""
        with self._lock:
            node = f"{self._nodes[volume_id].partition('-')[0]}-{time.monotonic_ns():x}"
            try:
                self._running_monitor().execute(
                    "blockdev-snapshot-sync",
                    {
                        "node-name": self._nodes[volume_id],
                        "snapshot-file": str(overlay),
                        "snapshot-node-name": node,
                        "format": "qcow2",
                        "mode": "existing",
                    },
                    deadline_seconds=60.0,
                )
            except MonitorFailed as error:
                raise GuestFailed(f"{self.settings.instance_id}: live snapshot of {volume_id}: {error}") from error
            self._nodes[volume_id], self._paths[volume_id] = node, overlay

    def _running_monitor(self) -> Monitor:
        if self._monitor is None or not self.running:
            raise MonitorFailed(f"{self.settings.instance_id} does not run")
        return self._monitor

    def _check_disks(self) -> None:
        """Refuse a disk that a snapshot has frozen since: its path is of before the snapshot."""
        for volume_id, path in self._paths.items():
            if not path.exists() or not path.stat().st_mode & 0o200:
                raise GuestFailed(f"{self.settings.instance_id}: {path} is not {volume_id}'s file any more")

    def _launch(self, command: list[str], descriptors: tuple[int, ...]) -> None:
        """Start QEMU, and the thread that waits for its end. setpriv ends QEMU when that thread's process ends."""
        started: threading.Event = threading.Event()
        failures: list[OSError] = []
        self._exited.clear()

        def live() -> None:
            try:
                with (self.directory / "qemu.log").open("wb") as log:
                    self._process = subprocess.Popen(
                        command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, pass_fds=descriptors
                    )
            except OSError as error:
                failures.append(error)
                self._exited.set()
                return
            finally:
                started.set()
            self._process.wait()
            self._clean_up()

        # The death signal follows the thread that forks, so this thread stays for as long as QEMU does.
        threading.Thread(target=live, name=f"guest {self.settings.instance_id}", daemon=True).start()
        started.wait()
        if failures:
            raise failures[0]

    def _clean_up(self) -> None:
        """Follow QEMU's end: another one boots the guest again where it reboots."""
        was_ready = self._ready
        if self._monitor is not None:
            self._monitor.close()
        self.plug.close()
        self.metadata.close(self.settings.instance_id)
        if self._reboots and self._boots_again():
            return
        self._exited.set()
        if was_ready:
            self.on_exit()

    def _boots_again(self) -> bool:
        """Boot the guest again; tell whether it does. What failed is in QEMU's log, and the instance has ended."""
        with self._lock:
            if self._reboots:
                with contextlib.suppress(GuestFailed):
                    self._boot()
                    return True
        return False

    def _said(self) -> str:
        with contextlib.suppress(OSError):
            return "\n".join((self.directory / "qemu.log").read_text(errors="replace").strip().splitlines()[-5:])
        return ""

    def _power_down(self) -> None:
        with contextlib.suppress(MonitorFailed):
            self._running_monitor().execute("system_powerdown")

    def _take_event(self, event: str, data: dict[str, Any]) -> None:
        """QEMU pauses when the guest has shut down or resets, and is ended then; another one boots it again.

        It pauses too when the host's disk is full, which the console then says.
        """
        if event == "BLOCK_IO_ERROR" and data.get("nospace"):
            with (self.directory / "console.log").open("ab") as console:
                console.write(b"\r\nlocal cloud: the host's disk is full; the guest is paused\r\n")
        if event == "SHUTDOWN" and data.get("reason") != "host-qmp-quit":
            self._reboots = self._reboots or data.get("reason") == "guest-reset"
            threading.Thread(target=self._quit, daemon=True).start()

    def _quit(self) -> None:
        """End QEMU."""
        try:
            self._running_monitor().execute("quit")
        except MonitorFailed:
            if self._process is not None:
                self._process.kill()

    def _wait_accepted(self, connection: socket.socket, port: int) -> None:
        """Wait until the guest itself has accepted: QEMU's list of connections says so, or data from the guest does."""
        ours = int(connection.getsockname()[1])
        deadline = time.monotonic() + DIAL_SECONDS
        while time.monotonic() < deadline:
            if select.select([connection], [], [], DIAL_POLL_SECONDS)[0]:
                if connection.recv(1, socket.MSG_PEEK):
                    return
                raise ConnectionRefusedError(f"{self.settings.instance_id} refuses port {port}")
            try:
                state = find_state(self._running_monitor().execute_human("info usernet"), port, ours)
            except MonitorFailed as error:
                raise ConnectionRefusedError(str(error)) from error
            if state == "ESTABLISHED":
                return
        raise TimeoutError(f"{self.settings.instance_id} does not answer at port {port}")

    def _command(self, metadata_socket: Path, descriptor: int, channels: dict[str, int]) -> list[str]:
        settings = self.settings
        machine_id = instance_uuid(settings.instance_id)
        smbios = f"manufacturer=Amazon EC2,product={settings.instance_type},uuid={machine_id},serial={machine_id}"
        accelerate = ["kvm", "-cpu", "host"] if accelerator() == "kvm" else ["tcg,thread=multi", "-cpu", EMULATED_CPU]
        return [
            *("setpriv", "--pdeathsig", "KILL", *choose_emulator().command, "-accel", *accelerate),
            *("-machine", "pc", "-nodefaults"),
            *("-name", settings.instance_id, "-smp", str(settings.processors), "-m", str(settings.memory_mib)),
            *("-uuid", machine_id, "-smbios", "type=0,vendor=Amazon EC2", "-smbios", f"type=1,{smbios}"),
            *("-smbios", f"type=2,asset={settings.instance_id}"),  # as the boards of Nitro say it
            *("-action", "reboot=shutdown,shutdown=pause,panic=none", "-display", "none", "-vga", "std"),
            *("-chardev", f"socket,id=qmp,fd={descriptor}", "-mon", "chardev=qmp,mode=control"),
            *("-chardev", f"file,id=console,path={escape(self.directory / 'console.log')},append=on"),
            *("-serial", "chardev:console", "-device", "virtio-rng-pci"),
            *("-netdev", network_option(settings, metadata_socket)),
            *("-device", f"virtio-net-pci,netdev=net0,mac={settings.mac},romfile="),
            *wire_options(channels),
            *("-object", f"filter-dump,id=capture,netdev=net0,maxlen={PACKET_BYTES},file={escape(self.capture)}"),
            *self._firmware_options(),
            *(option for index, disk in enumerate(self._paths.items()) for option in disk_options(index, *disk)),
        ]

    def _firmware_options(self) -> list[str]:
        """UEFI has a store of variables for each instance; the BIOS is QEMU's own."""
        if self.settings.boot_mode == "legacy-bios":
            return []
        variables = self.directory / "uefi-variables.fd"
        if not variables.exists():
            shutil.copyfile(FIRMWARE / "OVMF_VARS_4M.fd", variables)
        return [
            *("-drive", f"if=pflash,format=raw,readonly=on,file={FIRMWARE / 'OVMF_CODE_4M.fd'}"),
            *("-drive", f"if=pflash,format=raw,file={escape(variables)}"),
        ]


def network_option(settings: GuestSettings, metadata_socket: Path) -> str:
    """Return QEMU's user network: the guest's address first in DHCP, and a relay for each metadata connection."""
    relay = f"socat - UNIX-CONNECT:{shlex.quote(str(metadata_socket))}"
    options = {
        "id": "net0",
        "net": str(guest_network(settings.private_address)),
        "host": gateway_address(settings.private_address),
        "dns": str(RESOLVER_ADDRESS),
        "dhcpstart": settings.private_address,
        "restrict": "off" if settings.egress else "on",
        "guestfwd": f"tcp:{METADATA_ADDRESS}:80-cmd:{relay}",
    }
    return ",".join(["user", *(f"{name}={escape(value)}" for name, value in options.items())])


def wire_options(channels: dict[str, int]) -> list[str]:
    """Return what takes the guest's frames out of QEMU, and puts them in: before its user network, or its card.

    A frame of the guest's meets the filter first that was made last: so it is captured, then sent, and what goes on
    does not meet those again. To the guest it is the other way round.
    """
    queues = {"onward": "rx,indev", "arriving": "tx,indev", "sent": "rx,outdev"}
    return [
        option
        for name, queue in queues.items()
        for option in (
            *("-chardev", f"socket,id={name},fd={channels[name]}"),
            *("-object", f"filter-redirector,id=wire-{name},netdev=net0,queue={queue}={name}"),
        )
    ]


def disk_options(index: int, volume_id: str, path: Path) -> list[str]:
    """Return one disk's options. Trim is ignored, as EBS ignores it; written zeros take no room on the host."""
    file = f"file.driver=file,file.filename={escape(path)}"
    backend = f"driver=qcow2,node-name=disk{index},discard=ignore,detect-zeroes=on,cache.no-flush=on,{file}"
    serial = volume_id.replace("-", "")[:20]
    return ["-blockdev", backend, "-device", f"virtio-blk-pci,drive=disk{index},serial={serial},bootindex={index}"]


def escape(value: object) -> str:
    """Return a value for QEMU's comma-separated options."""
    return str(value).replace(",", ",,")


def instance_uuid(instance_id: str) -> str:
    """Return the machine's UUID: begins with ec2, as an instance's does, and is always the same for an instance."""
    digest = hashlib.sha256(instance_id.encode()).hexdigest()
    text = f"ec2{digest[:29]}"
    return f"{text[:8]}-{text[8:12]}-4{text[13:16]}-a{text[17:20]}-{text[20:32]}"


def find_forward(listing: str, port: int) -> int | None:
    """Return the loopback port that forwards to the guest's port, from the text of `info usernet`."""
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[0] == "TCP[HOST_FORWARD]" and fields[5] == str(port):
            return int(fields[3])
    return None


def find_state(listing: str, port: int, client_port: int) -> str | None:
    """Return the TCP state, as the guest's side has it, of the connection from client_port to the guest's port."""
    for line in listing.splitlines():
        fields = line.split()
        if len(fields) >= 6 and fields[3] == str(port) and fields[5] == str(client_port):
            return fields[0].removeprefix("TCP[").removesuffix("]")
    return None
