"""The SARIF rendering follows the schema of OASIS, loses nothing that is wrong, and raises no alert for a pass.

sarif-schema-2.1.0.json is the schema of the standard with its errata 01, as github.com/oasis-tcs/sarif-spec has it in
sarif-2.1/schema (commit e0583813964e); it is published at the address in its `id`.
"""

import json
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.report.evidence import Finding, Layer, Result, Status
from pipeline.report.sarif import Examined, examined_by, render_sarif
from tests.report.evidence_examples import CLEAN, FULL, NASTY

FOUND = Finding(
    control="S03",
    layer=Layer.RAW,
    kind="private key",
    place="file /root/a of b of partition 1, offset 4096",
    fingerprint="0123456789ab",
    detail="RSA key",
)


@cache
def schema() -> Any:
    """Return the validator: jsonschema takes seconds to import, and every process that runs tests imports this file."""
    import jsonschema

    document = json.loads(Path(__file__).with_name("sarif-schema-2.1.0.json").read_text())
    return jsonschema.Draft4Validator(document, format_checker=jsonschema.Draft4Validator.FORMAT_CHECKER)


def sarif(*examined: Examined) -> dict:
    text = render_sarif(examined)
    assert text.isascii()
    document = json.loads(text)
    schema().validate(document)
    return document


def run_of(**parts) -> dict:
    return sarif(Examined(**{"name": "snap-1", "results": (), "findings": (), **parts}))["runs"][0]


def test_the_schema_can_refuse() -> None:
    from jsonschema import ValidationError

    document = sarif(examined_by(FULL))
    document["runs"][0]["results"][0]["level"] = "severe"
    with pytest.raises(ValidationError):
        schema().validate(document)


def test_whatever_is_wrong_in_a_build_is_an_alert_and_nothing_else_is() -> None:
    (run,) = sarif(examined_by(FULL))["runs"]
    assert [(alert["ruleId"], alert["level"]) for alert in run["results"]] == [
        ("R03", "error"),
        ("H01", "error"),
        ("H02", "error"),
    ]
    rules = run["tool"]["driver"]["rules"]
    assert all(rules[alert["ruleIndex"]]["id"] == alert["ruleId"] for alert in run["results"])
    assert "could not be asked" in run["results"][2]["message"]["text"]
    notes = [note["message"]["text"] for note in run["invocations"][0]["toolExecutionNotifications"]]
    assert [note.split("\n")[0] for note in notes] == [
        "one check failed",
        "volume vol-1 in eu-central-1 is left: in use",
    ]
    assert run["invocations"][0]["executionSuccessful"] is False


def test_a_clean_build_has_a_run_without_alerts() -> None:
    (run,) = sarif(examined_by(CLEAN))["runs"]
    assert run["results"] == []
    assert run["invocations"][0]["executionSuccessful"] is True


def test_a_finding_says_on_which_disk_in_which_file_and_at_which_byte() -> None:
    run = run_of(findings=(FOUND,), digest="ab" * 32)
    (place,) = run["results"][0]["locations"]
    assert place["physicalLocation"]["artifactLocation"]["uri"] == "snap-1"
    assert place["physicalLocation"]["region"] == {"byteOffset": 4096}
    assert place["logicalLocations"] == [{"fullyQualifiedName": "file /root/a of b of partition 1"}]
    assert run["artifacts"][0]["properties"] == {"blocksSha256": "ab" * 32}


def test_an_alert_is_known_again_in_the_next_run_and_told_from_others() -> None:
    other = replace(FOUND, fingerprint="ba9876543210")
    marks = [alert["partialFingerprints"]["assay/v1"] for alert in run_of(findings=(FOUND, other))["results"]]
    again = [alert["partialFingerprints"]["assay/v1"] for alert in run_of(findings=(other, FOUND))["results"]]
    assert len(set(marks)) == 2
    assert marks == again[::-1]


def test_a_check_that_serves_no_control_has_a_rule_too() -> None:
    own = Result(controls=(), layer=Layer.LIVE, status=Status.FAIL, title="web answers", source="checks-of-web/a.py")
    assert run_of(results=(own,))["results"][0]["ruleId"] == "UNNAMED"


def test_each_disk_is_a_run_of_its_own() -> None:
    clean = Examined("/tmp/ä b.raw", (), ())
    first, second = sarif(clean, Examined("snap-2", (), (FOUND,)))["runs"]
    assert (len(first["results"]), len(second["results"])) == (0, 1)
    assert first["artifacts"][0]["location"]["uri"] == "/tmp/%C3%A4%20b.raw"


@settings(max_examples=50)
@given(st.text(), st.text())
def test_no_text_breaks_it(place: str, detail: str) -> None:
    run_of(name=place, findings=(replace(FOUND, place=place + NASTY, detail=detail),))
