"""The way to a guest through another program, as ssh's ProxyCommand: AWS's own tools speak their own protocols."""

import errno
import re
import socket
import subprocess
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from typing import IO, Literal

Way = Literal["session-manager", "instance-connect"]

PROGRAMS: dict[Way, dict[str, tuple[int, ...]]] = {
    "session-manager": {"aws": (2, 13, 37), "session-manager-plugin": (1, 2, 498)},
    "instance-connect": {"aws": (2, 12)},
}
"""What each way needs on this machine, from which version on. Older ones hand over the session's token as an argument,
which every user of the machine can read: the AWS CLI knows 1.2.497.0 as the last plugin that takes no other, and passes
it in the environment since 2.13.37. It opens tunnels to Instance Connect since 2.12.0 (its changelog)."""
ASK_SECONDS = 30.0
END_SECONDS = 5.0
COMPLAINT_BYTES = 2000


def missing_programs(way: Way) -> tuple[str, ...]:
    """Return what must be installed before guests can be reached this way: programs that are missing, or too old."""
    return tuple(
        f"{name} {'.'.join(map(str, oldest))} or newer"
        for name, oldest in PROGRAMS[way].items()
        if version_of(name) < oldest
    )


def version_of(program: str) -> tuple[int, ...]:
    """Return the version of a program, as it says itself; nothing when it is not there, or does not say."""
    try:
        asked = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=ASK_SECONDS, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ()
    found = re.search(r"[0-9]+(\.[0-9]+)+", asked.stdout + asked.stderr)
    return tuple(map(int, found[0].split("."))) if found else ()


def proxy_command(way: Way, instance_id: str, port: int, region: str) -> tuple[str, ...]:
    """Return the command that AWS documents as a ProxyCommand of ssh.

    Systems Manager User Guide, "Allow and control permissions for SSH connections through Session Manager"; EC2 User
    Guide, "Connect using EC2 Instance Connect Endpoint". The tools take credentials as every AWS tool does: from the
    environment, and from no argument.
    """
    if way == "session-manager":
        document = ("--document-name", "AWS-StartSSHSession", "--parameters", f"portNumber={port}")
        return ("aws", "ssm", "start-session", "--target", instance_id, *document, "--region", region)
    tunnel = ("aws", "ec2-instance-connect", "open-tunnel", "--instance-id", instance_id)
    return (*tunnel, "--remote-port", str(port), "--region", region)


@dataclass(frozen=True)
class ProxyCommandConnector:
    """A program whose standard input and output are the connection. No argument is a secret: all users can see them."""

    command: tuple[str, ...]
    port: int = 22
    """Of the guest, as the command has it."""

    @property
    def address(self) -> str:
        """What is connected to, in words."""
        return f"the end of `{' '.join(self.command)}`"

    def open_socket(self, deadline_seconds: float) -> socket.socket:
        """Start the program and return its end of the connection. Raises OSError, also when it is not installed."""
        ours, theirs = socket.socketpair()
        opened = ProgramSocket(fileno=ours.detach())
        with theirs:
            opened.start(self.command, theirs.fileno())
        opened.settimeout(deadline_seconds)
        return opened


class ProgramSocket(socket.socket):
    """A connection to a program: its end says what the program complained of, and closing it ends the program."""

    program = ""
    process: "subprocess.Popen[bytes] | None" = None
    complaints: "IO[bytes] | None" = None

    def start(self, command: tuple[str, ...], descriptor: int) -> None:
        """Start the program at the other end. Raises OSError."""
        self.program = command[0]
        self.complaints = tempfile.TemporaryFile()  # noqa: SIM115 -- closed with the socket
        try:
            self.process = subprocess.Popen(
                command, stdin=descriptor, stdout=descriptor, stderr=self.complaints, start_new_session=True
            )
        except OSError:
            self.close()
            raise

    def recv(self, size: int, flags: int = 0, /) -> bytes:
        """Return what the program says. At its end, raise ConnectionAbortedError with its last complaint."""
        try:
            data = super().recv(size, flags)
        except ConnectionResetError:  # it left something unread
            data = b""
        if data or not size:
            return data
        raise ConnectionAbortedError(errno.ECONNABORTED, self.last_complaint())

    def send(self, data: bytes, flags: int = 0, /) -> int:  # type: ignore[override]
        """Send to the program. Raises ConnectionAbortedError with its last complaint when it has ended."""
        try:
            return super().send(data, flags)
        except BrokenPipeError:
            raise ConnectionAbortedError(errno.ECONNABORTED, self.last_complaint()) from None

    def last_complaint(self) -> str:
        """Return the last line of the program's standard error."""
        lines: list[str] = []
        if self.complaints and not self.complaints.closed:
            self.complaints.seek(0)
            lines = self.complaints.read()[-COMPLAINT_BYTES:].decode(errors="replace").split("\n")
        said = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        return f"{self.program} ended: {said}"

    def close(self) -> None:
        """Close the connection and end the program."""
        with suppress(OSError):
            self.shutdown(socket.SHUT_RDWR)
        super().close()
        process, self.process = self.process, None
        if process:
            process.terminate()
            try:
                process.wait(END_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if self.complaints:
            self.complaints.close()
