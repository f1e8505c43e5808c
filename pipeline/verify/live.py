"""Runs `checks/`, and the spec's own, on a guest: every check ends in a result.

pytest runs in a process of its own. The session stays here, where the key is; the checks get only a socket. So a check
that hangs, crashes or leaves things behind harms one proof at most, many proofs may run at once, and it makes no
difference whether this process is itself a pytest. It may be started before there is a guest to ask, and has collected
its checks then when the guest is ready. The commands of last time are sent at once; without a last time, that process
rehearses its checks first, to learn what they will read.
"""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from pipeline.errors import AssayError, ProofFailed
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Spec
from pipeline.verify.ahead import Ahead, Shell, name_recording, only_reads, read_recording, write_recording
from pipeline.verify.wire import Message, Wire

Something = TypeVar("Something")

PROJECT = Path(__file__).parents[2]
CHECKS = PROJECT / "checks"
EXPECTATIONS = "expectations.json"
SOCKET_VARIABLE = "ASSAY_CHECKS_SOCKET"
IDLE_SECONDS = 300.0
"""How long a check may compute without asking the guest anything."""

Progress = Callable[[Result, int, int], None]
"""Called with each result, how many there are, and how many are expected."""


@dataclass
class Proof:
    """What is known so far."""

    layer: Layer
    progress: Progress
    collected: list[Message] = field(default_factory=list)
    deselected: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    lost: str = ""
    """Why the guest cannot be asked any more."""
    ended: str = ""
    """Why the checks' process ended before its time."""

    def add(self, message: Message) -> None:
        """Take one result."""
        result = Result(
            controls=tuple(message["controls"]),
            layer=self.layer,
            status=Status(message["status"]),
            title=message["title"],
            source=message["source"],
            detail=message.get("detail", ""),
            seconds=round(message.get("seconds", 0.0), 3),
        )
        self.results.append(result)
        self.progress(result, len(self.results), max(len(self.collected), len(self.results)))


@dataclass(frozen=True)
class Checks:
    """The checks of one layer, in a process that has collected them, or is about to, and waits for a guest."""

    layer: Layer
    spec: Spec
    folder: Path
    """What they print, and what they are told, is here."""
    paths: Sequence[Path]
    own: Sequence[Path]
    """Those that the spec names; one may be missing."""
    process: "subprocess.Popen[bytes]"
    wire: Wire

    def prove(
        self,
        shells: Sequence[Shell],
        expectations: Mapping[str, str],
        *,
        recordings: Path | None = None,
        progress: Progress = lambda result, done, total: None,
        idle_seconds: float = IDLE_SECONDS,
    ) -> tuple[Result, ...]:
        """Return one result for each check, asked in the given root shells. They work side by side; one is enough.

        `expectations` are facts of the build that checks compare with; `checks/fixtures.py` has the list. `recordings`
        is where commands are remembered from one proof to the next; none: in the user's cache folder.
        Raises ProofFailed when there was no check to run. A check that could not be asked is `unreachable`.
        """
        (self.folder / EXPECTATIONS).write_text(json.dumps(dict(expectations), indent=2))
        proof = Proof(self.layer, progress)
        recording = recording_path(recordings, self.paths, self.layer, self.spec)
        with Ahead(shells, read_recording(recording, expectations)) as ahead:
            try:
                serve(self.wire, ahead, proof, idle_seconds)
                self.process.wait(idle_seconds)
            except (TimeoutError, subprocess.TimeoutExpired):
                proof.ended = f"nothing was heard from the checks for {idle_seconds:.0f} s"
        proof.ended = proof.ended or f"the checks' process ended with status {self.process.returncode}"
        settle(proof, self.own)
        write_summary(self.folder / "summary.json", proof, ahead)
        if not proof.results:
            raise ProofFailed(
                f"no check was collected for layer {self.layer}",
                hint=f"read {self.folder}/output.txt; the checks stand in {self.paths[0]}",
            )
        if self.process.returncode in (0, 1) and not proof.lost:
            write_recording(recording, ahead.asked, expectations)
        return tuple(proof.results)


