"""Package updates, now and from then on (H16)."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden.managed_file import ManagedFile
from pipeline.harden.packages import APT_GET, FRESH_LISTS
from pipeline.harden.restart import NEEDS_REBOOT, RESTART_SERVICES
from pipeline.spec import UpdatesOptions


def steps(facts: Facts, options: UpdatesOptions) -> tuple[Step, ...]:
    """Return the steps that update the guest, and that let images do it daily by their distribution's own tool."""
    by_dnf = facts.package_manager != "apt"
    found: list[Step] = []
    if options.at_build != "none":
        upgrade = dnf_upgrade(facts.package_manager, options) if by_dnf else apt_upgrade(options)
        found.append(Step("updates", ("H16",), f"update packages: {options.at_build}", upgrade + FINISH))
    if options.periodic:
        found.append(dnf_periodic(facts.package_manager) if by_dnf else apt_periodic())
    return tuple(found)


def apt_upgrade(options: UpdatesOptions) -> str:
    """Return the action that updates by apt: lists that are fresh, then everything that they offer."""
    return APT_GET + (SECURITY_ONLY if options.at_build == "security" else "") + FRESH_LISTS + UPGRADE


UPGRADE = """
before=$(dpkg-query -W | cksum)
fresh_lists
plan=$(apt-get -s --with-new-pkgs $sources upgrade)
wanted=$(printf '%s\\n' "$plan" | sed -n 's/^Inst \\([^ ]*\\).*/\\1/p')
if [ -n "$wanted" ]; then apt --with-new-pkgs upgrade; fi
case $plan in *' 0 not upgraded.'*) ;; *) if [ -n "$sources" ]; then ask_all_sources; fi ;; esac
after=$(dpkg-query -W | cksum)
"""

SECURITY_ONLY = r"""
only=/run/assay-security-sources
rm -rf "$only"
mkdir -p "$only"
awk -v RS= -v ORS='\n\n' '/(^|\n)Suites:[^\n]*-security/' /dev/null /etc/apt/sources.list.d/*.sources \
    >"$only/security.sources" 2>/dev/null || :
grep -hE '^deb .*-security' /etc/apt/sources.list /etc/apt/sources.list.d/*.list >"$only/security.list" 2>/dev/null || :
if [ ! -s "$only/security.sources" ] && [ ! -s "$only/security.list" ]; then
    echo 'no source of security updates is known'
    exit 1
fi
sources="-o Dir::Etc::SourceList=/dev/null -o Dir::Etc::SourceParts=$only -o APT::Get::List-Cleanup=0"
stamp=/run/assay-security-lists

# A security update that needs a package from elsewhere is held back: then every list is read.
ask_all_sources() {
    sources='' stamp=/run/assay-package-lists
    fresh_lists
    wanted=$(apt-get -s --with-new-pkgs upgrade | sed -n 's/^Inst \([^ ]*\) .*-[Ss]ecurity.*/\1/p')
    if [ -n "$wanted" ]; then apt install --only-upgrade $wanted; fi
}
"""
"""The other sources are not even read: their lists are a hundred times larger."""

FINISH = (
    RESTART_SERVICES
    + NEEDS_REBOOT
    + """
if [ "$before" != "$after" ]; then restart_services; fi
reason=$(needs_reboot)
echo "reboot required: ${reason:-no}"
if [ "$before" = "$after" ]; then echo unchanged; else echo changed; fi
"""
)
"""Takes `before` and `after`: the packages, as one checksum each."""


def dnf_upgrade(tool: str, options: UpdatesOptions) -> str:
    """Return the action that updates by dnf or yum."""
    only = " --security" if options.at_build == "security" else ""
    return f"before=$(rpm -qa | sort | cksum)\n{tool} -y -q --refresh upgrade{only}\nafter=$(rpm -qa | sort | cksum)\n"


APT_SETTINGS = ManagedFile(
    "/etc/apt/apt.conf.d/52assay-updates",
    """// Written by Assay: security updates every day.
APT::Periodic::Update-Package-Lists "1";
APT::Periodic::Unattended-Upgrade "1";
APT::Periodic::AutocleanInterval "7";
Unattended-Upgrade::Remove-Unused-Kernel-Packages "true";
Unattended-Upgrade::Automatic-Reboot "false";
// A package whose settings were hardened would be held back without these: settings stay as they are.
Dpkg::Options { "--force-confdef"; "--force-confold"; };
""",
)


def apt_periodic() -> Step:
    """Return the step that installs and switches on unattended-upgrades; Debian's own origins: security updates."""
    return Step(
        subject="updates",
        controls=("H16",),
        title="security updates every day, by unattended-upgrades",
        test=f"[ -x /usr/bin/unattended-upgrade ]\n{APT_SETTINGS.test}{ARE_TIMERS_ENABLED}",
        action=INSTALL + APT_SETTINGS.action + ENABLE_TIMERS,
    )


INSTALL = f"""
if [ ! -x /usr/bin/unattended-upgrade ]; then
{APT_GET}{FRESH_LISTS}
fresh_lists
apt install --no-install-recommends unattended-upgrades
fi
"""
ARE_TIMERS_ENABLED = """
systemctl is-enabled --quiet apt-daily.timer
systemctl is-enabled --quiet apt-daily-upgrade.timer
"""
ENABLE_TIMERS = """
for timer in apt-daily.timer apt-daily-upgrade.timer; do
    if ! systemctl is-enabled --quiet "$timer"; then
        systemctl --no-reload unmask "$timer"
        systemctl --no-reload enable "$timer"
    fi
done
"""
"""Without a reload, which takes seconds on a slow guest: the timers are for the instances of the image."""


def dnf_periodic(tool: str) -> Step:
    """Return the step that installs and switches on dnf-automatic for security updates."""
    return Step(
        subject="updates",
        controls=("H16",),
        title="security updates every day, by dnf-automatic",
        test=IS_DNF_AUTOMATIC,
        action=f"rpm -q dnf-automatic >/dev/null || {tool} -y -q install dnf-automatic\n{SET_DNF_AUTOMATIC}",
    )


IS_DNF_AUTOMATIC = """
grep -qx 'upgrade_type *= *security' /etc/dnf/automatic.conf
grep -qx 'apply_updates *= *yes' /etc/dnf/automatic.conf
systemctl is-enabled --quiet dnf-automatic.timer
"""
SET_DNF_AUTOMATIC = """
sed -i -e 's/^upgrade_type *=.*/upgrade_type = security/' -e 's/^apply_updates *=.*/apply_updates = yes/' \\
    /etc/dnf/automatic.conf
systemctl enable dnf-automatic.timer
"""
