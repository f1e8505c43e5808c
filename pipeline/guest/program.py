"""Many steps become one POSIX sh program: one round trip, results as they happen, and nothing lost with the connection.

How it runs on the guest, under dash, busybox ash or bash:

- The text arrives on the standard input of a root shell, so that it is never in a process list and never on a disk. It
  only defines functions; its last line calls `main`. A text that was cut short therefore does nothing at all.
- `main` starts the *runner* in the background and then *follows* it: the runner performs the steps and appends records
  to a file under /run (tmpfs, root only); the follower prints them. When the connection breaks, the follower dies and
  the runner goes on, so no step is ever cut in half by the network.
- The same `Program` run again finds the runner by its run id and follows it from its first record. Where the runner is
  dead (it was killed), a new one takes over: a step with an outcome is not repeated, a step that only began is tested
  again. A program that is compiled anew starts anew, after whatever still runs; its tests find what is done already.
- The record file is removed when the reader has acknowledged the end.
- What a step prints goes into a file of its own, and into the record as base64: it cannot forge a record. Records carry
  a nonce besides, because a login shell may print anything before the program starts.
"""

import base64
import hashlib
import secrets
import shlex
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from pipeline.errors import GuestFailed
from pipeline.guest.environment import PRELUDE
from pipeline.guest.step import Script, Secret, Step, mask, reveal

MACHINERY = Path(__file__).with_name("machinery.sh")
STATE_FOLDER = "/run/assay"
OUTPUT_BYTES = 8192
ACKNOWLEDGEMENT = "acknowledged\n"
"""What the reader sends on the program's standard input once it has the last record."""

MINIMUM_MASKED = 6
"""Pieces of a secret that are shorter than this are not looked for in output: they would mask ordinary words."""


class Outcome(StrEnum):
    """How a step ended. `OK`: there was nothing to do."""

    OK = "ok"
    CHANGED = "changed"
    FAILED = "failed"
    SKIPPED = "skipped"


@dataclass(frozen=True)
class StepResult:
    """What became of one step."""

    step: Step
    outcome: Outcome
    output: str = ""
    """The last 8 KiB that it printed, secrets masked."""
    seconds: float = 0.0
    exit_status: int = 0


@dataclass(frozen=True)
class Program:
    """A compiled program. It prints without its secrets; `text` is for the guest's standard input only."""

    steps: tuple[Step, ...]
    nonce: str = field(repr=False)
    state_folder: str = STATE_FOLDER

    @cached_property
    def text(self) -> str:
        """What the guest runs. It holds the secrets."""
        return assemble(self.steps, self.nonce, self.state_folder, reveal)

    @cached_property
    def masked(self) -> str:
        """The same program for people to read: secrets and nonce are masked, everything else is as it runs."""
        return assemble(self.steps, "NONCE", self.state_folder, mask)

    @cached_property
    def digest(self) -> str:
        """SHA-256 of the masked text, in hex: the same steps give the same digest, and it says nothing of a secret."""
        return hashlib.sha256(self.masked.encode()).hexdigest()


def compile_program(steps: Iterable[Step], state_folder: str = STATE_FOLDER) -> Program:
    """Return the program that performs `steps` in order. It may be run again after a broken connection."""
    return Program(tuple(steps), secrets.token_hex(16), state_folder)


def assemble(steps: tuple[Step, ...], nonce: str, state_folder: str, write: Callable[[Script], str]) -> str:
    """Return the text of a program: the steps as functions, the machinery, and the one line that starts it."""
    definitions = "\n".join(define_step(number, step, write) for number, step in enumerate(steps, 1))
    calls = "\n".join(f"    perform {number} {traits(step)}" for number, step in enumerate(steps, 1))
    # `main` and `exit` share the last line: what follows on standard input is the acknowledgement, and not program.
    return (
        f"# A guest program of Assay: {len(steps)} steps, run as root by sh from standard input.\n\n"
        f"{definitions}\n{PRELUDE}{MACHINERY.read_text()}\n"
        f"run_steps() {{\n    :\n{calls}\n}}\n\n"
        f"assay_nonce={shlex.quote(nonce)}\nassay_state={shlex.quote(state_folder)}\n"
        f"assay_output_bytes={OUTPUT_BYTES}\nmain; exit 0\n"
    )


def define_step(number: int, step: Step, write: Callable[[Script], str]) -> str:
    """Return a step as two functions, `test_N` and `action_N`, under a comment that says what it is for."""
    optional = ", optional" if step.optional else ""
    controls = f" [{', '.join(step.controls)}]" if step.controls else ""
    comment = " ".join(f"{number}. {step.subject}{controls}{optional}: {step.title}".split())
    functions = [f"# {comment}"]
    if step.test is not None:
        functions.append(define_function(f"test_{number}", step.test, write))
    functions.append(define_function(f"action_{number}", step.action, write))
    return "\n".join(functions) + "\n"


