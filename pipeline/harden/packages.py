"""Packages that the hardening and the spec need, installed in one go by the distribution's own tool."""

from collections.abc import Iterable

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden import repositories
from pipeline.spec import Repository

LOCK_SECONDS = 300
"""How long to wait for the package manager of a guest that has only just booted."""

FRESH_MINUTES = 60
"""Package lists that this build fetched are not fetched again for so long."""


def steps(
    facts: Facts, names: Iterable[str], controls: tuple[str, ...], sources: tuple[Repository, ...] = ()
) -> tuple[Step, ...]:
    """Return the step that opens repositories and installs the packages that are not there yet; none for nothing.

    A repository that is for the build only is closed by the same step, also when it fails (H17).
    """
    wanted = sorted(set(names))
    if not wanted and not sources:
        return ()
    kept = [file for one in sources if not one.only_for_build for file in repositories.files(facts, one)]
    closed = [file for one in sources if one.only_for_build for file in repositories.files(facts, one)]
    variables = assign(
        wanted=" ".join(wanted),
        closed=" ".join(file.path for file in closed),
        kept=" ".join(file.path for file in kept),
    )
    opening = "".join(file.action for file in (*kept, *closed)) + (FORGET_LISTS if sources else "")
    by_apt = facts.package_manager == "apt"
    install = INSTALL_BY_APT if by_apt else f"{facts.package_manager} -y -q install $wanted\n"
    opening += "" if by_apt or not sources else FORGET_KEYS
    installed = ARE_INSTALLED_BY_APT if by_apt else "rpm -q $wanted >/dev/null\n"
    return (
        Step(
            "packages",
            controls,
            describe(wanted, sources),
            action=variables + CLOSE_AT_THE_END + opening + (install if wanted else ""),
            test="".join(file.test for file in kept) + variables + ARE_CLOSED + (installed if wanted else ""),
        ),
    )


def describe(wanted: list[str], sources: tuple[Repository, ...]) -> str:
    """Return what is installed and from where, for people."""
    opened = [f"{one.name} ({'closed again' if one.only_for_build else 'kept'})" for one in sources]
    parts = (f"install {' '.join(wanted)}" if wanted else "", f"repositories {', '.join(opened)}" if opened else "")
    return "; ".join(filter(None, parts))


CLOSE_AT_THE_END = """
policy=''
trap 'rm -f $closed $policy' EXIT
"""

FORGET_KEYS = """
keys() { rpm -qa 'gpg-pubkey*' | sort; }
for file in $kept; do case $file in *.asc) rpm --import "$file" ;; esac; done
known=$(keys)
forget_keys() {
    for key in $(keys); do case " $(echo $known) " in *" $key "*) ;; *) rpm -e "$key" ;; esac; done
}
trap 'forget_keys; rm -f $closed' EXIT
"""
"""dnf notes a key for all repositories: that of a closed one must not stay."""

FORGET_LISTS = "rm -f /run/assay-package-lists\n"

ARE_CLOSED = """
for file in $closed; do [ ! -e "$file" ]; done
"""

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
if [ ! -e /usr/sbin/policy-rc.d ]; then
    policy=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\\nexit 101\\n' >"$policy"
    chmod 755 "$policy"
fi
apt install --no-install-recommends $wanted
"""
