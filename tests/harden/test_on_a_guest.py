"""The network, kernel and login subjects on a booted Debian: applied, each broken in turn, and kept over a reboot."""

import contextlib
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from pipeline.errors import AssayError, GuestUnreachable
from pipeline.guest.facts import gather_facts
from pipeline.guest.keys import make_key_pair
from pipeline.guest.program import Outcome, StepResult, compile_program
from pipeline.guest.root_shell import RootShell
from pipeline.guest.shell import Connector, Shell, can_log_in, connect
from pipeline.harden import harden_steps, key_sync, rollback_command, tool_updates
from pipeline.harden.restart import reboot_question
from pipeline.localcloud.base_image import GATEWAY
from pipeline.report.evidence import Layer, Status
from pipeline.spec import KeySync, Spec
from pipeline.verify.live import CHECKS
from tests.fake_cloud import FakeCloud, fake_cloud
from tests.harden.guest_plants import PLANTS, GuestPlant
from tests.harden.samples import KEY, OTHER_KEY, STRANGE_KEY, spec
from tests.localcloud.machine import BOOT_SECONDS, Machine, booted_debian
from tests.verify.proving import prove

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

SUBJECTS = [
    "audit",
    "clock",
    "difference",
    "firewall",
    "kernel",
    "key_sync",
    "listening",
    "login",
    "mandatory_access",
    "metadata",
    "mounts",
    "permissions",
    "services",
    "tool_updates",
]
HARDEN: dict[str, Any] = {
    "updates": {"at_build": "none", "periodic": False},
    "services": [{"unit": "web.service", "account": "web", "writes_to": ["/srv/web"], "low_ports": True}],
    "listen": [{"port": 80}, {"port": 443, "sources": ["10.0.0.0/8", "2001:db8::/32"]}],
    "firewall": {},
    "metadata": {"users": ["admin"]},
    "login": {"idle_minutes": 15},
    "audit": {},
    "mandatory_access": True,
    "permissions": True,
    "mounts": {},
    "key_sync": {"source": "ssm:/images/keys"},
    "tool_updates": {"packages": ["cloud-guest-utils"], "reason": "the disk grows at boot"},
}
SALLY = make_key_pair("sally@example.com")
USERS = [{"name": "sally", "full_name": "Sally Doe", "keys": [SALLY.public_openssh]}]
STRANGER = """
useradd -m -s /bin/bash stranger
for home in /root /home/stranger; do
    mkdir -p -m 700 $home/.ssh
    echo '@KEY@' >$home/.ssh/authorized_keys
done
chown -R stranger: /home/stranger/.ssh
"""
"""Somebody whom the spec does not name, and root, each with a good key."""
WEB = """
cat >/etc/systemd/system/web.service <<'END'
[Service]
ExecStart=/usr/bin/python3 -m http.server 80 --directory /srv/web
[Install]
WantedBy=multi-user.target
END
systemctl --no-reload enable web.service
systemctl is-system-running --wait >/dev/null
"""
"""A service that runs as root, as many come."""
OLDER = "sed -i '/^Package: cloud-guest-utils$/,/^$/ s/^Version: .*/Version: 0.1/' /var/lib/dpkg/status"
"""A tool that is older than what Debian's repositories have."""


