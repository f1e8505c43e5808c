"""What the checks share: the spec, the layer, the facts of the build, and a few readings of the guest that many need.

A check says which controls it proves, and at which layers:

    @pytest.mark.controls("H01", layers="LB")

Layer L is the build's own guest: hardened and scrubbed, about to be sealed. Layer B is a fresh boot of the finished
image, launched as a consumer would. Checks of other layers than the current one are not run.

Checks change nothing on the guest. They read the state that takes effect, not the file that should have caused it.
They print no secret: what they compare is reduced on the guest to names and kinds.
"""

import base64
import gzip
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath

import pytest
import yaml
from testinfra.host import Host

from pipeline.spec import Spec

FACTS = {
    "build_public_key": "the public key that the build logged in with",
    "launch_public_key": "the public key that this instance was launched with",
    "host_key_fingerprints": "the SHA256 fingerprints of the build guest's host keys, with spaces between them",
    "machine_id": "the machine id of the build guest",
    "user_data_sha256": "the SHA-256 digest of the build guest's user-data, in hex",
    "boot_id": "the boot id of the build guest",
    "instance_id": "the id of the build instance",
    "earlier_boot_id": "the boot id of this instance's boot before",
    "earlier_machine_id": "the machine id that this instance had before this boot",
    "earlier_host_keys": "the SHA-256 digest of the public host keys that this instance had before this boot",
    "earlier_root_password": "the SHA-256 digest of root's locked password hash before this boot",
    "earlier_authorized_keys": "the SHA-256 digest of everybody's authorized keys before this boot",
}
"""The facts of the build that checks may be told with `--expectations`: a JSON object of strings."""

PROGRAMS = r"""
PATH=$PATH:/usr/sbin:/sbin
for name in cloud-init curl cvtsudoers dpkg-query getcap sudo; do
  command -v $name >/dev/null && echo $name
done
[ -d /run/systemd/system ] && echo systemd
true
"""
PASSWD = "getent passwd"
GROUP = "getent group"
LISTING = r"""
more=$(awk '$2 != "/" && $3 ~ /^(ext[234]|xfs|btrfs|f2fs|vfat)$/ { print $2 }' /proc/mounts 2>/dev/null)
find / $more -xdev \( -path '/var/*' -printf '%y\t%m\t%U\t%G\t%s\t%T@\t%l\t%p\0' \
  -o -printf '%y\t%m\t%U\t%G\t%s\t0\t%l\t%p\0' \) 2>/dev/null | gzip -1 | base64
"""
"""Times cost the guest more than all the rest, and only those of logs matter."""
PACKAGES = r"dpkg-query -W -f '${binary:Package} ${db:Status-Status} ${db:Status-Eflag}\n'"
CONTENT = r"""
private='-----BEGIN ([A-Z0-9]+ )*PRIVATE KEY( BLOCK)?-----|^PuTTY-User-Key-File-'
access='(^|[^A-Z0-9])(AKIA|ASIA)[A-Z2-7]{16}([^A-Z0-9]|$)'
find /boot /etc /home /opt /root /srv /tmp /usr/local /var -xdev -type f -size -2048k -exec \
  grep -lsZF -e 'PRIVATE KEY' -e PuTTY-User-Key-File- -e AKIA -e ASIA {} + 2>/dev/null | xargs -0 -r sh -c '
    private=$1 access=$2
    shift 2
    for file; do
      grep -qsE -e "$private" "$file" && echo "private $file"
      grep -qsE -e "$access" "$file" && echo "access $file"
    done
    true' sh "$private" "$access"
"""
SSHD = r"""
ssh -V 2>&1
folder=$(mktemp -d /run/effective.XXXXXX) || exit 1
# The service takes /run/sshd away whenever it restarts: then sshd is asked once more.
effective() {
  [ -d /run/sshd ] || mkdir -m 755 /run/sshd
  /usr/sbin/sshd -T -h "$folder/key" -C "user=$1,host=client.example,addr=$2" 2>"$folder/problem"
}
everybody=
grep -RhsiE '^[^#]*(match|include)' /etc/ssh/sshd_config /etc/ssh/sshd_config.d |
  grep -qvx 'Include /etc/ssh/sshd_config.d/\*.conf' || everybody=yes
ssh-keygen -q -t ed25519 -N '' -f "$folder/key"
status=0
while read -r user address; do
  echo "## $user $address"
  [ "$everybody" != told ] || continue
  effective "$user" "$address" ||
    { grep -q 'privilege separation' "$folder/problem" && effective "$user" "$address"; } || status=$?
  [ -z "$everybody" ] || everybody=told
done <<END
%s
END
[ $status = 0 ] || cat "$folder/problem" >&2
rm -r "$folder"
exit $status
"""
JOBS = ("/etc/cron.d", "/etc/cron.hourly", "/etc/cron.daily", "/etc/cron.weekly", "/etc/cron.monthly")
BOOT_SCRIPTS = (
    *("/etc/initramfs-tools/hooks", "/etc/initramfs-tools/scripts", "/usr/share/initramfs-tools/hooks"),
    *("/usr/share/initramfs-tools/scripts", "/usr/lib/dracut/modules.d"),
)
SIGNERS = ("/etc/apt/trusted.gpg.d", "/etc/apt/keyrings", "/usr/share/keyrings")
OUTSIDE = "192.0.2.1"
INSIDE = "127.0.0.1"

