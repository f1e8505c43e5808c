"""Scrubbing a real Debian: everything that was planted is gone, what is declared stays, a second run finds nothing."""

import shutil
import subprocess

import pytest

from pipeline.harden import harden_steps
from pipeline.scrub import scrub_steps
from tests.harden.samples import KEY, STRANGE_KEY, Debian, failures, make_debian, outcomes, spec

pytestmark = pytest.mark.end_to_end

SPEC = spec(
    ssh={"user": "builder"},
    harden={"updates": None, "kernel": None},
    scrub={
        "free_space": False,
        "keep_files": ["/root/.aws/config", "/etc/kept.bak", "/opt/kept"],
        "forbid": [
            {"reason": "not ours to give", "paths": ["/opt/vendor/*.key", "/srv/data of c*"], "packages": ["vim"]}
        ],
    },
)

PLANTED = {
    "S01": [
        "/etc/ssh/ssh_host_rsa_key",
        "/etc/ssh/ssh_host_rsa_key-cert.pub",
        "/etc/ssh/other_host_key",
        "/etc/ssh/other_host_key.pub",
    ],
    "S02": [
        "/root/.ssh/authorized_keys",
        "/home/john/.ssh/authorized_keys2",
        "/home/admin/.ssh/authorized_keys",
        "/home/gone/.ssh/authorized_keys",
        "/var/lib/service/.ssh/authorized_keys",
        "/etc/ssh/keys/service",
        "/etc/ssh/users_ca.pub",
    ],
    "S03": [
        "/root/.ssh/id_rsa",
        "/home/john/.ssh/known_hosts",
        "/home/john/.ssh/config",
        "/home/john/key.pem",
        "/root/putty.ppk",
    ],
    "S04": [
        "/root/.bash_history",
        "/home/john/.zsh_history",
        "/home/john/.python_history",
        "/root/.lesshst",
        "/root/.viminfo",
    ],
    "S05": ["/root/pk-ABC.pem", "/root/cert-ABC.pem", "/home/john/.ec2/pk.pem"],
    "S06": [
        "/root/.aws/credentials",
        "/home/john/.boto",
        "/home/john/.s3cfg",
        "/home/john/.config/gcloud/credentials.db",
    ],
    "S07": [
        "/root/.netrc",
        "/home/john/.pgpass",
        "/root/.docker/config.json",
        "/home/john/.kube/config",
        "/opt/app/.env",
    ],
    "S08": ["/etc/apt/auth.conf", "/etc/apt/auth.conf.d/private.conf"],
    "S09": [
        "/etc/shadow-",
        "/etc/app.conf.bak",
        "/etc/app.conf~",
        "/etc/.app.conf.swp",
        "/etc/x.dpkg-old",
        "/var/backups/passwd.bak",
    ],
    "S11": ["/var/lib/cloud/instances/i-1/user-data.txt", "/var/log/cloud-init.log", "/etc/netplan/50-cloud-init.yaml"],
    "S12": [
        "/etc/nvme/hostid",
        "/var/lib/systemd/random-seed",
        "/var/lib/systemd/credential.secret",
        "/var/lib/dbus/machine-id",
    ],
    "S13": ["/var/lib/dhcp/dhclient.leases", "/etc/udev/rules.d/70-persistent-net.rules"],
    "S14": ["/var/log/auth.log", "/var/log/wtmp", "/var/log/journal/abc/system.journal", "/var/lib/logrotate/status"],
    "S15": ["/var/lib/apt/lists/some_Packages", "/var/cache/apt/archives/x.deb", "/root/.cache/pip/x"],
    "S16": ["/tmp/x", "/tmp/.hidden", "/var/tmp/packer/x"],
    "S17": ["/var/mail/root", "/var/spool/cron/crontabs/root", "/var/crash/x.crash", "/root/core"],
    "S18": [
        "/var/lib/amazon/ssm/registration",
        "/etc/ssl/private/server.key",
        "/etc/krb5.keytab",
        "/etc/cryptsetup-keys.d/data.key",
        "/var/lib/tpm/system.data",
    ],
    "S19": ["/opt/app/.git/config", "/home/john/src/.git/config", "/var/lib/docker/overlay2/a/x"],
    "S20": ["/var/lib/sudo/ts/john", "/var/lib/sudo/lectured/john"],
    "S21": ["/swapfile"],
    "S23": ["/opt/vendor/licence.key", "/srv/data of customers/list"],
    "S10": ["/etc/sudoers.d/90-cloud-init-users", "/etc/ssh/sshd_config.d/01-assay-build.conf"],
    "H27": ["/home/john/deep/in/a/folder/key-without-a-name", "/opt/app/tls"],
}
KEPT = [
    "/root/.aws/config",
    "/etc/kept.bak",
    "/opt/kept/.git/config",
    "/home/john/notes",
    "/home/john/certificates/public/roots.pem",
]
PRIVATE = ("/home/john/deep/in/a/folder/key-without-a-name", "/opt/app/tls")
BEGIN = "-----BEGIN " + "PRIVATE KEY-----\n"


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Debian:
    """A hardened Debian with everything planted, and scrubbed."""
    made = make_debian(tmp_path_factory.mktemp("scrub"))
    made.run(
        "useradd -m -s /bin/bash admin; useradd -m builder; useradd -r -m -d /var/lib/service -s /bin/false service"
    )
    made.write(
        "/etc/ssh/sshd_config.d/10-old.conf",
        "AuthorizedKeysFile /etc/ssh/keys/%u\nTrustedUserCAKeys /etc/ssh/users_ca.pub\n",
    )
    assert failures(made.perform(harden_steps(made.facts(), SPEC))) == []
    for path in (path for paths in PLANTED.values() for path in paths):
        content = BEGIN if path in PRIVATE else STRANGE_KEY + "\n" if ".ssh/" in path else "planted\n"
        made.write(path, content)
    for path in KEPT:
        made.write(path, "kept\n")
    made.write("/etc/ssh/sshd_config.d/20-host.conf", "HostKey /etc/ssh/other_host_key\n")
    made.write("/home/john/.ssh/authorized_keys", f"{KEY}\n{STRANGE_KEY}\n")
    made.write("/etc/environment", "LANG=C\nhttp_proxy=http://user:password@proxy:3128\nAWS_SECRET_ACCESS_KEY=abc\n")
    made.write("/root/.profile", "export PATH=$PATH:/opt\nexport EC2_PRIVATE_KEY=/root/pk.pem\n")
    made.run("echo 'root:of a boot\nservice:of old' | chpasswd; usermod -L root; usermod -L service")
    made.write("/etc/machine-id", "0123456789abcdef0123456789abcdef\n")
    made.write("/etc/iscsi/initiatorname.iscsi", "InitiatorName=iqn.2004-10.com.ubuntu:01:3a1c\n")
    made.write("/etc/fstab", "/dev/vda1 / ext4 defaults 0 1\n/swapfile none swap sw 0 0\n")
    assert failures(made.perform(scrub_steps(made.facts(), SPEC))) == []
    return made


