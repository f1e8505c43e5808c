"""What was seen during a build, on disk at once: whatever happens later, nothing that was recorded is lost."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline.errors import AssayError, FileUnwritable, Interrupted, ProofFailed, ResidueFound, ResourcesLeaked
from pipeline.files import write_atomically
from pipeline.report.console import Console, StageLine
from pipeline.report.evidence import (
    BaseImage,
    Evidence,
    Finding,
    Image,
    Leak,
    Previous,
    Resource,
    Result,
    Stage,
    Status,
)
from pipeline.report.evidence_folder import write_report
from pipeline.report.render import failed_results

LATEST = "latest"
NOT_FINISHED = "the build has not finished"
UNEXPECTED = 1
"""The exit status of a defect, and of a report that was written before the end."""


@dataclass
class RunningStage:
    """A stage from its beginning on; `ended` is what becomes of it."""

    name: str
    started: datetime
    clock: float
    line: StageLine
    parent: "RunningStage | None" = None
    parts: "list[RunningStage]" = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    ended: Stage | None = None


class Recorder:
    """The record of one build, in a folder of its own. Its methods may be called from several threads."""

    def __init__(
        self,
        folder: Path,
        console: Console,
        *,
        build_id: str,
        spec_name: str,
        spec_digest: str,
        region: str,
        started: datetime | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.folder = folder
        self.console = console
        self._clock = clock
        self._lock = threading.RLock()
        self._evidence = Evidence(
            build_id=build_id,
            spec_name=spec_name,
            spec_digest=spec_digest,
            region=region,
            started=started or datetime.now(UTC),
            error=NOT_FINISHED,
            exit_status=UNEXPECTED,
        )
        self._stages: list[RunningStage] = []
        self._results: list[Result] = []
        self._findings: list[Finding] = []
        self._leaks: list[Leak] = []
        self._resources: Callable[[], Iterable[Resource]] = tuple
        self._current = threading.local()
        self._home = self._stack()
        folder.mkdir(parents=True, exist_ok=True)
        self.write()
        _point_latest(folder)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Record what happens inside as a stage, or as a part of the stage that is running: its time and its outcome.

        In a thread that has no stage of its own yet, it is a part of the stage that the recorder's own thread is in.
        What is raised inside is recorded and goes on. The report is on disk when the stage has ended.
        """
        running = self._start(name)
        try:
            yield
        except BaseException as error:
            self._end(running, explain(error))
            with suppress(FileUnwritable):
                self.write()
            raise
        self._end(running, None)
        self.write()

    def progress(self, text: str, done: int | None = None, total: int | None = None) -> None:
        """Show how far the current stage is; nothing of it is kept."""
        running = self._innermost()
        self.console.progress(running.line if running else None, text, done, total)

    def notice(self, text: str) -> None:
        """Show something that the user should know, and that is no failure; nothing of it is kept."""
        self.console.notice(text)

    def add(self, *results: Result) -> None:
        """Record results; one that failed, or could not be asked, fails the current stage."""
        with self._lock:
            self._results.extend(results)
            for result in results:
                if result.status.is_failure:
                    self._fail_current(f"{' '.join(result.controls)} {result.title}: {result.status}".strip())
                self.console.result(result)

    def find(self, *findings: Finding) -> None:
        """Record what must not be there; it fails the current stage."""
        with self._lock:
            self._findings.extend(findings)
            for finding in findings:
                self._fail_current(f"{finding.control} {finding.kind} at {finding.place}")
                self.console.finding(finding)

    def leak(self, *leaks: Leak) -> None:
        """Record resources that could not be removed."""
        with self._lock:
            self._leaks.extend(leaks)

    def take_resources(self, source: Callable[[], Iterable[Resource]]) -> None:
        """Ask this for what was made and removed, each time that the report is written: the journal knows it."""
        self._resources = source

    def set_base_image(self, base_image: BaseImage) -> None:
        """Record what the build started from (A01)."""
        self._update(base_image=base_image)

    def set_image(self, image: Image) -> None:
        """Record the image that was made, proved or not."""
        self._update(image=image)

    def set_previous(self, previous: Previous) -> None:
        """Record what is not as in the build before."""
        self._update(previous=previous)

    def pin(self, snapshot_id: str, digest: str) -> None:
        """Record the digest over the blocks of a snapshot that was searched (R06)."""
        with self._lock:
            self._update(block_digests={**self._evidence.block_digests, snapshot_id: digest})

    def save(self, name: str, content: str | bytes) -> Path:
        """Write an artefact, such as a console log, into the build's folder and return its path.

        The caller has masked what is secret in it. Raises ValueError for a name that leads out of the folder.
        """
        path = self.folder / name
        if not path.resolve().is_relative_to(self.folder.resolve()):
            raise ValueError(f"{name} leads out of the build's folder")
        write_atomically(path, content)
        return path

    def evidence(self) -> Evidence:
        """Return all that is recorded so far. A stage that still runs is `unreachable`: how it ends is not known."""
        with self._lock:
            recorded = {
                "stages": tuple(self._describe(stage) for stage in self._stages),
                "results": tuple(self._results),
                "findings": tuple(self._findings),
                "resources": tuple(self._resources()),
                "leaks": tuple(self._leaks),
            }
            return self._evidence.model_copy(update=recorded)

    def write(self) -> Evidence:
        """Write the report in each of its forms, and return what they say."""
        with self._lock:
            evidence = self.evidence()
            write_report(self.folder, evidence)
            return evidence

    def finish(self, error: BaseException | None = None) -> Evidence:
        """Record how the build ended, write the report a last time, print the summary, and return the evidence.

        Without an error of its own, a build still ends badly when something failed, was found, or could not be removed.
        Raises FileUnwritable after the summary was printed.
        """
        with self._lock:
            ending = error or self._find_reason_to_fail()
            self._update(
                finished=datetime.now(UTC),
                error=None if ending is None else explain(ending),
                exit_status=0 if ending is None else exit_status_of(ending),
            )
            self.console.summary(self.evidence(), str(self.folder))
            return self.write()

    def _find_reason_to_fail(self) -> AssayError | None:
        evidence = self.evidence()
        failed = failed_results(evidence)
        if evidence.findings:
            return ResidueFound(f"{len(evidence.findings)} findings", resource=_image_id(evidence))
        if failed:
            return ProofFailed(f"{len(failed)} results are not a pass", resource=_image_id(evidence))
        bad = [stage.name for stage in evidence.stages if stage.status is not Status.PASS]
        if bad:
            return ProofFailed(f"failed: {', '.join(bad)}", resource=_image_id(evidence))
        if evidence.leaks:
            return ResourcesLeaked(f"{len(evidence.leaks)} resources could not be removed")
        return None

    def _update(self, **values: object) -> None:
        with self._lock:
            self._evidence = self._evidence.model_copy(update=values)

    def _start(self, name: str) -> RunningStage:
        with self._lock:
            parent = self._innermost()
            line = self.console.start_stage(name, parent.line if parent else None)
            running = RunningStage(name, datetime.now(UTC), self._clock(), line, parent)
            (parent.parts if parent else self._stages).append(running)
            self._stack().append(running)
            return running

    def _end(self, running: RunningStage, error: str | None) -> None:
        with self._lock:
            self._stack().remove(running)
            parts = tuple(self._describe(part) for part in running.parts)
            failures = (
                [error]
                if error
                else [
                    *running.failures,
                    *(f"{part.name}: {part.detail}" for part in parts if part.status is not Status.PASS),
                ]
            )
            ended = Stage(
                name=running.name,
                started=running.started,
                seconds=max(self._clock() - running.clock, 0.0),
                status=Status.FAIL if failures else Status.PASS,
                detail="\n".join(failures),
                parts=parts,
            )
            running.ended = ended
            self.console.end_stage(running.line, ended)

    def _stack(self) -> list[RunningStage]:
        """Return the stages that this thread is in, outermost first."""
        if not hasattr(self._current, "stack"):
            self._current.stack = []
        stack: list[RunningStage] = self._current.stack
        return stack

    def _innermost(self) -> RunningStage | None:
        stack = self._stack() or self._home
        return stack[-1] if stack else None

    def _fail_current(self, reason: str) -> None:
        running = self._innermost()
        if running:
            running.failures.append(reason)

    def _describe(self, running: RunningStage) -> Stage:
        if running.ended:
            return running.ended
        return Stage(
            name=running.name,
            started=running.started,
            seconds=max(self._clock() - running.clock, 0.0),
            status=Status.UNREACHABLE,
            detail="still running when this was written",
            parts=tuple(self._describe(part) for part in running.parts),
        )


def explain(error: BaseException) -> str:
    """Return an error as the report says it. What is not of our tree is a defect, and named by its kind."""
    if isinstance(error, AssayError):
        return error.describe()
    if isinstance(error, KeyboardInterrupt):
        return "interrupted"
    return f"a defect of Assay: {type(error).__name__}: {error}"


def exit_status_of(error: BaseException) -> int:
    """Return the exit status that an error ends the process with."""
    if isinstance(error, AssayError):
        return error.exit_status
    return Interrupted.exit_status if isinstance(error, KeyboardInterrupt) else UNEXPECTED


def _image_id(evidence: Evidence) -> str | None:
    return evidence.image.image_id if evidence.image else None


def _point_latest(folder: Path) -> None:
    """Make `latest` beside the folder point to it, in one step; a `latest` that is no link is left alone."""
    latest = folder.parent / LATEST
    if latest.exists() and not latest.is_symlink():
        return
    temporary = folder.parent / f".{LATEST}.{folder.name}"
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(folder.name, target_is_directory=True)
    temporary.replace(latest)
