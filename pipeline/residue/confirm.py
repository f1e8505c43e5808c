"""Telling a secret from what looks like one: checksums, structure, entropy, and the examples that manuals print.

Each function takes the match of a pattern and returns the bytes that are secret, or None when it is not one. Pure.
"""

import base64
import binascii
import json
import math
import re
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import pairwise

Match = re.Match[bytes]
Confirm = Callable[[Match], bytes | None]

BASE62 = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
PLACEHOLDER = re.compile(
    rb"(?i)example|sample|dummy|placeholder|changeme|your[-_]?|xxxx|\*\*\*|<[a-z]|\$\{|\$\(|%\(|\{\{|12345678|abcdefgh|foobar|redacted"
)
LONGEST_TOKEN = 200
"""In what is longer, a key's body for example, chance itself writes `your` or `xxxx` now and then."""
DOCUMENTED = (
    b"wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
    b"je7MtGbClwBF/2Zp9Utk/h3yCo8nvbEXAMPLEKEY",
    b"i-1234567890abcdef0",
    b"i-0123456789abcdef0",
    b"i-0abcdef1234567890",
    b"i-0598c7d356eba48d7",
)
"""What the manuals of the clouds print."""


def secret_part(match: Match) -> bytes:
    """Return the group `secret` of a match, or all of it when the pattern has no such group."""
    return match["secret"] if "secret" in match.re.groupindex else match[0]


def entropy(text: bytes) -> float:
    """Return the entropy of a text in bits per byte."""
    total = len(text)
    return -sum(count / total * math.log2(count / total) for count in Counter(text).values()) if total else 0.0


def always(match: Match) -> bytes | None:
    """Accept what the expression matched: it says enough by itself."""
    return secret_part(match)


def random_looking(match: Match) -> bytes | None:
    """Accept what is as mixed as a random token of its length, and no placeholder."""
    secret = secret_part(match)
    return secret if is_random(secret) else None


def is_random(secret: bytes) -> bool:
    """Say whether a token is as mixed as chance would make it."""
    symbols = 16 if re.fullmatch(rb"[0-9a-fA-F-]+", secret) else 62
    expected = math.log2(min(len(secret), symbols))
    if secret in DOCUMENTED or entropy(secret) < 0.72 * expected or is_sequence(secret):
        return False
    return len(secret) > LONGEST_TOKEN or not (PLACEHOLDER.search(secret) or longest_run(secret) > 4)


def identifier(match: Match) -> bytes | None:
    """Accept a short identifier that chance made: too short for its entropy to say much, but no manual's example."""
    secret = secret_part(match)
    example = PLACEHOLDER.search(secret) or secret in DOCUMENTED or is_sequence(secret)
    return secret if not example and len(set(secret)) >= 6 and longest_run(secret) <= 6 else None


def longest_run(text: bytes) -> int:
    """Return the length of the longest run of one byte."""
    return max((len(run[0]) for run in re.finditer(rb"(.)\1*", text, re.DOTALL)), default=0)


def is_sequence(text: bytes) -> bool:
    """Say whether more than half of a text counts up or down, as an alphabet does."""
    steps = sum(abs(second - first) == 1 for first, second in pairwise(text))
    return steps * 2 > len(text)


def password(match: Match) -> bytes | None:
    """Accept what a person or a tool may have set as a password, and no placeholder, variable or prose."""
    secret = secret_part(match)
    refused = PLACEHOLDER.search(secret) or re.search(
        rb"(?i)^(password|passwd|pass|secret|token|none|null|true|false|yes|no|user|string|value|prompt|x+|\.+|-+|\*+)$"
        rb"|^[$%&<{\[(]|\\[0-9dsw]|%s",
        secret,
    )
    printable = all(33 <= byte < 127 for byte in secret)
    return secret if printable and len(secret) >= 4 and len(set(secret)) >= 3 and not refused else None


def set_password(match: Match) -> bytes | None:
    """Accept a password that a file of settings gives to a name: mixed characters, and nothing of a program's text."""
    secret = password(match)
    if secret is None or re.search(rb"[(){}\[\];<>|\\`$]", secret):
        return None
    kinds = sum(re.search(kind, secret) is not None for kind in (rb"[a-z]", rb"[A-Z]", rb"[0-9]", rb"[^a-zA-Z0-9]"))
    return secret if kinds >= 3 or (kinds == 2 and len(secret) >= 16 and is_random(secret)) else None


# Tokens that carry a checksum.


def base62_crc(match: Match) -> bytes | None:
    """Accept a token whose last six digits are the CRC32 of the rest in base 62 (GitHub, npm)."""
    secret = secret_part(match)
    body = secret.split(b"_", 1)[1]
    digits, number = b"", zlib.crc32(body[:-6])
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = BASE62[digit : digit + 1] + digits
    return secret if digits == body[-6:] else None


