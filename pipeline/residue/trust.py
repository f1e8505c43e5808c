"""Whom a system trusts, and whom it talks to: authorities, signers, ssh, remote logs (V01, V06, V07; seed [2])."""

import base64
import binascii
import re
from collections.abc import Iterator

from pipeline.residue.filesystems import Entry
from pipeline.residue.origin import Doubt, Origin

CERTIFICATE = re.compile(
    r"-----BEGIN (?:TRUSTED )?CERTIFICATE-----(.+?)-----END (?:TRUSTED )?CERTIFICATE-----", re.DOTALL
)
SHIPPED_AUTHORITIES = re.compile(r"/usr/share/(?:ca-certificates|pki)/.+")
STORES = re.compile(
    r"/etc/ssl/certs/.+|/usr/local/share/ca-certificates/.+|/etc/pki/(?:tls/certs|ca-trust)/.+|/etc/ssl/cert\.pem"
)
SIGNERS = re.compile(
    r"/etc/apt/(?:trusted\.gpg(?:\.d/.+)?|keyrings/.+)|/usr/(?:local/)?share/keyrings/.+|/etc/pki/rpm-gpg/.+|/etc/apt/auth\.conf\.d/.+"
)
SSHD = re.compile(r"/etc/ssh/sshd_config(?:\.d/[^/]+\.conf)?")
OTHER_KEYS = re.compile(
    r"(?im)^\s*(AuthorizedKeysCommand|TrustedUserCAKeys|AuthorizedPrincipalsCommand|AuthorizedPrincipalsFile|ForceCommand"
    r"|PermitUserEnvironment\s+(?!no)\S|HostbasedAuthentication\s+yes|PermitEmptyPasswords\s+yes)\b(?!\s+none\b).*"
)
KEY_FILES = re.compile(r"(?im)^\s*AuthorizedKeysFile\s+(.+)$")
USUAL_KEY_FILES = frozenset((".ssh/authorized_keys", ".ssh/authorized_keys2", "%h/.ssh/authorized_keys", "none"))
OTHER_HOSTS = re.compile(r"/etc/(?:hosts\.equiv|ssh/shosts\.equiv)|(?:/root|/home/[^/]+)/\.[rs]hosts")
REMOTE_LOGS = (
    (
        re.compile(r"/etc/(?:rsyslog|syslog)\.conf|/etc/rsyslog\.d/.+"),
        re.compile(r"(?m)^[^#\n]*(?:\s@{1,2}[\w(\[.]|om(?:fwd|relp|elasticsearch|http|kafka)\b)"),
    ),
    (re.compile(r"/etc/syslog-ng/.+"), re.compile(r"(?m)^[^#\n]*\b(?:network|syslog|tcp|udp)6?\s*\(")),
    (re.compile(r"/etc/systemd/journal-upload\.conf(?:\.d/.+)?"), re.compile(r"(?m)^\s*URL\s*=\s*\S")),
    (
        re.compile(r"/etc/audi(?:t|sp)/(?:audisp-remote|plugins\.d/au-remote)\.conf"),
        re.compile(r"(?m)^\s*(?:remote_server\s*=\s*\S|active\s*=\s*yes)"),
    ),
)


def doubts(origin: Origin) -> Iterator[Doubt]:
    """Yield authorities, signers and remote places that nobody explains."""
    yield from authorities(origin)
    for entry in origin.unexplained(SIGNERS):
        yield Doubt("V01", "signer of packages", entry.path)
    yield from ways_into_ssh(origin)
    for entry in origin.unexplained(OTHER_HOSTS):
        yield Doubt("V01", "hosts that log in without a key", entry.path)
    for paths, remote in REMOTE_LOGS:
        for entry in origin.unexplained(paths):
            if remote.search("\n".join(origin.lines(entry))):
                yield Doubt("V07", "log that is sent away", entry.path)


def authorities(origin: Origin) -> Iterator[Doubt]:
    """Yield the stores with a certificate that no package brought: bundles are made on the machine from single ones."""
    stores = [entry for entry in origin.system.files if STORES.fullmatch(entry.path)]
    if not stores:
        return
    shipped: set[bytes] = set()
    for entry in origin.system.files:
        if SHIPPED_AUTHORITIES.fullmatch(entry.path) and origin.packages.vouches_for(entry):
            shipped |= set(certificates(origin, entry))
    for entry in stores:
        if origin.packages.vouches_for(entry) or origin.is_ours(entry):
            continue
        strange = [certificate for certificate in certificates(origin, entry) if certificate not in shipped]
        if strange:
            yield Doubt("V06", "authority that is no package's", entry.path, f"{len(strange)} certificates")


def certificates(origin: Origin, entry: Entry) -> Iterator[bytes]:
    """Yield the certificates of a file in PEM, as DER; of one in DER, its content."""
    content = origin.system.content(entry)
    if content.startswith(b"\x30\x82"):
        yield content
        return
    for found in CERTIFICATE.finditer(content.decode("ascii", "replace")):
        try:
            yield base64.b64decode(found[1])
        except binascii.Error:
            yield found[1].encode()


def ways_into_ssh(origin: Origin) -> Iterator[Doubt]:
    """Yield the settings of sshd that let in by other keys than those in the homes."""
    for entry in origin.system.files:
        if not SSHD.fullmatch(entry.path) or origin.explains_or_empty(entry):
            continue
        text = "\n".join(origin.lines(entry))
        other = [line[0].strip() for line in OTHER_KEYS.finditer(text)]
        other += [
            line[0].strip() for line in KEY_FILES.finditer(text) if not USUAL_KEY_FILES.issuperset(line[1].split())
        ]
        for line in other:
            yield Doubt("V01", "way into ssh", entry.path, line)
