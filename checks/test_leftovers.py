"""What work on a machine leaves behind: back-ups, caches, temporary files, spools, registrations, swap."""

import re

import pytest

from checks.fixtures import Account, Ask, File, kept
from pipeline.spec import Spec

ACCOUNT_BACKUPS = tuple(f"/etc/{name}-" for name in ("passwd", "shadow", "group", "gshadow", "subuid", "subgid"))
EDITED = re.compile(r"(\.bak|~|\.sw[op]|\.orig|\.(dpkg|ucf)-(old|new|dist|tmp|bak)|\.rpm(save|orig|new))$")
EDITED_PLACES = ("/etc", "/root", "/home", "/opt", "/srv", "/usr/local")
CACHES = ("/var/cache/dnf", "/var/cache/yum", "/var/lib/dnf/history", "/var/lib/yum/history")
HOME_CACHES = (".cache", ".npm", ".cargo/registry", ".m2/repository", ".gradle/caches", ".local/share/Trash")
SPOOLS = ("/var/mail", "/var/spool/mail", "/var/spool/cron", "/var/spool/at", "/var/spool/exim4/input", "/var/crash")
DUMPS = re.compile(r"^/var/lib/systemd/coredump/|^/var/lib/apport/coredump/|^(/root|/home/[^/]+)?/core(\.\d+)?$")
ENROLMENTS = (
    *("/var/lib/amazon/ssm", "/var/lib/ecs/data", "/etc/pki/consumer", "/etc/pki/entitlement", "/var/lib/rhsm"),
    *("/etc/puppetlabs/puppet/ssl", "/etc/puppet/ssl", "/var/lib/puppet/ssl", "/etc/salt/pki", "/var/lib/ipa-client"),
    *(
        "/var/lib/sss/db",
        "/var/lib/sss/secrets",
        "/var/lib/samba/private",
        "/var/lib/tailscale",
        "/var/lib/cloudflared",
    ),
    *("/var/lib/ubuntu-advantage/private", "/etc/letsencrypt/accounts", "/etc/letsencrypt/live", "/etc/ssl/private"),
    *("/etc/pki/tls/private", "/etc/swanctl/private", "/etc/cryptsetup-keys.d", "/etc/luks-keys", "/var/lib/tpm"),
)
ENROLMENT_FILES = ("/etc/krb5.keytab", "/etc/ipsec.secrets", "/etc/newrelic-infra.yml")
STAMPS = ("/var/lib/sudo/ts", "/var/lib/sudo/lectured", "/var/db/sudo", "/var/lib/faillock")
CHECKOUTS = (".git", ".svn", ".hg")

OLDER_THAN_THE_BOOT = r"""
booted=$(awk '$1 == "btime" { print $2 }' /proc/stat)
find /var/lib/apt/lists /var/cache/apt/archives /var/cache/dnf /var/cache/yum /var/lib/dnf/history /var/tmp \
  /var/lib/sudo/ts /var/db/sudo /var/lib/faillock -xdev -type f ! -newerct "@$((booted - 5))" 2>/dev/null
true
"""
"""By the time that only the kernel sets: the lists of apt bear the times of their servers."""


@pytest.mark.controls("S09", layers="L")
def test_no_back_up_of_accounts_ships(files: tuple[File, ...]) -> None:
    """No earlier version of the account files: it has users and hashes that are gone."""
    assert [str(file) for file in files if str(file) in ACCOUNT_BACKUPS or file.under("/var/backups")] == []


@pytest.mark.controls("S09", layers="LB")
def test_no_edited_file_has_a_twin(spec: Spec, files: tuple[File, ...]) -> None:
    """No back-up copy of an editor, a package manager or a hasty person."""
    twins = [file for file in files if file.kind == "f" and EDITED.search(file.name) and file.under(*EDITED_PLACES)]
    backups = [file for file in twins if str(file) not in ACCOUNT_BACKUPS and not kept(spec, file)]
    assert [str(file) for file in backups] == []


@pytest.mark.controls("S10", layers="L")
def test_the_user_of_the_build_has_no_key(spec: Spec, accounts: dict[str, Account], files: tuple[File, ...]) -> None:
    """No key opens the account that the build logged in to, unless the spec has it; the power-off takes its sudo."""
    if spec.ssh.user in {user.name for user in spec.users}:
        pytest.skip(f"the spec keeps {spec.ssh.user}, the user of the build, with the keys that it names")
    assert spec.ssh.user in accounts, "it is the user of this session"
    folder = f"{accounts[spec.ssh.user].home}/.ssh"
    keys = [file for file in files if file.folder == folder and file.name.startswith("authorized_keys") and file.size]
    assert [str(file) for file in keys] == []


