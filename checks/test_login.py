"""Logins and new accounts: what they create is not for others."""

import re

import pytest

from checks.fixtures import Ask
from pipeline.spec import LoginOptions, Spec

STATE = r"""
env -i PATH=/usr/bin:/bin sh -c '. /etc/profile >/dev/null 2>&1; umask; echo ${TMOUT:-0}'
grep -E '^[[:space:]]*(UMASK|HOME_MODE)[[:space:]]' /etc/login.defs
true
"""
"""What a login shell has, and what new accounts get."""


@pytest.fixture
def wanted(spec: Spec) -> LoginOptions:
    """What the spec says of logins."""
    if spec.harden.login is None:
        pytest.skip("the spec leaves logins as the base image has them (harden.login)")
    return spec.harden.login


@pytest.mark.controls("H25", layers="LB")
def test_new_accounts_are_private(wanted: LoginOptions, ask: Ask) -> None:
    """useradd makes homes for their owners only, and PAM gives logins the umask of the spec."""
    found = [(name, int(value, 8)) for name, value in re.findall(r"(UMASK|HOME_MODE)\s+([0-7]+)", ask(STATE))]
    assert sorted(found) == [("HOME_MODE", 0o700), ("UMASK", int(wanted.umask, 8))]


@pytest.mark.controls("H25", layers="LB")
def test_shells(wanted: LoginOptions, ask: Ask) -> None:
    """A login shell has the umask of the spec, and ends when it is idle for as long as the spec says."""
    umask, idle, *_ = ask(STATE).split()
    assert int(umask, 8) == int(wanted.umask, 8)
    assert not wanted.idle_minutes or 0 < int(idle) <= wanted.idle_minutes * 60
