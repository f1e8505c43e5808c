"""Everything of ours in one region of an account, found by its tags, and how each kind of it is removed."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Literal

from pipeline.aws.images import deregister_image, read_image
from pipeline.aws.instances import ENDED, read_instance, terminate_instance
from pipeline.aws.keys import delete_key_pair
from pipeline.aws.security_groups import delete_security_group, list_security_groups
from pipeline.aws.session import Session, cloud_errors
from pipeline.aws.snapshots import delete_snapshot, read_snapshot
from pipeline.aws.spot_requests import cancel_spot_requests, list_spot_requests
from pipeline.aws.tags import BUILD_ID, NAME, is_ours, read_tags
from pipeline.aws.volumes import delete_volumes, read_volume
from pipeline.aws.vpcs import KINDS, Kind, delete_things, list_things

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

SPOT_REQUEST = "spot-instances-request"
INSTANCE = "instance"
VOLUME = "volume"
IMAGE = "image"
SNAPSHOT = "snapshot"
SECURITY_GROUP = "security-group"
KEY_PAIR = "key-pair"

REMOVERS: dict[str, Callable[[Session, str], None]] = {
    SPOT_REQUEST: cancel_spot_requests,
    INSTANCE: terminate_instance,
    VOLUME: delete_volumes,
    IMAGE: deregister_image,
    SNAPSHOT: delete_snapshot,
    SECURITY_GROUP: delete_security_group,
    KEY_PAIR: delete_key_pair,
    **{kind: partial(delete_things, kind=kind) for kind in KINDS},
}
"""By kind, in the order in which things can be removed: what uses others goes before them."""


@dataclass(frozen=True)
class Possession:
    """One thing of ours."""

    kind: str
    identity: str
    region: str
    tags: dict[str, str]
    snapshot_ids: tuple[str, ...] = ()
    """Of an image: what it is registered over, and what stays as long as it."""

    @property
    def name(self) -> str:
        """The name that is derived from the build id."""
        return self.tags.get(NAME, "")

    @property
    def build_id(self) -> str:
        """The build that made it."""
        return self.tags.get(BUILD_ID, "")


def remove(session: Session, kind: str, handle: str) -> None:
    """Remove a thing by its identity, or whatever of its kind bears a name of a build; gone is as good."""
    REMOVERS[kind](session, handle)


def list_possessions(session: Session) -> tuple[Possession, ...]:
    """Return all that is ours in a region, in the order in which it can be removed. Raises CloudFailed."""
    with cloud_errors("what builds left", session.region):
        found = [
            *(Possession(SPOT_REQUEST, one, session.region, tags) for one, tags in list_spot_requests(session)),
            *list_instances(session),
            *list_volumes(session),
            *list_images(session),
            *list_snapshots(session),
            *list_groups(session),
            *list_key_pairs(session),
            *list_networks(session),
        ]
    return tuple(possession for possession in found if is_ours(possession.tags))


def of_build(session: Session, kind: Literal["key-pair", "elastic-ip"], build_id: str) -> tuple[str, ...]:
    """Return the key pairs, or the elastic addresses, of one build. Raises CloudFailed."""
    with cloud_errors(f"what build {build_id} left", session.region):
        found = list_networks(session, kind) if kind == "elastic-ip" else list_key_pairs(session)
        return tuple(possession.identity for possession in found if possession.build_id == build_id)


def tagged() -> "list[FilterTypeDef]":
    """Return the filter for all that has a build id."""
    return [{"Name": "tag-key", "Values": [BUILD_ID]}]


def list_instances(session: Session) -> Iterator[Possession]:
    """Yield the instances with a build id that are not ended."""
    for page in session.client("ec2").get_paginator("describe_instances").paginate(Filters=tagged()):
        for reservation in page["Reservations"]:
            for instance in map(read_instance, reservation["Instances"]):
                if instance.state not in ENDED:
                    yield Possession(INSTANCE, instance.instance_id, session.region, instance.tags)


def list_volumes(session: Session) -> Iterator[Possession]:
    """Yield the volumes with a build id."""
    for page in session.client("ec2").get_paginator("describe_volumes").paginate(Filters=tagged()):
        for volume in map(read_volume, page["Volumes"]):
            yield Possession(VOLUME, volume.volume_id, session.region, volume.tags)


def list_images(session: Session) -> Iterator[Possession]:
    """Yield the account's images with a build id, deprecated and disabled ones too."""
    answer = session.client("ec2").describe_images(
        Owners=["self"], Filters=tagged(), IncludeDeprecated=True, IncludeDisabled=True
    )
    for image in map(read_image, answer["Images"]):
        yield Possession(IMAGE, image.image_id, session.region, image.tags, image.snapshot_ids)


def list_snapshots(session: Session) -> Iterator[Possession]:
    """Yield the account's snapshots with a build id."""
    pages = session.client("ec2").get_paginator("describe_snapshots").paginate(OwnerIds=["self"], Filters=tagged())
    for page in pages:
        for snapshot in map(read_snapshot, page["Snapshots"]):
            yield Possession(SNAPSHOT, snapshot.snapshot_id, session.region, snapshot.tags)


def list_groups(session: Session) -> Iterator[Possession]:
    """Yield the security groups with a build id."""
    for group in list_security_groups(session, tagged(), "the security groups"):
        yield Possession(SECURITY_GROUP, group.group_id, session.region, group.tags)


def list_key_pairs(session: Session) -> Iterator[Possession]:
    """Yield the key pairs with a build id; the name is their identity, as for instances."""
    for pair in session.client("ec2").describe_key_pairs(Filters=tagged())["KeyPairs"]:
        yield Possession(KEY_PAIR, pair["KeyName"], session.region, read_tags(pair.get("Tags")))


def list_networks(session: Session, *kinds: Kind) -> Iterator[Possession]:
    """Yield everything of networks with a build id, or only what is of these kinds."""
    for kind in kinds or KINDS:
        for thing in list_things(session, kind):
            yield Possession(kind, thing.identity, session.region, thing.tags)
