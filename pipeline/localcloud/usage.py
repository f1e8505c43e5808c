"""Who uses an image: what of this account refers to it, and which other accounts have instances or templates of it.

Behaviour is that of the EC2 User Guide, "Identify your resources referencing specified AMIs" and "View your AMI usage".
"""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

import datetime
from collections.abc import Iterator
from typing import Any

from moto.core.responses import ActionResult
from moto.core.utils import utcnow
from moto.moto_api._internal import mock_random
from moto.ssm.models import ssm_backends

from pipeline.localcloud.backend import LocalHandlers
from pipeline.localcloud.images import ImageBackend
from pipeline.localcloud.listing import take_page
from pipeline.localcloud.refusals import required

INSTANCE, TEMPLATE, PARAMETER = "ec2:Instance", "ec2:LaunchTemplate", "ssm:Parameter"
REFERRING = (INSTANCE, TEMPLATE, PARAMETER)
USING = (INSTANCE, TEMPLATE)
VERSIONS = 10
"""Of a launch template, the newest ones that are looked at unless the caller says otherwise."""
REPORT_LIFETIME = datetime.timedelta(days=30)

Options = dict[str, list[str]]


class UsageBackend(ImageBackend):
    """The usage reports of one account in one region."""

    def __init__(self, region_name: str, account_id: str) -> None:
        self.usage_reports: dict[str, dict[str, Any]] = {}
        self.usage_entries: dict[str, list[dict[str, Any]]] = {}
        super().__init__(region_name, account_id)

    def recover_usage(self) -> None:
        """After a restart: a state that was written before there were reports has none."""
        vars(self).setdefault("usage_reports", {})
        vars(self).setdefault("usage_entries", {})

    def references(self, image_id: str, kinds: dict[str, Options]) -> Iterator[dict[str, str]]:
        """Yield what of this account refers to an image."""
        where = f"{self.region_name}:{self.account_id}"
        if INSTANCE in kinds:
            states = kinds[INSTANCE].get("state-name") or []
            for instance in self.instances_of(image_id, states):
                yield reference(image_id, INSTANCE, f"arn:aws:ec2:{where}:instance/{instance.id}")
        if TEMPLATE in kinds:
            depth = int((kinds[TEMPLATE].get("version-depth") or [str(VERSIONS)])[0])
            for template in self.templates_of(image_id, depth):
                yield reference(image_id, TEMPLATE, f"arn:aws:ec2:{where}:launch-template/{template.id}")
        if PARAMETER in kinds:
            for name, versions in dict.items(ssm_backends[self.account_id][self.region_name]._parameters):
                found = versions[-1] if versions else None
                if found and found.data_type == "aws:ec2:image" and found.value == image_id:
                    yield reference(image_id, PARAMETER, f"arn:aws:ssm:{where}:parameter/{name.lstrip('/')}")

    def instances_of(self, image_id: str, states: list[str]) -> list[Any]:
        """Return the instances of an image, in some states or in any."""
        return [one for one in self.all_instances() if one.image_id == image_id and (not states or one.state in states)]

    def templates_of(self, image_id: str, depth: int) -> list[Any]:
        """Return the launch templates that name an image in one of their newest versions."""
        return [
            template
            for template in self.launch_templates.values()
            if any(version.image_id == image_id for version in template.versions[-depth:])
        ]

    def begin_report(self, image_id: str, kinds: list[str], accounts: list[str]) -> str:
        """Begin a report on an image of this account and return its id; it is there a moment later."""
        image = self.own_image(image_id)
        report_id = f"imgrpt-{mock_random.get_random_hex(17)}"
        now = utcnow()
        self.usage_reports[report_id] = {
            "ImageId": image.id,
            "ReportId": report_id,
            "ResourceTypes": [{"ResourceType": kind} for kind in kinds],
            "AccountIds": accounts,
            "State": "pending",
            "CreationTime": now,
            "ExpirationTime": now + REPORT_LIFETIME,
        }
        self.cloud.later(lambda: self.finish_report(report_id, kinds))
        return report_id

    def finish_report(self, report_id: str, kinds: list[str]) -> None:
        """Count what other accounts have of an image."""
        with self.cloud.changing():
            report = self.usage_reports[report_id]
            self.usage_entries[report_id] = [
                {
                    "ResourceType": kind,
                    "ReportId": report_id,
                    "UsageCount": len(found),
                    "AccountId": other.account_id,
                    "ImageId": report["ImageId"],
                    "ReportCreationTime": report["CreationTime"],
                }
                for other in self.neighbours()
                if other.account_id != self.account_id
                for kind in kinds
                if (found := other.used(report["ImageId"], kind))
            ]
            report["State"] = "available"

    def used(self, image_id: str, kind: str) -> list[Any]:
        """Return what of one kind uses an image."""
        if kind == TEMPLATE:
            return self.templates_of(image_id, VERSIONS)
        return [one for one in self.instances_of(image_id, []) if one.state != "terminated"]


def reference(image_id: str, kind: str, arn: str) -> dict[str, str]:
    """Return a reference as the API lists it."""
    return {"ImageId": image_id, "ResourceType": kind, "Arn": arn}


def asked_kinds(params: Any) -> dict[str, Options]:
    """Return the kinds of resources that a call asks for, each with its options."""
    kinds: dict[str, Options] = {kind: {} for kind in REFERRING} if params.get("IncludeAllResourceTypes") else {}
    for asked in params.get("ResourceTypes") or []:
        options = asked.get("ResourceTypeOptions") or []
        kinds[asked["ResourceType"]] = {one["OptionName"]: one.get("OptionValues") or [] for one in options}
    return kinds


class UsageHandlers(LocalHandlers):
    """Answers the actions on the usage of images."""

    @property
    def backend(self) -> UsageBackend:
        """The caller's account in the request's region."""
        return self.ec2_backend  # type: ignore[no-any-return]

    def describe_image_references(self) -> ActionResult:
        """DescribeImageReferences, with pages."""
        required(self.params, "ImageIds")
        kinds = asked_kinds(self.params)
        found = [one for image_id in self.params["ImageIds"] for one in self.backend.references(image_id, kinds)]
        page, token = take_page(found, self.params)
        return ActionResult({"ImageReferences": page, "NextToken": token})

    def create_image_usage_report(self) -> ActionResult:
        """CreateImageUsageReport."""
        required(self.params, "ImageId", "ResourceTypes")
        kinds = [kind for kind in asked_kinds(self.params) if kind in USING]
        accounts = self.params.get("AccountIds") or []
        return ActionResult({"ReportId": self.backend.begin_report(self.params["ImageId"], kinds, accounts)})

    def describe_image_usage_reports(self) -> ActionResult:
        """DescribeImageUsageReports, of images or by id."""
        images, reports = self.params.get("ImageIds") or [], self.params.get("ReportIds") or []
        found = [
            report
            for report in self.backend.usage_reports.values()
            if (not images or report["ImageId"] in images) and (not reports or report["ReportId"] in reports)
        ]
        page, token = take_page(found, self.params)
        return ActionResult({"ImageUsageReports": page, "NextToken": token})

    def describe_image_usage_report_entries(self) -> ActionResult:
        """DescribeImageUsageReportEntries of some reports."""
        reports = self.params.get("ReportIds") or list(self.backend.usage_reports)
        found = [entry for report_id in reports for entry in self.backend.usage_entries.get(report_id, [])]
        page, token = take_page(found, self.params)
        return ActionResult({"ImageUsageReportEntries": page, "NextToken": token})
