"""A small Debian with an sshd, in namespaces of its own: what tools change there changes nothing of this machine."""

import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import AssayError
from pipeline.guest.keys import KeyPair, make_key_pair
from pipeline.guest.shell import DirectConnector, Shell, connect
from tests.checks.small_debian import missing_here
from tests.guest.sshd import free_port, write_private
from tests.harden.samples import Debian, make_debian

LOGIN_SECONDS = 300
PREPARE = """
mkdir -p /etc/bench.d /root/.ssh
touch /etc/securetty /etc/fstab
ssh-keygen -q -t ed25519 -N '' -f /etc/ssh/ssh_host_ed25519_key <<'END' >/dev/null
y
END
cp -a /etc /etc.before
cat /etc/ssh/ssh_host_ed25519_key.pub
"""
ENTER = """
mount -t devpts -o newinstance,ptmxmode=0666 devpts "$1/dev/pts"
ln -sf pts/ptmx "$1/dev/ptmx"
mount -t tmpfs tmpfs "$1/run"
mkdir "$1/run/sshd"
exec chroot "$@"
"""
"""Inside of the namespaces: what a login needs besides the files."""

RESET = "rm -rf /etc && cp -a /etc.before /etc"


@dataclass(frozen=True)
class Target:
    """A running sshd, and what a client needs for it. The user is root."""

    port: int
    key: KeyPair
    key_file: Path
    host_key: str

    def log_in(self, connector_port: int) -> Shell:
        """Return a shell, over a relay or directly."""
        return connect(DirectConnector("127.0.0.1", connector_port), "root", self.key, (self.host_key,), LOGIN_SECONDS)


@contextlib.contextmanager
def running_target(folder: Path) -> Iterator[Target]:
    """Run a target in a folder. Raises AssayError where this machine cannot."""
    if missing := missing_here():
        raise AssayError(f"there can be no target for tools that change a host: {missing}")
    debian = make_debian(folder)
    host_key = debian.run(PREPARE).strip()
    key, port = make_key_pair("bench"), free_port()
    write_private(folder / "key", key.private_openssh.reveal)
    debian.write("/root/.ssh/authorized_keys", f"{key.public_openssh}\n")
    options = (
        f"Port={port}",
        "ListenAddress=127.0.0.1",
        "UsePAM=no",
        "PermitRootLogin=yes",
        "PidFile=none",
        "Subsystem=sftp internal-sftp",
    )
    command = ["/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *(f"-o{option}" for option in options)]
    with (folder / "sshd.log").open("wb") as log:
        process = subprocess.Popen([*enter(debian), *command], stderr=log)
    try:
        target = Target(port, key, folder / "key", host_key)
        target.log_in(port).close()
        yield target
    finally:
        process.kill()  # unshare itself waits for its child whatever comes; the child dies with it
        process.wait(LOGIN_SECONDS)


def enter(debian: Debian) -> list[str]:
    """Return the command that starts another one in the target: processes, mounts, host name and IPC are its own."""
    namespaces = ("--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", f"--mount-proc={debian.root}/proc")
    return ["unshare", *namespaces, "sh", "-euc", ENTER, "sh", str(debian.root)]
