"""The end of older images, in steps that can be taken back: deprecated, disabled, removed; never what is in use.

    newest release complete → which images are too old → who uses them → one step each

A step is taken when the grace time since the one before has passed. The newest images are left alone, and nothing at
all is touched while the newest release is not complete in every region. What could not be asked counts as used.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from functools import cache, partial

from pipeline.aws import images, usage
from pipeline.aws.images import Image
from pipeline.aws.session import Session
from pipeline.aws.tags import BUILD_ID, BUILD_ID_FORM, RETIRED, is_kept, is_ours, mark_retired
from pipeline.errors import AssayError, RetireFailed, SpecInvalid
from pipeline.publish.copies import read_moment
from pipeline.publish.status import release_status, require_complete
from pipeline.spec import Retire, Spec

WAYS_BACK = {
    "deprecate": "`aws ec2 disable-image-deprecation`",
    "disable": "`aws ec2 enable-image`, then `invoke share` of its build",
    "deregister": "`aws ec2 restore-image-from-recycle-bin`, where the account has a retention rule",
}
SOON = timedelta(minutes=15)
"""EC2 takes no deprecation in the past, rounds to minutes, and may throttle a long run until then."""


class Step(StrEnum):
    """What happens to an image."""

    KEEP = "keep"
    WAIT = "wait"
    IN_USE = "in use"
    UNKNOWN = "unknown"
    DEPRECATE = "deprecate"
    DISABLE = "disable"
    DEREGISTER = "deregister"


CHANGING = frozenset({Step.DEPRECATE, Step.DISABLE, Step.DEREGISTER})


@dataclass(frozen=True)
class Retirement:
    """What happens to one image, and why."""

    region: str
    image_id: str
    name: str
    step: Step
    reason: str
    problem: str = ""
    """Why the step could not be taken."""

    def describe(self, *, dry_run: bool) -> str:
        """Return it as a line for people, with the way back."""
        verb = f"would {self.step}" if dry_run and self.step in CHANGING else str(self.step)
        back = f"; the way back: {WAYS_BACK[self.step]}" if self.step in WAYS_BACK else ""
        failed = f"; it failed: {self.problem}" if self.problem else ""
        return f"{verb:<16} {self.region} {self.image_id} {self.name}: {self.reason}{failed or back}"


Uses = Callable[[Image], Sequence[str]]
"""Asks who uses an image. Raises AssayError."""


def retire_images(
    session: Session, spec: Spec, *, dry_run: bool, now: datetime | None = None
) -> tuple[Retirement, ...]:
    """Take the images of older builds one step nearer to their end, in every region of the release.

    Returns a line for each image. Raises SpecInvalid without `release.retire`, ReleaseIncomplete while the newest
    release is not as declared, CloudFailed when the images of a region cannot be listed.
    """
    retire = spec.release.retire
    if retire is None:
        raise SpecInvalid(
            "the spec does not say what becomes of older images", hint="for example release: {retire: {keep: 3}}"
        )
    regions = [session.in_region(region) for region in (session.region, *spec.release.regions)]
    with ThreadPoolExecutor(len(regions)) as pool:
        found = list(pool.map(partial(images_of, spec=spec), regions))
        if not found[0]:
            return ()
        require_complete(release_status(session, spec, found[0][0].image_id))
        kept = {build_of(image) for image in found[0][: retire.keep]}
        moment = now or datetime.now(UTC)
        lines = pool.map(
            lambda there, own: retire_in(there, own, kept, retire, moment, dry_run=dry_run), regions, found
        )
        return tuple(line for region in lines for line in region)


def require_retired(lines: Sequence[Retirement]) -> None:
    """Raise RetireFailed when a step failed, or when it is not known whether an image is in use."""
    if problems := [f"{one.image_id} in {one.region}: {one.problem}" for one in lines if one.problem]:
        raise RetireFailed("; ".join(problems))


def images_of(session: Session, spec: Spec) -> list[Image]:
    """Return the kept images of a spec in a region, the newest first: their names are those that the spec gives."""
    own = [image for image in images.built_images(session) if is_ours(image.tags) and is_kept(image.tags)]
    return sorted((image for image in own if image.name in names_of(image, spec)), key=build_of, reverse=True)


def names_of(image: Image, spec: Spec) -> tuple[str, ...]:
    """Return the names that the spec gives to the image of a build; one that ends after midnight has the next day's."""
    build_id = build_of(image)
    day = datetime.strptime(build_id[:8], "%Y%m%d").replace(tzinfo=UTC).date()
    return tuple(spec.image_name(build_id, day + timedelta(days=late)) for late in (0, 1))


