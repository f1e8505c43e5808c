"""The pytest plugin of the process that runs the checks: `host` is the open session, results go to the proof.

Nothing is silent: a skip needs a reason, an expected failure is a failure, and what cannot be collected is reported.
Checks that the proof knows nothing of are rehearsed first, in a copy of this process each time: what they will read is
learned, and nothing else stays.
"""

import contextlib
import inspect
import os
import signal
import socket
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.verify.backend import HOST, GuestLost, SessionBackend, register
from pipeline.verify.redaction import redact, shorten
from pipeline.verify.wire import Message, Wire

DESCRIPTOR = "ASSAY_CHECKS_SOCKET"
OURS = Path(__file__).parents[2] / "checks"
REASONLESS = ("", "unconditional skip")
REHEARSAL_SECONDS = 120


def pytest_configure(config: pytest.Config) -> None:
    """Open the wire that the proof has handed down."""
    descriptor = int(os.environ.pop(DESCRIPTOR))
    wire = Wire(socket.socket(fileno=descriptor))
    register(wire)
    config.pluginmanager.register(Reporter(wire))
    config.add_cleanup(lambda: end(config))


def end(config: pytest.Config) -> None:
    """End this process as pytest would, without the tenth of a second that Python takes to tidy up."""
    session = config.pluginmanager.get_plugin("session")
    status = getattr(session, "exitstatus", pytest.ExitCode.INTERNAL_ERROR)
    config.get_terminal_writer().flush()
    os._exit(int(status))


class Reporter:
    """Sends what is collected, and one result for each check."""

    def __init__(self, wire: Wire) -> None:
        self.wire = wire
        self.deselected: list[str] = []
        self.files: set[str] = set()
        self.verdict: Message = {}

    def pytest_itemcollected(self, item: pytest.Item) -> None:
        """Remember which files hold checks at all."""
        self.files.add(str(item.path))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        """Remember the checks that say nothing about this layer."""
        self.deselected += [source(item) for item in items]

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        """Report a file that cannot be imported as a failed check."""
        if report.failed:
            self.wire.send(
                {
                    "kind": "result",
                    "status": "fail",
                    "source": report.nodeid,
                    "title": "the file can be collected",
                    "controls": [],
                    "detail": shorten(report.longreprtext),
                    "seconds": 0.0,
                }
            )

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Say what will run, so that the proof can tell what is missing at the end."""
        self.wire.send(
            {
                "kind": "collected",
                "checks": [described(item) for item in session.items],
                "deselected": self.deselected,
                "files": sorted(self.files),
            }
        )

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> None:
        """Rehearse the checks as often as the proof wants it; they run in earnest afterwards."""
        while self.rehearsal_is_wanted():
            copy = os.fork()
            if not copy:
                rehearse(session.items)
            os.waitpid(copy, 0)

    def rehearsal_is_wanted(self) -> bool:
        """Ask the proof, and pass over the answer that a rehearsal did not wait for."""
        self.wire.send({"kind": "rehearse"})
        while (answer := self.wire.receive()) and "wanted" not in answer:
            pass
        return bool(answer and answer["wanted"])

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Collect the parts of one check into one result."""
        SessionBackend.promised_to_read = item.path.is_relative_to(OURS)
        self.verdict = {"kind": "result", "status": "pass", "detail": "", "seconds": 0.0, **described(item)}
        try:
            return (yield)
        finally:
            self.wire.send(self.verdict)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Judge one part (set-up, call, tear-down), and take secrets out of what it says before it is printed."""
        report = yield
        self.verdict["seconds"] += call.duration
        judged = judge(report, call)
        if judged and self.verdict["status"] in ("pass", "not-applicable"):
            self.verdict["status"], self.verdict["detail"] = judged[0], shorten(judged[1])
        report.sections = [(name, redact(text)) for name, text in report.sections]
        if report.failed:
            report.longrepr = redact(report.longreprtext)
        return report


def rehearse(items: Sequence[pytest.Item]) -> NoReturn:
    """Run each check that asks the guest as far as its answers are known, report nothing, and end this process."""
    signal.alarm(REHEARSAL_SECONDS)
    SessionBackend.rehearsing = True
    asking = [item for item in items if "host" in getattr(item, "fixturenames", ())]
    try:
        for item, following in zip(asking, [*asking[1:], None], strict=True):
            SessionBackend.promised_to_read = item.path.is_relative_to(OURS)
            with contextlib.suppress(BaseException):
                item.ihook.pytest_runtest_setup(item=item)
                item.ihook.pytest_runtest_call(item=item)
            with contextlib.suppress(BaseException):
                item.ihook.pytest_runtest_teardown(item=item, nextitem=following)
    finally:
        os._exit(0)


def judge(report: pytest.TestReport, call: pytest.CallInfo[None]) -> tuple[str, str] | None:
    """Return the status and the reason of anything but a pass."""
    if call.excinfo is None:
        return ("fail", report.longreprtext) if report.failed else None
    if call.excinfo.errisinstance(GuestLost):
        return "unreachable", str(call.excinfo.value)
    if report.skipped and not hasattr(report, "wasxfail"):
        reason = str(call.excinfo.value).strip()
        return ("fail", "skipped without a reason") if reason in REASONLESS else ("not-applicable", reason)
    crash = getattr(report.longrepr, "reprcrash", None)
    where = "" if report.when == "call" else f"{report.when}: "
    return "fail", where + gist(crash.message if crash else report.longreprtext or str(call.excinfo.value))


def gist(message: str) -> str:
    """Return what an assertion says, without pytest's explanation of the difference."""
    lines = message.removeprefix("AssertionError: ").splitlines()
    end = next((number for number, line in enumerate(lines) if number and not line.strip(" ")), len(lines))
    return "\n".join(line for line in lines[:end] if not line.startswith((" +  where", " +  and")))


def described(item: pytest.Item) -> Message:
    """Return what identifies a check: its source, title and controls."""
    controls = [control for mark in item.iter_markers("controls") for control in mark.args]
    return {"source": source(item), "title": title(item), "controls": sorted(set(controls))}


def source(item: pytest.Item) -> str:
    """Return where a check stands: `checks/test_sshd.py::test_x` for ours, `own/web/test_x.py::test_y` for a user's."""
    room = "checks" if item.path.is_relative_to(OURS) else f"own/{item.path.parent.name}"
    return f"{room}/{item.path.name}::{plain(item.name)}"


def title(item: pytest.Item) -> str:
    """Return the first line of a check's docstring, or its name in words; with its parameters."""
    text = inspect.getdoc(item.obj) if isinstance(item, pytest.Function) else None
    name, bracket, parameters = plain(item.name).partition("[")
    words = text.splitlines()[0].rstrip(".") if text else name.removeprefix("test_").replace("_", " ")
    return f"{words} [{parameters}" if bracket else words


def plain(name: str) -> str:
    """Return a check's name without the host that testinfra adds to it: there is one only."""
    return name.replace(f"[{HOST}]", "").replace(f"{HOST}-", "").replace(f"-{HOST}", "")
