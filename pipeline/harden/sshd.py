"""The ssh daemon (H01-H08): a drop-in that comes first and wins, and no other file that contradicts it."""

from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.managed_file import ManagedFile
from pipeline.spec import Spec, SshdOptions

MAIN = "/etc/ssh/sshd_config"
FOLDER = "/etc/ssh/sshd_config.d"
DROP_IN = f"{FOLDER}/00-assay.conf"
BUILD_DROP_IN = f"{FOLDER}/01-assay-build.conf"
"""Lets the build's own user in while it builds. AllowUsers adds up over files; the scrub removes this one."""

ROLLBACK = "/run/assay-rollback/sshd"
"""On a tmpfs, so that it never reaches the disk."""

Version = tuple[int, int]

SMALLEST_MODULUS = 3071


@dataclass(frozen=True)
class Directive:
    """One line of sshd_config; `since` and `until`: the versions of OpenSSH that first know it, and first do not."""

    keyword: str
    value: str
    since: Version = (0, 0)
    until: Version = (1000, 0)
    effective: str | None = None
    """How `sshd -T` prints the value, where it differs."""
    built_in: bool = True
    """False: some builds of sshd leave it out, and then do not print it either."""

    def is_known(self, version: Version) -> bool:
        """Say whether an sshd of this version knows the keyword."""
        return self.since <= version < self.until


REMOVED = (
    Directive("Protocol", "2", until=(7, 6)),
    Directive("RSAAuthentication", "no", until=(7, 6)),
    Directive("RhostsRSAAuthentication", "no", until=(7, 6)),
    Directive("UseLogin", "no", until=(7, 4)),
    Directive("UsePrivilegeSeparation", "yes", until=(7, 5)),
)
"""What the template of [1] has and OpenSSH has dropped, because it knows nothing else any more."""

KEY_EXCHANGES: tuple[tuple[Version, str], ...] = (
    ((9, 9), "mlkem768x25519-sha256"),
    ((9, 9), "sntrup761x25519-sha512"),
    ((8, 5), "sntrup761x25519-sha512@openssh.com"),
    ((7, 4), "curve25519-sha256"),
    ((6, 5), "curve25519-sha256@libssh.org"),
    ((7, 3), "diffie-hellman-group18-sha512"),
    ((7, 3), "diffie-hellman-group16-sha512"),
)
CIPHERS = (
    "chacha20-poly1305@openssh.com",
    "aes256-gcm@openssh.com",
    "aes128-gcm@openssh.com",
    "aes256-ctr",
    "aes192-ctr",
    "aes128-ctr",
)
MACS = ("hmac-sha2-512-etm@openssh.com", "hmac-sha2-256-etm@openssh.com", "umac-128-etm@openssh.com")
HOST_KEY_ALGORITHMS = ("ssh-ed25519", "rsa-sha2-512", "rsa-sha2-256")


def steps(facts: Facts, spec: Spec, options: SshdOptions) -> tuple[Step, ...]:
    """Return the steps that set up sshd. What was before stays under /run until commit or rollback (H07)."""
    return (
        configure(facts, spec, options),
        Step(
            subject="sshd",
            controls=("H06",),
            title=f"drop Diffie-Hellman moduli of fewer than {SMALLEST_MODULUS} bits",
            test=f"[ ! -f /etc/ssh/moduli ] || {FEW_WEAK_MODULI}",
            action=DROP_WEAK_MODULI,
        ),
        Step(
            subject="sshd",
            controls=("H08",),
            title="remove host keys of protocol 1 and of type DSA",
            test="! find /etc/ssh -name 'ssh_host_key*' -o -name 'ssh_host_dsa_key*' | grep -q .",
            action="rm -f /etc/ssh/ssh_host_key* /etc/ssh/ssh_host_dsa_key*",
        ),
    )


def login_users(spec: Spec) -> tuple[str, ...]:
    """Return who may log in to instances of the image (H03): the spec's users, and the one who gets the launch key."""
    launch = [spec.image.launch_user] if spec.image.launch_user else []
    return tuple(dict.fromkeys([*(user.name for user in spec.users), *launch]))


