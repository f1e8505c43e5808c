"""Mandatory access control: AppArmor or SELinux is on, and confines something."""

import pytest

from checks.fixtures import Ask
from pipeline.spec import Spec

STATE = r"""
cat /sys/module/apparmor/parameters/enabled 2>/dev/null || echo N
grep -c '(enforce)$' /sys/kernel/security/apparmor/profiles 2>/dev/null || echo 0
cat /sys/fs/selinux/enforce 2>/dev/null || echo 0
grep -cx 'SELINUX=enforcing' /etc/selinux/config 2>/dev/null || echo 0
ls -L /etc/systemd/system/*.wants/apparmor.service 2>/dev/null
true
"""


@pytest.mark.controls("H25", layers="LB")
def test_services_are_confined(spec: Spec, layer: str, family: str, ask: Ask) -> None:
    """AppArmor has profiles that it enforces, or SELinux enforces its policy; now and after each boot."""
    if not spec.harden.mandatory_access:
        pytest.skip("the spec does not ask for mandatory access control (harden.mandatory_access)")
    apparmor, profiles, selinux, configured, *units = ask(STATE).split()
    if family == "debian":
        assert (apparmor, bool(units)) == ("Y", True)
        assert layer == "L" or int(profiles) > 0
    else:
        assert (selinux, configured) == ("1", "1")
