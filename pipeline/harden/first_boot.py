"""What an instance does at its first boot: the launch key for the right user, a root password that nobody has.

Where cloud-init is installed it makes the host keys, shows them on the console and brings the launch key, as we tell
it. Where it is not, units of ours do so.
"""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.instance_metadata import ASK
from pipeline.harden.managed_file import ManagedFile
from pipeline.harden.unit import enable_unit, unit_file
from pipeline.spec import Spec

CLOUD_CONFIG = "/etc/cloud/cloud.cfg.d/95-assay.cfg"
PRIVATE_COPIES = "/etc/systemd/system/cloud-final.service.d/50-assay-private-copies.conf"
UNIT = "assay-root-password.service"
DONE = "/var/lib/assay/root-password"
KEYS_UNIT = "assay-host-keys.service"
KEYS_SCRIPT = "/etc/assay/first-boot/host-keys.sh"
LAUNCH_UNIT = "assay-launch-key.service"
LAUNCH_SCRIPT = "/etc/assay/first-boot/launch-key.sh"
LAUNCH_SUDO = "/etc/sudoers.d/50-assay-launch-user"
PRIVILEGED_GROUPS = "sudo wheel admin adm root disk shadow docker lxd libvirt systemd-journal"
"""Groups whose members are root, or can become it, or read what only root should."""

# Seed [3]'s own snippet runs at every second boot, and its two file names disagree. This one runs once: what shows that
# it ran is written after it ran. The password goes from one process to the next and is never printed.
ROOT_PASSWORD = unit_file(
    UNIT,
    f"""# Written by Assay (H13).
[Unit]
Description=Give root a random password, once, and lock it
ConditionPathExists=!{DONE}
After=local-fs.target systemd-random-seed.service
Before=ssh.service sshd.service

[Service]
Type=oneshot
UMask=0077
StandardOutput=null
ExecStart=/bin/sh -c '{{ printf root:; head -c 48 /dev/urandom | base64 | tr -d "\\\\n"; echo; }} | chpasswd'
ExecStart=/bin/sh -c 'usermod -L root'
ExecStart=/bin/sh -c 'mkdir -p {DONE.rpartition("/")[0]} && : >{DONE}'

[Install]
WantedBy=multi-user.target
""",
)

# cloud-init keeps what an instance was given: user-data, vendor-data, and all of the metadata, credentials of the role
# among it. It writes them anew at each boot, as 0600; this runs when its last stage has ended.
KEEP_PRIVATE = """# Written by Assay (H22): root alone reads what the instance was given, and nobody writes it.
[Service]
ExecStartPost=-/usr/bin/find /var/lib/cloud/instances /run/cloud-init -type f ( -name user-data.txt* \\
    -o -name vendor-data*.txt* -o -name cloud-config.txt -o -name obj.pkl -o -name instance-data-sensitive.json \\
    -o -name combined-cloud-config.json ) -exec chmod 0400 {} +
"""


# In /etc, because programs elsewhere must come from packages (V08). What it prints is what cloud-init prints.
HOST_KEYS = r"""#!/bin/sh
# Written by Assay (H08, S01): host keys where there are none, and all of them on the console.
set -eu
ssh-keygen -A >/dev/null
{
    echo '-----BEGIN SSH HOST KEY FINGERPRINTS-----'
    for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -l -f "$key"; done
    echo '-----END SSH HOST KEY FINGERPRINTS-----'
    echo '-----BEGIN SSH HOST KEY KEYS-----'
    cat /etc/ssh/ssh_host_*_key.pub
    echo '-----END SSH HOST KEY KEYS-----'
} >/dev/console
"""

KEYS_SERVICE = f"""# Written by Assay (H08, S01).
[Unit]
Description=Make the ssh host keys that are missing, and show them on the console
After=local-fs.target systemd-random-seed.service
Before=ssh.service sshd.service

[Service]
Type=oneshot
RemainAfterExit=yes
UMask=0077
ExecStart=/bin/sh {KEYS_SCRIPT}

[Install]
WantedBy=multi-user.target
"""

