"""The audit trail: on a fresh boot the kernel has its rules, and they stay."""

import re

import pytest

from checks.fixtures import Ask
from pipeline.spec import AuditOptions, Spec

WRITTEN = r"""
cat /etc/audit/rules.d/*.rules 2>/dev/null
echo --
ls -L /etc/systemd/system/*.wants/auditd.service /usr/sbin/auditd /sbin/auditd 2>/dev/null
true
"""
LOADED = "PATH=$PATH:/usr/sbin:/sbin; auditctl -l; echo --; auditctl -s; systemctl is-active auditd.service || true"
WATCHED = ("/etc/passwd", "/etc/shadow", "/etc/group", "/etc/sudoers", "/etc/ssh", "/etc/audit")
"""What CIS wants to be watched, for writing and for changes of attributes, and is there on every server."""
CALLS = ("init_module", "clock_settime", "mount", "execve")


@pytest.fixture
def wanted(spec: Spec) -> AuditOptions:
    """What the spec says of the audit trail."""
    if spec.harden.audit is None:
        pytest.skip("the spec does not ask for an audit trail (harden.audit)")
    return spec.harden.audit


def missing_from(rules: str) -> list[str]:
    """Return what rules do not watch."""
    watched = re.findall(r"^-w (\S+) -p (?=\S*w)(?=\S*a)\S+", rules, re.MULTILINE)
    watched += re.findall(r"(?:path|dir)=(\S+?)/? -F perm=(?=\S*w)(?=\S*a)\S+", rules)
    calls = {name for line in re.findall(r"-S (\S+)", rules) for name in line.split(",")}
    never = re.findall(r"^-a (?:never,\S+|\S+,never).*", rules, re.MULTILINE)
    found = {path.rstrip("/") for path in watched} | calls
    return [*(one for one in (*WATCHED, *CALLS) if one not in found), *never]


@pytest.mark.controls("H25", layers="L")
def test_the_rules_are_loaded_at_boot(wanted: AuditOptions, ask: Ask) -> None:
    """auditd is enabled, and its rules watch accounts, privileges, ssh, modules, time and mounts."""
    rules, _, files = ask(WRITTEN).partition("--\n")
    assert missing_from(rules) == []
    assert "auditd.service" in files and "sbin/auditd" in files
    switches = re.findall(r"^\s*-e\s+(\d)", rules, re.MULTILINE)
    assert switches[-1:] in ([["2"]] if wanted.immutable else [[], ["1"], ["2"]])


@pytest.mark.controls("H25", layers="B")
def test_the_kernel_has_the_rules(wanted: AuditOptions, ask: Ask) -> None:
    """The kernel audits by these rules, and lets nobody change them where the spec says so."""
    rules, _, state = ask(LOADED).partition("--\n")
    assert missing_from(rules) == []
    enabled = re.search(r"^enabled (\d)", state, re.MULTILINE)
    assert enabled and int(enabled[1]) >= (2 if wanted.immutable else 1)
    assert state.split()[-1] == "active"