def define_function(name: str, script: Script, write: Callable[[Script], str]) -> str:
    """Return a script as a function. The text stays at the left margin, where a here-document needs its end."""
    return f"{name}() {{\n:\n{write(script)}\n}}"


def traits(step: Step) -> str:
    """Return what `perform` has to know of a step."""
    return f"{'optional' if step.optional else 'required'} {'untested' if step.test is None else 'tested'}"


class RecordReader:
    """Reads the stream of one program, over as many connections as it takes. Each step is reported once."""

    def __init__(self, program: Program, began: Callable[[Step], None] | None = None) -> None:
        self.program = program
        self.began = began
        self.reported: set[int] = set()
        self.finished = False
        self.current: Step | None = None
        """The step that the guest is busy with."""
        self.noise = ""
        """The end of what arrived besides records: a banner, or a shell's complaint."""

    def read(self, line: str) -> StepResult | None:
        """Take one line; return the result that it brings, if it brings one. Raises GuestFailed on a broken record."""
        head, _, rest = line.rstrip("\n").partition(" ")
        if head != self.program.nonce:
            self.noise = (self.noise + line)[-2000:]
            return None
        try:
            return self.read_record(rest.split())
        except ValueError as error:
            raise GuestFailed(f"the guest program sent a broken record: {visible(rest)[:200]}") from error

    def read_record(self, fields: list[str]) -> StepResult | None:
        """Take the fields of one record. Raises ValueError on one that is broken."""
        match fields:
            case ["end", "."]:
                self.finish()
            case ["died", *trouble, "."]:
                raise GuestFailed(f"the guest program died: {decode_output(''.join(trouble), self.program)}".strip())
            case [number, outcome, exit_status, began, ended, printed, "."]:
                return self.read_outcome(int(number), outcome, int(exit_status), float(ended) - float(began), printed)
        return None

    def read_outcome(
        self, number: int, outcome: str, exit_status: int, seconds: float, printed: str
    ) -> StepResult | None:
        """Return the result of a step that ended; None for one that began, or whose end is known."""
        if not 1 <= number <= len(self.program.steps):
            raise GuestFailed(f"the guest program reports a step {number} that it does not have")
        step = self.program.steps[number - 1]
        if number in self.reported:
            return None
        if outcome == "began":
            self.current = step
            if self.began:
                self.began(step)
            return None
        self.reported.add(number)
        self.current = None
        output = decode_output(printed.removeprefix("-"), self.program)
        return StepResult(step, Outcome(outcome), output, max(seconds, 0.0), exit_status)

    def finish(self) -> None:
        """Note the end. Raises GuestFailed when the guest forgot a step: /run was full, for example."""
        missing = [step.title for number, step in enumerate(self.program.steps, 1) if number not in self.reported]
        if missing:
            raise GuestFailed(f"the guest program ended without an outcome for: {'; '.join(missing)}")
        self.finished = True


def parse_records(program: Program, lines: Iterable[str]) -> Iterator[StepResult]:
    """Yield the result of each step as its record comes.

    Raises GuestFailed when a record is wrong, when the program died, and when the lines end before the program does.
    """
    reader = RecordReader(program)
    for line in lines:
        result = reader.read(line)
        if result is not None:
            yield result
    if not reader.finished:
        raise GuestFailed(f"the guest program did not run to its end: {visible(reader.noise).strip() or 'no output'}")


def decode_output(printed: str, program: Program) -> str:
    """Return what a step printed: base64 to text, without control characters, secrets masked."""
    raw = base64.b64decode(printed, validate=True)
    return visible(mask_secrets(raw.decode(errors="replace"), program, cut=len(raw) >= OUTPUT_BYTES)).strip("\n")


def visible(text: str) -> str:
    """Return text that cannot command a terminal: no control characters but line feeds and tabs."""
    return "".join(character if character.isprintable() or character in "\n\t" else "" for character in text)


def mask_secrets(text: str, program: Program, cut: bool) -> str:
    """Return text with every secret of the program masked, line by line too; `cut`: the text may begin inside one."""
    found = {
        piece: str(part)
        for step in program.steps
        for script in (step.action, step.test or "")
        for part in ((script,) if isinstance(script, str) else script)
        if isinstance(part, Secret)
        for piece in pieces(part.reveal)
    }
    for piece in sorted(found, key=len, reverse=True):
        text = text.replace(piece, found[piece])
        if cut:
            tails = (piece[start:] for start in range(1, len(piece) - MINIMUM_MASKED + 1))
            tail = next((tail for tail in tails if text.startswith(tail)), "")
            text = f"{found[piece]}{text[len(tail) :]}" if tail else text
    return text


def pieces(secret: str) -> Iterator[str]:
    """Yield what must not be seen of a secret: the whole, as the shell quotes it, and each line of it."""
    yield from filter(None, (secret, secret.replace("'", shlex.quote("'")[1:-1])))
    yield from (line for line in map(str.strip, secret.splitlines()) if len(line) >= MINIMUM_MASKED)
