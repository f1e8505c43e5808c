"""A testinfra backend over a session that is already open.

The checks run in a process of their own (`live.py` says why) that holds no key and no connection: each command goes
over a socket to the proof, which runs it in its one root shell, or has its answer already.
"""

from typing import ClassVar

import testinfra.backend
from testinfra.backend.base import BaseBackend, CommandResult

from pipeline.verify.wire import Wire

CONNECTION = "session"
HOST = f"{CONNECTION}://guest"


class GuestLost(Exception):
    """The guest could not be asked: the session has ended."""


class Unrehearsed(BaseException):
    """A rehearsal got to a command whose answer is not known yet. No check may catch it as an error."""


class SessionBackend(BaseBackend):
    """Runs each command as root in the session's shell. Text is UTF-8; other bytes survive as surrogates."""

    NAME = CONNECTION
    wire: ClassVar[Wire]
    promised_to_read: ClassVar[bool] = False
    """True while a check of ours runs: they change nothing, so that their commands may be sent ahead next time."""
    rehearsing: ClassVar[bool] = False
    """True in a rehearsal: only what is known already is answered, and nothing is run for it."""

    def run(self, command: str, *args: str, **kwargs: object) -> CommandResult:
        """Return what the command left. Raises GuestLost when the guest does not answer any more, or Unrehearsed."""
        text = self.get_command(command, *args)
        asked = {"command": text, "reads": self.promised_to_read, "rehearsing": self.rehearsing}
        self.wire.send({"kind": "run", **asked})
        answer = self.wire.receive()
        if answer is None or "lost" in answer:
            raise GuestLost(answer["lost"] if answer else "the proof has ended")
        if "unknown" in answer:
            raise Unrehearsed
        return self.result(answer["exit_status"], self.encode(text), answer["stdout"], answer["stderr"])

    def decode(self, data: bytes) -> str:
        """Return bytes of the guest as text, without asking the guest for its encoding."""
        return data.decode("utf-8", "surrogateescape")

    def encode(self, data: str) -> bytes:
        """Return text as the bytes that the guest gave or gets."""
        return data.encode("utf-8", "surrogateescape")


def register(wire: Wire) -> None:
    """Let testinfra know the backend as `session://`, talking over this wire."""
    SessionBackend.wire = wire
    testinfra.backend.BACKENDS[CONNECTION] = f"{__name__}.{SessionBackend.__name__}"
