"""Sweep: remove what killed builds left behind, by their journals or by the tags, and nothing else.

A thing is removed when it bears the tags of a build (an owner, a build id of our form, a name that belongs to it) and
has expired, or when the journal of its build shows that the process that made it is dead on this host. A kept image
and its snapshots are never removed, and neither is anything of a build that is at work.
"""

from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from pipeline.aws.instances import start_to_terminate
from pipeline.aws.inventory import IMAGE, INSTANCE, REMOVERS, Possession, list_possessions, remove
from pipeline.aws.session import Session
from pipeline.aws.tags import is_expired, is_kept, is_resource_name
from pipeline.errors import AssayError, JournalInUse, ResourcesLeaked
from pipeline.journal import Entry, Journal, Reading, read_journal
from pipeline.process_identity import is_dead
from pipeline.report.evidence import Leak

JOURNALS = "*/journal*.jsonl"
"""A build has one for each account in which it makes something."""
"""Under the folder of the builds."""
ORDER = tuple(REMOVERS)


@dataclass(frozen=True)
class Removal:
    """One thing that is removed, and why it may be."""

    kind: str
    handle: str
    """Its identity, or its name when only the journal's intent is known."""
    name: str
    region: str
    reason: str


@dataclass(frozen=True)
class Swept:
    """What a sweep removed, or would remove, and what it could not."""

    dry_run: bool
    removals: tuple[Removal, ...]
    leaks: tuple[Leak, ...]
    notes: tuple[str, ...]

    def lines(self) -> list[str]:
        """Return the outcome as lines for the terminal."""
        stuck = {(leak.region, leak.identity) for leak in self.leaks}
        verb = "would remove" if self.dry_run else "removed"
        done = [removal for removal in self.removals if (removal.region, removal.handle) not in stuck]
        return [
            *(f"{verb} {one.kind} {one.handle} in {one.region}: {one.reason}" for one in done),
            *(f"{stays(leak)}: {leak.reason}" for leak in self.leaks),
            *self.notes,
            *([] if self.removals or self.leaks else ["nothing to remove"]),
        ]

    @property
    def exit_status(self) -> int:
        """0 when nothing that should be removed is left."""
        return ResourcesLeaked.exit_status if self.leaks else 0


def stays(leak: Leak) -> str:
    """Return what is left, in words: a thing, or a region or a journal that could not be read."""
    where = f" in {leak.region}" if leak.region else ""
    verb = "could not remove" if leak.kind in REMOVERS else "could not look into"
    return f"{verb} {leak.kind} {leak.identity}{where}"


@dataclass
class Journals:
    """What the journals on this host say."""

    dead: list[Reading] = field(default_factory=list)
    alive: set[str] = field(default_factory=set)
    kept: set[str] = field(default_factory=set)
    regions: set[str] = field(default_factory=set)
    leaks: list[Leak] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def dead_builds(self) -> set[str]:
        """The ids of the builds whose process is dead."""
        return {reading.build_id for reading in self.dead}


def sweep_builds(session: Session, builds: Path, *, dry_run: bool = False, now: datetime | None = None) -> Swept:
    """Remove what builds left in the session's region, and in every region that a journal of this cloud names.

    What cannot be removed is listed, and does not stop the rest. A second sweep finds nothing to do; one that was
    interrupted is simply run again.
    """
    journals = read_journals(builds, session.cloud)
    removals: list[Removal] = []
    leaks = list(journals.leaks)
    for region in sorted({session.region, *journals.regions}):
        regional = session.in_region(region)
        try:
            possessions = list_possessions(regional)
        except AssayError as error:
            leaks.append(Leak(kind="region", identity=region, region=region, reason=str(error)))
            continue
        journals.kept |= {one.identity for one in possessions if is_kept(one.tags)}
        wanted = choose(possessions, journals, region, now or datetime.now(UTC))
        removals += wanted
        if not dry_run:
            leaks += remove_all(regional, wanted)
    if not dry_run:
        record(journals, removals, leaks)
    return Swept(dry_run, tuple(removals), tuple(leaks), tuple(journals.notes))


def read_journals(builds: Path, cloud: str) -> Journals:
    """Return what the journals under a folder say about this cloud.

    One that cannot be read is listed among the leaks: it may show what the tags do not.
    """
    journals = Journals()
    for path in sorted(builds.glob(JOURNALS)):
        if path.parent.is_symlink():
            continue
        try:
            reading = read_journal(path)
        except (AssayError, OSError) as error:
            journals.leaks.append(Leak(kind="journal", identity=str(path), region="", reason=str(error)))
            continue
        add(journals, reading, cloud)
    return journals


