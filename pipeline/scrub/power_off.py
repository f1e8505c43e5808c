"""The last act. Nobody writes after it: no history at logout, no wtmp at shutdown, no seed for the next boot."""

import shlex

from pipeline.guest.facts import Facts
from pipeline.guest.variables import assign
from pipeline.scrub.build_user import BUILD_SUDO, LEAVING

LAST_WORDS = r"""
trap '' HUP INT TERM PIPE
cd /
# Services with a private /tmp hold it open: stopped, they give it back; frozen, they would leave orphaned inodes.
for folder in /tmp/systemd-private-*; do
    unit=${folder#*-private-*-}
    timeout 10 systemctl stop "${unit%-*}"
done
# pid 1 cannot be killed: it starts itself anew.
replaced=' /(usr|lib|lib64|bin|sbin|opt|var|srv|home|root|etc)/.* \(deleted\)$'
if grep -qE "$replaced" /proc/1/maps; then timeout 20 systemctl daemon-reexec; fi
# What is removed below is in free blocks afterwards, and nothing overwrites those any more (S22).
wipe() {
    find "$@" -links 1 -xdev -type f -size +0 2>/dev/null | while IFS= read -r file; do
        dd if=/dev/zero of="$file" bs=4096 count=$((($(stat -c %s "$file") + 4095) / 4096)) conv=notrunc 2>/dev/null
    done
}
# Everybody else stops where they stand. pid 1 and the kernel go on.
kill -s STOP -- -1
for name in $(cat "$leaving" 2>/dev/null); do
    wipe "$(awk -F: -v name="$name" '$1 == name { print $6 }' /etc/passwd)" -user "$name"
    sync
    # userdel writes these files anew: what they were is held by another name, and wiped below where it is the last.
    for file in passwd shadow group gshadow subuid subgid; do ln "/etc/$file" "/etc/.$file.assay-old"; done
    userdel -r -f "$name"
done
wipe "$build_sudo" /etc/*- /etc/.*.assay-old /var/lib/systemd/random-seed /var/lib/systemd/timers /var/log /tmp /var/tmp
sync
rm -f "$build_sudo" /etc/.*.assay-old
rm -f /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid-
rm -f /var/lib/systemd/random-seed /var/lib/systemd/timers/*
find /var/log ! -type d -exec rm -f {} +
find /tmp /var/tmp -mindepth 1 -maxdepth 1 -exec rm -rf {} +
: >/etc/machine-id
# Who holds what was deleted, as all do who run since before an update of their libraries, would leave orphaned inodes.
# What pid 1 starts in their place is born frozen: it writes nothing.
echo $$ >/sys/fs/cgroup/cgroup.procs && echo 1 >/sys/fs/cgroup/system.slice/cgroup.freeze
holders() {
    {
        find /proc/[0-9]*/fd -lname '/*(deleted)' ! -lname '/memfd:*'
        grep -lsE "$replaced" /proc/[0-9]*/maps
    } | cut -d / -f 3 | sort -u | grep -vxE "1|$$"
}
tries=0
while held=$(holders) && [ "$tries" -lt 50 ]; do
    tries=$((tries + 1))
    kill -s KILL $held
    sleep 0.1
done
sync
# Read-only by force, whoever has a file open: ext4 is clean afterwards, and needs no recovery.
echo u >/proc/sysrq-trigger
tries=0
while grep -qE '^/dev/[^ ]+ [^ ]+ [^ ]+ rw[, ]' /proc/mounts; do
    tries=$((tries + 1))
    if [ "$tries" -gt 100 ]; then break; fi
    sleep 0.1
done
# A file system is called read-only before its journal is written out. This waits for the lock that is held meanwhile.
sync
echo o >/proc/sysrq-trigger
sleep 20
# A kernel without that key, or one whose power-off failed.
poweroff -f -f || systemctl poweroff --force --force || halt -f -p
"""


def power_off_command(facts: Facts) -> str:
    """Return the last command for a root shell: it returns at once, and the guest powers off a moment later.

    It must not be an orderly shutdown: that would write wtmp and a random seed, and let every shell write its history.
    So it freezes all processes, removes what was written since the scrub, remounts read-only, and powers off (S04, S12,
    S14). It runs in a session of its own, because the connection that it came over is frozen too.
    """
    script = assign(leaving=LEAVING, build_sudo=BUILD_SUDO) + LAST_WORDS
    return f"trap '' HUP INT TERM; setsid sh -c {shlex.quote(script)} </dev/null >/dev/null 2>&1 &"
