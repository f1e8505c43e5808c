"""The people who may log in, their keys and their sudo (H09-H12, H14): the spec's, and nobody else."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.managed_file import ManagedFile
from pipeline.spec import Spec, User

SUDO_FOLDER = "/etc/sudoers.d"
SUDO_PREFIX = f"{SUDO_FOLDER}/60-assay-"
ROOT_GROUPS = ("disk", "docker", "incus-admin", "kmem", "libvirt", "lxd", "mem", "root", "shadow")
"""Whose members can become root by themselves."""
SUDO_AUDIT = ManagedFile(
    f"{SUDO_FOLDER}/10-assay-audit",
    "# Written by Assay: who did what, and when.\nDefaults use_pty, syslog=authpriv\n",
    "440",
)


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the steps that make the spec's users, remove the others, and lock every password."""
    return (
        *(step for user in spec.users for step in user_steps(user, spec)),
        Step("users", ("H12",), "sudo writes an audit trail", write_checked(SUDO_AUDIT), SUDO_AUDIT.test),
        remove_old_grants(spec),
        leave_groups(spec),
        *((remove_leavers(spec),) if spec.harden.remove_other_users else ()),
        Step(
            "users",
            ("H13", "H14"),
            "lock every password",
            LOCK_PASSWORDS,
            "! awk -F: '$2 !~ /^[!*]/' /etc/shadow | grep -q .",
        ),
    )


def user_steps(user: User, spec: Spec) -> tuple[Step, ...]:
    """Return the steps for one user: account, keys, and sudo where it is granted."""
    account = make_account(user, keep_groups=user.name in (spec.ssh.user, spec.image.launch_user))
    keys = give_keys(user, keep_keys=user.name == spec.ssh.user)
    return (account, keys, grant_sudo(user)) if user.sudo else (account, keys)


def make_account(user: User, keep_groups: bool) -> Step:
    """Return the step that makes an account with full name, shell and groups (H10).

    `keep_groups`: groups that it has besides are left: cloud-init gives the launch user its own.
    """
    variables = assign(
        name=user.name,
        wanted_name=user.full_name,
        wanted_shell=user.shell,
        wanted_groups=" ".join(user.groups),
        keep_groups="yes" if keep_groups else "",
    )
    title = f"account {user.name} ({user.full_name})"
    return Step("users", ("H10", "H12"), title, variables + MAKE_ACCOUNT, variables + IS_ACCOUNT_MADE)


def give_keys(user: User, keep_keys: bool) -> Step:
    """Return the step that writes a user's authorized_keys (H09, H10).

    `keep_keys`: other keys stay. The user that the build logs in as needs the build's own key until the scrub.
    """
    variables = assign(name=user.name, keys="\n".join(user.keys), keep_keys="yes" if keep_keys else "") + FIND_KEYS
    title = f"{len(user.keys)} public key{'s' if len(user.keys) > 1 else ''} of {user.name}"
    return Step("users", ("H09", "H10"), title, variables + GIVE_KEYS, variables + ARE_KEYS_GIVEN)


def grant_sudo(user: User) -> Step:
    """Return the step that grants sudo, with who decided it and why in the file (H12)."""
    assert user.sudo
    password = "" if user.sudo.password else "NOPASSWD: "
    until = f"NOTAFTER={user.sudo.until:%Y%m%d}235959Z " if user.sudo.until else ""
    file = ManagedFile(
        f"{SUDO_PREFIX}{user.name}",
        f"# Written by Assay.\n# who: {user.sudo.who}\n# why: {user.sudo.why}\n"
        f"{user.name} ALL=(ALL:ALL) {until}{password}{user.sudo.commands}\n",
        "440",
    )
    end = f" until {user.sudo.until}" if user.sudo.until else ""
    title = f"sudo for {user.name}{end}: {user.sudo.why} (decided by {user.sudo.who})"
    return Step("users", ("H12",), title, write_checked(file), file.test)


