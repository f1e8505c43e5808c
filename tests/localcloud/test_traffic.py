"""What a guest opens is read from its packets, as QEMU captures them."""

import struct
from ipaddress import ip_address
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.localcloud.traffic import Flow, find_flows, read_answers

GUEST, OTHER = bytes.fromhex("0affc0a80102"), bytes.fromhex("525500000202")
MAC = "0a:ff:c0:a8:01:02"
ME, RESOLVER, WEB = "172.31.0.9", "169.254.169.253", "198.51.100.7"
SYN, SYN_ACK, PUSH = 0x02, 0x12, 0x18


def frame(source: str, target: str, protocol: int, payload: bytes) -> bytes:
    """Return an Ethernet frame, from the guest where the source is its address."""
    ends = (OTHER + GUEST) if ip_address(source) in map(ip_address, (ME, "fe80::9")) else (GUEST + OTHER)
    addresses = ip_address(source).packed + ip_address(target).packed
    if len(addresses) == 8:
        header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(payload), 0, 0, 64, protocol, 0)
        return ends + b"\x08\x00" + header + addresses + payload
    return ends + b"\x86\xdd" + struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + addresses + payload


def tcp(source: str, target: str, ports: tuple[int, int], flags: int) -> bytes:
    return frame(source, target, 6, struct.pack("!HHIIBBHHH", *ports, 0, 0, 0x50, flags, 0, 0, 0))


def udp(source: str, target: str, ports: tuple[int, int], data: bytes = b"") -> bytes:
    return frame(source, target, 17, struct.pack("!HHHH", *ports, 8 + len(data), 0) + data)


def answer(name: str, *addresses: str) -> bytes:
    """Return what a resolver answers: the name as asked, and addresses with a pointer to it."""
    asked = b"".join(bytes([len(label)]) + label.encode() for label in name.split(".")) + b"\0\0\1\0\1"
    records = (
        b"\xc0\x0c"
        + struct.pack("!HHIH", 1 if "." in one else 28, 1, 60, len(ip_address(one).packed))
        + ip_address(one).packed
        for one in addresses
    )
    return struct.pack("!HHHHHH", 7, 0x8180, 1, len(addresses), 0, 0) + asked + b"".join(records)


def capture(path: Path, *frames: bytes) -> Path:
    records = (struct.pack("=IIII", 0, 0, len(one), len(one)) + one for one in frames)
    path.write_bytes(struct.pack("=IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 512, 1) + b"".join(records))
    return path


def test_what_the_guest_opens_is_found_once_and_with_its_name(tmp_path: Path) -> None:
    path = capture(
        tmp_path / "pcap",
        udp("172.31.0.9", "255.255.255.255", (68, 67)),
        udp(ME, RESOLVER, (40000, 53)),
        udp(RESOLVER, ME, (53, 40000), answer("deb.debian.org", WEB, "2001:db8::7")),
        tcp(ME, WEB, (40001, 443), SYN),
        tcp(WEB, ME, (443, 40001), SYN_ACK),
        tcp(ME, WEB, (40001, 443), PUSH),
        tcp(ME, WEB, (40002, 443), SYN),
    )
    assert find_flows(path, MAC) == [
        Flow("udp", "255.255.255.255", 67),
        Flow("udp", RESOLVER, 53),
        Flow("tcp", WEB, 443, "deb.debian.org"),
    ]


@pytest.mark.parametrize(
    "frames",
    [
        [tcp("172.31.0.1", ME, (50000, 22), SYN), tcp(ME, "172.31.0.1", (22, 50000), SYN_ACK)],
        [udp(WEB, ME, (5000, 161)), udp(ME, WEB, (161, 5000))],
        [frame(ME, WEB, 1, b"\x00\x00"), frame(ME, WEB, 1, b"\x03\x03"), frame("fe80::9", "ff02::2", 58, b"\x85")],
        [b"\xff" * 12 + b"\x08\x06" + bytes(40), b"\x01"],
    ],
    ids=["a login from outside", "an answer by UDP", "answers and neighbours", "no IP"],
)
def test_what_the_guest_only_answers_is_not_its_own(tmp_path: Path, frames: list[bytes]) -> None:
    assert find_flows(capture(tmp_path / "pcap", *frames), MAC) == []


@pytest.mark.parametrize("one", [frame(ME, WEB, 1, b"\x08\x00"), frame(ME, WEB, 47, b"gre")])
def test_pings_and_other_protocols_are_found(tmp_path: Path, one: bytes) -> None:
    assert [flow.address for flow in find_flows(capture(tmp_path / "pcap", one), MAC)] == [WEB]


def test_a_capture_is_read_while_it_is_written(tmp_path: Path) -> None:
    whole = capture(tmp_path / "pcap", tcp(ME, WEB, (1, 80), SYN), tcp(ME, WEB, (1, 81), SYN))
    whole.write_bytes(whole.read_bytes()[:-3])
    assert [flow.port for flow in find_flows(whole, MAC)] == [80]
    assert find_flows(tmp_path / "none", MAC) == []


@given(st.lists(st.binary(max_size=120), max_size=5))
def test_a_hostile_guest_breaks_nothing(tmp_path_factory: pytest.TempPathFactory, frames: list[bytes]) -> None:
    path = capture(
        tmp_path_factory.getbasetemp() / "hostile", *frames, *(OTHER + GUEST + b"\x08\x00" + f for f in frames)
    )
    find_flows(path, MAC)


@given(st.binary(max_size=200))
def test_a_hostile_answer_breaks_nothing(message: bytes) -> None:
    read_answers(message)
    read_answers(bytes(5) + b"\x02\x00\x02" + bytes(4) + message)
