"""Who may use the account: the root user, the users with their keys, and which of them may launch (A15-A18)."""

import csv
import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatchcase
from typing import Any

from pipeline.aws.session import Session, cloud_errors, error_code
from pipeline.aws.wait import CLOCK, Clock, wait_until
from pipeline.errors import CloudFailed

ROOT_USER = "<root_account>"
REPORT_SECONDS = 60.0
LAUNCH = "ec2:runinstances"
MFA = "aws:multifactorauthpresent"
ACCOUNT = "the account"

Document = Mapping[str, Any]


@dataclass(frozen=True)
class AccessKey:
    """An access key, as the credential report knows it: by its place, without its id."""

    place: int
    changed: datetime | None
    last_used: datetime | None
    """None: never."""


@dataclass(frozen=True)
class User:
    """A row of the credential report; only active keys and certificates are kept."""

    name: str
    password: bool
    mfa: bool
    keys: tuple[AccessKey, ...] = ()
    certificates: int = 0

    @property
    def can_sign_in(self) -> bool:
        """Whether it has anything to sign in or to call with."""
        return self.password or bool(self.keys)


@dataclass(frozen=True)
class PasswordPolicy:
    """What a user's password must be like."""

    shortest: int
    missing_classes: tuple[str, ...]
    changeable: bool
    """Users may change their own password: whoever gave them the first one no longer knows it."""
    longest_days: int | None
    """After so many days a password must be changed; None: never."""


def read_account_summary(session: Session) -> dict[str, int]:
    """Return IAM's summary of the account: GetAccountSummary. Raises CloudFailed."""
    with cloud_errors(ACCOUNT, session.region):
        return {str(name): value for name, value in session.client("iam").get_account_summary()["SummaryMap"].items()}


def read_users(session: Session, *, clock: Clock = CLOCK) -> tuple[User, ...]:
    """Return the users from the credential report, one call for all; it may be four hours old. Raises CloudFailed."""
    iam = session.client("iam")

    def generate() -> str:
        with cloud_errors("the credential report", session.region):
            return iam.generate_credential_report()["State"]

    wait_until(
        generate,
        lambda state: state == "COMPLETE",
        what="the credential report",
        region=session.region,
        deadline_seconds=REPORT_SECONDS,
        sightings=1,
        clock=clock,
    )
    with cloud_errors("the credential report", session.region):
        content = iam.get_credential_report()["Content"].decode()
    rows = (read_user(row) for row in csv.DictReader(io.StringIO(content)))
    return tuple(user for user in rows if user.name != ROOT_USER)


def read_user(row: Mapping[str, str]) -> User:
    """Return a user from a row of the credential report."""
    places = [place for place in (1, 2) if is_true(row.get(f"access_key_{place}_active"))]
    return User(
        name=row["user"],
        password=is_true(row.get("password_enabled")),
        mfa=is_true(row.get("mfa_active")),
        keys=tuple(
            AccessKey(
                place,
                read_time(row.get(f"access_key_{place}_last_rotated")),
                read_time(row.get(f"access_key_{place}_last_used_date")),
            )
            for place in places
        ),
        certificates=sum(is_true(row.get(f"cert_{place}_active")) for place in (1, 2)),
    )


def is_true(text: str | None) -> bool:
    """Return whether a field of the credential report says yes."""
    return (text or "").lower() == "true"


def read_time(text: str | None) -> datetime | None:
    """Return a time of the credential report; `N/A` and `no_information` are none."""
    try:
        return datetime.fromisoformat(text or "")
    except ValueError:
        return None


def read_password_policy(session: Session) -> PasswordPolicy | None:
    """Return the password policy; None when the account has none. Raises CloudFailed."""
    try:
        with cloud_errors("the password policy", session.region):
            found = session.client("iam").get_account_password_policy()["PasswordPolicy"]
    except CloudFailed as error:
        if error_code(error) not in {"NoSuchEntity", "NoSuchEntityException"}:
            raise
        return None
    classes = {
        "capital letters": found.get("RequireUppercaseCharacters", False),
        "small letters": found.get("RequireLowercaseCharacters", False),
        "digits": found.get("RequireNumbers", False),
        "symbols": found.get("RequireSymbols", False),
    }
    return PasswordPolicy(
        shortest=found.get("MinimumPasswordLength", 0),
        missing_classes=tuple(name for name, required in classes.items() if not required),
        changeable=found.get("AllowUsersToChangePassword", False),
        longest_days=found.get("MaxPasswordAge") or None,
    )


