"""Addresses and connections of guests: their network, their public addresses, and the proxy for security groups.

QEMU's user network must hold the guest's address and the link-local ones in one prefix, so a guest in 172.31.x gets
168.0.0.0/5, and cannot reach the public addresses 168.0.0.0 to 175.255.255.255. A guest in 10.x would need 0.0.0.0/0,
which QEMU refuses.

QEMU's own forwards listen on 127.0.0.1 at ports of the kernel's choice: other users of the host who find one pass by
the security groups.
"""

import contextlib
import ipaddress
import random
import select
import socket
import struct
import threading
from collections.abc import Callable, Iterable

from pipeline.localcloud import SSH_PORT

METADATA_ADDRESS = ipaddress.IPv4Address("169.254.169.254")
RESOLVER_ADDRESS = ipaddress.IPv4Address("169.254.169.253")
LINK_LOCAL = ipaddress.IPv4Network("169.254.0.0/16")
RESERVATION_PORT = 16925
LOW_PORT_SHIFT = 10000
POLL_SECONDS = 0.2
MOST_PORTS = 64
BUFFER_BYTES = 65536

Dial = Callable[[int], socket.socket]


class AddressRefused(ValueError):
    """A private address with which QEMU's user network cannot serve the metadata address."""


def guest_network(private_address: str) -> ipaddress.IPv4Network:
    """Return the smallest prefix with the guest's address and the link-local ones. Raises AddressRefused."""
    address = ipaddress.IPv4Address(private_address)
    network = LINK_LOCAL
    while address not in network:
        network = network.supernet()
    if network.prefixlen == 0:
        raise AddressRefused(
            f"{private_address}: the local cloud serves VPCs in 128.0.0.0/1 only, for example 172.31.0.0/16"
        )
    return network


def gateway_address(private_address: str) -> str:
    """Return the router's address as the guest sees it: the first of its /16, which VPCs reserve."""
    block = ipaddress.IPv4Network(f"{private_address}/16", strict=False)
    return str(block.network_address + 1)


def may_bind_low_ports(port: int = SSH_PORT) -> bool:
    """Tell whether a guest's low port can be served as it is.

    Not where it takes a right that this process lacks, nor where a server of this machine, its own sshd for example,
    listens at that port on all addresses.
    """
    address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"  # noqa: S311
    with socket.socket() as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((address, port))
            trial.listen()
        except OSError:
            return False
    return True


def public_port(port: int, low_ports: bool) -> int:
    """Return where a guest's port is reachable on its public address: 22 is 10022 where low ports are not ours."""
    return port if low_ports or port >= 1024 else port + LOW_PORT_SHIFT


class AddressPlan:
    """Gives out 127.x.y.z addresses. A bound socket reserves each, so that several clouds do not take the same one."""

    def __init__(self) -> None:
        self._reservations: dict[str, socket.socket] = {}
        self._lock = threading.Lock()

    def take(self) -> str:
        """Reserve a free address and return it."""
        for _ in range(1000):
            address = f"127.{random.randint(1, 254)}.{random.randint(0, 255)}.{random.randint(1, 254)}"  # noqa: S311
            if self.reserve(address):
                return address
        raise OSError("no free address in 127.0.0.0/8")

    def reserve(self, address: str) -> bool:
        """Reserve this address, for an instance of before a restart; tell whether it was free."""
        with self._lock:
            if address in self._reservations:
                return False
            reservation = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            try:
                reservation.bind((address, RESERVATION_PORT))
            except OSError:
                reservation.close()
                return False
            self._reservations[address] = reservation
            return True

    def release(self, address: str) -> None:
        """Give an address back."""
        with self._lock:
            reservation = self._reservations.pop(address, None)
        if reservation is not None:
            reservation.close()

    def release_all(self) -> None:
        """Give every address back."""
        for address in list(self._reservations):
            self.release(address)


