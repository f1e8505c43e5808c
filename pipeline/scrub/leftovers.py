"""What work leaves behind: back-ups, caches, temporary files, spools, checkouts (S09, S15-S17, S19, S20)."""

from pipeline.guest.step import Step
from pipeline.scrub.removal import removal
from pipeline.spec import Spec

BACKUPS = r"""
{
    printf '%s\n' /etc/passwd- /etc/shadow- /etc/group- /etc/gshadow- /etc/subuid- /etc/subgid- /var/backups/* \
        /var/lib/dpkg/*-old /var/cache/debconf/*-old
    find /etc /usr/local /opt /srv $(own_homes) -xdev ! -type d \( -name '*.bak' -o -name '*~' -o -name '.*.sw[op]' \
        -o -name '*.dpkg-old' -o -name '*.dpkg-new' -o -name '*.dpkg-dist' -o -name '*.dpkg-tmp' -o -name '*.ucf-old' \
        -o -name '*.ucf-dist' -o -name '*.rpmsave' -o -name '*.rpmorig' -o -name '*.rpmnew' -o -name '*.orig' \
        -o -name '*.assay-new' \) 2>/dev/null || :
} | present
"""

CACHES = r"""
{
    find /var/lib/apt/lists -mindepth 1 ! -name lock ! -name partial ! -name auxfiles 2>/dev/null || :
    find /var/cache/apt /var/cache/dnf /var/cache/yum /var/cache/apt-show-versions -type f ! -name lock 2>/dev/null || :
    printf '%s\n' /var/cache/ldconfig/aux-cache /var/lib/dnf/history* /var/lib/apt/periodic/* /var/lib/yum/history/*
    homes | while IFS= read -r home; do
        for name in .cache .npm .cargo/registry .gem/specs .bundle/cache .gradle/caches .m2/repository .composer/cache \
            .local/share/Trash; do
            printf '%s\n' "$home/$name"
        done
    done
} | present
"""

TEMPORARY = r"""
find /tmp /var/tmp -xdev -mindepth 1 -maxdepth 1 ! -name 'systemd-private-*' | present
under '/tmp/systemd-private-*/tmp/*' '/var/tmp/systemd-private-*/tmp/*'
in_homes '.ansible_async .packer.d .ansible/tmp'
"""
"""systemd's private folders belong to services that still run; they go with the power-off."""

SPOOLS = r"""
find /var/mail /var/spool/mail /var/spool/cron /var/spool/at /var/spool/atjobs /var/spool/atspool /var/crash \
    /var/lib/systemd/coredump /var/spool/abrt /var/spool/clientmqueue /var/spool/mqueue /var/spool/exim4/input \
    /var/spool/exim4/msglog /var/spool/postfix/maildrop /var/spool/postfix/deferred /var/spool/postfix/incoming \
    /var/spool/postfix/active -mindepth 1 ! -type d ! -name .SEQ 2>/dev/null | present
under '/core' '/core.[0-9]*' '/root/core' '/root/core.[0-9]*' '/var/lib/apport/coredump/*'
"""

CHECKOUTS = r"""
find /opt /srv /usr/local /etc /var $(own_homes) -xdev \( -name .git -o -name .svn -o -name .hg \) -prune -print \
    2>/dev/null | present
"""

CONTAINERS = "under '/var/lib/docker/*' '/var/lib/containerd/*' '/var/lib/containers/*'"

SUDO = r"""
under '/var/lib/sudo/ts/*' '/var/lib/sudo/lectured/*' '/var/db/sudo/*/*' '/var/lib/faillock/*' '/run/faillock/*' \
    '/run/console/*'
"""


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the steps that remove what work on the guest left behind."""
    return (
        removal(spec, "backups", ("S09",), "remove back-ups of accounts and settings", BACKUPS),
        removal(spec, "caches", ("S15",), "remove caches and lists of package managers", CACHES),
        removal(spec, "temporary", ("S16",), "remove temporary files, hidden ones too", TEMPORARY),
        removal(spec, "spool", ("S17",), "remove mail, jobs and core dumps", SPOOLS),
        removal(spec, "checkouts", ("S19",), "remove version-control folders", CHECKOUTS),
        removal(spec, "containers", ("S19",), "remove containers, their images and layers", CONTAINERS),
        removal(spec, "sudo", ("S20",), "remove sudo's and PAM's records of attempts", SUDO),
    )
