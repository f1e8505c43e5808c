"""What differs between two builds, by the evidence in their folders, or between two images, by their blocks.

Of an image that a build in the folder of builds made, the evidence is compared too.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.aws import images
from pipeline.aws.blocks import SnapshotBlocks
from pipeline.aws.session import Session
from pipeline.errors import BlockUnreadable, CloudFailed, SpecInvalid
from pipeline.report.evidence import Change
from pipeline.report.evidence_folder import find_build_of, read_report
from pipeline.residue.blocks import BlockSource, Spool, open_image
from pipeline.residue.contents import read_contents
from pipeline.residue.vouch import in_usr
from pipeline.stages.differences import Values, find_changes, read_build

ON_DISKS = ("users", "units", "privileged programs", "kernel settings", "files")
"""What only the blocks of a disk tell."""
ORDER = (
    *("identity", "packages", "sizes", "users", "ports", "units", "privileged programs", "kernel settings"),
    *("kernel settings in effect", "controls", "results", "findings", "files"),
)
"""The subjects as they are printed; the longest come last."""
Progress = Callable[[str], None]


@dataclass(frozen=True)
class Difference:
    """Everything that differs between two builds, by subject. A subject without changes is in it, and empty."""

    before: str
    after: str
    subjects: Mapping[str, tuple[Change, ...]]
    unknown: Mapping[str, str] = field(default_factory=dict)
    """The subjects that cannot be compared, and why."""

    def lines(self) -> Iterator[str]:
        """Yield it as people read it."""
        yield f"from {self.before} to {self.after}"
        for subject, changes in self.subjects.items():
            yield f"{subject}: {len(changes) or 'nothing'} changed"
            yield from (f"  {change.line()}" for change in changes)
        for reason in dict.fromkeys(self.unknown.values()):
            subjects = ", ".join(subject for subject, why in self.unknown.items() if why == reason)
            yield f"not compared: {subjects} ({reason})"

    def as_json(self) -> str:
        """Return it as JSON."""
        subjects = {
            subject: [{"name": change.name, "from": change.before, "to": change.after} for change in changes]
            for subject, changes in self.subjects.items()
        }
        document = {"from": self.before, "to": self.after, "subjects": subjects, "unknown": dict(self.unknown)}
        return json.dumps(document, indent=2)


@dataclass(frozen=True)
class Side:
    """One of the two that are compared: what is known of it, by subject."""

    name: str
    subjects: Mapping[str, Values]
    owners: Values = field(default_factory=dict)
    """Which package a path came with."""


def compare(
    before: str,
    after: str,
    *,
    builds: Path,
    open_session: Callable[[], Session],
    progress: Progress = lambda text: None,
) -> Difference:
    """Return what differs between two builds, images or image files.

    Each is `ami-…`, a file that exists, or the id of a build. Two builds are compared by their evidence alone; beside
    an image or a file, a build stands for the image that it made. Raises SpecInvalid when there is no such build, or it
    has no image; CloudFailed when the cloud refuses; BlockUnreadable when the files of a disk cannot be read.
    """
    if not any(map(is_on_a_disk, (before, after))):
        return compare_builds(builds / before, builds / after)
    one, other = (read_side(name, builds, open_session, progress) for name in (before, after))
    return compare_sides(one, other)


def is_on_a_disk(name: str) -> bool:
    """Return whether a name is an image's or a file's."""
    return name.startswith("ami-") or Path(name).is_file()


def read_side(name: str, builds: Path, open_session: Callable[[], Session], progress: Progress) -> Side:
    """Return what the blocks of a disk say, and the evidence of the build that made it where there is one."""
    if Path(name).is_file():
        with open_image(Path(name)) as image:
            return read_disks(name, [image], progress)
    image_id = name if name.startswith("ami-") else image_of(builds / name)
    session = open_session()
    snapshot_ids = images.describe_image(session, image_id).snapshot_ids
    try:
        side = read_disks(image_id, [SnapshotBlocks(session, snapshot_id) for snapshot_id in snapshot_ids], progress)
    except CloudFailed as error:
        hint = "EBS direct reads no public snapshot of somebody else: copy the image, and name the copy"
        raise CloudFailed(error.message, resource=image_id, region=session.region, hint=hint) from error
    known = find_build_of(builds, image_id)
    return Side(side.name, {**read_build(known), **side.subjects}, side.owners) if known else side


def image_of(folder: Path) -> str:
    """Return the image that a build made. Raises SpecInvalid when there is none."""
    image = read_report(folder).image
    if image is None:
        raise SpecInvalid("the build made no image", resource=folder.name, hint="name a build that was proved")
    return image.image_id


def read_disks(name: str, disks: list[BlockSource], progress: Progress) -> Side:
    """Return what the system on the first disk that has one consists of. Raises BlockUnreadable when none has."""
    for disk in disks:
        progress(f"reading the files of {name}")
        with Spool(disk) as spool:
            contents = read_contents(spool)
        if contents:
            return Side(name, contents.subjects, contents.owners)
    raise BlockUnreadable("there is no operating system on its disks", resource=name)


def compare_sides(before: Side, after: Side) -> Difference:
    """Return what differs between two sides. What only one of them knows is named as not known."""
    both = [subject for subject in ORDER if subject in before.subjects and subject in after.subjects]
    subjects = {subject: tuple(find_changes(before.subjects[subject], after.subjects[subject])) for subject in both}
    if "files" in subjects:
        subjects["files"] = fold(subjects["files"], subjects["packages"], {**before.owners, **after.owners})
    unknown = {subject: "not known of both" for subject in ORDER if subject not in both}
    return Difference(before.name, after.name, subjects, unknown)


def fold(files: tuple[Change, ...], packages: tuple[Change, ...], owners: Values) -> tuple[Change, ...]:
    """Return the changes of files, those that came with a package which changed as one for each package."""
    changed = {change.name.partition(" ")[0] for change in packages}
    by_package = {change.name: owners.get(in_usr(change.name[1:]), "") for change in files}
    counted = Counter(owner for owner in by_package.values() if owner in changed)
    folded = [
        Change(name=f"of the package {name}", before="", after=f"{count} files")
        for name, count in sorted(counted.items())
    ]
    return (*(change for change in files if by_package[change.name] not in changed), *folded)


def compare_builds(before: Path, after: Path) -> Difference:
    """Return what differs between the builds in two folders.

    Raises SpecInvalid when there is no such build, or when one of them has no bill of materials to compare.
    """
    one, other = (Side(read_report(folder).build_id, read_build(folder)) for folder in (before, after))
    difference = compare_sides(one, other)
    on_disks = {subject: "name the images as ami-…: it is read from their blocks" for subject in ON_DISKS}
    return Difference(one.name, other.name, difference.subjects, {**difference.unknown, **on_disks})
