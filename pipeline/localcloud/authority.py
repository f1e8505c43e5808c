"""The local cloud's authority: signs instance identity documents as AWS does, with a key and a certificate of its own.

AWS publishes a certificate for each region, against which a guest's document is verified. Here the certificate is a
file in the cloud's home, and `status` prints its path.
"""

import base64
import datetime
import os
import threading
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7
from cryptography.x509.oid import NameOID

VALID_DAYS = 3650


class Authority:
    """A 2048-bit RSA key and its self-signed certificate, made at the first use and kept in the directory."""

    def __init__(self, directory: Path) -> None:
        self.key_path = directory / "instance-identity.key"
        self.certificate_path = directory / "instance-identity.pem"
        self._lock = threading.Lock()
        if not self.key_path.exists() or not self.certificate_path.exists():
            directory.mkdir(parents=True, exist_ok=True)
            make_certificate(self.key_path, self.certificate_path)
        key = serialization.load_pem_private_key(self.key_path.read_bytes(), password=None)
        assert isinstance(key, rsa.RSAPrivateKey)
        self._key = key
        self._certificate = x509.load_pem_x509_certificate(self.certificate_path.read_bytes())

    def sign(self, document: bytes) -> bytes:
        """Return the base64 RSA-SHA256 signature, as `dynamic/instance-identity/signature` has it."""
        signature = self._key.sign(document, padding.PKCS1v15(), hashes.SHA256())
        return wrap_base64(signature)

    def sign_pkcs7(self, document: bytes) -> bytes:
        """Return the document in a signed PKCS #7 message, as `…/rsa2048` has it: base64 without the PEM lines.

        AWS's `…/pkcs7` is signed by a DSA key, which the cryptography package cannot do: here both are RSA.
        """
        builder = (
            pkcs7.PKCS7SignatureBuilder().set_data(document).add_signer(self._certificate, self._key, hashes.SHA256())
        )
        options = [pkcs7.PKCS7Options.Binary, pkcs7.PKCS7Options.NoCapabilities]
        return wrap_base64(builder.sign(serialization.Encoding.DER, options))


def make_certificate(key_path: Path, certificate_path: Path) -> None:
    """Make the key and its certificate; each file appears whole or not at all, and the key is its owner's only."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    name = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATION_NAME, "Assay local cloud"),
            x509.NameAttribute(NameOID.COMMON_NAME, "instance identity"),
        ]
    )
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=VALID_DAYS))
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    write_private(certificate_path, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    write_private(key_path, private, 0o600)


def write_private(path: Path, content: bytes, mode: int) -> None:
    """Write a file through a temporary name with the mode from its first byte on."""
    temporary = path.with_name(path.name + ".new")
    temporary.unlink(missing_ok=True)
    with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    temporary.replace(path)


def wrap_base64(content: bytes) -> bytes:
    """Return base64 in lines of 76 characters, without a newline at the end, as the metadata service answers."""
    return base64.encodebytes(content).rstrip(b"\n")
