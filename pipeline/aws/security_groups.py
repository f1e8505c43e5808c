"""Security groups of a build: open for what is named, and closed for all else, in both directions (A02, A03)."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pipeline.aws.creation import find_or_create
from pipeline.aws.session import Session, cloud_errors, dry_run, error_code, tolerating
from pipeline.aws.tags import NAME, Tags, is_ours, is_resource_name, read_tags
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CloudFailed

if TYPE_CHECKING:
    from mypy_boto3_ec2.type_defs import (
        FilterTypeDef,
        IpPermissionOutputTypeDef,
        IpPermissionTypeDef,
        SecurityGroupTypeDef,
    )

MISSING = frozenset({"InvalidGroup.NotFound", "InvalidGroupId.Malformed"})
IN_USE = frozenset({"DependencyViolation", "InvalidGroup.InUse"})
NO_RULE = "InvalidPermission.NotFound"
SAME_RULE = "InvalidPermission.Duplicate"
RELEASE_SECONDS = 300.0
"""A terminated instance keeps its network interface, and so its group, for up to a few minutes."""
EVERYTHING: "tuple[IpPermissionTypeDef, ...]" = (
    {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
    {"IpProtocol": "-1", "Ipv6Ranges": [{"CidrIpv6": "::/0"}]},
)
"""What a new group lets out until it is revoked; the second only where the VPC has IPv6."""


@dataclass(frozen=True)
class Permission:
    """One port for some networks, or for whatever bears another group."""

    port: int
    networks: tuple[str, ...] = ()
    group_id: str = ""
    protocol: Literal["tcp", "udp"] = "tcp"


@dataclass(frozen=True)
class SecurityGroup:
    """A security group: what may come in, as `tcp 22 from 203.0.113.7/32`, and what may leave, as `tcp 443 to …`."""

    group_id: str
    name: str
    vpc_id: str
    openings: tuple[str, ...]
    outlets: tuple[str, ...]
    tags: dict[str, str]


def create_security_group(session: Session, tags: Tags, name: str, *, vpc_id: str, description: str) -> str:
    """Make a group that lets nothing in and nothing out, and return its id. Raises CloudFailed."""
    ec2 = session.client("ec2")

    def create() -> str:
        with cloud_errors(name, session.region):
            made = ec2.create_security_group(
                GroupName=name,
                Description=description,
                VpcId=vpc_id,
                TagSpecifications=tags.specification(name, "security-group"),
            )
        return made["GroupId"]

    group_id = find_or_create(
        lambda: [group.group_id for group in find_security_groups(session, name)],
        create,
        what=name,
        region=session.region,
        taken_codes={"InvalidGroup.Duplicate"},
    )
    for permission in EVERYTHING:
        with tolerating({NO_RULE}, group_id, session.region):
            ec2.revoke_security_group_egress(GroupId=group_id, IpPermissions=[permission])
    return group_id


def let_in(session: Session, group_id: str, permissions: Sequence[Permission]) -> None:
    """Let what is named reach whatever bears the group (A02). Raises CloudFailed."""
    if permissions:
        with tolerating({SAME_RULE}, group_id, session.region):
            session.client("ec2").authorize_security_group_ingress(
                GroupId=group_id, IpPermissions=list(map(as_request, permissions))
            )


def let_out(session: Session, group_id: str, permissions: Sequence[Permission]) -> None:
    """Let whatever bears the group reach what is named (A03). Raises CloudFailed."""
    if permissions:
        with tolerating({SAME_RULE}, group_id, session.region):
            session.client("ec2").authorize_security_group_egress(
                GroupId=group_id, IpPermissions=list(map(as_request, permissions))
            )


def may_create_security_group(session: Session, tags: Tags, name: str, vpc_id: str) -> None:
    """Ask whether a security group could be made, with DryRun: nothing is made (A20). Raises CloudFailed if not."""
    with dry_run(name, session.region):
        session.client("ec2").create_security_group(
            DryRun=True,
            GroupName=name,
            Description="asked before a build",
            VpcId=vpc_id,
            TagSpecifications=tags.specification(name, "security-group"),
        )


def as_request(permission: Permission) -> "IpPermissionTypeDef":
    """Return a permission in the API's form."""
    networks = permission.networks
    request: IpPermissionTypeDef = {
        "IpProtocol": permission.protocol,
        "FromPort": permission.port,
        "ToPort": permission.port,
        "IpRanges": [{"CidrIp": text, "Description": "of a build"} for text in networks if ":" not in text],
        "Ipv6Ranges": [{"CidrIpv6": text, "Description": "of a build"} for text in networks if ":" in text],
    }
    if permission.group_id:
        request["UserIdGroupPairs"] = [{"GroupId": permission.group_id, "Description": "of a build"}]
    return request


