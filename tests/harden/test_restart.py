"""What runs on after an update is found, and restarted where that may be: scripts in real shells over a folder."""

import subprocess
from pathlib import Path

import pytest

from pipeline.harden.restart import RESTART_SERVICES, reboot_question

pytestmark = pytest.mark.subprocess
SHELLS = ("dash", "bash", "busybox sh")
RUNNING = "6.1.0-9-cloud-amd64"
LONG_AGO, LATER = 1_000_000_000, 4_000_000_000
LIBRARY = "7f1-7f2 r-xp 0000 103:01 12   /usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)\n"


class Machine:
    """A machine in a folder: its kernels, its processes, and a systemd that notes what it is asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("boot", "proc", "run/systemd/system", "bin"):
            (folder / name).mkdir(parents=True)
        self.kernel(RUNNING)
        self.boots(LATER)
        self.command("uname", f"echo {RUNNING}")
        self.command("systemctl", f'echo "$*" >>{folder}/asked; [ "$2" != broken.service ]')

    def command(self, name: str, script: str) -> None:
        (self.folder / "bin" / name).write_text(f"#!/bin/sh\n{script}\n")
        (self.folder / "bin" / name).chmod(0o755)

    def kernel(self, version: str) -> None:
        (self.folder / "boot" / f"vmlinuz-{version}").touch()

    def boots(self, seconds: int) -> None:
        (self.folder / "proc" / "stat").write_text(f"cpu 1 2\nbtime {seconds}\n")

    def process(self, number: int, unit: str, maps: str = LIBRARY) -> None:
        place = self.folder / "proc" / str(number)
        place.mkdir()
        (place / "maps").write_text(maps)
        (place / "cgroup").write_text(f"0::/{unit}\n")

    def run(self, script: str, shell: str) -> str:
        for path in ("/boot/", "/proc/", "/run/reboot-required", "/run/systemd/system"):
            script = script.replace(path, f"{self.folder}{path}")
        ran = subprocess.run(
            [*shell.split(), "-euc", f"PATH={self.folder}/bin:$PATH\n{script}"],
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )
        assert (ran.returncode, ran.stderr) == (0, "")
        return ran.stdout.strip()

    def restarted(self) -> list[str]:
        asked = self.folder / "asked"
        return asked.read_text().splitlines() if asked.exists() else []


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.parametrize("shell", SHELLS)
def test_no_boot_is_due_where_the_newest_kernel_runs(machine: Machine, shell: str) -> None:
    machine.kernel("6.1.0-8-cloud-amd64")
    machine.kernel("0-rescue-0123")
    assert machine.run(reboot_question(), shell) == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_a_newer_kernel_is_a_reason_to_boot(machine: Machine, shell: str) -> None:
    machine.kernel("6.1.0-10-cloud-amd64")
    assert machine.run(reboot_question(), shell) == "vmlinuz-6.1.0-10-cloud-amd64 is newer than what runs"


@pytest.mark.parametrize("shell", SHELLS)
def test_the_same_kernel_written_anew_is_a_reason_to_boot(machine: Machine, shell: str) -> None:
    machine.boots(LONG_AGO)
    assert machine.run(reboot_question(), shell) == f"vmlinuz-{RUNNING} was replaced since it booted"


def test_a_package_may_ask_for_a_boot(machine: Machine) -> None:
    (machine.folder / "run" / "reboot-required").touch()
    assert machine.run(reboot_question(), "dash") == "a package asks for it"


def test_in_a_container_no_boot_is_due(machine: Machine) -> None:
    (machine.folder / "boot" / f"vmlinuz-{RUNNING}").unlink()
    machine.kernel("6.1.0-10-cloud-amd64")
    assert machine.run(reboot_question(), "dash") == ""


@pytest.mark.parametrize("shell", SHELLS)
def test_services_with_replaced_files_are_restarted_and_sessions_are_not(machine: Machine, shell: str) -> None:
    machine.process(10, "system.slice/cron.service")
    machine.process(11, "system.slice/cron.service")
    machine.process(12, "system.slice/system-web.slice/web@1.service")
    machine.process(13, "system.slice/dbus.service")
    machine.process(14, "user.slice/user-1000.slice/session-1.scope")
    machine.process(15, "system.slice/fresh.service", LIBRARY.replace(" (deleted)", ""))
    machine.process(16, "system.slice/shm.service", LIBRARY.replace("/usr/lib/x86_64-linux-gnu", "/dev/shm"))
    machine.process(17, "system.slice/broken.service")
    said = machine.run(f"{RESTART_SERVICES}restart_services", shell)
    assert machine.restarted() == [f"try-restart {name}.service" for name in ("broken", "cron", "web@1")]
    assert said.splitlines() == [
        "broken.service could not be restarted",
        "dbus.service still has files open that were replaced, until a boot",
    ]


def test_nothing_is_restarted_where_nothing_was_replaced(machine: Machine) -> None:
    machine.process(15, "system.slice/fresh.service", LIBRARY.replace(" (deleted)", ""))
    assert (machine.run(f"{RESTART_SERVICES}restart_services", "dash"), machine.restarted()) == ("", [])
