"""The same operations for a step program, for a script by hand, for Ansible and for pyinfra.

Each is what the tool's own manual says for it: a module of Ansible's, an operation of pyinfra's, and for the two shells
a test and an action. They are the mix that a hardening is made of.
"""

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pipeline.guest.step import Step


@dataclass(frozen=True)
class Operation:
    """One thing that is to be so on the target, in four languages."""

    title: str
    test: str
    action: str
    ansible: dict[str, Any]
    """A module and its arguments, as a task of a playbook."""
    pyinfra: str
    """A line of a deploy."""

    def step(self) -> Step:
        """Return it as a step of a guest program."""
        return Step("bench", (), self.title, self.action, self.test)

    def by_hand(self, verify: bool) -> str:
        """Return it as somebody writes it in a script; with `verify` it is tested again after it was done."""
        test = f"{{ {self.test}\n}} >/dev/null 2>&1"
        again = f" && {test}" if verify else ""
        return f"if {test}; then echo ok; else {{ {self.action}\n}}{again} && echo changed; fi || exit"

    def task(self) -> dict[str, Any]:
        """Return it as a task of a playbook."""
        return {"name": self.title, **self.ansible}


def file(path: str, content: str, mode: str) -> Operation:
    """A whole file, and its mode."""
    return Operation(
        f"file {path}",
        f"[ \"$(stat -c %a {path})\" = {mode} ] && cmp -s - {path} <<'END'\n{content}END",
        f"printf %s {shlex.quote(content)} >{path} && chmod {mode} {path}",
        {"ansible.builtin.copy": {"dest": path, "content": content, "mode": f"0{mode}"}},
        f"files.put(src=StringIO({content!r}), dest={path!r}, mode={mode!r})",
    )


def line(path: str, key: str, value: str) -> Operation:
    """One line of a file that has others, in place of the one with the same key, commented out or not."""
    wanted, pattern = f"{key} {value}", f"^#?{key}[[:space:]].*$"
    return Operation(
        f"line {key} in {path}",
        f"grep -qx '{wanted}' {path}",
        f"if grep -qE '{pattern}' {path}; then sed -E -i 's/{pattern}/{wanted}/' {path}; "
        f"else echo '{wanted}' >>{path}; fi",
        {"ansible.builtin.lineinfile": {"path": path, "regexp": rf"^#?{key}\s", "line": wanted}},
        f"files.line(path={path!r}, line={pattern!r}, replace={wanted!r}, extended_regex=True)",
    )


def sysctl(name: str, value: str, path: str = "/etc/sysctl.d/90-bench.conf") -> Operation:
    """A setting of the kernel, now and at each boot."""
    return Operation(
        f"sysctl {name}",
        f'[ "$(sysctl -n {name})" = "{value}" ] && grep -qxE "{name} ?= ?{value}" {path}',
        f'sysctl -qw {name}="{value}" && {{ [ ! -e {path} ] || sed -i "/^{name} /d" {path}; }} && '
        f'echo "{name} = {value}" >>{path}',
        {"ansible.posix.sysctl": {"name": name, "value": value, "sysctl_file": path, "sysctl_set": True}},
        f"server.sysctl(key={name!r}, value={value!r}, persist=True, persist_file={path!r})",
    )


def group(name: str) -> Operation:
    """A group."""
    return Operation(
        f"group {name}",
        f"getent group {name} >/dev/null",
        f"groupadd {name}",
        {"ansible.builtin.group": {"name": name}},
        f"server.group(group={name!r})",
    )


def user(name: str, primary: str, comment: str) -> Operation:
    """A user, with group, name and shell."""
    return Operation(
        f"user {name}",
        f"grep -q '^{name}:.*:{comment}:/home/{name}:/bin/bash$' /etc/passwd && [ \"$(id -gn {name})\" = {primary} ]",
        f"useradd --no-create-home --gid {primary} --comment '{comment}' --shell /bin/bash {name}",
        {
            "ansible.builtin.user": {
                "name": name,
                "group": primary,
                "comment": comment,
                "shell": "/bin/bash",
                "create_home": False,
            }
        },
        f"server.user(user={name!r}, group={primary!r}, comment={comment!r}, shell='/bin/bash', ensure_home=False)",
    )


