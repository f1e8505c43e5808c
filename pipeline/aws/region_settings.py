"""What an account has set for a whole region: which regions it uses, encryption, public access, allowed images."""

from dataclasses import dataclass

from pipeline.aws.session import Session, cloud_errors


@dataclass(frozen=True)
class AllowedImages:
    """The Allowed AMIs setting: whose images may be launched at all."""

    state: str
    """`enabled`, `audit-mode` or `disabled`."""
    providers: tuple[frozenset[str], ...]
    """Of each criterion; empty where a criterion names none."""


def read_regions(session: Session) -> dict[str, str]:
    """Return every region with its opt-in status. Raises CloudFailed."""
    with cloud_errors("the regions", session.region):
        found = session.client("ec2").describe_regions(AllRegions=True)["Regions"]
    return {region["RegionName"]: region.get("OptInStatus", "") for region in found if "RegionName" in region}


def enabled_regions(session: Session) -> tuple[str, ...]:
    """Return the regions that the account may use. Raises CloudFailed."""
    return tuple(sorted(name for name, status in read_regions(session).items() if status != "not-opted-in"))


def read_zones(session: Session) -> dict[str, str]:
    """Return the state of each zone of the region. Raises CloudFailed."""
    with cloud_errors("the zones", session.region):
        found = session.client("ec2").describe_availability_zones()["AvailabilityZones"]
    return {zone["ZoneName"]: zone.get("State", "") for zone in found if "ZoneName" in zone}


def read_default_encryption(session: Session) -> bool:
    """Return whether every new volume and snapshot copy is encrypted. Raises CloudFailed."""
    with cloud_errors("EBS encryption by default", session.region):
        return session.client("ec2").get_ebs_encryption_by_default().get("EbsEncryptionByDefault", False)


def read_default_key(session: Session) -> str | None:
    """Return the key that encrypts every new volume and copy by default; None where that is off. Raises CloudFailed."""
    if not read_default_encryption(session):
        return None
    with cloud_errors("the default key of EBS", session.region):
        return session.client("ec2").get_ebs_default_kms_key_id().get("KmsKeyId", "")


def read_image_block(session: Session) -> str:
    """Return the state of block-public-access for images: `block-new-sharing` or `unblocked`. Raises CloudFailed."""
    with cloud_errors("block public access for images", session.region):
        return session.client("ec2").get_image_block_public_access_state().get("ImageBlockPublicAccessState", "")


def read_snapshot_block(session: Session) -> str:
    """Return the same for snapshots: `block-all-sharing`, `block-new-sharing` or `unblocked`. Raises CloudFailed."""
    with cloud_errors("block public access for snapshots", session.region):
        return session.client("ec2").get_snapshot_block_public_access_state().get("State", "")


def read_allowed_images(session: Session) -> AllowedImages:
    """Return the Allowed AMIs setting. Raises CloudFailed."""
    with cloud_errors("Allowed AMIs", session.region):
        found = session.client("ec2").get_allowed_images_settings()
    return AllowedImages(
        state=found.get("State", ""),
        providers=tuple(frozenset(one.get("ImageProviders", [])) for one in found.get("ImageCriteria", [])),
    )