def in_words(permissions: Iterable[Permission], word: Literal["from", "to"]) -> tuple[str, ...]:
    """Return permissions as `SecurityGroup` has them, to be held against what is read back."""
    return tuple(
        sorted(
            f"{permission.protocol} {permission.port} {word} {peer}"
            for permission in permissions
            for peer in (*permission.networks, *([permission.group_id] if permission.group_id else []))
        )
    )


def find_security_groups(session: Session, name: str) -> tuple[SecurityGroup, ...]:
    """Return the security groups that bear a name of a build."""
    return list_security_groups(session, [{"Name": f"tag:{NAME}", "Values": [name]}], name)


def list_security_groups(session: Session, filters: "Sequence[FilterTypeDef]", about: str) -> tuple[SecurityGroup, ...]:
    """Return the security groups that pass filters."""
    with cloud_errors(about, session.region):
        pages = session.client("ec2").get_paginator("describe_security_groups").paginate(Filters=filters)
        return tuple(read_security_group(found) for page in pages for found in page["SecurityGroups"])


def describe_security_groups(session: Session, *group_ids: str) -> tuple[SecurityGroup, ...]:
    """Return security groups with what they let in and out. Raises CloudFailed when one is not there."""
    with cloud_errors(", ".join(group_ids), session.region):
        found = session.client("ec2").describe_security_groups(GroupIds=list(group_ids))["SecurityGroups"]
    return tuple(map(read_security_group, found))


def read_security_group(found: "SecurityGroupTypeDef") -> SecurityGroup:
    """Return a security group from the API's form of it."""
    return SecurityGroup(
        group_id=found["GroupId"],
        name=found.get("GroupName", ""),
        vpc_id=found.get("VpcId", ""),
        openings=tuple(sorted(rules_of(found.get("IpPermissions", []), "from"))),
        outlets=tuple(sorted(rules_of(found.get("IpPermissionsEgress", []), "to"))),
        tags=read_tags(found.get("Tags")),
    )


def rules_of(permissions: "Iterable[IpPermissionOutputTypeDef]", word: str) -> Iterator[str]:
    """Yield each rule of a group in words."""
    for rule in permissions:
        first, last = rule.get("FromPort", -1), rule.get("ToPort", -1)
        ports = "every port" if first == -1 else str(first) if first == last else f"{first}-{last}"
        protocol = rule.get("IpProtocol", "-1")
        what = "everything" if protocol == "-1" else f"{protocol} {ports}"
        for peer in (
            *(entry.get("CidrIp", "") for entry in rule.get("IpRanges", [])),
            *(entry.get("CidrIpv6", "") for entry in rule.get("Ipv6Ranges", [])),
            *(entry.get("PrefixListId", "") for entry in rule.get("PrefixListIds", [])),
            *(entry.get("GroupId", "") for entry in rule.get("UserIdGroupPairs", [])),
        ):
            yield f"{what} {word} {peer}"


def delete_security_group(
    session: Session, identity: str, *, deadline_seconds: float = RELEASE_SECONDS, clock: Clock = CLOCK
) -> None:
    """Delete a security group by id, or all that bear a name of a build; what is gone is as good.

    Waits while a terminated instance's network interface still uses it. Raises CloudFailed, DeadlinePassed.
    """
    if is_resource_name(identity):
        group_ids = [group.group_id for group in find_security_groups(session, identity)]
    else:
        group_ids = [identity]
    for group_id in group_ids:
        delete_when_free(session, group_id, deadline_seconds, clock)


def delete_when_free(session: Session, group_id: str, deadline_seconds: float, clock: Clock) -> None:
    """Delete one group as soon as no network interface uses it."""
    wait_until(
        lambda: try_to_delete(session, group_id),
        bool,
        what=group_id,
        region=session.region,
        deadline_seconds=deadline_seconds,
        missing_codes=IN_USE,
        sightings=1,
        clock=clock,
    )


def try_to_delete(session: Session, group_id: str) -> bool:
    """Delete a group, and return True when it is gone. Raises CloudFailed, also when it is in use."""
    try:
        with cloud_errors(group_id, session.region):
            session.client("ec2").delete_security_group(GroupId=group_id)
    except CloudFailed as error:
        if error_code(error) in IN_USE:
            forget_group(session, group_id)
        if error_code(error) not in MISSING:
            raise
    return True


def forget_group(session: Session, group_id: str) -> None:
    """Revoke the rules of our other groups that name a group: of a pair, the one keeps the other from its deletion."""
    ec2 = session.client("ec2")
    filters: list[FilterTypeDef] = [{"Name": "ip-permission.group-id", "Values": [group_id]}]
    for other in list_security_groups(session, filters, group_id):
        if is_ours(other.tags):
            rules = [rule.split() for rule in other.openings if rule.endswith(f" from {group_id}")]
            with tolerating({NO_RULE}, other.group_id, session.region):
                ec2.revoke_security_group_ingress(
                    GroupId=other.group_id,
                    IpPermissions=[
                        as_request(Permission(int(port), group_id=group_id, protocol="udp" if kind == "udp" else "tcp"))
                        for kind, port, *_ in rules
                    ],
                )
