"""Keys that sign: a local one that only its owner may read, or one of KMS."""

import hashlib
import stat
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.stub import Stubber
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from securesystemslib.dsse import Envelope
from securesystemslib.signer import CryptoSigner, SSlibKey  # type: ignore[attr-defined]

from pipeline.attest_keys import (
    KmsSigner,
    local_key_path,
    open_local_signer,
    open_signer,
    public_path,
    read_public_key,
)
from pipeline.aws.session import Session
from pipeline.errors import AttestationFailed, FileUnwritable, SpecInvalid
from pipeline.spec import Attest

KEY_ID = "alias/assay"


def no_session() -> Session:
    raise AssertionError("a local key needs no cloud")


def test_local_key_is_made_once_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "signing-key.pem"
    first, second = open_local_signer(path), open_local_signer(path)
    assert first.public_key == second.public_key == read_public_key(public_path(path))
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert {entry.name for entry in path.parent.iterdir()} == {"signing-key.pem", "signing-key.pem.pub"}


def test_public_half_that_was_lost_is_written_again(tmp_path: Path) -> None:
    path = tmp_path / "key"
    signer = open_local_signer(path)
    public_path(path).unlink()
    assert open_local_signer(path).public_key == signer.public_key
    assert read_public_key(public_path(path)) == signer.public_key


def test_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "key"
    open_local_signer(path)
    path.chmod(0o640)
    with pytest.raises(SpecInvalid, match="may be read by others"):
        open_local_signer(path)


def write_key(path: Path, key: Any, encryption: Any = None) -> None:
    path.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption()))
    path.chmod(0o600)


@pytest.mark.parametrize(
    "write",
    [
        lambda path: (path.write_text("no key"), path.chmod(0o600)),
        lambda path: write_key(path, ec.generate_private_key(ec.SECP256R1())),
        lambda path: write_key(path, Ed25519PrivateKey.generate(), BestAvailableEncryption(b"x")),
    ],
    ids=["no key", "another kind", "encrypted"],
)
def test_key_that_is_no_plain_ed25519_is_refused(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "key")
    with pytest.raises(SpecInvalid, match="no key that statements can be signed with"):
        open_local_signer(tmp_path / "key")


def test_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileUnwritable, match="signing key"):
        open_local_signer(tmp_path / "file" / "key")


def test_spec_wins_over_environment_over_the_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASSAY_SIGNING_KEY", str(tmp_path / "by-environment"))
    assert local_key_path("/by/spec") == Path("/by/spec")
    assert local_key_path() == tmp_path / "by-environment"
    monkeypatch.delenv("ASSAY_SIGNING_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    assert local_key_path() == tmp_path / "assay" / "signing-key.pem"
    open_signer(Attest(key_file=str(tmp_path / "by-spec")), no_session)
    assert (tmp_path / "by-spec").exists()


def test_public_key_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="cannot be read"):
        read_public_key(tmp_path / "none")
    (tmp_path / "bad").write_text("x")
    with pytest.raises(SpecInvalid, match="no public key"):
        read_public_key(tmp_path / "bad")


@pytest.fixture
def session() -> Session:
    source = boto3.Session(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="s", region_name="eu-central-1")
    return Session(source, "eu-central-1")


def der(key: Any) -> bytes:
    encoded: bytes = key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return encoded


@pytest.mark.parametrize(
    ("key", "algorithm"),
    [
        (ec.generate_private_key(ec.SECP256R1()), "ECDSA_SHA_256"),
        (ec.generate_private_key(ec.SECP384R1()), "ECDSA_SHA_384"),
        (rsa.generate_private_key(65537, 2048), "RSASSA_PSS_SHA_256"),
    ],
    ids=["p256", "p384", "rsa"],
)
def test_kms_gets_a_digest_and_its_signature_is_good(session: Session, key: Any, algorithm: str) -> None:
    envelope = Envelope(b"{}", "application/vnd.in-toto+json", {})
    local = CryptoSigner(key)
    signature = bytes.fromhex(local.sign(envelope.pae()).signature)
    digest = {"ECDSA_SHA_384": "sha384"}.get(algorithm, "sha256")
    asked = {
        "KeyId": KEY_ID,
        "Message": hashlib.new(digest, envelope.pae()).digest(),
        "MessageType": "DIGEST",
        "SigningAlgorithm": algorithm,
    }
    with Stubber(session.client("kms")) as stub:
        stub.add_response("get_public_key", {"PublicKey": der(key)}, {"KeyId": KEY_ID})
        stub.add_response("sign", {"Signature": signature}, asked)
        envelope.sign(open_signer(Attest(kms_key_id=KEY_ID), lambda: session))
        stub.assert_no_pending_responses()
    assert envelope.verify([SSlibKey.from_crypto(key.public_key())], 1)


def test_kms_that_refuses_is_said_with_the_key(session: Session) -> None:
    with Stubber(session.client("kms")) as stub:
        stub.add_client_error("get_public_key", "NotFoundException", "Alias is not found")
        with pytest.raises(AttestationFailed, match="alias/assay"):
            KmsSigner(session, KEY_ID)


def test_kms_key_that_cannot_sign_is_refused(session: Session) -> None:
    with Stubber(session.client("kms")) as stub:
        stub.add_response("get_public_key", {"PublicKey": der(ec.generate_private_key(ec.SECP521R1()))})
        with pytest.raises(SpecInvalid, match="cannot sign"):
            KmsSigner(session, KEY_ID)