Ask = Callable[[str], str]
remembered = pytest.StashKey[dict[str, str]]()


@dataclass(frozen=True)
class File:
    """One entry of a file system of the guest."""

    kind: str
    """As `find` has it: f, d, l, s, p, b or c."""
    mode: int
    owner: str
    group: str
    size: int
    changed: float
    """When its content was last changed, in seconds since 1970; 0 outside of /var, where nobody asks."""
    target: str
    """Where a symbolic link points."""
    path: str

    def __str__(self) -> str:
        return self.path

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.path.rpartition("/")[2]

    @property
    def folder(self) -> str:
        """The path of the folder that it lies in; of the root folder and of what lies there, nothing."""
        return self.path.rpartition("/")[0]

    def under(self, *folders: str) -> bool:
        """Return whether it is inside one of the folders."""
        return self.path.startswith(beginnings(folders))


@cache
def beginnings(folders: tuple[str, ...]) -> tuple[str, ...]:
    """Return how the paths of everything inside the folders begin."""
    return tuple(str(PurePosixPath(folder)).rstrip("/") + "/" for folder in folders)


def kept(spec: Spec, file: File) -> bool:
    """Return whether the spec says that this file stays."""
    return any(str(file) == keep or str(file).startswith(keep.rstrip("/") + "/") for keep in spec.scrub.keep_files)


Kind = Callable[[File], bool]


@dataclass(frozen=True)
class Account:
    """One line of the account database."""

    name: str
    uid: int
    gid: int
    full_name: str
    home: str
    shell: str

    @property
    def may_log_in(self) -> bool:
        """Return whether it has a shell that lets somebody in."""
        return self.shell.rpartition("/")[2] not in ("nologin", "false", "sync", "shutdown", "halt", "")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Take what a check needs to know."""
    group = parser.getgroup("image")
    group.addoption("--layer", choices=("L", "B"), default="B", help="L: before the image is sealed; B: a fresh boot")
    group.addoption("--spec", type=Path, help="the spec of the image (YAML or JSON)")
    group.addoption("--expectations", type=Path, help="facts of the build (JSON): " + ", ".join(FACTS))


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", "controls(*ids, layers): the controls that a check proves, and at which layers")
    config.stash[remembered] = {}


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out the checks of other layers. A check without the mark belongs to all."""
    layer = config.getoption("layer")
    other = [item for item in items if not any(layer in layers for layers in layers_of(item))]
    config.hook.pytest_deselected(items=other)
    items[:] = [item for item in items if item not in other]


def layers_of(item: pytest.Item) -> list[str]:
    """Return the layers that the marks of a check name."""
    return [mark.kwargs.get("layers", "LB") for mark in item.iter_markers("controls")] or ["LB"]


@pytest.fixture(scope="session")
def layer(pytestconfig: pytest.Config) -> str:
    """L or B."""
    return str(pytestconfig.getoption("layer"))


@pytest.fixture(scope="session")
def spec(pytestconfig: pytest.Config) -> Spec:
    """What the image is to be."""
    path = pytestconfig.getoption("spec")
    if path is None:
        pytest.skip("no spec was given (--spec)")
    return Spec.model_validate(yaml.safe_load(path.read_text()))


@pytest.fixture(scope="session")
def expectations(pytestconfig: pytest.Config) -> dict[str, str]:
    """The facts of the build; see FACTS."""
    path = pytestconfig.getoption("expectations")
    facts: dict[str, str] = json.loads(path.read_text()) if path else {}
    unknown = facts.keys() - FACTS.keys()
    assert not unknown, f"no check knows of these expectations: {', '.join(sorted(unknown))}"
    return facts