def commit_command() -> str:
    """Return the command that accepts the new configuration, once a second login has proved it (H07)."""
    return f"rm -rf {ROLLBACK}"


def rollback_command() -> str:
    """Return the command that brings back the configuration from before, where one was kept, and reloads sshd (H07)."""
    return f"if [ -d {ROLLBACK} ]; then\n{RELOAD}{RESTORE}restore && sshd -t && reload && rm -rf {ROLLBACK}\nfi"


def configure(facts: Facts, spec: Spec, options: SshdOptions) -> Step:
    """Return the step that writes the drop-in, silences every other file, proves the effect, and reloads (H01-H07)."""
    version = facts.sshd_version or (0, 0)
    known = tuple(template(options, login_users(spec), version))
    drop_in = ManagedFile(DROP_IN, drop_in_text(known, version), "600")
    files = [drop_in]
    if spec.ssh.user not in login_users(spec):
        files.append(ManagedFile(BUILD_DROP_IN, f"# While the image is built.\nAllowUsers {spec.ssh.user}\n", "600"))
    silence = assign(keywords=" ".join(sorted(silenced_keywords(known)))) + SILENCE
    effect = prove_effect(known)
    return Step(
        subject="sshd",
        controls=("H01", "H02", "H03", "H04", "H05", "H06", "H07"),
        title=f"set up OpenSSH {version[0]}.{version[1]} by {DROP_IN}",
        test="".join(file.test for file in files) + silence + ALL_SILENT + effect,
        action=KEEP
        + RELOAD
        + RESTORE
        + "trap 'restore; echo \"rolled back\"' EXIT\n"
        + "".join(file.action for file in files)
        + silence
        + SILENCE_ALL
        + "install -d -m 755 /run/sshd\nsshd -t\n"
        + effect
        + "reload\ntrap - EXIT\n",
    )


def template(options: SshdOptions, users: tuple[str, ...], version: Version) -> Iterator[Directive]:
    """Yield the template of [0] and [1] with the limits of DS and Mozilla, as this version of sshd knows it."""
    yield from (
        directive
        for directive in (*fixed_directives(), *chosen(options, users, version))
        if directive.is_known(version)
    )


def fixed_directives() -> tuple[Directive, ...]:
    """Return what no option changes."""
    return (
        Directive("SyslogFacility", "AUTHPRIV"),
        Directive("LogLevel", "VERBOSE"),
        Directive("PubkeyAuthentication", "yes"),
        Directive("AuthenticationMethods", "publickey"),
        Directive("PasswordAuthentication", "no"),
        Directive("ChallengeResponseAuthentication", "no", until=(8, 7)),
        Directive("KbdInteractiveAuthentication", "no", since=(8, 7)),
        Directive("PermitEmptyPasswords", "no"),
        Directive("HostbasedAuthentication", "no"),
        Directive("IgnoreRhosts", "yes"),
        Directive("IgnoreUserKnownHosts", "yes"),
        Directive("KerberosAuthentication", "no", built_in=False),
        Directive("GSSAPIAuthentication", "no", built_in=False),
        Directive("UsePAM", "yes"),
        Directive("StrictModes", "yes"),
        Directive("AuthorizedKeysFile", ".ssh/authorized_keys"),
        Directive("AuthorizedKeysCommand", "none"),
        Directive("TrustedUserCAKeys", "none"),
        Directive("PermitUserEnvironment", "no"),
        Directive("PermitUserRC", "no"),
        Directive("PrintLastLog", "yes", built_in=False),
        Directive("X11Forwarding", "no"),
        Directive("AllowAgentForwarding", "no"),
        Directive("AllowStreamLocalForwarding", "no"),
        Directive("GatewayPorts", "no"),
        Directive("PermitTunnel", "no"),
        Directive("Compression", "no"),
        Directive("MaxSessions", "10"),
        Directive("MaxStartups", "10:30:60"),
        Directive("ClientAliveInterval", "300"),
        Directive("ClientAliveCountMax", "3"),
        Directive("Ciphers", ",".join(CIPHERS)),
        Directive("MACs", ",".join(MACS)),
        Directive("HostKeyAlgorithms", ",".join(HOST_KEY_ALGORITHMS)),
        # EC2 makes RSA key pairs of 2048 bits: a stricter rule would lock out who launches with one of those.
        Directive("RequiredRSASize", "2048", since=(9, 1)),
        Directive("Subsystem", "sftp internal-sftp"),
    )


