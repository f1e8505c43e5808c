"""Part of the preflight: have the account's quotas room for what a build makes, and for one more public image (A20)."""

from collections.abc import Iterator
from functools import partial

from pipeline.audit.findings import Bad, Check, Readers
from pipeline.aws import quotas
from pipeline.aws.offers import first_zone
from pipeline.aws.quotas import Counted, Usage
from pipeline.aws.session import Session
from pipeline.spec import Spec

ASKED = "servicequotas:GetServiceQuota"
VCPUS = "vCPUs"


def needed_of(spec: Spec) -> dict[Counted, int]:
    """Return how much more a build needs of each quota; what it needs nothing of is left out."""
    network = spec.network
    made, private = int(network.create is not None), int(network.makes_nat is not None)
    groups = 0 if network.security_group_ids else 1 + network.makes_gate
    needed = {
        quotas.VPCS: made,
        quotas.INTERNET_GATEWAYS: made,
        quotas.SECURITY_GROUPS: groups + made,  # a VPC comes with one
        quotas.ELASTIC_ADDRESSES: private,
        quotas.NAT_GATEWAYS: int(network.makes_nat == "gateway"),
    }
    return {quota: count for quota, count in needed.items() if count}


def headroom_readers(session: Session, spec: Spec) -> Readers:
    """Return the questions about the quotas of a build, a fact for each."""
    types = (spec.instance.type, *spec.instance.types)
    return {
        VCPUS: partial(quotas.vcpus_of, session, spec.instance.type),
        fact_of(VCPUS): partial(quotas.read_vcpu_usage, session, spec.instance.type, spot=spec.instance.spot),
        **{
            fact_of(quota.what): partial(read_near, session, types)
            if quota is quotas.NAT_GATEWAYS
            else partial(quotas.read_usage, session, quota)
            for quota in needed_of(spec)
        },
    }


def read_near(session: Session, instance_types: tuple[str, ...]) -> Usage:
    """Return the use of the quota of NAT gateways in the zone where a network is made."""
    return quotas.read_zone_usage(session, first_zone(session, instance_types))


def headroom_checks(spec: Spec) -> Iterator[Check]:
    """Yield a check for each quota of a build."""
    at_once = 1 + spec.network.makes_gate
    yield Check(
        "A20",
        "the quota of vCPUs allows it",
        f"{ASKED} ec2:DescribeInstances ec2:DescribeInstanceTypes",
        (fact_of(VCPUS), VCPUS),
        lambda usage, each: over(usage, each * at_once),
    )
    for quota, needed in needed_of(spec).items():
        yield check_of(quota, needed)


def public_image_reader(session: Session, image_name: str) -> Readers:
    """Return the question about the quota of public images in one region; a release's own image is not one more."""
    quota = quotas.PUBLIC_IMAGES
    return {fact_of(quota.what): partial(quotas.read_usage, session, quota, ours=image_name)}


def public_image_check() -> Check:
    """Return the check of that quota."""
    return check_of(quotas.PUBLIC_IMAGES, 1)


def check_of(quota: Counted, needed: int) -> Check:
    """Return the check that so much more fits into a quota."""
    return Check(
        "A20",
        f"the quota of {quota.what} allows it",
        f"{ASKED} {quota.asked}",
        (fact_of(quota.what),),
        partial(over, needed=needed),
    )


def over(usage: Usage | None, needed: int) -> Iterator[Bad]:
    """A20: what is over a quota fails when it is made, after all that was made before it."""
    if usage and usage.used + needed > usage.limit:
        room = f"{needed} more than the {usage.used} in use, of {usage.limit}"
        yield Bad("", f"{room}: remove what nobody needs, or ask Service Quotas for more")


def fact_of(what: str) -> str:
    """Return the name of the fact about a quota."""
    return f"quota of {what}"
