"""Stops who would write after the scrub: a log that is held open ships (S14)."""

from pipeline.guest.step import Step

UNITS = (
    "rsyslog.service syslog.socket syslog-ng.service auditd.service acct.service psacct.service sysstat.service "
    "cron.service crond.service atd.service anacron.service unattended-upgrades.service packagekit.service "
    "snapd.service snapd.socket amazon-ssm-agent.service amazon-cloudwatch-agent.service ecs.service "
    "docker.service docker.socket containerd.service podman.socket postfix.service exim4.service "
    "cloud-init-hotplugd.socket"
)


def steps() -> tuple[Step, ...]:
    """Return the steps that stop timers and daemons until the power-off, and keep the journal in memory."""
    return (
        Step("writers", ("S14", "S16"), "stop timers and daemons that write", STOP_WRITERS, ARE_WRITERS_STOPPED),
        Step(
            "writers",
            ("S14",),
            "keep the journal in memory until the power-off",
            JOURNAL_TO_MEMORY,
            IS_JOURNAL_IN_MEMORY,
        ),
    )


def held_inodes() -> Step:
    """Return the step that empties deleted files which a process still holds: their blocks are no free space yet."""
    return Step(
        "writers", ("S14", "S22"), "empty deleted files that are still held open", EMPTY_HELD, f'{HELD}[ -z "$(held)" ]'
    )


SYSTEMD_ONLY = "if [ ! -d /run/systemd/system ]; then exit 0; fi\n"

FIND_RUNNING = f"""
running() {{
    systemctl list-units --plain --no-legend --state=active '*.timer' {UNITS} | while read -r unit rest; do
        printf '%s\\n' "$unit"
    done
}}
"""

ARE_WRITERS_STOPPED = f'{SYSTEMD_ONLY}{FIND_RUNNING}[ -z "$(running)" ]'

STOP_WRITERS = f"""{SYSTEMD_ONLY}{FIND_RUNNING}
units=$(running)
case $units in *auditd*) auditctl -e 0 || :; systemctl kill auditd || : ;; esac
# Whoever is in the middle of an installation may finish it.
systemctl stop $units || :
"""
"""auditd refuses `systemctl stop`, by its unit file."""

IS_JOURNAL_IN_MEMORY = f"""{SYSTEMD_ONLY}
[ -f /run/systemd/journald.conf.d/99-assay.conf ]
for pid in /proc/[0-9]*; do
    read -r name 2>/dev/null <"$pid/comm" || continue
    case $name in systemd-journal*) [ -z "$(find "$pid/fd" -lname '/var/log/*')" ] ;; esac
done
"""

JOURNAL_TO_MEMORY = """
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\\nStorage=volatile\\n' >/run/systemd/journald.conf.d/99-assay.conf
systemctl restart systemd-journald.service
"""
"""The setting is on a tmpfs: the image does not have it."""

HELD = r"""
held() {
    find /proc/[0-9]*/fd -maxdepth 1 -type l -lname '/* (deleted)' ! -lname '/dev/*' ! -lname '/memfd:*' \
        ! -lname '/run/*' 2>/dev/null | while IFS= read -r file; do
        if [ -f "$file" ] && [ -s "$file" ]; then printf '%s\n' "$file"; fi
    done
}
"""

EMPTY_HELD = f"""{HELD}
for file in $(held); do
    readlink "$file" || :
    true >"$file" || :
done
"""
