"""What every test shares. Unit tests may neither open a network connection nor start a process."""

import socket
import subprocess
from typing import NoReturn

import pytest

FREE = ("end_to_end", "loopback", "subprocess")


@pytest.fixture(autouse=True)
def no_network_and_no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that needs more says so with a marker: `loopback`, `subprocess` or `end_to_end`."""
    allowed = {mark for mark in FREE if request.node.get_closest_marker(mark)}
    if "end_to_end" in allowed:
        return
    if "loopback" not in allowed:
        monkeypatch.setattr(socket.socket, "connect", refuse_connection)
    if "subprocess" not in allowed:
        monkeypatch.setattr(subprocess, "Popen", RefusedProcess)


def refuse_connection(self: socket.socket, address: object) -> None:
    """Let unix sockets through, and nothing else."""
    if self.family != socket.AF_UNIX:
        raise AssertionError(f"a unit test opened a connection to {address}: mark it loopback or end_to_end")
    super(socket.socket, self).connect(address)  # type: ignore[arg-type]


class RefusedProcess(subprocess.Popen[bytes]):
    """Stays a class, so that libraries that subclass or annotate with Popen still import."""

    def __init__(self, *arguments: object, **options: object) -> NoReturn:  # type: ignore[misc]
        raise AssertionError(f"a unit test started a process: {arguments}: mark it subprocess or end_to_end")
