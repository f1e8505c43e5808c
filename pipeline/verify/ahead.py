"""Sends ahead the commands that the same checks asked for last time: a few round trips instead of a hundred.

They go in small batches to several root shells, which work side by side: a guest has more than one processor. What
took long last time goes first, so that no shell is left alone with it at the end.
Only commands that read are sent ahead. One that may write is run when it is asked for, and everything recorded after it
is sent ahead only then, so that no answer is older than a change. An answer is used once and in order; a command that
is not recorded is run live. Where nothing is recorded, the checks are rehearsed first: what one wants to read next is
collected from all of them and sent as one, and so on.
"""

import hashlib
import json
import os
import re
import shlex
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Protocol, Self

EACH_SECONDS = 1 / 64
"""What a command costs a slow guest, besides its own work."""
BATCH_SECONDS = 4 / 64
"""The least work in one round trip, which itself may cost 80 ms."""
LONG_SECONDS = 0.1
"""What takes less is sent in the order in which it will be asked for: the checks work while the rest is under way."""
REHEARSALS = 8
WORTH_A_REHEARSAL = 8
"""Checks that the last one stopped at. A rehearsal takes longer than asking for fewer of them live."""
READERS = frozenset(
    (
        *("[", "cat", "cut", "dpkg-query", "echo", "false", "findmnt", "getent", "grep", "head", "hostname", "id"),
        *("ls", "lsblk", "lsmod", "printf", "ps", "pwd", "readlink", "realpath", "sha256sum", "ss", "stat", "tail"),
        *("test", "true", "uname", "wc", "which", "whoami"),
    )
)
SYSTEMCTL_READS = frozenset(("is-active", "is-enabled", "is-failed", "is-system-running", "show", "status"))
HARMLESS_REDIRECTION = re.compile(r"(?<!\S)[12]?>\s*(?:/dev/null|&[12])(?!\S)")


class Answer(Protocol):
    """What a command left."""

    @property
    def exit_status(self) -> int:
        """Return the exit status of the command."""

    @property
    def stdout(self) -> str:
        """Return its standard output."""

    @property
    def stderr(self) -> str:
        """Return its standard error."""

    @property
    def seconds(self) -> float:
        """Return how long it ran on the guest."""


class Shell(Protocol):
    """One long-lived root shell on the guest."""

    def run(self, command: str) -> Answer:
        """Run one command."""

    def run_many(self, commands: Sequence[str]) -> Sequence[Answer]:
        """Run commands, one after the other, in one round trip."""


@dataclass(frozen=True)
class Asked:
    """A command that a check asked for."""

    command: str
    reads: bool
    seconds: float = field(default=0.0, compare=False)
    """How long it ran, as far as that is known."""


