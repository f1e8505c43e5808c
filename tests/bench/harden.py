"""The same operations by a guest program, by hand, and by the peers, near and far: `invoke bench --only harden`.

The target is a small Debian in namespaces of this machine; a relay before its sshd makes the round trip longer. Every
tool changes everything in a first run; ours and the scripts by hand find nothing to change in a second one. After each
it is looked whether all is as it was asked for. The peers, who take minutes a run, are asked at the longest distance
alone. Only then a guest is booted, for what others say of it (`tests/bench/judges.py`).
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console

from pipeline.errors import AssayError
from pipeline.guest.program import Outcome, StepResult, compile_program
from pipeline.guest.shell import Channel, Shell
from pipeline.guest.step import Step
from tests.bench import draw_table, judges
from tests.bench.operations import Operation, operations
from tests.bench.rows import Row
from tests.bench.target import RESET, Target, running_target
from tests.guest.sshd import Relay, running_relay
from tests.peers.environment import PeersMissing, make_environment

LOCK = Path(__file__).with_name("requirements.lock")
ROUND_TRIPS = (0.0005, 0.02, 0.08)
FAR = ROUND_TRIPS[-1]
RUNS = 9
PEER_RUNS = 1
"""A peer takes minutes a run where ours takes a second: what a run varies does not show in the ratio."""
DEADLINE_SECONDS = 1800
FIRST, SECOND = "first run, all changes", "second run, nothing changes"
BOUND = "1.3 of by hand"
DELAYED_STEPS = 12


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return the rows: times at each distance, results as they stream, a dropped connection, and outside judges."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        return [*compare(Path(folder)), *judges.measure(start_local_cloud)]


def compare(folder: Path) -> list[Row]:
    """Return the rows that need no guest."""
    wanted = operations()
    with running_target(folder) as target:
        tools = [*own_tools(wanted), *peers(wanted, target, folder)]
        found = [row for seconds in ROUND_TRIPS for row in distance_rows(target, tools, wanted, seconds)]
        return [*found, streaming_row(target), *dropped_rows(target, wanted)]


@dataclass(frozen=True)
class Tool:
    """A way to get the operations done: it is given the port of a relay, and the shell of who watches over it."""

    name: str
    run: Callable[[Shell, int], None]
    runs: int = RUNS
    versions: str = ""
    missing: str = ""
    """Why it does not run here."""
    bound: str = ""
    """What a peer's time allows ours; by hand there is none."""


def own_tools(wanted: list[Operation]) -> list[Tool]:
    """Return the guest program, and the scripts by hand that bound it."""
    return [
        Tool("ours", lambda shell, _: run_ours(shell, wanted)),
        Tool("one script by hand", script_runner(wanted, verify=False)),
        Tool("one by hand that looks again", script_runner(wanted, verify=True)),
    ]


def run_ours(shell: Shell, wanted: list[Operation]) -> None:
    """Run the guest program over a shell that is open."""
    results = list(shell.run_program(compile_program(each.step() for each in wanted)))
    failed = [result for result in results if result.outcome not in (Outcome.OK, Outcome.CHANGED)]
    if failed:
        raise AssayError(f"{failed[0].step.title}: {failed[0].output}")


def script_runner(wanted: list[Operation], verify: bool) -> Callable[[Shell, int], None]:
    """Return what runs all operations as one script; with `verify` it tests again what it changed, as ours does."""
    text = "\n".join(each.by_hand(verify) for each in wanted) + "\n"

    def run(shell: Shell, _: int) -> None:
        ends = time.monotonic() + DEADLINE_SECONDS
        channel = Channel(shell.login, shell.transport, "sh -s", ends)
        channel.write(text.encode(), ends)
        channel.close_input()
        done = b"".join(data for is_error, data in channel.events(ends) if not is_error).count(b"\n")
        if done != len(wanted):
            raise AssayError(f"the script by hand ended after {done} operations")

    return run


