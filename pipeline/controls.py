"""Traceability: for each control of the catalogue, what in the code sets it and what proves it.

It is read from the code itself: every id of a control that stands in it as a value, and the marks of the checks. So the
list cannot say more than the code does; what a spec switches off is in it too.
"""

import ast
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.report.catalogue import CATALOGUE, SOURCES, Control
from pipeline.report.evidence import Layer

PIPELINE = Path(__file__).parent
CHECKS = PIPELINE.parent / "checks"
STEP_ROOMS = ("harden", "scrub")
STEP_LAYERS = frozenset({Layer.HARDENED, Layer.SCRUBBED})
PROOF_ROOMS = {
    "stages": (Layer.FRESH_BOOT, Layer.AWS),
    "verify": (Layer.FRESH_BOOT,),
    "residue": (Layer.RAW,),
    "publish": (Layer.AWS,),
    "audit": (Layer.AWS,),
}
"""What proves something besides the checks, and at which layers, where the function itself names none."""
COLUMNS = ("control", "what", "layers", "set by", "proved by", "sources")


@dataclass(frozen=True)
class Proof:
    """One check of `checks/`, or one module of ours that proves, with the layers that it does so at."""

    name: str
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Trace:
    """What serves one control."""

    control: Control
    steps: tuple[str, ...]
    """The subjects that set or scrub it: `harden/sshd`."""
    checks: tuple[Proof, ...]
    proofs: tuple[Proof, ...]
    """What else proves it: `residue/patterns`, `stages/seal`."""

    @property
    def missing(self) -> tuple[str, ...]:
        """What the catalogue demands, and nothing in the code serves."""
        served = {layer for proof in (*self.checks, *self.proofs) for layer in proof.layers}
        is_set = any(layer in (Layer.HARDENED, Layer.SCRUBBED) for layer in self.control.layers)
        return (
            *(["a step"] if is_set and not self.steps else []),
            *(f"a proof at {layer.words}" for layer in self.control.proved_at if layer not in served),
        )

    def row(self) -> tuple[str, ...]:
        """Return it as a row under `COLUMNS`; the checks of a file are counted."""
        files = Counter(check.name.split("::")[0] for check in self.checks)
        proofs = (*(f"{file} ({count})" for file, count in files.items()), *(proof.name for proof in self.proofs))
        reasons = (f"not at {layer.words}: {reason}" for layer, reason in self.control.not_applicable.items())
        return (
            self.control.identity,
            self.control.title,
            " ".join(layer.value for layer in self.control.layers),
            ", ".join(self.steps),
            ", ".join((*proofs, *reasons, *(f"missing: {what}" for what in self.missing))),
            " ".join(self.control.sources),
        )


def trace_controls(pipeline: Path = PIPELINE, checks: Path = CHECKS) -> tuple[Trace, ...]:
    """Return what serves each control, in the catalogue's order."""
    steps = dict(_collect(pipeline, STEP_ROOMS))
    proofs = {
        f"{room}/{path.stem}": find_claims(path, layers)
        for room, layers in PROOF_ROOMS.items()
        for path in sorted((pipeline / room).glob("*.py"))
    }
    marked: dict[str, list[Proof]] = {}
    for path in sorted(checks.glob("test_*.py")):
        for identity, check in find_checks(path):
            marked.setdefault(identity, []).append(check)
    return tuple(
        Trace(
            control,
            steps=tuple(
                [name for name, found in steps.items() if control.identity in found]
                + [name for name, found in proofs.items() if found.get(control.identity, set()) & STEP_LAYERS]
            ),
            checks=tuple(marked.get(control.identity, ())),
            proofs=tuple(
                Proof(name, tuple(layer for layer in Layer if layer in found[control.identity] - STEP_LAYERS))
                for name, found in proofs.items()
                if found.get(control.identity, set()) - STEP_LAYERS
            ),
        )
        for control in CATALOGUE.values()
    )


def _collect(pipeline: Path, rooms: tuple[str, ...]) -> Iterator[tuple[str, set[str]]]:
    for room in rooms:
        for path in sorted((pipeline / room).glob("*.py")):
            yield f"{room}/{path.stem}", find_controls(path)


def find_controls(path: Path) -> set[str]:
    """Return the ids of controls that stand in a module as values; what only its comments and texts say is none."""
    return _controls_in(ast.parse(path.read_text()))


def find_claims(path: Path, layers: Iterable[Layer]) -> dict[str, set[Layer]]:
    """Return for each control of a module at which layers it serves it.

    These are the layers that the same function names, as `Layer.LIVE`; where it names none, the given ones.
    """
    claims: dict[str, set[Layer]] = {}
    for part in ast.parse(path.read_text()).body:
        for control in _controls_in(part):
            claims.setdefault(control, set()).update(_layers_in(part) or layers)
    return claims


def _controls_in(part: ast.AST) -> set[str]:
    constants = (node.value for node in ast.walk(part) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str) and value in CATALOGUE}


def _layers_in(part: ast.AST) -> set[Layer]:
    return {
        Layer[node.attr]
        for node in ast.walk(part)
        if isinstance(node, ast.Attribute) and ast.unparse(node.value) == "Layer" and node.attr in Layer.__members__
    }


def find_checks(path: Path) -> Iterator[tuple[str, Proof]]:
    """Yield each check of a file for each control in its marks."""
    for node in ast.parse(path.read_text()).body:
        if not isinstance(node, ast.FunctionDef) or not node.name.startswith("test_"):
            continue
        for mark in node.decorator_list:
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.controls":
                letters = [ast.literal_eval(word.value) for word in mark.keywords if word.arg == "layers"]
                layers = tuple(Layer(letter) for letter in "".join(letters))
                check = Proof(f"{path.parent.name}/{path.name}::{node.name}", layers)
                yield from ((ast.literal_eval(argument), check) for argument in mark.args)


def legend() -> Iterator[str]:
    """Yield what the letters of layers and the short names of sources stand for."""
    yield "layers: " + ", ".join(f"{layer} {layer.words}" for layer in Layer)
    yield "sources: " + ", ".join(f"{short} {words}" for short, words in SOURCES.items())


def as_json(traces: tuple[Trace, ...]) -> str:
    """Return the list as JSON, with every check by its name."""
    document = {
        trace.control.identity: {
            "title": trace.control.title,
            "layers": [str(layer) for layer in trace.control.layers],
            "sources": list(trace.control.sources),
            "steps": list(trace.steps),
            "checks": {check.name: [str(layer) for layer in check.layers] for check in trace.checks},
            "proofs": [proof.name for proof in trace.proofs],
            "not applicable": {str(layer): reason for layer, reason in trace.control.not_applicable.items()},
            "missing": list(trace.missing),
        }
        for trace in traces
    }
    return json.dumps(document, indent=2)
