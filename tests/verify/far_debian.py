"""A small Debian with an sshd of its own, 80 ms away: what a guest is to a proof, without booting one."""

import contextlib
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.guest.keys import KeyPair, make_key_pair
from pipeline.guest.shell import DirectConnector, Shell, connect
from pipeline.spec import Spec
from pipeline.verify.live import PROJECT, environment
from tests.checks.small_debian import GOOD, ChrootShell, make_debian, overlay
from tests.checks.test_plants import SPEC
from tests.guest.sshd import free_port
from tests.verify.distance import Distance

ROUND_TRIP_SECONDS = 0.08
OUTCOME = re.compile(r"^(\S*?::\S.*?) (PASSED|FAILED|SKIPPED|ERROR)", re.MULTILINE)
OUTCOME_OF_A_WORKER = re.compile(r"^\[gw\d+\] \[[ \d]+%\] (PASSED|FAILED|SKIPPED|ERROR) (\S*?::\S.*?) *$", re.MULTILINE)


@dataclass(frozen=True)
class FarDebian:
    """Where the sshd answers, who may log in, and the system itself."""

    distance: Distance
    host_key: str
    key_pair: KeyPair
    system: ChrootShell

    @property
    def spec(self) -> Spec:
        """What the system is to be: this key's user, and nothing of a kernel, which is this machine's."""
        return Spec.model_validate(
            SPEC | {"harden": {"kernel": None}, "users": [SPEC["users"][0] | {"keys": [self.key_pair.public_openssh]}]}
        )

    def log_in(self) -> Shell:
        """Open a session as the user, who may become root."""
        return connect(DirectConnector("127.0.0.1", self.distance.port), "ada", self.key_pair, (self.host_key,), 60)


@contextlib.contextmanager
def far_debian(folder: Path) -> Iterator[FarDebian]:
    """Run an sshd in a good small Debian, in a throw-away overlay."""
    key_pair = make_key_pair("ada")
    with overlay(folder / "system", make_debian()) as root:
        shell = ChrootShell(root)
        assert shell.run(GOOD).exit_status == 0
        (root / "home/ada/.ssh/authorized_keys").write_text(key_pair.public_openssh + "\n")
        shell.run("mkdir -p /run/sshd; ssh-keygen -q -t ed25519 -N '' -f /run/host_key")
        port = free_port()
        line = ["chroot", root, "/usr/sbin/sshd", "-D", "-e", "-h", "/run/host_key", "-p", str(port)]
        with (folder / "sshd.log").open("wb") as log:
            daemon = subprocess.Popen([*line, "-o", "ListenAddress=127.0.0.1"], stderr=log, stdin=subprocess.DEVNULL)
        distance = Distance(("127.0.0.1", port), ROUND_TRIP_SECONDS)
        try:
            yield FarDebian(distance, (root / "run/host_key.pub").read_text().strip(), key_pair, shell)
        finally:
            distance.close()
            daemon.terminate()
            daemon.wait(30)


def ask_by_paramiko(far: FarDebian, folder: Path, checks: Path, workers: int = 0) -> tuple[dict[str, str], float]:
    """Return the outcome of each check by testinfra's own paramiko backend, and the seconds that it took.

    The spec and the facts are those of a proof of layer L in the same folder.
    """
    key, config = folder / "key", folder / "ssh_config"
    key.touch(mode=0o600)
    key.write_text(far.key_pair.private_openssh.reveal)
    config.write_text(
        f"Host guest\n HostName 127.0.0.1\n Port {far.distance.port}\n User ada\n IdentityFile {key}\n"
        " StrictHostKeyChecking no\n"
    )
    place = folder / "checks-L"
    line = [
        *(sys.executable, "-m", "pytest", "-c", "/dev/null", "--rootdir", PROJECT, "--disable-plugin-autoload"),
        *("-p", "testinfra.plugin", "-p", "checks.fixtures", "-p", "no:cacheprovider", "--import-mode=importlib"),
        *(["-p", "xdist.plugin", "-n", str(workers)] if workers else []),
        *("-v", "--tb=no", "--hosts=paramiko://guest", f"--ssh-config={config}", "--sudo", "--layer=L"),
        *(f"--spec={place}/spec.json", f"--expectations={place}/expectations.json", checks),
    ]
    started = time.monotonic()
    done = subprocess.run(line, cwd=PROJECT, env=environment(), capture_output=True, text=True, check=False)
    seconds = time.monotonic() - started
    said = (
        OUTCOME.findall(done.stdout) if not workers else [one[::-1] for one in OUTCOME_OF_A_WORKER.findall(done.stdout)]
    )
    return {re.sub(r"\[paramiko://guest\]|paramiko://guest-", "", name): word for name, word in said}, seconds
