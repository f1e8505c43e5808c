"""A session whose calls can be struck: refused, throttled, answered by nobody, or the last act of this process."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from botocore.awsrequest import AWSResponse
from botocore.exceptions import ConnectionClosedError

from pipeline.aws.session import Session
from pipeline.localcloud.faults import parse_fault
from pipeline.localcloud.server import error_answer

ERROR = {"kind": "error", "code": "UnauthorizedOperation", "message": "You are not authorized.", "status": 403}
KINDS = ("error", "throttle", "lost-response", "kill-before", "kill-after")
STUCK = "stuck"
"""From this call on, nothing can be changed in its region any more, the taking back included."""
READING = ("Describe", "Get", "List")


@dataclass(frozen=True)
class Call:
    """One request on the wire: where, what, and the how many-th of its kind there."""

    region: str
    action: str
    number: int

    def __str__(self) -> str:
        return f"{self.region} {self.action} {self.number}"


@dataclass(frozen=True)
class Strike:
    """What goes wrong with which call: this one, or the how many-th of all."""

    call: Call | int
    kind: str


class Throttle(Exception):
    """Raised by what looks at a call before it is made: it is one too many."""


class Wire:
    """All calls of the sessions over it, in their order, and what happens to them."""

    def __init__(self, strike: Strike | None = None) -> None:
        self.strike = strike
        self.calls: list[Call] = []
        self.polls: list[Call] = []
        self.polling = threading.local()
        """`on` while this thread asks only to wait for something."""
        self.stuck: set[str] = set()
        """Regions where nothing can be changed any more."""
        self.before: Callable[[Call, str], object] = lambda *_: None
        """Sees each call before it is made, and what it asks."""
        self._counts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()

    def arm(self, strike: Strike | None) -> None:
        """Count from here, and let one call go wrong."""
        self.strike = strike
        self.calls.clear()
        self.polls.clear()
        self.stuck.clear()
        self._counts.clear()

    def count(self, region: str, action: str) -> Call:
        """Return the call that is about to be made."""
        with self._lock:
            self._counts[region, action] += 1
            call = Call(region, action, self._counts[region, action])
            self.calls.append(call)
            if getattr(self.polling, "on", False):
                self.polls.append(call)
        return call

    def carry(self, region: str, service: str, client: Any, request: Any, event_name: str) -> AWSResponse | None:
        """Carry one request: None lets botocore send it."""
        call = self.count(region, event_name.rpartition(".")[2])
        try:
            self.before(call, str(request.body))
        except Throttle:
            return strike("throttle", service, client, request)
        struck = self.strike is not None and self.strike.call in (call, len(self.calls))
        if self.strike and struck and self.strike.kind == STUCK:
            self.stuck.add(region)
        if region in self.stuck and not call.action.startswith(READING):
            return strike("error", service, client, request)
        return strike(self.strike.kind, service, client, request) if self.strike and struck else None


def strike(kind: str, service: str, client: Any, request: Any) -> AWSResponse:
    """Let one request go wrong."""
    if kind in ("error", "throttle"):
        return answer(service, request.url, ERROR if kind == "error" else {"kind": "throttle"})
    if kind == "kill-before":
        os.kill(os.getpid(), signal.SIGKILL)
    client._endpoint.http_session.send(request)
    if kind == "kill-after":
        os.kill(os.getpid(), signal.SIGKILL)
    raise ConnectionClosedError(endpoint_url=request.url)


class Body:
    """The body of an answer, as botocore streams it."""

    def __init__(self, content: bytes) -> None:
        self.content = content

    def stream(self, **_: Any) -> list[bytes]:
        return [self.content]


def answer(service: str, url: str, fault: dict[str, Any]) -> AWSResponse:
    """Return a refusal in the words of the service."""
    status, body, headers = error_answer(service, parse_fault(fault))
    return AWSResponse(url, status, headers, Body(body))


class WiredSession(Session):
    """A session over a wire; its sessions of other regions are over the same one."""

    def __init__(self, source: Any, region: str, endpoint_url: str | None, wire: Wire) -> None:
        super().__init__(source, region, endpoint_url)
        self.wire = wire
        self.elsewhere: dict[str, WiredSession] = {region: self}

    def client(self, name: Any, *, once: bool = False) -> Any:
        known = (name, once) in self._clients
        client = super().client(name, once=once)
        if not known:
            client.meta.events.register_first(
                f"before-send.{client.meta.service_model.service_id.hyphenize()}.*",
                lambda request, event_name, **_: self.wire.carry(self.region, name, client, request, event_name),
            )
        return client

    def in_region(self, region: str) -> "WiredSession":
        if region not in self.elsewhere:
            there = WiredSession(self._source, region, self.endpoint_url, self.wire)
            there.elsewhere = self.elsewhere
            self.elsewhere[region] = there
        return self.elsewhere[region]


def wired(session: Session, wire: Wire | None = None) -> WiredSession:
    """Return the same caller over a wire."""
    return WiredSession(session._source, session.region, session.endpoint_url, wire or Wire())
