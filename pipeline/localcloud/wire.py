"""The wire between guests: carries their packets, to each other and to the router.

QEMU hands over each frame that a guest sends, and takes those that go on (filter-redirector): to its own user network,
which is the router, the resolver and the way out of the host, or into another guest. The way is asked for once for each
connection. Knows nothing of the EC2 API.
"""

import contextlib
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import BinaryIO

from pipeline.localcloud.network import METADATA_ADDRESS
from pipeline.localcloud.traffic import IPV4, TCP, Packet, read_frame

log = logging.getLogger("localcloud")

OUT = "out"
Way = str | None
"""Where a packet goes: to the instance of this id, OUT to the router, or nowhere."""
Flow = tuple[int, str, str, int, int]

ARP = 0x0806
METADATA = str(METADATA_ADDRESS)
MOST_FRAME_BYTES = 1 << 17
MOST_FLOWS = 4096
FLOW_SECONDS = 180.0
"""For how long a way is remembered where no packet opens a connection: as EC2 tracks UDP."""
CHANNELS = ("sent", "onward", "arriving")
"""QEMU's channels: what the guest sent, what of it goes to the router, and what comes from other guests."""


@dataclass(frozen=True)
class Steering:
    """Who says where an instance's packets go: all to the router, unless somebody knows better.

    Whatever a callable raises counts as nowhere.
    """

    find_neighbour: Callable[[str], str | None] = lambda address: None
    """Returns the instance that has a private address, other than this one."""
    choose_way: Callable[[Packet], Way] = lambda packet: OUT
    is_stopped: Callable[[Packet], bool] = lambda packet: False
    """Returns whether a packet to the metadata service goes nowhere, although its connection is open."""


class Wire:
    """All plugs of a cloud."""

    def __init__(self) -> None:
        self._plugs: dict[str, Plug] = {}

    def plug_in(self, instance_id: str, mac: str, steering: Steering) -> "Plug":
        """Return the plug of an instance, which takes the place of an earlier one."""
        plug = self._plugs[instance_id] = Plug(self, instance_id, mac, steering)
        return plug

    def unplug(self, instance_id: str) -> None:
        """Forget an instance that has ended."""
        self._plugs.pop(instance_id, None)

    def deliver(self, instance_id: str, frame: bytes) -> None:
        """Hand a frame to an instance; one that is gone gets nothing."""
        if plug := self._plugs.get(instance_id):
            plug.take(frame)

    def expect(self, instance_id: str, flow: Flow, answers_to: str) -> None:
        """Let the answers of an instance through to who opened the connection, as security groups do."""
        if plug := self._plugs.get(instance_id):
            plug.remember(flow, answers_to)


class Plug:
    """One instance's end of the wire."""

    def __init__(self, wire: Wire, instance_id: str, mac: str, steering: Steering) -> None:
        self.wire, self.instance_id, self.steering = wire, instance_id, steering
        self.mac = bytes.fromhex(mac.replace(":", ""))
        self._flows: dict[Flow, tuple[Way, float]] = {}
        self._ours: dict[str, socket.socket] = {}

    def open(self) -> dict[str, socket.socket]:
        """Return QEMU's ends of the channels, by name; they are the caller's to close."""
        self.close()
        theirs: dict[str, socket.socket] = {}
        for name in CHANNELS:
            self._ours[name], theirs[name] = socket.socketpair()
        stream = self._ours["sent"].makefile("rb")
        threading.Thread(target=self._carry, args=(stream,), name=f"wire {self.instance_id}", daemon=True).start()
        return theirs

    def close(self) -> None:
        """Close our ends, where they are open."""
        for end in self._ours.values():
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self._ours = {}

    def take(self, frame: bytes) -> None:
        """Hand a frame to the guest, under its hardware address."""
        self._put("arriving", self.mac + frame[6:])

    def remember(self, flow: Flow, way: Way) -> None:
        """Let a connection's packets go this way."""
        if len(self._flows) >= MOST_FLOWS:
            self._flows.clear()
        self._flows[flow] = way, time.monotonic()

    def _carry(self, stream: BinaryIO) -> None:
        """Carry frames until QEMU is gone."""
        with contextlib.suppress(OSError, ValueError), stream:
            for frame in read_frames(stream):
                try:
                    self._send(frame)
                except Exception:
                    log.exception("a frame of %s was dropped", self.instance_id)

    def _send(self, frame: bytes) -> None:
        way = self._way(frame)
        if way == OUT:
            self._put("onward", frame)
        elif way is not None:
            self.wire.deliver(way, frame)

    def _way(self, frame: bytes) -> Way:
        """Return where a frame goes. Who has an address is asked of who has it; what is for many is the router's."""
        kind = struct.unpack_from("!H", frame, 12)[0]
        if kind == ARP and len(frame) >= 42:
            return self.steering.find_neighbour(str(IPv4Address(frame[38:42]))) or OUT
        if kind != IPV4 or frame[0] & 1:
            return OUT
        packet = read_frame(frame, self.mac)
        return self._choose(packet) if packet else None

    def _choose(self, packet: Packet) -> Way:
        if packet.target == METADATA and self.steering.is_stopped(packet):
            return None
        source_port, target_port = packet.ports
        flow = (packet.protocol, packet.source, packet.target, source_port, target_port)
        known = self._flows.get(flow)
        if known and not (packet.opens if packet.protocol == TCP else time.monotonic() - known[1] > FLOW_SECONDS):
            return known[0]
        way = self.steering.choose_way(packet)
        self.remember(flow, way)
        if way not in (OUT, None):
            answer = (packet.protocol, packet.target, packet.source, target_port, source_port)
            self.wire.expect(way, answer, self.instance_id)
        return way

    def _put(self, channel: str, frame: bytes) -> None:
        """Send a frame to QEMU; a guest that does not take it loses it, as on any network, and holds up nobody."""
        end = self._ours.get(channel)
        with contextlib.suppress(OSError):
            if end is not None:
                end.send(struct.pack("!I", len(frame)) + frame, socket.MSG_DONTWAIT)


def read_frames(stream: BinaryIO) -> Iterator[bytes]:
    """Yield the frames that QEMU sends, each behind its length. Raises ValueError for a length that no frame has."""
    while len(head := stream.read(4)) == 4:
        length = struct.unpack("!I", head)[0]
        if not 14 <= length <= MOST_FRAME_BYTES:
            raise ValueError(f"a frame of {length} bytes")
        frame = stream.read(length)
        if len(frame) < length:
            return
        yield frame