class Ahead:
    """Root shells that have many answers before they are asked for. They work side by side, each on a batch."""

    def __init__(self, shells: Sequence[Shell], recorded: Sequence[Asked] = ()) -> None:
        self.free: SimpleQueue[Shell] = SimpleQueue()
        for shell in shells:
            self.free.put(shell)
        self.shells = len(shells)
        self.pool = ThreadPoolExecutor(len(shells), "ahead")
        self.expected = deque(recorded)
        self.under_way: list[Future[Sequence[Answer]]] = []
        self.answers: dict[str, deque[tuple[Future[Sequence[Answer]], int]]] = defaultdict(deque)
        self.asked: list[Asked] = []
        self.rehearsals = 0 if recorded else REHEARSALS
        """How many more are worth it."""
        self.rehearsed: Counter[str] = Counter()
        """How often each command was asked for in this rehearsal."""
        self.live = 0
        """Commands that had no answer waiting."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *problem: object) -> None:
        """Let the shells end the batches that they are at; the rest is not run."""
        self.pool.shutdown(cancel_futures=True)

    def send(self) -> None:
        """Start what is recorded up to the next command that may write, what takes long first. Waits for nothing."""
        commands = []
        while self.expected and self.expected[0].reads:
            commands.append(self.expected.popleft())
        self.send_reads(sorted(commands, key=lambda asked: -asked.seconds if asked.seconds >= LONG_SECONDS else 0.0))

    def send_reads(self, commands: Sequence[Asked]) -> None:
        """Give commands that only read to the shells, in batches. Nothing is waited for."""
        for batch in split(commands, self.shells):
            self.start([asked.command for asked in batch])

    def start(self, commands: Sequence[str]) -> None:
        """Give a batch to the next shell that is free, and its answers to those who will ask."""
        batch = self.pool.submit(self.run_batch, commands)
        self.under_way.append(batch)
        for place, command in enumerate(commands):
            self.answers[command].append((batch, place))

    def run_batch(self, commands: Sequence[str]) -> Sequence[Answer]:
        """Run commands in a shell that nobody else uses: there are as many shells as threads."""
        shell = self.free.get()
        try:
            return shell.run_many(commands)
        finally:
            self.free.put(shell)

    def run(self, command: str, reads: bool) -> Answer:
        """Return the answer to a command, from what was sent ahead or live."""
        answer = self.look_up(command) if reads else self.change(command)
        self.asked.append(Asked(command, reads, answer.seconds))
        return answer

    def look_up(self, command: str) -> Answer:
        """Return the answer to a command that reads, and use it up; a command that was not sent ahead is sent now."""
        if not self.answers[command]:
            self.live += 1
            self.start([command])
        batch, place = self.answers[command].popleft()
        return batch.result()[place]

    def rehearse(self, command: str, reads: bool) -> Answer | None:
        """Return an answer to a command, if one is known or under way. It is not used up."""
        if not reads:
            return None
        self.rehearsed[command] += 1
        if not self.answers[command]:
            return None
        batch, place = self.answers[command][0]
        return batch.result()[place]

    def wants_rehearsal(self) -> bool:
        """Send ahead what the last rehearsal missed, and return whether another one may be worth its time.

        If not, everything is sent as often as it was asked for: each check gets an answer of its own.
        """
        missed = [command for command in self.rehearsed if not self.answers[command]]
        first = self.rehearsals == REHEARSALS
        stopped = sum(self.rehearsed[command] for command in missed)
        self.rehearsals = self.rehearsals - 1 if first or stopped >= WORTH_A_REHEARSAL else 0
        if not self.rehearsals:
            missed = [
                command for command, times in self.rehearsed.items() for _ in range(times - len(self.answers[command]))
            ]
        self.rehearsed.clear()
        self.send_reads([Asked(command, reads=True) for command in missed])
        return self.rehearsals > 0

    def change(self, command: str) -> Answer:
        """Run a command that may write, alone. What was read before it is forgotten, and read again after it."""
        self.live += 1
        wait(self.under_way)
        self.under_way.clear()
        self.answers.clear()
        answer = self.run_batch([command])[0]
        while self.expected and self.expected[0].reads:
            self.expected.popleft()
        if self.expected and self.expected[0].command == command:
            self.expected.popleft()
            self.send()
        return answer


def split(commands: Sequence[Asked], shells: int) -> Iterator[Sequence[Asked]]:
    """Return batches, large ones first: few round trips, and yet all shells end at about the same time."""
    left = sum(map(work, commands))
    batch: list[Asked] = []
    taken = 0.0
    for asked in commands:
        batch.append(asked)
        taken += work(asked)
        if taken >= max(BATCH_SECONDS, left / (2 * shells)):
            yield batch
            batch, left, taken = [], left - taken, 0.0
    if batch:
        yield batch


def work(asked: Asked) -> float:
    """Return the seconds that a command is expected to take."""
    return EACH_SECONDS + asked.seconds


def only_reads(command: str) -> bool:
    """Return whether a command surely changes nothing: a pipeline of well-known readers, and no shell magic."""
    plain = HARMLESS_REDIRECTION.sub(" ", command)
    if re.search(r"[`<>\n\\]|\$\(", plain):
        return False
    try:
        words = shlex.shlex(plain, posix=True, punctuation_chars=True)
        words.whitespace_split = True
        return all(simple_reads(part) for part in split_at_operators(words))
    except ValueError:
        return False


def split_at_operators(words: Iterable[str]) -> list[list[str]]:
    """Return the simple commands of a list or pipeline."""
    commands: list[list[str]] = [[]]
    for word in words:
        if word in ("|", "||", "&&", ";"):
            commands.append([])
        else:
            commands[-1].append(word)
    return commands


def simple_reads(words: list[str]) -> bool:
    """Return whether one simple command is a reader."""
    if not words or set("".join(words)) & set("()&"):
        return False
    if words[0] == "command":
        return words[1:2] == ["-v"]
    if words[0] == "systemctl":
        return any(word in SYSTEMCTL_READS for word in words[1:2])
    if words[0] == "hostname":
        return len(words) == 1
    return words[0] in READERS


def name_recording(files: Iterable[Path], layer: str, subject: str) -> str:
    """Return the file name of the recording of these checks: another byte in a check makes it another one."""
    digest = hashlib.sha256(f"{layer}\0{subject}\0".encode())
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes())
    return f"{subject}-{layer}-{digest.hexdigest()[:16]}.json"


def read_recording(path: Path, facts: Mapping[str, str]) -> tuple[Asked, ...]:
    """Return what was asked last time, with the facts of this build in place of those of the last one.

    Without what asks for a fact that this build does not have. Nothing when there is no such file, or it cannot be
    read.
    """
    try:
        recorded = [
            Asked(str(command), reads is True, float(seconds))
            for command, reads, seconds in json.loads(path.read_text())
        ]
    except (OSError, ValueError, TypeError):
        return ()
    for name, value in facts.items():
        recorded = [replace(one, command=one.command.replace(place_of(name), value)) for one in recorded]
    return tuple(one for one in recorded if "\0" not in one.command)


def place_of(fact: str) -> str:
    """Return what stands in a recorded command where the value of a fact was."""
    return f"\0{fact}\0"


def write_recording(path: Path, asked: Sequence[Asked], facts: Mapping[str, str]) -> None:
    """Keep what was asked, for the next time; readable by its owner only. A full or read-only disk does not matter.

    The facts of this build are left out: the next one has others.
    """
    recorded = list(asked)
    for name, value in facts.items():
        if value:
            recorded = [replace(one, command=one.command.replace(value, place_of(name))) for one in recorded]
    lines = [(one.command, one.reads, round(one.seconds, 2)) for one in recorded]
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        draft = path.with_suffix(f".{os.getpid()}")
        draft.touch(mode=0o600)
        draft.write_text(json.dumps(lines))
        draft.replace(path)
    except OSError:
        return