def peers(wanted: list[Operation], target: Target, folder: Path) -> list[Tool]:
    """Return the peers, with their playbook and their deploy."""
    known = folder / "known_hosts"
    (folder / "playbook.yml").write_text(json.dumps([{"hosts": "all", "tasks": [each.task() for each in wanted]}]))
    lines = ["from io import StringIO", "from pyinfra.operations import files, server", *(o.pyinfra for o in wanted)]
    (folder / "deploy.py").write_text("\n".join(lines) + "\n")

    def ansible(pipelined: bool) -> Callable[[Shell, int], None]:
        def run(_: Shell, port: int) -> None:
            known.write_text(f"[127.0.0.1]:{port} {target.host_key}\n")
            inventory = f"ansible_port={port} ansible_user=root ansible_ssh_private_key_file={target.key_file}"
            (folder / "hosts").write_text(f"127.0.0.1 {inventory}\n")
            run_peer(
                ["ansible-playbook", "-i", "hosts", "playbook.yml"],
                folder,
                ANSIBLE_PIPELINING=str(pipelined),
                ANSIBLE_SSH_EXTRA_ARGS=f"-o UserKnownHostsFile={known}",
            )

        return run

    def pyinfra(_: Shell, port: int) -> None:
        known.write_text(f"[127.0.0.1]:{port} {target.host_key}\n")
        (folder / "inventory.py").write_text(
            f'hosts = [("127.0.0.1", {{"ssh_port": {port}, "ssh_user": "root", "ssh_key": "{target.key_file}", '
            f'"ssh_known_hosts_file": "{known}"}})]\n'
        )
        run_peer([str(programs / "pyinfra"), "-y", "inventory.py", "deploy.py"], folder)

    try:
        programs, missing = make_environment(".venv-bench", LOCK), ""
    except PeersMissing as error:
        programs, missing = Path(), f"pyinfra cannot be installed: {error}"
    no_ansible = "" if shutil.which("ansible-playbook") else "ansible is not installed (ci/packages-bench)"
    of_ansible = "" if no_ansible else first_line("ansible", "--version")
    of_pyinfra = "" if missing else first_line(str(programs / "pyinfra"), "--version")
    return [
        Tool("ansible, defaults", ansible(False), PEER_RUNS, of_ansible, no_ansible, "1 / 100"),
        Tool("ansible, pipelined", ansible(True), PEER_RUNS, of_ansible, no_ansible, "1 / 40"),
        Tool("pyinfra", pyinfra, PEER_RUNS, of_pyinfra, missing, "1 / 50"),
    ]


class PeerFailed(Exception):
    """A peer did not get to its end: its rows say so, and the others are measured."""


def run_peer(command: list[str], folder: Path, **environment: str) -> None:
    """Run a peer to its end. Raises PeerFailed."""
    variables = os.environ | {"HOME": str(folder)} | environment
    with (folder / "log").open("w+") as log:
        try:
            subprocess.run(
                command, cwd=folder, env=variables, stdout=log, stderr=log, timeout=DEADLINE_SECONDS, check=True
            )
        except (OSError, subprocess.SubprocessError) as error:
            log.seek(0)
            raise PeerFailed(f"{error}: {log.read()[-500:]}") from error


def first_line(*command: str) -> str:
    """Return what a program says of its version."""
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[0]


def distance_rows(target: Target, tools: list[Tool], wanted: list[Operation], round_trip: float) -> list[Row]:
    """Return the rows for one length of the round trip. The tools take turns."""
    times: dict[tuple[str, str], list[float]] = {}
    logins: list[float] = []
    tools = [tool for tool in tools if round_trip == FAR or not tool.bound]
    broken = {tool.name: tool.missing for tool in tools if tool.missing}
    with running_relay(target.port, round_trip / 2) as relay:
        for turn in range(RUNS):
            for tool in tools:
                if turn < tool.runs and tool.name not in broken:
                    try:
                        times_of_tool(target, relay, tool, wanted, times, logins)
                    except PeerFailed as error:
                        broken[tool.name] = str(error)
    return [*rows(tools, times, broken, statistics.median(logins), round_trip)]


def times_of_tool(
    target: Target,
    relay: Relay,
    tool: Tool,
    wanted: list[Operation],
    times: dict[tuple[str, str], list[float]],
    logins: list[float],
) -> None:
    """Let one tool do all of it on a target that is as new, and again unless it is a peer; note the seconds."""
    watch = target.log_in(target.port)
    watch.run(RESET)
    started = time.perf_counter()
    shell = target.log_in(relay.port)
    logins.append(time.perf_counter() - started)
    for run in (FIRST,) if tool.bound else (FIRST, SECOND):
        started = time.perf_counter()
        tool.run(shell, relay.port)
        times.setdefault((tool.name, run), []).append(time.perf_counter() - started)
        print(f"{tool.name}, {run}: {times[tool.name, run][-1]:.2f} s", file=sys.stderr)
        look_again(watch, tool, wanted)
    shell.close()
    watch.close()


