"""Public ssh keys: which may let somebody in, and why the others may not (H09, A14)."""

import base64
import binascii
import hashlib
import re

from pipeline.spec.yaml_source import PRIVATE_KEY, PRIVATE_KEY_PROBLEM

SMALLEST_RSA = 3072

KEY_TYPES = (
    "ssh-ed25519",
    "sk-ssh-ed25519@openssh.com",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ecdsa-sha2-nistp256@openssh.com",
    "ssh-rsa",
)

PUBLISHED_KEYS = {
    "SHA256:lu4PT99IqcAgQDVSghZ6am3AoOf4Z8pFfJiJ/j3aRw8": "an EC2 security guide (ec2-keypair1)",
    "SHA256:1M4RzhMyWuFS/86uPY/ce2prh/dVTHW7iD2RhpquOZA": "Vagrant (its insecure key)",
}
"""Keys whose private half anybody can read, by the fingerprint of the public half, and where they were printed."""

_TYPE = re.compile(r"(?:ssh-|ecdsa-|sk-)\S+")


def fingerprint(public_key: str) -> str:
    """Return the SHA256 fingerprint of a public key, as `ssh-keygen -l` does. Raises ValueError for what is no key."""
    blob = _decode(public_key.split()[1])
    digest = base64.b64encode(hashlib.sha256(blob).digest()).decode().rstrip("=")
    return f"SHA256:{digest}"


def check_public_key(text: str) -> str:
    """Return a line of authorized_keys, stripped. Raises ValueError with the reason why it is refused.

    Refused are private keys, options, DSA, RSA below 3072 bits, unknown types, damaged keys, and keys whose private
    half was published (H09, A14).
    """
    line = text.strip()
    if PRIVATE_KEY.search(line):
        raise ValueError(PRIVATE_KEY_PROBLEM)
    if len(line.splitlines()) != 1:
        raise ValueError("must be one public key on one line, as in a .pub file")
    words = line.split()
    if not _TYPE.fullmatch(words[0]):
        _refuse_first_word(words)
    _check_type(words[0])
    if len(words) < 2:
        raise ValueError(f"has no key after {words[0]}: give the whole line of the .pub file")
    where = PUBLISHED_KEYS.get(fingerprint(line))
    if where:
        raise ValueError(f"the private half of this key was published by {where}: anybody could log in (A14)")
    _check_strength(words)
    return line


def _refuse_first_word(words: list[str]) -> None:
    if any(_TYPE.fullmatch(word) for word in words[1:]):
        raise ValueError(
            "options before a key (command=…, from=…) are not taken: checks compare keys, and would miss them; "
            "give the key alone"
        )
    raise ValueError("is no public key: it begins with its type, for example `ssh-ed25519 AAAA… name`")


def _check_type(key_type: str) -> None:
    if "-cert-v0" in key_type:
        raise ValueError("is a certificate: give the public key itself")
    if key_type.startswith("ssh-dss"):
        raise ValueError("DSA keys are refused (H09): make an ed25519 key with `ssh-keygen -t ed25519`")
    if key_type not in KEY_TYPES:
        raise ValueError(f"{key_type[:40]} is no known key type: one of {', '.join(KEY_TYPES)}")


def _check_strength(words: list[str]) -> None:
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        key = load_ssh_public_key(" ".join(words[:2]).encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("is damaged: it does not decode as the key type that it names; copy it again") from error
    if isinstance(key, RSAPublicKey) and key.key_size < SMALLEST_RSA:
        raise ValueError(
            f"RSA of {key.key_size} bits is refused, {SMALLEST_RSA} are the least (H09): "
            "better make an ed25519 key with `ssh-keygen -t ed25519`"
        )


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise ValueError("is damaged: its second word is not base64; copy it again") from error