def write_checked(file: ManagedFile) -> str:
    """Return an action that writes a sudoers file once visudo has accepted it."""
    trial = ManagedFile(f"/run/assay-{file.path.rpartition('/')[2]}", file.content, file.mode)
    return (
        f"{trial.action}visudo -q -c -f {trial.path}\nrm -f {trial.path}\n"
        f"install -d -m 750 {SUDO_FOLDER}\n{file.action}"
    )


def remove_old_grants(spec: Spec) -> Step:
    """Return the step that removes grants of ours which the spec no longer makes (H11, H12)."""
    variables = assign(prefix=SUDO_PREFIX, granted=" ".join(user.name for user in spec.users if user.sudo))
    test = f'{variables}{OLD_GRANTS}[ -z "$(old_grants)" ]'
    action = f'{variables}{OLD_GRANTS}for file in $(old_grants); do rm -f "$file"; echo "removed $file"; done'
    return Step("users", ("H11", "H12"), "no grant of sudo that the spec does not make", action, test)


def leave_groups(spec: Spec) -> Step:
    """Return the step that takes everybody out of the groups whose members can become root by themselves (H12).

    Ubuntu puts the launch user into `lxd`. What the spec says of its own users stays.
    """
    said = " ".join(f"{user.name}:{group}" for user in spec.users for group in user.groups)
    variables = assign(groups=" ".join(ROOT_GROUPS), said=said) + FIND_MEMBERS
    test = f'{variables}found=$(members)\nif [ -n "$found" ]; then echo "they are:" $found; exit 1; fi'
    action = f'{variables}for found in $(members); do gpasswd -d "${{found%:*}}" "${{found#*:}}"; done'
    return Step("users", ("H12",), "nobody is in a group that equals root", action, test)


def remove_leavers(spec: Spec) -> Step:
    """Return the step that removes people who are not in the spec, and what they own (H11)."""
    launch = [spec.image.launch_user] if spec.image.launch_user else []
    kept = " ".join([*(user.name for user in spec.users), spec.ssh.user, *launch])
    variables = assign(kept=kept, sudo_folder=SUDO_FOLDER) + FIND_LEAVERS
    test = f'{variables}found=$(leavers)\nif [ -n "$found" ]; then echo "they are:" $found; exit 1; fi'
    title = "remove login users that the spec does not name"
    return Step("users", ("H11",), title, variables + REMOVE_LEAVERS, test)


IS_ACCOUNT_MADE = r"""
entry=$(grep "^$name:" /etc/passwd)
IFS=: read -r account password uid gid full_name home shell <<ENTRY
$entry
ENTRY
[ "${full_name%%,*}" = "$wanted_name" ]
[ "$shell" = "$wanted_shell" ]
[ "$(stat -c %u "$home")" = "$uid" ]
present=$(id -nG "$name")
own=${present%% *}
for group in $wanted_groups; do
    case " $present " in *" $group "*) ;; *) exit 1 ;; esac
done
for group in $present; do
    case "$keep_groups $own $wanted_groups " in yes* | *" $group "*) ;; *) exit 1 ;; esac
done
"""

MAKE_ACCOUNT = r"""
if [ ! -x "$wanted_shell" ]; then echo "the shell $wanted_shell is not installed"; exit 1; fi
for group in $wanted_groups; do
    if ! grep -q "^$group:" /etc/group; then groupadd "$group"; fi
done
own=-U
if grep -q "^$name:" /etc/group; then own="-g $name"; fi
if grep -q "^$name:" /etc/passwd; then
    usermod -c "$wanted_name" -s "$wanted_shell" "$name"
else
    useradd -m $own -c "$wanted_name" -s "$wanted_shell" "$name"
fi
home=$(awk -F: -v name="$name" '$1 == name { print $6 }' /etc/passwd)
if [ ! -d "$home" ]; then cp -R /etc/skel "$home"; chmod 700 "$home"; fi
chown -R -h "$name": "$home"
groups=$(echo $wanted_groups | tr ' ' ,)
if [ -z "$keep_groups" ]; then
    usermod -G "$groups" "$name"
elif [ -n "$groups" ]; then
    usermod -a -G "$groups" "$name"
fi
"""

