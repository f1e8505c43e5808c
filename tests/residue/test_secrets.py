"""Every way in which a secret of the build may lie on a disk is found; none of them prints."""

import base64
import gzip  # noqa: F401
import os

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pipeline.residue.engine import Searcher, scan
from pipeline.residue.secrets import AwsSession, BuildSecret, build_secrets

BLOCK = 8192


def new_key(kind: str):
    if kind == "rsa":
        return rsa.generate_private_key(65537, 2048)
    return ed25519.Ed25519PrivateKey.generate() if kind == "ed25519" else ec.generate_private_key(ec.SECP256R1())


def private(key, form: str = "OpenSSH") -> bytes:
    no_encryption = serialization.NoEncryption()
    return key.private_bytes(serialization.Encoding.PEM, getattr(serialization.PrivateFormat, form), no_encryption)


def public(key) -> str:
    line = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return line.decode() + " a comment"


def found(secrets: tuple[BuildSecret, ...], data: bytes) -> set[str]:
    disk = b"\n" + data + b"\n" * (-(len(data) + 1) % BLOCK)
    blocks = [(start // BLOCK, disk[start : start + BLOCK]) for start in range(0, len(disk), BLOCK)]
    return {match.rule.identity for match in scan(blocks, Searcher(secrets), BLOCK)}


WAYS = {
    "plain": lambda text: text,
    "utf-16-le": lambda text: text.decode().encode("utf-16-le"),
    "utf-16-be": lambda text: text.decode().encode("utf-16-be"),
    "base64": lambda text: base64.b64encode(text),
    "base64 shifted": lambda text: base64.b64encode(b"x" + text),
    "base64 shifted twice": lambda text: base64.b64encode(b"xy" + text),
    "base64 in lines": lambda text: base64.encodebytes(b"some more text before it " + text),
    "url-safe base64": lambda text: base64.urlsafe_b64encode(text),
    "hex": lambda text: text.hex().encode(),
}


@pytest.mark.parametrize("way", WAYS)
def test_a_token_is_found_in_every_encoding(way: str) -> None:
    token = "tok-" + os.urandom(12).hex()
    assert found(build_secrets(tokens={"deploy token": token}), WAYS[way](token.encode())) == {"deploy token"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_public_key_line_is_found_in_every_encoding(kind: str, way: str) -> None:
    line = public(new_key(kind))
    secrets = build_secrets(public_keys={"launch key": line})
    assert found(secrets, WAYS[way](line.encode())) == {"launch key (public key)"}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
def test_a_private_key_file_is_found_in_every_encoding(kind: str, way: str) -> None:
    pem = private(new_key(kind))
    assert found(build_secrets(private_keys={"launch key": pem.decode()}), WAYS[way](pem)) == {"launch key"}


@pytest.mark.parametrize("kind", ["ed25519", "ecdsa", "rsa"])
@pytest.mark.parametrize("form", ["PKCS8", "raw DER"])
def test_a_private_key_is_found_in_other_files_than_its_own(kind: str, form: str) -> None:
    key = new_key(kind)
    pem = private(key, "PKCS8")
    data = pem if form == "PKCS8" else base64.b64decode(b"".join(pem.splitlines()[1:-1]))
    assert found(build_secrets(private_keys={"launch key": private(key).decode()}), data) == {"launch key"}


def test_an_encrypted_private_key_goes_by_the_lines_of_its_file() -> None:
    pem = new_key("ed25519").private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.BestAvailableEncryption(b"pass")
    )
    assert found(build_secrets(private_keys={"own key": pem.decode()}), pem) == {"own key"}


def test_another_key_is_not_taken_for_it() -> None:
    secrets = build_secrets(
        private_keys={"launch key": private(new_key("ed25519")).decode()},
        public_keys={"launch key": public(new_key("rsa"))},
    )
    other = new_key("ed25519")
    assert found(secrets, private(other) + public(other).encode() + public(new_key("rsa")).encode()) == set()


def test_a_file_that_is_no_key_is_refused_without_its_text() -> None:
    with pytest.raises(ValueError, match="cannot be read") as refused:
        build_secrets(private_keys={"launch key": "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----"})
    assert "c2Vj" not in str(refused.value)


def test_fingerprints_of_host_keys_are_found() -> None:
    secrets = build_secrets(host_key_fingerprints=["SHA256:uwhJxqkVBkKEL0Y5fKqgV7bxeLbyK8mEyLAGbz0NDaE"])
    assert found(secrets, b"ED25519 key fingerprint is SHA256:uwhJxqkVBkKEL0Y5fKqgV7bxeLbyK8mEyLAGbz0NDaE.")


def test_the_fingerprint_of_a_public_key_is_found_in_a_log() -> None:
    import hashlib

    line = public(new_key("ed25519"))
    print_ = base64.b64encode(hashlib.sha256(base64.b64decode(line.split()[1])).digest()).rstrip(b"=")
    assert found(build_secrets(public_keys={"key": line}), b"Accepted publickey for admin: ED25519 SHA256:" + print_)


def test_user_data_is_found_whole_and_by_its_distinctive_words_only() -> None:
    user_data = "#cloud-config\ndisable_root: true\nwrite_files:\n- content: enrol-9fK2xQ7zL4mN8pR1\n"
    secrets = build_secrets(user_data=user_data)
    assert found(secrets, user_data.encode())
    assert found(secrets, b"elsewhere: enrol-9fK2xQ7zL4mN8pR1")
    assert not found(secrets, b"#cloud-config\ndisable_root: true\nother: 1\n")


def test_the_operators_session_is_found_by_each_of_its_parts() -> None:
    session = AwsSession(
        "ASIA" + "Q3EGXAMPLE234567", "x9" + os.urandom(19).hex(), base64.b64encode(os.urandom(600)).decode()
    )
    secrets = build_secrets(aws_sessions=[session])
    for part in (session.access_key_id, session.secret_access_key, session.session_token):
        assert len(found(secrets, f"export X={part}".encode())) == 1


def test_a_machine_id_is_found_as_text_and_as_bytes() -> None:
    secrets = build_secrets(identities={"machine id": "0123456789abcdef0123456789abcdef"})
    assert found(secrets, b"/var/log/journal/0123456789abcdef0123456789abcdef/system.journal")
    assert found(secrets, bytes.fromhex("0123456789abcdef0123456789abcdef"))


def test_a_secret_too_short_to_search_for_says_so() -> None:
    (secret,) = build_secrets(passwords={"test password": "test"})
    assert secret.unsearchable
    assert secret.triggers() == ()


def test_no_secret_prints() -> None:
    token = "tok-" + os.urandom(12).hex()
    session = AwsSession("ASIAQ3EGQ3EGQ3EGQ3EG", "s" * 40, "t" * 400)
    text = repr(build_secrets(tokens={"token": token}, aws_sessions=[session])) + repr(session)
    assert token not in text
    assert "ssss" not in text
    assert "tttt" not in text