def chosen(options: SshdOptions, users: tuple[str, ...], version: Version) -> tuple[Directive, ...]:
    """Return what the spec decides, and what depends on the version in its value."""
    key_exchanges = ",".join(name for since, name in KEY_EXCHANGES if since <= version)
    return (
        Directive("KexAlgorithms", key_exchanges),
        Directive("Port", str(options.port)),
        Directive(
            "PermitRootLogin",
            options.permit_root_login,
            effective=options.permit_root_login.replace("prohibit", "without"),
        ),
        Directive("UseDNS", "yes" if options.use_dns else "no"),
        Directive("MaxAuthTries", str(options.max_auth_tries)),
        Directive("LoginGraceTime", str(options.login_grace_seconds)),
        Directive("AllowTcpForwarding", "yes" if options.allow_tcp_forwarding else "no"),
        *(Directive("AllowUsers", user) for user in (*users, *root_login(options))),
    )


def root_login(options: SshdOptions) -> tuple[str, ...]:
    """Return root where the spec lets root log in: AllowUsers would keep it out otherwise."""
    return () if options.permit_root_login == "no" else ("root",)


def drop_in_text(known: tuple[Directive, ...], version: Version) -> str:
    """Return the drop-in, with a comment for each keyword of the template that this version does not know (H04)."""
    missing = [directive for directive in REMOVED if not directive.is_known(version)]
    known = (*(directive for directive in REMOVED if directive.is_known(version)), *known)
    return (
        "# Written by Assay. The first value that sshd reads wins, and this file is read first.\n"
        + "".join(f"{directive.keyword} {directive.value}\n" for directive in known)
        + "".join(
            f"# {directive.keyword}: not applicable, unknown since OpenSSH {directive.until[0]}.{directive.until[1]}\n"
            for directive in missing
        )
    )


def silenced_keywords(known: tuple[Directive, ...]) -> set[str]:
    """Return the keywords, in lower case, that no other file may set: ours, and those that add up over files."""
    adding = {"acceptenv", "allowusers", "denyusers", "allowgroups", "denygroups", "authorizedkeyscommanduser"}
    synonyms = {"challengeresponseauthentication", "kbdinteractiveauthentication", "skeyauthentication"}
    synonyms |= {"authorizedprincipalscommand", "authorizedprincipalsfile", "setenv", "forcecommand", "permitopen"}
    return {directive.keyword.lower() for directive in (*known, *REMOVED)} | adding | synonyms


def prove_effect(known: tuple[Directive, ...]) -> str:
    """Return lines that fail when `sshd -T` shows another value than the template's.

    It is asked for root alone: no Match block is left that could tell users apart.
    """
    marks = {True: "=", False: "?"}
    wanted = [
        f"{marks[directive.built_in]}{directive.keyword.lower()} {directive.effective or directive.value}"
        for directive in known
    ]
    listing = "\n".join([*wanted, "!acceptenv", "!denyusers", "!allowgroups", "!denygroups"])
    return assign(wanted=listing, compare=COMPARE) + PROVE_EFFECT


PROVE_EFFECT = """
[ -d /run/sshd ] || install -d -m 755 /run/sshd
{
    printf '%s\\n--\\n' "$wanted"
    sshd -T -C user=root,host=client.invalid,addr=192.0.2.1
} | awk "$compare"
"""


