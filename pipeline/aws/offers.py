"""What a region offers of an instance type, and how much of it the account may run."""

import re
from dataclasses import dataclass

from pipeline.aws.session import Session, cloud_errors

QUOTAS = {
    "standard": "L-1216C47A",
    "f": "L-74FC7D96",
    "g": "L-DB2E81BA",
    "inf": "L-1945791B",
    "p": "L-417A185B",
    "x": "L-7295265B",
}
"""Of running on-demand instances, in vCPUs, by family (EC2 User Guide, "On-Demand Instance quotas")."""
STANDARD = frozenset("acdhimrtz")
COUNTED = ["pending", "running", "stopping"]


@dataclass(frozen=True)
class VcpuQuota:
    """The quota of vCPUs of a family, how many are in use, and how many one more instance needs."""

    limit: int
    used: int
    needed: int


def zones_offering(session: Session, instance_type: str) -> frozenset[str]:
    """Return the zones that offer an instance type. Raises CloudFailed."""
    with cloud_errors(instance_type, session.region):
        pages = (
            session.client("ec2")
            .get_paginator("describe_instance_type_offerings")
            .paginate(LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": [instance_type]}])
        )
        return frozenset(offer["Location"] for page in pages for offer in page["InstanceTypeOfferings"])


def family_of(instance_type: str) -> str:
    """Return the family under which EC2 counts an instance type."""
    letters = re.match(r"[a-z]+", instance_type)
    family = letters[0] if letters else ""
    if family in QUOTAS:
        return family
    return "g" if family == "vt" else "standard" if family[:1] in STANDARD else family[:1]


def read_vcpu_quota(session: Session, instance_type: str) -> VcpuQuota | None:
    """Return what is left for an instance type; None for a family whose quota is not known here. Raises CloudFailed."""
    family = family_of(instance_type)
    if family not in QUOTAS:
        return None
    ec2, used = session.client("ec2"), 0
    with cloud_errors(instance_type, session.region):
        limit = session.client("service-quotas").get_service_quota(ServiceCode="ec2", QuotaCode=QUOTAS[family])
        types = ec2.describe_instance_types(InstanceTypes=[instance_type])["InstanceTypes"]  # type: ignore[list-item]
        running = [{"Name": "instance-state-name", "Values": COUNTED}]
        for page in ec2.get_paginator("describe_instances").paginate(Filters=running):  # type: ignore[arg-type]
            for instance in (one for reservation in page["Reservations"] for one in reservation["Instances"]):
                if family_of(instance.get("InstanceType", "")) == family:
                    cpu = instance.get("CpuOptions", {})
                    used += cpu.get("CoreCount", 1) * cpu.get("ThreadsPerCore", 1)
    needed = types[0].get("VCpuInfo", {}).get("DefaultVCpus", 1) if types else 1
    return VcpuQuota(int(limit["Quota"]["Value"]), used, needed)
