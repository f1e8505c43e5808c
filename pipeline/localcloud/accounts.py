"""Who calls: the account is in the access key.

A well-known key for every account is `AKIALOCL` and the account's twelve digits; any secret goes with it, because the
cloud listens on loopback only and checks no signature. AssumeRole answers with `ASIALOCL` and the role's account, which
works after a restart too. Any other key belongs to the builder's account.
"""

import re

BUILDER_ACCOUNT = "123456789012"
"""The account of `start`'s exports, and of keys that say nothing."""

SECRET = "local-cloud-checks-no-signature"  # noqa: S105 -- says itself what it is
KEY = re.compile(r"A[KS]IALOCL(\d{12})")


def access_key(account_id: str, *, temporary: bool = False) -> str:
    """Return the access key of an account: 20 characters."""
    return f"{'ASIA' if temporary else 'AKIA'}LOCL{account_id}"


def account_of(key: str) -> str | None:
    """Return the account that a key of this scheme names, or None for another key."""
    found = KEY.fullmatch(key)
    return found[1] if found else None
