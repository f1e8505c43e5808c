"""What every resource of a build carries, so that it can be found again and swept, and by which name it goes."""

import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from pipeline.aws.session import Session, cloud_errors

if TYPE_CHECKING:
    from mypy_boto3_ec2.literals import ResourceTypeType
    from mypy_boto3_ec2.type_defs import TagSpecificationTypeDef, TagTypeDef

BUILD_ID = "assay:build-id"
SPEC_DIGEST = "assay:spec-digest"
OWNER = "assay:owner"
EXPIRES = "assay:expires"
NAME = "assay:name"
"""The name that is derived from the build id: how a thing is found again when the answer to its creation was lost."""

RETIRED = "assay:retired"
"""When an image was last taken a step nearer to its end: deprecated, or disabled."""

LIFETIME = timedelta(hours=6)
"""What a build or a release leaves behind when it is killed may be swept after this time."""

NEVER = "never"
"""The expiry of what a build is for: an image and its snapshots after the commit."""

BUILD_ID_FORM = re.compile(r"\d{8}-\d{6}-[0-9a-f]{6}")
RESOURCE_NAME_FORM = re.compile(rf"assay-{BUILD_ID_FORM.pattern}-[a-z0-9-]+")


def new_build_id(now: datetime) -> str:
    """Return a build id that sorts by time: `20250131-235959-1a2b3c`."""
    return f"{now.astimezone(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(3)}"


def resource_name(build_id: str, role: str) -> str:
    """Return the name of the one thing of a build that has this role: `assay-20250131-235959-1a2b3c-key`."""
    name = f"assay-{build_id}-{role}"
    if not RESOURCE_NAME_FORM.fullmatch(name):
        raise ValueError(f"not a name that could be found again: {name}")
    return name


def is_resource_name(text: str) -> bool:
    """Return whether a text is a name of ours rather than an identity that the cloud gave."""
    return RESOURCE_NAME_FORM.fullmatch(text) is not None


@dataclass(frozen=True)
class Tags:
    """The tags of everything that one build makes."""

    build_id: str
    spec_digest: str
    owner: str
    """Who answers for it: the caller's ARN."""
    expires: datetime
    extra: Mapping[str, str] = field(default_factory=dict)
    """The spec's own tags; they may replace `Name`, and never one of ours."""

    def of(self, name: str) -> dict[str, str]:
        """Return the tags of the thing with this name."""
        return {
            "Name": name,
            **self.extra,
            NAME: name,
            BUILD_ID: self.build_id,
            SPEC_DIGEST: self.spec_digest,
            OWNER: self.owner,
            EXPIRES: format_time(self.expires),
        }

    def as_list(self, name: str) -> "list[TagTypeDef]":
        """Return the tags in the form of the EC2 and EBS APIs."""
        return [{"Key": key, "Value": value} for key, value in self.of(name).items()]

    def specification(self, name: str, *kinds: "ResourceTypeType") -> "list[TagSpecificationTypeDef]":
        """Return the TagSpecifications of a call that creates: tagged from the first moment, or not made at all."""
        return [{"ResourceType": kind, "Tags": self.as_list(name)} for kind in kinds]


def read_tags(tags: "Iterable[TagTypeDef] | None") -> dict[str, str]:
    """Return tags as EC2 lists them, as a dictionary."""
    return {tag["Key"]: tag["Value"] for tag in tags or () if "Key" in tag and "Value" in tag}


def format_time(moment: datetime) -> str:
    """Return a moment as the tags have it: ISO 8601 in UTC, whole seconds."""
    return moment.astimezone(UTC).isoformat(timespec="seconds")


def is_ours(tags: Mapping[str, str]) -> bool:
    """Return whether tags are those of a build: an owner, a build id of our form, and a name that belongs to it."""
    build_id = tags.get(BUILD_ID, "")
    named = tags.get(NAME, "").startswith(f"assay-{build_id}-")
    return bool(tags.get(OWNER)) and BUILD_ID_FORM.fullmatch(build_id) is not None and named


def is_kept(tags: Mapping[str, str]) -> bool:
    """Return whether tags say that a thing is what its build was for."""
    return tags.get(EXPIRES) == NEVER


def is_expired(tags: Mapping[str, str], now: datetime) -> bool:
    """Return whether a thing of ours has outlived its build. An expiry that cannot be read never passes."""
    try:
        expires = datetime.fromisoformat(tags.get(EXPIRES, ""))
    except ValueError:
        return False
    return expires.tzinfo is not None and expires < now


def mark_kept(session: Session, identities: Iterable[str]) -> None:
    """Tag the image and its snapshots as kept, in one call: from here on no sweep takes them away."""
    kept = list(identities)
    with cloud_errors(", ".join(kept), session.region):
        session.client("ec2").create_tags(Resources=kept, Tags=[{"Key": EXPIRES, "Value": NEVER}])


def mark_retired(session: Session, image_id: str, moment: datetime) -> None:
    """Tag an image with the time at which it was taken a step nearer to its end. Raises CloudFailed."""
    with cloud_errors(image_id, session.region):
        session.client("ec2").create_tags(Resources=[image_id], Tags=[{"Key": RETIRED, "Value": format_time(moment)}])
