"""The evidence as one page: `report.html` opens from a file, runs nothing, and asks no network.

The page holds no script, and a policy in its head forbids every one, so that text of a guest can only ever be text:
Jinja2 escapes it, and `make_visible` writes out what a browser or a reader would act on.
"""

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from pipeline.report.catalogue import CATALOGUE, SECTIONS, SOURCES, Control
from pipeline.report.evidence import Evidence, Layer, Result, Stage, Status
from pipeline.report.render import Matrix, control_matrix, failed_results, worst_status
from pipeline.report.text import format_seconds, make_visible

FOLDER = Path(__file__).parent
TICKS = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200)
"""Distances in seconds between the lines of the time axis: the smallest that makes at most six lines is taken."""
MOST_TICKS = 6

SHOWN_FINDINGS = 200
"""The others are folded away: they are there, and cost no layout."""

SHOWN_CHANGES = 20
"""A subject with more differences to the build before is folded."""
ABSENT = "not there"

MARKS = {Status.PASS: "✓", Status.FAIL: "✗", Status.UNREACHABLE: "?", Status.NOT_APPLICABLE: "−"}  # noqa: RUF001  a minus is seen
LAYERS = {
    Layer.HARDENED: "set while hardening",
    Layer.SCRUBBED: "removed by the scrub",
    Layer.LIVE: "proved on the build guest, before it is sealed",
    Layer.FRESH_BOOT: "proved on a fresh boot, as a consumer launches it",
    Layer.RAW: "proved on the snapshot's blocks, free space included",
    Layer.AWS: "proved on the side of the cloud",
}
STATUSES = {
    Status.PASS: "it was asked, and it is so",
    Status.FAIL: "it was asked, and it is not so",
    Status.UNREACHABLE: "it could not be asked: it counts as a failure",
    Status.NOT_APPLICABLE: "it does not apply here; the reason is beside the result",
}


@dataclass(frozen=True)
class Verdict:
    """How it ended, in two words and a sentence; `status` gives its colour and its mark."""

    status: Status
    word: str
    sentence: str


@dataclass(frozen=True)
class Cell:
    """One control at one layer. Without a status, nothing was recorded; `expected` says whether something should be."""

    layer: Layer
    status: Status | None
    expected: bool

    @property
    def is_open(self) -> bool:
        """Return whether evidence is missing here."""
        return self.expected and self.status is None


@dataclass(frozen=True)
class Row:
    """One control of the matrix, with all that was recorded for it."""

    identity: str
    title: str
    sources: tuple[str, ...]
    cells: tuple[Cell, ...]
    not_applicable: Mapping[Layer, str]
    """Why nothing can prove it at some of its layers."""
    status: Status | None
    """The worst over its layers; None when nothing was recorded at any."""
    results: tuple[Result, ...]


@dataclass(frozen=True)
class Bar:
    """One stage in the chart: where it begins and how long it is, in percent of the whole build."""

    stage: Stage
    depth: int
    start: float
    width: float


@dataclass(frozen=True)
class Timeline:
    """The stages over time, and the lines of the axis: percent and label."""

    bars: tuple[Bar, ...]
    ticks: tuple[tuple[float, str], ...]
    seconds: float


def render_html(evidence: Evidence) -> str:
    """Return the evidence as one self-contained page."""
    sections = tuple(matrix_sections(evidence))
    rows = [row for _, rows in sections for row in rows]
    style = (FOLDER / "page.css").read_text()
    page = _environment().get_template("page.html.j2")
    return page.render(
        evidence=evidence,
        verdict=verdict_of(evidence),
        sections=sections,
        counts={status: sum(row.status is status for row in rows) for status in Status},
        unrecorded=sum(row.status is None for row in rows),
        partly_recorded=sum(row.status is not None and any(cell.is_open for cell in row.cells) for row in rows),
        results=count_results(evidence.results),
        failures=failed_results(evidence),
        shown_findings=SHOWN_FINDINGS,
        shown_changes=SHOWN_CHANGES,
        absent=ABSENT,
        timeline=timeline_of(evidence),
        marks=MARKS,
        layers=LAYERS,
        statuses=STATUSES,
        sources=SOURCES,
        style=Markup(style),  # noqa: S704  our own file
        style_digest=base64.b64encode(hashlib.sha256(style.encode()).digest()).decode(),
    )


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_make_visible,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["duration"] = format_seconds
    return environment


