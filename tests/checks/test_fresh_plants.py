"""Violations that only a fresh boot shows: each is found by its check, and by no other.

The small Debian is made to look as if an instance had come up from it. What needs a running systemd, a kernel of its
own or a metadata service is planted on real guests: tests/harden/test_on_a_guest.py and tests/test_paid_image.py.
"""

import hashlib

import pytest

from pipeline.guest.keys import make_key_pair
from pipeline.report.evidence import Layer, Status
from pipeline.spec import Spec
from pipeline.spec.public_keys import fingerprint
from tests.checks.small_debian import GOOD, ChrootShell, make_debian, missing_here, overlay
from tests.checks.test_plants import GOOD_REPOSITORY, OF_THIS_MACHINE, SPEC, careful, in_batches, plant
from tests.checks.test_traceability import FILES, checks_of
from tests.verify.proving import prove

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(bool(missing_here()), reason=missing_here() or "everything is here"),
]

BUILD_KEY, LAUNCH_KEY, HOST_KEY = (make_key_pair(name) for name in ("build", "launch", "host"))
MACHINE_ID = "0" * 32
USER_DATA = "#cloud-config\n# of the build\n"
INSTANCE_ID = "i-0123456789abcdef0"
FACTS = {
    "build_public_key": BUILD_KEY.public_openssh,
    "launch_public_key": LAUNCH_KEY.public_openssh,
    "host_key_fingerprints": fingerprint(HOST_KEY.public_openssh),
    "machine_id": MACHINE_ID,
    "user_data_sha256": hashlib.sha256(USER_DATA.encode()).hexdigest(),
    "boot_id": "00000000-0000-0000-0000-000000000000",
    "instance_id": INSTANCE_ID,
}
COME_UP = f"""
ssh-keygen -A >/dev/null
echo fedcba9876543210fedcba9876543210 >/etc/machine-id
install -d /var/lib/cloud/instances/i-1
install -m 400 /dev/null /var/lib/cloud/instances/i-1/user-data.txt
install -m 600 -o admin -g admin /dev/null /home/admin/.ssh/authorized_keys
echo '{LAUNCH_KEY.public_openssh}' >>/home/admin/.ssh/authorized_keys
"""
JUST_NOW = """
mkdir -p /run/cloud-init
result() { echo '{"v1": {"datasource": "'$1'", "errors": ['$2']}}' >/run/cloud-init/result.json; }
result DataSourceEc2Local
touch -c -h /var/lib/apt/lists/* /var/cache/apt/archives/* 2>/dev/null
"""
"""What lies in memory, and is gone with it."""

PLANTS = [
    plant("state of another instance", "mkdir /var/lib/cloud/instances/i-2", "cloud_init::one_instance"),
    plant(
        "the user-data of the build",
        f"printf '%b' '{USER_DATA.encode('unicode_escape').decode()}' >/var/lib/cloud/instances/i-1/user-data.txt",
        "cloud_init::old_user_data_is_gone",
    ),
    plant(
        "user-data for all", "chmod 644 /var/lib/cloud/instances/i-1/user-data.txt", "cloud_init::user_data_is_private"
    ),
    plant(
        "a failed start from a seed in the image",
        "result DataSourceNoCloud '\"x\"'",
        "cloud_init::it_finished",
        "cloud_init::the_metadata_service_was_its_source",
    ),
    plant(
        "the build's machine id, which is none",
        f"echo {MACHINE_ID} >/etc/machine-id",
        "identity::the_machine_id_is_new",
        "identity::the_machine_id_is_valid",
    ),
    plant("the build's name", f"echo {INSTANCE_ID} >/etc/mailname", "identity::the_host_name_is_not_the_builds"),
    plant("a log of the build", f"echo {INSTANCE_ID} >/var/log/setup.log", "logs::logs_do_not_name_the_build"),
    plant(
        "an old log",
        "echo x >/var/log/old.log; touch -d 2001-01-01 /var/log/old.log",
        "logs::logs_are_of_this_boot",
    ),
    plant(
        "an old log of sudo", "echo 'Jan  1 00:00:00 : ada' >/var/log/sudo.log", "logs::the_log_of_sudo_is_of_this_boot"
    ),
    plant("no launch key", ": >/home/admin/.ssh/authorized_keys", "keys::the_launch_key_has_arrived"),
    plant(
        "the build's host key",
        f"cat >/etc/ssh/ssh_host_ed25519_key <<'END'\n{HOST_KEY.private_openssh.reveal}END\n"
        f"echo '{HOST_KEY.public_openssh}' >/etc/ssh/ssh_host_ed25519_key.pub",
        "keys::host_keys_are_new",
    ),
    plant(
        "a weak host key",
        "rm /etc/ssh/ssh_host_rsa_key*; ssh-keygen -q -t rsa -b 1024 -N '' -f /etc/ssh/ssh_host_rsa_key",
        "keys::host_keys_are_strong",
    ),
    plant("a host key for all", "chmod 644 /etc/ssh/ssh_host_ecdsa_key", "keys::host_keys_are_private"),
    plant(
        "the user of the build",
        "useradd -M -p '!' -s /usr/sbin/nologin builder; rm -f /etc/*-",
        "leftovers::the_user_of_the_build_is_gone",
        "users::nobody_else_has_an_account",
    ),
    plant("a reboot that is due", "echo linux >/run/reboot-required.pkgs", "updates::no_reboot_is_pending"),
]
ON_OTHER_GUESTS = {
    "audit::the_kernel_has_the_rules",  # immutable until a boot: tests/harden/test_on_a_guest.py
    "boot_again::it_booted_again",  # a second boot: tests/checks/test_boot_again.py
    "boot_again::the_machine_id_stays",
    "boot_again::the_host_keys_stay",
    "boot_again::the_root_password_stays",
    "boot_again::authorized_keys_stay",
    "boot::no_unit_failed",  # a running systemd: tests/test_paid_image.py
    "boot::the_system_is_up",
    "listening::what_the_spec_says_is_served_is_served",  # tests/harden/test_on_a_guest.py
    "services::running_services_are_not_root",
    "key_sync::the_refresh_does_not_fail",
    "tool_updates::the_update_of_tools_went_well",
    "tool_updates::tools_are_the_newest",
    "launch_user::the_launch_user_may_run_nothing_as_root",  # tests/test_paid_image.py
    "product_guard::the_guard_passed",
    "product_guard::the_application_waits_for_it",
    "metadata::product_codes",  # a metadata service
    "metadata::a_token_is_required",
    "logs::the_journal_is_of_this_boot",
    "updates::the_newest_kernel_runs",  # a kernel of its own
}
OLD = plant(
    "temporary files and lists from before the boot",
    "touch /var/tmp/x /var/lib/apt/lists/x; sed 's/^btime.*/btime 4102444800/' /proc/stat >/run/stat;"
    " mount --bind /run/stat /proc/stat",
    "leftovers::no_cache_or_temporary_file_is_older_than_the_boot",
)
"""The kernel's own time of files cannot be set back, so the boot is set forward: for this plant alone."""
DAMAGED = plant("a disk that was damaged", "mount -o remount,ro /", "boot::file_systems_are_writable")
"""Nothing else can be planted on it."""