def add(journals: Journals, reading: Reading, cloud: str) -> None:
    """Sort one journal in: dead, at work, or none of this cloud's."""
    unfinished = any(entry.open for entry in reading.entries)
    if reading.cloud != cloud:
        if unfinished:
            journals.notes.append(f"{reading.path}: made in {reading.cloud or 'no cloud'}, swept only from there")
        return
    journals.kept |= {entry.identity for entry in reading.entries if entry.kept and entry.identity}
    if not unfinished:
        return
    journals.regions |= {entry.region for entry in reading.entries if entry.open}
    if is_locked(reading):
        journals.alive.add(reading.build_id)
    elif reading.process and is_dead(reading.process):
        journals.dead.append(reading)


def is_locked(reading: Reading) -> bool:
    """Return whether a process holds a journal: then its build is at work, whatever the journal says."""
    try:
        Journal(reading.path, reading.build_id).close()
    except JournalInUse:
        return True
    return False


def choose(possessions: Sequence[Possession], journals: Journals, region: str, now: datetime) -> list[Removal]:
    """Return what is removed in a region, in an order in which it can be: what uses others goes first."""
    staying = {
        snapshot_id
        for one in possessions
        if one.kind == IMAGE and not reason_to_remove(one, journals, now)
        for snapshot_id in one.snapshot_ids
    }
    by_tags = [
        Removal(one.kind, one.identity, one.name, region, reason)
        for one in possessions
        if (reason := reason_to_remove(one, journals, now)) and one.identity not in staying
    ]
    known = {one.identity for one in possessions} | {one.name for one in possessions}
    by_journal = [
        Removal(entry.kind, entry.handle, entry.name, region, "its journal shows it, and its build is dead")
        for reading in journals.dead
        for entry in reading.entries
        if entry.open and entry.region == region and entry.handle not in known | journals.kept
    ]
    return sorted([*by_tags, *by_journal], key=lambda removal: ORDER.index(removal.kind))


def reason_to_remove(one: Possession, journals: Journals, now: datetime) -> str:
    """Return why a thing of ours may be removed; empty when it stays."""
    if is_kept(one.tags) or one.identity in journals.kept or one.build_id in journals.alive:
        return ""
    if one.build_id in journals.dead_builds:
        return "its build is dead"
    return "it has expired" if is_expired(one.tags, now) else ""


def remove_all(session: Session, wanted: Iterable[Removal]) -> list[Leak]:
    """Remove in order, and return what could not be. All instances end together: each takes a minute."""
    removals = list(wanted)
    for removal in removals:
        if removal.kind == INSTANCE and not is_resource_name(removal.handle):
            with suppress(AssayError):  # what fails here fails again below, and is listed there
                start_to_terminate(session, removal.handle)
    leaks = []
    for removal in removals:
        try:
            remove(session, removal.kind, removal.handle)
        except AssayError as error:
            leaks.append(Leak(kind=removal.kind, identity=removal.handle, region=removal.region, reason=str(error)))
    return leaks


def record(journals: Journals, removals: Sequence[Removal], leaks: Iterable[Leak]) -> None:
    """Write into the dead builds' journals what became of each thing, so that the next sweep need not ask."""
    reasons = {(leak.region, leak.identity): leak.reason for leak in leaks}
    outcomes = {
        (removal.region, key): reasons.get((removal.region, removal.handle), "")
        for removal in removals
        for key in (removal.handle, removal.name)
    }
    for reading in journals.dead:
        try:
            journal = Journal(reading.path, reading.build_id)
        except AssayError as error:
            journals.notes.append(str(error))
            continue
        with journal:
            for entry in reading.entries:
                if entry.open:
                    record_entry(journal, entry, outcomes, journals.kept)


def record_entry(journal: Journal, entry: Entry, outcomes: dict[tuple[str, str], str], kept: set[str]) -> None:
    """Write what became of one thing; nothing when it was neither kept nor tried."""
    outcome = outcomes.get((entry.region, entry.handle))
    if entry.identity in kept:
        journal.mark_kept(entry.number)
    elif outcome:
        journal.mark_stuck(entry.number, outcome)
    elif outcome is not None:
        journal.mark_removed(entry.number)
