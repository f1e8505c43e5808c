"""What an instance does at its first boot: the launch key for the right user, a root password that nobody has."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden.managed_file import ManagedFile
from pipeline.spec import Spec

CLOUD_CONFIG = "/etc/cloud/cloud.cfg.d/95-assay.cfg"
UNIT = "assay-root-password.service"
DONE = "/var/lib/assay/root-password"

# Seed [3]'s own snippet runs at every second boot, and its two file names disagree. This one runs once: what shows that
# it ran is written after it ran. The password goes from one process to the next and is never printed.
ROOT_PASSWORD = ManagedFile(
    f"/etc/systemd/system/{UNIT}",
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


def steps(facts: Facts, spec: Spec) -> tuple[Step, ...]:
    """Return the steps that prepare the first boot: the launch key's way (H15), and root's password (H13)."""
    cloud_config = ManagedFile(CLOUD_CONFIG, cloud_config_text(spec))
    launch = Step("first_boot", ("H15", "H01", "S01"), launch_title(spec), cloud_config.action, cloud_config.test)
    password = Step(
        "first_boot",
        ("H13",),
        "root gets a random password at the first boot, locked",
        f"{ROOT_PASSWORD.action}systemctl --no-reload enable {UNIT}",
        f"{ROOT_PASSWORD.test}systemctl is-enabled --quiet {UNIT}",
    )
    return (*((launch,) if facts.cloud_init else ()), *((password,) if facts.has_systemd else ()))


def launch_title(spec: Spec) -> str:
    """Return what cloud-init is told about the launch key."""
    user = spec.image.launch_user
    return f"cloud-init gives the launch key to {user}" if user else "cloud-init gives the launch key to nobody"


def cloud_config_text(spec: Spec) -> str:
    """Return the settings of cloud-init: no passwords, fresh host keys, and the launch user or none."""
    user = spec.image.launch_user
    launch = f"system_info:\n  default_user:\n    name: {user}\n    lock_passwd: true\n" if user else "users: []\n"
    return f"# Written by Assay.\ndisable_root: true\nssh_pwauth: false\nssh_deletekeys: true\n{launch}"
