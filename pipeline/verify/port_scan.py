"""A scan from outside (H19; seed [4]): every TCP port, and the UDP ports of the spec and those that amplify attacks.

It finds what the security group intends, and nothing else.
"""

import contextlib
import errno
import select
import socket
import time
from collections.abc import Callable, Collection, Iterable

from pipeline.report.evidence import Layer, Result, Status

EVERY_PORT = range(1, 65536)
AT_ONCE = 512
"""Connections under way: well below the usual limit of 1024 open files."""

WAIT_SECONDS = 2.0
"""How long a port may take to answer. What a security group drops never does."""

UNUSED = "127.255.255.254"
"""No instance of the local cloud has this address: what answers here is this machine itself, at all of 127.0.0.0/8."""

AMPLIFIERS = frozenset({53, 69, 111, 123, 137, 161, 389, 500, 1900, 5353, 11211})
"""UDP services that answer anybody, as often as not with much more than was asked."""

QUESTIONS = {
    53: b"\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x02\x00\x01",
    123: b"\x1b" + bytes(47),
    161: bytes.fromhex("302602010104067075626c6963a01902047fffffff020100020100300b300906052b060102010500"),
}
"""By port: the name servers of the root, the time, and SNMP's first variable. Elsewhere an empty line is sent."""

Scan = Callable[[str, Iterable[int]], frozenset[int]]


def find_open_ports(address: str, ports: Iterable[int], wait_seconds: float = WAIT_SECONDS) -> frozenset[int]:
    """Return the TCP ports that accept a connection. Nothing is sent."""
    found: set[int] = set()
    poll = select.poll()
    under_way: dict[int, tuple[socket.socket, int, float]] = {}
    for port in ports:
        probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
        probe.setblocking(False)
        outcome = probe.connect_ex((address, port))
        if outcome == errno.EINPROGRESS:
            under_way[probe.fileno()] = (probe, port, time.monotonic() + wait_seconds)
            poll.register(probe, select.POLLOUT)
        else:
            found |= {port} if outcome == 0 else set()
            probe.close()
        while len(under_way) >= AT_ONCE:
            found |= settle(poll, under_way)
    while under_way:
        found |= settle(poll, under_way)
    return frozenset(found)


def settle(poll: select.poll, under_way: dict[int, tuple[socket.socket, int, float]]) -> set[int]:
    """Wait for an answer or for the next deadline, and return the ports that accepted; who answered or is late goes."""
    now = time.monotonic()
    earliest = min(deadline for _, _, deadline in under_way.values())
    answered = {number for number, _ in poll.poll(max(0.0, earliest - now) * 1000 + 1)}
    now = time.monotonic()
    found: set[int] = set()
    for number, (probe, port, deadline) in list(under_way.items()):
        if number in answered and probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
            found.add(port)
        if number in answered or deadline <= now:
            poll.unregister(probe)
            probe.close()
            del under_way[number]
    return found


def prove_ports(address: str, intended: Collection[int], scan: Scan = find_open_ports) -> Result:
    """Return the result of a scan of all ports: open are exactly those that the security group is meant to let in."""
    started = time.monotonic()
    found = scan(address, EVERY_PORT)
    more, fewer = sorted(found - set(intended)), sorted(set(intended) - found)
    if more and address.startswith("127."):
        more = sorted(set(more) - scan(UNUSED, more))
    problems = (
        f"open and not intended: {', '.join(map(str, more))}" if more else "",
        f"intended and not open: {', '.join(map(str, fewer))}" if fewer else "",
    )
    return Result(
        controls=("H19",),
        layer=Layer.FRESH_BOOT,
        status=Status.FAIL if more or fewer else Status.PASS,
        title=f"from outside, of all TCP ports only {', '.join(map(str, sorted(intended)))} answers",
        source="verify/port_scan",
        detail="; ".join(filter(None, problems)),
        seconds=round(time.monotonic() - started, 3),
    )


def find_answering_ports(address: str, ports: Iterable[int], wait_seconds: float = WAIT_SECONDS) -> frozenset[int]:
    """Return the UDP ports that answer a question. Who says nothing may be closed, dropped, or just not interested."""
    found: set[int] = set()
    poll = select.poll()
    waiting: dict[int, tuple[socket.socket, int]] = {}
    for port in ports:
        probe = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
        probe.setblocking(False)
        probe.connect((address, port))
        probe.send(QUESTIONS.get(port, b"\r\n"))
        waiting[probe.fileno()] = (probe, port)
        poll.register(probe, select.POLLIN)
    ends = time.monotonic() + wait_seconds
    while waiting and (left := ends - time.monotonic()) > 0:
        for number, _ in poll.poll(left * 1000 + 1):
            probe, port = waiting.pop(number)
            poll.unregister(number)
            with probe, contextlib.suppress(OSError):  # the other side says that nobody is there
                probe.recv(1)
                found.add(port)
    for probe, _ in waiting.values():
        probe.close()
    return frozenset(found)


def prove_udp_ports(address: str, spec_ports: Collection[int], scan: Scan = find_answering_ports) -> Result:
    """Return the result of a scan of UDP ports: the security group is meant to let none of them in."""
    started = time.monotonic()
    asked = sorted({*spec_ports, *AMPLIFIERS})
    answering = scan(address, asked)
    if answering and address.startswith("127."):
        answering -= scan(UNUSED, answering)
    return Result(
        controls=("H19",),
        layer=Layer.FRESH_BOOT,
        status=Status.FAIL if answering else Status.PASS,
        title=f"from outside, none of {len(asked)} UDP ports answers",
        source="verify/port_scan[udp]",
        detail=f"answering: {', '.join(map(str, sorted(answering)))}" if answering else "",
        seconds=round(time.monotonic() - started, 3),
    )
