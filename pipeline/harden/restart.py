"""What runs on after an update: services that still have what was replaced, and the kernel (H16)."""

NEEDS_REBOOT = r"""
# Say why a boot is due: another kernel is the newest, or the one that runs was replaced since it booted.
needs_reboot() {
    running=/boot/vmlinuz-$(uname -r)
    if [ -f /run/reboot-required ]; then echo 'a package asks for it'; return; fi
    if [ ! -f "$running" ]; then return; fi
    newest=$(ls -v /boot/vmlinuz-* | tail -n 1)
    if [ "$newest" != "$running" ]; then echo "${newest##*/} is newer than what runs"; return; fi
    booted=$(sed -n 's/^btime //p' /proc/stat)
    if [ "$(stat -c %Z "$running")" -gt "$booted" ]; then echo "${running##*/} was replaced since it booted"; fi
}
"""
"""In a container the running kernel is somebody else's, and no file of it is there: no boot is due."""

RESTART_SERVICES = r"""
# A service that has files open which were replaced is restarted; sessions and what they hang on wait for a boot.
restart_services() {
    if [ ! -d /run/systemd/system ]; then return; fi
    replaced=$(grep -lsE ' /(usr|lib|lib64|bin|sbin|opt)/[^ ]* \(deleted\)$' /proc/[0-9]*/maps |
        sed -n 's|^/proc/\([0-9]*\)/maps$|/proc/\1/cgroup|p') || :
    if [ -z "$replaced" ]; then return; fi
    units=$(awk -F/ '$2 == "system.slice" && $NF ~ /[.]service$/ { print $NF }' $replaced 2>/dev/null | sort -u) || :
    for unit in $units; do
        case $unit in
        dbus* | systemd-logind.service | *getty@* | ssh@* | sshd@* | cloud-* | *network* | NetworkManager*)
            echo "$unit still has files open that were replaced, until a boot" ;;
        *) systemctl try-restart "$unit" || echo "$unit could not be restarted" ;;
        esac
    done
}
"""
"""Those that are left alone are those that needrestart leaves alone, for the same reasons."""


def reboot_question() -> str:
    """Return the command that prints why a guest has to boot again, and nothing where it has not."""
    return NEEDS_REBOOT + "needs_reboot\n"
