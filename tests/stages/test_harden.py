"""The guest boots again where the updates brought another kernel, and only there."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.build import open_context
from pipeline.guest.program import Outcome, Program, StepResult
from pipeline.guest.root_shell import Output
from pipeline.report.console import Console
from pipeline.report.evidence import Status
from pipeline.stages.context import Context
from pipeline.stages.harden import run_newest_kernel
from pipeline.stages.launch import Launched
from tests.harden.samples import DEBIAN, spec


@dataclass
class Guest:
    """A guest that says so often why it has to boot again."""

    reasons: list[str]
    did: list[object] = field(default_factory=list)

    def run(self, command: str, **_: Any) -> Output:
        if "needs_reboot" in command:
            return Output(0, self.reasons.pop(0), "")
        return Output(0, "machine boot-2\n", "")

    def run_program(self, program: Program) -> Iterator[StepResult]:
        self.did.append("program")
        yield from (StepResult(step, Outcome.OK) for step in program.steps)


@pytest.fixture
def context(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Context]:
    monkeypatch.setattr("pipeline.stages.harden.gather_facts", lambda _: DEBIAN)
    monkeypatch.setattr(
        "pipeline.stages.harden.boot_again", lambda _, guest, *how: guest.shell.did.append(how) or guest
    )
    session: Any = SimpleNamespace(region="eu-central-1", caller_arn="arn:aws:iam::111122223333:user/a", cloud="local")
    opened = open_context(spec(), tmp_path / "spec.yaml", session, tmp_path, Console(quiet=True))
    with opened.journal:
        yield opened


def launched(guest: Guest) -> Launched:
    instance: Any = SimpleNamespace(instance=SimpleNamespace(instance_id="i-1"), shell=guest)
    base: Any = None
    return Launched(instance, base, base, "snap-0", DEBIAN, "machine", "boot-1")


def kernel_status(context: Context) -> list[Status]:
    return [result.status for result in context.recorder.evidence().results if result.source == "stages/harden"]


def test_nothing_happens_where_the_newest_kernel_runs(context: Context) -> None:
    guest = Guest([""])
    after = run_newest_kernel(context, launched(guest))
    assert (guest.did, after.boot_id, kernel_status(context)) == ([], "boot-1", [Status.PASS])


def test_a_new_kernel_is_booted_and_every_step_runs_again(context: Context) -> None:
    guest = Guest(["vmlinuz-6.1.0-10 is newer than what runs\n", ""])
    after = run_newest_kernel(context, launched(guest))
    assert (guest.did, after.boot_id, kernel_status(context)) == (
        [("reboot", "instance"), "program"],
        "boot-2",
        [Status.PASS],
    )
    assert [stage.name for stage in context.recorder.evidence().stages] == ["reboot"]


def test_a_kernel_that_does_not_come_up_is_a_failure_and_no_loop(context: Context) -> None:
    guest = Guest(["vmlinuz-6.1.0-10 is newer than what runs\n"] * 2)
    run_newest_kernel(context, launched(guest))
    assert (guest.did, kernel_status(context)) == ([("reboot", "instance"), "program"], [Status.FAIL])