# Once for each instance: who takes the launch key out of authorized_keys later does not get it back at the next boot.
LAUNCH_KEY = r"""#!/bin/sh
# Written by Assay (H15): the launch key, from the metadata service to the authorized_keys of one user.
set -eu
user=@USER@
done=/var/lib/assay/launch-key
@ASK@
say() { printf 'launch key: %s\n' "$*" >&2; }
refuse() { say "not installed: $*"; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
get_token
instance=$(ask meta-data/instance-id) || refuse 'the metadata service does not name the instance'
if [ "$(cat "$done" 2>/dev/null)" = "$instance" ]; then exit 0; fi
status=0
key=$(ask meta-data/public-keys/0/openssh-key) || status=$?
if [ "$status" -eq 3 ]; then say 'this instance was launched without one'; exit 0; fi
if [ "$status" -ne 0 ]; then refuse 'the metadata service does not answer'; fi
case $key in
*'
'*) refuse 'what the metadata service has is no single line' ;;
'ssh-ed25519 '* | 'ssh-rsa '* | 'ecdsa-sha2-nistp'*' '*) ;;
*) refuse 'what the metadata service has is no public key' ;;
esac
if ! entry=$(getent passwd "$user"); then
    group=-U # a group of that name is somebody else's: not joined
    if getent group "$user" >/dev/null; then group=-N; fi
    useradd -m "$group" -s /bin/bash "$user"
    entry=$(getent passwd "$user")
fi
home=$(printf '%s\n' "$entry" | cut -d: -f6)
folder=$home/.ssh file=$home/.ssh/authorized_keys
if [ -L "$folder" ] || [ -L "$file" ]; then refuse "$folder is a symbolic link, or holds one"; fi
umask 077
mkdir -p "$folder"
if [ -f "$file" ]; then cat "$file" >"$work/keys"; else : >"$work/keys"; fi
if ! grep -qxF -e "$key" "$work/keys"; then printf '%s\n' "$key" >>"$work/keys"; fi
cp "$work/keys" "$folder/.authorized_keys.assay-new"
chown -R "$user:" "$folder"
mv -f "$folder/.authorized_keys.assay-new" "$file"
if command -v restorecon >/dev/null; then restorecon -R "$folder"; fi
mkdir -p "${done%/*}"
printf '%s\n' "$instance" >"$done"
say "installed for $user on $instance"
"""

LAUNCH_SERVICE = f"""# Written by Assay (H15).
[Unit]
Description=Install the launch key of this instance, once
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {LAUNCH_SCRIPT}
TimeoutStartSec=180
PrivateTmp=yes

[Install]
WantedBy=multi-user.target
"""


def steps(facts: Facts, spec: Spec) -> tuple[Step, ...]:
    """Return the steps that prepare the first boot: host keys and launch key (H08, H15, S01), root's password (H13).

    H22: only root reads what the instance was given. H30: where the spec says so, the launch user is no administrator.
    """
    found = [configure_cloud_init(spec)] if facts.cloud_init else []
    if facts.has_systemd:
        found += [keep_copies_private()] if facts.cloud_init else []
        found += [] if facts.cloud_init else units_instead_of_cloud_init(spec)
        title = "root gets a random password at the first boot, locked"
        found.append(enable_unit("first_boot", ("H13",), title, UNIT, (ROOT_PASSWORD,)))
    if spec.image.launch_user and not spec.harden.launch_user_sudo:
        found.append(take_privileges(spec.image.launch_user))
    return tuple(found)


def configure_cloud_init(spec: Spec) -> Step:
    """Return the step that tells cloud-init who gets the launch key."""
    file = ManagedFile(CLOUD_CONFIG, cloud_config_text(spec))
    controls = ("H15", "H01", "S01") if spec.harden.launch_user_sudo else ("H15", "H01", "S01", "H30")
    return Step("first_boot", controls, launch_title(spec), file.action, file.test)