def _make_visible(value: object) -> object:
    """Every text that the template prints passes through here; what the template itself marked as safe stays."""
    return make_visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value


def verdict_of(evidence: Evidence) -> Verdict:
    """Return how the build, or the proof of an image, ended. Nothing but exit status 0 is called proved."""
    if evidence.finished is None:
        return Verdict(Status.UNREACHABLE, "Not finished", "It still runs, or it was killed: nothing is proved yet.")
    endings = {
        0: (Status.PASS, "Proved", "Everything that was checked passed, and what was made for it is gone."),
        40: (Status.FAIL, "Not proved", "Some control failed, or could not be asked: the image is not shared."),
        41: (Status.FAIL, "Residue found", "Blocks hold what must not ship: the image is not shared."),
        50: (Status.FAIL, "Not shared", "The image was proved, but it could not be shared as declared."),
        60: (Status.FAIL, "Not cleaned up", "Some resource could not be removed, and costs money until it is."),
        130: (Status.UNREACHABLE, "Interrupted", "It was stopped before its end: nothing is proved."),
    }
    return Verdict(*endings.get(evidence.exit_status, (Status.FAIL, "Failed", "It ended before the proof was whole.")))


def count_results(results: Iterable[Result]) -> dict[Status, int]:
    """Return how many results have each status."""
    statuses = [result.status for result in results]
    return {status: statuses.count(status) for status in Status}


def matrix_sections(evidence: Evidence) -> Iterator[tuple[str, tuple[Row, ...]]]:
    """Yield the sections of the catalogue with a row for each control; what no catalogue knows comes last."""
    matrix = control_matrix(evidence)
    results: dict[str, list[Result]] = {}
    for result in evidence.results:
        for identity in result.controls:
            results.setdefault(identity, []).append(result)
    unknown = tuple(Control(identity, "", (), ()) for identity in matrix if identity not in CATALOGUE)
    for title, controls in {**SECTIONS, "Of the spec's own checks": unknown}.items():
        if controls:
            yield title, tuple(_matrix_row(control, matrix, results) for control in controls)


def _matrix_row(control: Control, matrix: Matrix, results: dict[str, list[Result]]) -> Row:
    recorded = matrix.get(control.identity, {})
    return Row(
        identity=control.identity,
        title=control.title,
        sources=control.sources,
        cells=tuple(_matrix_cell(control, layer, recorded.get(layer)) for layer in Layer),
        not_applicable=control.not_applicable,
        status=worst_status(recorded.values()) if recorded else None,
        results=tuple(results.get(control.identity, ())),
    )


def _matrix_cell(control: Control, layer: Layer, status: Status | None) -> Cell:
    if status is None and layer in control.not_applicable:
        status = Status.NOT_APPLICABLE
    return Cell(layer, status, layer in control.layers)


def timeline_of(evidence: Evidence) -> Timeline:
    """Return the chart of the build: every stage and every part of one, from the first second to the last."""
    stages = [*_flatten(evidence.stages, depth=0)]
    ends = [(stage.started - evidence.started).total_seconds() + stage.seconds for stage, _ in stages]
    if evidence.finished:
        ends.append((evidence.finished - evidence.started).total_seconds())
    whole = max([*ends, 1.0])
    bars = tuple(
        Bar(
            stage,
            depth,
            start=_percent((stage.started - evidence.started).total_seconds(), whole),
            width=_percent(stage.seconds, whole),
        )
        for stage, depth in stages
    )
    distance = next((tick for tick in TICKS if whole / tick <= MOST_TICKS), TICKS[-1])
    ticks = tuple(
        (_percent(second, whole), f"{second // 60}:{second % 60:02d}") for second in range(0, int(whole) + 1, distance)
    )
    return Timeline(bars, ticks, whole)


def _flatten(stages: tuple[Stage, ...], depth: int) -> Iterator[tuple[Stage, int]]:
    for stage in stages:
        yield stage, depth
        yield from _flatten(stage.parts, depth + 1)


def _percent(part: float, whole: float) -> float:
    return round(min(max(part / whole, 0.0), 1.0) * 100, 2)
