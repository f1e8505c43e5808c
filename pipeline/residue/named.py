"""Files that must not ship whatever they hold: histories, logs, identities and credentials that no pattern can know.

A file is residue by its name here; it is never trusted by its name. Empty files are none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.residue.filesystems import Entry

HOME = r"(?:/root|/home/[^/]+|/var/lib/[^/]+|/srv/[^/]+)"


@dataclass(frozen=True)
class Named:
    """A kind of file that must not ship."""

    control: str
    kind: str
    path: re.Pattern[str]
    content: re.Pattern[bytes] | None = None
    """What must stand at its beginning, where there are files of that name without it that may ship."""


def named(control: str, kind: str, path: str, content: bytes = b"") -> Named:
    """Return a rule for the paths that an expression matches as a whole."""
    return Named(control, kind, re.compile(path), re.compile(content) if content else None)


NAMED = (
    named("S01", "host key", r"/etc/ssh/ssh_host_[^/]*"),
    named("S03", "user's ssh file", HOME + r"/\.ssh/(?:id_[^/]*|known_hosts[^/]*|config|[^/]*\.(?:pem|ppk|key))"),
    named(
        "S04",
        "history",
        HOME + r"/\.(?:bash_history|zsh_history|zhistory|ash_history|sh_history|history|python_history|mysql_history"
        r"|psql_history|rediscli_history|node_repl_history|lesshst|viminfo|sqlite_history|irb_history|wget-hsts)",
    ),
    named(
        "S04",
        "history",
        HOME + r"/\.(?:local/share/fish/fish_history|local/state/(?:lesshst|python_history)|config/fish/fish_history)",
    ),
    named("S05", "X.509 key or certificate of an account", r".*/(?:pk|cert)-[A-Z0-9]{32}\.pem"),
    named(
        "S06",
        "cloud credentials",
        HOME
        + r"/(?:\.aws/.*|\.boto|\.s3cfg|\.passwd-s3fs|\.azure/.*|\.config/gcloud/.*)|/etc/(?:passwd-s3fs|boto\.cfg)",
    ),
    named(
        "S07",
        "credentials of a tool",
        HOME + r"/(?:\.netrc|\.pgpass|\.my\.cnf|\.git-credentials|\.docker/config\.json|\.kube/config|\.npmrc|\.pypirc"
        r"|\.vault-token|\.terraform\.d/credentials\.tfrc\.json|\.gnupg/private-keys-v1\.d/.*|\.env)",
    ),
    named(
        "S09",
        "back-up of the account files",
        r"/etc/(?:passwd|shadow|group|gshadow|subuid|subgid)(?:-|~|\.bak|\.old|\.orig|\.save)",
    ),
    named(
        "S10",
        "way in of the build's user",
        r"/etc/sudoers\.d/(?:90-cloud-init-users|zz-assay-build)|/etc/ssh/sshd_config\.d/01-assay-build\.conf",
    ),
    named(
        "S11",
        "state of cloud-init",
        r"/var/lib/cloud/(?:instances?|data|sem|seed)/.+|/var/log/cloud-init[^/]*|/run/cloud-init/.*",
    ),
    named("S12", "random seed", r"/var/lib/(?:systemd/random-seed|systemd/credential\.secret|urandom/random-seed)"),
    named("S12", "machine id", r"/etc/machine-id|/var/lib/dbus/machine-id", rb"[0-9a-f]{32}"),
    named("S12", "iSCSI name", r"/etc/iscsi/initiatorname\.iscsi", rb"(?ms).*?^InitiatorName="),
    named("S12", "NVMe name", r"/etc/nvme/host(?:id|nqn)"),
    named("S13", "DHCP lease", r"/var/lib/(?:dhcp|dhcpcd|dhclient|NetworkManager)/.*\.leases?"),
    named("S14", "journal", r"/var/log/journal/.+|/run/log/journal/.+"),
    named(
        "S14", "login record", r"/var/(?:log/(?:wtmp|btmp|lastlog|faillog|tallylog|wtmp\.db)|lib/(?:wtmpdb|lastlog)/.+)"
    ),
    named(
        "S14",
        "log",
        r"/var/log/(?:auth\.log|syslog|messages|secure|kern\.log|daemon\.log|user\.log|audit/audit\.log|sysstat/.+|account/pacct)[^/]*",
    ),
    named("S16", "temporary file", r"/(?:tmp|var/tmp)/.+"),
    named(
        "S17",
        "mail, spool or crash dump",
        r"/var/(?:mail|spool/(?:mail|cron/crontabs|cron/atjobs|at))/[^.].*|/var/crash/.+|/var/lib/systemd/coredump/.+",
    ),
    named(
        "S18",
        "registration of an agent",
        r"/var/lib/amazon/ssm/(?:Vault|registration).*|/var/lib/ecs/data/.+|/etc/(?:krb5\.keytab|puppetlabs/puppet/ssl/private_keys/.+"
        r"|chef/client\.pem|salt/pki/minion/.+\.pem|pki/(?:consumer|entitlement)/.*key.*\.pem)"
        r"|/var/lib/(?:samba/private/.+|sss/(?:db|secrets)/.+|puppet/ssl/private_keys/.+)",
    ),
    named("S18", "key of a disk or of a TPM", r"/etc/(?:cryptsetup-keys\.d|luks-keys)/.+|/var/lib/tpm/.+"),
    named(
        "S19", "container layer", r"/var/lib/(?:docker/overlay2|containerd/io\.containerd\.[^/]+|containers/storage)/.+"
    ),
    named(
        "S20",
        "time stamp of sudo or lock of an account",
        r"/(?:var/lib/sudo|run/sudo|var/db/sudo)/ts/.+|/var/run/faillock/.+|/var/lib/pam/.+/faillock",
    ),
    named("S21", "swap file", r"/(?:swapfile|swap\.img|var/swap|hiberfil\.sys)"),
)


ALL_NAMED = re.compile("|".join(f"({rule.path.pattern})" for rule in NAMED))
"""All rules at once, as a disk has many files: each is a group, and has none of its own."""


def named_residue(entries: tuple[Entry, ...]) -> Iterator[tuple[Named, Entry]]:
    """Yield every file with content that must not ship by its name."""
    for entry in entries:
        if not entry.is_file or entry.size == 0:
            continue
        if found := ALL_NAMED.fullmatch(entry.path):
            yield NAMED[(found.lastindex or 1) - 1], entry
