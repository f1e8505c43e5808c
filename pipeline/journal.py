"""The journal of a build: what is about to be made is on disk before it is made, and what is made can be undone.

A line is written and synchronised before each call that creates, and another after it. Whatever kills the process, the
journal shows what may exist: by its identity, or, when the answer never came, by the name that it was to bear.
"""

import fcntl
import json
import os
import threading
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from io import FileIO
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from pipeline.aws.session import is_unanswered
from pipeline.aws.wait import CLOCK, Clock
from pipeline.errors import AssayError, JournalDamaged, JournalFailed, JournalInUse
from pipeline.interruption import uninterrupted
from pipeline.process_identity import ProcessIdentity, this_process
from pipeline.report.evidence import Leak, Resource

UNDO_ROUNDS = 3
"""What could not be removed is tried again after the rest: it may have hung on something that is gone then."""
ROUND_SECONDS = 5.0
SETTLE_SECONDS = 5.0
"""How long a thing may stay unseen whose creation was broken off or half refused (EC2's eventual consistency)."""
UNANSWERED_SECONDS = 300.0
"""How long a cloud that does not answer at all is asked to remove things before they are listed as left."""

Undo = Callable[[str], None]


@dataclass(frozen=True)
class Entry:
    """One thing of a build, as the journal knows it."""

    number: int
    kind: str
    name: str
    region: str
    intended: datetime
    identity: str | None = None
    """None until the answer came: it may exist, under its name."""
    created: datetime | None = None
    removed: datetime | None = None
    kept: bool = False
    reason: str = ""
    """Why it could not be removed."""

    @property
    def handle(self) -> str:
        """By what it is removed: its identity, or its name when the identity is not known."""
        return self.identity or self.name

    @property
    def open(self) -> bool:
        """Whether it may still exist and should not."""
        return self.removed is None and not self.kept


@dataclass(frozen=True)
class Reading:
    """What a journal on disk says."""

    path: Path
    build_id: str
    cloud: str
    process: ProcessIdentity | None
    entries: tuple[Entry, ...]


class Journal(AbstractContextManager["Journal"]):
    """The open journal of one build, and the stack of what undoes it.

    One process at a time may hold it; its threads may all create.
    """

    def __init__(self, path: Path, build_id: str, cloud: str = "", clock: Clock = CLOCK) -> None:
        """Open a journal, a new one or one to go on with. `cloud` is `Session.cloud`. Raises JournalInUse."""
        self.path = path
        self.build_id = build_id
        self._clock = clock
        self._file = open_locked(path)
        self._entries: dict[int, Entry] = {}
        self._undo: dict[int, Undo] = {}
        self._lock = threading.RLock()
        if path.stat().st_size:
            self._entries = {entry.number: entry for entry in read_journal(path).entries}
        else:
            self._write("opened", build_id=build_id, cloud=cloud, process=this_process().as_record())
            synchronise(path.parent)

    def create(self, kind: str, name: str, region: str, make: Callable[[], str], undo: Undo) -> str:
        """Make one thing and return its identity; `undo` joins the stack before it is made.

        `name` is the one that is derived from the build id. `undo` gets the identity, or the name when no identity is
        known: it removes whatever bears the name. An undo that finds nothing has succeeded.
        """
        with self._lock:
            number = max(self._entries, default=0) + 1
            self._undo[number] = undo
            self._entries[number] = Entry(number, kind, name, region, intended=now())
            self._write("intent", number=number, kind=kind, name=name, region=region)
        identity = make()
        self._change(number, "created", identity=identity)
        return identity

    def keep(self, *identities: str) -> None:
        """Commit: these are what the build is for, and no longer undone. One line, so that it is all or nothing."""
        numbers = [entry.number for entry in self.entries if entry.identity in identities]
        if len(numbers) != len(set(identities)):
            raise ValueError(f"the journal does not know all of {identities}")
        self.mark_kept(*numbers)

    def keep_named(self, name: str, region: str, identity: str) -> None:
        """Commit a thing that is there under its name, also where only an earlier process meant to make it."""
        for entry in self._open_entries():
            if (entry.name, entry.region) == (name, region):
                if entry.identity is None:
                    self._change(entry.number, "created", identity=identity)
                self.mark_kept(entry.number)

    def undo(self, identity: str) -> None:
        """Remove one thing before its time, for example the build instance once its image exists. Raises AssayError."""
        number = next(entry.number for entry in self.entries if entry.identity == identity and entry.open)
        self._undo[number](identity)
        self.mark_removed(number)

    def undo_all(self, progress: Callable[[str], None] = lambda _: None) -> tuple[Leak, ...]:
        """Remove all that was made and not kept, the newest first, and return what could not be removed.

        Nothing stops it: neither a failure nor Ctrl-C. What fails is tried again after the rest; where the cloud does
        not answer, it is asked for a while, about one thing. `progress` is told what is being removed.
        """
        with uninterrupted():
            give_up = self._clock.now() + UNANSWERED_SECONDS
            unseen = [entry for entry in self._open_entries() if entry.identity is None]
            answered = self._undo_each(self._open_entries(), progress)
            if unseen:
                self._clock.rest(SETTLE_SECONDS)
                self._undo_each(unseen, progress)
            rounds = 1
            while self._open_entries() and (rounds < UNDO_ROUNDS if answered else self._clock.now() < give_up):
                self._clock.rest(ROUND_SECONDS)
                answered = self._undo_each(self._open_entries(), progress)
                rounds += answered
        return self.leaks()

    def leaks(self) -> tuple[Leak, ...]:
        """Return what may still exist and should not."""
        return tuple(
            Leak(kind=entry.kind, identity=entry.handle, region=entry.region, reason=entry.reason or "not removed yet")
            for entry in self.entries
            if entry.open
        )

    def resources(self) -> tuple[Resource, ...]:
        """Return everything that was made, for the report; what was only intended and never seen is left out."""
        return tuple(
            Resource(
                kind=entry.kind,
                identity=entry.identity,
                region=entry.region,
                created=entry.created or entry.intended,
                removed=entry.removed,
                kept=entry.kept,
            )
            for entry in self.entries
            if entry.identity
        )

    @property
    def entries(self) -> tuple[Entry, ...]:
        """All that the journal knows, in the order in which it was intended."""
        with self._lock:
            return tuple(self._entries.values())

    def mark_removed(self, number: int) -> None:
        """Record that a thing is gone."""
        self._change(number, "removed")

    def mark_stuck(self, number: int, reason: str) -> None:
        """Record why a thing could not be removed."""
        self._change(number, "stuck", reason=reason)

    def mark_kept(self, *numbers: int) -> None:
        """Record that things are kept."""
        with self._lock:
            self._write("kept", numbers=numbers)
            for number in numbers:
                self._entries[number] = replace(self._entries[number], kept=True)

    def close(self) -> None:
        """Close the file and give the lock back. A second call does nothing."""
        self._file.close()

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __enter__(self) -> Self:
        return self

    def _open_entries(self) -> list[Entry]:
        """Return what is to be undone, the newest first."""
        return [entry for entry in reversed(self.entries) if entry.open]

    def _undo_each(self, entries: Iterable[Entry], progress: Callable[[str], None]) -> bool:
        """Undo in order, and record what became of each. A defect in an undo must not leak the rest: it is listed.

        Return whether the cloud answered: when a region did not, all that follow there are not tried, for that reason.
        """
        unanswered: dict[str, str] = {}
        for entry in entries:
            undo = self._undo.get(entry.number)
            if undo is None:
                continue
            with suppress(JournalFailed):  # neither must a full disk
                if reason := unanswered.get(entry.region):
                    self.mark_stuck(entry.number, reason)
                    continue
                progress(f"removing {entry.kind} {entry.handle}")
                try:
                    undo(entry.handle)
                except AssayError as error:
                    self.mark_stuck(entry.number, str(error))
                    if is_unanswered(error):
                        unanswered[entry.region] = str(error)
                except Exception as error:
                    self.mark_stuck(entry.number, f"a defect: {type(error).__name__}")
                else:
                    self.mark_removed(entry.number)
        return not unanswered

    def _change(self, number: int, event: str, **values: str) -> None:
        """Change one entry, in memory first: what is known must not be lost with a full disk."""
        with self._lock:
            self._entries[number] = after(self._entries[number], event, values, now())
            self._write(event, number=number, **values)

    def _write(self, event: str, **values: Any) -> None:  # noqa: ANN401
        """Append one line, durably: all of it or none. Raises JournalFailed."""
        line = json.dumps({"event": event, "time": now().isoformat(), **values}) + "\n"
        size = os.fstat(self._file.fileno()).st_size
        try:
            if self._file.write(line.encode()) != len(line):
                raise OSError("the disk is full")
            os.fsync(self._file.fileno())
        except OSError as error:
            os.ftruncate(self._file.fileno(), size)
            raise JournalFailed(f"the journal cannot be written: {error}", resource=str(self.path)) from error