def read_aliases(session: Session) -> tuple[str, ...]:
    """Return the account's aliases: one or none. Raises CloudFailed."""
    with cloud_errors(ACCOUNT, session.region):
        return tuple(session.client("iam").list_account_aliases()["AccountAliases"])


def read_launchers(session: Session) -> frozenset[str]:
    """Return the users whose policies let them launch instances without MFA: their own, their groups', attached ones.

    Boundaries and policies of the organisation are not read: they can only take away. Raises CloudFailed.
    """
    with cloud_errors("the account's policies", session.region):
        pages = list(session.client("iam").get_paginator("get_account_authorization_details").paginate())
    managed = {policy["Arn"]: default_version(policy) for page in pages for policy in page["Policies"]}
    groups = {
        group["GroupName"]: tuple(documents_of(group, "GroupPolicyList", managed))
        for page in pages
        for group in page["GroupDetailList"]
    }
    return frozenset(
        user["UserName"]
        for page in pages
        for user in page["UserDetailList"]
        if may_launch(
            (
                *documents_of(user, "UserPolicyList", managed),
                *(document for group in user.get("GroupList", ()) for document in groups.get(group, ())),
            )
        )
    )


def default_version(policy: Document) -> Document:
    """Return the document of a managed policy that is in force."""
    versions = policy.get("PolicyVersionList", ())
    return next((as_document(version.get("Document")) for version in versions if version.get("IsDefaultVersion")), {})


def documents_of(holder: Document, inline: str, managed: Mapping[str, Document]) -> Iterator[Document]:
    """Yield the documents of a user or a group: those inside it, and those attached to it."""
    yield from (as_document(policy.get("PolicyDocument")) for policy in holder.get(inline, ()))
    yield from (managed.get(policy["PolicyArn"], {}) for policy in holder.get("AttachedManagedPolicies", ()))


def as_document(found: object) -> Document:
    """Return a policy's document, which botocore has decoded unless it cannot be read."""
    decoded = json.loads(found) if isinstance(found, str) else found
    return decoded if isinstance(decoded, dict) else {}


def may_launch(documents: Iterable[Document]) -> bool:
    """Return whether policies allow ec2:RunInstances to somebody without MFA (IAM User Guide, policy evaluation).

    A denial counts when it is of everything, and when it is of everybody without MFA. Of conditions only MFA is
    understood: any other condition of an Allow is taken to hold, any other of a Deny not to.
    """
    allowed = False
    for document in documents:
        found = document.get("Statement", ())
        for statement in [found] if isinstance(found, dict) else found:
            if not is_about_launching(statement):
                continue
            if statement.get("Effect") == "Deny" and denies_without_mfa(statement):
                return False
            allowed = allowed or (
                statement.get("Effect") == "Allow" and not mfa_condition(statement, ("bool",), "true")
            )
    return allowed


def is_about_launching(statement: Document) -> bool:
    """Return whether a statement's actions include the launch of instances."""
    if "NotAction" in statement:
        return not any(fnmatchcase(LAUNCH, action.lower()) for action in as_list(statement["NotAction"]))
    return any(fnmatchcase(LAUNCH, action.lower()) for action in as_list(statement.get("Action", ())))


def denies_without_mfa(statement: Document) -> bool:
    """Return whether a denial holds for everything, for everybody, or for all without MFA."""
    if "*" not in as_list(statement.get("Resource", ())):
        return False
    # Calls with an access key do not say a word of MFA: only the `IfExists` form denies them too.
    conditions = statement.get("Condition") or {}
    return not conditions or (len(conditions) == 1 and mfa_condition(statement, ("boolifexists",), "false"))


def mfa_condition(statement: Document, operators: Iterable[str], wanted: str) -> bool:
    """Return whether a statement's conditions want MFA to be there, or not to be there."""
    return any(
        operator.lower() in operators and key.lower() == MFA and wanted in [text.lower() for text in as_list(value)]
        for operator, keys in (statement.get("Condition") or {}).items()
        for key, value in keys.items()
    )


def as_list(value: object) -> list[str]:
    """Return what a policy writes as one text or as a list."""
    return [str(one) for one in value] if isinstance(value, list | tuple) else [str(value)]
