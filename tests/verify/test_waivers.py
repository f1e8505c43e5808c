"""A waiver excuses what failed for its control alone, and always shows."""

from datetime import date

import pytest

from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import ControlWaiver
from pipeline.verify.waivers import list_waivers, waive

FIREWALL = ControlWaiver(control="H20", reason="the gateway filters", expires=date(2999, 1, 1))
METADATA = ControlWaiver(control="H21", reason="an agent needs it", expires=date(2999, 2, 1))


def result(*controls: str, status: Status = Status.FAIL, detail: str = "no table") -> Result:
    return Result(controls=controls, layer=Layer.LIVE, status=status, title="a check", source="checks/x", detail=detail)


def test_a_failure_of_a_waived_control_is_excused_with_the_reason() -> None:
    (excused,) = waive([result("H20")], [FIREWALL])
    assert excused.status is Status.NOT_APPLICABLE
    assert excused.detail == "waived until 2999-01-01: the gateway filters; it failed: no table"


@pytest.mark.parametrize(
    "kept",
    [
        result("H21"),
        result("H20", "S01"),
        result("H20", status=Status.UNREACHABLE),
        result("H20", status=Status.PASS),
    ],
    ids=["another control", "one of two controls", "not asked", "passed"],
)
def test_everything_else_stays_as_it_is(kept: Result) -> None:
    assert waive([kept], [FIREWALL]) == (kept,)


def test_a_check_of_two_controls_needs_two_waivers() -> None:
    (excused,) = waive([result("H20", "H21")], [FIREWALL, METADATA])
    assert "the gateway filters; waived until 2999-02-01: an agent needs it" in excused.detail


def test_every_waiver_is_in_the_report() -> None:
    (one, _) = list_waivers([FIREWALL, METADATA])
    assert (one.controls, one.status, one.title) == (
        ("H20",),
        Status.NOT_APPLICABLE,
        "H20 may fail until 2999-01-01",
    )
