"""Every check names the controls that it proves, and nothing of the pipeline but the spec."""

import ast
from pathlib import Path

import pytest

from pipeline.report.catalogue import CATALOGUE

CHECKS = Path(__file__).parents[2] / "checks"
FILES = sorted(CHECKS.glob("test_*.py"))


def checks_of(path):
    """Return each check of a file with the controls and layers of its marks."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            marks = [one for one in node.decorator_list if ast.unparse(one).startswith("pytest.mark.controls(")]
            controls = [argument.value for mark in marks for argument in mark.args]
            layers = "".join(word.value.value for mark in marks for word in mark.keywords if word.arg == "layers")
            yield node, controls, layers


ALL = {f"{path.stem}::{node.name}": (node, *marks) for path in FILES for node, *marks in checks_of(path)}


def test_every_check_names_its_controls_and_layers():
    assert [
        name
        for name, (_, controls, layers) in ALL.items()
        if not controls or not set(controls) <= CATALOGUE.keys() or layers not in ("L", "B", "LB")
    ] == []


def test_every_check_says_what_it_proves():
    assert [name for name, (node, *_) in ALL.items() if not ast.get_docstring(node)] == []


def test_names_of_checks_are_unique_in_a_file():
    assert len(ALL) == sum(1 for path in FILES for _ in checks_of(path))


@pytest.mark.parametrize(
    "identity",
    # These have a check at each of their layers L and B.
    [
        *(f"H{number:02}" for number in (*range(1, 7), *range(8, 19), *range(20, 26), 27, *range(29, 33))),
        *(f"S{number:02}" for number in (*range(1, 9), *range(10, 15), 22)),
        "V10",
    ],
)
def test_a_control_has_checks_at_its_layers(identity):
    covered = {
        layer for path in FILES for _, controls, layers in checks_of(path) if identity in controls for layer in layers
    }
    wanted = {layer.value for layer in CATALOGUE[identity].proved_at} & {"L", "B"}
    assert wanted <= covered


def test_the_catalogue_is_complete():
    assert len(CATALOGUE) == 32 + 23 + 10 + 6 + 22
    assert all(control.title and control.layers for control in CATALOGUE.values())