def bech32(match: Match) -> bytes | None:
    """Accept an age identity, which ends with a Bech32 checksum."""
    secret = secret_part(match)
    human, _, data = secret.decode("ascii", "replace").lower().rpartition("1")
    if any(letter not in BECH32 for letter in data):
        return None
    values = [ord(letter) >> 5 for letter in human] + [0] + [ord(letter) & 31 for letter in human]
    check = 1
    for value in (*values, *(BECH32.index(letter) for letter in data)):
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
            check ^= generator if top >> bit & 1 else 0
    return secret if check == 1 else None


# Keys that have a structure.


def pem_private_key(match: Match) -> bytes | None:
    """Accept a PEM private key that parses, an encrypted one, and a cut one that begins as a key does."""
    body = re.sub(rb"\\[nr]", b"\n", match["secret"])
    body = body.split(b"\n\n", 1)[-1] if b"Proc-Type" in body else body
    digits = re.sub(rb"[\s\"'+>]+" if b'"' in body and b"+\n" in body else rb"[\s\"'>]+", b"", body)
    digits = re.sub(rb"[^A-Za-z0-9+/].*", b"", digits, flags=re.DOTALL)
    if len(digits) < 60 or not is_random(digits[20:]):
        return None
    der = base64.b64decode(digits[: len(digits) // 4 * 4])
    if b"ENCRYPTED" in match[0] or b"PGP" in match[0]:
        return digits
    return digits if begins_as_private_key(der) else None


def begins_as_private_key(der: bytes) -> bool:
    """Say whether bytes begin as the DER or OpenSSH form of a private key does: they may be cut."""
    if der.startswith(b"openssh-key-v1\0"):
        return True
    header = re.match(rb"\x30(?:[\x01-\x7f]|\x81.|\x82..)\x02\x01[\x00\x01]", der, re.DOTALL)
    return header is not None


def der_private_key(match: Match) -> bytes | None:
    """Accept DER that loads as a private key."""
    data = match[0]
    length = der_length(data)
    if length is None or length > len(data) or len(set(data[16:length])) < 20:
        return None
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization

    try:
        serialization.load_der_private_key(data[:length], None, unsafe_skip_rsa_key_validation=True)
    except TypeError:
        return data[:length]
    except (ValueError, UnsupportedAlgorithm):
        return None
    return data[:length]


def rsa_private_key(match: Match) -> bytes | None:
    """Accept the DER of an RSA private key (RFC 8017, A.1.2): its modulus is the product of its primes."""
    data = match[0]
    length = der_length(data)
    if length is None or length > len(data):
        return None
    numbers = list(der_integers(data[:length]))
    is_key = len(numbers) >= 6 and numbers[1] == numbers[4] * numbers[5] and min(numbers[4:6]) > 1
    return data[:length] if is_key else None


def der_integers(data: bytes) -> Iterator[int]:
    """Yield the integers at the beginning of a DER sequence, up to what is none or is cut."""
    place = 2 + (data[1] & 0x7F if data[1] >= 0x80 else 0)
    while data[place : place + 1] == b"\x02":
        length = der_length(b"\x30" + data[place + 1 : place + 5])
        if length is None or place + length > len(data):
            return
        header = 2 + (data[place + 1] & 0x7F if data[place + 1] >= 0x80 else 0)
        yield int.from_bytes(data[place + header : place + length], "big")
        place += length


def der_length(data: bytes) -> int | None:
    """Return the length of the DER value that begins `data`, its header included."""
    if len(data) < 4 or data[0] != 0x30:
        return None
    if data[1] < 0x80:
        return 2 + data[1]
    octets = data[1] & 0x7F
    return 2 + octets + int.from_bytes(data[2 : 2 + octets], "big") if 1 <= octets <= 3 else None


def openssh_binary_key(match: Match) -> bytes | None:
    """Accept the inside of an OpenSSH private key: cipher and key derivation names in their length-prefixed fields."""
    data = match["secret"]
    fields = []
    position = 0
    for _ in range(2):
        (length,) = struct.unpack(">I", data[position : position + 4])
        fields.append(data[position + 4 : position + 4 + length])
        position += 4 + length
        if position + 4 > len(data):
            return None
    return data[:200] if fields[1] in (b"none", b"bcrypt") else None


def ssh_public_key(match: Match) -> bytes | None:
    """Accept a public key whose parts have the lengths that they say."""
    try:
        blob = base64.b64decode(match["key"] + b"=" * (-len(match["key"]) % 4))
    except binascii.Error:
        return None
    position = 0
    while position + 4 <= len(blob):
        position += 4 + int.from_bytes(blob[position : position + 4], "big")
    name = match["type"]
    named = blob[4 : 4 + int.from_bytes(blob[:4], "big")] == name
    return blob if named and position == len(blob) and is_random(match["key"][26:]) else None


def jwt(match: Match) -> bytes | None:
    """Accept a signed token whose header and payload are JSON objects; not the example that everybody prints."""
    header, payload, signature = match[0].split(b".")[:3]
    contents = []
    for part in (header, payload):
        try:
            contents.append(json.loads(base64.urlsafe_b64decode(part + b"=" * (-len(part) % 4))))
        except ValueError:
            return None
    is_token = all(isinstance(content, dict) for content in contents) and "alg" in contents[0]
    printed = is_token and (contents[1].get("name") == "John Doe" or contents[1].get("iss") == "joe")
    return match[0] if is_token and not printed and len(signature) >= 20 else None


# AWS.


def aws_access_key_id(match: Match) -> bytes | None:
    """Accept an access key id that no manual prints."""
    secret = secret_part(match)
    return None if secret.endswith(b"EXAMPLE") or len(set(secret[4:])) < 7 or is_sequence(secret[4:]) else secret


def aws_secret(match: Match) -> bytes | None:
    """Accept 40 digits that are as mixed as a secret access key."""
    secret = match["secret"]
    mixed = re.search(rb"[a-z]", secret) and re.search(rb"[A-Z]", secret) and re.search(rb"[0-9+/]", secret)
    return secret if mixed and is_random(secret) else None


def docker_auth(match: Match) -> bytes | None:
    """Accept base64 of `user:password`."""
    try:
        text = base64.b64decode(match["secret"], validate=True)
    except binascii.Error:
        return None
    user, colon, word = text.partition(b":")
    return (
        match["secret"]
        if colon and user and len(word) >= 4 and text.isascii() and not PLACEHOLDER.search(word)
        else None
    )


# Traces.

COMMANDS = b"""
apt apt-get ansible ansible-playbook aws az cat cd chmod chown cp crontab curl date df dnf docker du echo env
export find gcloud git grep helm history htop htpasswd id ip journalctl kill kubectl less ll ln ls make man
mkdir mv mysql mysqldump nano netstat npm openssl passwd ping pip pip3 podman printenv ps psql pwd python
python3 reboot redis-cli rm rsync scp screen service shutdown source ssh ssh-keygen sshpass ss su sudo
systemctl tail tar terraform tmux top touch uname unset useradd usermod vi vim wget whoami yum exit clear
"""
COMMAND = re.compile(rb"(?:" + b"|".join(map(re.escape, COMMANDS.split())) + rb")(?: |$)")
SCRIPT = re.compile(
    rb"^(?:#!|if |fi\b|then\b|else|elif |for |while |do\b|done\b|case |esac|function |\s|[{}]|\. |return\b|local )|;;$"
)


def shell_history(match: Match) -> bytes | None:
    """Accept a run of lines that somebody typed: short commands one after the other, nothing of a script (R05)."""
    lines = [line for line in match[0].split(b"\n") if line]
    if any(SCRIPT.search(line) for line in lines):
        return None
    commands = [line for line in lines if COMMAND.match(line)]
    return match[0].strip() if len(commands) >= 4 and len(commands) * 3 >= len(lines) * 2 else None


def core_dump(match: Match) -> bytes | None:
    """Accept the header of an ELF core file: no sections needed, program headers right behind the header."""
    fields = struct.unpack("<HHIQQQIHHHHHH", match[0][16:64])
    kind, machine, version, _, program_headers, _, _, header_size, entry_size, entries = fields[:10]
    plausible = kind == 4 and machine in (3, 62, 183, 243) and version == 1 and program_headers == 64
    return match[0][:64] if plausible and header_size == 64 and entry_size == 56 and entries > 0 else None


def journal_file(match: Match) -> bytes | None:
    """Accept the header of a systemd journal: the machine id is its trace."""
    header = match[0]
    machine_id, header_size = header[40:56], int.from_bytes(header[88:96], "little")
    return machine_id if any(machine_id) and 200 <= header_size <= 4096 else None


def mail_headers(match: Match) -> bytes | None:
    """Accept a mail: at least three headers of RFC 5322 in a row."""
    names = set(
        re.findall(
            rb"(?m)^(Received|From|To|Subject|Date|Message-Id|Delivered-To|Return-Path):", match[0], re.IGNORECASE
        )
    )
    return match[0] if len({name.lower() for name in names}) >= 4 else None


def terraform_state(match: Match) -> bytes | None:
    """Accept a state file of Terraform: it has a lineage, which is a UUID."""
    found = re.search(rb'"lineage":\s*"([0-9a-f-]{36})"', match[0])
    return found[1] if found else None
