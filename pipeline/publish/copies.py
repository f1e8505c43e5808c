"""An image in each region of its release: copied, proved to be the same blocks, and given its attributes.

A copy bears the same name and tags as the image that was proved, so that it is found again: a release that was broken
off goes on with what is there.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from pipeline.aws import images
from pipeline.aws.blocks import SnapshotBlocks
from pipeline.aws.creation import the_only
from pipeline.aws.images import Image
from pipeline.aws.session import Session
from pipeline.aws.tags import NAME, OWNER, Tags, is_kept, mark_kept
from pipeline.aws.wait import CLOCK, CONSISTENT_SECONDS, Clock, wait_until
from pipeline.block_digest import digest_blocks, require_readable
from pipeline.errors import DeadlinePassed, ReleaseFailed
from pipeline.journal import Journal
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Spec

SETTABLE = frozenset({"deprecation", "protection"})
"""What can be set on an image that is there; all else comes with the copy."""


@dataclass(frozen=True)
class Proved:
    """What is released: the image that was proved, where it is, and the digests of its snapshots' blocks."""

    image: Image
    region: str
    digests: tuple[str, ...]


@dataclass(frozen=True)
class Place:
    """The image in one region."""

    session: Session
    image: Image
    made: bool = False
    """By this release: it is not there when the release is taken back, unless the spec keeps it."""

    @property
    def region(self) -> str:
        """The region."""
        return self.session.region


def result(control: str, title: str, region: str, problem: str = "", layer: Layer = Layer.AWS) -> Result:
    """Return a result of the release in a region: it passes when there is no problem."""
    return Result(
        controls=(control,),
        layer=layer,
        status=Status.FAIL if problem else Status.PASS,
        title=f"{title} in {region}",
        source="publish",
        detail=problem,
    )


def read_digest(session: Session, snapshot_id: str) -> str:
    """Return what pins a snapshot's blocks. Raises CloudFailed, also when one block cannot be read."""
    blocks = SnapshotBlocks(session, snapshot_id)
    whole = require_readable(blocks.read_many(blocks.indices()))
    return digest_blocks(blocks.size_bytes, blocks.block_size, whole)


def find_copy(session: Session, name: str) -> Image | None:
    """Return the image of a build in a region, by its name in the tags. Raises CloudFailed when there are several."""
    found = {image.image_id: image for image in images.find_images(session, name)}
    return found[the_only(sorted(found), name, session.region)] if found else None


def copy_to(
    session: Session, spec: Spec, proved: Proved, tags: Tags, journal: Journal, progress: Callable[[str], None]
) -> Place:
    """Return the available copy in the session's region, made if it is not there. Raises CloudFailed."""
    name = proved.image.tags[NAME]
    found = find_copy(session, name)
    key = spec.image.encryption.kms_key_id if spec.image.encryption else None
    image_id = (
        found.image_id
        if found
        else journal.create(
            "image",
            name,
            session.region,
            make=lambda: images.copy_image(session, tags, name, proved.image, proved.region, key),
            undo=lambda identity: images.deregister_image(session, identity),
        )
    )
    image = images.wait_for_image(session, image_id, progress=lambda text: progress(f"{session.region}: {text}"))
    return Place(session, image, made=found is None)


def require_same_blocks(place: Place, proved: Proved) -> Result:
    """Return the proof that a copy holds the blocks that were proved (R06). Raises ReleaseFailed when it does not."""
    found = tuple(read_digest(place.session, snapshot_id) for snapshot_id in place.image.snapshot_ids)
    if found != proved.digests:
        raise ReleaseFailed(
            f"the copy's blocks are not those that were proved: {', '.join(found)}",
            resource=place.image.image_id,
            region=place.region,
            hint="nothing was shared: deregister the copy, look at who could write to it, and release again",
        )
    return result("R06", "the copy holds the blocks that were proved", place.region, layer=Layer.RAW)


