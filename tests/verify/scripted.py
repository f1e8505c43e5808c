"""A root shell whose answers are written down beforehand."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.errors import GuestUnreachable


@dataclass(frozen=True)
class Output:
    """What a command left."""

    exit_status: int
    stdout: str = ""
    stderr: str = ""
    seconds: float = 0.0


@dataclass
class ScriptedShell:
    """Answers from a function, and remembers what was asked in which round trip."""

    reply: Callable[[str], Output] = lambda command: Output(0, f"{command}\n")
    trips: list[list[str]] = field(default_factory=list)
    breaks_after: int | None = None

    def run(self, command: str) -> Output:
        """Run one command."""
        return self.run_many([command])[0]

    def run_many(self, commands: Sequence[str]) -> list[Output]:
        """Run commands in one round trip."""
        if self.breaks_after is not None and len(self.trips) >= self.breaks_after:
            raise GuestUnreachable("the session broke", resource="i-1")
        self.trips.append(list(commands))
        return [self.reply(command) for command in commands]
