"""A scan from outside, as a table; and one of this machine, for real."""

import socket
import threading
from collections.abc import Iterable, Iterator

import pytest

from pipeline.report.evidence import Status
from pipeline.verify.port_scan import (
    AMPLIFIERS,
    EVERY_PORT,
    UNUSED,
    find_answering_ports,
    find_open_ports,
    prove_ports,
    prove_udp_ports,
)


def answering(*ports: int, everywhere: Iterable[int] = ()) -> object:
    """Return a scan that finds these ports, and those of the machine at every address."""

    def scan(address: str, asked: Iterable[int]) -> frozenset[int]:
        found = set(everywhere) if address == UNUSED else {*ports, *everywhere}
        return frozenset(found & set(asked))

    return scan


@pytest.mark.parametrize(
    ("address", "found", "everywhere", "status", "detail"),
    [
        ("192.0.2.7", (22,), (), Status.PASS, ""),
        ("192.0.2.7", (22, 111, 65535), (), Status.FAIL, "open and not intended: 111, 65535"),
        ("192.0.2.7", (), (), Status.FAIL, "intended and not open: 22"),
        ("127.1.2.3", (22,), (2024,), Status.PASS, ""),
        ("127.1.2.3", (22, 111), (2024,), Status.FAIL, "open and not intended: 111"),
        ("192.0.2.7", (22,), (2024,), Status.FAIL, "open and not intended: 2024"),
    ],
)
def test_what_is_open_is_what_is_intended(
    address: str, found: tuple[int, ...], everywhere: tuple[int, ...], status: Status, detail: str
) -> None:
    result = prove_ports(address, {22}, scan=answering(*found, everywhere=everywhere))  # type: ignore[arg-type]
    assert (result.status, result.detail, result.controls) == (status, detail, ("H19",))


def test_every_port_is_asked() -> None:
    asked: list[int] = []

    def scan(address: str, ports: Iterable[int]) -> frozenset[int]:
        asked.extend(ports)
        return frozenset({22})

    prove_ports("192.0.2.7", {22}, scan=scan)
    assert asked == list(EVERY_PORT) and (asked[0], asked[-1]) == (1, 65535)


@pytest.fixture
def listeners() -> Iterator[set[int]]:
    with socket.create_server(("127.9.9.9", 0)) as one, socket.create_server(("127.9.9.9", 0)) as other:
        yield {one.getsockname()[1], other.getsockname()[1]}


@pytest.mark.end_to_end
def test_open_ports_of_this_machine_are_found(listeners: set[int]) -> None:
    lowest = min(listeners)
    assert find_open_ports("127.9.9.9", range(lowest, 65536)) >= listeners
    assert find_open_ports("127.9.9.9", [1]) == frozenset()


@pytest.mark.end_to_end
def test_a_port_that_never_answers_is_closed() -> None:
    """The queue of a listener that accepts nobody is full: whoever comes next hears nothing."""
    with socket.socket() as full:
        full.bind(("127.9.9.9", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        for one in waiting:
            one.setblocking(False)
            one.connect_ex(address)
        assert find_open_ports(address[0], [address[1]], wait_seconds=0.2) == frozenset()
        for one in waiting:
            one.close()


@pytest.mark.parametrize(
    ("address", "found", "everywhere", "detail"),
    [
        ("192.0.2.7", (), (), ""),
        ("192.0.2.7", (514, 53), (), "answering: 53, 514"),
        ("127.1.2.3", (), (53,), ""),
        ("127.1.2.3", (161,), (53,), "answering: 161"),
    ],
)
def test_no_udp_port_answers(address: str, found: tuple[int, ...], everywhere: tuple[int, ...], detail: str) -> None:
    result = prove_udp_ports(address, {514}, scan=answering(*found, everywhere=everywhere))  # type: ignore[arg-type]
    assert (result.status, result.detail) == (Status.FAIL if detail else Status.PASS, detail)
    assert result.title == f"from outside, none of {len(AMPLIFIERS | {514})} UDP ports answers"


@pytest.mark.loopback
def test_a_udp_port_that_answers_is_found_and_a_silent_one_is_not() -> None:
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as talks,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as silent,
    ):
        ports = []
        for one in (talks, silent):
            one.bind(("127.9.9.9", 0))
            ports.append(one.getsockname()[1])

        def answer() -> None:
            _, asker = talks.recvfrom(100)
            talks.sendto(b"yes", asker)

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        assert find_answering_ports("127.9.9.9", [*ports, 1], wait_seconds=5) == {ports[0]}
