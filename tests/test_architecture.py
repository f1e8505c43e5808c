"""The house keeps its shape: imports run down only, and each outside library has one door."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

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


def imports_between(paths: list[Path]) -> Iterator[tuple[Path, str]]:
    """Yield each of the modules with each of its imports."""
    yield from ((path, imported) for path in paths for imported in imports_of(path))


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


def test_every_room_has_a_floor() -> None:
    rooms = {room_of(name_of(path)) for path in MODULES} - {None, CLOUD_HOUSE}
    assert rooms <= floors().keys(), "the table of pipeline/README.md has it"


def test_imports_run_down_only() -> None:
    assert [
        f"{name_of(path)} imports {imported}, which is not on a floor below it"
        for path, imported in imports_between(MODULES)
        if room_of(name_of(path)) not in (None, CLOUD_HOUSE)
        and room_of(imported) not in (None, CLOUD_HOUSE, room_of(name_of(path)))
        and floors()[str(room_of(imported))] <= floors()[str(room_of(name_of(path)))]
    ] == []


def test_the_two_houses_do_not_know_each_other() -> None:
    assert [
        f"{name_of(path)} imports {imported}"
        for path, imported in imports_between(MODULES)
        if imported.split(".")[0] == "pipeline" and imported != "pipeline"
        if (room_of(imported) == CLOUD_HOUSE) != (room_of(name_of(path)) == CLOUD_HOUSE)
    ] == []


def test_each_library_has_one_door() -> None:
    assert [
        f"{name_of(path)} imports {imported}"
        for path, imported in imports_between([*MODULES, *CHECKS])
        if room_of(name_of(path)) != CLOUD_HOUSE
        if name_of(path) not in DOORS.get(imported.split(".")[0], {name_of(path)})
    ] == []


def test_checks_know_the_spec_and_nothing_else_of_the_pipeline() -> None:
    """A check that used the step's own code would inherit the step's mistake."""
    assert [
        f"{name_of(path)} imports {imported}"
        for path, imported in imports_between(CHECKS)
        if imported.split(".")[0] in ("pipeline", "tasks") and imported != "pipeline" and room_of(imported) != "spec"
    ] == []


def test_every_module_says_what_it_is_for() -> None:
    texts = {name_of(path): path.read_text() for path in (*MODULES, *CHECKS)}
    assert [name for name, text in texts.items() if text.strip() and not ast.get_docstring(ast.parse(text))] == []


def test_names_say_what_is_in_them() -> None:
    vague = re.compile(r"util|helper|manager|common|misc")
    assert [name_of(path) for path in (*MODULES, *CHECKS) if vague.search(path.stem)] == []
