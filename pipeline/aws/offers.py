"""Which zones of a region offer an instance type."""

from collections.abc import Sequence

from pipeline.aws.session import Session, cloud_errors
from pipeline.errors import CapacityMissing


def zones_offering(session: Session, instance_type: str) -> frozenset[str]:
    """Return the zones that offer an instance type. Raises CloudFailed."""
    with cloud_errors(instance_type, session.region):
        pages = (
            session.client("ec2")
            .get_paginator("describe_instance_type_offerings")
            .paginate(LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [instance_type]}])
        )
        return frozenset(offer["Location"] for page in pages for offer in page["InstanceTypeOfferings"])


def first_zone(session: Session, instance_types: Sequence[str]) -> str:
    """Return the first zone that offers the first of these types that any does. Raises CapacityMissing, CloudFailed."""
    for instance_type in instance_types:
        if zones := zones_offering(session, instance_type):
            return min(zones)
    raise CapacityMissing(f"no zone offers {instance_types[0]}", region=session.region)
