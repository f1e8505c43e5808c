"""The baseline of the kernel (H25): the part of dev-sec's and CIS's that a server does not notice."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.managed_file import ManagedFile
from pipeline.spec import KernelOptions

SETTINGS = {
    "dev.tty.ldisc_autoload": "0",
    "fs.protected_fifos": "2",
    "fs.protected_hardlinks": "1",
    "fs.protected_regular": "2",
    "fs.protected_symlinks": "1",
    "fs.suid_dumpable": "0",
    "kernel.core_uses_pid": "1",
    "kernel.dmesg_restrict": "1",
    "kernel.kptr_restrict": "2",
    "kernel.perf_event_paranoid": "3",
    "kernel.randomize_va_space": "2",
    "kernel.sysrq": "0",
    "kernel.unprivileged_bpf_disabled": "1",
    "kernel.yama.ptrace_scope": "1",
    "net.core.bpf_jit_harden": "2",
    "net.ipv4.icmp_echo_ignore_broadcasts": "1",
    "net.ipv4.icmp_ignore_bogus_error_responses": "1",
    "net.ipv4.tcp_rfc1337": "1",
    "net.ipv4.tcp_syncookies": "1",
    **{
        f"net.{family}.conf.{scope}.{name}": value
        for scope in ("all", "default")
        for family, name, value in (
            ("ipv4", "accept_redirects", "0"),
            ("ipv4", "accept_source_route", "0"),
            ("ipv4", "log_martians", "1"),
            ("ipv4", "rp_filter", "1"),
            ("ipv4", "secure_redirects", "0"),
            ("ipv4", "send_redirects", "0"),
            ("ipv6", "accept_redirects", "0"),
            ("ipv6", "accept_source_route", "0"),
        )
    },
}
"""Forwarding is left alone: containers need it."""

MODULES = "cramfs dccp freevxfs hfs hfsplus jffs2 rds sctp tipc firewire-core firewire-ohci usb-storage"
"""File systems and protocols that no server on EC2 needs, and that have had holes."""

MAY_BE_MISSING = (
    *("dev.tty.", "kernel.perf_", "kernel.sysrq", "kernel.unprivileged_bpf_", "kernel.yama."),
    *("net.core.bpf_", "net.ipv6."),
)
"""A kernel without these is no error: a hyphen says so (sysctl.d(5)). The others have none, because OpenSCAP reads no
line that begins with one."""
SYSCTL = ManagedFile(
    "/etc/sysctl.d/90-assay.conf",
    "# Written by Assay.\n"
    + "".join(f"{'-' * name.startswith(MAY_BE_MISSING)}{name} = {value}\n" for name, value in SETTINGS.items()),
)
DENY_LIST = ManagedFile(
    "/etc/modprobe.d/90-assay.conf",
    "# Written by Assay: these are never loaded.\n"
    + "".join(f"install {module} /bin/false\n" for module in MODULES.split()),
)
NO_CORES = ManagedFile("/etc/security/limits.d/90-assay.conf", "# Written by Assay: no core dumps.\n* hard core 0\n")

SETTINGS_LIST = assign(
    settings="\n".join(f"/proc/sys/{name.replace('.', '/')} {value}" for name, value in SETTINGS.items())
)

ARE_SET = r"""
values=
set --
while read -r file wanted; do
    if [ -e "$file" ]; then
        set -- "$@" "$file"
        values="$values$wanted
"
    fi
done <<LIST
$settings
LIST
[ "$(cat "$@")" = "${values%?}" ]
"""
"""One `cat` for all: the kernel gives a setting in one piece, and the shell's own `read` asks for it byte by byte."""

SET = r"""
while read -r file wanted; do
    if [ -e "$file" ]; then printf '%s\n' "$wanted" >"$file"; fi
done <<LIST
$settings
LIST
"""

IS_APPORT_OFF = "! systemctl --quiet is-enabled apport.service 2>/dev/null"
SWITCH_APPORT_OFF = """
if [ -d /run/systemd/system ]; then systemctl stop apport.service; fi
systemctl --quiet disable apport.service
"""
"""Ubuntu's: at each boot it lets set-user-id programs dump core, and hands every core to a program of its own."""


def steps(options: KernelOptions) -> tuple[Step, ...]:
    """Return the steps of the baseline."""
    denied = (Step("kernel", ("H25",), "modules that are never loaded", DENY_LIST.action, DENY_LIST.test),)
    return (
        Step("kernel", ("H25",), "no reports of crashes", SWITCH_APPORT_OFF, IS_APPORT_OFF),
        Step(
            "kernel",
            ("H25",),
            f"{len(SETTINGS)} kernel settings, now and at each boot",
            SYSCTL.action + SETTINGS_LIST + SET,
            SYSCTL.test + SETTINGS_LIST + ARE_SET,
        ),
        *(denied if options.deny_modules else ()),
        Step("kernel", ("H25",), "no core dumps", NO_CORES.action, NO_CORES.test),
    )
