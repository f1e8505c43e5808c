"""Who may launch an image: read, granted, taken back (A10)."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from pipeline.aws.session import Session, cloud_errors

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import LaunchPermissionModificationsTypeDef, LaunchPermissionTypeDef

BATCH = 200
"""Grants in one call: a long list in one request is refused as a whole."""


@dataclass(frozen=True)
class LaunchPermissions:
    """Who may launch an image, beside its owner. Organisations and units are ARNs."""

    accounts: frozenset[str] = frozenset()
    organizations: frozenset[str] = frozenset()
    organizational_units: frozenset[str] = frozenset()
    public: bool = False

    def without(self, other: "LaunchPermissions") -> "LaunchPermissions":
        """Return what is granted here and not in the other."""
        return LaunchPermissions(
            accounts=self.accounts - other.accounts,
            organizations=self.organizations - other.organizations,
            organizational_units=self.organizational_units - other.organizational_units,
            public=self.public and not other.public,
        )

    def __bool__(self) -> bool:
        return bool(self.accounts or self.organizations or self.organizational_units or self.public)

    def describe(self) -> tuple[str, ...]:
        """Return a word for each grant, in a stable order; `all` is the public."""
        granted = (*sorted(self.accounts), *sorted(self.organizations), *sorted(self.organizational_units))
        return (*granted, "all") if self.public else granted


def read_launch_permissions(session: Session, image_id: str) -> LaunchPermissions:
    """Return who may launch an image. Raises CloudFailed."""
    with cloud_errors(image_id, session.region):
        found = session.client("ec2").describe_image_attribute(ImageId=image_id, Attribute="launchPermission")
    grants = found.get("LaunchPermissions", [])
    return LaunchPermissions(
        accounts=frozenset(grant["UserId"] for grant in grants if grant.get("UserId")),
        organizations=frozenset(grant["OrganizationArn"] for grant in grants if grant.get("OrganizationArn")),
        organizational_units=frozenset(
            grant["OrganizationalUnitArn"] for grant in grants if grant.get("OrganizationalUnitArn")
        ),
        public=any(grant.get("Group") == "all" for grant in grants),
    )


def grant_launch(session: Session, image_id: str, permissions: LaunchPermissions) -> None:
    """Grant; the public last, in a call of its own. The caller reads back: an accepted call proves nothing."""
    for grants in in_batches(as_grants(permissions)):
        modify(session, image_id, {"Add": grants})


def take_back_launch(session: Session, image_id: str, permissions: LaunchPermissions) -> None:
    """Take back; the public first. Raises CloudFailed."""
    for grants in reversed(in_batches(as_grants(permissions))):
        modify(session, image_id, {"Remove": grants})


def set_launch_permissions(
    session: Session, image_id: str, wanted: LaunchPermissions
) -> tuple[LaunchPermissions, LaunchPermissions]:
    """Make the permissions exactly these: revoke what is too much, grant what is missing; return (granted, revoked)."""
    current = read_launch_permissions(session, image_id)
    granted, revoked = wanted.without(current), current.without(wanted)
    take_back_launch(session, image_id, revoked)
    grant_launch(session, image_id, granted)
    return granted, revoked


def modify(session: Session, image_id: str, change: "LaunchPermissionModificationsTypeDef") -> None:
    """Change the permissions in one call."""
    with cloud_errors(image_id, session.region):
        session.client("ec2").modify_image_attribute(ImageId=image_id, LaunchPermission=change)


def as_grants(permissions: LaunchPermissions) -> "list[LaunchPermissionTypeDef]":
    """Return the permissions in the form of the API, the public last."""
    grants: list[LaunchPermissionTypeDef] = [{"UserId": account} for account in sorted(permissions.accounts)]
    grants += [{"OrganizationArn": arn} for arn in sorted(permissions.organizations)]
    grants += [{"OrganizationalUnitArn": arn} for arn in sorted(permissions.organizational_units)]
    return [*grants, {"Group": "all"}] if permissions.public else grants


def in_batches(grants: "list[LaunchPermissionTypeDef]") -> "list[list[LaunchPermissionTypeDef]]":
    """Return grants in batches; the public is alone in the last one."""
    named = [grant for grant in grants if "Group" not in grant]
    public = [grant for grant in grants if "Group" in grant]
    batches = [named[start : start + BATCH] for start in range(0, len(named), BATCH)]
    return [*batches, public] if public else batches
