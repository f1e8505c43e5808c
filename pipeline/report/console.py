"""What a user sees while a build runs, and at its end.

On a terminal: a tree of the running stages, with their times and progress. Without one: a line with the time of day for
each thing that happens. Quiet: nothing. All text is taken as it is: no markup, no escape sequences.
"""

import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from rich.box import SIMPLE_HEAD
from rich.console import Console as RichConsole
from rich.console import Group, RenderableType
from rich.live import Live
from rich.prompt import Prompt
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from pipeline.report.render import control_matrix, failed_results
from pipeline.report.results import Finding, Layer, Result, Status
from pipeline.report.text import first_line, format_seconds, make_visible

if TYPE_CHECKING:
    from pipeline.report.evidence import Evidence, Stage

SECONDS_BETWEEN_PLAIN_PROGRESS = 5.0

MARKS = {
    Status.PASS: ("✓", "green"),
    Status.FAIL: ("✗", "bold red"),
    Status.UNREACHABLE: ("?", "bold yellow"),
    Status.NOT_APPLICABLE: ("-", "dim"),
}


@dataclass
class StageLine:
    """One stage as it is shown: running until it has an outcome."""

    name: str
    started: float
    parent: "StageLine | None" = None
    parts: "list[StageLine]" = field(default_factory=list)
    progress: str = ""
    reported: float = float("-inf")
    outcome: "Stage | None" = None

    @property
    def path(self) -> str:
        """The names from the outermost stage to this one."""
        return f"{self.parent.path} > {self.name}" if self.parent else self.name


