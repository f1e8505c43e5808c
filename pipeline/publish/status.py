"""Is a release as it was declared: asked in every region of the account, changed in none."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import StrEnum

from pipeline.aws import images, parameters
from pipeline.aws.images import Image
from pipeline.aws.region_settings import enabled_regions
from pipeline.aws.session import Session
from pipeline.aws.tags import NAME
from pipeline.errors import AssayError, ReleaseIncomplete
from pipeline.publish import copies, sharing
from pipeline.publish.copies import Place
from pipeline.spec import Spec

SIDE_BY_SIDE = 16


class Standing(StrEnum):
    """How a region stands beside what the spec declares."""

    CORRECT = "Correct"
    INCORRECT = "Incorrect"
    MISSING = "Missing"
    UNEXPECTED = "Unexpected"
    UNREACHABLE = "Unreachable"


REMEDIES = {
    Standing.INCORRECT: ReleaseIncomplete.default_hint,
    Standing.MISSING: ReleaseIncomplete.default_hint,
    Standing.UNEXPECTED: "where it is unexpected, deregister it, or name the region in release.regions",
    Standing.UNREACHABLE: "where nobody answered, ask again",
}


@dataclass(frozen=True)
class RegionStatus:
    """One region of a release."""

    region: str
    standing: Standing
    image_id: str = ""
    differences: tuple[str, ...] = ()

    def describe(self) -> str:
        """Return the region as a line for people."""
        about = "; ".join(self.differences)
        return f"{self.standing:<11} {self.region} {self.image_id}".rstrip() + (f": {about}" if about else "")


def release_status(session: Session, spec: Spec, image_id: str) -> tuple[RegionStatus, ...]:
    """Return how each declared region stands, and every other in which the image is although nobody declared it.

    Raises CloudFailed when the image itself, or the list of regions, cannot be read.
    """
    home = images.describe_image(session, image_id)
    declared = (session.region, *spec.release.regions)
    others = [region for region in enabled_regions(session) if region not in declared]
    with ThreadPoolExecutor(SIDE_BY_SIDE) as pool:
        found = pool.map(
            lambda region: region_status(session.in_region(region), spec, home, declared), (*declared, *others)
        )
        return tuple(one for one in found if one.region in declared or one.standing is not Standing.MISSING)


def region_status(session: Session, spec: Spec, home: Image, declared: tuple[str, ...]) -> RegionStatus:
    """Return how one region stands; the first of the declared ones is the home of the image."""
    region = session.region
    try:
        image = home if region == declared[0] else copies.find_copy(session, home.tags.get(NAME, home.name))
        if image is None:
            return RegionStatus(region, Standing.MISSING)
        if region not in declared:
            return RegionStatus(region, Standing.UNEXPECTED, image.image_id, ("the spec does not name this region",))
        differences = tuple(differences_of(session, spec, home, image))
    except AssayError as error:
        return RegionStatus(region, Standing.UNREACHABLE, differences=(str(error),))
    return RegionStatus(region, Standing.INCORRECT if differences else Standing.CORRECT, image.image_id, differences)


def differences_of(session: Session, spec: Spec, home: Image, image: Image) -> Iterator[str]:
    """Yield what is not as declared: state, attributes, product codes, permissions, parameter. Raises CloudFailed."""
    if image.state != "available":
        yield f"it is {image.state}"
    yield from copies.attribute_differences(image, home, spec)
    identity = copies.identity_result(Place(session, image), spec)
    if identity.detail:
        yield identity.detail
    codes = sharing.product_code_result(session, image.image_id, spec.share.product_codes)
    if codes.detail:
        yield f"product codes: {codes.detail}"
    wanted = sharing.wanted_sharing(spec.share, image.snapshot_ids)
    yield from sharing.describe_changes(sharing.read_sharing(session, image.image_id, image.snapshot_ids), wanted)
    if spec.release.parameter:
        value = parameters.find_parameter(session, spec.release.parameter)
        if value != image.image_id:
            yield f"{spec.release.parameter} holds {value or 'nothing'}"


def require_complete(found: tuple[RegionStatus, ...]) -> None:
    """Raise ReleaseIncomplete unless every region is correct."""
    wrong = [one for one in found if one.standing is not Standing.CORRECT]
    if wrong:
        named = ", ".join(f"{one.region} {one.standing}" for one in wrong)
        hints = dict.fromkeys(REMEDIES[one.standing] for one in wrong)
        raise ReleaseIncomplete(f"the release is not as declared: {named}", hint="; ".join(hints))
