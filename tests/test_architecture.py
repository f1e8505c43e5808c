"""The house keeps its shape: imports run down only, and each outside library has one door."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PIPELINE = ROOT / "pipeline"

DOORS = {
    # outside library: the only modules that import it
    "boto3": {"pipeline.aws.session"},
    "botocore": {"pipeline.aws.session"},
    "paramiko": {"pipeline.guest.shell", "pipeline.guest.keys"},
    "invoke": {"tasks"},
    "rich": {"pipeline.report.console"},
}
CLOUD_HOUSE = "localcloud"


def modules_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


MODULES = [*modules_in(PIPELINE), ROOT / "tasks.py"]
CHECKS = modules_in(ROOT / "checks")


def name_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


@cache
def imports_of(path: Path) -> tuple[str, ...]:
    """Return the full names of all that a module imports, inside functions too; what is only for types is left out."""
    return tuple(_find_imports(ast.parse(path.read_text())))


def _find_imports(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
        for other in node.orelse:
            yield from _find_imports(other)
        return
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    if isinstance(node, ast.ImportFrom):
        assert node.level == 0, "imports are absolute here"
        yield node.module or ""
        yield from (f"{node.module}.{alias.name}" for alias in node.names)
    for child in ast.iter_child_nodes(node):
        yield from _find_imports(child)


@cache
def floors() -> dict[str, int]:
    """Return the floor of each room, as the table in pipeline/README.md has it; the top one is 1."""
    found: dict[str, int] = {}
    for line in (PIPELINE / "README.md").read_text().splitlines():
        row = re.match(r"\| (\d+) \| (.+?) \|", line)
        if row:
            rooms = re.findall(r"`([a-z_]+)(?:\.py|/)`", row[2])
            found.update({room: int(row[1]) for room in rooms})
    return found


def room_of(module: str) -> str | None:
    """Return the room that a module is in; None for what is not of the house."""
    if module == "tasks":
        return "tasks"
    parts = module.split(".")
    return parts[1] if parts[0] == "pipeline" and len(parts) > 1 else None


def test_table_of_floors_is_read() -> None:
    assert floors()["tasks"] == 1
    assert floors()["errors"] == max(floors().values())
    assert floors()["harden"] == floors()["scrub"]


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_room_has_a_floor(path: Path) -> None:
    room = room_of(name_of(path))
    assert room is None or room == CLOUD_HOUSE or room in floors(), f"{room} is not in the table of pipeline/README.md"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_run_down_only(path: Path) -> None:
    room = room_of(name_of(path))
    if room is None or room == CLOUD_HOUSE:
        return
    for imported in imports_of(path):
        other = room_of(imported)
        if other in (None, room, CLOUD_HOUSE):
            continue
        assert floors()[other] > floors()[room], f"{name_of(path)} imports {imported}, which is not on a floor below it"


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_the_two_houses_do_not_know_each_other(path: Path) -> None:
    inside = room_of(name_of(path)) == CLOUD_HOUSE
    for imported in imports_of(path):
        if imported.split(".")[0] == "pipeline" and imported != "pipeline":
            assert (room_of(imported) == CLOUD_HOUSE) == inside, f"{name_of(path)} imports {imported}"


@pytest.mark.parametrize("path", [*MODULES, *CHECKS], ids=name_of)
def test_each_library_has_one_door(path: Path) -> None:
    if room_of(name_of(path)) == CLOUD_HOUSE:
        return
    for imported in imports_of(path):
        doors = DOORS.get(imported.split(".")[0])
        assert doors is None or name_of(path) in doors, f"{name_of(path)} imports {imported}: only {doors} may"


@pytest.mark.parametrize("path", CHECKS, ids=name_of)
def test_checks_know_the_spec_and_nothing_else_of_the_pipeline(path: Path) -> None:
    """A check that used the step's own code would inherit the step's mistake."""
    for imported in imports_of(path):
        if imported.split(".")[0] in ("pipeline", "tasks"):
            assert imported == "pipeline" or room_of(imported) == "spec", f"{name_of(path)} imports {imported}"


@pytest.mark.parametrize("path", [*MODULES, *CHECKS], ids=name_of)
def test_module_says_what_it_is_for(path: Path) -> None:
    text = path.read_text()
    if text.strip():
        assert ast.get_docstring(ast.parse(text)), f"{name_of(path)} has no docstring"


@pytest.mark.parametrize("path", [*MODULES, *CHECKS], ids=name_of)
def test_name_says_what_is_in_it(path: Path) -> None:
    assert not re.search(r"util|helper|manager|common|misc", path.stem), f"{path.stem} is no name of a subject"
