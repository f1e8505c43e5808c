"""Which public keys may let somebody in (H09), and which never (A14)."""

import base64
import struct

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pipeline.spec import public_keys
from pipeline.spec.public_keys import check_public_key, fingerprint

# The private half of this one is printed in Vagrant's repository, for everybody.
VAGRANT = (
    "ssh-rsa AAAAB3NzaC1yc2EAAAABIwAAAQEA6NF8iallvQVp22WDkTkyrtvp9eWW6A8YVr+kz4TjGYe7gHzIw+niNltGEFHzD8+v1I2YJ6oXev"
    "ct1YeS0o9HZyN1Q9qgCgzUFtdOKLv6IedplqoPkcmF0aYet2PkEDo3MlTBckFXPITAMzF8dJSIFo9D8HfdOV0IAdx4O7PtixWKn5y2hMNG0zQP"
    "yUecp4pzC6kivAIhyfHilFR61RGL+GPXQ2MWZWFYbAGjyiYJnAmCP3NOTd0jMZEnDkbUvxhMmBYSdETk1rRgm+R4LOzFUGaHqHDLKLX+FIPKcF"
    "96hrucXzcWyLbIbEgE98OHlnVYCzRdK8jlqm8tehUc9c9WhQ== vagrant insecure public key"
)


def line_of(key: rsa.RSAPublicKey | ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey) -> str:
    return key.public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()


def blob(*parts: bytes) -> str:
    return base64.b64encode(b"".join(struct.pack(">I", len(part)) + part for part in parts)).decode()


# The same in every process: the tests below bear them in their names.
ED25519 = line_of(ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32))).public_key())
ECDSA = line_of(ec.derive_private_key(2**200 + 1, ec.SECP256R1()).public_key())


@pytest.mark.parametrize("line", [ED25519, f"{ED25519} alice@example.com", f"  {ECDSA} with a long name \n"])
def test_good_key_is_taken(line: str) -> None:
    assert check_public_key(line) == line.strip()


def test_hardware_key_is_taken() -> None:
    kind = b"sk-ssh-ed25519@openssh.com"
    point = base64.b64decode(ED25519.split()[1])[-32:]
    check_public_key(f"{kind.decode()} {blob(kind, point, b'ssh:')}")


@pytest.mark.parametrize(("bits", "taken"), [(2048, False), (3072, True)])
def test_rsa_needs_3072_bits(bits: int, taken: bool) -> None:
    line = line_of(rsa.generate_private_key(65537, bits).public_key())
    if taken:
        assert check_public_key(line) == line
    else:
        with pytest.raises(ValueError, match="RSA of 2048 bits is refused, 3072 are the least"):
            check_public_key(line)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("", "must be one public key on one line"),
        (f"{ED25519}\n{ECDSA}", "must be one public key on one line"),
        (f'command="ls" {ED25519}', "options before a key"),
        (f"no-pty,from=1.2.3.4 {ED25519}", "options before a key"),
        (f"ssh-dss {blob(b'ssh-dss', b'x')}", "DSA keys are refused"),
        (f"ssh-ed25519-cert-v01@openssh.com {blob(b'x')}", "is a certificate"),
        (f"ssh-quantum {blob(b'ssh-quantum', b'x')}", "no known key type"),
        ("ssh-ed25519", "has no key after ssh-ed25519"),
        ("ssh-ed25519 ???", "is not base64"),
        (ED25519[:40], "is damaged"),
        (f"ssh-rsa {ED25519.split()[1]}", "does not decode as the key type"),
        ("alice@example.com", "is no public key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key stands here"),
        ("PuTTY-User-Key-File-3: ssh-ed25519", "a private key stands here"),
        (VAGRANT, r"published by Vagrant \(its insecure key\): anybody could log in"),
    ],
)
def test_refused_key_is_explained(line: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_public_key(line)


def test_key_that_the_security_guide_printed_is_known_by_its_fingerprint(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key itself is not shipped: the fingerprint of its public half is, and whatever has it is refused."""
    assert "SHA256:lu4PT99IqcAgQDVSghZ6am3AoOf4Z8pFfJiJ/j3aRw8" in public_keys.PUBLISHED_KEYS
    guide = public_keys.PUBLISHED_KEYS["SHA256:lu4PT99IqcAgQDVSghZ6am3AoOf4Z8pFfJiJ/j3aRw8"]
    monkeypatch.setitem(public_keys.PUBLISHED_KEYS, fingerprint(ED25519), guide)
    with pytest.raises(ValueError, match="EC2 security guide"):
        check_public_key(ED25519)


def test_fingerprint_is_that_of_ssh_keygen() -> None:
    assert fingerprint(VAGRANT) == "SHA256:1M4RzhMyWuFS/86uPY/ce2prh/dVTHW7iD2RhpquOZA"
