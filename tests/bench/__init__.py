"""Benchmarks: each measures Assay beside its peers, in one run on one machine, and prints ratios.

A benchmark is a module of this package with a `measure(start_local_cloud) -> list[Row]`.
"""

import json
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from rich.console import Console
from rich.table import Table

from pipeline.errors import SpecInvalid
from tests.bench.rows import Row

NAMES = ("build", "verify", "scan", "planted", "harden", "release", "page")


def run_benchmarks(only: str, folder: Path, start_local_cloud: Callable[[], dict[str, str]]) -> None:
    """Run one benchmark, or all; print a table each and write `NAME.json`. An unknown name raises SpecInvalid."""
    if only and only not in NAMES:
        raise SpecInvalid(f"there is no benchmark {only!r}", hint=f"one of: {', '.join(NAMES)}")
    folder.mkdir(parents=True, exist_ok=True)
    for name in [only] if only else NAMES:
        rows: list[Row] = import_module(f"tests.bench.{name}").measure(start_local_cloud)
        (folder / f"{name}.json").write_text(json.dumps([row.as_dict() for row in rows], indent=2) + "\n")
        Console().print(draw_table(name, rows))


def draw_table(name: str, rows: list[Row]) -> Table:
    """Return the rows as people read them; a value that was not measured is a dash."""
    table = Table(title=f"bench {name}", title_justify="left")
    for heading in ("measure", "unit", "ours", "peer", "peer's", "ours/peer's", "bound", "runs", "versions"):
        table.add_column(heading, justify="right" if heading in {"ours", "peer's", "ours/peer's", "bound"} else "left")
    for row in rows:
        table.add_row(*row.cells())
    return table