def keep_copies_private() -> Step:
    """Return the step that leaves the copies of user-data and metadata to root, read-only, at each boot (H22; [4])."""
    file = ManagedFile(PRIVATE_COPIES, KEEP_PRIVATE)
    title = "copies of user-data and metadata are root's alone, read-only"
    return Step("first_boot", ("H22",), title, file.action, file.test)


def units_instead_of_cloud_init(spec: Spec) -> list[Step]:
    """Return the steps for an image without cloud-init: host keys, and the launch key of each instance."""
    host_keys = (ManagedFile(KEYS_SCRIPT, HOST_KEYS, "755"), unit_file(KEYS_UNIT, KEYS_SERVICE))
    title = "host keys are made and shown at the first boot"
    found = [enable_unit("first_boot", ("H08", "S01"), title, KEYS_UNIT, host_keys)]
    user = spec.image.launch_user
    if user:
        script = ManagedFile(LAUNCH_SCRIPT, LAUNCH_KEY.replace("@USER@", user).replace("@ASK@", ASK), "755")
        grant = f"# Written by Assay.\n{user} ALL=(ALL:ALL) NOPASSWD: ALL\n"
        sudo = (ManagedFile(LAUNCH_SUDO, grant, "440"),) if spec.harden.launch_user_sudo else ()
        files = (script, unit_file(LAUNCH_UNIT, LAUNCH_SERVICE), *sudo)
        title = f"a unit gives the launch key to {user}"
        found.append(enable_unit("first_boot", ("H15",), title, LAUNCH_UNIT, files))
    return found


def take_privileges(user: str) -> Step:
    """Return the step that leaves the launch user no group that could make them root (H30)."""
    variables = assign(name=user, groups=PRIVILEGED_GROUPS, grant=LAUNCH_SUDO)
    title = f"the launch user {user} is no administrator"
    return Step("first_boot", ("H30",), title, variables + TAKE_PRIVILEGES, variables + HAS_NO_PRIVILEGES)


FIND_PRIVILEGES = r"""
held=$(awk -F: -v name=",$name," -v groups=" $groups " \
    'index(groups, " " $1 " ") && index("," $4 ",", name) { print $1 }' /etc/group)
"""

HAS_NO_PRIVILEGES = f"""{FIND_PRIVILEGES}
if [ -n "$held" ]; then echo "$name is in" $held; exit 1; fi
[ ! -e "$grant" ]
"""

TAKE_PRIVILEGES = f"""{FIND_PRIVILEGES}
rm -f "$grant"
for group in $held; do gpasswd -d "$name" "$group" >/dev/null; done
"""


def launch_title(spec: Spec) -> str:
    """Return what cloud-init is told about the launch key."""
    user = spec.image.launch_user
    without = "" if spec.harden.launch_user_sudo else ", without sudo, and reads no user-data"
    return f"cloud-init gives the launch key to {user or 'nobody'}{without}"


def cloud_config_text(spec: Spec) -> str:
    """Return the settings of cloud-init: no passwords, fresh host keys, and the launch user or none.

    H30: user-data and vendor-data would run as root, so a customer who is not root cannot bring any.
    """
    user, sudo = spec.image.launch_user, spec.harden.launch_user_sudo
    launch = f"system_info:\n  default_user:\n    name: {user}\n    lock_passwd: true\n" if user else "users: []\n"
    unprivileged = "    sudo: null\n    groups: []\n" if user else ""
    no_data = "allow_userdata: false\nvendor_data: {enabled: false}\nvendor_data2: {enabled: false}\n"
    return (
        f"# Written by Assay.\ndisable_root: true\nssh_pwauth: false\nssh_deletekeys: true\n{launch}"
        f"{'' if sudo else unprivileged + no_data}"
    )
