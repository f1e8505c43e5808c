"""Installed services (H23; seed [1]): each runs without rights, as a user and in a group of its own."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.managed_file import ManagedFile
from pipeline.spec import Service


def steps(services: tuple[Service, ...]) -> tuple[Step, ...]:
    """Return a step for each service: its account, what it may write to, and how systemd starts it.

    It counts from the next start of the service: on the build guest nothing is restarted.
    """
    return tuple(confine(service) for service in services)


def confine(service: Service) -> Step:
    """Return the step that confines one service."""
    file = ManagedFile(f"/etc/systemd/system/{service.unit}.d/60-assay.conf", drop_in_text(service))
    values = assign(unit=service.unit, name=service.account, folders="\n".join(service.writes_to))
    return Step(
        "services",
        ("H23",),
        f"{service.unit} runs as {service.account}, without rights",
        values + MAKE_ACCOUNT + file.action + "systemctl daemon-reload\n",
        file.test + values + IS_ACCOUNT_MADE,
    )


def drop_in_text(service: Service) -> str:
    """Return what systemd is told beside the unit's own file (systemd.exec(5))."""
    rights = "CAP_NET_BIND_SERVICE" if service.low_ports else ""
    folders = "".join(f"ReadWritePaths={folder}\n" for folder in service.writes_to)
    return (
        f"# Written by Assay (H23).\n[Service]\nUser={service.account}\nGroup={service.account}\n"
        f"NoNewPrivileges=yes\nCapabilityBoundingSet={rights}\nAmbientCapabilities={rights}\n"
        "ProtectSystem=full\nProtectHome=yes\nPrivateTmp=yes\nProtectKernelTunables=yes\nProtectKernelModules=yes\n"
        f"ProtectControlGroups=yes\nRestrictSUIDSGID=yes\n{folders}"
    )


IS_ACCOUNT_MADE = r"""
IFS=: read -r account password uid gid full_name home shell <<ENTRY
$(grep "^$name:" /etc/passwd)
ENTRY
[ "$uid" -gt 0 ]
case $shell in */nologin | */false) ;; *) exit 1 ;; esac
[ "$(grep "^$name:" /etc/group | cut -d : -f 3)" = "$gid" ]
printf '%s' "$folders${folders:+
}" | while IFS= read -r folder; do [ "$(stat -c %U:%G "$folder")" = "$name:$name" ]; done
"""

MAKE_ACCOUNT = r"""
for place in /etc /usr/lib /lib; do
    if [ -e "$place/systemd/system/$unit" ]; then found=yes; fi
done
if [ -z "${found-}" ]; then echo "there is no unit $unit: is its package in harden.packages?"; exit 1; fi
if ! grep -q "^$name:" /etc/group; then groupadd -r "$name"; fi
if ! grep -q "^$name:" /etc/passwd; then useradd -r -M -d / -s /usr/sbin/nologin -c "$unit" -g "$name" "$name"; fi
usermod -s /usr/sbin/nologin -g "$name" "$name"
printf '%s' "$folders${folders:+
}" | while IFS= read -r folder; do
    mkdir -p "$folder"
    chown -R -h "$name:$name" "$folder"
done
"""
