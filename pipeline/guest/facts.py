"""What a guest is: asked once, in one round trip, and handed to the subjects, which ask nothing themselves."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Literal, Protocol

from pipeline.errors import GuestFailed

if TYPE_CHECKING:
    from pipeline.guest.shell import Output

DEADLINE_SECONDS = 120
MARK = "assay-fact"
NO_LOGIN = re.compile(r"/(nologin|false|sync|shutdown|halt)$")

COMMANDS = (
    "apt-get dnf yum dpkg rpm debsums systemctl cloud-init useradd adduser usermod userdel groupadd chage passwd "
    "gpasswd visudo sudo ssh-keygen nft iptables auditctl sysctl restorecon getenforce aa-status findmnt lsof fuser "
    "fstrim resize2fs xfs_growfs e4defrag swapoff chronyc needrestart unattended-upgrade dnf-automatic journalctl "
    "loginctl python3 perl awk base64 shred docker podman snap debconf-set-selections update-grub grubby logrotate"
)

FILES = "/etc/os-release /etc/passwd /etc/group /proc/self/mounts /proc/swaps /proc/sys/kernel/osrelease"
QUESTIONS = rf"""
exec 2>/dev/null
section() {{ printf '\n{MARK} %s\n' "$1"; }}
section files
grep -asH '' {FILES} /etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/*.cfg
section passwords
sed -n 's/^\([^:]*\)::.*/\1 empty/p; t; s/^\([^:]*\):[!*].*/\1 locked/p; t; s/^\([^:]*\):.*/\1 set/p' /etc/shadow
section architecture
uname -m
section kernels
for folder in /lib/modules/*; do if [ -d "$folder" ]; then printf '%s\n' "${{folder##*/}}"; fi; done
sshd=$(command -v sshd || echo /usr/sbin/sshd)
section sshd_path
if [ -x "$sshd" ]; then printf '%s\n' "$sshd"; fi
section sshd_version
"$sshd" -V 2>&1
section init
if [ -d /run/systemd/system ]; then echo systemd; fi
section cloud_init
dpkg-query -W -f '${{Version}}' cloud-init || rpm -q --qf '%{{VERSION}}-%{{RELEASE}}' cloud-init
section commands
for name in {COMMANDS}; do if command -v "$name" >/dev/null; then printf '%s\n' "$name"; fi; done
section end
"""
"""One process for each question that the shell cannot answer itself: on a slow guest processes are what costs."""


class PasswordState(StrEnum):
    """What /etc/shadow says of an account."""

    SET = "set"
    LOCKED = "locked"
    EMPTY = "empty"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Account:
    """A line of /etc/passwd, with what /etc/shadow says of its password. The hash itself never leaves the guest."""

    name: str
    uid: int
    gid: int
    full_name: str
    home: str
    shell: str
    password: PasswordState = PasswordState.UNKNOWN

    @property
    def may_log_in(self) -> bool:
        """Whether its shell is one; `nologin`, `false` and the like are none."""
        return not NO_LOGIN.search(self.shell)


@dataclass(frozen=True)
class Group:
    """A line of /etc/group."""

    name: str
    gid: int
    members: tuple[str, ...]


@dataclass(frozen=True)
class FileSystem:
    """A mounted file system that lies on a disk."""

    device: str
    mount_point: str
    type: str
    options: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """A guest, as it was when it was asked."""

    family: Literal["debian", "redhat"]
    distribution: str
    """The ID of os-release: `debian`, `ubuntu`, `amzn`, `fedora` …"""
    version: str
    codename: str
    pretty_name: str
    architecture: str
    """As `uname -m` says: `x86_64`, `aarch64`."""
    kernel: str
    """The running one."""
    kernels: tuple[str, ...]
    """All that are installed."""
    sshd_path: str | None
    sshd_version: tuple[int, int] | None
    """(9, 2) for OpenSSH_9.2p1."""
    users: tuple[Account, ...]
    groups: tuple[Group, ...]
    has_systemd: bool
    cloud_init: str | None
    """Its package's version; None: not installed."""
    default_user: str | None
    """The account that cloud-init makes and gives the launch key to."""
    package_manager: Literal["apt", "dnf", "yum"]
    file_systems: tuple[FileSystem, ...]
    swaps: tuple[str, ...]
    """Active swap files and partitions."""
    commands: frozenset[str]
    """Those of COMMANDS that exist."""

    @property
    def homes(self) -> tuple[str, ...]:
        """Every home folder that passwd names, once each, system accounts included (S02)."""
        return tuple(sorted({user.home for user in self.users if user.home.startswith("/") and user.home != "/"}))

    @property
    def login_users(self) -> tuple[Account, ...]:
        """Accounts of people: a shell, and an id that is root's or not of the system's."""
        return tuple(user for user in self.users if user.may_log_in and (user.uid == 0 or 1000 <= user.uid < 65534))

    @property
    def administrators_group(self) -> str:
        """The group that the distribution's own sudoers file trusts."""
        return "sudo" if self.family == "debian" else "wheel"

    @property
    def root_file_system(self) -> FileSystem | None:
        """The file system at `/`; None where it lies on no disk."""
        return next((system for system in reversed(self.file_systems) if system.mount_point == "/"), None)

    def user(self, name: str) -> Account | None:
        """Return the account with this name, or None."""
        return next((user for user in self.users if user.name == name), None)


class AsksGuest(Protocol):
    """What the facts need of a shell."""

    def run(self, command: str, *, deadline_seconds: float) -> "Output":
        """Run a script as root."""


