"""The refresh of keys: fetched by a signed request, checked line by line, replaced whole or not at all."""

import json
import re
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from botocore.auth import S3SigV4Auth, SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import Credentials
from cryptography.hazmat.primitives.asymmetric import rsa

from pipeline.guest.keys import make_key_pair
from pipeline.harden import harden_steps, key_sync
from pipeline.localcloud.authority import Authority
from pipeline.localcloud.metadata import MetadataServer
from pipeline.spec import KeySync
from tests.harden.samples import AMAZON, DEBIAN, INSTANCE, KEY, OTHER_KEY, STRANGE_KEY, spec, text_of
from tests.test_public_keys import VAGRANT, line_of

SECRET, TOKEN = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY", "IQoJb3JpZ2luX2VjEXAMPLE/+token=="
ROLE = {"AccessKeyId": "ASIAQ3EXJ7LRNBZ2WTUY", "SecretAccessKey": SECRET, "Token": TOKEN}
ROLE |= {"Expiration": "2026-01-01T00:00:00Z", "Code": "Success", "LastUpdated": "2026-01-01T00:00:00Z"}
SHORT_RSA = line_of(rsa.generate_private_key(65537, 2048).public_key())
BUCKET, PARAMETER = "s3://keys.example/teams/web", "ssm:/images/keys"


