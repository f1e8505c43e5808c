"""How much a guest program costs beside a script that somebody wrote by hand, 80 ms away.

    python -m tests.bench.guest_program

Both go over one channel of one connection, do the same 60 tests and changes, and test again what they changed. The
machine's own load shows in the medians; the smallest values are the fairer comparison, so that both are rows.
"""

import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.guest.program import Outcome, compile_program
from pipeline.guest.shell import Channel, Shell, connect
from pipeline.guest.step import Step
from tests.bench.rows import Row
from tests.guest.sshd import running_relay, running_sshd

STEPS = 60
RUNS = 15
ROUND_TRIP_SECONDS = 0.08
BOUND = "1.3 of by hand"


def our_steps(folder: Path) -> list[Step]:
    """Return steps that each write a file and set its mode."""
    return [Step("bench", (), f"{number}", *script(folder, number)) for number in range(STEPS)]


def script(folder: Path, number: int) -> tuple[str, str]:
    """Return action and test of a step."""
    file = folder / str(number)
    return f"printf 'value {number}\\n' >{file}; chmod 600 {file}", f"grep -qx 'value {number}' {file} 2>/dev/null"


def by_hand(folder: Path) -> str:
    """Return the same as one script."""
    pieces = []
    for number in range(STEPS):
        action, test = script(folder, number)
        pieces.append(f"if {test}; then echo {number} ok; else {action}; {test}; echo {number} changed; fi\n")
    return "set -eu\n" + "".join(pieces)


def run_ours(shell: Shell, folder: Path, expected: Outcome) -> None:
    """Run our program to its last record."""
    program = compile_program(our_steps(folder), str(folder / "state"))
    assert {result.outcome for result in shell.run_program(program)} == {expected}


def run_by_hand(shell: Shell, folder: Path, expected: Outcome) -> None:
    """Run the script to its last line."""
    ends = time.monotonic() + 60
    channel = Channel(shell.login, shell.transport, "sh -s", ends)
    channel.write(by_hand(folder).encode(), ends)
    channel.close_input()
    printed = b"".join(data for is_error, data in channel.events(ends) if not is_error)
    assert printed.count(f" {expected}\n".encode()) == STEPS, printed


def measure() -> list[Row]:
    """Return the rows: a first run that changes everything, and a second that changes nothing."""
    times: dict[tuple[Callable[[Shell, Path, Outcome], None], Outcome], list[float]] = {}
    with (
        tempfile.TemporaryDirectory() as name,
        running_sshd(Path(name)) as sshd,
        running_relay(sshd.port, ROUND_TRIP_SECONDS / 2) as relay,
    ):
        shell = connect(relay.connector, sshd.user, sshd.key, sshd.host_keys, 60)
        for turn in range(RUNS):
            for run in (run_ours, run_by_hand):
                folder = Path(name) / f"{run.__name__}-{turn}"
                folder.mkdir()
                for expected in (Outcome.CHANGED, Outcome.OK):
                    begin = time.perf_counter()
                    run(shell, folder, expected)
                    times.setdefault((run, expected), []).append(time.perf_counter() - begin)
        shell.close()
    rows = []
    for expected in (Outcome.CHANGED, Outcome.OK):
        for kind, pick in (("median", statistics.median), ("smallest", min)):
            ours, hand = (pick(times[run, expected]) for run in (run_ours, run_by_hand))
            rows.append(Row(f"60 steps, {expected}, {kind}", "s", ours, "one script by hand", hand, BOUND, RUNS))
    return rows


if __name__ == "__main__":
    for row in measure():
        print("  ".join(row.cells()))
