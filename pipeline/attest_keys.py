"""The keys that statements are signed with: a local ed25519 key, or one that never leaves KMS."""

import hashlib
import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from securesystemslib.signer import (  # type: ignore[attr-defined]  # it does not say what it exports
    CryptoSigner,
    Key,
    SecretsHandler,
    Signature,
    Signer,
    SSlibKey,
)

from pipeline.aws.session import cloud_errors
from pipeline.errors import AttestationFailed, CloudFailed, CredentialsRefused, FileUnwritable, SpecInvalid
from pipeline.files import write_atomically
from pipeline.guest.keys import read_private_file

if TYPE_CHECKING:
    from pipeline.aws.session import Session
    from pipeline.spec import Attest

PATH_VARIABLE = "ASSAY_SIGNING_KEY"
Algorithm = Literal["ECDSA_SHA_256", "ECDSA_SHA_384", "RSASSA_PSS_SHA_256"]
KMS_ALGORITHMS: dict[str, Algorithm] = {
    "ecdsa-sha2-nistp256": "ECDSA_SHA_256",
    "ecdsa-sha2-nistp384": "ECDSA_SHA_384",
    "rsassa-pss-sha256": "RSASSA_PSS_SHA_256",
}
"""What KMS calls the schemes that the envelopes name."""


def open_signer(options: "Attest", open_session: "Callable[[], Session]") -> Signer:
    """Return what signs: the KMS key of the spec, its key file, the one in ASSAY_SIGNING_KEY, or the user's own.

    A local key that is not there yet is made. Raises SpecInvalid for a key that cannot be used or that others may
    read, AttestationFailed when KMS does not answer, FileUnwritable.
    """
    if options.kms_key_id:
        return KmsSigner(open_session(), options.kms_key_id)
    return open_local_signer(local_key_path(options.key_file))


def local_key_path(key_file: str | None = None) -> Path:
    """Return where the local key is: as the spec says, else the environment, else in the user's configuration."""
    named = key_file or os.environ.get(PATH_VARIABLE)
    if named:
        return Path(named).expanduser()
    configuration = os.environ.get("XDG_CONFIG_HOME") or "~/.config"
    return Path(configuration).expanduser() / "assay" / "signing-key.pem"


def open_local_signer(path: Path) -> CryptoSigner:
    """Return the local ed25519 key, made on first use; its public half lies beside it, as PATH.pub."""
    if not path.exists():
        make_local_key(path)
    data = read_private_file(path)
    try:
        key = load_pem_private_key(data, None)
        if not isinstance(key, Ed25519PrivateKey):
            raise ValueError("it is no ed25519 key")
    except (ValueError, TypeError) as error:  # TypeError: it is encrypted
        raise SpecInvalid(
            f"{path} is no key that statements can be signed with: an ed25519 key, PKCS8 in PEM, not encrypted",
            hint=f"name another one in attest.key_file or {PATH_VARIABLE}; one that is not there is made",
        ) from error
    signer = CryptoSigner(key)
    if not public_path(path).exists():
        write_atomically(public_path(path), public_pem(signer.public_key))
    return signer


def make_local_key(path: Path) -> None:
    """Make an ed25519 key that only its owner may read. Of two that do so at once, the first wins."""
    signer = CryptoSigner.generate_ed25519()
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=stat.S_IRWXU)
        new = path.with_name(f"{path.name}.{os.getpid()}")
        with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR), "wb") as file:
            file.write(signer.private_bytes)
            file.flush()
            os.fsync(file.fileno())
        try:
            with suppress(FileExistsError):
                os.link(new, path)
        finally:
            new.unlink()
    except OSError as error:
        raise FileUnwritable(f"the signing key cannot be written: {error.strerror}", resource=str(path)) from error


def public_path(path: Path) -> Path:
    """Return where the public half of a local key lies."""
    return path.with_name(path.name + ".pub")


def public_pem(key: SSlibKey) -> bytes:
    """Return a public key as PEM, as `--key` takes it."""
    public: Any = key._crypto_key()  # the library has no public way to it
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def read_public_key(path: Path) -> SSlibKey:
    """Return the public key that a file holds as PEM. Raises SpecInvalid when there is none."""
    try:
        return SSlibKey.from_crypto(load_pem_public_key(path.read_bytes()))
    except OSError as error:
        raise SpecInvalid(
            f"the public key {path} cannot be read: {error.strerror}", hint="name the signer's with --key=FILE"
        ) from error
    except ValueError as error:
        raise SpecInvalid(
            f"{path} holds no public key that we know", hint="PEM: ed25519, ECDSA or RSA (SubjectPublicKeyInfo)"
        ) from error


class KmsSigner(Signer):
    """A key of KMS, asymmetric, for SIGN_VERIFY: only digests go there, and the key never leaves it."""

    def __init__(self, session: "Session", key_id: str) -> None:
        """Ask for the public half. Raises SpecInvalid for a key that cannot sign, AttestationFailed."""
        self._session = session
        self._key_id = key_id
        answer = self._ask(lambda client: client.get_public_key(KeyId=key_id))
        try:
            self._key = SSlibKey.from_crypto(load_der_public_key(answer["PublicKey"]))
            self._algorithm = KMS_ALGORITHMS[self._key.scheme]
        except (KeyError, ValueError) as error:
            raise SpecInvalid(
                f"the KMS key {key_id} cannot sign statements", hint="make one of ECC_NIST_P256, for SIGN_VERIFY"
            ) from error

    @property
    def public_key(self) -> SSlibKey:
        """The public half."""
        return self._key

    def sign(self, payload: bytes) -> Signature:
        """Return the signature that KMS makes over the digest of the payload. Raises AttestationFailed."""
        digest = hashlib.new(self._key.get_hash_algorithm_name(), payload).digest()
        answer = self._ask(
            lambda client: client.sign(
                KeyId=self._key_id, Message=digest, MessageType="DIGEST", SigningAlgorithm=self._algorithm
            )
        )
        return Signature(self._key.keyid, answer["Signature"].hex())

    @classmethod
    def from_priv_key_uri(
        cls, priv_key_uri: str, public_key: Key, secrets_handler: SecretsHandler | None = None
    ) -> "KmsSigner":
        """Nothing of ours names keys by such addresses."""
        raise NotImplementedError

    def _ask(self, call: Callable[[Any], Any]) -> Any:  # noqa: ANN401
        try:
            with cloud_errors(self._key_id, self._session.region):
                return call(self._session.client("kms"))
        except (CloudFailed, CredentialsRefused) as error:
            raise AttestationFailed(
                f"KMS does not sign: {error.message}", resource=self._key_id, region=self._session.region
            ) from error
