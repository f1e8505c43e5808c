"""Permissions: what runs when, and who may log in, is root's to read."""

import pytest

from checks.fixtures import Ask
from pipeline.spec import Spec

STATE = r"""
stat -L -c '%a %u %g %n' /etc/ssh/sshd_config /etc/ssh/sshd_config.d /etc/crontab /etc/anacrontab /etc/cron.d \
    /etc/cron.hourly /etc/cron.daily /etc/cron.weekly /etc/cron.monthly /etc/cron.yearly 2>/dev/null
true
"""


@pytest.mark.controls("H25", layers="LB")
def test_cron_and_sshd_are_configured_in_private(spec: Spec, ask: Ask) -> None:
    """The folders of cron's jobs and the configuration of sshd are root's, with no right for anybody else."""
    if not spec.harden.permissions:
        pytest.skip("the spec leaves them as the base image has them (harden.permissions)")
    found = ask(STATE).splitlines()
    assert any(line.endswith(" /etc/ssh/sshd_config") for line in found)
    assert [line for line in found if not line.split()[0].endswith("00") or line.split()[1:3] != ["0", "0"]] == []