@pytest.mark.parametrize("control", PLANTED)
def test_what_was_planted_is_gone(debian: Debian, control: str) -> None:
    assert [path for path in PLANTED[control] if debian.has(path)] == []


def test_a_second_run_finds_nothing(debian: Debian) -> None:
    again = debian.perform(scrub_steps(debian.facts(), SPEC))
    assert {title: outcome for title, outcome in outcomes(again).items() if outcome != "ok"} == {}


def test_what_cannot_be_emptied_is_removed_all_the_same(debian: Debian) -> None:
    """Nobody may write to a running program; on Debian's own kernel not even root to others' files in /tmp."""
    shutil.copy(debian.root / "bin/sleep", debian.root / "tmp/running")
    (step,) = (step for step in scrub_steps(debian.facts(), SPEC) if step.title.startswith("remove temporary files"))
    with subprocess.Popen(["chroot", str(debian.root), "/tmp/running", "600"]) as running:
        try:
            assert failures(debian.perform((step,))) == []
        finally:
            running.terminate()
    assert not debian.has("/tmp/running")


def test_what_is_declared_stays(debian: Debian) -> None:
    assert [path for path in KEPT if not debian.has(path)] == []
    assert debian.read("/home/john/.ssh/authorized_keys") == KEY + "\n"
    assert debian.run("stat -c '%a %U' /home/john/.ssh/authorized_keys") == "600 john\n"


def test_settings_keep_all_but_their_credentials(debian: Debian) -> None:
    assert debian.read("/etc/environment") == "LANG=C\nhttp_proxy=http://proxy:3128\n"
    assert debian.read("/root/.profile") == "export PATH=$PATH:/opt\n"
    assert debian.read("/etc/fstab").startswith("/dev/vda1 / ext4 defaults 0 1\n# /swapfile none swap")


def test_no_hash_of_a_password_stays(debian: Debian) -> None:
    assert debian.run("getent shadow root service | cut -d : -f 1,2") == "root:!\nservice:!\n"
    assert not debian.has("/etc/shadow-")


def test_the_machine_id_is_empty_and_there(debian: Debian) -> None:
    assert debian.read("/etc/machine-id") == ""


def test_the_name_in_a_storage_network_is_made_anew(debian: Debian) -> None:
    assert debian.run("cat /etc/iscsi/initiatorname.iscsi") == "GenerateName=yes\n"


def test_folders_of_logs_stay(debian: Debian) -> None:
    assert (debian.root / "var/log/apt").is_dir()
    assert (debian.root / "var/lib/cloud").is_dir()


def test_the_session_that_scrubs_can_go_on(debian: Debian) -> None:
    """sudo works for the build's user until the power-off, which is told to take it along (S10)."""
    assert "NOPASSWD: ALL" in debian.run("sudo -l -U builder")
