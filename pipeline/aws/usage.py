"""Who uses an image: this account's own resources, and other accounts, as far as EC2 tells its owner."""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

from pipeline.aws.session import Session, cloud_errors
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CloudFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import ImageUsageResourceTypeRequestTypeDef, ResourceTypeRequestTypeDef

LIVING = ("pending", "running", "stopping", "stopped")
MOST_VERSIONS = "10000"
"""Of each launch template: an auto-scaling group may be pinned to an old one. Unasked, EC2 looks at ten."""
REFERRING: "list[ResourceTypeRequestTypeDef]" = [
    {
        "ResourceType": "ec2:Instance",
        "ResourceTypeOptions": [{"OptionName": "state-name", "OptionValues": list(LIVING)}],
    },
    {
        "ResourceType": "ec2:LaunchTemplate",
        "ResourceTypeOptions": [{"OptionName": "version-depth", "OptionValues": [MOST_VERSIONS]}],
    },
    {"ResourceType": "ssm:Parameter"},
    {"ResourceType": "imagebuilder:ImageRecipe"},
    {"ResourceType": "imagebuilder:ContainerRecipe"},
]
USING: "list[ImageUsageResourceTypeRequestTypeDef]" = [
    {"ResourceType": "ec2:Instance"},
    {"ResourceType": "ec2:LaunchTemplate"},
]
REPORT_SECONDS = 900.0
REPORT_HOURS = 24
"""A report that is older says nothing of today."""


def read_references(session: Session, image_ids: Sequence[str]) -> dict[str, list[str]]:
    """Return by image what of this account refers to it: instances, launch templates, parameters, recipes (ARNs).

    Source: EC2 User Guide, "Identify your resources referencing specified AMIs". Raises CloudFailed.
    """
    found: dict[str, list[str]] = defaultdict(list)
    with cloud_errors(", ".join(image_ids), session.region):
        pages = session.client("ec2").get_paginator("describe_image_references")
        for page in pages.paginate(ImageIds=list(image_ids), ResourceTypes=REFERRING):
            for one in page["ImageReferences"]:
                found[one["ImageId"]].append(one["Arn"])
    return found


def read_launch_configurations(session: Session) -> dict[str, list[str]]:
    """Return by image the launch configurations of auto-scaling groups that name it. Raises CloudFailed."""
    found: dict[str, list[str]] = defaultdict(list)
    with cloud_errors("the launch configurations", session.region):
        for page in session.client("autoscaling").get_paginator("describe_launch_configurations").paginate():
            for one in page["LaunchConfigurations"]:
                found[one["ImageId"]].append(f"launch configuration {one['LaunchConfigurationName']}")
    return found


def read_foreign_usage(session: Session, image_id: str, clock: Clock = CLOCK) -> list[str]:
    """Return what other accounts have of an image, by a report of the last day or a new one.

    Source: EC2 User Guide, "View your AMI usage". Raises CloudFailed, and DeadlinePassed where the report is not ready.
    """
    ec2 = session.client("ec2")
    with cloud_errors(image_id, session.region):
        reports = ec2.describe_image_usage_reports(ImageIds=[image_id])["ImageUsageReports"]
    report_id = next(recent_reports(reports), "") or begin_report(session, image_id)
    wait_until(
        lambda: report_state(session, report_id),
        lambda state: state == "available",
        what=report_id,
        region=session.region,
        deadline_seconds=REPORT_SECONDS,
        failed=lambda state: state if state == "error" else None,
        sightings=1,
        clock=clock,
    )
    with cloud_errors(report_id, session.region):
        pages = ec2.get_paginator("describe_image_usage_report_entries").paginate(ReportIds=[report_id])
        entries = [entry for page in pages for entry in page["ImageUsageReportEntries"]]
    return [f"{one['UsageCount']} {one['ResourceType']} of the account {one['AccountId']}" for one in entries]


def recent_reports(reports: Sequence[Any]) -> Iterator[str]:
    """Yield the reports that say how it is today."""
    oldest = datetime.now(UTC) - timedelta(hours=REPORT_HOURS)
    for report in reports:
        if report["State"] != "error" and report["CreationTime"] > oldest:
            yield report["ReportId"]


def begin_report(session: Session, image_id: str) -> str:
    """Begin a report on an image and return its id; it expires by itself. Raises CloudFailed."""
    with cloud_errors(image_id, session.region):
        return session.client("ec2").create_image_usage_report(ImageId=image_id, ResourceTypes=USING)["ReportId"]


def report_state(session: Session, report_id: str) -> str:
    """Return the state of a report. Raises CloudFailed."""
    with cloud_errors(report_id, session.region):
        found = session.client("ec2").describe_image_usage_reports(ReportIds=[report_id])["ImageUsageReports"]
    if not found:
        raise CloudFailed("there is no such report", resource=report_id, region=session.region)
    return found[0].get("State", "")
