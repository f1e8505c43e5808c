"""Whether a key lets somebody else use an encrypted image: its policy and its grants, read as KMS reads them.

Sources: EC2 User Guide, "Allow organizations and OUs to use a KMS key" and "Share an encrypted snapshot"; KMS Developer
Guide, "Key policies" and "Grants". A statement with a condition that is not understood here counts as no permission.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

NEEDED = ("kms:DescribeKey", "kms:Decrypt", "kms:ReEncryptFrom", "kms:ReEncryptTo", "kms:CreateGrant")
"""What who launches an encrypted image needs of its key."""
ABOUT_CALLER = frozenset({"kms:calleraccount", "aws:principalaccount", "aws:principalorgid", "aws:principalorgpaths"})
HARMLESS = frozenset({"kms:viaservice", "kms:grantisforawsresource"})
"""Conditions that EC2 meets when it uses a key for somebody."""

Statement = dict[str, Any]


@dataclass(frozen=True)
class KeyGrant:
    """A grant of a key: to whom, and for what."""

    grantee: str
    operations: tuple[str, ...]


def missing_rights(policy: str, grants: Iterable[KeyGrant], target: str) -> tuple[str, ...]:
    """Return what a target needs to do with a key and may not.

    The target is an account's id, or the ARN of an organisation or of a unit.
    """
    statements = listed(json.loads(policy).get("Statement", []))
    allowed = {action for one in statements if one.get("Effect") == "Allow" for action in covered(one, target)}
    denied = {
        action
        for one in statements
        if one.get("Effect") == "Deny" and not one.get("Condition")
        for action in covered(one, target)
    }
    granted = {
        f"kms:{operation}" for one in grants if account_of(one.grantee) == target for operation in one.operations
    }
    return tuple(action for action in NEEDED if action in denied or action not in allowed | granted)


def covered(statement: Statement, target: str) -> Iterator[str]:
    """Yield the needed actions that a statement is about, where it is about the target."""
    if not is_about(statement, target):
        return
    patterns = [str(pattern).lower() for pattern in listed(statement.get("Action", []))]
    yield from (action for action in NEEDED if any(fnmatchcase(action.lower(), pattern) for pattern in patterns))


def is_about(statement: Statement, target: str) -> bool:
    """Return whether a statement's principals and conditions fit a target."""
    principal = statement.get("Principal", {})
    named = listed(principal.get("AWS", []) if isinstance(principal, dict) else principal)
    conditions = list(conditions_of(statement))
    if any(key not in ABOUT_CALLER | HARMLESS for key, _ in conditions):
        return False
    if not all(fits(key, values, target) for key, values in conditions if key in ABOUT_CALLER):
        return False
    return "*" in named or any(account_of(str(one)) == target for one in named)


def conditions_of(statement: Statement) -> Iterator[tuple[str, list[Any]]]:
    """Yield the keys of a statement's conditions with their values; one that negates is given as not understood."""
    for operator, tests in statement.get("Condition", {}).items():
        positive = operator.rpartition(":")[2] in ("StringEquals", "StringLike", "Bool", "StringEqualsIgnoreCase")
        yield from ((key.lower() if positive else operator, listed(values)) for key, values in tests.items())


def fits(key: str, values: list[Any], target: str) -> bool:
    """Return whether a condition about the caller is met by everybody in the target."""
    if not target.startswith("arn:"):
        return key in ("kms:calleraccount", "aws:principalaccount") and target in values
    organization, _, unit = target.partition(":organization/" if ":organization/" in target else ":ou/")[2].partition(
        "/"
    )
    if key == "aws:principalorgid":
        return organization in values
    return key == "aws:principalorgpaths" and any(holds(str(path), organization, unit) for path in values)


def holds(path: str, organization: str, unit: str) -> bool:
    """Return whether all of a unit, or of a whole organisation, lies under a path as `o-…/r-…/ou-…/*`."""
    parts = [part for part in path.split("/") if part != "*"]
    ends = (organization, unit) if unit else (organization,)
    return parts[0] == organization and (parts[-1] in ends or parts[-1].startswith("r-"))


def account_of(principal: str) -> str:
    """Return the account of a principal: its id, or that in its ARN."""
    return principal.split(":")[4] if principal.startswith("arn:") and principal.count(":") >= 5 else principal


def listed(value: Any) -> list[Any]:  # noqa: ANN401 -- a policy may give one for a list of one
    """Return a value as a list."""
    return value if isinstance(value, list) else [value]
