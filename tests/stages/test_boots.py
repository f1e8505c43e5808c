"""A later boot is proved as the first one, and the report says which it was."""

import pytest

from pipeline.report.evidence import Layer, Result, Status
from pipeline.stages.boots import AGAIN, name_boot, not_booted_again
from tests.harden.samples import spec

RESULT = Result(controls=("H18",), layer=Layer.FRESH_BOOT, status=Status.FAIL, title="only ssh listens", source="x.py")


def test_a_result_of_a_later_boot_says_so():
    named = name_boot(RESULT, AGAIN["reboot"])
    assert (named.title, named.source) == ("only ssh listens (after a reboot)", "x.py (after a reboot)")
    assert named.status is Status.FAIL


def test_a_result_of_the_first_boot_is_as_it_was():
    assert name_boot(RESULT, "") is RESULT


@pytest.mark.parametrize(
    ("boots", "missing"),
    [
        ([], ["after a reboot", "after a stop and a start"]),
        (["reboot"], ["after a stop and a start"]),
        (["reboot", "stop-start"], []),
    ],
)
def test_a_boot_that_the_spec_leaves_out_is_named(boots, missing):
    results = not_booted_again(spec(prove={"boot_again": boots}))
    assert [result.title.partition("should be ")[2] for result in results] == missing
    assert all(result.status is Status.NOT_APPLICABLE and result.detail for result in results)


def test_both_are_proved_unless_the_spec_says_otherwise():
    assert spec().prove.boot_again == ("reboot", "stop-start")
