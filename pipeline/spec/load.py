"""A file read into its model, or refused with all of its problems at once."""

import difflib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TypeVar, get_args

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from pipeline.errors import SpecInvalid
from pipeline.spec.model import Part, Spec
from pipeline.spec.profiles import with_profiles
from pipeline.spec.rules import RULES, Rule
from pipeline.spec.types import shorten
from pipeline.spec.yaml_source import Place, Problem, YamlSource, display_path, read_yaml

Kind = TypeVar("Kind", bound=Part)


def load_spec(path: Path) -> Spec:
    """Return the spec that a file holds. Raises SpecInvalid with every problem: file, line, path, and what to do."""
    return load_part(path, Spec, RULES)


def load_part(path: Path, model: type[Kind], rules: tuple[Rule, ...] = ()) -> Kind:
    """Return what a YAML file holds, as a model. Raises SpecInvalid with every problem of the file and of the rules."""
    source = read_yaml(path)
    problems = list(source.problems)
    part: Kind | None = None
    if isinstance(source.value, dict):
        part, found = _validate(source, model)
        problems.extend(found)
        data = {**source.value, "harden": with_profiles(source.value.get("harden"))}
        for rule in rules:
            problems.extend(source.problem_at(place, message) for place, message in rule(data, path.parent))
    elif not problems:
        problems.append(Problem(0, "", "is empty" if source.value is None else "is not a mapping of keys to values"))
    file = display_path(path)
    if problems or part is None:
        lines = tuple(problem.describe(file) for problem in _order(problems))
        count = "one problem" if len(lines) == 1 else f"{len(lines)} problems"
        raise SpecInvalid(f"{file} has {count}", lines)
    return part


def _order(problems: list[Problem]) -> list[Problem]:
    """Return the problems by line, each once: one that says where it stands in the structure replaces its twin."""
    placed = {(problem.line, problem.message) for problem in problems if problem.path}
    return sorted({problem for problem in problems if problem.path or (problem.line, problem.message) not in placed})


def spec_digest(spec: Spec) -> str:
    """Return the sha256 (hex) of all that a spec says: equal for equal specs, however their files are written."""
    canonical = json.dumps(spec.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()


def export_schema() -> str:
    """Return the JSON Schema of specs, as specs/spec.schema.json holds it for editors."""
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Spec.model_json_schema()}
    return json.dumps(schema, indent=2) + "\n"


def _validate(source: YamlSource, model: type[Kind]) -> tuple[Kind | None, list[Problem]]:
    try:
        return model.model_validate(source.value), []
    except ValidationError as error:
        return None, [
            _explain(details, source, model) for details in error.errors(include_url=False) if not _follows(details)
        ]


def _follows(details: ErrorDetails) -> bool:
    """Say whether an error only follows from others: a list is counted as too short when its items are wrong."""
    return details["type"] == "too_short" and isinstance(details["input"], list) and bool(details["input"])


def _explain(details: ErrorDetails, source: YamlSource, model: type[Part]) -> Problem:
    place = tuple(_real_places(details["loc"], source.value))
    return source.problem_at(place, _reword(details, place, source, model))


def _real_places(location: Place, value: object) -> Iterator[str | int]:
    """Yield the steps of a location that are in the file; pydantic adds the names of alternatives to them.

    The last step of a missing key is not in the file, and is yielded too.
    """
    for number, step in enumerate(location):
        if isinstance(value, dict) and isinstance(step, str) and step != "[key]":
            known = step in value
            if known or number == len(location) - 1:
                yield step
            value = value.get(step)
        elif isinstance(value, list) and isinstance(step, int):
            yield step
            value = value[step]


def _reword(details: ErrorDetails, place: Place, source: YamlSource, model: type[Part]) -> str:
    """Return pydantic's message as our users read it. The input is shown only where it is one short word."""
    kind, context = details["type"], details.get("ctx", {})
    if kind == "value_error":
        return str(context["error"])
    if kind == "extra_forbidden":
        return "is not known" + _suggest(str(place[-1]), _keys_beside(place, model))
    if kind == "missing":
        return "is required"
    if details["input"] is None:
        return "is empty: give it a value, or remove the key"
    if kind == "literal_error":
        return f"must be {context['expected']}{_suggest_word(details['input'], context['expected'])}"
    if kind == "string_type" and isinstance(details["input"], int | float):
        return f"YAML reads this as a number or a truth value: put it in quotes: {json.dumps(source.written[place])}"
    if kind in ("tuple_type", "list_type"):
        return "must be a list: one item a line, each after a dash"
    if kind in ("model_type", "dict_type", "model_attributes_type"):
        return "must be a mapping: keys and values, indented below it"
    if kind == "too_short":
        return "must not be empty"
    return details["msg"].replace("Input should", "must")


def _suggest(word: str, known: list[str]) -> str:
    close = difflib.get_close_matches(word.lower().replace("-", "_"), known, n=1, cutoff=0.6)
    if close:
        return f": did you mean {close[0]}?"
    return f": known here are {', '.join(known)}" if known else ""


def _suggest_word(given: object, expected: str) -> str:
    if not isinstance(given, str):
        return ""
    close = difflib.get_close_matches(
        given.lower(), [word.strip("' ") for word in expected.replace(" or ", ",").split(",")], n=1
    )
    return f", not {shorten(given)}" + (f": did you mean {close[0]}?" if close else "")


def _keys_beside(place: Place, model: type[Part]) -> list[str]:
    """Return the keys that the part of the model at this place's parent knows."""
    part = model
    for step in place[:-1]:
        if isinstance(step, str):
            field = part.model_fields.get(step)
            inner = next(_parts_in(field.annotation), None) if field else None
            if inner is None:
                return []
            part = inner
    return list(part.model_fields)


def _parts_in(annotation: object) -> Iterator[type[Part]]:
    if isinstance(annotation, type) and issubclass(annotation, Part):
        yield annotation
    for argument in get_args(annotation):
        yield from _parts_in(argument)
