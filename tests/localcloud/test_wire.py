"""The wire between guests, with this test in the place of QEMU."""

import socket
import struct
from collections.abc import Callable, Iterator
from io import BytesIO

import pytest

from pipeline.localcloud.routing import goes_too_far
from pipeline.localcloud.traffic import Packet, read_frame
from pipeline.localcloud.wire import METADATA, MOST_FRAME_BYTES, OUT, Steering, Way, Wire, read_frames

ANA, BEN, ROUTER, ALL = "02:00:00:00:00:0a", "02:00:00:00:00:0b", "52:55:00:00:00:01", "ff:ff:ff:ff:ff:ff"
ADDRESSES = {"i-ana": "172.30.0.10", "i-ben": "172.30.0.11"}
WEB = "198.51.100.7"
SYN, ACK = 0x02, 0x10
TCP, UDP = 6, 17


def packed(mac: str) -> bytes:
    return bytes.fromhex(mac.replace(":", ""))


def frame(
    source: str,
    target: str,
    *,
    sender: str,
    to: str,
    flags: int = SYN,
    ports: tuple[int, int] = (40000, 22),
    data: bytes = b"",
    hops_left: int = 64,
) -> bytes:
    """Return a TCP packet as it is on the wire."""
    tcp = struct.pack("!HHIIBBHHH", *ports, 0, 0, 0x50, flags, 0, 0, 0) + data
    header = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp), 0, 0, hops_left, TCP, 0) + socket.inet_aton(source)
    return packed(to) + packed(sender) + b"\x08\x00" + header + socket.inet_aton(target) + tcp


def who_has(address: str) -> bytes:
    """Return Ana's question for an address."""
    head = packed(ALL) + packed(ANA) + b"\x08\x06" + struct.pack("!HHBBH", 1, 0x0800, 6, 4, 1)
    return head + packed(ANA) + socket.inet_aton(ADDRESSES["i-ana"]) + bytes(6) + socket.inet_aton(address)


class End:
    """QEMU's end of one plug."""

    def __init__(self, ends: dict[str, socket.socket]) -> None:
        self.ends = ends
        for end in ends.values():
            end.settimeout(5)

    def send(self, data: bytes) -> None:
        self.ends["sent"].sendall(struct.pack("!I", len(data)) + data)

    def read(self, channel: str) -> bytes:
        length = struct.unpack("!I", self.ends[channel].recv(4))[0]
        return self.ends[channel].recv(length)


class Network:
    """Two guests whose ways a test chooses."""

    def __init__(self) -> None:
        self.asked: list[Packet] = []
        self.choose: Callable[[Packet], Way] = lambda packet: OUT
        self.wire = Wire()
        self.plugs = {name: self.wire.plug_in(name, mac, self.steering(name)) for name, mac in self.macs().items()}
        self.ana, self.ben = (End(plug.open()) for plug in self.plugs.values())

    def macs(self) -> dict[str, str]:
        return {"i-ana": ANA, "i-ben": BEN}

    def steering(self, name: str) -> Steering:
        def find(address: str) -> str | None:
            return next((one for one, known in ADDRESSES.items() if known == address and one != name), None)

        def choose(packet: Packet) -> Way:
            self.asked.append(packet)
            return self.choose(packet)

        return Steering(find, choose, lambda packet: goes_too_far(packet, hop_limit=1))


@pytest.fixture
def network() -> Iterator[Network]:
    made = Network()
    yield made
    for plug in made.plugs.values():
        plug.close()
    for end in (*made.ana.ends.values(), *made.ben.ends.values()):
        end.close()


def test_a_packet_goes_out_by_the_router_as_it_was_sent(network: Network) -> None:
    sent = frame(ADDRESSES["i-ana"], WEB, sender=ANA, to=ROUTER)
    network.ana.send(sent)
    assert network.ana.read("onward") == sent


def test_a_packet_arrives_at_a_neighbour_under_its_hardware_address(network: Network) -> None:
    network.choose = lambda packet: "i-ben"
    sent = frame(ADDRESSES["i-ana"], WEB, sender=ANA, to=ROUTER)
    network.ana.send(sent)
    assert network.ben.read("arriving") == packed(BEN) + sent[6:], "a route leads through it, too"