def attribute_differences(image: Image, home: Image, spec: Spec) -> list[str]:
    """Return how an image differs from what the release declares of it (A12)."""
    pairs = (
        ("description", home.description, image.description),
        ("IMDS", home.imds, image.imds),
        ("boot mode", home.boot_mode, image.boot_mode),
        ("architecture", home.architecture, image.architecture),
        ("ENA", home.ena, image.ena),
        ("deprecation", format_minute(deprecation_of(home, spec)), format_minute(read_moment(image.deprecated_after))),
        ("protection", spec.release.protect, image.protection.startswith("enabled")),
    )
    declared = {"deprecation": spec.release.deprecate_after_days, "protection": spec.release.protect}
    return [
        f"{name} is {found!r}, not {wanted!r}"
        for name, wanted, found in pairs
        if wanted != found and declared.get(name, True)
    ]


def identity_result(place: Place, spec: Spec) -> Result:
    """Return whether an image says whose it is: a name, who built it, and whom to ask where the spec says so (A13)."""
    tags = place.image.tags
    missing = [] if place.image.name else ["it has no name"]
    missing += [] if tags.get(OWNER) else ["no tag says who built it"]
    if spec.image.contact and tags.get("Contact") != spec.image.contact:
        missing.append(f"its contact is {tags.get('Contact', 'missing')}, not {spec.image.contact}")
    return result("A13", "the image says whose it is", place.region, "; ".join(missing))


def deprecation_of(home: Image, spec: Spec) -> datetime | None:
    """Return when the image is to be deprecated, everywhere at once; None when the spec does not say."""
    days, made = spec.release.deprecate_after_days, read_moment(home.creation_date)
    return made + timedelta(days=days) if days and made else None


def read_moment(text: str) -> datetime | None:
    """Return a time as EC2 or a tag of ours writes it; None where there is none."""
    try:
        return datetime.fromisoformat(text)
    except ValueError:
        return None


def format_minute(moment: datetime | None) -> str:
    """Return a moment to the minute: EC2 keeps no more of a deprecation."""
    return f"{moment:%Y-%m-%d %H:%M}" if moment else ""


def set_attributes(place: Place, home: Image, spec: Spec, clock: Clock = CLOCK) -> Result:
    """Set what is missing of deprecation and protection, and read all attributes back (A12). Raises ReleaseFailed."""
    image_id, moment = place.image.image_id, deprecation_of(home, spec)
    differences = attribute_differences(place.image, home, spec)
    missing = {text.partition(" ")[0] for text in differences}
    if missing and missing <= SETTABLE:
        if "deprecation" in missing and moment:
            images.deprecate_image(place.session, image_id, moment)
        if "protection" in missing:
            images.protect_image(place.session, image_id)
        differences = wait_for_attributes(place, home, spec, clock)
    if differences:
        raise ReleaseFailed("; ".join(differences), resource=image_id, region=place.region)
    return result("A12", "the image's attributes are as declared", place.region)


def wait_for_attributes(place: Place, home: Image, spec: Spec, clock: Clock) -> list[str]:
    """Return how the attributes still differ after the time in which a change may stay unseen. Raises CloudFailed."""
    try:
        return wait_until(
            lambda: attribute_differences(images.describe_image(place.session, place.image.image_id), home, spec),
            lambda differences: not differences,
            what=place.image.image_id,
            region=place.region,
            deadline_seconds=CONSISTENT_SECONDS,
            state="; ".join,
            sightings=1,
            clock=clock,
        )
    except DeadlinePassed as error:
        return [error.message]


def keep_copy(place: Place, journal: Journal) -> None:
    """Commit a copy, this run's or one that an earlier run left: no sweep takes it away, whatever becomes of it."""
    if not is_kept(place.image.tags):
        mark_kept(place.session, (place.image.image_id, *place.image.snapshot_ids))
    journal.keep_named(place.image.tags[NAME], place.region, place.image.image_id)


def remove_copy(place: Place, journal: Journal) -> None:
    """Remove a copy that was committed, with its snapshots. Raises CloudFailed."""
    images.deregister_image(place.session, place.image.image_id)
    for entry in journal.entries:
        if entry.identity == place.image.image_id:
            journal.mark_removed(entry.number)
