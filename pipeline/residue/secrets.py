"""What this build used and must not leave behind (R03): as rules for the engine. Their values never print."""

import base64
import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from pipeline.residue.encodings import BASE64_SHIFTS, Encoding, Form, base64_text, hex_forms, literal_form, utf16_form
from pipeline.residue.rules import Sighting, Trigger, fingerprint_of

SHORTEST = 8
"""A secret of fewer bytes cannot be told from chance on a disk of gigabytes."""

PIECE = 48
"""A longer secret is searched in pieces of so many bytes: what is left of it may have been cut, or wrapped."""


@dataclass(frozen=True)
class BuildSecret:
    """One thing that this build used. It has no triggers when it is too short to search for: `unsearchable` says so."""

    identity: str
    control: str
    kind: str
    fingerprint: str
    forms: tuple[Trigger, ...] = field(repr=False)

    reach = (0, 0)

    @property
    def controls(self) -> tuple[str, ...]:
        """The control that it violates, and that of the search for a build's own secrets."""
        return (self.control, "R03")

    @property
    def unsearchable(self) -> str:
        """Why it is not searched for, or nothing."""
        return "" if self.forms else f"shorter than {SHORTEST} bytes: not to be told from chance"

    def triggers(self) -> tuple[Trigger, ...]:
        """Return every form that it may have on a disk."""
        return self.forms

    def examine(self, window: bytes, place: int, trigger: Trigger) -> Sighting:
        """Return the sighting: a form of a secret is the secret, there is nothing to decide."""
        return Sighting(self.fingerprint)


