"""One long-lived root shell: a framed protocol over a byte stream. A command costs one round trip, and so do many.

Each command runs in a subshell of its own, in `/`, with nothing on its standard input: it may read, `exit`, `cd`, print
NULs or leave its last line open, and the next one does not notice. What it prints waits in files on tmpfs until the
whole batch has ended, so that standard output, standard error and exit status never mix. A mark that only the reader
knows ends each of them: that costs no process, and processes are what costs on a slow guest.
"""

import re
import secrets
import shlex
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from pipeline.errors import GuestUnreachable
from pipeline.guest.environment import PRELUDE
from pipeline.guest.program import visible

DEADLINE_SECONDS = 300.0
ANSWER = b"0 -\n"
"""Asks for what the commands before it left."""
END = re.compile(rb"(?P<nonce>\S+) (?P<status>\d+) (?P<began>\d+\.\d+) (?P<ended>\d+\.\d+)")
"""The last line of an answer; times are seconds since the boot."""
BATCH_BYTES = 512 * 1024
"""Commands sent in one go. Both windows of an ssh channel hold more, so that neither side waits for the other."""

LOOP = r"""
umask 077
folder=$(mktemp -d "$2/assay-shell.XXXXXX") && cd "$folder" || exit 1
trap 'cd / && rm -rf "$folder"' EXIT
printf '%s ready\n' "$1"
while read -r count mark; do
    if [ "$count" = 0 ]; then
        cat answers && : >answers || exit 1
        continue
    fi
    command=
    while [ "$count" -gt 0 ]; do
        IFS= read -r line || exit 1
        command="$command$line
"
        count=$((count - 1))
    done
    read -r began rest </proc/uptime
    ( exec </dev/null >>answers 2>errors; cd /; umask 022; set --; unset mark began rest; eval "$command" )
    status=$?
    read -r ended rest </proc/uptime
    {
        printf '%s' "$mark"
        if [ -s errors ]; then cat errors; else [ -e errors ]; fi
    } >>answers && printf '%s%s %s %s %s\n' "$mark" "$1" "$status" "$began" "$ended" >>answers || exit 1
done
"""


@dataclass(frozen=True)
class Output:
    """What a command left. Bytes that are not UTF-8 survive as surrogates: `.encode(errors="surrogateescape")`."""

    exit_status: int
    stdout: str
    stderr: str
    seconds: float = field(default=0.0, compare=False)
    """How long it ran on the guest, to a hundredth."""


class Stream(Protocol):
    """A way to the standard input and output of a process on the guest. All times are of `time.monotonic()`."""

    def write(self, data: bytes, ends: float) -> None:
        """Send all of it. Raises GuestUnreachable."""

    def read(self, ends: float) -> bytes:
        """Return what has arrived, at least one byte; nothing at the end. Raises GuestUnreachable, TimeoutError."""

    def close(self) -> None:
        """End the process's standard input, and listen no more."""

    def complaint(self) -> str:
        """Return what the process said on its standard error, its last words."""


def root_shell_command(nonce: str, folder: str = "/run") -> str:
    """Return the command that serves a root shell. It is no secret: everybody on the guest may see it."""
    return f"sh -c {shlex.quote(PRELUDE + LOOP)} sh {nonce} {shlex.quote(folder)}"


