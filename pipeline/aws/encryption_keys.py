"""The customer key of encrypted images: is it usable, and who else may use it."""

import json
from dataclasses import dataclass

from pipeline.aws.key_policy import KeyGrant
from pipeline.aws.session import Session, cloud_errors


@dataclass(frozen=True)
class EncryptionKey:
    """A key of KMS, as far as images need it."""

    key_id: str
    state: str
    usage: str
    manager: str
    """`CUSTOMER`, or `AWS` for a default key, which cannot be shared."""
    policy: str
    """The text of its policy: whom it names."""
    grants: tuple[KeyGrant, ...] = ()


def read_encryption_key(session: Session, key_id: str) -> EncryptionKey:
    """Return a key by its id, ARN or alias. Raises CloudFailed when there is none, or the caller may not see it."""
    kms = session.client("kms")
    with cloud_errors(key_id, session.region):
        found = kms.describe_key(KeyId=key_id)["KeyMetadata"]
        policy = kms.get_key_policy(KeyId=found["KeyId"], PolicyName="default")["Policy"]
        pages = kms.get_paginator("list_grants").paginate(KeyId=found["KeyId"])
        grants = [grant for page in pages for grant in page["Grants"]]
    return EncryptionKey(
        key_id=found["KeyId"],
        state=found.get("KeyState", ""),
        usage=found.get("KeyUsage", ""),
        manager=found.get("KeyManager", ""),
        policy=json.dumps(json.loads(policy)),
        grants=tuple(KeyGrant(one.get("GranteePrincipal", ""), tuple(one.get("Operations", ()))) for one in grants),
    )
