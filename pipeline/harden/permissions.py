"""Permissions (H25; CIS): what runs when, and who may log in, is root's to read: cron's folders, sshd's files."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign

PLACES = (
    "/etc/crontab",
    "/etc/anacrontab",
    *(f"/etc/cron.{name}" for name in ("d", "hourly", "daily", "weekly", "monthly", "yearly")),
    "/etc/ssh/sshd_config",
    "/etc/ssh/sshd_config.d",
)
"""Files and folders; not every family has all of them."""

ARE_PRIVATE = r"""
[ -z "$(find -L $places -maxdepth 0 \( -perm /077 -o ! -user 0 -o ! -group 0 \) 2>/dev/null)" ]
"""
MAKE_PRIVATE = r"""
for place in $places; do
    if [ -e "$place" ]; then
        chown 0:0 "$place"
        chmod go-rwx "$place"
    fi
done
"""


def steps() -> tuple[Step, ...]:
    """Return the step that takes cron's folders and the configuration of sshd from all but root."""
    places = assign(places=" ".join(PLACES))
    title = "cron's folders and sshd's configuration are for root only"
    return (Step("permissions", ("H25",), title, places + MAKE_PRIVATE, places + ARE_PRIVATE),)