@pytest.fixture
def fact(expectations: dict[str, str]) -> Callable[[str], str]:
    """A function that returns one fact of the build; without it the check does not apply."""

    def look_up(name: str) -> str:
        if not expectations.get(name):
            pytest.skip(f"this proof was not told {FACTS[name]}")
        return expectations[name]

    return look_up


@pytest.fixture
def ask(host: Host, pytestconfig: pytest.Config) -> Ask:
    """A function that returns what a command printed; each command is run once. A failed command fails the check."""

    def run_once(command: str) -> str:
        known = pytestconfig.stash[remembered]
        if command not in known:
            known[command] = host.check_output(command)
        return known[command]

    return run_once


@pytest.fixture
def files(ask: Ask) -> tuple[File, ...]:
    """Everything on the guest's local file systems."""
    return read_listing(ask(PASSWD), ask(GROUP), ask(LISTING))


@cache
def read_listing(users: str, groups: str, packed: str) -> tuple[File, ...]:
    """Return the entries of the listing, with the names of their owners; a number is an owner that does not exist."""
    owners = {number: name for name, _, number, *_ in (line.split(":") for line in users.splitlines())}
    teams = {number: name for name, _, number, *_ in (line.split(":") for line in groups.splitlines())}
    entries = gzip.decompress(base64.b64decode(packed)).decode("utf-8", "surrogateescape").split("\0")
    assert len(entries) > 1, "the file systems could not be listed"
    return tuple(read_entry(entry, owners, teams) for entry in entries[:-1])


def read_entry(entry: str, owners: dict[str, str], teams: dict[str, str]) -> File:
    """Return one entry of the listing."""
    kind, mode, owner, group, size, changed, target, path = entry.split("\t", 7)
    owner, group = owners.get(owner, owner), teams.get(group, group)
    return File(kind, int(mode, 8), owner, group, int(size), float(changed), target, path)


@pytest.fixture
def holders(ask: Ask) -> dict[str, list[str]]:
    """The files that hold a `private` key or an `access` key's id, outside of the distribution's own folders."""
    found: dict[str, list[str]] = {"private": [], "access": []}
    for line in ask(CONTENT).splitlines():
        kind, _, path = line.partition(" ")
        found.setdefault(kind, []).append(path)
    return found


@pytest.fixture
def naming_the_build(ask: Ask, fact: Callable[[str], str]) -> list[str]:
    """The files in /etc and /var/log that name the instance that the image was built on."""
    return ask(f"grep -rlsF -e {fact('instance_id')} /etc /var/log; true").splitlines()


@pytest.fixture
def packages(ask: Ask, family: str) -> dict[str, tuple[str, str]]:
    """For each package that dpkg knows of: its status and its error flag."""
    if family != "debian":
        return {}
    rows = [line.split(" ") for line in ask(PACKAGES).splitlines()]
    return {name: (status, flag) for name, status, flag in rows}


@pytest.fixture
def accounts(ask: Ask) -> dict[str, Account]:
    """The accounts, by name."""
    return {account.name: account for account in read_accounts(ask(PASSWD))}


def read_accounts(text: str) -> Iterator[Account]:
    """Return the accounts of a passwd file."""
    for line in text.splitlines():
        name, _, uid, gid, full_name, home, shell = line.split(":")
        yield Account(name, int(uid), int(gid), full_name.split(",")[0], home, shell)


@pytest.fixture
def groups(ask: Ask, accounts: dict[str, Account]) -> dict[str, set[str]]:
    """The members of each group, those whose first group it is included."""
    rows = [line.split(":") for line in ask(GROUP).splitlines()]
    return {
        name: {member for member in members.split(",") if member}
        | {account.name for account in accounts.values() if account.gid == int(number)}
        for name, _, number, members in rows
    }


@pytest.fixture(scope="session")
def login_users(spec: Spec) -> frozenset[str]:
    """Who may log in: the spec's users, and the one that gets the launch key."""
    launch_user = {spec.image.launch_user} if spec.image.launch_user else set()
    return frozenset({user.name for user in spec.users} | launch_user)


Settings = dict[str, list[str]]


@pytest.fixture
def said_by_sshd(ask: Ask, login_users: frozenset[str]) -> str:
    """The version and the settings of sshd, as it tells them itself (`sshd -T`).

    A host key is made for the question, because a scrubbed guest has none. Where no file of the configuration can
    make a difference between users, the first one's settings are everybody's.
    """
    people = ["root", "nobody", *sorted(login_users)]
    connections = [f"{name} {OUTSIDE}" for name in people] + [f"root {INSIDE}"]
    return ask(SSHD.replace("%s", "\n".join(connections)))