@dataclass
class Guest:
    """A booted guest, the session to it, and what it is to be."""

    machine: Machine
    connector: Connector
    host_keys: tuple[str, ...]
    folder: Path
    shell: Shell
    root_shell: RootShell
    wanted: Spec

    def perform(self, wanted: Spec) -> list[StepResult]:
        """Harden it as a spec says."""
        return list(self.shell.run_program(compile_program(harden_steps(gather_facts(self.shell), wanted))))

    def failing(self, layer: Layer, checks: Path | None = None) -> dict[str, str]:
        """Return which checks of the subjects fail, with their reasons."""
        results = prove([self.root_shell], layer, self.wanted, self.folder, {}, checks=checks or self.folder / "checks")
        assert checks or len(results) >= len(SUBJECTS)
        bad = [result for result in results if result.status not in (Status.PASS, Status.NOT_APPLICABLE)]
        return {"::".join(re.findall(r"test_(.+?)(?:[.]py|$)", one.source)): one.detail for one in bad}

    def who_gets_in(self) -> list[str]:
        """Return who may log in, of people who all have a key of theirs in their home."""
        self.shell.run(STRANGER.replace("@KEY@", SALLY.public_openssh))
        keys = {"root": SALLY, "stranger": SALLY, "sally": SALLY, "admin": self.machine.launch_key}
        let_in = [user for user, key in keys.items() if can_log_in(self.connector, user, key, self.host_keys)]
        self.shell.run("userdel -r -f stranger; rm -r /root/.ssh")
        return let_in

    def refresh(self) -> tuple[int, list[str]]:
        """Let it refresh the keys; return how that ended, and the keys that Sally has afterwards."""
        status = self.shell.run(f"systemctl start {key_sync.UNIT}").exit_status
        return status, self.shell.run("cat /home/sally/.ssh/authorized_keys").stdout.splitlines()

    def why_reboot(self) -> str:
        """Return why it has to boot again, if it has to."""
        return self.shell.run(reboot_question()).stdout

    def log_in(self) -> None:
        """Open a session, once sshd answers."""
        key = self.machine.launch_key
        self.shell = connect(self.connector, "admin", key, self.host_keys, BOOT_SECONDS)
        self.root_shell = self.shell.open_root_shell()

    def boot_id(self) -> str:
        """Return what names this boot."""
        return self.shell.run("cat /proc/sys/kernel/random/boot_id").stdout

    def reboot(self) -> None:
        """Boot it again, and log in."""
        before = self.boot_id()
        self.shell.start_and_leave("systemctl reboot")
        deadline = time.monotonic() + BOOT_SECONDS
        after = before
        while after in ("", before):
            assert time.monotonic() < deadline
            self.shell.close()
            with contextlib.suppress(GuestUnreachable):  # it may still be going down
                self.log_in()
                after = self.boot_id()
        self.shell.run("systemctl is-system-running --wait >/dev/null", deadline_seconds=BOOT_SECONDS)


@pytest.fixture(scope="module")
def guest(fake_cloud: FakeCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guest]:
    """A Debian that is hardened in one program, with a session that nothing has cut."""
    folder = tmp_path_factory.mktemp("guest")
    for name, subjects in (("checks", SUBJECTS), ("boot-checks", ["cloud_init"])):
        (folder / name).mkdir()
        for subject in subjects:
            (folder / name / f"test_{subject}.py").symlink_to(CHECKS / f"test_{subject}.py")
    with booted_debian(folder) as machine:
        shell = machine.log_in()
        HARDEN["key_sync"] |= {"endpoint": f"http://{GATEWAY}:{fake_cloud.endpoint.rpartition(':')[2]}"}
        wanted = spec(users=USERS, harden=HARDEN)
        made = Guest(machine, machine.way, machine.host_keys(), folder, shell, shell.open_root_shell(), wanted)
        made.shell.run(WEB, deadline_seconds=BOOT_SECONDS)
        yield made
        made.shell.close()


def batches() -> list[list[GuestPlant]]:
    """Return the plants in batches in which no check has two."""
    groups: list[list[GuestPlant]] = []
    for one in PLANTS:
        free = [group for group in groups if not any(set(one.checks) & set(other.checks) for other in group)]
        if free:
            free[0].append(one)
        else:
            groups.append([one])
    return groups


def test_the_whole_baseline_in_one_program(guest: Guest) -> None:
    """Everything is set, the held session goes on, a new login is let in, and a second run changes nothing."""
    began = time.monotonic()
    results = guest.perform(guest.wanted)
    assert [f"{one.step.title}: {one.output}" for one in results if one.outcome is Outcome.FAILED] == []
    assert guest.shell.run("echo here").stdout == "here\n"
    assert guest.who_gets_in() == ["sally", "admin"]
    print(f"hardened in {time.monotonic() - began:.1f} s")
    again = guest.perform(guest.wanted)
    assert [one.step.title for one in again if one.outcome is not Outcome.OK] == []
    print(f"a second run: {sum(one.seconds for one in again):.1f} s in {len(again)} steps")


def test_the_checks_pass(guest: Guest) -> None:
    assert guest.failing(Layer.LIVE) == {}