class Store(HTTPServer):
    """S3 and SSM: answers a request whose signature is right, and remembers why another was not."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answers)
        self.text = f"john {KEY}\nsally {OTHER_KEY}\n"
        self.problem = ""


class Answers(BaseHTTPRequestHandler):
    """Checks the signature by botocore's own code."""

    server: Store

    def do_GET(self) -> None:
        """Answer for S3."""
        self.answer("s3", S3SigV4Auth, "/keys.example/teams/web", b"", self.server.text)

    def do_POST(self) -> None:
        """Answer for SSM."""
        body = self.rfile.read(int(self.headers["Content-Length"]))
        assert json.loads(body) == {"Name": "/images/keys", "WithDecryption": True}
        value = json.dumps({"Parameter": {"Name": "/images/keys", "Type": "String", "Value": self.server.text}})
        self.answer("ssm", SigV4Auth, "/", body, value)

    def answer(self, service: str, kind: type[SigV4Auth], path: str, body: bytes, text: str) -> None:
        """Answer when the request is signed as botocore would have."""
        found = re.search(r"SignedHeaders=([^,]+), *Signature=([0-9a-f]+)", self.headers["Authorization"])
        assert found
        signed = {name: self.headers[name] for name in found[1].split(";")}
        url = f"http://{self.headers['Host']}{self.path}"
        request: Any = AWSRequest(self.command, url, headers=signed, data=body)
        request.context["timestamp"] = self.headers["X-Amz-Date"]
        auth = kind(Credentials(ROLE["AccessKeyId"], SECRET, TOKEN), service, "eu-central-1")
        wanted = auth.signature(auth.string_to_sign(request, auth.canonical_request(request)), request)
        good = wanted == found[2] and self.path == path and self.headers["X-Amz-Security-Token"] == TOKEN
        self.server.problem = "" if good else f"{self.path}: {self.headers['Authorization']}"
        self.send_response(200 if good else 403)
        self.end_headers()
        self.wfile.write(text.encode() if good else b"<Error/>")

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Machine:
    """A machine with two users, an instance role, and a store that holds their keys."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.view = replace(INSTANCE, role_name="web", role_credentials=lambda: ROLE)
        self.store = Store()
        server = MetadataServer(folder / "m", Authority(folder / "authority"))
        socket = server.serve("x", lambda: self.view)
        (folder / "bin").mkdir()
        curl = f'case "$*" in *169.254*) exec /usr/bin/curl --unix-socket {socket} "$@" ;; esac'
        for name, script in (
            ("curl", f'printf "%s\\n" "$*" >>{folder}/processes\n{curl}\nexec /usr/bin/curl "$@"'),
            ("getent", f'echo "$2:x:1000:1000::{folder}/home/$2:/bin/bash"'),
            ("chown", f'printf "%s\\n" "$*" >>{folder}/owners'),
            ("restorecon", ":"),
        ):
            (folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / "bin" / name).chmod(0o755)
        for user in ("john", "sally"):
            (folder / "home" / user / ".ssh").mkdir(parents=True, mode=0o700)
            self.file(user).write_text(STRANGE_KEY + "\n")

    def file(self, user: str) -> Path:
        return self.folder / "home" / user / ".ssh" / "authorized_keys"

    def keys(self) -> dict[str, str]:
        return {user: self.file(user).read_text() for user in ("john", "sally")}

    def run(self, source: str = BUCKET, shell: str = "dash") -> subprocess.CompletedProcess[str]:
        endpoint = f"http://127.0.0.1:{self.store.server_port}"
        text = key_sync.script(spec(), KeySync(source=source, endpoint=endpoint))
        for old, new in (("PATH=/usr/sbin", f"PATH={self.folder}/bin:/usr/sbin"), ("patience=25", "patience=2")):
            assert old in text
            text = text.replace(old, new)
        script = self.folder / "key-sync.sh"
        script.write_text(text)
        return subprocess.run([*shell.split(), str(script)], capture_output=True, text=True, timeout=600, check=False)


UNTOUCHED = {"john": STRANGE_KEY + "\n", "sally": STRANGE_KEY + "\n"}
SYNCED = {"john": KEY + "\n", "sally": OTHER_KEY + "\n"}


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    Thread(target=made.store.serve_forever, args=(0.01,), daemon=True).start()
    yield made
    made.store.shutdown()
    made.store.server_close()


@pytest.mark.subprocess
@pytest.mark.loopback
@pytest.mark.parametrize("source", [BUCKET, PARAMETER])
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_keys_are_replaced_by_those_of_a_signed_answer(machine: Machine, shell: str, source: str) -> None:
    ran = machine.run(source, shell)
    assert (ran.returncode, machine.store.problem) == (0, ""), ran.stderr
    assert machine.keys() == SYNCED
    assert {machine.file(user).stat().st_mode & 0o777 for user in SYNCED} == {0o600}
    assert (machine.folder / "owners").read_text().splitlines() == [
        f"-R {user}: {machine.file(user).parent}" for user in SYNCED
    ]
    assert ran.stderr == "".join(f"key sync: keys of {user} from now on: 1\n" for user in SYNCED)


@pytest.mark.subprocess
@pytest.mark.loopback
def test_no_secret_is_in_a_process_list_or_printed(machine: Machine) -> None:
    ran = machine.run()
    said = (machine.folder / "processes").read_text() + ran.stdout + ran.stderr
    assert "--aws-sigv4" in said
    assert not any(secret in said for secret in (SECRET, TOKEN, ROLE["AccessKeyId"]))


@pytest.mark.subprocess
@pytest.mark.loopback
def test_a_second_refresh_changes_nothing(machine: Machine) -> None:
    machine.run()
    before = machine.file("john").stat()
    again = machine.run()
    assert (again.returncode, again.stderr) == (0, "")
    assert machine.file("john").stat() == before


@pytest.mark.subprocess
@pytest.mark.loopback
@pytest.mark.parametrize("source", [BUCKET, PARAMETER])
def test_comments_strangers_and_line_ends_of_windows_do_no_harm(machine: Machine, source: str) -> None:
    machine.store.text = f"# our keys\r\n\r\neve {STRANGE_KEY}\r\njohn {KEY}\r\njohn {OTHER_KEY}"
    ran = machine.run(source)
    assert (ran.returncode, machine.keys()) == (0, {"john": f"{KEY}\n{OTHER_KEY}\n", "sally": ""}), ran.stderr


REFUSED = {
    "nothing at all": ("", "nobody who could mend it"),
    "no key of an administrator": (f"sally {OTHER_KEY}\n", "nobody who could mend it"),
    "a page of a proxy": ("<html>\n<body>no</body>\n", "line 1 does not begin with a user"),
    "a line without a user": (f"{KEY}\n", "line 1: keys of this type are not taken"),
    "options": (f'john command="id" {KEY}\n', "line 1: keys of this type are not taken"),
    "a DSA key": (f"john {KEY}\nsally ssh-dss AAAAB3NzaC1kc3MAAACB\n", "line 2: keys of this type are not taken"),
    "short RSA": (f"john {KEY}\nsally {SHORT_RSA}\n", "line 2: RSA of 2048 bits"),
    "a published key": (f"john {VAGRANT}\n", "line 1: the private half of this key was published"),
    "half a key": (f"john {KEY[:50]}\n", "line 1 is no whole public key"),
    "a private key": (make_key_pair("x").private_openssh.reveal, "line 1"),
    "a user that is a path": (f"../john {KEY}\n", "line 1 does not begin with a user"),
}


@pytest.mark.subprocess
@pytest.mark.loopback
@pytest.mark.parametrize("case", REFUSED)
def test_a_text_that_is_not_right_changes_nothing(machine: Machine, case: str) -> None:
    machine.store.text, reason = REFUSED[case]
    ran = machine.run()
    assert (ran.returncode, machine.keys()) == (1, UNTOUCHED), ran.stderr
    assert ran.stderr.startswith("key sync: nothing was changed: ")
    assert reason in ran.stderr


@pytest.mark.subprocess
@pytest.mark.loopback
def test_a_refused_request_changes_nothing(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.view = replace(machine.view, role_credentials=lambda: ROLE | {"SecretAccessKey": "another"})
    ran = machine.run()
    assert (ran.returncode, "answers with status 403" in ran.stderr, machine.keys()) == (1, True, UNTOUCHED)
    assert machine.store.problem


@pytest.mark.subprocess
@pytest.mark.loopback
def test_an_instance_without_a_role_keeps_its_keys(machine: Machine) -> None:
    machine.view = INSTANCE
    ran = machine.run()
    assert (ran.returncode, machine.keys()) == (0, UNTOUCHED)
    assert ran.stderr == "key sync: this instance has no role: its keys stay as they are\n"


@pytest.mark.subprocess
@pytest.mark.loopback
def test_a_home_that_points_elsewhere_changes_nothing_for_anybody(machine: Machine) -> None:
    machine.file("sally").unlink()
    machine.file("sally").symlink_to("/etc/hostname")
    ran = machine.run()
    assert (ran.returncode, machine.file("john").read_text()) == (1, UNTOUCHED["john"])


def test_the_unit_is_a_timer_with_a_script() -> None:
    wanted = spec(harden={"key_sync": {"source": PARAMETER, "every_minutes": 30, "region": "cn-north-1"}})
    steps = [step for step in harden_steps(DEBIAN, wanted) if step.subject == "key_sync"]
    text = text_of(steps)
    assert [step.controls for step in steps] == [("H11",)]
    assert "OnUnitInactiveSec=30min" in text
    assert "https://ssm.cn-north-1.amazonaws.com.cn/" in text
    assert "enable assay-key-sync.timer" in text
    assert "administrators=' john '" in key_sync.script(wanted, KeySync(source=PARAMETER))
    assert "install curl" in [step.title for step in harden_steps(DEBIAN, wanted)]
    assert "curl" not in str([step.title for step in harden_steps(AMAZON, wanted)])


def test_without_systemd_nothing_pretends_to_refresh() -> None:
    (step,) = key_sync.steps(replace(DEBIAN, has_systemd=False), spec(), KeySync(source=BUCKET))
    assert (step.optional, step.test) == (False, "false")
