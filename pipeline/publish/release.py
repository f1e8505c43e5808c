"""The release of a proved image over its regions: side by side, in steps that all regions end before the next begins.

    copy → blocks proved → attributes → product codes → named permissions → parameter → public, strictly last

A failure anywhere takes back permissions and parameters everywhere. Running it again completes what is missing and
changes nothing that is right.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import chain
from typing import TypeVar

from pipeline.aws import images, parameters
from pipeline.aws.session import Session
from pipeline.aws.tags import Tags
from pipeline.aws.wait import wait_until
from pipeline.errors import AssayError, ReleaseFailed
from pipeline.interruption import uninterrupted
from pipeline.journal import Journal
from pipeline.publish import copies, sharing
from pipeline.publish.copies import Place, Proved, result
from pipeline.publish.sharing import Sharing
from pipeline.report.evidence import Result, Status
from pipeline.spec import Spec

PARAMETER_SECONDS = 120.0
"""A parameter of the type aws:ec2:image is validated after the answer."""
Progress = Callable[[str], None]
Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True)
class Before:
    """What a region had before the release touched it."""

    sharing: Sharing
    parameter: str | None


@dataclass
class Release:
    """One run of a release."""

    session: Session
    spec: Spec
    proved: Proved
    tags: Tags
    journal: Journal
    record: Callable[..., None]
    progress: Progress
    before: dict[str, tuple[Place, Before]] = field(default_factory=dict)
    written: set[str] = field(default_factory=set)
    """The regions whose parameter this run may have changed."""

    def perform(self) -> tuple[Place, ...]:
        """Release, and return the image in each region. Raises ReleaseFailed after everything was taken back."""
        try:
            places = self.in_every(self.prepare, [self.session.in_region(region) for region in self.regions])
            befores = self.in_every(self.read_before, places)
            self.before = {place.region: (place, had) for place, had in zip(places, befores, strict=True)}
            self.in_every(self.share_named, places)
            if self.spec.release.parameter:
                self.in_every(self.point_parameter, places)
            if self.spec.release.copies_on_failure == "remove":
                self.in_every(lambda place: copies.keep_copy(place, self.journal), places[1:])
            if self.spec.share.public:
                self.in_every(self.share_publicly, places)
        except BaseException as cause:
            self.take_back(cause)
            raise
        return tuple(places)

    @property
    def regions(self) -> tuple[str, ...]:
        """The regions, the one that the image was built in first."""
        return (self.session.region, *self.spec.release.regions)

    def prepare(self, there: Session) -> Place:
        """Have the image in a region, proved and with all of its attributes; nobody else can see it yet."""
        home = self.proved.image
        if there.region == self.session.region:
            place = Place(there, images.describe_image(there, home.image_id))
        else:
            place = copies.copy_to(there, self.spec, self.proved, self.tags, self.journal, self.progress)
            self.record(copies.require_same_blocks(place, self.proved))
            if self.spec.release.copies_on_failure == "keep":
                copies.keep_copy(place, self.journal)
        if self.spec.release.goes_further:
            self.record(copies.set_attributes(place, home, self.spec))
        self.record(copies.identity_result(place, self.spec))
        codes = sharing.product_code_result(there, place.image.image_id, self.spec.share.product_codes)
        self.record(codes)
        if codes.status is not Status.PASS:
            raise ReleaseFailed(
                f"the product codes are not those of the spec: {codes.detail}",
                resource=place.image.image_id,
                region=there.region,
                hint="codes come with the base image or from Marketplace, they cannot be set: see base_image and share",
            )
        return place

    def read_before(self, place: Place) -> Before:
        """Return what a region has now, to come back to."""
        image, name = place.image, self.spec.release.parameter
        return Before(
            sharing.not_shared(image.snapshot_ids)
            if place.made
            else sharing.read_sharing(place.session, image.image_id, image.snapshot_ids),
            parameters.find_parameter(place.session, name) if name else None,
        )

    def share_named(self, place: Place) -> None:
        """Make all permissions but the public's exactly as declared; a public that is right already stays."""
        before = self.before[place.region][1].sharing
        self.share(place, before, public=self.spec.share.public and before.launch.public)

    def share_publicly(self, place: Place) -> None:
        """Let everybody launch it: after everything else has succeeded in every region."""
        if not self.before[place.region][1].sharing.launch.public:
            self.share(place, self.wanted(place, public=False), public=True)

    def wanted(self, place: Place, *, public: bool) -> Sharing:
        """Return what the spec declares of a region, with the public or not yet."""
        return sharing.wanted_sharing(self.spec.share.model_copy(update={"public": public}), place.image.snapshot_ids)

    def share(self, place: Place, current: Sharing, *, public: bool) -> None:
        """Share in one region, and record what was read back when it is the whole of what is declared."""
        wanted = self.wanted(place, public=public)
        found = sharing.share_image(place.session, place.image.image_id, current, wanted)
        if public == self.spec.share.public:
            self.record(*(named(one, place.region, self.spec) for one in sharing.permission_results(found, wanted)))

    def point_parameter(self, place: Place) -> None:
        """Let the parameter of a region hold the image's id, and read it back: an accepted call proves nothing."""
        name, image_id = self.spec.release.parameter or "", place.image.image_id
        if self.before[place.region][1].parameter != image_id:
            self.written.add(place.region)
            parameters.write_image_parameter(place.session, name, image_id)
            wait_until(
                lambda: parameters.find_parameter(place.session, name),
                lambda value: value == image_id,
                what=name,
                region=place.region,
                deadline_seconds=PARAMETER_SECONDS,
            )
        self.record(result("A13", f"the parameter {name} holds {image_id}", place.region))

    def take_back(self, cause: BaseException) -> None:
        """Take back in every region what this run granted. Raises ReleaseFailed, unless the cause is none of ours."""
        with uninterrupted():
            stuck = list(chain.from_iterable(self.in_every(self.restore, list(self.before.values()))))
        if stuck:
            failed = f"the release failed, and not everything could be taken back: {cause}; still there:"
            raise ReleaseFailed(
                "\n  ".join((failed, *stuck)),
                region=self.session.region,
                hint="`invoke share` completes the release or, where the spec shares less, revokes it",
            ) from cause
        if isinstance(cause, AssayError) and not isinstance(cause, ReleaseFailed):
            raise ReleaseFailed(
                f"the release failed and was taken back: {cause}", region=self.session.region, hint=cause.hint
            ) from cause

    def restore(self, had: tuple[Place, Before]) -> list[str]:
        """Bring a region back to what it had, and return what did not succeed: nothing of it keeps back the rest."""
        place, before = had
        there, image = place.session, place.image
        acts = {
            f"launch permissions of {image.image_id}": partial(
                sharing.revoke_launch, there, image.image_id, before.sharing
            ),
            **{
                f"permissions of {snapshot_id}": partial(sharing.revoke_snapshot, there, snapshot_id, before.sharing)
                for snapshot_id in image.snapshot_ids
            },
            f"parameter {self.spec.release.parameter}": partial(self.restore_parameter, place, before.parameter),
        }
        if place.made and self.spec.release.copies_on_failure == "remove":
            acts[f"copy {image.image_id}"] = partial(copies.remove_copy, place, self.journal)
        problems = {f"{place.region}: {what}": attempt(act) for what, act in acts.items()}
        return [f"{what}: {problem}" for what, problem in problems.items() if problem]

    def restore_parameter(self, place: Place, value: str | None) -> None:
        """Let the parameter hold what it held, or nothing, wherever this run may have changed it."""
        name = self.spec.release.parameter
        if not name or place.region not in self.written:
            return
        if value is None:
            parameters.delete_parameter(place.session, name)
        else:
            parameters.write_image_parameter(place.session, name, value)

    def in_every(self, step: Callable[[Given], Made], given: Sequence[Given]) -> list[Made]:
        """Take a step in every region at once. All end before an error is raised: nothing is taken back in between."""
        pool = ThreadPoolExecutor(max(1, len(given)))
        try:
            futures = [pool.submit(step, one) for one in given]
            wait(futures)
        finally:
            with uninterrupted():
                pool.shutdown(wait=True, cancel_futures=True)
        return [future.result() for future in futures]


def attempt(act: Callable[[], None]) -> str:
    """Do something, and return why it did not succeed."""
    try:
        act()
    except AssayError as error:
        return str(error)
    return ""


def named(one: Result, region: str, spec: Spec) -> Result:
    """Return a result that names its region, where there are several."""
    return replace(one, title=f"{one.title} in {region}") if spec.release.regions else one


def digests_of(session: Session, snapshot_ids: Sequence[str], known: dict[str, str]) -> Iterator[str]:
    """Yield the digest of each snapshot: the one that the proof pinned, or what is read now of what it did not pin."""
    for snapshot_id in snapshot_ids:
        yield known.get(snapshot_id) or copies.read_digest(session, snapshot_id)
