"""The image that a build starts from: exactly one, of exactly the owner that the spec names (A01)."""

from typing import TYPE_CHECKING

from pipeline.aws.images import Image, read_image
from pipeline.aws.parameters import resolve_image_id
from pipeline.aws.session import Session, cloud_errors, error_code
from pipeline.errors import BaseImageRefused, CloudFailed
from pipeline.spec import BaseImage, ImageFilter

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

MISSING = frozenset({"InvalidAMIID.NotFound", "InvalidAMIID.Malformed", "InvalidAMIID.Unavailable"})


def find_base_image(session: Session, base: BaseImage) -> Image:
    """Return the base image that a spec names.

    A name is nobody's property: whoever copies it can offer an image under it (the whoAMI attack), so an image of any
    other owner is refused. Raises BaseImageRefused when the image is missing, ambiguous, not usable or another's.
    """
    if base.filter:
        image, owner = newest_image(session, base.filter), base.filter.owner
    elif base.id or base.parameter:
        image_id = base.id or resolve_image_id(session, base.parameter or "")
        image, owner = image_by_id(session, image_id), base.owner or ""
    else:
        raise BaseImageRefused("the spec names no base image", region=session.region)
    check_base_image(session, image, owner)
    return image


def check_base_image(session: Session, image: Image, owner: str) -> None:
    """Raise BaseImageRefused with the first reason why an image cannot be built on."""
    reasons = (
        (not owner, "the spec does not say whose image it must be", "name base_image.owner"),
        (image.owner_id != owner, f"it belongs to {image.owner_id}, not to {owner}", None),
        (image.state != "available", f"it is {image.state}", None),
        (image.root_device_type != "ebs", f"its root device is {image.root_device_type}, not ebs", None),
        (image.virtualization != "hvm", f"its virtualization is {image.virtualization}, not hvm", None),
    )
    for refused, reason, hint in reasons:
        if refused:
            raise BaseImageRefused(reason, resource=image.image_id, region=session.region, hint=hint)


def image_by_id(session: Session, image_id: str) -> Image:
    """Return the image with an id. Raises BaseImageRefused when there is none that the caller may see."""
    try:
        with cloud_errors(image_id, session.region):
            found = session.client("ec2").describe_images(ImageIds=[image_id], IncludeDeprecated=True)["Images"]
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
        found = []
    if not found:
        raise BaseImageRefused(
            "there is no such image in this region, or it is not shared with you",
            resource=image_id,
            region=session.region,
        )
    return read_image(found[0])


def newest_image(session: Session, wanted: ImageFilter) -> Image:
    """Return the newest available image of the owner whose name matches. Raises BaseImageRefused: none, or a tie."""
    images = sorted(
        matching_images(session, wanted, owner=wanted.owner), key=lambda image: image.creation_date, reverse=True
    )
    if not images:
        raise missing_error(session, wanted)
    newest = images[0]
    tied = [image.image_id for image in images if image.creation_date == newest.creation_date]
    if len(tied) > 1:
        raise BaseImageRefused(
            f"these were created at the same time: {', '.join(tied)}",
            resource=wanted.name,
            region=session.region,
            hint="name one by base_image.id, or make the filter's name narrower",
        )
    return newest


def matching_images(session: Session, wanted: ImageFilter, owner: str | None) -> list[Image]:
    """Return the available images that match the filter, of one owner or of anybody."""
    filters: list[FilterTypeDef] = [
        {"Name": "name", "Values": [wanted.name]},
        {"Name": "state", "Values": ["available"]},
        {"Name": "architecture", "Values": [wanted.architecture]},
        {"Name": "root-device-type", "Values": ["ebs"]},
        {"Name": "virtualization-type", "Values": ["hvm"]},
    ]
    ec2 = session.client("ec2")
    with cloud_errors(wanted.name, session.region):
        answer = ec2.describe_images(Owners=[owner], Filters=filters) if owner else ec2.describe_images(Filters=filters)
    return [read_image(found) for found in answer["Images"]]


def missing_error(session: Session, wanted: ImageFilter) -> BaseImageRefused:
    """Return the error for a filter that matches nothing of its owner, telling of other owners' images of the name."""
    others = sorted({image.owner_id for image in matching_images(session, wanted, owner=None)} - {wanted.owner})
    text = f"{wanted.owner} has no available {wanted.architecture} image of this name"
    if others:
        text += f"; images of this name that belong to {', '.join(others[:5])} are refused"
    return BaseImageRefused(text, resource=wanted.name, region=session.region)