def look_again(watch: Shell, tool: Tool, wanted: list[Operation]) -> None:
    """Raise AssayError where a tool left something undone."""
    results = watch.run_program(compile_program(Step("look", (), o.title, "false", o.test, True) for o in wanted))
    undone = [result.step.title for result in results if result.outcome is not Outcome.OK]
    if undone:
        raise AssayError(f"{tool.name} did not do: {', '.join(undone)}")


def rows(
    tools: list[Tool],
    times: dict[tuple[str, str], list[float]],
    broken: dict[str, str],
    login: float,
    round_trip: float,
) -> Iterator[Row]:
    """Yield the rows of one distance: beside by hand over an open connection, beside a peer with the login."""
    for run in (FIRST, SECOND):
        name = f"{round_trip * 1000:g} ms, {run}"
        ours = times["ours", run]
        for tool in tools[1:]:
            theirs = times.get((tool.name, run), [])
            if tool.bound and run == SECOND:
                continue
            if tool.name in broken:
                yield Row(name, "s", statistics.median(ours) + login, f"{tool.name}: {broken[tool.name]}")
            elif tool.bound:
                value = statistics.median(theirs)
                mine = statistics.median(ours) + login
                yield Row(f"{name}, with login", "s", mine, tool.name, value, tool.bound, len(theirs), tool.versions)
            else:
                for kind, pick in (("median", statistics.median), ("smallest", min)):
                    bound = BOUND if round_trip == FAR else ""
                    yield Row(f"{name}, {kind}", "s", pick(ours), tool.name, pick(theirs), bound, len(theirs))
    first, second = (statistics.median(times["ours", run]) for run in (FIRST, SECOND))
    yield Row(f"{round_trip * 1000:g} ms, {SECOND}", "s", second, "ours, first run", first, "1", RUNS)


def streaming_row(target: Target) -> Row:
    """Return the row of how long after the end of a step its result is seen, while the program goes on."""
    steps = [Step("bench", (), f"{n}", "sleep 0.3; date +%s.%N") for n in range(DELAYED_STEPS)]
    with running_relay(target.port, FAR / 2) as relay:
        shell = target.log_in(relay.port)
        delays = [
            time.time() - float(result.output)
            for result in shell.run_program(compile_program(steps))
            if result.outcome is Outcome.CHANGED
        ]
        shell.close()
    return Row(
        f"{FAR * 1000:g} ms, from a step's end to its result", "s", statistics.median(delays), "one round trip", FAR,
        "1", len(delays),
    )  # fmt: skip


def dropped_rows(target: Target, wanted: list[Operation]) -> Iterator[Row]:
    """Yield what it costs when the connection breaks in the middle: the program goes on, only a login comes on top."""
    times: dict[bool, list[float]] = {True: [], False: []}
    logins = []
    with running_relay(target.port, FAR / 2) as relay:
        for _ in range(RUNS):
            for drops in times:
                started = time.perf_counter()
                shell = target.log_in(relay.port)
                logins.append(time.perf_counter() - started)
                shell.run(RESET)
                started = time.perf_counter()
                outcomes = Counter(result.outcome for result in cut_in_the_middle(shell, relay, wanted, drops))
                times[drops].append(time.perf_counter() - started)
                if outcomes.total() != len(wanted) or outcomes.keys() - {Outcome.OK, Outcome.CHANGED}:
                    raise AssayError(f"a program over a dropped connection ended with {dict(outcomes)}")
                shell.close()
    whole, dropped, login = (statistics.median(each) for each in (times[False], times[True], logins))
    name = f"{FAR * 1000:g} ms, connection dropped in the middle"
    yield Row(name, "s", dropped, "not dropped", whole, "", RUNS)
    yield Row(f"{name}: cost", "s", dropped - whole, "one login", login, "", RUNS)


def cut_in_the_middle(shell: Shell, relay: Relay, wanted: list[Operation], drops: bool) -> Iterator[StepResult]:
    """Yield the results of a program; break its connection once after half of them, if it `drops`."""
    program = compile_program(each.step() for each in wanted)
    for number, result in enumerate(shell.run_program(program)):
        if drops and number == len(wanted) // 2:
            relay.cut()
        yield result


def main() -> None:
    """Print what needs no guest."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as folder:
        Console(width=200).print(draw_table("harden", compare(Path(folder))))


if __name__ == "__main__":
    main()
