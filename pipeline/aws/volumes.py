"""Volumes: which ones an instance has, and the end of those that outlived theirs."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.aws.session import Session, cloud_errors, error_code
from pipeline.aws.tags import NAME, is_resource_name, read_tags
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CloudFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import VolumeTypeDef

MISSING = frozenset({"InvalidVolume.NotFound"})
IN_USE = frozenset({"VolumeInUse", "IncorrectState"})
RELEASE_SECONDS = 60.0
"""A volume of a terminated instance is detached a moment later."""


@dataclass(frozen=True)
class Volume:
    """A volume of an instance."""

    volume_id: str
    device_name: str
    size_gib: int
    state: str
    encrypted: bool
    delete_on_termination: bool
    tags: dict[str, str]


def find_volumes(session: Session, instance_id: str) -> tuple[Volume, ...]:
    """Return the volumes that are attached to an instance, in the order of their device names."""
    with cloud_errors(instance_id, session.region):
        pages = (
            session.client("ec2")
            .get_paginator("describe_volumes")
            .paginate(Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}])
        )
        found = [read_volume(volume) for page in pages for volume in page["Volumes"]]
    return tuple(sorted(found, key=lambda volume: volume.device_name))


def read_volume(found: "VolumeTypeDef") -> Volume:
    """Return a volume from the API's form of it."""
    attachments = found.get("Attachments") or [{}]
    return Volume(
        volume_id=found["VolumeId"],
        device_name=attachments[0].get("Device", ""),
        size_gib=found.get("Size", 0),
        state=found.get("State", ""),
        encrypted=found.get("Encrypted", False),
        delete_on_termination=attachments[0].get("DeleteOnTermination", False),
        tags=read_tags(found.get("Tags")),
    )


def find_named_volumes(session: Session, name: str) -> tuple[Volume, ...]:
    """Return the volumes that bear a name of a build."""
    with cloud_errors(name, session.region):
        pages = (
            session.client("ec2")
            .get_paginator("describe_volumes")
            .paginate(Filters=[{"Name": f"tag:{NAME}", "Values": [name]}])
        )
        return tuple(read_volume(volume) for page in pages for volume in page["Volumes"])


def delete_volumes(session: Session, identity: str, *, clock: Clock = CLOCK) -> None:
    """Delete a volume by id, or all that bear a name of a build; gone is as good.

    Waits while it is being detached. Raises CloudFailed, and DeadlinePassed when it stays attached: it may be
    somebody's now.
    """
    if is_resource_name(identity):
        volume_ids = [volume.volume_id for volume in find_named_volumes(session, identity)]
    else:
        volume_ids = [identity]
    for volume_id in volume_ids:
        delete_when_free(session, volume_id, clock)


def delete_when_free(session: Session, volume_id: str, clock: Clock) -> None:
    """Delete one volume as soon as it is attached to nothing."""
    wait_until(
        lambda: try_to_delete(session, volume_id),
        bool,
        what=volume_id,
        region=session.region,
        deadline_seconds=RELEASE_SECONDS,
        missing_codes=IN_USE,
        sightings=1,
        clock=clock,
    )


def try_to_delete(session: Session, volume_id: str) -> bool:
    """Delete a volume, and return True when it is gone. Raises CloudFailed, also when it is in use."""
    try:
        with cloud_errors(volume_id, session.region):
            session.client("ec2").delete_volume(VolumeId=volume_id)
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
    return True