@dataclass(frozen=True)
class AwsSession:
    """The operator's credentials for the cloud, which no image may hold (S06)."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str | None = field(default=None, repr=False)


def build_secrets(
    *,
    public_keys: Mapping[str, str] | None = None,
    private_keys: Mapping[str, str] | None = None,
    host_public_keys: Iterable[str] = (),
    host_key_fingerprints: Iterable[str] = (),
    user_data: str | bytes | None = None,
    passwords: Mapping[str, str] | None = None,
    tokens: Mapping[str, str] | None = None,
    aws_sessions: Iterable[AwsSession] = (),
    identities: Mapping[str, str] | None = None,
) -> tuple[BuildSecret, ...]:
    """Return what a build must not leave on any block, as rules (R03).

    Mappings go from a label, which reports may show, to the value. `public_keys` are lines as in authorized_keys,
    `private_keys` are PEM, `host_public_keys` are lines as ssh-keyscan or a console prints them, fingerprints are
    `SHA256:…`, `identities` are machine id, instance id and the like of the build guest. Raises ValueError, without
    the value, for a key that cannot be read.
    """
    secrets: list[BuildSecret] = []
    for label, line in (public_keys or {}).items():
        secrets.append(public_key_secret(f"{label} (public key)", "S02", line))
    for label, pem in (private_keys or {}).items():
        secrets.append(private_key_secret(label, pem))
    for line in host_public_keys:
        secrets.append(public_key_secret(f"host key {key_type(line)} of the build guest", "S01", line))
    for fingerprint in host_key_fingerprints:
        secrets.append(fingerprint_secret(fingerprint))
    if user_data:
        secrets.append(user_data_secret(user_data.encode() if isinstance(user_data, str) else user_data))
    for label, value in (passwords or {}).items():
        secrets.append(text_secret(label, "H14", "password of this build", value))
    for label, value in (tokens or {}).items():
        secrets.append(text_secret(label, "S07", "token of this build", value))
    for session in aws_sessions:
        secrets.extend(session_secrets(session))
    for label, value in (identities or {}).items():
        secrets.append(identity_secret(label, value))
    return tuple(secrets)


def text_secret(identity: str, control: str, kind: str, text: str) -> BuildSecret:
    """Return the rule for a text: plain, UTF-16, base64 and hex."""
    value = text.encode()
    return secret_of(identity, control, kind, value, text_triggers(value))


def public_key_secret(identity: str, control: str, line: str) -> BuildSecret:
    """Return the rule for a public key: its line, its bytes, and its fingerprints."""
    blob = key_blob(line)
    raw = distinctive_part(blob)
    text = base64.b64encode(blob).rstrip(b"=")
    sha256 = base64.b64encode(hashlib.sha256(blob).digest()).rstrip(b"=")
    md5 = hashlib.md5(blob, usedforsecurity=False).hexdigest()
    triggers = (
        *binary_triggers(raw),
        *text_triggers(text[-40:]),
        *text_triggers(sha256),
        *text_triggers(":".join(re.findall("..", md5)).encode()),
    )
    return secret_of(identity, control, "public key of this build", blob, triggers)


def private_key_secret(identity: str, pem: str) -> BuildSecret:
    """Return the rule for a private key: its secret numbers in every encoding, and the lines of its file.

    An encrypted key goes by the lines of its file alone.
    """
    numbers = secret_numbers(identity, pem)
    body = [line.strip() for line in pem.splitlines() if line.strip() and not line.startswith("-----")]
    own_lines = [line.encode() for line in body[2:] if len(line) >= 16]
    triggers = (
        *(trigger for number in numbers for trigger in binary_triggers(number)),
        *(trigger for line in own_lines for trigger in text_triggers(line)),
    )
    return secret_of(identity, "S03", "private key of this build", b"".join(numbers) or pem.encode(), triggers)


def secret_numbers(identity: str, pem: str) -> tuple[bytes, ...]:
    """Return what makes a private key secret: the seed, the scalar, or the primes, as they lie in its file.

    Nothing for an encrypted key. Raises ValueError, without the key, for what is no key.
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

    load = serialization.load_ssh_private_key if "OPENSSH" in pem else serialization.load_pem_private_key
    try:
        key = load(pem.encode(), None)
    except TypeError:
        return ()
    except (ValueError, UnsupportedAlgorithm) as problem:
        raise ValueError(f"the private key {identity!r} cannot be read: {type(problem).__name__}") from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return (key.private_bytes_raw(),)
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return (key.private_numbers().private_value.to_bytes((key.curve.key_size + 7) // 8, "big"),)
    if isinstance(key, rsa.RSAPrivateKey):
        numbers = key.private_numbers()
        return tuple(number.to_bytes((number.bit_length() + 7) // 8, "big") for number in (numbers.p, numbers.q))
    raise ValueError(f"a key of type {type(key).__name__} is not known here")


def fingerprint_secret(fingerprint: str) -> BuildSecret:
    """Return the rule for a host key's fingerprint, given as `SHA256:…`."""
    text = fingerprint.split(":", 1)[-1].rstrip("=")
    return text_secret(
        f"fingerprint {text[:6]}… of the build guest's host key", "S01", "host key fingerprint of this build", text
    )


def user_data_secret(user_data: bytes) -> BuildSecret:
    """Return the rule for user-data: its beginning and its end, and each line that nothing else would have."""
    texts = [user_data] if len(user_data) <= 4 * PIECE else [user_data[: 4 * PIECE], user_data[-4 * PIECE :]]
    triggers = [Trigger(literal_form(text), Encoding.PLAIN) for text in texts if len(text) >= SHORTEST]
    for line in user_data.splitlines():
        for word in re.findall(rb"[^\s\"':,=]{12,}", line):
            if is_distinctive(word):
                triggers += text_triggers(word)
    return secret_of("user-data", "S11", "user-data of this build", user_data, triggers)


def is_distinctive(word: bytes) -> bool:
    """Say whether a word is one that chance or a template would not have: long, with letters and digits in turn."""
    changes = re.findall(rb"[a-z][0-9]|[0-9][a-z]|[a-z][A-Z]|[A-Z][a-z0-9]", word)
    return len(word) >= 16 and len(changes) >= 4 and len(set(word)) >= 8


def session_secrets(session: AwsSession) -> tuple[BuildSecret, ...]:
    """Return the rules for an AWS session: key id, secret and token each."""
    kind = "AWS credential of this build"
    secrets = [
        text_secret("operator's access key id", "S06", kind, session.access_key_id),
        text_secret("operator's secret access key", "S06", kind, session.secret_access_key),
    ]
    if session.session_token:
        token = session.session_token.encode()
        middle = token[len(token) // 3 :]
        pieces = [middle[:PIECE], token[-PIECE:]] if len(token) > 3 * PIECE else [token]
        triggers = [trigger for piece in pieces for trigger in text_triggers(piece)]
        secrets.append(secret_of("operator's session token", "S06", kind, token, triggers))
    return tuple(secrets)


def identity_secret(label: str, value: str) -> BuildSecret:
    """Return the rule for a machine id, instance id, MAC address …; 32 hex digits are also searched as 16 bytes."""
    text = value.encode()
    triggers = text_triggers(text)
    if re.fullmatch(r"[0-9a-f]{32}", value):
        triggers += (Trigger(literal_form(bytes.fromhex(value)), Encoding.HEX),)
    return secret_of(label, "S12", "identity of the build guest", text, triggers)


def secret_of(identity: str, control: str, kind: str, value: bytes, triggers: Iterable[Trigger]) -> BuildSecret:
    """Return the rule for a secret; without triggers when it is too short. Forms are searched once each."""
    forms = {trigger.form: trigger for trigger in triggers if len(trigger.form) >= SHORTEST}
    known = tuple(forms.values()) if len(value) >= SHORTEST else ()
    return BuildSecret(identity, control, kind, fingerprint_of(value), known)


def text_triggers(text: bytes) -> tuple[Trigger, ...]:
    """Return the forms of a text: plain, UTF-16, base64 at three shifts, hex. A long text goes by its pieces."""
    return tuple(trigger for piece in pieces(text) for trigger in (*wide_triggers(piece), *coded_triggers(piece)))


def binary_triggers(value: bytes) -> tuple[Trigger, ...]:
    """Return the forms of bytes that are no text: as they are, base64 as text and as UTF-16, hex."""
    return (
        *(Trigger(literal_form(piece), Encoding.PLAIN) for piece in pieces(value)),
        *(trigger for piece in pieces(value) for trigger in coded_triggers(piece)),
    )


def wide_triggers(text: bytes) -> tuple[Trigger, ...]:
    """Return a text as it is and in UTF-16."""
    form = literal_form(text)
    return (Trigger(form, Encoding.PLAIN), Trigger(utf16_form(form), Encoding.UTF16))


def coded_triggers(value: bytes) -> list[Trigger]:
    """Return a value in base64 and hex. PEM and MIME wrap base64: each half of it is enough."""
    triggers = [Trigger(form, Encoding.HEX) for form in hex_forms(value)]
    for encoding, shift in BASE64_SHIFTS.items():
        for half in halves(base64_text(value, shift)):
            triggers.append(Trigger(url_safe_form(half), encoding))
    return triggers


def url_safe_form(digits: bytes) -> Form:
    """Return base64 digits as a form that has both alphabets."""
    return tuple(b"+-" if digit in b"+-" else b"/_" if digit in b"/_" else digit for digit in literal_form(digits))


def halves(digits: bytes) -> tuple[bytes, ...]:
    """Return base64 digits in two halves, or whole where a half would be too short to mean anything."""
    middle = len(digits) // 2
    return (digits[:middle], digits[middle:]) if middle >= 16 else (digits,)


def pieces(value: bytes) -> tuple[bytes, ...]:
    """Return a long value as its first, middle and last piece, a short one as it is."""
    if len(value) <= 2 * PIECE:
        return (value,)
    middle = (len(value) - PIECE) // 2
    return (value[:PIECE], value[middle : middle + PIECE], value[-PIECE:])


def key_type(line: str) -> str:
    """Return the type of a public key line, without its `ssh-`."""
    return next((word.removeprefix("ssh-") for word in line.split() if word.startswith(("ssh-", "ecdsa-", "sk-"))), "?")


def key_blob(line: str) -> bytes:
    """Return the key of a public key line, of a known_hosts line, or of bare base64. Raises ValueError."""
    found = re.search(r"\bAAAA[A-Za-z0-9+/]{16,}={0,2}", line)
    if not found:
        raise ValueError("a public key line has no key in it")
    return base64.b64decode(found[0] + "=" * (-len(found[0].rstrip("=")) % 4), validate=False)


def distinctive_part(blob: bytes) -> bytes:
    """Return the bytes of a public key that no other key has: its last field, for RSA from its middle."""
    position, last = 0, blob
    while position + 4 <= len(blob):
        length = int.from_bytes(blob[position : position + 4], "big")
        last = blob[position + 4 : position + 4 + length]
        position += 4 + length
    return last if len(last) <= 80 else last[32:96]