@pytest.fixture
def sshd(said_by_sshd: str) -> dict[str, Settings]:
    """The settings that sshd applies, for each `user address`: root, a stranger, and all who may log in."""
    settings: dict[str, Settings] = {}
    connection = ""
    for line in said_by_sshd[said_by_sshd.index("## ") :].splitlines():
        keyword, _, value = line.partition(" ")
        if keyword == "##":
            connection = value
            settings[connection] = {}
        else:
            settings[connection].setdefault(keyword, []).append(value)
    first = next(iter(settings.values()))
    assert first, "sshd told nothing"
    return {connection: own or first for connection, own in settings.items()}


@pytest.fixture
def sshd_version(said_by_sshd: str) -> str:
    """The version of sshd, for people."""
    return said_by_sshd.partition("## ")[0].splitlines()[-1].split(",")[0]


@pytest.fixture
def programs(ask: Ask) -> frozenset[str]:
    """Which of the programs that checks need are there; `systemd` when it is running."""
    return frozenset(ask(PROGRAMS).split())


@pytest.fixture
def family(programs: frozenset[str]) -> str:
    """`debian` or `rpm`: how packages are managed."""
    return "debian" if "dpkg-query" in programs else "rpm"


def is_privileged(file: File) -> bool:
    """Return whether it is a set-user-id or set-group-id program."""
    return file.kind == "f" and bool(file.mode & 0o6000 and file.mode & 0o111)


def is_job(file: File) -> bool:
    """Return whether it is a system job of cron."""
    return file.kind in "fl" and file.under(*JOBS) and file.name != ".placeholder"


def is_pam_module(file: File) -> bool:
    """Return whether it is a module of PAM."""
    return file.folder.endswith("/security") and file.name.endswith(".so")


def is_signer(file: File) -> bool:
    """Return whether it holds keys that packages may be signed with."""
    return file.kind == "f" and (file.under(*SIGNERS) or file.path == "/etc/apt/trusted.gpg")


def is_boot_script(file: File) -> bool:
    """Return whether it goes into the initramfs, or is run to make it."""
    return file.kind == "f" and file.under(*BOOT_SCRIPTS)


FROM_PACKAGES: tuple[Kind, ...] = (is_privileged, is_job, is_pam_module, is_signer, is_boot_script)
"""The kinds of files that must have come with a package. The database is asked about all of them at once."""


@pytest.fixture
def unpackaged(ask: Ask, family: str) -> Callable[[Kind], list[str]]:
    """A function that returns the files of one of the kinds FROM_PACKAGES that no package brought."""
    files = select_from_packages(ask(PASSWD), ask(GROUP), ask(LISTING))

    def select(kind: Kind) -> list[str]:
        strange = find_unpackaged(ask, family, [file.path for file in files])
        return [file.path for file in files if kind(file) and file.path in strange]

    return select


@cache
def select_from_packages(users: str, groups: str, packed: str) -> tuple[File, ...]:
    """Return the entries of the listing that are FROM_PACKAGES, by path."""
    files = read_listing(users, groups, packed)
    return tuple(sorted((file for file in files if any(kind(file) for kind in FROM_PACKAGES)), key=str))


def find_unpackaged(ask: Ask, family: str, paths: list[str]) -> set[str]:
    """Return those of the paths that no package brought."""
    if not paths:
        return set()
    if family == "rpm":
        said = ask(f"LC_ALL=C rpm -qf {shlex.join(paths)} 2>&1; true")
        return set(re.findall(r"^file (.*) is not owned by any package$", said, re.MULTILINE))
    # Packages may know /usr/bin/x as /bin/x, from before the two folders became one.
    asked = [*paths, *(path.removeprefix("/usr") for path in paths if path.startswith("/usr"))]
    said = ask(f"dpkg-query -S {shlex.join(asked)} 2>/dev/null; true")
    owned = {line.partition(": ")[2].removeprefix("/usr") for line in said.splitlines()}
    return {path for path in paths if path.removeprefix("/usr") not in owned}


@pytest.fixture
def booted(ask: Ask) -> float:
    """When the kernel started, in seconds since 1970."""
    return float(ask("awk '$1 == \"btime\" { print $2 }' /proc/stat"))


@pytest.fixture
def first_boot(expectations: dict[str, str]) -> None:
    """Only at the first boot of an instance: what it made then is older than any later one, and its own."""
    if expectations.get("earlier_boot_id"):
        pytest.skip("what this instance made at its first boot is older than this one")


@pytest.fixture
def systemd(programs: frozenset[str]) -> None:
    """Only where systemd is running."""
    if "systemd" not in programs:
        pytest.skip("systemd is not running here")