@pytest.mark.parametrize("group", batches(), ids=lambda group: group[0].name)
def test_a_violation_is_found_by_its_checks_and_by_no_other(guest: Guest, group: list[GuestPlant]) -> None:
    for one in group:
        planted = guest.root_shell.run(one.plant)
        assert planted.exit_status == 0, (one.name, planted.stderr)
    found = guest.failing(Layer.LIVE)
    for one in group:
        assert guest.root_shell.run(one.undo).exit_status == 0, one.name
    expected = {check: one.name for one in group for check in one.checks}
    assert {check: expected[check] for check in expected.keys() - found.keys()} == {}, "these were not found"
    assert {check: found[check] for check in found.keys() - expected.keys()} == {}, "these were not planted"


def test_a_loaded_module_without_its_file_is_found(guest: Guest) -> None:
    """The kernel, its modules and the initramfs of a real boot are the distribution's (V09), until one is not."""
    checks = CHECKS / "test_modules.py"
    assert guest.failing(Layer.FRESH_BOOT, checks) == {}
    hide = "file=$(modinfo -n $(awk 'NR == 1 { print $1 }' /proc/modules)); echo $file >/run/hidden; mv $file /run/x.ko"
    assert guest.root_shell.run(hide).exit_status == 0
    found = guest.failing(Layer.FRESH_BOOT, checks)
    assert guest.root_shell.run("mv /run/x.ko $(cat /run/hidden)").exit_status == 0
    assert set(found) == {"modules::loaded_modules_are_those_of_the_kernel", "modules::kernels_are_unchanged"}


def test_everything_is_as_before(guest: Guest) -> None:
    """What was planted is gone; a firewall that differs from its file by one rule is put right."""
    assert guest.failing(Layer.LIVE) == {}
    guest.shell.run("nft insert rule inet assay_firewall input tcp dport 8080 accept")
    changed = [one.step.subject for one in guest.perform(guest.wanted) if one.outcome is Outcome.CHANGED]
    assert changed == ["firewall"]


def test_a_firewall_that_would_close_ssh_is_refused(guest: Guest) -> None:
    """sshd listens on a port that nobody told the spec: the rules are not loaded (H20)."""
    before = guest.shell.run("nft -s list ruleset").stdout
    other = spec(users=USERS, harden={**HARDEN, "sshd": None, "firewall": {"answer_ping": False}})
    guest.shell.run("echo Port 2022 >/etc/ssh/sshd_config.d/000-port.conf")
    refused = [one for one in guest.perform(other) if one.outcome is Outcome.FAILED]
    guest.shell.run("rm /etc/ssh/sshd_config.d/000-port.conf")
    assert [one.step.subject for one in refused] == ["firewall"]
    assert "sshd listens on port 2022" in refused[0].output
    assert guest.shell.run("nft -s list ruleset").stdout == before


def test_the_baseline_survives_a_reboot(guest: Guest) -> None:
    """The kernel has the rules, the mounts and the settings; cloud-init reached the metadata service before (H15).

    A kernel that was written anew is the reason to boot, and none is left after it (H16).
    """
    assert guest.why_reboot() == ""
    guest.shell.run("touch /boot/vmlinuz-$(uname -r)")
    assert "was replaced since it booted" in guest.why_reboot()
    guest.reboot()
    assert guest.why_reboot() == ""
    assert guest.who_gets_in() == ["sally", "admin"]
    found = guest.failing(Layer.FRESH_BOOT)
    assert set(found) == {"listening::what_the_spec_says_is_served_is_served"}
    assert "443/tcp" in found["listening::what_the_spec_says_is_served_is_served"]
    assert "80/tcp" not in found["listening::what_the_spec_says_is_served_is_served"]
    assert guest.shell.run("systemctl --failed --plain --no-legend").stdout == ""
    assert guest.shell.run("cloud-init status").stdout.strip() == "status: done"


