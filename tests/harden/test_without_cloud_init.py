"""An image without cloud-init: hardened and scrubbed on one guest, booted as another, which our own units then set up.

H08, H13 and H15 by systemd on a real first boot, and again after a reboot.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from pipeline.guest.facts import gather_facts
from pipeline.guest.keys import KeyPair, make_key_pair
from pipeline.guest.program import Outcome, compile_program
from pipeline.guest.shell import Shell, can_log_in, connect
from pipeline.guest.step import Step
from pipeline.harden import first_boot, harden_steps
from pipeline.report.evidence import Layer, Status
from pipeline.residue.blocks import open_image
from pipeline.residue.locate import Locator
from pipeline.residue.rewrite import find_remains, plan_overwrite, plan_rewrite
from pipeline.scrub import power_off_command, scrub_steps
from pipeline.spec import Spec, load_spec
from pipeline.spec.public_keys import fingerprint
from tests.end_to_end import ROOT
from tests.localcloud.machine import BOOT_SECONDS, Machine, debian_disks
from tests.verify.proving import prove

pytestmark = pytest.mark.end_to_end

USER = "staff"
"""A group that Debian has, and no account: our unit makes it, and does not let it join."""
WITHOUT = """
set -e
printf '[Match]\\nName=e*\\n[Network]\\nDHCP=yes\\n' >/etc/systemd/network/50-dhcp.network
systemctl --quiet enable systemd-networkd.service
systemctl is-system-running --wait >/dev/null
DEBIAN_FRONTEND=noninteractive apt-get -qq -y purge cloud-init >/dev/null
rm -rf /etc/cloud /var/lib/cloud /run/cloud-init /etc/network/interfaces.d/*
"""
REPLACED = """
set -e
for library in $(grep -hoE '/usr/lib/[^ ]*/lib(c|crypto|systemd[^ ]*)[.]so[^ ]*' /proc/1/maps /proc/$PPID/maps); do
    cp -a "$library" "$library.new"
    mv -f "$library.new" "$library"
