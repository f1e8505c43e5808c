"""Logs, the journal, logins, audit and accounting (S14). The writers are stopped by now."""

from pipeline.guest.step import Step
from pipeline.scrub.removal import removal
from pipeline.spec import Spec

LOGS = r"""
{
    find /var/log ! -type d
    find /var/log/journal -mindepth 1 2>/dev/null || :
    printf '%s\n' /var/account/pacct* /var/log/account/pacct* /var/lib/logrotate/status /var/lib/logrotate.status \
        /var/lib/logrotate/logrotate.status /var/lib/sysstat/* /var/lib/lastlog/lastlog2.db /var/lib/wtmpdb/wtmp.db \
        /var/lib/systemd/timers/* /var/lib/systemd/linger/* /var/lib/systemd/catalog/.#* /root/dead.letter
} | present
"""


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the step that removes every log. Folders stay, with their owners; systemd makes wtmp and its like anew."""
    return (removal(spec, "logs", ("S14",), "remove logs, the journal, and the records of logins", LOGS),)
