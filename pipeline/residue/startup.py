"""What runs by itself: at boot, at login, by the clock, and when a package or an interface changes (V04; seed [2])."""

import re
from collections.abc import Iterator

from pipeline.residue.filesystems import Entry
from pipeline.residue.origin import Doubt, Origin

HOME = r"(?:/root|/home/[^/]+|/etc/skel|/var/lib/[^/]+|/srv/[^/]+)"
UNITS = r"(?:/etc|/usr/lib|/usr/local/lib|/usr/share|/usr/local/share|/lib)/systemd/(?:system|user)"


def of(kind: str, path: str) -> tuple[str, re.Pattern[str]]:
    """Return a kind of file, and the paths where it lies."""
    return kind, re.compile(path)


RUNS = (
    of("job of cron", r"/etc/(?:crontab|anacrontab|cron\.(?:d|hourly|daily|weekly|monthly|yearly)/.+)"),
    of("job of cron", r"/var/spool/(?:cron/(?:crontabs/|atjobs/)?[^.].*|at/[^.].*)"),
    of("unit", UNITS + r"(?:\.control|\.attached)?/.+\.(?:service|timer|socket|path|mount|automount|swap|conf|target)"),
    of("generator", UNITS + r"(?:-environment)?-generators/.+"),
    of("script at shutdown or sleep", r"(?:/etc|/usr/lib|/lib)/systemd/system-(?:shutdown|sleep)/.+"),
    of(
        "start-up script",
        r"/etc/(?:rc\.local|rc\.d/.+|init\.d/.+|init/.+|inittab|rc[0-6S]\.d/.+|boot\.d/.+|local\.d/.+)",
    ),
    of("login script", r"/etc/(?:profile|bash\.bashrc|bashrc|csh\.(?:cshrc|login)|zsh/.+|zshenv|profile\.d/.+)"),
    of(
        "login script",
        HOME + r"/\.(?:bashrc|profile|bash_profile|bash_login|bash_logout|bash_aliases|zshrc|zprofile|zshenv|zlogin"
        r"|cshrc|login|pam_environment|ssh/rc|ssh/environment|config/(?:autostart|systemd|environment\.d)/.+)",
    ),
    of("settings of all programs", r"/etc/(?:environment\.d/.+|security/pam_env\.conf)"),
    of(
        "hook of the network",
        r"/etc/(?:network/if-[a-z-]+\.d/.+|NetworkManager/dispatcher\.d/.+|dhcp/dhclient-[a-z]+-hooks\.d/.+)",
    ),
    of("hook of the network", r"/etc/(?:networkd-dispatcher/.+|dhcpcd\.(?:enter|exit)-hook|ppp/ip-(?:up|down)\.d/.+)"),
    of("hook at login", r"/etc/update-motd\.d/.+"),
    of("hook of a new kernel", r"/etc/(?:kernel/.+\.d/.+|initramfs-tools/(?:hooks|scripts)/.+|dracut\.conf\.d/.+)"),
    of("script of cloud-init", r"/var/lib/cloud/(?:scripts|seed)/.+"),
    of("autostart", r"/etc/xdg/autostart/.+"),
)
"""Every file of these runs, or says what runs."""
FOLDER = r"(?:/usr(?:/local)?)?/(?:s?bin|games)|/snap/bin"
"""A folder of programs that only root can change, as Ubuntu's own PATH names them."""
MAY_RUN = (
    (
        *of("settings of all programs", r"/etc/environment"),
        re.compile(rf"(?m)^(?!PATH=\"?(?:{FOLDER})(?::(?:{FOLDER}))*\"?$).*\S"),
    ),
    (
        *of("hook of the package manager", r"/etc/(?:apt/apt\.conf(?:\.d/.+)?|dpkg/dpkg\.cfg(?:\.d/.+)?)"),
        re.compile(r"(?i)invoke|hook|pre-install|post-install|proxy-auto|methods::"),
    ),
    (*of("rule of udev", r"/etc/udev/rules\.d/.+"), re.compile(r"RUN|PROGRAM|IMPORT\{program\}")),
    (
        *of("settings of kernel modules", r"/etc/modprobe\.d/.+|/etc/modprobe\.conf"),
        re.compile(r"(?m)^\s*(?:install|remove)\s+\S+\s+(?!/bin/(?:true|false)\s*$|/usr/bin/(?:true|false)\s*$)\S"),
    ),
    (
        *of("settings of cloud-init", r"/etc/cloud/.+\.cfg"),
        re.compile(
            r"(?m)^\s*-?\s*(?:bootcmd|runcmd|write_files|ssh_authorized_keys|ssh_import_id|chpasswd|passwd|hashed_passwd|plain_text_passwd|apt_sources)\s*:(?!\s*\[\s*\]\s*$)"
        ),
    ),
    (*of("settings of log rotation", r"/etc/logrotate\.d/.+"), re.compile(r"(?:post|pre|first|last)(?:rotate|action)")),
    (
        *of("temporary files", r"/etc/tmpfiles\.d/.+"),
        re.compile(r"(?m)^[fFwLC][+!=^~-]*\s+/(?!dev/null|run/|tmp/|var/(?:tmp|cache|log)/)"),
    ),
    (
        *of("kernel settings", r"/etc/sysctl\.conf|/etc/sysctl\.d/.+"),
        re.compile(r"(?m)^\s*kernel[./](?:core_pattern\s*=\s*\||modprobe\s*=|hotplug\s*=\s*\S|poweroff_cmd)"),
    ),
    (*of("settings of the loader", r"/etc/binfmt\.d/.+"), re.compile(r"(?m)^[^#\s]")),
)
"""Settings that run nothing, unless something of this stands in them."""
UNIT_FOLDERS = re.compile(r"(?:/etc|/usr/lib|/usr/local/lib)/systemd/(?:system|user)/[^/]+")
WANTED = re.compile(UNITS + r"/(?:[^/]+\.(?:wants|requires|upholds)/)?[^/]+")


def doubts(origin: Origin) -> Iterator[Doubt]:
    """Yield what runs by itself and is nobody's."""
    for kind, paths in RUNS:
        for entry in origin.unexplained(paths):
            yield Doubt("V04", kind, entry.path)
    for kind, paths, dangerous in MAY_RUN:
        for entry in origin.unexplained(paths):
            if dangerous.search("\n".join(line for line in origin.lines(entry) if not line.lstrip().startswith("#"))):
                yield Doubt("V04", kind, entry.path)
    for entry in origin.system.entries:
        if entry.is_link and WANTED.fullmatch(entry.path) and is_strange_link(origin, entry):
            yield Doubt("V04", "unit", entry.path, f"it is {entry.target}")


def is_strange_link(origin: Origin, entry: Entry) -> bool:
    """Say whether a link enables a unit that lies outside of the folders of units: those in them are looked at."""
    found = origin.system.find(entry.path)
    if found is None or not found.is_file:
        return False
    return not UNIT_FOLDERS.fullmatch(found.path) and not origin.explains_or_empty(found)