def test_the_way_is_asked_for_when_a_connection_opens_and_answers_find_back(network: Network) -> None:
    network.choose = lambda packet: "i-ben"
    ana, ben = ADDRESSES.values()
    network.ana.send(frame(ana, ben, sender=ANA, to=BEN))
    network.ana.send(frame(ana, ben, sender=ANA, to=BEN, flags=ACK))
    assert network.ben.read("arriving") and network.ben.read("arriving")
    network.choose = lambda packet: None
    answer = frame(ben, ana, sender=BEN, to=ANA, flags=SYN | ACK, ports=(22, 40000))
    network.ben.send(answer)
    assert network.ana.read("arriving") == answer
    assert len(network.asked) == 1
    network.ana.send(frame(ana, ben, sender=ANA, to=BEN))
    network.ana.send(who_has(WEB))
    assert network.ana.read("onward"), "the second opening was dropped before it"
    assert len(network.asked) == 2, "an opening is asked about anew"


def test_what_may_go_nowhere_goes_nowhere_and_an_error_of_the_judge_is_a_no(network: Network) -> None:
    def judge(packet: Packet) -> Way:
        return {443: OUT, 80: None}[packet.ports[1]]

    network.choose = judge
    for port in (80, 22, 443):
        network.ana.send(frame(ADDRESSES["i-ana"], WEB, sender=ANA, to=ROUTER, ports=(40000, port)))
    assert network.ana.read("onward")[36:38] == struct.pack("!H", 443)
    assert len(network.asked) == 3


def test_a_token_goes_no_further_than_the_hop_limit_and_everything_else_does(network: Network) -> None:
    def ask(data: bytes, hops_left: int, target: str = METADATA, flags: int = ACK) -> bytes:
        ana = ADDRESSES["i-ana"]
        return frame(ana, target, sender=ANA, to=ROUTER, flags=flags, ports=(40000, 80), data=data, hops_left=hops_left)

    token, read = b"PUT /latest/api/token HTTP/1.1\r\n", b"GET /latest/ HTTP/1.1\r\n"
    network.ana.send(ask(b"", 63, flags=SYN))
    network.ana.send(ask(token, 63))
    network.ana.send(ask(token, 127))
    for passed in (ask(read, 63), ask(token, 64), ask(token, 255), ask(token, 63, WEB)):
        network.ana.send(passed)
    assert network.ana.read("onward") == ask(b"", 63, flags=SYN), "a connection opens"
    for passed in (ask(read, 63), ask(token, 64), ask(token, 255), ask(token, 63, WEB)):
        assert network.ana.read("onward") == passed


@pytest.mark.parametrize(("hop_limit", "furthest"), [(1, 0), (2, 1), (64, 63)])
def test_a_hop_limit_lets_a_token_behind_one_router_less(hop_limit: int, furthest: int) -> None:
    def from_behind(routers: int) -> Packet:
        sent = frame(ADDRESSES["i-ana"], METADATA, sender=ANA, to=ROUTER, data=b"PUT /", hops_left=255 - routers)
        packet = read_frame(sent, packed(ANA))
        assert packet
        return packet

    assert not goes_too_far(from_behind(furthest), hop_limit)
    assert goes_too_far(from_behind(furthest + 1), hop_limit)


def test_who_has_an_address_is_asked_of_who_has_it(network: Network) -> None:
    question = who_has(ADDRESSES["i-ben"])
    network.ana.send(question)
    assert network.ben.read("arriving") == packed(BEN) + question[6:]
    own = who_has(ADDRESSES["i-ana"])
    network.ana.send(own)
    assert network.ana.read("onward") == own, "nobody but the router hears of one's own"


def test_what_is_for_all_is_the_router_s(network: Network) -> None:
    discover = frame("0.0.0.0", "255.255.255.255", sender=ANA, to=ALL)
    network.choose = lambda packet: "i-ben"
    network.ana.send(discover)
    assert network.ana.read("onward") == discover
    assert not network.asked


def test_a_guest_that_takes_nothing_holds_up_nobody(network: Network) -> None:
    network.choose = lambda packet: "i-ben" if packet.target == ADDRESSES["i-ben"] else OUT
    for number in range(5000):
        network.ana.send(frame(*ADDRESSES.values(), sender=ANA, to=BEN, ports=(40000 + number, 22)))
    last = frame(ADDRESSES["i-ana"], WEB, sender=ANA, to=ROUTER)
    network.ana.send(last)
    assert network.ana.read("onward") == last


@pytest.mark.parametrize("length", [0, 13, MOST_FRAME_BYTES + 1, 0xFFFFFFFF])
def test_a_length_that_no_frame_has_ends_the_reading(length: int) -> None:
    with pytest.raises(ValueError, match=str(length)):
        list(read_frames(BytesIO(struct.pack("!I", length) + bytes(64))))


def test_a_stream_that_ends_within_a_frame_ends_with_the_last_whole_one() -> None:
    whole = struct.pack("!I", 60) + bytes(60)
    for cut in range(1, len(whole)):
        assert list(read_frames(BytesIO(whole + whole[:cut]))) == [bytes(60)]
