"""The machines of instances: starts, stops and reaches guests. Knows nothing of the EC2 API.

One lock for each instance orders what is done to its machine; a machine's exit is told to whoever started it.
"""

import shutil
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from pipeline.localcloud.authority import Authority
from pipeline.localcloud.disks import DiskStore
from pipeline.localcloud.guests import Guest, GuestSettings
from pipeline.localcloud.metadata import InstanceView, MetadataServer
from pipeline.localcloud.network import AddressPlan, PortProxy
from pipeline.localcloud.traffic import Flow, find_flows
from pipeline.localcloud.wire import Plug, Steering, Wire

SHUT_DOWN_SECONDS = 120.0


class GuestFactory(Protocol):
    """Makes a guest; the class Guest is one."""

    def __call__(
        self,
        settings: GuestSettings,
        directory: Path,
        instance_view: Callable[[], InstanceView],
        on_exit: Callable[[], None],
        metadata: MetadataServer,
        plug: Plug,
    ) -> Guest:
        """Return a guest that has not been started."""


@dataclass(frozen=True)
class Reach:
    """What security groups and routes say of an instance, asked at each connection."""

    may_connect: Callable[[int, str], bool]
    ports: Callable[[], Iterable[int]]
    steering: Steering = field(default_factory=Steering)


class Machines:
    """All machines of a cloud, below one directory."""

    def __init__(self, home: Path, make_guest: GuestFactory, *, egress: bool, processors: int) -> None:
        self.disks = DiskStore(home / "disks")
        self.authority = Authority(home / "authority")
        self.metadata = MetadataServer(home / "metadata", self.authority)
        self.addresses = AddressPlan()
        self.wire = Wire()
        self.egress, self.processors = egress, processors
        self._directory = home / "instances"
        self._make_guest = make_guest
        self._guests: dict[str, Guest] = {}
        self._proxies: dict[str, PortProxy] = {}
        self._reaches: dict[str, Reach] = {}
        self._locks: dict[str, threading.RLock] = {}
        self._lock = threading.Lock()

    def lock(self, instance_id: str) -> threading.RLock:
        """Return the lock that orders what is done to an instance's machine."""
        with self._lock:
            return self._locks.setdefault(instance_id, threading.RLock())

    def running(self, instance_id: str) -> Guest | None:
        """Return the instance's guest when it runs."""
        guest = self._guests.get(instance_id)
        return guest if guest is not None and guest.running else None

    def start(
        self,
        settings: GuestSettings,
        view: Callable[[], InstanceView],
        on_exit: Callable[[Guest], None],
        reach: Reach,
    ) -> None:
        """Start the machine and open the way to it. `on_exit` is told which guest ended. Raises GuestFailed."""
        instance_id = settings.instance_id
        made: list[Guest] = []
        plug = self.wire.plug_in(instance_id, settings.mac, reach.steering)
        guest = self._make_guest(
            settings, self._directory / instance_id, view, lambda: on_exit(made[0]), self.metadata, plug
        )
        made.append(guest)
        self._guests[instance_id] = guest
        try:
            guest.start()
        except BaseException:
            del self._guests[instance_id]
            raise
        self._reaches[instance_id] = reach
        self.open_proxy(instance_id, settings.public_address)

    def open_proxy(self, instance_id: str, public_address: str) -> None:
        """Let a running machine be reached at this public address, and no other one; nowhere where it is empty."""
        self.close_proxy(instance_id)
        guest, reach = self.running(instance_id), self._reaches.get(instance_id)
        if public_address and guest and reach:
            self._proxies[instance_id] = PortProxy(public_address, guest.dial, reach.may_connect, reach.ports)

    def is_current(self, instance_id: str, guest: Guest) -> bool:
        """Tell whether this is the guest that the instance has now, and not one of before a restart of it."""
        return self._guests.get(instance_id) is guest

    def shut_down(self, instance_id: str, *, force: bool = False) -> None:
        """Power the machine off as its guest wants it, or pull the plug; returns when it is off."""
        guest = self.running(instance_id)
        if guest is not None:
            if force:
                guest.destroy()
            else:
                guest.shut_down(SHUT_DOWN_SECONDS)
        self.close_proxy(instance_id)

    def shut_down_for_restart(self, instance_id: str) -> None:
        """Power the machine off, and let nobody take its end for the instance's."""
        guest = self._guests.pop(instance_id, None)
        if guest is not None:
            guest.shut_down(SHUT_DOWN_SECONDS)
        self.close_proxy(instance_id)

    def reboot(self, instance_id: str) -> None:
        """Reboot the machine; returns at once."""
        guest = self.running(instance_id)
        if guest is not None:
            guest.reboot()

    def close_proxy(self, instance_id: str) -> None:
        """Close the way to the machine from outside."""
        proxy = self._proxies.pop(instance_id, None)
        if proxy is not None:
            proxy.close()

    def open_ports(self, instance_id: str) -> list[int]:
        """Return the guest's ports that can be reached now."""
        proxy = self._proxies.get(instance_id)
        return sorted(proxy.open_ports()) if proxy else []

    def console(self, instance_id: str) -> bytes:
        """Return what the serial console has said, of a stopped machine too."""
        guest = self._guests.get(instance_id)
        if guest is not None:
            return guest.console()
        path = self._directory / instance_id / "console.log"
        return path.read_bytes() if path.exists() else b""

    def traffic(self, instance_id: str) -> list[Flow]:
        """Return what a guest has opened since its last start. Raises KeyError for a machine that is not known."""
        guest = self._guests[instance_id]
        return find_flows(guest.capture, guest.settings.mac)

    def screenshot(self, instance_id: str) -> bytes | None:
        """Return the machine's screen as PNG, or None when it does not run."""
        guest = self.running(instance_id)
        return guest.screenshot() if guest else None

    def forget(self, instance_id: str) -> None:
        """Drop what is left of a machine that is off; its console stays readable on disk."""
        self.close_proxy(instance_id)
        self._guests.pop(instance_id, None)
        self._reaches.pop(instance_id, None)
        self.wire.unplug(instance_id)

    def discard(self, instance_id: str) -> None:
        """Remove what is left on disk of a machine that nobody asks for any more."""
        self.forget(instance_id)
        shutil.rmtree(self._directory / instance_id, ignore_errors=True)

    def close(self, deadline_seconds: float) -> None:
        """Shut every machine down, all at once. Nobody takes that for the guests' own power-off."""
        running = [guest for guest in self._guests.values() if guest.running]
        self._guests.clear()
        threads = [threading.Thread(target=guest.shut_down, args=(deadline_seconds,)) for guest in running]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for instance_id in list(self._proxies):
            self.close_proxy(instance_id)
        self.metadata.close_all()
        self.addresses.release_all()