class Console:
    """The terminal of one build. Its methods may be called from several threads."""

    def __init__(
        self,
        quiet: bool = False,
        *,
        file: TextIO | None = None,
        terminal: bool | None = None,
        width: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rich = RichConsole(
            file=file or sys.stdout, quiet=quiet, force_terminal=terminal, width=width, highlight=False, markup=False
        )
        self._live_wanted = self._rich.is_terminal and not quiet and not self._rich.is_dumb_terminal
        self._quiet = quiet
        self._clock = clock
        self._lock = threading.RLock()
        self._running: list[StageLine] = []
        self._live: Live | None = None
        self._spinner = Spinner("dots")

    def start_stage(self, name: str, parent: StageLine | None = None) -> StageLine:
        """Show that a stage begins, inside another one or by itself."""
        with self._lock:
            line = StageLine(make_visible(name), self._clock(), parent)
            if parent:
                parent.parts.append(line)
            else:
                self._running.append(line)
            if self._live_wanted:
                self._start_live()
            else:
                self._print_plain(line.path, "…")
            return line

    def end_stage(self, line: StageLine, outcome: "Stage") -> None:
        """Show how a stage ended; the outermost one leaves its whole tree on the screen."""
        with self._lock:
            line.outcome = outcome
            if not self._live_wanted:
                word = "done" if outcome.status is Status.PASS else f"{outcome.status}: {first_line(outcome.detail)}"
                self._print_plain(line.path, f"{word} ({format_seconds(outcome.seconds)})")
            if line.parent is None and line in self._running:
                self._running.remove(line)
                if self._live_wanted:
                    self._rich.print(self._tree([line]))
            if not self._running:
                self.pause()

    def progress(self, line: StageLine | None, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show how far a stage is. Without a terminal, a stage says so every few seconds at most."""
        with self._lock:
            counted = f"{done}/{total} " if done is not None and total is not None else ""
            shown = counted + first_line(text)
            if line is None:
                self.notice(shown)
                return
            line.progress = shown
            now = self._clock()
            if not self._live_wanted and now - line.reported >= SECONDS_BETWEEN_PLAIN_PROGRESS:
                line.reported = now
                self._print_plain(line.path, shown)

    def result(self, result: Result) -> None:
        """Show a result at once if it is a failure; the others are in the table at the end."""
        if result.status.is_failure:
            self._print_marked(result.status, _describe_result(result))

    def finding(self, finding: Finding) -> None:
        """Show at once what must not be there."""
        self._print_marked(Status.FAIL, _describe_finding(finding))

    def notice(self, text: str) -> None:
        """Show something that a user should know, and that is no failure."""
        with self._lock:
            if self._live_wanted:
                self._rich.print(Text(make_visible(text)))
            else:
                self._print_plain("", make_visible(text))

    def table(self, title: str, columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
        """Print a table of texts; without a terminal, a line for each row, so that nothing is cut off."""
        with self._lock:
            self.pause()
            if not self._live_wanted:
                lines = ["  ".join(filter(None, map(make_visible, row))) for row in rows]
                self._rich.print(Text("\n".join((make_visible(title), *lines))), soft_wrap=True)
                return
            table = Table(
                *columns, box=SIMPLE_HEAD, title=make_visible(title), title_justify="left", title_style="bold"
            )
            for row in rows:
                table.add_row(*(Text(make_visible(cell)) for cell in row))
            self._rich.print(table)

    def ask(self, question: str, choices: tuple[str, ...], default: str) -> str:
        """Return what the user chose; the default where nobody sits at a terminal."""
        with self._lock:
            self.pause()
            if not self._live_wanted or not sys.stdin.isatty():
                return default
            try:
                return Prompt.ask(make_visible(question), console=self._rich, choices=list(choices), default=default)
            except (EOFError, KeyboardInterrupt):
                return default

    def pause(self) -> None:
        """Stop the live display and give the terminal back as it was. The next stage starts it again."""
        with self._lock:
            if self._live:
                self._live.stop()
                self._live = None

    def summary(self, evidence: "Evidence", folder: str = "") -> None:
        """Print what the build came to: stages, controls, failures with their reasons, findings, leaks, the image."""
        with self._lock:
            self.pause()
            for part in _summarize(evidence, folder):
                self._rich.print(part)

    def _start_live(self) -> None:
        if self._live is None:
            self._live = Live(
                get_renderable=self._running_tree, console=self._rich, refresh_per_second=8, transient=True
            )
            self._live.start()

    def _running_tree(self) -> RenderableType:
        """Return what runs. The display's own thread calls it, with the display's lock: ours would be one too many."""
        return self._tree(list(self._running))

    def _tree(self, lines: list[StageLine]) -> Table:
        table = Table.grid(padding=(0, 1))
        table.add_column(width=1)
        table.add_column(no_wrap=True)
        table.add_column(justify="right", no_wrap=True)
        table.add_column(overflow="ellipsis", no_wrap=True, style="dim")
        for line in lines:
            self._add_rows(table, line, depth=0)
        return table

    def _add_rows(self, table: Table, line: StageLine, depth: int) -> None:
        name = Text("  " * depth + line.name)
        if line.outcome:
            mark = _mark(line.outcome.status)
            detail = "" if line.outcome.status is Status.PASS else first_line(line.outcome.detail)
            table.add_row(mark, name, format_seconds(line.outcome.seconds), Text(detail))
        else:
            seconds = format_seconds(self._clock() - line.started)
            table.add_row(self._spinner, name, seconds, Text(line.progress))
        for part in list(line.parts):
            self._add_rows(table, part, depth + 1)

    def _print_marked(self, status: Status, text: str) -> None:
        with self._lock:
            if self._live_wanted:
                self._rich.print(Text.assemble(_mark(status), " ", make_visible(text)))
            else:
                self._print_plain(str(status).upper(), make_visible(text))

    def _print_plain(self, about: str, text: str) -> None:
        if self._quiet:
            return
        now = datetime.now(UTC).strftime("%H:%M:%SZ")
        for row in text.split("\n"):
            words = " ".join(word for word in (now, about, row) if word)
            self._rich.print(Text(words), soft_wrap=True)
        self._rich.file.flush()


def _mark(status: Status) -> Text:
    return Text(*MARKS[status])


def _describe_result(result: Result) -> str:
    about = " ".join((*result.controls, f"[{result.layer}]"))
    reason = f": {make_visible(result.detail.strip())}" if result.detail.strip() else ""
    return f"{about} {result.title} ({result.source}){reason}"


def _describe_finding(finding: Finding) -> str:
    detail = f": {finding.detail}" if finding.detail else ""
    return f"{finding.control} [{finding.layer}] {finding.kind} at {finding.place}, {finding.fingerprint}{detail}"


def _summarize(evidence: "Evidence", folder: str) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(), _stage_table(evidence)]
    if evidence.results or evidence.findings:
        parts.append(_matrix_table(evidence))
    failures = [_describe_result(result) for result in failed_results(evidence)]
    parts.extend(_listing("Failed", failures))
    parts.extend(_listing("Found, and must not be there", [_describe_finding(found) for found in evidence.findings]))
    leaks = [f"{leak.kind} {leak.identity} in {leak.region}: {leak.reason}" for leak in evidence.leaks]
    parts.extend(_listing("Could not be removed, and costs money until it is", leaks))
    parts.append(_ending(evidence, folder))
    return parts


def _stage_table(evidence: "Evidence") -> Table:
    table = Table(box=SIMPLE_HEAD, title="Stages", title_justify="left", title_style="bold")
    table.add_column()
    table.add_column("stage")
    table.add_column("time", justify="right")
    for stage in evidence.stages:
        _add_stage(table, stage, depth=0)
    if evidence.finished:
        table.add_row("", "total", format_seconds((evidence.finished - evidence.started).total_seconds()), style="bold")
    return table


def _add_stage(table: Table, stage: "Stage", depth: int) -> None:
    table.add_row(_mark(stage.status), Text("  " * depth + make_visible(stage.name)), format_seconds(stage.seconds))
    for part in stage.parts:
        _add_stage(table, part, depth + 1)


def _matrix_table(evidence: "Evidence") -> Table:
    matrix = control_matrix(evidence)
    layers = [layer for layer in Layer if any(layer in row for row in matrix.values())]
    table = Table(box=SIMPLE_HEAD, title="Controls", title_justify="left", title_style="bold")
    table.add_column("control")
    for layer in layers:
        table.add_column(layer.words, justify="center")
    for control, row in matrix.items():
        table.add_row(Text(make_visible(control)), *(_mark(row[layer]) if layer in row else "" for layer in layers))
    return table


def _listing(title: str, rows: list[str]) -> list[RenderableType]:
    if not rows:
        return []
    lines = [Text.assemble(("✗ ", "bold red"), make_visible(row)) for row in rows]
    return [Group(Text(title, style="bold"), *lines, Text())]


def _ending(evidence: "Evidence", folder: str) -> Group:
    lines = []
    if evidence.image:
        image = evidence.image
        word = "image" if evidence.exit_status == 0 else "image (not released)"
        lines.append(f"{word} {image.image_id} {image.name} in {image.region}")
    if folder:
        lines.append(f"report {folder}")
    if evidence.error is not None:
        lines.append(f"failed: {evidence.error}")
    return Group(*(Text(make_visible(line)) for line in lines))
