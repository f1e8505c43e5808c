"""The baseline of the kernel, as it is in effect: whatever file came last."""

import re

import pytest

from checks.fixtures import Ask
from pipeline.spec import KernelOptions, Spec

BASELINE = {
    "dev/tty/ldisc_autoload": "0",
    "fs/protected_fifos": "1 2",
    "fs/protected_hardlinks": "1",
    "fs/protected_regular": "1 2",
    "fs/protected_symlinks": "1",
    "fs/suid_dumpable": "0",
    "kernel/core_uses_pid": "1",
    "kernel/dmesg_restrict": "1",
    "kernel/kptr_restrict": "1 2",
    "kernel/perf_event_paranoid": "3 4",
    "kernel/randomize_va_space": "2",
    "kernel/sysrq": "0",
    "kernel/unprivileged_bpf_disabled": "1 2",
    "kernel/yama/ptrace_scope": "1 2 3",
    "net/core/bpf_jit_harden": "2",
    "net/ipv4/conf/all/accept_redirects": "0",
    "net/ipv4/conf/all/accept_source_route": "0",
    "net/ipv4/conf/all/log_martians": "1",
    "net/ipv4/conf/all/rp_filter": "1 2",
    "net/ipv4/conf/all/secure_redirects": "0",
    "net/ipv4/conf/all/send_redirects": "0",
    "net/ipv4/conf/default/accept_redirects": "0",
    "net/ipv4/conf/default/accept_source_route": "0",
    "net/ipv4/conf/default/rp_filter": "1 2",
    "net/ipv4/conf/default/send_redirects": "0",
    "net/ipv4/icmp_echo_ignore_broadcasts": "1",
    "net/ipv4/icmp_ignore_bogus_error_responses": "1",
    "net/ipv4/tcp_syncookies": "1",
    "net/ipv6/conf/all/accept_redirects": "0",
    "net/ipv6/conf/all/accept_source_route": "0",
    "net/ipv6/conf/default/accept_redirects": "0",
}
"""What dev-sec's linux-baseline and the CIS benchmarks ask of a server: for each setting the values that will do."""
UNWANTED = ("cramfs", "freevxfs", "jffs2", "hfs", "hfsplus", "dccp", "sctp", "rds", "tipc", "usb_storage")
"""File systems, protocols and devices that CIS wants off."""
STATE = rf"""
PATH=$PATH:/usr/sbin:/sbin
modprobe --showconfig | sed -n 's/^install //p'
echo --
cut -d ' ' -f 1 /proc/modules
echo --
(cd /proc/sys && grep -s '' {" ".join(BASELINE)})
echo --
cat /etc/security/limits.conf /etc/security/limits.d/*.conf 2>/dev/null
true
"""
"""What is installed instead of modules, which are loaded, the settings, and the limits of logins: one question."""


@pytest.fixture
def wanted(spec: Spec) -> KernelOptions:
    """What the spec says of the kernel."""
    if spec.harden.kernel is None:
        pytest.skip("the spec leaves the kernel as the base image has it (harden.kernel)")
    return spec.harden.kernel


@pytest.fixture
def state(wanted: KernelOptions, ask: Ask) -> list[str]:
    """The four parts of what the guest says."""
    return ask(STATE).split("--\n", 3)


@pytest.mark.controls("H25", layers="LB")
def test_settings(state: list[str]) -> None:
    """The settings of the running kernel are those of the baseline; one that it does not know cannot be wrong."""
    found = dict(line.split(":", 1) for line in state[2].splitlines())
    assert len(found) > len(BASELINE) // 2, "the kernel's settings could not be read"
    assert {name: value for name, value in found.items() if value not in BASELINE[name].split()} == {}


@pytest.mark.controls("H25", layers="LB")
def test_modules(wanted: KernelOptions, state: list[str]) -> None:
    """Modules that no server needs are not loaded, and cannot be."""
    if not wanted.deny_modules:
        pytest.skip("the spec lets all modules be loaded (harden.kernel.deny_modules)")
    installs, loaded, *_ = state
    commands: dict[str, set[str]] = {}
    for module, command in (line.split(" ", 1) for line in installs.splitlines()):
        commands.setdefault(module.replace("-", "_"), set()).add(command.strip())
    nothing = {"/bin/false", "/bin/true", "/usr/bin/false", "/usr/bin/true"}
    assert [module for module in UNWANTED if not commands.get(module) or commands[module] - nothing] == []
    assert set(UNWANTED) & set(loaded.split()) == set()


@pytest.mark.controls("H25", layers="LB")
def test_core_dumps(state: list[str]) -> None:
    """Logins write no core dumps: the last limit for everybody is a hard one of nothing."""
    limits = re.findall(r"^\s*\*\s+(?:hard|-)\s+core\s+(\S+)", state[3], re.MULTILINE)
    assert limits[-1:] == ["0"]