def open_locked(path: Path) -> FileIO:
    """Return the journal's file, for appending, readable by its owner only, and locked against other processes.

    The kernel gives the lock back when the process dies. A torn last line is cut off: its call was never made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise JournalFailed(f"the journal cannot be opened: {error.strerror}", resource=str(path)) from error
    file = FileIO(descriptor, "a+")
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        raise JournalInUse("another process writes this journal", resource=str(path)) from error
    file.seek(0)
    content = file.readall()
    file.truncate(content.rfind(b"\n") + 1)
    return file


def synchronise(folder: Path) -> None:
    """Make a new file's name durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def read_journal(path: Path) -> Reading:
    """Return what a journal says. A torn last line is left out; any other damage raises JournalDamaged."""
    complete = path.read_bytes().rpartition(b"\n")[0]
    try:
        records = [json.loads(line) for line in complete.splitlines() if line]
        return digest_records(path, records)
    except (ValueError, KeyError, TypeError) as error:
        raise JournalDamaged("a line of the journal cannot be read", resource=str(path)) from error


def digest_records(path: Path, records: Iterable[dict[str, Any]]) -> Reading:
    """Return the state to which a journal's records lead."""
    reading = Reading(path, build_id="", cloud="", process=None, entries=())
    entries: dict[int, Entry] = {}
    for record in records:
        moment = datetime.fromisoformat(record["time"])
        match record["event"]:
            case "opened":
                process = ProcessIdentity(**record["process"])
                reading = replace(reading, build_id=record["build_id"], cloud=record["cloud"], process=process)
            case "intent":
                number = record["number"]
                entries[number] = Entry(number, record["kind"], record["name"], record["region"], intended=moment)
            case "kept":
                for number in record["numbers"]:
                    entries[number] = replace(entries[number], kept=True)
            case event:
                entries[record["number"]] = after(entries[record["number"]], event, record, moment)
    return replace(reading, entries=tuple(entries.values()))


def after(entry: Entry, event: str, record: dict[str, Any], moment: datetime) -> Entry:
    """Return an entry after an event of its own."""
    match event:
        case "created":
            return replace(entry, identity=record["identity"], created=moment)
        case "removed":
            return replace(entry, removed=moment, reason="")
        case "stuck":
            return replace(entry, removed=None, reason=record["reason"])
    raise ValueError(f"an unknown event: {event}")


def now() -> datetime:
    """Return this moment, in UTC."""
    return datetime.now(UTC)
