"""Ssh keys: those that a build makes, those that an operator brings, and the host keys that a console prints."""

import os
import re
import stat
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import SpecInvalid
from pipeline.guest.step import Secret
from pipeline.spec.public_keys import PUBLISHED_KEYS, check_public_key
from pipeline.spec.public_keys import fingerprint as fingerprint

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.serialization import SSHPrivateKeyTypes

HOST_KEY = re.compile(r"(?:ssh-ed25519|ssh-rsa|ecdsa-sha2-nistp(?:256|384|521)) +[A-Za-z0-9+/]+={0,2}(?![\w+/=])")
BEGIN, END = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"
ESCAPE_SEQUENCE = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\-_])")
SMALLEST_RSA = 2048


@dataclass(frozen=True)
class KeyPair:
    """A key that logs in. The private half prints masked, and is never written to a disk by us."""

    private_openssh: Secret | None = field(repr=False)
    """None where it stays with the operator's ssh agent."""
    public_openssh: str
    """One line, as in authorized_keys."""
    fingerprint: str
    """SHA256:…, as `ssh-keygen -l` prints it."""

    def private_half(self, label: str) -> dict[str, str]:
        """Return the private half under a label; nothing where an agent keeps it."""
        return {label: self.private_openssh.reveal} if self.private_openssh else {}


def make_key_pair(comment: str) -> KeyPair:
    """Return a new ed25519 key pair."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return pair_of(Ed25519PrivateKey.generate(), comment)


def load_key_file(path: Path, ask_passphrase: Callable[[], str] | None = None) -> KeyPair:
    """Return an operator's own key: OpenSSH or PEM; ed25519, ECDSA or RSA. A `.pub` is one that their agent keeps.

    H26: raises SpecInvalid for a file that others may read or that belongs to somebody else, for a key that was
    published (A14), and for one that is no such key. `ask_passphrase` is called for an encrypted key only; without it
    such a key is refused.
    """
    if path.suffix == ".pub":
        return read_public_file(path)
    data = read_private_file(path)
    try:
        key = pair_of(decrypt(path, data, ask_passphrase), path.name)
    except ValueError as error:
        raise refuse(path, "is no private key that we can read, or its passphrase is wrong") from error
    if key.fingerprint in PUBLISHED_KEYS:
        raise refuse(path, f"holds a key that was published by {PUBLISHED_KEYS[key.fingerprint]}: anybody has it")
    return key


def read_public_file(path: Path) -> KeyPair:
    """Return a key whose private half stays with the ssh agent, by its public half. Raises SpecInvalid."""
    try:
        line = check_public_key(path.expanduser().read_text())
    except OSError as error:
        raise refuse(path, f"cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise refuse(path, str(error)) from error
    return KeyPair(None, line, fingerprint(line))


def read_private_file(path: Path) -> bytes:
    """Return the bytes of a private key file. The file that is checked is the one that is read: it is opened once."""
    try:
        with path.expanduser().open("rb") as file:
            about = os.fstat(file.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise refuse(path, "is no file")
            if about.st_uid not in (os.geteuid(), 0):
                raise refuse(path, f"belongs to another user (uid {about.st_uid})")
            if about.st_mode & 0o077:
                mode = stat.S_IMODE(about.st_mode)
                raise refuse(path, f"may be read by others (mode {mode:04o})", f"chmod 600 {path}, or make a new key")
            return file.read(1 << 20)
    except OSError as error:
        raise refuse(path, f"cannot be read: {error.strerror}") from error


def decrypt(path: Path, data: bytes, ask_passphrase: Callable[[], str] | None) -> "SSHPrivateKeyTypes":
    """Return the key of a file. Raises SpecInvalid for a kind that we refuse, ValueError for what is no key."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric.dsa import DSAPrivateKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_ssh_private_key

    load = load_ssh_private_key if b"BEGIN OPENSSH PRIVATE KEY" in data else load_pem_private_key
    try:
        try:
            key = load(data, None)
        except (TypeError, ValueError) as error:
            if "password" not in str(error).lower():
                raise
            if ask_passphrase is None:
                raise refuse(path, "is encrypted, and there is nobody to ask for its passphrase") from error
            key = load(data, ask_passphrase().encode())
    except (TypeError, UnsupportedAlgorithm) as error:
        raise ValueError(str(error)) from error
    if isinstance(key, DSAPrivateKey):
        raise refuse(path, "is a DSA key", "make an ed25519 key: ssh-keygen -t ed25519")
    if isinstance(key, RSAPrivateKey) and key.key_size < SMALLEST_RSA:
        raise refuse(path, f"is an RSA key of {key.key_size} bits", "make an ed25519 key: ssh-keygen -t ed25519")
    return key  # type: ignore[return-value]


def pair_of(key: "SSHPrivateKeyTypes", comment: str) -> KeyPair:
    """Return a key as OpenSSH writes it. Raises ValueError for a key that ssh does not know."""
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return KeyPair(Secret(private, "private key"), f"{public} {comment}".strip(), fingerprint(public))


def refuse(path: Path, reason: str, hint: str | None = None) -> SpecInvalid:
    """Return the error for a key file that is not used."""
    return SpecInvalid(f"the key file {path} {reason}", hint=hint or "name another one in ssh.key_file")


def read_host_keys(console_text: str) -> tuple[str, ...]:
    """Return the host keys that cloud-init printed on the console, as `type base64`; the last complete block counts.

    What is pinned from here replaces trust on first use (H28). A key that the kernel's own messages cut in two is left
    out: only what decodes as a whole key is returned. Nothing is returned until a block is complete.
    """
    text = ESCAPE_SEQUENCE.sub("", console_text).replace("\r", "\n")
    text = "".join(character for character in text if character == "\n" or character.isprintable())
    before, end, _ = text.rpartition(END)
    _, begin, block = before.rpartition(BEGIN)
    if not begin or not end:
        return ()
    found = (" ".join(match.split()) for match in HOST_KEY.findall(block))
    return tuple(dict.fromkeys(key for key in found if is_whole(key)))


def is_whole(public_key: str) -> bool:
    """Return whether a public key decodes to its last byte as the type that it names."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key

    try:
        load_ssh_public_key(public_key.encode())
    except (ValueError, UnsupportedAlgorithm):
        return False
    return True