def test_keys_are_refreshed_from_a_parameter_and_from_an_object(guest: Guest, fake_cloud: FakeCloud) -> None:
    """The guest itself asks the cloud, with the credentials of its role from the metadata service (H11)."""
    cloud = fake_cloud.open(guest.wanted.region)
    cloud.client("ssm").put_parameter(Name="/images/keys", Value=f"sally {STRANGE_KEY}\n", Type="SecureString")
    cloud.client("s3").create_bucket(
        Bucket="keys", CreateBucketConfiguration={"LocationConstraint": guest.wanted.region}
    )
    cloud.client("s3").put_object(Bucket="keys", Key="teams/web", Body=f"sally {KEY}\nsally {OTHER_KEY}\n".encode())
    assert guest.refresh() == (0, [SALLY.public_openssh]), "without a role nothing changes"
    access = fake_cloud.environment
    role = {"AccessKeyId": access["AWS_ACCESS_KEY_ID"], "SecretAccessKey": access["AWS_SECRET_ACCESS_KEY"]}
    role |= {"Token": "IQoJtoken", "Expiration": "2099-01-01T00:00:00Z"}
    guest.machine.view = replace(guest.machine.view, role_name="web", role_credentials=lambda: role)
    assert guest.refresh() == (0, [STRANGE_KEY])
    options = KeySync(source="s3://keys/teams/web", endpoint=HARDEN["key_sync"]["endpoint"])
    guest.shell.run(f"cat >{key_sync.SCRIPT} <<'END'\n{key_sync.script(guest.wanted, options)}END")
    assert guest.refresh() == (0, [KEY, OTHER_KEY])
    cloud.client("s3").put_object(Bucket="keys", Key="teams/web", Body=b"sally ssh-dss AAAA\n")
    assert guest.refresh() == (1, [KEY, OTHER_KEY]), "a wrong line changes nothing"
    assert set(guest.failing(Layer.FRESH_BOOT)) >= {"key_sync::the_refresh_does_not_fail"}
    guest.shell.run("systemctl reset-failed")


def test_tools_were_updated_at_boot_and_a_failure_is_found(guest: Guest) -> None:
    """The boot asked Debian's repositories. What is older is found and updated; an update that fails is found (H32)."""
    assert guest.shell.run(f"systemctl is-active {tool_updates.UNIT}").stdout == "active\n"
    checks = CHECKS / "test_tool_updates.py"
    guest.shell.run(OLDER)
    assert set(guest.failing(Layer.FRESH_BOOT, checks)) == {"tool_updates::tools_are_the_newest"}
    guest.shell.run(f"systemctl restart {tool_updates.UNIT}", deadline_seconds=BOOT_SECONDS)
    assert guest.failing(Layer.FRESH_BOOT, checks) == {}
    guest.shell.run(f"sed -i 's/^set -eu$/exit 1/' {tool_updates.SCRIPT}; systemctl restart {tool_updates.UNIT}")
    assert "tool_updates::the_update_of_tools_went_well" in guest.failing(Layer.FRESH_BOOT)
    guest.shell.run("systemctl reset-failed")


def test_what_the_instance_was_given_is_root_s_alone_at_each_boot(guest: Guest) -> None:
    """The last stage of cloud-init leaves its copies of user-data and metadata read-only; one that is not is found."""
    assert guest.failing(Layer.FRESH_BOOT, guest.folder / "boot-checks") == {}
    guest.shell.run("chmod 600 /var/lib/cloud/instance/user-data.txt")
    assert set(guest.failing(Layer.FRESH_BOOT, guest.folder / "boot-checks")) == {"cloud_init::user_data_is_private"}


def test_a_loaded_rule_is_found_out_on_a_fresh_boot(guest: Guest) -> None:
    """Where the audit trail may not be changed, not even root changes it; what can be changed is found."""
    assert guest.shell.run("auditctl -D").exit_status != 0
    guest.shell.run("mount -o remount,exec /tmp; systemctl stop nftables web")
    assert set(guest.failing(Layer.FRESH_BOOT)) >= {
        "services::running_services_are_not_root",
        "mounts::shared_folders",
        "firewall::what_comes_in_is_dropped",
        "metadata::only_root_reaches_the_metadata_service",
    }
    guest.shell.run("mount -o remount,noexec /tmp; systemctl start nftables web")


def test_a_lock_out_can_be_rolled_back(guest: Guest) -> None:
    """New logins are dropped, the held session goes on, and the roll-back opens the door again (H07)."""
    key = guest.machine.launch_key
    guest.shell.run("nft insert rule inet assay_firewall input tcp dport 22 ct state new reject with tcp reset")
    with pytest.raises(AssayError):
        can_log_in(guest.connector, "admin", key, guest.host_keys)
    guest.shell.run(rollback_command())
    assert can_log_in(guest.connector, "admin", key, guest.host_keys)
    assert "assay_firewall" not in guest.shell.run("nft list tables; cat /etc/nftables.d/*").stdout