def gather_facts(shell: AsksGuest) -> Facts:
    """Ask the guest everything in one round trip. Raises GuestUnreachable; GuestFailed for an unknown Linux."""
    return parse_facts(shell.run(QUESTIONS, deadline_seconds=DEADLINE_SECONDS).stdout)


def parse_facts(printed: str) -> Facts:
    """Return the facts from what QUESTIONS printed. Raises GuestFailed for an unknown distribution."""
    answers = read_answers(printed)
    files = read_files(lines(answers, "files"))
    release = read_os_release(files.get("/etc/os-release", []))
    commands = frozenset(answers.get("commands", "").split())
    family = find_family(release)
    return Facts(
        family=family,
        distribution=release.get("ID", ""),
        version=release.get("VERSION_ID", ""),
        codename=release.get("VERSION_CODENAME", ""),
        pretty_name=release.get("PRETTY_NAME", ""),
        architecture=answers.get("architecture", "").strip(),
        kernel="".join(files.get("/proc/sys/kernel/osrelease", [])).strip(),
        kernels=tuple(answers.get("kernels", "").split()),
        sshd_path=answers.get("sshd_path", "").strip() or None,
        sshd_version=read_sshd_version(answers.get("sshd_version", "")),
        users=tuple(read_accounts(files.get("/etc/passwd", []), lines(answers, "passwords"))),
        groups=tuple(read_groups(files.get("/etc/group", []))),
        has_systemd=answers.get("init", "").strip() == "systemd",
        cloud_init=answers.get("cloud_init", "").strip() or None,
        default_user=read_default_user(files),
        package_manager="apt" if family == "debian" else "dnf" if "dnf" in commands else "yum",
        file_systems=tuple(read_file_systems(files.get("/proc/self/mounts", []))),
        swaps=tuple(line.split()[0] for line in files.get("/proc/swaps", [])[1:] if line.strip()),
        commands=commands,
    )


def read_answers(printed: str) -> dict[str, str]:
    """Return each section by its name; what a login banner printed before is passed over.

    Raises GuestFailed where the last section is missing: the guest did not say everything.
    """
    _, *sections = printed.split(f"\n{MARK} ")
    answers = dict(section.partition("\n")[::2] for section in sections)
    if "end" not in answers:
        raise GuestFailed("the guest's answer about itself is cut short")
    return answers


def read_files(found: Iterable[str]) -> dict[str, list[str]]:
    """Return the lines of each file, from what `grep -H` printed."""
    files: dict[str, list[str]] = {}
    for line in found:
        path, _, text = line.partition(":")
        files.setdefault(path, []).append(text)
    return files


def lines(answers: Mapping[str, str], name: str) -> list[str]:
    """Return an answer's lines, without the empty ones."""
    return [line for line in answers.get(name, "").split("\n") if line.strip()]


def read_os_release(found: Iterable[str]) -> dict[str, str]:
    """Return the fields of os-release, without their quotes."""
    pairs = (line.split("=", 1) for line in found if "=" in line and not line.startswith("#"))
    return {name.strip(): value.strip().strip("\"'") for name, value in pairs}


def find_family(release: Mapping[str, str]) -> Literal["debian", "redhat"]:
    """Return the family by ID and ID_LIKE. Raises GuestFailed where it is another."""
    names = {release.get("ID", ""), *release.get("ID_LIKE", "").split()}
    if names & {"debian", "ubuntu"}:
        return "debian"
    if names & {"rhel", "fedora", "centos", "amzn"}:
        return "redhat"
    raise GuestFailed(
        f"the guest is {release.get('PRETTY_NAME') or 'no Linux that names itself'}",
        hint="base images of the Debian and Red Hat families are supported",
    )


def read_sshd_version(text: str) -> tuple[int, int] | None:
    """Return major and minor version of OpenSSH; `sshd -V` prints it also where it does not know `-V`."""
    match = re.search(r"OpenSSH_(\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else None


def read_accounts(passwd: Iterable[str], passwords: Iterable[str]) -> Iterable[Account]:
    """Yield the accounts; a line that is none (NIS's `+`) is passed over."""
    known = {f" {state}": state for state in PasswordState}
    states = {line.removesuffix(end): state for line in passwords for end, state in known.items() if line.endswith(end)}
    for line in passwd:
        match line.split(":"):
            case [name, _, uid, gid, full_name, home, shell] if uid.isdecimal() and gid.isdecimal():
                password = states.get(name, PasswordState.UNKNOWN)
                yield Account(name, int(uid), int(gid), full_name.split(",")[0], home, shell or "/bin/sh", password)


def read_groups(group: Iterable[str]) -> Iterable[Group]:
    """Yield the groups."""
    for line in group:
        match line.split(":"):
            case [name, _, gid, members] if gid.isdecimal():
                yield Group(name, int(gid), tuple(filter(None, members.split(","))))


def read_file_systems(mounts: Iterable[str]) -> Iterable[FileSystem]:
    """Yield the file systems on disks. Spaces in names are octal in /proc/self/mounts."""
    for line in mounts:
        match [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), word) for word in line.split(" ")]:
            case [device, mount_point, kind, options, *_] if device.startswith("/dev/"):
                yield FileSystem(device, mount_point, kind, tuple(options.split(",")))


def read_default_user(files: Mapping[str, list[str]]) -> str | None:
    """Return the name of cloud-init's default user: the last of its files wins. A damaged file counts as empty."""
    import yaml

    name = None
    for path in sorted(path for path in files if path.startswith("/etc/cloud/")):
        try:
            document = yaml.safe_load("\n".join(files[path]))
        except yaml.YAMLError:
            continue
        match document:
            case {"system_info": {"default_user": {"name": str(found)}}}:
                name = found
    return name
