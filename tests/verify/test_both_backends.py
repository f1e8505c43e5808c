"""Every check gives the same result over the open session as over testinfra's own paramiko backend.

Both talk to a real sshd, which runs in a small Debian, 80 ms away.
"""

import re
import socket
import subprocess
import sys
import time

import pytest

from pipeline.guest.keys import make_key_pair
from pipeline.guest.shell import DirectConnector, connect
from pipeline.report.evidence import Layer, Status
from pipeline.spec import Spec
from pipeline.verify.live import PROJECT, environment, prove
from tests.checks.small_debian import GOOD, ChrootShell, make_debian, missing_here, overlay
from tests.checks.test_plants import SPEC
from tests.verify.distance import Distance

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(bool(missing_here()), reason=missing_here() or "everything is here"),
]
WORDS = {Status.PASS: "PASSED", Status.FAIL: "FAILED", Status.NOT_APPLICABLE: "SKIPPED"}
ROUND_TRIP_SECONDS = 0.08


@pytest.fixture
def key_pair():
    return make_key_pair("ada")


@pytest.fixture
def far_away(tmp_path, key_pair):
    """The port of an sshd, and its host key."""
    with overlay(tmp_path / "system", make_debian()) as root, socket.create_server(("127.0.0.1", 0)) as free:
        shell = ChrootShell(root)
        assert shell.run(GOOD).exit_status == 0
        (root / "home/ada/.ssh/authorized_keys").write_text(key_pair.public_openssh + "\n")
        shell.run("mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f /run/host_key; echo x >/root/.netrc")
        port = free.getsockname()[1]
        free.close()
        line = ["chroot", root, "/usr/sbin/sshd", "-D", "-e", "-h", "/run/host_key", "-p", str(port)]
        with (tmp_path / "sshd.log").open("wb") as log:
            daemon = subprocess.Popen([*line, "-o", "ListenAddress=127.0.0.1"], stderr=log, stdin=subprocess.DEVNULL)
        distance = Distance(("127.0.0.1", port), ROUND_TRIP_SECONDS)
        yield distance, (root / "run/host_key.pub").read_text().strip()
        distance.close()
        daemon.terminate()
        daemon.wait(30)


def ask_by_session(distance, host_key, key_pair, spec, folder):
    """Return the results over one open session, and the seconds that it took."""
    shell = connect(DirectConnector("127.0.0.1", distance.port), "ada", key_pair, (host_key,), 60)
    root_shells = [shell.open_root_shell() for _ in range(2)]
    started = time.monotonic()
    results = prove(root_shells, Layer.LIVE, spec, folder, {}, recordings=folder / "recordings")
    seconds = time.monotonic() - started
    shell.close()
    return {result.source: WORDS[result.status] for result in results}, seconds


def ask_by_paramiko(distance, key_pair, folder):
    """Return the results of testinfra's own backend, and the seconds that it took."""
    key, config = folder / "key", folder / "ssh_config"
    key.write_text(key_pair.private_openssh.reveal)
    key.chmod(0o600)
    config.write_text(
        f"Host guest\n HostName 127.0.0.1\n Port {distance.port}\n User ada\n IdentityFile {key}\n"
        " StrictHostKeyChecking no\n"
    )
    place = folder / "checks-L"
    line = [
        *(sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", PROJECT, "--disable-plugin-autoload"),
        *("-p", "testinfra.plugin", "-p", "checks.fixtures", "-p", "no:cacheprovider", "--import-mode=importlib"),
        *("-v", "--tb=no", "--hosts=paramiko://guest", f"--ssh-config={config}", "--sudo", "--layer=L"),
        *(f"--spec={place}/spec.json", f"--expectations={place}/expectations.json", "checks"),
    ]
    started = time.monotonic()
    done = subprocess.run(line, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    said = re.findall(r"^(checks/\S+?::\S.*?) (PASSED|FAILED|SKIPPED|ERROR)", done.stdout, re.MULTILINE)
    plain = {re.sub(r"\[paramiko://guest\]|paramiko://guest-", "", name): word for name, word in said}
    return plain, seconds


def test_both_backends_agree(far_away, key_pair, tmp_path):
    distance, host_key = far_away
    spec = Spec.model_validate(
        SPEC | {"harden": {"kernel": None}, "users": [SPEC["users"][0] | {"keys": [key_pair.public_openssh]}]}
    )
    first, first_seconds = ask_by_session(distance, host_key, key_pair, spec, tmp_path)
    again, again_seconds = ask_by_session(distance, host_key, key_pair, spec, tmp_path)
    theirs, their_seconds = ask_by_paramiko(distance, key_pair, tmp_path)
    print(
        f"{len(first)} checks: first {first_seconds:.1f} s, again {again_seconds:.1f} s, paramiko {their_seconds:.1f} s"
    )
    assert first == again == theirs
    assert theirs["checks/test_credentials.py::test_no_service_credentials"] == "FAILED"
    assert distance.connections == 3
