"""From matches to findings: where each lies, and which may stay by the package database or the spec."""

import datetime
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.report.results import Finding, Layer
from pipeline.residue.containers import Budget
from pipeline.residue.engine import Match, Searcher, Stream
from pipeline.residue.filesystems import Entry, FileSystem, Partition
from pipeline.residue.locate import Locator, Place, Space
from pipeline.residue.named import named_residue
from pipeline.residue.rules import fingerprint_in, fingerprint_of
from pipeline.residue.secrets import BuildSecret, key_blob

if TYPE_CHECKING:
    from pipeline.spec import Forbidden, Waiver

NEAR = 512
"""Matches of one secret within so many bytes are one: it is found by each of its pieces."""

LOGIN_CONTROLS = ("S02",)
"""A key that may log in is a finding wherever it was published."""


@dataclass(frozen=True)
class Allowed:
    """What the spec says may be found."""

    waivers: "tuple[Waiver, ...]" = ()
    public_keys: tuple[str, ...] = ()
    """Lines of the keys of the spec's users: their being on the image is what it is for."""
    kept_files: tuple[str, ...] = ()
    """Files and folders that the spec says stay: its own."""
    forbidden: "tuple[Forbidden, ...]" = ()
    """What never may be found, whosever it is."""
    today: datetime.date = field(default_factory=datetime.date.today)

    def allows(self, match: Match) -> bool:
        """Say whether a match may stay. A secret of the build never may."""
        if isinstance(match.rule, BuildSecret):
            return False
        keys = {fingerprint_of(key_blob(line)) for line in self.public_keys}
        return self.waives(match.fingerprint) or (match.rule.controls[0] == "S02" and match.fingerprint in keys)

    def waives(self, fingerprint: str) -> bool:
        """Say whether a waiver that has not expired lets something stay."""
        return any(waiver.fingerprint == fingerprint and waiver.expires >= self.today for waiver in self.waivers)

    def remark(self, fingerprint: str) -> str:
        """Return what to say of a waiver that no longer holds."""
        expired = [
            waiver for waiver in self.waivers if waiver.fingerprint == fingerprint and waiver.expires < self.today
        ]
        return f"its waiver expired on {expired[0].expires}" if expired else ""


@dataclass
class Sifted:
    """What is left of the matches, and how many were explained."""

    located: list[tuple[Match, Place]] = field(default_factory=list)
    vouched: int = 0
    waived: int = 0


class Sieve:
    """Locates matches on one disk and drops those that are explained."""

    def __init__(self, locator: Locator, allowed: Allowed) -> None:
        self.locator = locator
        self.allowed = allowed

    def sift(self, matches: Sequence[Match]) -> Sifted:
        """Return the matches that are not explained, each with its place.

        What lies in a file that the package database vouches for is public; so is the same secret wherever else it
        lies, as compiled Python and initramfs images repeat what packages hold. A key that may log in never is.
        """
        sifted = Sifted()
        placed = [(match, self.locator.place_of(match.disk_offset)) for match in merged(matches)]
        public = {match.fingerprint for match, place in placed if self.is_vouched(match, place)}
        for match, place in placed:
            if self.allowed.allows(match):
                sifted.waived += 1
            elif not isinstance(match.rule, BuildSecret) and self.is_public(match, place, public):
                sifted.vouched += 1
            else:
                sifted.located.append((match, place))
        return sifted

    def is_public(self, match: Match, place: Place, public: set[str]) -> bool:
        """Say whether a match is explained by the package database."""
        repeated = match.fingerprint in public and match.rule.controls[0] not in LOGIN_CONTROLS
        return repeated or self.is_vouched(match, place)

    def is_vouched(self, match: Match, place: Place) -> bool:
        """Say whether a match lies in a file that the package database vouches for, or in what is compiled of one."""
        if place.space is not Space.FILE or place.file_system is None or place.entry is None:
            return False
        packages = self.locator.packages_of(place.file_system)
        return packages.vouches_for(place.entry) or packages.vouches_for_source_of(place.entry)

    def nowhere(self, match: Match) -> Place:
        """Return the place of a match on a disk whose file systems cannot be read."""
        return Place(match.disk_offset, Space.UNKNOWN, "the disk")

    def named(self) -> Iterator[Finding]:
        """Yield the files that must not ship by their names, on every file system of the disk."""
        for partition, file_system in self.locator.file_systems():
            packages = self.locator.packages_of(file_system)
            for rule, entry in named_residue(file_system.entries):
                fingerprint = fingerprint_in(file_system.read(entry))
                begin = next(file_system.read(entry), b"")
                harmless = rule.content is not None and not rule.content.match(begin)
                if harmless or packages.vouches_for(entry) or self.allowed.waives(fingerprint):
                    continue
                remark = self.allowed.remark(fingerprint)
                yield Finding(
                    control=rule.control,
                    layer=Layer.RAW,
                    kind=rule.kind,
                    place=f"file {entry.path} of {partition.name}",
                    fingerprint=fingerprint,
                    detail="; ".join(filter(None, (f"a file of {entry.size} bytes that must not ship", remark))),
                )


def merged(matches: Iterable[Match]) -> list[Match]:
    """Return matches without those that say the same of the same place."""
    kept: list[Match] = []
    last: dict[tuple[str, str, tuple[str, ...]], int] = {}
    for match in sorted(matches, key=lambda match: (match.inside, match.offset)):
        what = (match.rule.identity, match.fingerprint, match.inside)
        if match.offset - last.get(what, -NEAR - 1) > NEAR:
            kept.append(match)
        last[what] = match.offset
    return kept


def fragmented_matches(locator: Locator, searcher: Searcher, budget: Budget) -> Iterator[Match]:
    """Yield the matches in files whose content lies in several places, read as files: a raw search sees cut pieces."""
    for partition, file_system in locator.file_systems():
        for entry in file_system.entries:
            if entry.is_file and entry.is_fragmented:
                yield from matches_in_file(partition, file_system, entry, searcher, budget)


def matches_in_file(
    partition: Partition, file_system: FileSystem, entry: Entry, searcher: Searcher, budget: Budget
) -> Iterator[Match]:
    """Yield the matches in one file, with their places on the disk."""
    label = f"file {entry.path}"
    stream = Stream(searcher, budget, (label,), partition.offset_of(entry.extents[0].physical))
    position = 0
    for piece in file_system.read(entry):
        yield from stream.feed(position, piece)
        position += len(piece)
    yield from stream.finish()


def finding_of(match: Match, place: Place, allowed: Allowed) -> Finding:
    """Return a match as a finding: place, kind and fingerprint."""
    written = "" if match.encoding == "plain" else f"written as {match.encoding}"
    inside = " in ".join((f"offset {match.offset}", *reversed(match.inside))) if match.inside else ""
    remarks = (match.rule.identity, written, inside, match.detail, allowed.remark(match.fingerprint))
    return Finding(
        control=match.rule.controls[0],
        layer=Layer.RAW,
        kind=match.rule.kind,
        place=str(place),
        fingerprint=match.fingerprint,
        detail="; ".join(part for part in remarks if part),
    )
