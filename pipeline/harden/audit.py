"""The audit trail of the kernel (H25; CIS, dev-sec): who changed accounts, privileges, settings, time and modules."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden.managed_file import ManagedFile
from pipeline.harden.unit import enable_unit
from pipeline.spec import AuditOptions

PACKAGES = {"debian": "auditd", "redhat": "audit"}
"""By family."""

UNIT = "auditd.service"

WATCHED = {
    "identity": "/etc/passwd /etc/shadow /etc/group /etc/gshadow /etc/security",
    "privilege": "/etc/sudoers /etc/sudoers.d /etc/pam.d",
    "sshd": "/etc/ssh",
    "startup": "/etc/systemd/system /etc/crontab /etc/cron.d /etc/ld.so.preload",
    "audit": "/etc/audit",
    "settings": "/etc/sysctl.d /etc/modprobe.d /etc/nftables.d",
}
"""What is watched for writing and for changes of attributes, by the key that a search for events names."""

CALLS = {
    "time": "-S settimeofday,clock_settime -F auid!=unset",
    "modules": "-S init_module,finit_module,delete_module",
    "mounts": "-S mount,umount2 -F auid>=1000 -F auid!=unset",
    "escalation": "-S execve -C uid!=euid -F euid=0 -F auid>=1000 -F auid!=unset",
}
"""System calls; an `auid` that is unset is a service's."""


def steps(facts: Facts, options: AuditOptions) -> tuple[Step, ...]:
    """Return the step that writes the rules. They are loaded at the next boot: the trail of a build does not ship."""
    files = (
        ManagedFile("/etc/audit/rules.d/60-assay.rules", rules_text(facts), "640"),
        *((LAST_RULE,) if options.immutable else ()),
    )
    stay = ", by rules that stay until a boot" if options.immutable else ""
    title = f"audit trail of {len(WATCHED) + len(CALLS)} kinds of events{stay}"
    return (enable_unit("audit", ("H25",), title, UNIT, files),)


LAST_RULE = ManagedFile(
    "/etc/audit/rules.d/99-assay.rules",
    "# Written by Assay: this is the last rule. It stays until a boot.\n-e 2\n",
    "640",
)


def rules_text(facts: Facts) -> str:
    """Return the rules, those for system calls for each of the processor's ways to make one."""
    ways = ("b64", "b32") if facts.architecture == "x86_64" else ("b64",)
    watches = (f"-w {path} -p wa -k {key}" for key, paths in WATCHED.items() for path in paths.split())
    calls = (f"-a always,exit -F arch={way} {call} -k {key}" for key, call in CALLS.items() for way in ways)
    return "# Written by Assay.\n" + "".join(f"{rule}\n" for rule in (*watches, *calls))
