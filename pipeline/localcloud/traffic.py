"""What a guest sends of its own accord: the connections that it opens, from the packets that QEMU has captured.

Answers of the resolver give addresses their names. A capture is read while QEMU still writes it.
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

PACKET_BYTES = 512
"""Of each packet, so much is kept: all headers, and the answers of a resolver."""
FILE_HEADER, RECORD_HEADER = 24, 16
IPV4, IPV6 = 0x0800, 0x86DD
ICMP, TCP, UDP, ICMPV6 = 1, 6, 17, 58
NAMES = {ICMP: "icmp", TCP: "tcp", UDP: "udp", ICMPV6: "icmp"}
SYN, ACK = 0x02, 0x10
FIRST_HOPS = (64, 128, 255)
"""What systems begin to count down from."""
PINGS = {ICMP: b"\x08", ICMPV6: b"\x80"}
"""What a ping begins with; all else of these protocols is talk between neighbours, or an answer."""
DNS = 53
MOST_LABELS = 128


@dataclass(frozen=True)
class Flow:
    """A place that a guest has asked something of."""

    protocol: str
    """tcp, udp, icmp, or a number."""
    address: str
    port: int
    """0 where the protocol has none."""
    name: str = ""
    """What a resolver said it is the address of."""

    def describe(self) -> dict[str, str | int]:
        """Return it as the cloud's own API says it."""
        return {"protocol": self.protocol, "address": self.address, "port": self.port, "name": self.name}


@dataclass(frozen=True)
class Packet:
    """An IP packet, as far as it was captured."""

    from_guest: bool
    protocol: int
    source: str
    target: str
    payload: bytes
    hops_left: int = FIRST_HOPS[0]

    @property
    def hops(self) -> int:
        """Return how many routers it has passed, as far as that can be told."""
        return min(first for first in FIRST_HOPS if first >= self.hops_left) - self.hops_left

    @property
    def data(self) -> bytes:
        """Return what a packet of TCP carries."""
        return self.payload[(self.payload[12] >> 4) * 4 :] if len(self.payload) > 12 else b""

    @property
    def ports(self) -> tuple[int, int]:
        """Return the source's and the target's port; zeros where there are none."""
        if self.protocol not in (TCP, UDP) or len(self.payload) < 4:
            return 0, 0
        source, target = struct.unpack_from("!HH", self.payload)
        return source, target

    @property
    def opens(self) -> bool:
        """Whether it asks for something: TCP's first packet, a ping, or anything of UDP and of other protocols."""
        if self.protocol == TCP:
            return len(self.payload) > 13 and self.payload[13] & (SYN | ACK) == SYN
        return self.protocol not in PINGS or self.payload[:1] == PINGS[self.protocol]


def find_flows(capture: Path, mac: str) -> list[Flow]:
    """Return what the guest with this hardware address has opened, each place once, in the order of the first packets.

    Answers to who asked the guest by UDP are none. Empty when there is no capture.
    """
    flows: dict[tuple[str, str, int], None] = {}
    asked_by: set[tuple[str, int]] = set()
    names: dict[str, str] = {}
    for packet in read_packets(capture, mac):
        source_port, target_port = packet.ports
        if not packet.from_guest:
            if packet.protocol == UDP:
                if source_port == DNS:
                    names |= read_answers(packet.payload[8:])
                elif ("udp", packet.source, source_port) not in flows:
                    asked_by.add((packet.source, source_port))
        elif packet.opens and (packet.target, target_port) not in asked_by:
            protocol = NAMES.get(packet.protocol, str(packet.protocol))
            flows.setdefault((protocol, packet.target, target_port))
    return [Flow(*flow, name=names.get(flow[1], "")) for flow in flows]


def read_packets(capture: Path, mac: str) -> Iterator[Packet]:
    """Yield the IP packets of a capture; one that is not whole yet ends it."""
    guest = bytes.fromhex(mac.replace(":", ""))
    try:
        data = capture.read_bytes()
    except FileNotFoundError:
        return
    start = FILE_HEADER
    while start + RECORD_HEADER <= len(data):
        length = struct.unpack_from("=I", data, start + 8)[0]
        frame = data[start + RECORD_HEADER : start + RECORD_HEADER + length]
        if len(frame) < length:
            return
        start += RECORD_HEADER + length
        if (packet := read_frame(frame, guest)) is not None:
            yield packet


def read_frame(frame: bytes, guest: bytes) -> Packet | None:
    """Return the IP packet of an Ethernet frame, or None for anything else."""
    if len(frame) < 34:
        return None
    kind = struct.unpack_from("!H", frame, 12)[0]
    body, from_guest = frame[14:], frame[6:12] == guest
    if kind == IPV4:
        length = (body[0] & 0x0F) * 4
        addresses, protocol, hops_left = (body[12:16], body[16:20]), body[9], body[8]
    elif kind == IPV6 and len(body) >= 40:
        length = 40
        addresses, protocol, hops_left = (body[8:24], body[24:40]), body[6], body[7]
    else:
        return None
    source, target = (str(ip_address(address)) for address in addresses)
    return Packet(from_guest, protocol, source, target, body[length:], hops_left)


def read_answers(message: bytes) -> dict[str, str]:
    """Return the addresses in an answer of DNS, each with the name that was asked for. Nothing of what is malformed."""
    found: dict[str, str] = {}
    try:
        questions, answers = struct.unpack_from("!HH", message, 4)
        asked, place = "", 12
        for _ in range(questions):
            asked, place = read_name(message, place)
            place += 4
        for _ in range(answers):
            _, place = read_name(message, place)
            kind, _, _, length = struct.unpack_from("!HHIH", message, place)
            content = message[place + 10 : place + 10 + length]
            place += 10 + length
            if kind in (1, 28) and len(content) == length:
                found[str(ip_address(content))] = asked
    except (struct.error, ValueError, IndexError):
        pass
    return found


def read_name(message: bytes, place: int) -> tuple[str, int]:
    """Return a name of DNS and where it ends. Raises IndexError, ValueError."""
    labels: list[str] = []
    end = 0
    for _ in range(MOST_LABELS):
        length = message[place]
        if length >= 0xC0:
            end = end or place + 2
            place = (length & 0x3F) << 8 | message[place + 1]
        elif length:
            labels.append(message[place + 1 : place + 1 + length].decode("ascii", "replace"))
            place += 1 + length
        else:
            return ".".join(labels).lower(), end or place + 1
    raise ValueError("a name without an end")