COMPARE = """!reading && $0 == "--" { reading = 1; next }
!reading {
    kind = substr($0, 1, 1); line = tolower(substr($0, 2)); split(line, words, " ")
    if (kind == "!") absent[words[1]]; else { wanted[line]; if (kind == "?") maybe[words[1]] }
    next
}
{ line = tolower($0); sub(/ +$/, "", line); split(line, words, " "); seen[words[1]]; printed[line] }
END {
    for (word in absent) if (word in seen) { print "still set: " word; bad = 1 }
    for (line in wanted) {
        split(line, words, " ")
        if (line in printed || ((words[1] in maybe) && !(words[1] in seen))) continue
        print "not in effect: " line; bad = 1
    }
    exit bad
}
"""

SILENCE = r"""
others() {
    for file in /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf; do
        case $file in */00-assay.conf | */01-assay-build.conf) continue ;; esac
        if [ -f "$file" ]; then printf '%s\n' "$file"; fi
    done
}
silence() {
    awk -v keywords=" $keywords " -v report="$2" '
    function keep(line) { if (!report) print line }
    FNR == 1 { silent = 0 }
    /^[ \t]*(#|$)/ { keep($0); next }
    {
        line = $0; sub(/^[ \t]+/, "", line); split(line, words, /[ \t="]+/); keyword = tolower(words[1])
        main = FILENAME == "/etc/ssh/sshd_config"
        first = main && !active++
        if (keyword == "match") silent = 1
        ours = first && keyword == "include" && words[2] == "/etc/ssh/sshd_config.d/*.conf"
        if (ours) { included = 1; keep($0) }
        else if (silent || keyword == "include" || index(keywords, " " keyword " ")) print "#assay# " $0
        else keep($0)
    }
    END { if (report && !included) print "the first line does not include the folder" }' $1
}
"""
"""Comments out, in every file but ours: what the template sets, what adds up over files, all of a Match block, and
includes of other places. Asked to report, it prints those lines only."""

ALL_SILENT = """
[ -z "$(silence "$(others)" report)" ]
"""

SILENCE_ALL = """
for file in $(others); do
    new=${file%/*}/.${file##*/}.assay-new
    cp -p "$file" "$new"
    silence "$file" '' >"$new"
    mv -f "$new" "$file"
done
if [ -n "$(silence /etc/ssh/sshd_config report)" ]; then
    new=/etc/ssh/.sshd_config.assay-new
    cp -p /etc/ssh/sshd_config "$new"
    { echo 'Include /etc/ssh/sshd_config.d/*.conf'; cat /etc/ssh/sshd_config; } >"$new"
    mv -f "$new" /etc/ssh/sshd_config
fi
"""

KEEP = f"""
rm -rf {ROLLBACK}
(umask 077 && mkdir -p {ROLLBACK}/sshd_config.d)
mkdir -p {FOLDER}
cp -p {MAIN} {ROLLBACK}/
for file in {FOLDER}/*.conf; do if [ -f "$file" ]; then cp -p "$file" {ROLLBACK}/sshd_config.d/; fi; done
"""

RESTORE = f"""
restore() {{
    rm -f {FOLDER}/*.conf {FOLDER}/.*.assay-new
    cp -p {ROLLBACK}/sshd_config {MAIN}
    for file in {ROLLBACK}/sshd_config.d/*.conf; do if [ -f "$file" ]; then cp -p "$file" {FOLDER}/; fi; done
}}
"""

RELOAD = """
reload() {
    if [ -d /run/systemd/system ]; then
        for unit in ssh sshd; do
            if systemctl is-active --quiet "$unit.service"; then systemctl reload "$unit.service"; return; fi
        done
    elif [ -s /run/sshd.pid ]; then
        kill -HUP "$(cat /run/sshd.pid)"
    fi
}
"""
"""Sessions that are open stay open: only the listener reads the files again. A new port counts from the next boot."""

FEW_WEAK_MODULI = f"awk '!/^#/ && NF >= 7 && $5 < {SMALLEST_MODULUS} {{ exit 1 }}' /etc/ssh/moduli"
DROP_WEAK_MODULI = f"""
new=/etc/ssh/.moduli.assay-new
awk '/^#/ || $5 >= {SMALLEST_MODULUS}' /etc/ssh/moduli >"$new"
chmod 644 "$new"
mv -f "$new" /etc/ssh/moduli
"""
