"""Each control has what sets it and what proves it, at each of its layers."""

import json
from functools import cache
from pathlib import Path

import pytest

from pipeline.controls import (
    CHECKS,
    COLUMNS,
    Proof,
    Trace,
    as_json,
    find_checks,
    find_claims,
    find_controls,
    legend,
    trace_controls,
)
from pipeline.report.catalogue import CATALOGUE, SOURCES
from pipeline.report.evidence import Layer


@cache
def traces() -> dict[str, Trace]:
    return {trace.control.identity: trace for trace in trace_controls()}


@pytest.mark.parametrize("identity", CATALOGUE)
def test_control_is_set_and_proved(identity: str) -> None:
    assert traces()[identity].missing == ()


def test_where_a_control_cannot_be_proved_the_list_says_why() -> None:
    trace = traces()["S22"]
    assert trace.control.not_applicable.keys() == {Layer.FRESH_BOOT}
    assert Layer.FRESH_BOOT not in trace.control.proved_at
    assert "not at fresh boot: free blocks are no matter of a running system" in trace.row()[4]


def test_every_check_and_step_names_controls_of_the_catalogue() -> None:
    named = {control for path in CHECKS.glob("test_*.py") for control, _ in find_checks(path)}
    assert named <= CATALOGUE.keys()
    assert len(named) > 30


def test_trace_of_a_control_has_its_steps_checks_and_proofs() -> None:
    trace = traces()["S01"]
    assert "scrub/keys" in trace.steps
    assert any(check.name.startswith("checks/test_keys.py::") for check in trace.checks)
    assert any(proof.name.startswith("residue/") and proof.layers == (Layer.RAW,) for proof in trace.proofs)
    assert trace.missing == ()
    row = dict(zip(COLUMNS, trace.row(), strict=True))
    assert row["control"] == "S01"
    assert row["layers"] == "S L B R"
    assert "\n" not in "".join(trace.row())


def test_json_has_every_control_with_the_layers_of_its_checks() -> None:
    document = json.loads(as_json(tuple(traces().values())))
    assert document.keys() == CATALOGUE.keys()
    assert set(document["H01"]["checks"]["checks/test_sshd.py::test_no_password_opens_the_door"]) == {"L", "B"}


def test_legend_names_every_layer_and_source() -> None:
    text = "\n".join(legend())
    assert all(word in text for word in [*SOURCES.values(), *(layer.words for layer in Layer)])


def test_only_values_count_and_not_what_texts_say(tmp_path: Path) -> None:
    module = tmp_path / "clock.py"
    module.write_text('"""Sets H24."""\n# S01\nSTEP = ("H25", "the control H26", "Z99")\n')
    assert find_controls(module) == {"H25"}


def test_marks_are_read_with_their_layers(tmp_path: Path) -> None:
    folder = tmp_path / "checks"
    folder.mkdir()
    (folder / "test_a.py").write_text(
        '@pytest.mark.controls("H01", "H02", layers="LB")\n@pytest.mark.parametrize("x", [1])\ndef test_a(x): ...\n'
        'def helper(): ...\n@pytest.mark.controls("H03", layers="B")\ndef test_b(): ...\n'
    )
    both, one = (Layer.LIVE, Layer.FRESH_BOOT), (Layer.FRESH_BOOT,)
    assert list(find_checks(folder / "test_a.py")) == [
        ("H01", Proof("checks/test_a.py::test_a", both)),
        ("H02", Proof("checks/test_a.py::test_a", both)),
        ("H03", Proof("checks/test_a.py::test_b", one)),
    ]


def test_control_that_nothing_serves_is_missing_everything(tmp_path: Path) -> None:
    (tmp_path / "checks").mkdir()
    traces = {trace.control.identity: trace for trace in trace_controls(tmp_path, tmp_path / "checks")}
    assert traces["S01"].missing == ("a step", "a proof at live", "a proof at fresh boot", "a proof at raw")
    assert "missing: a step" in traces["S01"].row()[4]


def test_claim_is_of_the_layers_that_its_function_names(tmp_path: Path) -> None:
    module = tmp_path / "launch.py"
    module.write_text(
        'ROW = ("H24",)\n'
        'def a() -> object:\n    return Result(controls=("H26",), layer=Layer.LIVE)\n'
        'def b() -> object:\n    return Result(controls=("H28", "H26"), layer=Layer.HARDENED)\n'
        'def c() -> object:\n    return compare("H27", "the layer is elsewhere")\n'
    )
    assert find_claims(module, (Layer.AWS,)) == {
        "H24": {Layer.AWS},
        "H26": {Layer.LIVE, Layer.HARDENED},
        "H28": {Layer.HARDENED},
        "H27": {Layer.AWS},
    }


def test_stage_that_serves_a_control_while_hardening_is_a_step() -> None:
    assert traces()["H28"].steps == ("stages/launch_proof",)
    assert [proof.layers for proof in traces()["H26"].proofs] == [(Layer.LIVE,)]
