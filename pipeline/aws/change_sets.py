"""Change sets of the AWS Marketplace Catalog: begun once, found again, followed to their end.

The Catalog answers in us-east-1. Sources: AWS Marketplace API Reference, StartChangeSet, DescribeChangeSet,
ListChangeSets. It was tested against botocore's model only: no account here sells anything.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from pipeline.aws.session import Session, cloud_errors
from pipeline.aws.wait import CLOCK, Clock, wait_until

CATALOG = "AWSMarketplace"
REGION = "us-east-1"
FOLLOW_SECONDS = 4 * 3600.0
"""The Marketplace copies the image and scans it: mostly within the hour."""
ENDED = frozenset({"SUCCEEDED", "FAILED", "CANCELLED"})


@dataclass(frozen=True)
class ChangeSet:
    """What the Catalog says of a change set."""

    identity: str
    status: str
    """PREPARING, APPLYING, SUCCEEDED, FAILED or CANCELLED."""
    problems: tuple[str, ...]


def start_change_set(session: Session, name: str, change: dict[str, Any]) -> str:
    """Begin a change set of one change and return its id; one that has the name already is answered instead.

    Raises CloudFailed, for example while another change of the same product is at work (ResourceInUseException).
    """
    catalog = session.in_region(REGION).client("marketplace-catalog")
    with cloud_errors(name, REGION):
        named = [{"Name": "ChangeSetName", "ValueList": [name]}]
        known = catalog.list_change_sets(Catalog=CATALOG, FilterList=named)["ChangeSetSummaryList"]
        alive = [one["ChangeSetId"] for one in known if one["Status"] not in ("FAILED", "CANCELLED")]
        if alive:
            return str(alive[0])
        return str(catalog.start_change_set(Catalog=CATALOG, ChangeSet=[change], ChangeSetName=name)["ChangeSetId"])


def read_change_set(session: Session, identity: str) -> ChangeSet:
    """Return a change set with what went wrong in it. Raises CloudFailed."""
    with cloud_errors(identity, REGION):
        found = (
            session.in_region(REGION)
            .client("marketplace-catalog")
            .describe_change_set(Catalog=CATALOG, ChangeSetId=identity)
        )
    details = [detail for change in found.get("ChangeSet", []) for detail in change.get("ErrorDetailList", [])]
    problems = [f"{detail.get('ErrorCode', '')}: {detail.get('ErrorMessage', '')}" for detail in details]
    if not problems and found.get("FailureDescription"):
        problems = [found["FailureDescription"]]
    return ChangeSet(identity, found["Status"], tuple(problems))


def follow_change_set(
    session: Session, identity: str, progress: Callable[[str], None], clock: Clock = CLOCK
) -> ChangeSet:
    """Wait until a change set has ended, and return it however it ended. Raises DeadlinePassed, CloudFailed."""
    return wait_until(
        lambda: read_change_set(session, identity),
        lambda found: found.status in ENDED,
        what=identity,
        region=REGION,
        deadline_seconds=FOLLOW_SECONDS,
        progress=progress,
        state=lambda found: found.status,
        sightings=1,
        clock=clock,
    )
