"""Temporary key pairs. Only the public half is sent: the private half never leaves the process that made it (A14)."""

from dataclasses import dataclass

from pipeline.aws.creation import find_or_create
from pipeline.aws.session import Session, cloud_errors, dry_run, error_code
from pipeline.aws.tags import NAME, Tags, is_resource_name, read_tags
from pipeline.errors import CloudFailed

MISSING = frozenset({"InvalidKeyPair.NotFound"})


@dataclass(frozen=True)
class KeyPair:
    """A key pair as the cloud knows it."""

    key_pair_id: str
    name: str
    fingerprint: str
    tags: dict[str, str]


def import_key_pair(session: Session, tags: Tags, name: str, public_openssh: str) -> str:
    """Import the public half of a key under a name of the build; return the name, by which instances refer to it.

    Raises CloudFailed, also when the name exists although no answer to us was lost.
    """

    def create() -> str:
        with cloud_errors(name, session.region):
            made = session.client("ec2").import_key_pair(
                KeyName=name,
                PublicKeyMaterial=public_openssh.encode(),
                TagSpecifications=tags.specification(name, "key-pair"),
            )
        return made["KeyName"]

    def look_up() -> list[str]:
        return [pair.name for pair in find_key_pairs(session, name) if pair.tags.get(NAME) == name]

    return find_or_create(look_up, create, what=name, region=session.region, taken_codes={"InvalidKeyPair.Duplicate"})


def may_import_key_pair(session: Session, tags: Tags, name: str, public_openssh: str) -> None:
    """Ask whether a key pair could be imported, with DryRun: nothing is made (A20). Raises CloudFailed if not."""
    with dry_run(name, session.region):
        session.client("ec2").import_key_pair(
            DryRun=True,
            KeyName=name,
            PublicKeyMaterial=public_openssh.encode(),
            TagSpecifications=tags.specification(name, "key-pair"),
        )


def find_key_pairs(session: Session, name: str) -> tuple[KeyPair, ...]:
    """Return the key pair with this name, or none."""
    with cloud_errors(name, session.region):
        found = session.client("ec2").describe_key_pairs(Filters=[{"Name": "key-name", "Values": [name]}])
    return tuple(
        KeyPair(
            key_pair_id=pair.get("KeyPairId", ""),
            name=pair.get("KeyName", ""),
            fingerprint=pair.get("KeyFingerprint", ""),
            tags=read_tags(pair.get("Tags")),
        )
        for pair in found["KeyPairs"]
    )


def delete_key_pair(session: Session, identity: str) -> None:
    """Delete a key pair by its name or its id; one that is gone is as good. Raises CloudFailed."""
    try:
        with cloud_errors(identity, session.region):
            if identity.startswith("key-") and not is_resource_name(identity):
                session.client("ec2").delete_key_pair(KeyPairId=identity)
            else:
                session.client("ec2").delete_key_pair(KeyName=identity)
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