def permission(path: str, mode: str, owner: str = "root") -> Operation:
    """Mode and owner of a file that exists."""
    return Operation(
        f"permissions of {path}",
        f'[ "$(stat -c "%a %U" {path})" = "{mode} {owner}" ]',
        f"chmod {mode} {path} && chown {owner} {path}",
        {"ansible.builtin.file": {"path": path, "mode": f"0{mode}", "owner": owner}},
        f"files.file(path={path!r}, mode={mode!r}, user={owner!r})",
    )


def service(unit: str) -> Operation:
    """Ask whether a unit is enabled."""
    command = f"systemctl is-enabled {unit}"
    return Operation(
        f"service {unit}",
        f"{command} || :",
        "false",
        {"ansible.builtin.command": command, "changed_when": False, "failed_when": False},
        f"server.shell(commands=[{f'{command} || :'!r}])",
    )


SSHD = {
    "PermitRootLogin": "prohibit-password",
    "MaxAuthTries": "3",
    "LoginGraceTime": "30",
    "X11Forwarding": "no",
    "AllowTcpForwarding": "no",
    "ClientAliveInterval": "300",
    "PermitEmptyPasswords": "no",
    "LogLevel": "VERBOSE",
}
LOGIN = {"UMASK": "027", "PASS_MIN_DAYS": "1", "LOGIN_RETRIES": "3", "ENCRYPT_METHOD": "YESCRYPT"}
KERNEL = {
    "kernel.msgmax": "16384",
    "kernel.msgmnb": "32768",
    "kernel.msgmni": "16000",
    "kernel.shmmni": "2048",
    "kernel.shmmax": "68719476736",
    "kernel.shmall": "4294967296",
    "kernel.shm_rmid_forced": "1",
    "kernel.domainname": "bench.example",
}
"""Settings that a namespace has for itself: the machine that runs the benchmark keeps its own."""
PERMISSIONS = {
    "/etc/passwd": "644",
    "/etc/group": "644",
    "/etc/shadow": "600",
    "/etc/gshadow": "600",
    "/etc/sudoers": "400",
    "/etc/login.defs": "600",
    "/etc/ssh/sshd_config": "600",
    "/etc/fstab": "600",
    "/etc/securetty": "600",
    "/etc/pam.d/su": "640",
    "/etc/pam.d/sshd": "640",
    "/etc/pam.d/sudo": "640",
}
UNITS = (
    "ssh",
    "systemd-timesyncd",
    "getty@",
    "apt-daily.timer",
    "unattended-upgrades",
    "rsync",
    "cron",
    "fstrim.timer",
)


def operations() -> list[Operation]:
    """Return all of them, in the order in which they are done."""
    return list(every_operation())


def every_operation() -> Iterator[Operation]:
    """Yield the mix: files, lines, settings of the kernel, accounts, permissions, questions about services."""
    for number in range(12):
        text = "".join(f"# {number}: a line of a file of configuration\nkey-{each} = {each}\n" for each in range(20))
        yield file(f"/etc/bench.d/{number:02}.conf", text, "640")
    yield from (line("/etc/ssh/sshd_config", key, value) for key, value in SSHD.items())
    yield from (line("/etc/login.defs", key, value) for key, value in LOGIN.items())
    yield from (sysctl(name, value) for name, value in KERNEL.items())
    yield from (group(f"team-{number}") for number in range(6))
    yield from (user(f"person-{number}", f"team-{number % 6}", f"Person {number}") for number in range(8))
    yield from (permission(path, mode) for path, mode in PERMISSIONS.items())
    yield from (service(unit) for unit in UNITS)