@contextlib.contextmanager
def start_checks(
    layer: Layer, spec: Spec, folder: Path, *, spec_folder: Path | None = None, checks: Path = CHECKS
) -> Iterator[Checks]:
    """Start pytest with the checks of a layer (L or B) in a process of its own, which is gone afterwards in any case.

    What the checks print goes to `folder/checks-LAYER/`. The spec's own checks are found relative to `spec_folder`.
    """
    own = [(spec_folder or Path.cwd()) / path for path in spec.checks]
    paths = [checks, *(path for path in own if path.exists())]
    place = folder_of(folder, layer)
    place.mkdir(parents=True, exist_ok=True)
    (place / "spec.json").write_text(spec.model_dump_json(indent=2))
    ours, theirs = socket.socketpair()
    with ours, theirs, (place / "output.txt").open("wb") as output:
        process = subprocess.Popen(
            command_line(layer, place, paths),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=PROJECT,
            env=environment() | {SOCKET_VARIABLE: str(theirs.fileno())},
            pass_fds=(theirs.fileno(),),
            start_new_session=True,
        )
        theirs.close()
        try:
            yield Checks(layer, spec, place, paths, own, process, Wire(ours))
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def command_line(layer: Layer, place: Path, paths: Sequence[Path]) -> list[str]:
    """Return how pytest is started: no configuration of the user's or ours, no plugin that is not named."""
    return [
        *(sys.executable, "-m", "pytest", "-c", os.devnull, "--rootdir", str(PROJECT), "--disable-plugin-autoload"),
        *("-p", "testinfra.plugin", "-p", "checks.fixtures", "-p", "pipeline.verify.plugin"),
        *("-p", "no:cacheprovider", "--import-mode=importlib", "--continue-on-collection-errors", "--strict-markers"),
        *("--tb=short", "--color=no", "-q", "-ra", "-o", "verbosity_assertions=2"),
        *("--hosts=session://guest", f"--layer={layer}"),
        *(f"--spec={place / 'spec.json'}", f"--expectations={place / EXPECTATIONS}"),
        *(str(path) for path in paths),
    ]


def environment() -> dict[str, str]:
    """Return this process's environment without what steers pytest, and with the project importable."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return kept | {"PYTHONPATH": str(PROJECT)}


def serve(wire: Wire, ahead: Ahead, proof: Proof, idle_seconds: float) -> None:
    """Answer the checks until they are done. Raises TimeoutError when they are silent for too long."""
    ahead.send()
    with contextlib.suppress(ConnectionError):
        while message := wire.receive(idle_seconds):
            match message["kind"]:
                case "run":
                    wire.send(answer(ahead, proof, message))
                case "rehearse":
                    wire.send({"wanted": not proof.lost and ahead.wants_rehearsal()})
                case "collected":
                    proof.collected, proof.deselected = message["checks"], message["deselected"]
                    proof.files = message["files"]
                case "result":
                    proof.add(message)


def answer(ahead: Ahead, proof: Proof, message: Message) -> Message:
    """Return the guest's answer to one command, or why it cannot be asked."""
    command: str = message["command"]
    reads = message["reads"] or only_reads(command)
    output = ask(proof, lambda: (ahead.rehearse if message["rehearsing"] else ahead.run)(command, reads))
    if output is None:
        return {"lost": proof.lost} if proof.lost else {"unknown": True}
    return {"exit_status": output.exit_status, "stdout": output.stdout, "stderr": output.stderr}


def ask(proof: Proof, question: Callable[[], Something]) -> Something | None:
    """Ask the guest something, unless it is lost already: a session that broke stays broken."""
    if proof.lost:
        return None
    try:
        return question()
    except AssayError as error:
        proof.lost = str(error)
        return None


def settle(proof: Proof, own: Sequence[Path]) -> None:
    """Give a result to every check that has none, and to every path of the user's that held no check."""
    seen = {result.source for result in proof.results}
    for check in proof.collected:
        if check["source"] not in seen:
            status = Status.UNREACHABLE if proof.lost else Status.FAIL
            proof.add(check | {"status": status, "detail": proof.lost or proof.ended})
    for path in own:
        if not any(Path(file).is_relative_to(path.resolve()) for file in proof.files):
            reason = "no check was collected here" if path.exists() else "there is no such file or folder"
            title = "the spec's own checks are run"
            proof.add({"controls": [], "status": "fail", "title": title, "source": str(path), "detail": reason})


def write_summary(path: Path, proof: Proof, ahead: Ahead) -> None:
    """Write down what was asked how: figures for people, not for the report."""
    figures = {
        "layer": proof.layer,
        "checks": len(proof.collected),
        "not_of_this_layer": proof.deselected,
        "commands": len(ahead.asked),
        "asked_live": ahead.live,
        "written": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }
    path.write_text(json.dumps(figures, indent=2))


def recording_path(recordings: Path | None, paths: Sequence[Path], layer: Layer, spec: Spec) -> Path:
    """Return where the commands of these checks are remembered."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    files = [file for path in paths for file in ([path] if path.is_file() else path.rglob("*.py"))]
    return (recordings or cache / "assay" / "recordings") / name_recording(files, layer, spec.name)


def folder_of(folder: Path, layer: Layer) -> Path:
    """Return where the checks of a layer leave what they print."""
    return folder / f"checks-{layer}"
