"""A hundred and twenty checks as people write them with testinfra: each asks the guest for what it needs."""

import pytest

FILES = (
    *("/etc/passwd", "/etc/group", "/etc/hosts", "/etc/fstab", "/etc/profile", "/etc/bash.bashrc", "/etc/login.defs"),
    *(
        "/etc/debian_version",
        "/etc/os-release",
        "/etc/issue",
        "/etc/host.conf",
        "/etc/nsswitch.conf",
        "/etc/ld.so.conf",
    ),
    *("/etc/adduser.conf", "/etc/deluser.conf", "/etc/environment", "/etc/shells", "/etc/gai.conf", "/etc/pam.conf"),
    *("/etc/ssh/sshd_config", "/etc/ssh/ssh_config", "/etc/ssh/moduli", "/etc/crontab", "/etc/sysctl.conf"),
    *("/etc/pam.d/sshd", "/etc/pam.d/login", "/etc/pam.d/su", "/etc/pam.d/passwd", "/etc/pam.d/common-auth"),
)
FOLDERS = (
    "/",
    "/etc",
    "/usr",
    "/usr/bin",
    "/usr/lib",
    "/var",
    "/var/lib",
    "/var/log",
    "/home",
    "/opt",
    "/srv",
    "/boot",
)
PROGRAMS = ("bash", "dash", "cat", "ls", "sed", "grep", "find", "tar", "gzip", "passwd", "su", "sudo", "ssh", "apt-get")
PACKAGES = (
    *("apt", "base-files", "base-passwd", "bash", "coreutils", "dash", "debianutils", "diffutils", "dpkg", "findutils"),
    *("grep", "gzip", "hostname", "libc-bin", "login", "mount", "openssh-server", "passwd", "sed", "sudo", "tar"),
)
ABSENT = ("telnetd", "rsh-server", "nis", "xinetd", "vsftpd", "proftpd-basic", "tftpd", "talkd")
SYSTEM_USERS = ("daemon", "bin", "sys", "games", "man", "lp", "mail", "news", "uucp", "proxy", "www-data", "backup")
GROUPS = {"root": 0, "daemon": 1, "tty": 5, "disk": 6, "mail": 8, "shadow": 42, "utmp": 43, "staff": 50, "users": 100}
SSHD = ("PasswordAuthentication no", "PermitRootLogin no", "PermitEmptyPasswords no", "X11Forwarding no", "UseDNS no")


@pytest.mark.parametrize("path", FILES)
def test_file_is_not_writable_by_others(host, path):
    assert not host.file(path).mode & 0o022


@pytest.mark.parametrize("path", FOLDERS)
def test_folder_is_root_s(host, path):
    assert host.file(path).user == "root"


@pytest.mark.parametrize("name", PROGRAMS)
def test_program_is_there(host, name):
    assert host.exists(name)


@pytest.mark.parametrize("name", PACKAGES)
def test_package_is_installed(host, name):
    assert host.package(name).is_installed


@pytest.mark.parametrize("name", ABSENT)
def test_package_is_not_installed(host, name):
    assert not host.package(name).is_installed


@pytest.mark.parametrize("name", SYSTEM_USERS)
def test_system_user_has_no_shell(host, name):
    assert host.user(name).shell == "/usr/sbin/nologin"


@pytest.mark.parametrize(("name", "number"), GROUPS.items())
def test_group_has_its_number(host, name, number):
    assert host.group(name).gid == number


@pytest.mark.parametrize("line", SSHD)
def test_sshd_is_told(host, line):
    assert host.file("/etc/ssh/sshd_config.d/00-good.conf").contains(f"^{line}$")


@pytest.mark.parametrize("name", ["ada", "admin"])
def test_user_has_a_private_folder_for_keys(host, name):
    folder = host.file(f"/home/{name}/.ssh")
    assert (folder.user, folder.group, folder.mode) == (name, name, 0o700)


@pytest.mark.parametrize("name", ["ada", "admin"])
def test_user_has_a_home(host, name):
    user = host.user(name)
    assert (user.home, user.shell, user.group) == (f"/home/{name}", "/bin/bash", name)


@pytest.mark.parametrize("path", ["/etc/shadow", "/etc/gshadow"])
def test_hashes_are_private(host, path):
    file = host.file(path)
    assert (file.user, file.group, file.mode) == ("root", "shadow", 0o640)


@pytest.mark.parametrize("path", ["/etc/shadow-", "/etc/machine-info", "/root/.ssh/authorized_keys", "/root/.aws"])
def test_nothing_is_there(host, path):
    assert not host.file(path).exists
