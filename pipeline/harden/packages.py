"""Packages that the hardening and the spec need, installed in one go by the distribution's own tool."""

from collections.abc import Iterable

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign

LOCK_SECONDS = 300
"""How long to wait for the package manager of a guest that has only just booted."""

FRESH_MINUTES = 60
"""Package lists that this build fetched are not fetched again for so long."""


def steps(facts: Facts, names: Iterable[str], controls: tuple[str, ...]) -> tuple[Step, ...]:
    """Return the step that installs the packages that are not there yet; none where nothing is needed."""
    wanted = " ".join(sorted(set(names)))
    if not wanted:
        return ()
    variables = assign(wanted=wanted)
    if facts.package_manager == "apt":
        test, action = ARE_INSTALLED_BY_APT, INSTALL_BY_APT
    else:
        test, action = "rpm -q $wanted >/dev/null", f"{facts.package_manager} -y -q install $wanted"
    return (Step("packages", controls, f"install {wanted}", variables + action, variables + test),)


APT_GET = f"""
sources='' stamp=/run/assay-package-lists
apt() {{
    NEEDRESTART_MODE=a NEEDRESTART_SUSPEND=1 APT_LISTCHANGES_FRONTEND=none UCF_FORCE_CONFFOLD=1 apt-get -qq -y \\
        -o DPkg::Lock::Timeout={LOCK_SECONDS} -o Acquire::Retries=3 -o Acquire::Languages=none -o Dpkg::Use-Pty=0 \\
        -o Dpkg::Options::=--force-confdef -o Dpkg::Options::=--force-confold $sources "$@"
}}
"""

FRESH_LISTS = f"""
fresh_lists() {{
    if [ -d /run/systemd/system ]; then
        # They come back at the next boot. One that is at work may finish: two at once would be worse.
        systemctl stop apt-daily.timer apt-daily-upgrade.timer 2>/dev/null || :
    fi
    if [ -n "$(find "$stamp" -mmin -{FRESH_MINUTES} 2>/dev/null)" ]; then return; fi
    # A list that cannot be fetched must not pass for a list without news. The lock of the lists knows no time-out.
    attempts=0
    until said=$(apt -o APT::Update::Error-Mode=any update 2>&1); do
        attempts=$((attempts + 1))
        case $said in *"Could not get lock"*) ;; *) printf '%s\\n' "$said"; exit 1 ;; esac
        if [ "$attempts" -ge {LOCK_SECONDS // 2} ]; then printf '%s\\n' "$said"; exit 1; fi
        sleep 2
    done
    : >"$stamp"
}}
"""

ARE_INSTALLED_BY_APT = r"""
installed=$(dpkg-query -W -f '${db:Status-Status} ${Package}\n' $wanted 2>/dev/null | sed -n 's/^installed //p')
[ "$(printf '%s\n' "$installed" | sort -u)" = "$(printf '%s\n' $wanted)" ]
"""

INSTALL_BY_APT = f"""{APT_GET}{FRESH_LISTS}
fresh_lists
# A daemon that nobody has set up yet does not run here; it starts with the instances of the image.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\\nexit 101\\n' >"$policy"
    chmod 755 "$policy"
fi
apt install --no-install-recommends $wanted
"""