done
for process in 1 $PPID; do grep -q '/lib.* (deleted)$' /proc/$process/maps; done
systemd-run --quiet --property=Restart=always sh -c 'exec 3>/srv/held; rm /srv/held; exec sleep 100000'
until find /proc/[0-9]*/fd -lname '/srv/held (deleted)' 2>/dev/null | grep -q .; do sleep 0.1; done
"""
"""As an update of libraries leaves it that pid 1 and the build's own session run with, and a service's open file."""
DELETED = """
set -e
mount /boot/efi
yes 'a secret that is deleted' | head -c 5000000 >/boot/efi/secret
sync
rm /boot/efi/secret
"""
UNITS = (first_boot.KEYS_UNIT, first_boot.LAUNCH_UNIT, first_boot.UNIT)


@dataclass
class Images:
    """The guest that was made an image of, as far as it matters, and the one that boots from it."""

    wanted: Spec
    build_key: KeyPair
    expectations: dict[str, str]
    machine: Machine


def perform(shell: Shell, steps: tuple[Step, ...]) -> None:
    """Run steps; all must succeed."""
    results = list(shell.run_program(compile_program(steps)))
    assert [f"{one.step.title}: {one.output}" for one in results if one.outcome is Outcome.FAILED] == []


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Images]:
    folder, later = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("consumer")
    default = load_spec(ROOT / "specs" / "debian-12-local.yaml")
    image = default.image.model_copy(update={"launch_user": USER})
    scrub = default.scrub.model_copy(update={"free_space": "in-place"})
    wanted = default.model_copy(update={"image": image, "scrub": scrub})
    disks, size_gib = debian_disks(folder)
    build = Machine(folder, disks, "vol-1")
    try:
        host_keys, shell = build.host_keys(), build.log_in()
        removed = shell.run(WITHOUT, deadline_seconds=BOOT_SECONDS)
        assert removed.exit_status == 0, removed.stderr
        facts = gather_facts(shell)
        assert not facts.cloud_init
        expectations = {
            "build_public_key": build.launch_key.public_openssh,
            "host_key_fingerprints": " ".join(fingerprint(line) for line in host_keys),
            "machine_id": shell.run("cat /etc/machine-id").stdout.strip(),
            "boot_id": shell.run("cat /proc/sys/kernel/random/boot_id").stdout.strip(),
            "instance_id": build.view.instance_id,
        }
        perform(shell, harden_steps(facts, wanted))
        facts = gather_facts(shell)
        deleted = shell.run(DELETED)
        assert deleted.exit_status == 0, deleted.stderr
        perform(shell, scrub_steps(gather_facts(shell), wanted))
        replaced = shell.run(REPLACED)
        assert replaced.exit_status == 0, replaced.stderr
        shell.start_and_leave(power_off_command(facts))
        shell.close()
        wait_until_off(build)
    finally:
        build.close()
    with open_image(disks.volume_path("vol-1")) as disk:
        assert plan_rewrite(disk).free_bytes, "one with an orphaned inode or a journal to be replayed is refused"
        (efi,) = (partition for partition in Locator(disk).partitions if partition.content == "vfat")
        remains = find_remains(disk, plan_overwrite(disk))
        assert [start for start, _ in remains if efi.within(start) is not None] == []
    disks.snapshot_volume("vol-1", "snap-image", None)
    disks.create_volume("vol-2", size_gib, "snap-image")
    machine = Machine(later, disks, "vol-2")
    try:
        yield Images(wanted, build.launch_key, expectations, machine)
    finally:
        machine.close()


def wait_until_off(machine: Machine) -> None:
    """Wait until the guest has powered itself off."""
    assert machine.guest._exited.wait(BOOT_SECONDS)


def state_of(shell: Shell) -> tuple[str, list[str]]:
    """Return root's line in shadow, and the host keys' fingerprints."""
    keys = shell.run("for key in /etc/ssh/ssh_host_*_key.pub; do ssh-keygen -l -f $key; done").stdout.splitlines()
    return shell.run("grep ^root: /etc/shadow").stdout, keys


def test_the_first_boot_is_set_up_by_our_units_and_a_reboot_changes_nothing(images: Images, tmp_path: Path) -> None:
    machine = images.machine
    host_keys = machine.host_keys()
    assert not {fingerprint(one) for one in host_keys} & set(images.expectations["host_key_fingerprints"].split())
    shell = machine.log_in(USER)
    assert shell.run("command -v cloud-init").exit_status != 0
    assert shell.run(f"id -Gn {USER}").stdout == "users\n", "a group of that name is somebody else's"
    assert not can_log_in(machine.way, USER, images.build_key, host_keys)
    assert not can_log_in(machine.way, "admin", machine.launch_key, host_keys), "the key is one user's"
    assert shell.run(f"systemctl is-active {' '.join(UNITS[:2])}").stdout.split() == ["active", "active"]
    assert (
        f"launch key: installed for {USER} on {machine.view.instance_id}"
        in shell.run(f"journalctl -o cat -u {first_boot.LAUNCH_UNIT}").stdout
    )
    root, fingerprints = state_of(shell)
    assert re.match(r"root:!\$[^:]{20,}:", root), "a random password, and locked"
    assert all(line.split()[1] in machine.console for line in fingerprints)

    shells = [shell.open_root_shell() for _ in range(2)]
    expectations = images.expectations | {"launch_public_key": machine.launch_key.public_openssh}
    results = prove(shells, Layer.FRESH_BOOT, images.wanted, tmp_path, expectations)
    bad = {one.source: one.detail for one in results if one.status not in (Status.PASS, Status.NOT_APPLICABLE)}
    assert bad == {}

    own = make_key_pair("own")
    shell.run(f"echo '{own.public_openssh}' >/home/{USER}/.ssh/authorized_keys")
    before = state_of(shell)
    shell.start_and_leave("systemctl reboot")
    shell.close()
    machine.host_keys(boots=2)
    shell = connect(machine.way, USER, own, host_keys, BOOT_SECONDS)
    assert shell.run("systemctl is-system-running --wait", deadline_seconds=BOOT_SECONDS).stdout == "running\n"
    assert state_of(shell) == before
    assert not can_log_in(machine.way, USER, machine.launch_key, host_keys), (
        "who removed the launch key does not get it back"
    )
    shell.close()
