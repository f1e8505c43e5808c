"""The time zone."""

import pytest

from checks.fixtures import Ask
from pipeline.spec import Spec

ZONE = r"""
readlink -f /etc/localtime
readlink -f "/usr/share/zoneinfo/%s"
cat /etc/timezone 2>/dev/null
sed -n 's/^ZONE=//p' /etc/sysconfig/clock 2>/dev/null
true
"""


@pytest.mark.controls("H24", layers="LB")
def test_time_zone(spec: Spec, ask: Ask) -> None:
    """The time zone is the spec's, in every file that names it."""
    if spec.harden.clock is None:
        pytest.skip("the spec leaves the time zone as the base image has it (harden.clock)")
    zone = spec.harden.clock.timezone
    current, wanted, *names = ask(ZONE % zone).splitlines()
    assert current == wanted
    assert {name.strip('"') for name in names} <= {zone}
