"""ssh keys: of the host, of those who may log in, and of those who logged in from here (S01, S02, S03)."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.scrub.removal import prelude, removal
from pipeline.spec import Spec, User


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the steps that leave no key but the public ones that the spec declares."""
    return (
        removal(spec, "keys", ("S01",), "remove host keys; the first boot makes new ones", HOST_KEYS),
        removal(spec, "keys", ("S03", "H27"), "remove private keys, and what ssh clients keep", PRIVATE_KEYS),
        *(keep_declared_keys(user) for user in spec.users),
        Step(
            "keys",
            ("S02",),
            "remove every other authorized key and certificate authority",
            authorized_keys(spec) + "found | remove",
            authorized_keys(spec) + '[ -z "$(found)" ]',
        ),
    )


def keep_declared_keys(user: User) -> Step:
    """Return the step that leaves exactly the spec's keys in a user's authorized_keys (S02)."""
    variables = assign(name=user.name, keys="\n".join(user.keys)) + USER_FILE
    title = f"leave only the declared keys of {user.name}"
    return Step("keys", ("S02", "H10"), title, variables + WRITE_USER_FILE, variables + IS_USER_FILE)


def authorized_keys(spec: Spec) -> str:
    """Return the shell function that finds what lets anybody in whom the spec does not name."""
    names = f" {' '.join(user.name for user in spec.users)} "
    return prelude(spec) + assign(declared=names) + AUTHORIZED_KEYS


USER_FILE = r"""
home=$(awk -F: -v name="$name" '$1 == name { print $6 }' /etc/passwd)
file=$home/.ssh/authorized_keys owner=$(id -u "$name"):$(id -g "$name")
"""

IS_USER_FILE = r"""
[ ! -L "$file" ]
[ "$(stat -c '%a %u:%g' "$file")" = "600 $owner" ]
[ "$(cat "$file")" = "$keys" ]
"""

WRITE_USER_FILE = r"""
mkdir -p "$home/.ssh"
chown "$owner" "$home/.ssh"
chmod 700 "$home/.ssh"
rm -f "$file"
(umask 077 && printf '%s\n' "$keys" >"$file")
chown "$owner" "$file"
if command -v restorecon >/dev/null; then restorecon -R "$home/.ssh"; fi
"""

SSHD_FILES = r"""
named_files() {
    sed -n -E "s/^(#assay# )?[[:space:]]*($1)[[:space:]=]+//Ip" \
        /etc/ssh/sshd_config /etc/ssh/sshd_config.d/*.conf 2>/dev/null | tr -d '"' | tr -s ' \t' '\n\n'
}
"""
"""What any sshd_config names, in lines too that the hardening silenced: their files are still there."""

AUTHORIZED_KEYS = (
    SSHD_FILES
    + r"""
candidates() {
    homes | while IFS= read -r home; do printf '%s\n' "$home"/.ssh/authorized_* "$home"/.ssh/.authorized_*; done
    named_files AuthorizedKeysFile | while IFS= read -r file; do
        awk -F: -v file="$file" '{
            path = file; gsub(/%u/, $1, path); gsub(/%h/, $6, path); gsub(/%U/, $3, path); gsub(/%%/, "%", path)
            print path ~ "^/" ? path : $6 "/" path
        }' /etc/passwd
    done
    named_files 'TrustedUserCAKeys|AuthorizedPrincipalsFile|RevokedKeys' | grep '^/' || :
}
found() {
    ours='index(declared, " " $1 " ") { print $6 "/.ssh/authorized_keys" }'
    candidates | present | grep -vxF -e "$(awk -F: -v declared="$declared" "$ours" /etc/passwd)" || :
}
"""
)

HOST_KEYS = (
    SSHD_FILES.strip()
    + r"""
{
    printf '%s\n' /etc/ssh/ssh_host_* /etc/ssh/.ssh_host_* /etc/dropbear/dropbear_*_host_key /etc/openssh/ssh_host_*
    named_files 'HostKey|HostCertificate' | while IFS= read -r file; do printf '%s\n' "$file" "$file.pub"; done
} | grep '^/' | present
"""
)

PRIVATE_KEYS = r"""
mark='-----BEGIN ([A-Z]+ )*PRIVATE KEY|^PuTTY-User-Key-File-'
{
    homes | while IFS= read -r home; do
        for file in "$home"/.ssh/* "$home"/.ssh/.[!.]*; do
            case $file in */authorized_keys*) ;; *) printf '%s\n' "$file" ;; esac
        done
    done
    own=$(own_homes)
    find $own -xdev -maxdepth 2 -type f \( -name '*.pem' -o -name '*.ppk' -o -name 'id_rsa*' -o -name 'id_dsa*' \
        -o -name 'id_ecdsa*' -o -name 'id_ed25519*' \) || :
    find $own /tmp /etc /opt /srv /usr/local /var -xdev \( -path /var/lib/dpkg -o -path /var/log \) -prune \
        -o -type f -size -2048k -exec grep -lE -e "$mark" {} + || :
    printf '%s\n' /etc/ssh/ssh_known_hosts /etc/ssh/ssh_known_hosts2
} 2>/dev/null | present
"""