@pytest.mark.controls("S10", layers="B")
def test_the_user_of_the_build_is_gone(
    spec: Spec, accounts: dict[str, Account], login_users: frozenset[str], files: tuple[File, ...]
) -> None:
    """The user that the build logged in as is gone with its home, unless the spec has it."""
    if spec.ssh.user in login_users:
        pytest.skip(f"the spec keeps {spec.ssh.user}, the user of the build")
    assert spec.ssh.user not in accounts
    assert [str(file) for file in files if str(file) == f"/home/{spec.ssh.user}"] == []


@pytest.mark.controls("S15", layers="L")
def test_no_package_cache_ships(files: tuple[File, ...]) -> None:
    """No package, list or history of a package manager."""
    lists = [one for one in files if one.under("/var/lib/apt/lists", "/var/cache/apt") and one.name != "lock"]
    found = [one for one in (*lists, *(one for one in files if one.under(*CACHES))) if one.kind == "f" and one.size]
    assert [str(file) for file in found][:20] == []


@pytest.mark.controls("S15", layers="L")
def test_no_cache_of_a_user_ships(files: tuple[File, ...], accounts: dict[str, Account]) -> None:
    """No user's cache: of pip, npm, browsers, bins."""
    homes = {account.home.rstrip("/") for account in accounts.values()} - {"", "/"}
    places = tuple(f"{home}/{cache}" for home in homes for cache in HOME_CACHES)
    assert [str(file) for file in files if file.under(*places) and file.kind == "f"] == []


@pytest.mark.controls("S16", layers="L")
def test_no_temporary_file_ships(files: tuple[File, ...]) -> None:
    """Nothing is in /tmp and /var/tmp, hidden or not; the private folders of running services are empty."""
    found = [file for file in files if file.under("/tmp", "/var/tmp")]
    assert [str(file) for file in found if not (file.kind == "d" and "/systemd-private-" in str(file))] == []


@pytest.mark.controls("S15", "S16", "S20", layers="B")
def test_no_cache_or_temporary_file_is_older_than_the_boot(ask: Ask, first_boot: None) -> None:
    """What a fresh instance has of lists, packages, temporary files and time stamps, it made itself."""
    assert [path for path in ask(OLDER_THAN_THE_BOOT).splitlines() if not path.endswith("/lock")] == []


@pytest.mark.controls("S17", layers="LB")
def test_no_mail_or_job_ships(files: tuple[File, ...]) -> None:
    """No mail, no job, no crash report waits in a spool."""
    found = [file for file in files if file.under(*SPOOLS) and file.kind == "f" and file.size]
    assert [str(file) for file in found if file.name not in (".SEQ", ".placeholder")] == []


@pytest.mark.controls("S17", layers="LB")
def test_no_core_dump_ships(files: tuple[File, ...]) -> None:
    """No memory of a process lies on the disk."""
    assert [str(file) for file in files if DUMPS.search(str(file)) and file.kind == "f"] == []


@pytest.mark.controls("S18", layers="L")
def test_no_enrolment_ships(spec: Spec, files: tuple[File, ...]) -> None:
    """No agent is registered, and no service or disk has a certificate, a key or a secret of its own."""
    found = [file for file in files if (file.under(*ENROLMENTS) or str(file) in ENROLMENT_FILES) and file.kind == "f"]
    assert [str(file) for file in found if file.size and not kept(spec, file)] == []


@pytest.mark.controls("S19", layers="LB")
def test_no_checkout_ships(spec: Spec, files: tuple[File, ...]) -> None:
    """No version-control folder: it remembers what was deleted."""
    folders = [file for file in files if file.kind == "d" and file.name in CHECKOUTS]
    assert [str(file) for file in folders if not kept(spec, file)] == []


@pytest.mark.controls("S19", layers="L")
def test_no_container_layer_ships(spec: Spec, files: tuple[File, ...]) -> None:
    """No layer of a container: deleted layers keep their secrets."""
    places = (
        "/var/lib/docker/overlay2",
        "/var/lib/containers/storage",
        "/var/lib/containerd/io.containerd.content.v1.content",
    )
    assert [str(file) for file in files if file.under(*places) and file.kind == "f" and not kept(spec, file)][:20] == []


@pytest.mark.controls("S20", layers="L")
def test_no_time_stamp_ships(files: tuple[File, ...]) -> None:
    """Nobody is still trusted from a password that was typed during the build."""
    assert [str(file) for file in files if file.under(*STAMPS) and file.kind == "f"] == []


@pytest.mark.controls("S21", layers="LB")
def test_no_swap_on_the_disk(ask: Ask, files: tuple[File, ...]) -> None:
    """No memory is swapped to the disk, and no hibernation image is there."""
    lines = ask("cat /proc/swaps 2>/dev/null || true").splitlines()[1:]
    areas = [line.split()[0] for line in lines if "zram" not in line.split()[0]]
    names = ("swapfile", "swap.img", "hiberfile", "hibfile.sys")
    ready = [str(file) for file in files if file.name in names and file.kind == "f" and file.folder == ""]
    assert areas + ready == []
