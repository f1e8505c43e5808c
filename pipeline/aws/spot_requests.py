"""Spot requests: a persistent one launches its instance again when that ends, so it is cancelled first."""

from typing import TYPE_CHECKING

from pipeline.aws.session import Session, cloud_errors, tolerating
from pipeline.aws.tags import BUILD_ID, NAME, is_resource_name, read_tags

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import FilterTypeDef

ALIVE = ["open", "active", "disabled"]
MISSING = frozenset({"InvalidSpotInstanceRequestID.NotFound"})


def list_spot_requests(session: Session, name: str | None = None) -> tuple[tuple[str, dict[str, str]], ...]:
    """Return the requests that are not ended, with their tags: those with a build's id, or those of one name."""
    tagged: FilterTypeDef = (
        {"Name": f"tag:{NAME}", "Values": [name]} if name else {"Name": "tag-key", "Values": [BUILD_ID]}
    )
    filters: list[FilterTypeDef] = [tagged, {"Name": "state", "Values": ALIVE}]
    with cloud_errors(name or "spot requests", session.region):
        pages = session.client("ec2").get_paginator("describe_spot_instance_requests").paginate(Filters=filters)
        return tuple(
            (request.get("SpotInstanceRequestId", ""), read_tags(request.get("Tags")))
            for page in pages
            for request in page["SpotInstanceRequests"]
        )


def cancel_spot_requests(session: Session, identity: str) -> None:
    """Cancel a request by its id, or all that bear a name of a build; their instances stay. Gone is as good."""
    named = is_resource_name(identity)
    identities = [request for request, _ in list_spot_requests(session, identity)] if named else [identity]
    for one in identities:
        with tolerating(MISSING, one, session.region):
            session.client("ec2").cancel_spot_instance_requests(SpotInstanceRequestIds=[one])
