"""Facts are read from what a guest prints, and the questions run under every shell."""

import dataclasses
import os
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import GuestFailed
from pipeline.guest.facts import (
    MARK,
    QUESTIONS,
    Facts,
    FileSystem,
    Group,
    PasswordState,
    parse_facts,
    read_default_user,
)

FILES = {
    "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nVERSION_ID="12"\n'
    "VERSION_CODENAME=bookworm\nID=debian\n",
    "/etc/passwd": "root:x:0:0:root:/root:/bin/bash\nsync:x:4:65534:sync:/bin:/bin/sync\n+::::::\n"
    "admin:x:1000:1000:The Admin,,,:/home/admin:/bin/bash\nweb:x:999:999::/srv/my web:/usr/sbin/nologin\n"
    "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\nbare:x:1001:1001::/home/bare:\n",
    "/etc/group": "root:x:0:\nsudo:x:27:admin,bare\n",
    "/proc/self/mounts": "sysfs /sys sysfs rw 0 0\n/dev/vda1 / ext4 rw,relatime 0 0\n"
    "/dev/vdb /srv/my\\040web xfs rw 0 0\n",
    "/proc/swaps": "Filename\tType\tSize\tUsed\tPriority\n/swapfile file 1 0 -2\n",
    "/proc/sys/kernel/osrelease": "6.1.0-28-cloud-amd64\n",
    "/etc/cloud/cloud.cfg": "system_info:\n\n  default_user:\n    name: debian\n",
    "/etc/cloud/cloud.cfg.d/90-x.cfg": "system_info: {default_user: {name: admin}}\n",
}
DEBIAN = {
    "architecture": "x86_64\n",
    "kernels": "6.1.0-25-cloud-amd64\n6.1.0-28-cloud-amd64\n",
    "sshd_path": "/usr/sbin/sshd\n",
    "sshd_version": "unknown option -- V\nOpenSSH_9.2p1 Debian-2+deb12u3, OpenSSL 3.0.15\nusage: sshd [-46Dd]\n",
    "passwords": "odd one out\nroot locked\nadmin set\nbare empty\n",
    "init": "systemd\n",
    "cloud_init": "22.4.2-1+deb12u1",
    "commands": "apt-get\nnft\n",
}


def grepped(files: dict[str, str]) -> str:
    return "".join(f"{path}:{line}\n" for path, text in files.items() for line in text.splitlines())


def printed(answers: dict[str, str], files: dict[str, str]) -> str:
    sections = {"files": grepped(files), **answers, "end": ""}
    return "Welcome to this machine" + "".join(f"\n{MARK} {name}\n{text}" for name, text in sections.items())


def test_a_debian_guest() -> None:
    facts = parse_facts(printed(DEBIAN, FILES))
    assert (facts.family, facts.distribution, facts.version, facts.codename) == ("debian", "debian", "12", "bookworm")
    assert facts.kernel == facts.kernels[1] == "6.1.0-28-cloud-amd64"
    assert (facts.sshd_path, facts.sshd_version) == ("/usr/sbin/sshd", (9, 2))
    assert [user.name for user in facts.login_users] == ["root", "admin", "bare"]
    assert facts.homes == ("/bin", "/home/admin", "/home/bare", "/nonexistent", "/root", "/srv/my web")
    admin, bare, web = (facts.user(name) for name in ("admin", "bare", "web"))
    assert admin and admin.full_name == "The Admin" and admin.password is PasswordState.SET
    assert bare and bare.shell == "/bin/sh" and bare.password is PasswordState.EMPTY
    assert web and web.password is PasswordState.UNKNOWN and not web.may_log_in
    assert facts.groups[1] == Group("sudo", 27, ("admin", "bare"))
    assert facts.has_systemd and facts.cloud_init == "22.4.2-1+deb12u1" and facts.default_user == "admin"
    assert facts.root_file_system == FileSystem("/dev/vda1", "/", "ext4", ("rw", "relatime"))
    assert facts.file_systems[1].mount_point == "/srv/my web"
    assert facts.swaps == ("/swapfile",)
    assert (facts.package_manager, facts.administrators_group) == ("apt", "sudo")
    assert facts.user("nobody-such") is None


@pytest.mark.parametrize(
    ("release", "commands", "family", "manager"),
    [
        ('ID="amzn"\nID_LIKE="fedora"', "dnf yum", "redhat", "dnf"),
        ('ID="amzn"\nID_LIKE="centos rhel fedora"', "yum", "redhat", "yum"),
        ("ID=ubuntu\nID_LIKE=debian", "apt-get", "debian", "apt"),
        ("ID=linuxmint\nID_LIKE='ubuntu debian'", "apt-get", "debian", "apt"),
    ],
)
def test_families(release: str, commands: str, family: str, manager: str) -> None:
    facts = parse_facts(printed({"commands": commands}, {"/etc/os-release": release}))
    assert (facts.family, facts.package_manager) == (family, manager)
    assert facts.root_file_system is None and facts.sshd_version is None and facts.cloud_init is None


@pytest.mark.parametrize("text", ["", "PRETTY_NAME=Alpine\nID=alpine"])
def test_an_unknown_linux_is_refused(text: str) -> None:
    with pytest.raises(GuestFailed, match="the guest is"):
        parse_facts(printed({}, {"/etc/os-release": text}))


@pytest.mark.parametrize("cut", [1, 10, 100, 1000])
def test_an_answer_that_is_cut_short_is_refused(cut: int) -> None:
    with pytest.raises(GuestFailed, match="cut short"):
        parse_facts(printed(DEBIAN, FILES)[: -cut - len("nd\n")])


@pytest.mark.parametrize(
    ("config", "name"),
    [
        ([], None),
        (["[1, 2]"], None),
        (["system_info: {default_user: {name: ec2-user}}", "{{ broken: ["], "ec2-user"),
        (["system_info: {default_user: null}"], None),
    ],
)
def test_the_default_user(config: list[str], name: str | None) -> None:
    assert read_default_user({f"/etc/cloud/cloud.cfg.d/{n}.cfg": [text] for n, text in enumerate(config)}) == name


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(sorted(DEBIAN)), st.text(max_size=200)),
    st.dictionaries(st.sampled_from(sorted(FILES.keys() - {"/etc/os-release"})), st.text(max_size=200)),
)
def test_whatever_a_guest_answers_is_read(answers: dict[str, str], files: dict[str, str]) -> None:
    assert isinstance(parse_facts(printed({**DEBIAN, **answers}, {**FILES, **files})), Facts)


@pytest.mark.subprocess
@pytest.mark.parametrize("shell", ["dash", "busybox ash", "bash"])
def test_the_questions_run_here(shell: str) -> None:
    words = shell.split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    answer = subprocess.run([*words, "-s"], input=QUESTIONS, text=True, capture_output=True, check=True)
    assert answer.stderr == ""
    facts = parse_facts(answer.stdout)
    assert facts.kernel == os.uname().release and facts.architecture == os.uname().machine
    root = facts.user("root")
    assert root and root.uid == 0
    assert "awk" in facts.commands
    assert dataclasses.replace(facts) == facts
