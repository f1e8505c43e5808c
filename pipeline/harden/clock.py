"""The time zone (H24)."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.spec import ClockOptions

IS_SET = r"""
[ "$(readlink -f /etc/localtime)" = "$(readlink -f "/usr/share/zoneinfo/$zone")" ]
[ ! -e /etc/timezone ] || [ "$(cat /etc/timezone)" = "$zone" ]
[ ! -e /etc/sysconfig/clock ] || grep -qx "ZONE=\"$zone\"" /etc/sysconfig/clock
"""

SET = r"""
if [ ! -f "/usr/share/zoneinfo/$zone" ]; then echo "the time zone $zone is not installed (package tzdata)"; exit 1; fi
ln -sfn "../usr/share/zoneinfo/$zone" /etc/localtime
if [ -e /etc/timezone ]; then printf '%s\n' "$zone" >/etc/timezone; fi
if [ -e /etc/sysconfig/clock ]; then printf 'ZONE="%s"\n' "$zone" >/etc/sysconfig/clock; fi
"""


def steps(options: ClockOptions) -> tuple[Step, ...]:
    """Return the step that sets the time zone, in the files of either family."""
    zone = assign(zone=options.timezone)
    return (Step("clock", ("H24",), f"time zone {options.timezone}", zone + SET, zone + IS_SET),)