class RootShell:
    """A root shell on the guest that stays open."""

    def __init__(self, stream: Stream, nonce: str, resource: str | None = None, region: str | None = None) -> None:
        """Take a stream to a process that runs `root_shell_command(nonce)`. Raises GuestUnreachable if it does not."""
        self.stream = stream
        self.nonce = nonce.encode()
        self.about = {"resource": resource, "region": region}
        self.unread = bytearray()
        self.lost = ""
        self.noise = ""
        ends = time.monotonic() + DEADLINE_SECONDS
        line = b""
        while not line.endswith(self.nonce + b" ready"):
            line = self.read_until(b"\n", ends)
            self.noise = "" if line.endswith(b" ready") else to_text(line)

    def run(self, command: str, deadline_seconds: float = DEADLINE_SECONDS) -> Output:
        """Run one command. Raises GuestUnreachable when it does not end in time, or when the connection broke."""
        return self.run_many([command], deadline_seconds)[0]

    def run_many(self, commands: Sequence[str], deadline_seconds: float = DEADLINE_SECONDS) -> list[Output]:
        """Run commands one after the other, in one round trip for each 512 KiB of them.

        Raises GuestUnreachable when they do not end in time, or when the connection broke; the shell is lost then.
        """
        ends = time.monotonic() + deadline_seconds
        outputs: list[Output] = []
        mark = new_nonce().encode()
        for batch in split_batches(frame(command, mark) for command in commands):
            self.write(b"".join(batch) + ANSWER, ends)
            outputs.extend(self.read_output(mark, ends) for _ in batch)
        return outputs

    def close(self) -> None:
        """End the shell; it removes its files."""
        self.lost = "it was closed"
        self.stream.close()

    def write(self, data: bytes, ends: float) -> None:
        """Send commands. Raises GuestUnreachable."""
        if self.lost:
            raise GuestUnreachable(f"the root shell is lost: {self.lost}", **self.about)
        try:
            self.stream.write(data, ends)
        except (GuestUnreachable, TimeoutError) as error:
            raise self.lose(str(error) or "a command could not be sent in time") from error

    def read_output(self, mark: bytes, ends: float) -> Output:
        """Return what one command left."""
        stdout, stderr = (to_text(self.read_until(mark, ends)) for _ in range(2))
        end = END.fullmatch(self.read_until(b"\n", ends))
        if end is None or end["nonce"] != self.nonce:
            raise self.lose("its answer is no answer")
        return Output(int(end["status"]), stdout, stderr, float(end["ended"]) - float(end["began"]))

    def read_until(self, end: bytes, ends: float) -> bytes:
        """Return what comes before the end that is given; the end itself is dropped."""
        searched = 0
        while (found := self.unread.find(end, searched)) < 0:
            searched = max(0, len(self.unread) - len(end))
            self.unread += self.receive(ends)
        data = bytes(self.unread[:found])
        del self.unread[: found + len(end)]
        return data

    def receive(self, ends: float) -> bytes:
        """Return what comes next. Raises GuestUnreachable, with what the guest said last."""
        try:
            part = self.stream.read(ends)
        except TimeoutError as error:
            raise self.lose("a command did not end in time") from error
        except GuestUnreachable as error:
            raise self.lose(error.message) from error
        if not part:
            raise self.lose(self.stream.complaint() or visible(self.noise).strip() or "it has ended")
        return part

    def lose(self, reason: str) -> GuestUnreachable:
        """Give the shell up for good: nobody knows what it is doing. Return the error to raise."""
        self.lost = reason
        self.stream.close()
        return GuestUnreachable(f"the root shell is lost: {reason}", **self.about)


def new_nonce() -> str:
    """Return a word that nothing but our own shell prints."""
    return secrets.token_hex(16)


def frame(command: str, mark: bytes) -> bytes:
    """Return a command as it is sent: the number of its lines, the mark that is to end its output, and the lines."""
    data = command.encode(errors="surrogateescape")
    return b"%d %s\n%s\n" % (data.count(b"\n") + 1, mark, data)


def split_batches(frames: Iterable[bytes]) -> Iterable[list[bytes]]:
    """Yield frames in batches of at most BATCH_BYTES, but of one frame at least."""
    batch: list[bytes] = []
    for item in frames:
        if batch and sum(map(len, batch)) + len(item) > BATCH_BYTES:
            yield batch
            batch = []
        batch.append(item)
    if batch:
        yield batch


def to_text(data: bytes) -> str:
    """Return bytes as text, losing none."""
    return data.decode(errors="surrogateescape")
