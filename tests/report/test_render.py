"""The renderings say what the evidence says, in a form that nothing in it can break.

jsonschema takes seconds to import, and every process that runs tests imports every file of them: a test that needs it
imports it.
"""

import json
from itertools import permutations
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report import render
from pipeline.report.evidence import Evidence, Finding, Layer, Result, Stage, Status
from pipeline.report.render import (
    control_matrix,
    export_report_schema,
    failed_results,
    parse_json,
    render_json,
    render_junit,
    worst_status,
)
from pipeline.report.text import first_line, make_visible
from tests.report.evidence_examples import CLEAN, FULL, NASTY, START

SCHEMA = Path(render.__file__).with_name("report.schema.json")


def test_worst_status_wins_in_any_order() -> None:
    ranked = [Status.FAIL, Status.UNREACHABLE, Status.PASS, Status.NOT_APPLICABLE]
    assert set(ranked) == set(Status)
    for count in range(1, 5):
        for some in permutations(ranked, count):
            assert worst_status(some) is min(some, key=ranked.index)
    assert worst_status([]) is Status.NOT_APPLICABLE


def test_matrix_has_the_worst_of_each_control_and_layer() -> None:
    assert control_matrix(FULL) == {
        "H01": {Layer.LIVE: Status.PASS, Layer.FRESH_BOOT: Status.FAIL},
        "H02": {Layer.FRESH_BOOT: Status.UNREACHABLE},
        "H04": {Layer.LIVE: Status.NOT_APPLICABLE},
        "R03": {Layer.RAW: Status.FAIL},
    }


def test_unreachable_counts_as_a_failure() -> None:
    assert [failed.status for failed in failed_results(FULL)] == [Status.FAIL, Status.UNREACHABLE]


@pytest.mark.parametrize("evidence", [FULL, CLEAN])
def test_json_follows_its_schema_and_reads_back(evidence: Evidence) -> None:
    import jsonschema

    text = render_json(evidence)
    assert text.isascii()
    jsonschema.validate(json.loads(text), json.loads(export_report_schema()))
    assert parse_json(text) == evidence
    assert json.loads(text)["controls"] == json.loads(json.dumps(control_matrix(evidence)))


def test_schema_refuses_what_is_no_report() -> None:
    import jsonschema

    document = json.loads(render_json(FULL))
    document["results"][0]["status"] = "maybe"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, json.loads(export_report_schema()))
    with pytest.raises(ValueError, match="status"):
        parse_json(json.dumps(document))


def test_exported_schema_is_up_to_date() -> None:
    import jsonschema

    hint = "run: python -m pipeline.report > pipeline/report/report.schema.json"
    assert SCHEMA.read_text() == export_report_schema(), hint
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA.read_text()))


def test_junit_counts_what_failed() -> None:
    root = ElementTree.fromstring(render_junit(FULL))
    # 2 stages, the ending, 1 leak; 5 results; 1 finding
    assert (root.get("tests"), root.get("failures"), root.get("skipped")) == ("10", "6", "1")
    suites = {suite.get("name"): suite for suite in root}
    assert set(suites) == {"stages", "layer L live", "layer B fresh boot", "findings"}
    boot = suites["layer B fresh boot"]
    assert [case.get("classname") for case in boot] == ["B.checks/test_sshd.py::test_it"] * 3
    assert [case.find("failure") is not None for case in boot] == [False, True, True]
    unreachable = boot[2].find("failure")
    assert unreachable is not None
    assert unreachable.get("message") == "unreachable: no answer"
    skipped = suites["layer L live"][1].find("skipped")
    assert skipped is not None
    assert skipped.get("message") == "sshd 9.2 does not know it"


def test_junit_of_a_clean_build_has_no_failure() -> None:
    root = ElementTree.fromstring(render_junit(CLEAN))
    assert (root.get("tests"), root.get("failures"), root.get("errors")) == ("3", "0", "0")


def test_junit_shows_control_characters_and_holds_none() -> None:
    text = render_junit(FULL)
    ElementTree.fromstring(text)
    assert r"\x1b[31m\x1b]0;owned\x07" in text
    assert not any(ord(character) < 32 and character != "\n" for character in text)
    assert "\u202e" not in text


anything = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
evidences = st.builds(
    lambda results, findings, stages, error: FULL.model_copy(
        update={"results": tuple(results), "findings": tuple(findings), "stages": tuple(stages), "error": error}
    ),
    st.lists(
        st.builds(
            Result,
            controls=st.tuples(anything),
            layer=st.sampled_from(Layer),
            status=st.sampled_from(Status),
            title=anything,
            source=anything,
            detail=anything,
        ),
        max_size=4,
    ),
    st.lists(
        st.builds(
            Finding, control=anything, layer=st.sampled_from(Layer), kind=anything, place=anything, fingerprint=anything
        ),
        max_size=2,
    ),
    st.lists(
        st.builds(
            Stage,
            name=anything,
            started=st.just(START),
            seconds=st.floats(0, 1e5),
            status=st.sampled_from(Status),
            detail=anything,
        ),
        max_size=2,
    ),
    st.none() | anything,
)


@settings(max_examples=60, deadline=None)
@given(evidences)
def test_no_text_breaks_a_rendering(evidence: Evidence) -> None:
    root = ElementTree.fromstring(render_junit(evidence))
    failed = len(failed_results(evidence)) + len(evidence.findings) + len(evidence.leaks)
    failed += sum(stage.status is not Status.PASS for stage in evidence.stages) + (evidence.error is not None)
    assert root.get("failures") == str(failed)
    assert parse_json(render_json(evidence)) == evidence


@given(st.text())
def test_visible_text_acts_on_nothing(text: str) -> None:
    shown = make_visible(text)
    assert all(character in "\n\t" or ord(character) >= 32 for character in shown)
    assert not any(0x7F <= ord(character) <= 0x9F for character in shown)
    shown.encode()


def test_first_line_is_short_and_safe() -> None:
    assert first_line("  one\ntwo") == "one"
    assert len(first_line("x" * 500)) == 200
    assert "\x1b" not in first_line(NASTY)
