"""A build that kills itself: the real recipe without a guest, up to the line of its journal at which it is to die.

Run as `python -m tests.scripted_build ENDPOINT FOLDER NETWORK`, with credentials in the environment; NETWORK is the
spec's `network` as JSON. Each line of its standard
input is a build: its id, the number of the journal's line at which it dies, and `before` or `after`. It forks them,
some side by side, and answers with the same line and what became of it.
"""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib import import_module
from pathlib import Path
from typing import Any
from uuid import uuid4

from pipeline.aws.session import Session, open_session
from pipeline.aws.tags import Tags
from pipeline.build import conclude, run_recipe
from pipeline.guest.program import Outcome, Program, StepResult
from pipeline.guest.root_shell import Output
from pipeline.harden.assumed_guest import assume_facts
from pipeline.journal import Journal
from pipeline.recorder import Recorder
from pipeline.report.console import Console
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Network, Spec, load_spec, spec_digest
from pipeline.stages.context import Context

SPEC = Path(__file__).parents[1] / "specs" / "debian-12-local.yaml"
SIDE_BY_SIDE = 8
"""Builds at a time: each mostly waits."""


class MortalJournal(Journal):
    """Dies by SIGKILL at one of its lines: before it is written, or after."""

    def __init__(self, path: Path, build_id: str, cloud: str, line: int, moment: str) -> None:
        self.lines = 0
        self.last = (line, moment)
        super().__init__(path, build_id, cloud)

    def _write(self, event: str, **values: Any) -> None:
        self.lines += 1
        self.die_at("before")
        super()._write(event, **values)
        self.die_at("after")

    def die_at(self, moment: str) -> None:
        if (self.lines, moment) == self.last:
            os.kill(os.getpid(), signal.SIGKILL)


class ScriptedShell:
    """Stands in for the ssh session of a guest that boots nothing: every step is done, every command succeeds."""

    def __init__(self, stop: Callable[[], object]) -> None:
        self.stop = stop
        self.boot_id = uuid4().hex

    def run(self, command: str, **_: Any) -> Output:
        answers = {"cloud-init": json.dumps({"v1": {"errors": []}}), "needs_reboot": ""}
        answer = next((text for word, text in answers.items() if word in command), f"0123 {self.boot_id}\n")
        return Output(0, answer, "")

    def run_program(self, program: Program) -> Iterator[StepResult]:
        yield from (StepResult(step, Outcome.CHANGED) for step in program.steps)

    def open_root_shell(self) -> "ScriptedShell":
        return self

    def start_and_leave(self, _: str) -> None:
        self.stop()

    def close(self) -> None:
        """Nothing was opened."""


@dataclass(frozen=True)
class ScriptedChecks:
    """Stands in for the checks of a layer: they ask nothing, and pass."""

    layer: Layer

    def prove(self, *_: Any, **__: Any) -> tuple[Result, ...]:
        return passed(self.layer)


def passed(layer: Layer) -> tuple[Result, ...]:
    """Return the proof of a layer that needs a guest."""
    return (Result(controls=("H01",), layer=layer, status=Status.PASS, title="scripted", source="tests"),)


def script_the_guest(session: Session, spec: Spec) -> None:
    """Put a script in the place of everything that needs a guest with a Linux on it; the recipe is the real one."""

    def connect(*_: Any, resource: str, **__: Any) -> ScriptedShell:
        return ScriptedShell(lambda: session.client("ec2").stop_instances(InstanceIds=[resource]))

    def put(module: str, name: str, value: object) -> None:
        setattr(import_module(f"pipeline.stages.{module}"), name, value)

    put("guests", "connect", connect)
    put("launch", "gather_facts", lambda _: assume_facts(spec))
    put("harden", "can_log_in", lambda *_: True)
    put("context", "start_checks", lambda layer, *_, **__: nullcontext(ScriptedChecks(layer)))
    put("prove", "write_sbom", lambda *_: None)
    put("boots", "write_sbom", lambda *_: None)
    put("boots", "try_logins", lambda *_: passed(Layer.FRESH_BOOT))
    put("boots", "prove_outbound", lambda *_: passed(Layer.FRESH_BOOT)[0])
    put("boots", "prove_console", lambda *_, **__: passed(Layer.FRESH_BOOT))
    put("prove", "search_blocks", lambda *_, **__: (passed(Layer.RAW), (), "00"))
    put("prove", "prove_back_doors", lambda *_, **__: (passed(Layer.RAW), ()))
    put("prove", "prove_free_space", lambda *_: passed(Layer.RAW)[0])


def build(session: Session, folder: Path, network: Network, line: int, moment: str) -> None:
    """Run the recipe of `invoke build`, with a journal that dies at a line."""
    spec = load_spec(SPEC).model_copy(update={"network": network})
    script_the_guest(session, spec)
    tags = Tags(folder.name, spec_digest(spec), session.caller_arn, datetime.now(UTC) + timedelta(hours=4))
    console = Console(quiet=True)
    recorder = Recorder(
        folder,
        console,
        build_id=folder.name,
        spec_name=spec.name,
        spec_digest=tags.spec_digest,
        region=session.region,
    )
    journal = MortalJournal(folder / "journal.jsonl", folder.name, session.cloud, line, moment)
    recorder.take_resources(journal.resources)
    context = Context(spec, SPEC, folder.parent, session, tags, journal, recorder)
    evidence = conclude(context, console, lambda: run_recipe(context))
    assert evidence.exit_status == 0, evidence.error


def main() -> None:
    endpoint, folder, network = sys.argv[1:]
    elsewhere = open_session("us-west-2", endpoint)
    elsewhere.client("ec2")  # the model of EC2 is read here once, and not by every build
    running: dict[int, str] = {}
    for position in sys.stdin.read().splitlines():
        if len(running) == SIDE_BY_SIDE:
            report_one(running)
        running[fork(elsewhere, Path(folder), Network.model_validate_json(network), *position.split())] = position
    while running:
        report_one(running)


def fork(elsewhere: Session, folder: Path, network: Network, build_id: str, line: str, moment: str) -> int:
    """Start a build in a process of its own and return its pid."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        build(elsewhere.in_region("us-east-1"), folder / build_id, network, int(line), moment)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(status)


def report_one(running: dict[int, str]) -> None:
    """Wait for the next build that ends, and say how."""
    pid, status = os.wait()
    end = "killed" if os.WIFSIGNALED(status) else f"exit {os.waitstatus_to_exitcode(status)}"
    print(f"{running.pop(pid)} {end}", flush=True)


if __name__ == "__main__":
    main()