@pytest.fixture(scope="module")
def come_up(tmp_path_factory):
    """A system as a fresh instance has it, as the changes to the small Debian."""
    folder = tmp_path_factory.mktemp("fresh")
    debian = make_debian()
    with overlay(folder, debian) as root:
        done = ChrootShell(root).run(GOOD + GOOD_REPOSITORY + COME_UP)
        assert done.exit_status == 0, done.stderr
    return folder / "changes", debian


@pytest.fixture
def failing(come_up, tmp_path, tmp_path_factory):
    """A function that plants something and returns which checks fail on a fresh boot, with their reasons."""

    def run(script, **facts):
        with overlay(tmp_path / "planted", *come_up) as root:
            shell = ChrootShell(root)
            done = shell.run(JUST_NOW + script)
            assert done.exit_status == 0, done.stderr
            results = prove(
                [shell],
                Layer.FRESH_BOOT,
                Spec.model_validate(SPEC | {"ssh": {"user": "builder"}}),
                tmp_path / "build",
                FACTS | facts,
                recordings=tmp_path_factory.getbasetemp() / "recordings",
            )
        bad = [result for result in results if result.status in (Status.FAIL, Status.UNREACHABLE)]
        found = {one.source.replace("checks/test_", "").replace(".py::test_", "::"): one.detail for one in bad}
        return {name: detail for name, detail in found.items() if name not in OF_THIS_MACHINE | ON_OTHER_GUESTS}

    return run


def test_a_good_instance_passes(failing):
    assert failing("true") == {}


@pytest.mark.parametrize("group", in_batches(PLANTS), ids=lambda group: group[0].name)
def test_plants_are_found_by_their_checks_and_by_no_other(failing, group):
    found = failing("\n".join(map(careful, group)))
    expected = {check: one.name for one in group for check in one.checks}
    assert {name: expected[name] for name in expected.keys() - found.keys()} == {}, "these were not found"
    assert {name: found[name] for name in found.keys() - expected.keys()} == {}, "these were found and not planted"


def test_what_is_older_than_the_boot_is_found_on_a_first_boot(failing):
    assert failing(OLD.script).keys() == OLD.checks


def test_what_an_instance_made_at_its_first_boot_is_older_than_a_later_one(failing):
    logs = "echo 'Jan  1 00:00:00 web sudo: x' | tee /var/log/sudo.log >/var/log/web.log;"
    assert failing(logs + OLD.script, earlier_boot_id=FACTS["boot_id"]) == {}


def test_a_disk_that_is_read_only_is_found(failing):
    assert failing(DAMAGED.script).keys() == DAMAGED.checks


def test_every_check_of_a_fresh_boot_alone_has_a_plant():
    planted = {check.partition("[")[0] for one in (*PLANTS, OLD, DAMAGED) for check in one.checks}
    checks = {
        f"{path.stem.removeprefix('test_')}::{node.name.removeprefix('test_')}"
        for path in FILES
        for node, _, layers in checks_of(path)
        if layers == "B"
    }
    assert checks - planted - ON_OTHER_GUESTS == set()
