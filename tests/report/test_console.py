"""What the user sees: a tree on a terminal, lines without one, nothing when quiet; never a guest's escape sequence."""

import io
import re
from collections.abc import Callable

import pytest

from pipeline.report.console import Console
from pipeline.report.evidence import Finding, Layer, Stage, Status
from pipeline.report.text import format_seconds
from tests.report.evidence_examples import CLEAN, FULL, NASTY, START, result


class Clock:
    """A clock that goes only when it is told to."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


def make_console(terminal: bool, quiet: bool = False) -> tuple[Console, Clock, Callable[[], str]]:
    file, clock = io.StringIO(), Clock()
    return Console(quiet, file=file, terminal=terminal, width=120, clock=clock), clock, file.getvalue


def outcome(name: str, status: Status = Status.PASS, detail: str = "", seconds: float = 1.5) -> Stage:
    return Stage(name=name, started=START, seconds=seconds, status=status, detail=detail)


def run_two_stages(console: Console, clock: Clock) -> None:
    outer = console.start_stage("launch")
    inner = console.start_stage("network", outer)
    console.progress(inner, "security group", 1, 3)
    clock.now += 2
    console.end_stage(inner, outcome("network", seconds=2))
    console.end_stage(outer, outcome("launch", Status.FAIL, "no capacity\nmore", seconds=2))


def test_lines_without_a_terminal_have_the_time_and_the_path() -> None:
    console, clock, shown = make_console(terminal=False)
    run_two_stages(console, clock)
    lines = shown().splitlines()
    assert all(re.match(r"\d\d:\d\d:\d\dZ ", line) for line in lines)
    assert [line[10:] for line in lines] == [
        "launch …",
        "launch > network …",
        "launch > network 1/3 security group",
        "launch > network done (2.0 s)",
        "launch fail: no capacity (2.0 s)",
    ]
    assert "\x1b" not in shown()


def test_long_line_is_not_broken_without_a_terminal() -> None:
    console, _, shown = make_console(terminal=False)
    console.notice("x" * 500)
    assert "x" * 500 in shown()


def test_progress_without_a_terminal_comes_every_few_seconds() -> None:
    console, clock, shown = make_console(terminal=False)
    line = console.start_stage("wait")
    for second in range(12):
        clock.now = 100.0 + second
        console.progress(line, f"second {second}")
    assert re.findall(r"second \d+", shown()) == ["second 0", "second 5", "second 10"]


def test_terminal_shows_the_tree_and_gets_its_cursor_back() -> None:
    console, clock, shown = make_console(terminal=True)
    run_two_stages(console, clock)
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown())
    assert re.search(r"✗ launch +2\.0 s no capacity", plain)
    assert re.search(r"✓ +network +2\.0 s", plain)
    assert shown().count("\x1b[?25l") == shown().count("\x1b[?25h") == 1


def test_running_stages_are_shown_with_time_and_progress() -> None:
    console, clock, shown = make_console(terminal=True)
    line = console.start_stage("prove raw")
    clock.now += 75
    console.progress(line, "reading", 3, 9)
    console.notice("something")
    console.pause()
    plain = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown())
    assert "something" in plain
    assert re.search(r"prove raw +1 min 15 s +3/9 reading", plain)


@pytest.mark.parametrize("terminal", [True, False])
def test_failures_are_shown_at_once_and_passes_are_not(terminal: bool) -> None:
    console, _, shown = make_console(terminal)
    console.result(result("H01", Layer.LIVE, Status.PASS))
    console.result(result("H04", Layer.LIVE, Status.NOT_APPLICABLE, "old sshd"))
    assert shown() == ""
    console.result(result("H02", Layer.LIVE, Status.UNREACHABLE, "no answer"))
    console.finding(Finding(control="R03", layer=Layer.RAW, kind="key", place="block 7", fingerprint="SHA256:abc"))
    assert "H02 [L] H02 holds (checks/test_sshd.py::test_it): no answer" in shown()
    assert "R03 [R] key at block 7, SHA256:abc" in shown()


@pytest.mark.parametrize("terminal", [True, False])
def test_text_of_a_guest_acts_neither_as_escape_nor_as_markup(terminal: bool) -> None:
    console, _, shown = make_console(terminal)
    line = console.start_stage(NASTY)
    console.progress(line, NASTY)
    console.notice(NASTY)
    console.result(result("H01", Layer.LIVE, Status.FAIL, NASTY))
    console.end_stage(line, outcome(NASTY, Status.FAIL, NASTY))
    console.summary(FULL)
    text = shown()
    assert "\x1b]0" not in text
    assert "\x07" not in text
    assert "\x00" not in text
    assert r"\x1b]0;owned\x07" in text
    assert "[bold]x[/bold]" in text


def test_summary_has_stages_controls_reasons_findings_leaks_and_image() -> None:
    console, _, shown = make_console(terminal=False)
    console.summary(FULL, "builds/b1")
    text = shown()
    for pattern in (
        r"✓ +launch +41 s",
        r"✗ +prove fresh boot +1 min 01 s",
        r"✗ +  checks +3\.2 s",
        r"total +3 min 05 s",
        r"control +live +fresh boot +raw",
        r"H01 +✓ +✗",
        r"H02 +\?",
        r"H04 +-",
        r"✗ H02 \[B\] H02 holds .*: no answer",
        r"✗ R03 \[R\] private key at block 7, SHA256:abc",
        r"✗ volume vol-1 in eu-central-1: in use",
        r"image \(not released\) ami-0feed web-b1 in eu-central-1",
        r"report builds/b1",
        r"failed: one check failed",
    ):
        assert re.search(pattern, text), f"{pattern} is not in\n{text}"


def test_summary_of_a_clean_build_ends_with_the_image() -> None:
    console, _, shown = make_console(terminal=False)
    console.summary(CLEAN)
    assert shown().rstrip().endswith("\nimage ami-0feed web-b1 in eu-central-1")
    assert "Failed" not in shown()


@pytest.mark.parametrize("terminal", [True, False])
def test_quiet_prints_nothing(terminal: bool) -> None:
    console, clock, shown = make_console(terminal, quiet=True)
    run_two_stages(console, clock)
    console.notice("x")
    console.result(result("H01", Layer.LIVE, Status.FAIL))
    console.summary(FULL)
    assert shown() == ""


def test_nobody_at_the_terminal_means_the_default() -> None:
    console, _, shown = make_console(terminal=False)
    assert console.ask("keep the instance?", ("keep", "cleanup"), "cleanup") == "cleanup"
    assert shown() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (185, "3 min 05 s")]
)
def test_durations_are_readable(seconds: float, text: str) -> None:
    assert format_seconds(seconds) == text
