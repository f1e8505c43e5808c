"""A client of QEMU's machine protocol (QMP): answers are matched by id, and events handed on."""

import json
import socket
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

Event = Callable[[str, dict[str, Any]], None]


class MonitorFailed(RuntimeError):
    """QEMU refused a command, did not answer in time, or is gone."""


class Monitor:
    """One QMP session. A thread of its own reads; `on_event` is called there and must not call `execute`."""

    def __init__(self, connection: socket.socket, on_event: Event) -> None:
        self._connection, self._on_event = connection, on_event
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._next_id = 0
        self._closed = False
        threading.Thread(target=self._read, name="qmp", daemon=True).start()

    def execute(self, command: str, arguments: dict[str, Any] | None = None, deadline_seconds: float = 10.0) -> Any:  # noqa: ANN401 -- JSON
        """Run a command and return its answer. Raises MonitorFailed."""
        answer: Future[Any] = Future()
        with self._lock:
            if self._closed:
                raise MonitorFailed(f"{command}: QEMU is gone")
            self._next_id += 1
            identity = self._next_id
            self._waiting[identity] = answer
            message = {"execute": command, "arguments": arguments or {}, "id": identity}
            try:
                self._connection.sendall(json.dumps(message).encode() + b"\n")
            except OSError as error:
                raise MonitorFailed(f"{command}: QEMU is gone") from error
        try:
            return answer.result(deadline_seconds)
        except TimeoutError as error:
            raise MonitorFailed(f"{command}: QEMU did not answer within {deadline_seconds:.0f} s") from error

    def execute_human(self, command: str) -> str:
        """Run a command of the human monitor and return what it prints."""
        return str(self.execute("human-monitor-command", {"command-line": command}))

    def close(self) -> None:
        """End the session; commands that wait fail."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, {}
        for answer in waiting.values():
            answer.set_exception(MonitorFailed("QEMU is gone"))
        self._connection.close()

    def _read(self) -> None:
        try:
            with self._connection.makefile("r", encoding="utf-8") as lines:
                for line in lines:
                    self._take(json.loads(line))
        except (OSError, ValueError):
            pass
        finally:
            self.close()

    def _take(self, message: dict[str, Any]) -> None:
        if "event" in message:
            self._on_event(message["event"], message.get("data", {}))
            return
        with self._lock:
            answer = self._waiting.pop(message.get("id", 0), None)
        if answer is None:
            return
        if "error" in message:
            answer.set_exception(MonitorFailed(message["error"].get("desc", "QEMU refused")))
        else:
            answer.set_result(message.get("return"))
