"""A YAML file as plain values, with the line of each: so that a problem can say where it stands.

Read is the core of YAML 1.2, which editors check too: `no` is the word "no", not false, and a date is a word. Aliases,
tags and duplicate keys are refused: the first can make a small file huge, the others hide what a file means.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import yaml

Place = tuple[str | int, ...]

LARGEST_FILE = 256 * 1024
DEEPEST = 20
PRIVATE_KEY = re.compile(r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY|PuTTY-User-Key-File-\d|AGE-SECRET-KEY-1")
PRIVATE_KEY_PROBLEM = (
    "a private key stands here: take it out, and count it as exposed; a spec carries public halves only"
)

_NULL = re.compile(r"(null|Null|NULL|~|)\Z")
_TRUTH = re.compile(r"(true|True|TRUE|false|False|FALSE)\Z")
_WHOLE = re.compile(r"[-+]?[0-9]{1,18}\Z")
_FRACTION = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]{1,3})?\Z")


@dataclass(frozen=True, order=True)
class Problem:
    """Something wrong in a file: at a line (0: the file as a whole) and, where it is known, at a path in it."""

    line: int
    path: str
    message: str

    def describe(self, file: str) -> str:
        """Return the problem as one line: file, line, path and message."""
        where = f"{file}:{self.line}" if self.line else file
        return f"{where}: {self.path}: {self.message}" if self.path else f"{where}: {self.message}"


@dataclass
class YamlSource:
    """What a file holds, where each value stands, how each scalar was written, and what is wrong with it as YAML."""

    value: object = None
    lines: dict[Place, int] = field(default_factory=dict)
    written: dict[Place, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def line_of(self, place: Place) -> int:
        """Return the line of a place; of what stands around it where the place itself is not in the file."""
        while place and place not in self.lines:
            place = place[:-1]
        return self.lines.get(place, 0)

    def problem_at(self, place: Place, message: str) -> Problem:
        """Return a problem of the value at a place."""
        return Problem(self.line_of(place), format_place(place), message)


def format_place(place: Iterable[str | int]) -> str:
    """Return a place as people write it: `users[0].keys[1]`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place)
    return text.removeprefix(".")


def display_path(path: Path) -> str:
    """Return a path as its user would type it: relative where it is below the working directory."""
    try:
        return str(path.resolve().relative_to(Path.cwd()))
    except (ValueError, OSError):
        return str(path)


def read_yaml(path: Path) -> YamlSource:
    """Return the content of a file; what is wrong with it is in `problems`, and nothing is raised."""
    source = YamlSource()
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        source.problems.append(Problem(0, "", f"cannot be read: {reason}"))
        return source
    if len(content) > LARGEST_FILE:
        source.problems.append(Problem(0, "", f"is larger than {LARGEST_FILE // 1024} KiB: this is no spec"))
        return source
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        source.problems.append(Problem(line, "", "is not UTF-8 text"))
        return source
    return parse_yaml(text)


def parse_yaml(text: str) -> YamlSource:
    """Return what a text holds; what is wrong with it is in `problems`, and nothing is raised."""
    source = YamlSource()
    try:
        root = _compose(text)
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        source.problems.append(Problem(line, "", "holds a character that YAML does not allow"))
    except yaml.MarkedYAMLError as error:
        source.problems.append(_describe_syntax(error))
    else:
        if root is not None:
            source.value = _read_node(root, (), source)
    source.problems.extend(_find_private_keys(text))
    return source


class _Loader(yaml.SafeLoader):
    """Composes nodes only; refuses aliases, and nesting that no spec needs."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.MarkedYAMLError(
                problem="aliases (*name) are not read: write the value out", problem_mark=self._mark()
            )
        self.depth += 1
        if self.depth > DEEPEST:
            raise yaml.MarkedYAMLError(problem=f"is nested deeper than {DEEPEST} levels", problem_mark=self._mark())
        try:
            return super().compose_node(parent, index)
        finally:
            self.depth -= 1

    def _mark(self) -> yaml.Mark:
        mark: yaml.Mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
        return mark


def _compose(text: str) -> yaml.Node | None:
    loader = _Loader(text)
    try:
        return loader.get_single_node()
    finally:
        loader.dispose()


def _describe_syntax(error: yaml.MarkedYAMLError) -> Problem:
    """Say what the parser says, without the piece of the file that it quotes: that could be a secret."""
    mark = error.problem_mark or error.context_mark
    parts = [part for part in (error.context, error.problem) if part]
    return Problem(mark.line + 1 if mark else 0, "", "is not YAML: " + ", ".join(parts))


def _find_private_keys(text: str) -> Iterator[Problem]:
    for number, line in enumerate(text.splitlines(), start=1):
        if PRIVATE_KEY.search(line):
            yield Problem(number, "", PRIVATE_KEY_PROBLEM)


def _read_node(node: yaml.Node, place: Place, source: YamlSource) -> object:
    source.lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, yaml.MappingNode):
        return _read_mapping(node, place, source)
    if isinstance(node, yaml.SequenceNode):
        return [_read_node(item, (*place, index), source) for index, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        return _read_scalar(node, place, source)
    raise AssertionError(f"YAML knows three kinds of nodes: {node}")


def _read_mapping(node: yaml.MappingNode, place: Place, source: YamlSource) -> dict[str, object]:
    mapping: dict[str, object] = {}
    for key_node, value_node in node.value:
        line = key_node.start_mark.line + 1
        if not isinstance(key_node, yaml.ScalarNode):
            source.problems.append(Problem(line, format_place(place), "a key must be a word"))
            continue
        key = str(key_node.value)
        if key == "<<":
            source.problems.append(
                Problem(line, format_place(place), "merge keys (<<) are not read: write the keys out")
            )
            continue
        here = (*place, key)
        if key in mapping:
            first = source.lines[here]
            source.problems.append(Problem(line, format_place(here), f"stands twice: first in line {first}"))
            continue
        source.lines[here] = line
        mapping[key] = _read_node(value_node, here, source)
    return mapping


def _read_scalar(node: yaml.ScalarNode, place: Place, source: YamlSource) -> object:
    text = str(node.value)
    source.written[place] = text
    if node.tag not in _PLAIN_TAGS:
        source.problems.append(source.problem_at(place, f"tags ({node.tag}) are not read: leave it out"))
    if node.style is not None:
        return text
    if _NULL.match(text):
        return None
    if _TRUTH.match(text):
        return text.lower() == "true"
    if _WHOLE.match(text):
        return int(text)
    return float(text) if _FRACTION.match(text) else text


_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)
