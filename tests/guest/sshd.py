"""A real sshd on a loopback port, and a relay before it that delays and breaks connections."""

import contextlib
import getpass
import os
import select
import shutil
import socket
import subprocess
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.guest.keys import KeyPair, make_key_pair
from pipeline.guest.shell import DirectConnector

START_SECONDS = 120


class Sshd:
    """One sshd, with a host key and one authorized key."""

    def __init__(self, folder: Path, more: str = "") -> None:
        self.folder = folder
        self.user = getpass.getuser()
        self.key, host = make_key_pair("the build's key"), make_key_pair("the host key")
        self.host_keys = (host.public_openssh,)
        self.port = free_port()
        write_private(folder / "host_key", host.private_openssh.reveal)
        self.authorize(self.key)
        as_root = os.geteuid() == 0
        (folder / "config").write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\nPidFile none\nStrictModes no\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nUsePAM {'yes' if as_root else 'no'}\nPermitRootLogin yes\n"
            f"KbdInteractiveAuthentication no\nPasswordAuthentication no\n"
            # Debian's bash reads the user's .bashrc for a command by ssh, unless it is a shell in a shell.
            f"SetEnv SHLVL=2\n{more}\n"
        )
        if as_root:
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        sshd = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin")
        if sshd is None:
            pytest.skip("sshd is not installed")
        with (folder / "log").open("wb") as log:
            self.process = subprocess.Popen([sshd, "-D", "-e", "-f", str(folder / "config")], stderr=log)
        self.wait()

    def authorize(self, *keys: KeyPair) -> None:
        (self.folder / "authorized_keys").write_text("".join(f"{key.public_openssh}\n" for key in keys))

    def wait(self) -> None:
        ends = time.monotonic() + START_SECONDS
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), 5) as probe:
                assert probe.recv(4) == b"SSH-"
                return
            assert self.process.poll() is None and time.monotonic() < ends, (self.folder / "log").read_text()
            time.sleep(0.02)

    @property
    def connector(self) -> DirectConnector:
        return DirectConnector("127.0.0.1", self.port)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait(START_SECONDS)


def write_private(path: Path, text: str) -> None:
    path.touch(mode=0o600)
    path.write_text(text)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Relay:
    """Forwards connections to a port, each byte late by `delay_seconds` one way; `cut()` breaks all of them."""

    def __init__(self, target: int, delay_seconds: float = 0.0, port: int = 0, host: str = "127.0.0.1") -> None:
        self.target, self.delay = (host, target), delay_seconds
        self.listener = socket.create_server(("127.0.0.1", port))
        self.port = int(self.listener.getsockname()[1])
        self.open: list[socket.socket] = []
        self.accepted = 0
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                self.accepted += 1
                try:
                    far = socket.create_connection(self.target)
                except OSError:
                    near.close()
                    continue
                for end in (near, far):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self.open += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self.forward, args=(source, sink), daemon=True).start()

    def forward(self, source: socket.socket, sink: socket.socket) -> None:
        waiting: deque[tuple[float, bytes]] = deque()
        reading = True
        with contextlib.suppress(OSError, ValueError):
            while reading or waiting:
                patience = max(0.0, waiting[0][0] - time.monotonic()) if waiting else None
                if reading and select.select([source], [], [], patience)[0]:
                    data = source.recv(1 << 16)
                    reading = bool(data)
                    waiting.append((time.monotonic() + self.delay, data))
                elif not reading and patience:
                    time.sleep(patience)
                while waiting and waiting[0][0] <= time.monotonic():
                    data = waiting.popleft()[1]
                    sink.sendall(data) if data else sink.shutdown(socket.SHUT_WR)

    def cut(self) -> None:
        for end in self.open:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()
        self.open.clear()

    @property
    def connector(self) -> DirectConnector:
        return DirectConnector("127.0.0.1", self.port)

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.cut()


@contextlib.contextmanager
def running_sshd(folder: Path, more: str = "") -> Iterator[Sshd]:
    sshd = Sshd(folder, more)
    try:
        yield sshd
    finally:
        sshd.stop()


@contextlib.contextmanager
def running_relay(port: int, delay_seconds: float = 0.0, host: str = "127.0.0.1") -> Iterator[Relay]:
    relay = Relay(port, delay_seconds, host=host)
    try:
        yield relay
    finally:
        relay.close()