def build_of(image: Image) -> str:
    """Return the build that made an image: its id sorts by time."""
    found = BUILD_ID_FORM.fullmatch(image.tags.get(BUILD_ID, ""))
    return found[0] if found else ""


def retire_in(
    session: Session, own: Sequence[Image], kept: set[str], retire: Retire, now: datetime, *, dry_run: bool
) -> list[Retirement]:
    """Decide about the images of a region, and take the steps unless it is a dry run."""
    old = [image for image in own if build_of(image) not in kept]
    uses = uses_in(session, [image.image_id for image in old], retire, now)
    lines = []
    for image in own:
        one = decide(session.region, image, build_of(image) in kept, retire, uses, now)
        lines.append(one if dry_run or one.step not in CHANGING else take(session, image, one, now))
    return lines


def decide(region: str, image: Image, kept: bool, retire: Retire, uses: Uses, now: datetime) -> Retirement:
    """Return what is to happen to an image. Who uses it is asked only when a step is due."""
    line = partial(Retirement, region, image.image_id, image.name)
    if kept:
        return line(Step.KEEP, f"one of the newest {retire.keep}")
    retired = read_moment(image.tags.get(RETIRED, ""))
    due = retired + timedelta(days=retire.grace_days) if retired else now
    if now < due:
        return line(Step.WAIT, f"the next step is due on {due:%Y-%m-%d}")
    try:
        users = list(uses(image))
    except AssayError as error:
        return line(Step.UNKNOWN, "whether it is in use could not be asked", str(error))
    if users:
        return line(Step.IN_USE, ", ".join(users))
    if retired is None:
        return line(Step.DEPRECATE, f"older than the newest {retire.keep}, and not in use")
    since = f"nobody has used it since {retired:%Y-%m-%d}"
    return line(Step.DEREGISTER if image.state == "disabled" else Step.DISABLE, since)


def uses_in(session: Session, image_ids: Sequence[str], retire: Retire, now: datetime) -> Uses:
    """Return what asks who uses an image of a region; what is asked for all images at once is asked once."""
    together = cache(lambda: (usage.read_references(session, image_ids), usage.read_launch_configurations(session)))

    def uses(image: Image) -> Iterator[str]:
        for found in together():
            yield from found.get(image.image_id, ())
        launched = read_moment(image.last_launched)
        if launched and now < launched + timedelta(days=retire.grace_days):
            yield f"last launched on {launched:%Y-%m-%d}"
        yield from usage.read_foreign_usage(session, image.image_id)

    return lambda image: list(uses(image))


def take(session: Session, image: Image, line: Retirement, now: datetime) -> Retirement:
    """Take a step, and return its line with what went wrong."""
    try:
        if line.step is Step.DEREGISTER:
            images.deregister_image(session, image.image_id)
            return line
        if line.step is Step.DISABLE:
            images.disable_image(session, image.image_id)
        elif not is_deprecated(image, now):
            images.deprecate_image(session, image.image_id, now + SOON)
        mark_retired(session, image.image_id, now)
    except AssayError as error:
        return Retirement(line.region, line.image_id, line.name, line.step, line.reason, str(error))
    return line


def is_deprecated(image: Image, now: datetime) -> bool:
    """Return whether an image is deprecated already."""
    moment = read_moment(image.deprecated_after)
    return moment is not None and moment <= now
