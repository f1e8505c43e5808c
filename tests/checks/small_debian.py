"""A small Debian in a folder, and a root shell in it: enough of a guest for most checks, without booting one.

It is made once by mmdebstrap and kept in the user's cache folder. Overlays over it make a system that is hardened and
scrubbed as the checks want it, by a script of the tests and not by the pipeline's own steps, and throw-away systems
with one fault each.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.guest.root_shell import Output
from tests.verify.specs import KEY

PACKAGES = (
    *("ca-certificates", "cloud-init", "cron", "dbus", "initramfs-tools", "iproute2", "kmod", "libpam-modules"),
    *("linux-image-cloud-amd64", "openssh-server", "procps", "sudo", "systemd-sysv", "unattended-upgrades", "zstd"),
)
MIRRORS = (
    "deb http://deb.debian.org/debian bookworm main",
    "deb http://deb.debian.org/debian bookworm-updates main",
    "deb http://deb.debian.org/debian-security bookworm-security main",
)
SMALL_INITRAMFS = (
    'mkdir -p "$1/etc/initramfs-tools/conf.d"; printf "MODULES=list\\nCOMPRESS=zstd\\n"'
    ' >"$1/etc/initramfs-tools/conf.d/small.conf"'
)
"""A hook of mmdebstrap: the kernel's modules are for plants, not for a boot."""
SSHD = """
AllowUsers ada admin
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitEmptyPasswords no
PermitRootLogin no
AuthenticationMethods publickey
SyslogFacility AUTHPRIV
LogLevel VERBOSE
IgnoreUserKnownHosts yes
X11Forwarding no
PermitUserRC no
UseDNS no
MaxAuthTries 3
LoginGraceTime 30
AllowAgentForwarding no
AllowTcpForwarding no
AllowStreamLocalForwarding no
AuthorizedKeysFile .ssh/authorized_keys
KexAlgorithms curve25519-sha256,diffie-hellman-group16-sha512
MACs hmac-sha2-512-etm@openssh.com
"""
GOOD = f"""
set -e
for user in ada admin; do
  useradd --create-home --shell /bin/bash --comment "$(echo $user | sed 's/^a/A/')" $user
  install -d -m 700 -o $user -g $user /home/$user/.ssh
done
echo '{KEY}' >/home/ada/.ssh/authorized_keys
chmod 600 /home/ada/.ssh/authorized_keys
chown ada:ada /home/ada/.ssh/authorized_keys
echo 'ada ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/people
chmod 440 /etc/sudoers.d/people
sed -i '/^AcceptEnv/d; /^X11Forwarding/d; /^PrintMotd/d' /etc/ssh/sshd_config
cat >/etc/ssh/sshd_config.d/00-good.conf <<'END'
{SSHD}
END
sed -i '/^#/d' /etc/ssh/moduli
awk '$5 >= 3071' /etc/ssh/moduli >/etc/ssh/moduli.new
cat /etc/ssh/moduli.new >/etc/ssh/moduli
rm /etc/ssh/moduli.new
for name in Update-Package-Lists Unattended-Upgrade; do
  printf 'APT::Periodic::%s "1";\\n' $name
done >/etc/apt/apt.conf.d/20auto-upgrades
ln -sfn /usr/share/zoneinfo/Etc/UTC /etc/localtime
echo Etc/UTC >/etc/timezone
sed -i -E '/^(UMASK|HOME_MODE)[[:space:]]/d' /etc/login.defs
printf 'UMASK 027\\nHOME_MODE 0700\\n' >>/etc/login.defs
echo 'umask 027' >/etc/profile.d/private.sh
systemctl enable -q apt-daily.timer apt-daily-upgrade.timer
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id /var/lib/systemd/random-seed
: >/etc/machine-id
rm -f /etc/shadow- /etc/passwd- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-
find /var/log -type f -delete
rm -rf /var/lib/cloud /var/cache/apt/* /var/backups/* /var/lib/apt/lists/*
echo image >/etc/hostname
echo "127.0.1.1 $(hostname) image" >>/etc/hosts
"""
ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root"}


@dataclass(frozen=True)
class ChrootShell:
    """Runs commands as root in a folder that holds a system; needs root."""

    root: Path

    def run(self, command: str) -> Output:
        """Run one command."""
        done = subprocess.run(
            ["chroot", str(self.root), "/bin/sh", "-c", command],
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env=ENVIRONMENT,
            check=False,
        )
        out, err = (text.decode("utf-8", "surrogateescape") for text in (done.stdout, done.stderr))
        return Output(done.returncode, out, err)

    def run_many(self, commands: Sequence[str]) -> list[Output]:
        """Run commands, one after the other."""
        return [self.run(command) for command in commands]


def missing_here() -> str:
    """Return why no such system can be made on this machine, or nothing."""
    if os.geteuid() != 0:
        return "mounting overlays needs root"
    return "" if shutil.which("mmdebstrap") else "mmdebstrap is not installed"


def make_debian() -> Path:
    """Return the folder of a small Debian, made at the first call."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    digest = hashlib.sha256(" ".join((*PACKAGES, *MIRRORS, SMALL_INITRAMFS)).encode()).hexdigest()[:12]
    root = caches / "assay" / "tests" / f"debian-{digest}"
    root.parent.mkdir(parents=True, exist_ok=True)
    with root.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run of the tests may be making it
        if not root.exists():
            with tempfile.TemporaryDirectory(dir=root.parent) as draft:
                subprocess.run(
                    [
                        *("mmdebstrap", "--quiet", "--variant=minbase", '--aptopt=APT::Install-Recommends "false"'),
                        f"--essential-hook={SMALL_INITRAMFS}",
                        *(f"--include={','.join(PACKAGES)}", "bookworm", f"{draft}/root", *MIRRORS),
                    ],
                    check=True,
                )
                Path(draft, "root").rename(root)
    return root


@contextlib.contextmanager
def overlay(folder: Path, *below: Path) -> Iterator[Path]:
    """Give a throw-away copy of the system that lies in layers, the uppermost first; changes go to `folder`/changes."""
    changes, work, merged = (folder / name for name in ("changes", "work", "merged"))
    for place in (changes, work, merged):
        place.mkdir(parents=True, exist_ok=True)
    lower = ":".join(map(str, below))
    mount("-t", "overlay", "overlay", "-o", f"lowerdir={lower},upperdir={changes},workdir={work}", str(merged))
    try:
        mount("-t", "proc", "proc", str(merged / "proc"))
        mount("-t", "tmpfs", "tmpfs", str(merged / "run"))
        mount("-t", "tmpfs", "tmpfs", str(merged / "dev"))
        make_devices(merged / "dev")
        yield merged
    finally:
        for place in ("dev", "run", "proc", "."):
            subprocess.run(["umount", "--lazy", str(merged / place)], check=False, capture_output=True)


def make_devices(folder: Path) -> None:
    """Make the few devices that programs need; this machine's own ones are out of reach."""
    for name, minor in (("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)):
        os.mknod(folder / name, stat.S_IFCHR | 0o666, os.makedev(1, minor))
        (folder / name).chmod(0o666)
    (folder / "fd").symlink_to("/proc/self/fd")


def mount(*arguments: str) -> None:
    """Mount something."""
    subprocess.run(["mount", *arguments], check=True)
