"""Faults on request: what goes wrong on AWS can be made to go wrong here.

A fault names an action of the API (`*` for any), lets `after` calls of it pass, and strikes `times` times (0: until it
is cleared). It is set with `PUT /_cloud/faults` or `serve --faults FILE`, as JSON: {"faults": [{…}, …]}.
"""

import threading
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

Kind = Literal["error", "throttle", "capacity", "lost-response", "latency", "slow-pending", "volume-full"]

KINDS: tuple[Kind, ...] = get_args(Kind)


class FaultRefused(ValueError):
    """A fault is not one that the cloud knows; the message says why."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong.

    `error` answers `code` and `message` with `status`; `throttle` and `capacity` are errors that EC2 gives often.
    `lost-response` does the work and breaks the connection. `latency` waits `seconds` first; `slow-pending` keeps what
    the call makes in its first state for `seconds`. `volume-full` lets the call find no room on the disk.
    """

    kind: Kind
    action: str = "*"
    after: int = 0
    times: int = 1
    seconds: float = 0.0
    code: str = "InternalError"
    message: str = "An internal error has occurred"
    status: int = 400


@dataclass(frozen=True)
class Strike:
    """What is to go wrong with one call."""

    error: Fault | None = None
    lose_response: bool = False
    wait_seconds: float = 0.0
    pending_seconds: float = 0.0
    volume_full: bool = False


def parse_fault(record: dict[str, Any]) -> Fault:
    """Return the fault that a JSON record describes. Raises FaultRefused."""
    unknown = set(record) - set(Fault.__dataclass_fields__)
    if unknown or record.get("kind") not in KINDS:
        wanted = f"kind is one of {', '.join(KINDS)}; the fields are {', '.join(Fault.__dataclass_fields__)}"
        raise FaultRefused(f"{record}: {wanted}")
    if record["kind"] == "throttle":
        record = {"code": "RequestLimitExceeded", "message": "Request limit exceeded.", "status": 503, **record}
    if record["kind"] == "capacity":
        message = "We currently do not have sufficient capacity in the Availability Zone you requested."
        record = {
            "code": "InsufficientInstanceCapacity",
            "message": message,
            "status": 500,
            "action": "RunInstances",
            **record,
        }
    return Fault(**record)


class Faults:
    """The faults that are set, and how often each action has been called. Thread safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._faults: list[tuple[Fault, list[int]]] = []
        self.calls: Counter[str] = Counter()

    def replace(self, records: Iterable[dict[str, Any]]) -> None:
        """Set these faults instead of what was set before. Raises FaultRefused, and changes nothing then."""
        parsed = [(parse_fault(dict(record)), [0]) for record in records]
        with self._lock:
            self._faults = parsed

    def listed(self) -> list[dict[str, Any]]:
        """Return the faults as records, each with the number of calls that it has seen."""
        with self._lock:
            return [asdict(fault) | {"seen": seen[0]} for fault, seen in self._faults]

    def strike(self, action: str) -> Strike:
        """Count a call of the action, and say what is to go wrong with it."""
        with self._lock:
            self.calls[action] += 1
            struck = [fault for fault, seen in self._faults if fault.action in ("*", action) and is_due(fault, seen)]
        errors = [fault for fault in struck if fault.kind in ("error", "throttle", "capacity")]
        return Strike(
            error=errors[0] if errors else None,
            lose_response=any(fault.kind == "lost-response" for fault in struck),
            wait_seconds=sum(fault.seconds for fault in struck if fault.kind == "latency"),
            pending_seconds=sum(fault.seconds for fault in struck if fault.kind == "slow-pending"),
            volume_full=any(fault.kind == "volume-full" for fault in struck),
        )


def is_due(fault: Fault, seen: list[int]) -> bool:
    """Count a call that the fault looks at, and tell whether it strikes this one."""
    seen[0] += 1
    return seen[0] > fault.after and (fault.times == 0 or seen[0] <= fault.after + fault.times)