class PortProxy:
    """The way to a guest from outside: listens on its public address, for ports of which the guest's answers.

    `dial` connects to a port of the guest; it returns only a connection that the guest itself accepted, and raises
    OSError otherwise. `may_connect(port, source)` is asked at each connection; `ports` says which ports to look
    after (of more than 64 the lowest are served). Whatever a callable raises counts as a no.
    """

    def __init__(
        self,
        public_address: str,
        dial: Dial,
        may_connect: Callable[[int, str], bool],
        ports: Callable[[], Iterable[int]],
    ) -> None:
        self.public_address, self.dial = public_address, dial
        self.may_connect, self.ports = may_connect, ports
        self.low_ports = may_bind_low_ports()
        self.listening: set[int] = set()
        self.closed = threading.Event()
        self._doors: dict[int, Door] = {}
        threading.Thread(target=self._watch, name=f"proxy {public_address}", daemon=True).start()

    def open_ports(self) -> set[int]:
        """Return the guest's ports that accept connections now."""
        return set(self.listening)

    def close(self) -> None:
        """Stop listening and break every connection."""
        self.closed.set()
        for door in list(self._doors.values()):
            door.close()

    def wanted(self) -> set[int]:
        """Return the ports to look after now; none when the rules cannot be read."""
        try:
            return set(sorted(self.ports())[:MOST_PORTS])
        except Exception:
            return set()

    def _watch(self) -> None:
        while not self.closed.is_set():
            wanted = self.wanted()
            for port in self._doors.keys() - wanted:
                self._doors.pop(port).close()
            for port in wanted - self._doors.keys():
                self._doors[port] = Door(self, port)
            self.closed.wait(POLL_SECONDS)
        for door in list(self._doors.values()):
            door.close()


class Door:
    """One port of one guest: waits until the guest answers there, listens, and lets connections through."""

    def __init__(self, proxy: PortProxy, port: int) -> None:
        self.proxy, self.port = proxy, port
        self.closed = threading.Event()
        self._pipes: set[socket.socket] = set()
        threading.Thread(target=self._run, name=f"port {proxy.public_address}:{port}", daemon=True).start()

    def close(self) -> None:
        """Stop listening and break the connections through this door."""
        self.closed.set()
        for pipe in list(self._pipes):
            with contextlib.suppress(OSError):
                pipe.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        while not self.closed.is_set():
            if self._answers():
                try:
                    with self._listen() as listener:
                        self.proxy.listening.add(self.port)
                        self._serve(listener)
                except OSError:
                    self.closed.wait(1.0)
                finally:
                    self.proxy.listening.discard(self.port)
            self.closed.wait(POLL_SECONDS)

    def _answers(self) -> bool:
        try:
            self.proxy.dial(self.port).close()
        except OSError:
            return False
        return True

    def _listen(self) -> socket.socket:
        listener = socket.socket()
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((self.proxy.public_address, public_port(self.port, self.proxy.low_ports)))
            listener.listen(64)
        except OSError:
            listener.close()
            raise
        return listener

    def _serve(self, listener: socket.socket) -> None:
        """Accept until the guest's port stops answering or the door is closed."""
        while not self.closed.is_set():
            if not select.select([listener], [], [], POLL_SECONDS)[0]:
                continue
            client, (source, _) = listener.accept()
            if not self._allowed(source):
                refuse(client)
                continue
            try:
                guest = self.proxy.dial(self.port)
            except OSError:
                refuse(client)
                return
            self._join(client, guest)

    def _allowed(self, source: str) -> bool:
        try:
            return self.proxy.may_connect(self.port, source)
        except Exception:
            return False

    def _join(self, client: socket.socket, guest: socket.socket) -> None:
        self._pipes |= {client, guest}
        left = threading.Semaphore(0)
        for source, target in ((client, guest), (guest, client)):
            threading.Thread(target=self._pump, args=(source, target, left), daemon=True).start()
        threading.Thread(target=self._end, args=(client, guest, left), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, left: threading.Semaphore) -> None:
        """Copy one direction, and hand on its end."""
        with contextlib.suppress(OSError):
            source.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while data := source.recv(BUFFER_BYTES):
                target.sendall(data)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)
        left.release()

    def _end(self, client: socket.socket, guest: socket.socket, left: threading.Semaphore) -> None:
        left.acquire()
        left.acquire()
        self._pipes -= {client, guest}
        client.close()
        guest.close()


def refuse(client: socket.socket) -> None:
    """End a connection with a reset, so that the client sees a refusal and not an end."""
    with contextlib.suppress(OSError):
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