FIND_KEYS = r"""
home=$(awk -F: -v name="$name" '$1 == name { print $6 }' /etc/passwd)
folder=$home/.ssh file=$home/.ssh/authorized_keys owner=$(id -u "$name"):$(id -g "$name")
"""

ARE_KEYS_GIVEN = r"""
[ ! -L "$folder" ]
[ ! -L "$file" ]
[ "$(stat -c '%a %u:%g' "$folder")" = "700 $owner" ]
[ "$(stat -c '%a %u:%g' "$file")" = "600 $owner" ]
if [ -z "$keep_keys" ]; then
    [ "$(cat "$file")" = "$keys" ]
else
    [ -z "$(printf '%s\n' "$keys" | grep -vxFf "$file")" ]
fi
"""

GIVE_KEYS = r"""
for path in "$folder" "$file"; do
    if [ -L "$path" ]; then rm -f "$path"; fi
done
mkdir -p "$folder"
chown "$owner" "$folder"
chmod 700 "$folder"
umask 077
new=$folder/.authorized_keys.assay-new
if [ -n "$keep_keys" ] && [ -f "$file" ]; then
    { cat "$file"; printf '%s\n' "$keys" | grep -vxFf "$file" || :; } >"$new"
else
    printf '%s\n' "$keys" >"$new"
fi
chown "$owner" "$new"
mv -f "$new" "$file"
if command -v restorecon >/dev/null; then restorecon -R "$folder"; fi
"""

OLD_GRANTS = r"""
old_grants() {
    for file in "$prefix"*; do
        case " $granted " in *" ${file#"$prefix"} "*) continue ;; esac
        if [ -f "$file" ]; then printf '%s\n' "$file"; fi
    done
}
"""

FIND_MEMBERS = r"""
members() {
    awk -F: -v groups=" $groups " -v said=" $said " '
        index(groups, " " $1 " ") {
            count = split($4, names, ",")
            for (number = 1; number <= count; number++) {
                found = names[number] ":" $1
                if (names[number] != "root" && !index(said, " " found " ")) print found
            }
        }' /etc/group
}
"""

FIND_LEAVERS = r"""
leavers() {
    awk -F: -v kept=" $kept " '
        $3 >= 1000 && $3 < 65534 && $7 !~ "/(nologin|false|sync|shutdown|halt)$" && !index(kept, " " $1 " ") {
            print $1
        }' /etc/passwd
}
"""

REMOVE_LEAVERS = r"""
for leaver in $(leavers); do
    uid=$(id -u "$leaver")
    if [ -d /run/systemd/system ]; then loginctl terminate-user "$leaver" 2>/dev/null || :; fi
    for process in /proc/[0-9]*; do
        if [ "$(stat -c %u "$process" 2>/dev/null)" = "$uid" ]; then kill -KILL "${process#/proc/}" || :; fi
    done
    userdel -r -f "$leaver" 2>&1 || :
    if grep -q "^$leaver:" /etc/passwd; then echo "cannot remove $leaver"; exit 1; fi
    for file in /etc/sudoers "$sudo_folder"/*; do
        if grep -qs "^$leaver[[:space:]]" "$file"; then sed -i "/^$leaver[[:space:]]/d" "$file"; fi
    done
    rm -f "/var/spool/cron/$leaver" "/var/spool/cron/crontabs/$leaver" "/var/mail/$leaver"
    echo "removed $leaver"
    # What is theirs elsewhere would belong to the next account with this number.
    find / -xdev -uid "$uid" -print -exec rm -rf {} + || :
done
"""

LOCK_PASSWORDS = r"""
for account in $(awk -F: '$2 !~ /^[!*]/ { print $1 }' /etc/shadow); do
    usermod -p '!' "$account"
    echo "locked $account"
done
"""
