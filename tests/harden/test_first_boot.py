"""The first boot: what cloud-init is told, and the units that stand in for it, run in real shells."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from pipeline.guest.facts import Facts
from pipeline.guest.keys import read_host_keys
from pipeline.harden import first_boot, harden_steps
from pipeline.harden.instance_metadata import ASK
from pipeline.localcloud.authority import Authority
from pipeline.localcloud.metadata import MetadataServer
from tests.harden.samples import AMAZON, DEBIAN, INSTANCE, KEY, OTHER_KEY, spec, text_of

WITHOUT = replace(DEBIAN, cloud_init=None)
VIEW = replace(INSTANCE, public_keys={"mine": KEY})


def titles(facts: Facts, **changes: object) -> list[str]:
    return [step.title for step in first_boot.steps(facts, spec(**changes))]


def test_cloud_init_does_it_where_it_is_installed() -> None:
    assert titles(DEBIAN) == [
        "cloud-init gives the launch key to admin",
        "copies of user-data and metadata are root's alone, read-only",
        "root gets a random password at the first boot, locked",
    ]


def test_units_of_ours_do_it_where_it_is_not() -> None:
    assert titles(WITHOUT) == [
        "host keys are made and shown at the first boot",
        "a unit gives the launch key to admin",
        "root gets a random password at the first boot, locked",
    ]
    assert titles(WITHOUT, image={"launch_user": None})[:1] == ["host keys are made and shown at the first boot"]
    assert "a unit gives the launch key" not in str(titles(WITHOUT, image={"launch_user": None}))


def test_what_asks_the_metadata_service_has_curl() -> None:
    assert "install curl" in [step.title for step in harden_steps(WITHOUT, spec())]
    assert "curl" not in str([step.title for step in harden_steps(DEBIAN, spec())])
    assert "curl" not in str([step.title for step in harden_steps(replace(AMAZON, cloud_init=None), spec())])


def test_a_launch_user_without_sudo_is_root_by_no_other_way() -> None:
    wanted = spec(harden={"launch_user_sudo": False})
    told = yaml.safe_load(first_boot.cloud_config_text(wanted))
    assert told["system_info"]["default_user"] == {"name": "admin", "lock_passwd": True, "sudo": None, "groups": []}
    assert (told["allow_userdata"], told["vendor_data"], told["vendor_data2"]) == (
        False,
        {"enabled": False},
        {"enabled": False},
    )
    steps = first_boot.steps(DEBIAN, wanted)
    assert steps[-1].title == "the launch user admin is no administrator"
    assert [step.title for step in steps if "H30" in step.controls] == [steps[0].title, steps[-1].title]
    assert first_boot.LAUNCH_SUDO in text_of(first_boot.steps(WITHOUT, spec()))
    assert "NOPASSWD" not in text_of(first_boot.steps(WITHOUT, wanted))


def test_cloud_init_reads_user_data_by_default() -> None:
    assert "allow_userdata" not in yaml.safe_load(first_boot.cloud_config_text(spec()))


class Machine:
    """A machine whose launch user has a home below a folder, and whose metadata service answers for `view`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.view = folder, VIEW
        self.home = folder / "home"
        self.file = self.home / ".ssh" / "authorized_keys"
        self.home.mkdir()
        self.socket = MetadataServer(folder / "m", Authority(folder / "authority")).serve("x", lambda: self.view)
        commands = folder / "bin"
        commands.mkdir()
        for name, script in (
            ("curl", f'exec /usr/bin/curl --unix-socket {self.socket} "$@"'),
            ("getent", f"echo admin:x:1000:1000::{self.home}:/bin/bash"),
            ("chown", f'printf "%s\\n" "$*" >>{folder}/owners'),
            ("restorecon", ":"),
            ("useradd", "exit 9"),  # never on the machine that runs the tests
        ):
            (commands / name).write_text(f"#!/bin/sh\n{script}\n")
            (commands / name).chmod(0o755)

    def run(self, shell: str = "dash") -> subprocess.CompletedProcess[str]:
        text = first_boot.LAUNCH_KEY.replace("@USER@", "admin").replace("@ASK@", ASK)
        for old, new in (
            ("/var/lib/assay", f"{self.folder}/state"),
            ("PATH=/usr/sbin", f"PATH={self.folder}/bin:/usr/sbin"),
            ("patience=25", "patience=2"),
        ):
            assert old in text
            text = text.replace(old, new)
        script = self.folder / "launch-key.sh"
        script.write_text(text)
        return subprocess.run([*shell.split(), str(script)], capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.subprocess
@pytest.mark.parametrize("shell", ["dash", "bash", "busybox sh"])
def test_the_launch_key_is_installed(machine: Machine, shell: str) -> None:
    ran = machine.run(shell)
    assert (ran.returncode, ran.stderr) == (0, f"launch key: installed for admin on {VIEW.instance_id}\n")
    assert machine.file.read_text() == KEY + "\n"
    assert (machine.file.stat().st_mode & 0o777, machine.file.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (machine.folder / "owners").read_text() == f"-R admin: {machine.file.parent}\n"


@pytest.mark.subprocess
def test_keys_that_are_there_stay_and_the_launch_key_comes_once(machine: Machine) -> None:
    machine.file.parent.mkdir()
    machine.file.write_text(OTHER_KEY + "\n")
    assert machine.run().returncode == 0
    assert machine.file.read_text() == f"{OTHER_KEY}\n{KEY}\n"
    machine.file.write_text(OTHER_KEY + "\n")
    assert machine.run().returncode == 0
    assert machine.file.read_text() == OTHER_KEY + "\n"  # somebody took it out: it does not come back


@pytest.mark.subprocess
def test_another_instance_gets_its_own_key(machine: Machine) -> None:
    assert machine.run().returncode == 0
    machine.view = replace(VIEW, instance_id="i-0fedcba9876543210", public_keys={"theirs": OTHER_KEY})
    assert machine.run().returncode == 0
    assert OTHER_KEY in machine.file.read_text()


@pytest.mark.subprocess
def test_an_instance_without_a_key_is_no_failure(machine: Machine) -> None:
    machine.view = replace(VIEW, public_keys={})
    ran = machine.run()
    assert (ran.returncode, "without one" in ran.stderr, machine.file.exists()) == (0, True, False)


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("key", "reason"),
    [
        ("no key at all", "is no public key"),
        (f"{KEY}\n{OTHER_KEY}", "is no single line"),
        (f'command="id" {KEY}', "is no public key"),
    ],
)
def test_what_is_no_key_is_refused(machine: Machine, key: str, reason: str) -> None:
    machine.view = replace(VIEW, public_keys={"odd": key})
    ran = machine.run()
    assert (ran.returncode, reason in ran.stderr, machine.file.exists()) == (1, True, False)


@pytest.mark.subprocess
def test_a_symbolic_link_is_not_followed(machine: Machine) -> None:
    elsewhere = machine.folder / "elsewhere"
    elsewhere.mkdir()
    machine.file.parent.symlink_to(elsewhere)
    ran = machine.run()
    assert (ran.returncode, "symbolic link" in ran.stderr, list(elsewhere.iterdir())) == (1, True, [])


@pytest.mark.subprocess
def test_silence_is_a_failure(machine: Machine) -> None:
    machine.view = replace(VIEW, endpoint_enabled=False)
    ran = machine.run()
    assert (ran.returncode, "does not answer" in ran.stderr) == (1, True)


@pytest.mark.subprocess
def test_host_keys_are_made_once_and_shown_as_a_build_reads_them(tmp_path: Path) -> None:
    """ssh-keygen makes its keys below the prefix that `-f` names: only places differ from the script as installed."""
    folder = tmp_path / "etc" / "ssh"
    folder.mkdir(parents=True)
    script = (
        first_boot.HOST_KEYS.replace("ssh-keygen -A", f"ssh-keygen -A -f {tmp_path}")
        .replace("/etc/ssh/ssh_host", f"{folder}/ssh_host")
        .replace("/dev/console", f"{tmp_path}/console")
    )
    shown = []
    for _ in range(2):
        subprocess.run(["dash", "-c", script], check=True, timeout=120)
        shown.append((tmp_path / "console").read_text())
    assert shown[0] == shown[1]
    assert shown[0].count("SHA256:") == len(list(folder.glob("*.pub"))) >= 2
    assert set(read_host_keys(shown[0])) == {" ".join(key.read_text().split()[:2]) for key in folder.glob("*.pub")}
