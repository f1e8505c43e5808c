"""A small Debian in a folder, and a root shell in it: enough of a guest for most checks, without booting one."""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Output:
    """What a command left."""

    exit_status: int
    stdout: str
    stderr: str


@dataclass(frozen=True)
class ChrootShell:
    """Runs commands as root in a folder that holds a system; needs root."""

    root: Path

    def run(self, command: str) -> Output:
        """Run one command."""
        done = subprocess.run(
            ["chroot", str(self.root), "/bin/sh", "-c", command],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"},
            check=False,
        )
        return Output(
            done.returncode, *(text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        )

    def run_many(self, commands: Sequence[str]) -> list[Output]:
        """Run commands, one after the other."""
        return [self.run(command) for command in commands]
