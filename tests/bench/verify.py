"""How fast a guest is verified 80 ms away: `invoke bench --only verify`.

Two sets of checks: a hundred and twenty as people write them with testinfra, and Assay's own. Each is run over our
session, over testinfra's paramiko backend, and as one batched agent: the same commands as one script over one channel,
by hand, without a test runner. The runs of all take turns, so that a loaded machine slows all of them. Last, other
judges and our checks look at the same guest (`same_guest.py`).
"""

import select
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

from pipeline.guest.shell import Channel, Shell
from pipeline.report.evidence import Layer, Status
from pipeline.stages.guests import ROOT_SHELLS
from pipeline.verify.ahead import read_recording
from pipeline.verify.live import CHECKS, start_checks
from tests.bench import same_guest
from tests.bench.rows import Row
from tests.verify.far_debian import FarDebian, ask_by_paramiko, far_debian

ORDINARY = Path(__file__).with_name("ordinary_checks.py")
RUNS = 7
RUNS_OF_PEERS = 3
COLLECT_SECONDS = 60
END = "assay-bench-end"


@dataclass
class Times:
    """The seconds of each run of one set of checks."""

    checks: int = 0
    first: list[float] = field(default_factory=list)
    again: list[float] = field(default_factory=list)
    agent: list[float] = field(default_factory=list)
    paramiko: list[float] = field(default_factory=list)
    four: list[float] = field(default_factory=list)


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return the rows: seconds of each set of checks beside the batched agent and the stock backend."""
    rows = []
    for what, checks in (("ordinary checks", ORDINARY), ("Assay's own checks", CHECKS)):
        with tempfile.TemporaryDirectory(prefix="assay-bench-") as name, far_debian(Path(name)) as far:
            # Beside this file pytest would find what is for our tests only.
            suite = checks if checks == CHECKS else Path(shutil.copy(checks, name))
            rows += rows_of(what, run_all(far, Path(name), suite))
    return [*rows, *same_guest.measure(start_local_cloud())]


def run_all(far: FarDebian, folder: Path, checks: Path) -> Times:
    """Run one set of checks by all ways, in turns."""
    times = Times()
    shell = far.log_in()
    for turn in range(RUNS):
        recordings = folder / f"recordings-{turn}"
        for seconds in (times.first, times.again):
            outcomes, taken = run_ours(far, shell, folder, checks, recordings)
            seconds.append(taken)
        times.checks = len(outcomes)
        times.agent.append(run_agent(shell, recordings))
        if turn < RUNS_OF_PEERS:
            for workers, seconds in ((0, times.paramiko), (4, times.four)):
                theirs, taken = ask_by_paramiko(far, folder, checks, workers)
                assert list(theirs.values()).count("PASSED") == outcomes.count(Status.PASS), theirs
                seconds.append(taken)
    shell.close()
    return times


def run_ours(
    far: FarDebian, shell: Shell, folder: Path, checks: Path, recordings: Path
) -> tuple[Sequence[Status], float]:
    """Return the outcomes over the session that is open, and the seconds that they took.

    The checks have been collected before, as in a build, where that happens while the guest boots or is scrubbed.
    """
    root_shells = [shell.open_root_shell() for _ in range(ROOT_SHELLS)]
    with start_checks(Layer.LIVE, far.spec, folder, checks=checks) as waiting:
        select.select([waiting.wire.socket], [], [], COLLECT_SECONDS)
        started = time.monotonic()
        results = waiting.prove(root_shells, {}, recordings=recordings)
        seconds = time.monotonic() - started
    for root_shell in root_shells:
        root_shell.close()
    return [result.status for result in results], seconds


def run_agent(shell: Shell, recordings: Path) -> float:
    """Return the seconds that the commands of the last run take as one script, whose answers are read to the end."""
    commands = [asked.command for path in recordings.iterdir() for asked in read_recording(path, {})]
    script = "".join(f"( eval {quote(command)} ) </dev/null 2>&1\necho {END} $?\n" for command in commands)
    started = time.monotonic()
    ends = started + 300
    channel = Channel(shell.login, shell.transport, "sudo sh -s", ends)
    channel.write(script.encode(), ends)
    channel.close_input()
    told = b"".join(data for is_error, data in channel.events(ends) if not is_error)
    assert told.count(END.encode()) == len(commands), told[-1000:]
    return time.monotonic() - started


def quote(command: str) -> str:
    """Return a command as one word of the shell."""
    return "'" + command.replace("'", "'\\''") + "'"


def rows_of(what: str, times: Times) -> list[Row]:
    """Return the rows of one set of checks."""
    first, again, agent, paramiko, four = (
        statistics.median(one) for one in (times.first, times.again, times.agent, times.paramiko, times.four)
    )
    title = f"{times.checks} {what}"
    stock = f"testinfra {version('pytest-testinfra')}, paramiko {version('paramiko')}"
    bounds = ("1/35", "1/14", "1/8") if what.startswith("ordinary") else ("", "", "")
    return [
        Row(title, "s", again, "one batched agent", agent, "1.35", RUNS),
        Row(title, "s", again, "testinfra", paramiko, bounds[0], RUNS_OF_PEERS, stock),
        Row(title, "s", again, "testinfra -n 4", four, bounds[1], RUNS_OF_PEERS, stock),
        Row(f"{title}, first run", "s", first, "testinfra", paramiko, bounds[2], RUNS_OF_PEERS, stock),
    ]
