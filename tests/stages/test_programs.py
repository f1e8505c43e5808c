"""What becomes of a step, as evidence."""

import pytest

from pipeline.guest.program import Outcome, StepResult
from pipeline.guest.step import Step
from pipeline.report.evidence import Layer, Status
from pipeline.stages.programs import evidence_of, last_line


def outcome(outcome: Outcome, *, optional: bool = False, output: str = ""):
    step = Step("sshd", ("H01",), "no passwords", "true", optional=optional)
    return evidence_of(StepResult(step, outcome, output, 0.5), Layer.HARDENED, "harden")


@pytest.mark.parametrize(
    ("how", "optional", "status", "changed"),
    [
        (Outcome.OK, False, Status.PASS, False),
        (Outcome.CHANGED, False, Status.PASS, True),
        (Outcome.FAILED, False, Status.FAIL, False),
        (Outcome.FAILED, True, Status.NOT_APPLICABLE, False),
        (Outcome.SKIPPED, False, Status.UNREACHABLE, False),
    ],
)
def test_status_of_each_outcome(how, optional, status, changed):
    result = outcome(how, optional=optional)

    assert (result.status, result.changed) == (status, changed)
    assert (result.controls, result.source) == (("H01",), "harden/sshd")


def test_output_is_kept_of_failures_only():
    assert outcome(Outcome.FAILED, output="no such file").detail == "no such file"
    assert outcome(Outcome.CHANGED, output="much text").detail == ""


def test_a_step_that_never_ran_says_why():
    assert outcome(Outcome.SKIPPED).detail == "an earlier step failed"


def test_last_line_that_says_something():
    assert last_line("one\n two \n\n") == "two"
    assert last_line("") == "it printed nothing"
