"""A paid image on its way to AWS Marketplace: what the Marketplace would refuse, then a new version of the product.

    conditions (A22) → product codes → change set → followed to its end

Sources: AWS Marketplace Seller Guide, "AMI-based product requirements" and "Best practices for building AMIs"; AWS
Marketplace API Reference, "Add a new version" (AddDeliveryOptions of an AmiProduct).
"""

import re
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.aws import change_sets
from pipeline.aws.images import Image
from pipeline.aws.session import Session
from pipeline.aws.wait import CLOCK, Clock
from pipeline.errors import MarketplaceRefused, SpecInvalid
from pipeline.publish.copies import result
from pipeline.report.evidence import Result
from pipeline.spec import Marketplace, Spec

Problem = tuple[str, str]
"""A condition of the Marketplace, and why it is not met; empty when it is."""


def require_marketplace(spec: Spec) -> Marketplace:
    """Return what a spec says of the Marketplace. Raises SpecInvalid when it says nothing."""
    if spec.release.marketplace is None:
        raise SpecInvalid(
            "the spec names no product of AWS Marketplace", hint="add release.marketplace with its product_id"
        )
    return spec.release.marketplace


def conditions(spec: Spec, image: Image, account_id: str, region: str) -> Iterator[Problem]:
    """Yield each condition of the Marketplace (A22) with what is wrong: about the image, the seller and the spec."""
    market = require_marketplace(spec)
    yield "the image is in us-east-1", "" if region == change_sets.REGION else f"it is in {region}"
    yield "virtualization is HVM", "" if image.virtualization == "hvm" else f"it is {image.virtualization or 'unknown'}"
    yield "the root device is on EBS", "" if image.root_device_type == "ebs" else f"it is {image.root_device_type}"
    yield "nothing is encrypted", "a snapshot is encrypted" if image.encrypted else ""
    yield "nobody launches it without paying", "it is public" if image.public else ""
    yield "the image is available", "" if image.state == "available" else f"it is {image.state}"
    yield "the caller is the seller", "" if account_id == market.seller else f"it is {account_id}, not {market.seller}"
    yield "it works in every region", ", ".join(f"{url} names one" for url in regional_addresses(spec))
    undeclared = ", ".join(map(str, sorted(served_ports(spec) - declared_ports(market))))
    yield "every port is declared", f"not in release.marketplace.ports: {undeclared}" if undeclared else ""


def regional_addresses(spec: Spec) -> list[str]:
    """Return the addresses that instances keep using and that name a region: elsewhere they are far or not there."""
    kept = [repository.url for repository in spec.harden.repositories if not repository.only_for_build]
    return [url for url in kept if re.search(r"\b[a-z]{2}(-gov)?-[a-z]+-[0-9]\b", url)]


def served_ports(spec: Spec) -> set[int]:
    """Return the TCP ports that instances serve: ssh, which the Marketplace scans through, and what may listen."""
    ssh = spec.harden.sshd.port if spec.harden.sshd else spec.ssh.port
    return {ssh, *(one.port for one in spec.harden.listen if one.protocol == "tcp")}


def declared_ports(market: Marketplace) -> set[int]:
    """Return the ports that the product's security group is said to open."""
    return {one.port for one in market.ports}


def require_conditions(spec: Spec, image: Image, account_id: str, region: str) -> tuple[Result, ...]:
    """Return a result for each condition of the Marketplace. Raises MarketplaceRefused with all that are not met."""
    found = list(conditions(spec, image, account_id, region))
    if problems := tuple(f"{title}: {problem}" for title, problem in found if problem):
        raise MarketplaceRefused(
            "the Marketplace would refuse the image", problems, resource=image.image_id, region=region
        )
    return tuple(result("A22", title, region) for title, _ in found)


def new_version(spec: Spec, image: Image, version: str) -> dict[str, Any]:
    """Return the change that adds an image to the product as a new version."""
    market = require_marketplace(spec)
    details = {
        "AmiSource": {
            "AmiId": image.image_id,
            "AccessRoleArn": market.access_role,
            "UserName": spec.image.launch_user or spec.ssh.user,
            "OperatingSystemName": market.operating_system,
            "OperatingSystemVersion": market.operating_system_version,
            "ScanningPort": spec.harden.sshd.port if spec.harden.sshd else spec.ssh.port,
        },
        "UsageInstructions": market.usage,
        "RecommendedInstanceType": market.instance_type,
        "SecurityGroups": [
            {"IpProtocol": "tcp", "FromPort": one.port, "ToPort": one.port, "IpRanges": list(one.sources)}
            for one in market.ports
        ],
    }
    return {
        "ChangeType": "AddDeliveryOptions",
        "Entity": {"Type": "AmiProduct@1.0", "Identifier": market.product_id},
        "DetailsDocument": {
            "Version": {"VersionTitle": version, "ReleaseNotes": market.release_notes or version},
            "DeliveryOptions": [{"Details": {"AmiDeliveryOptionDetails": details}}],
        },
    }


def submit_version(
    session: Session, spec: Spec, image: Image, version: str, progress: Callable[[str], None], clock: Clock = CLOCK
) -> Result:
    """Add an image to its product, and follow that to its end; what was begun before is followed on.

    Raises MarketplaceRefused with what the Marketplace says, DeadlinePassed, CloudFailed.
    """
    identity = change_sets.start_change_set(session, f"assay {version}", new_version(spec, image, version))
    progress(f"change set {identity}")
    ended = change_sets.follow_change_set(session, identity, progress, clock)
    if ended.status != "SUCCEEDED":
        raise MarketplaceRefused(
            f"the change set {ended.status.lower()}", ended.problems, resource=identity, region=change_sets.REGION
        )
    return result("A22", f"the Marketplace took {image.image_id} as version {version}", change_sets.REGION)
