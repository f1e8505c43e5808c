"""dnf on a booted guest: Debian's own dnf and rpm, a repository that the guest serves itself, and units of systemd's.

What dnf does with packages, keys and advisories is looked at more closely in a folder (`test_dnf.py`).
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.guest.facts import Facts, gather_facts
from pipeline.guest.program import Outcome, StepResult, compile_program
from pipeline.guest.shell import Shell
from pipeline.guest.step import Step
from pipeline.harden import tool_updates, updates
from pipeline.spec import ToolUpdates, UpdatesOptions
from tests.harden.test_dnf import PACKAGES_OF_DNF, Machine, install_and_close, make_repository
from tests.localcloud.machine import booted_debian

pytestmark = pytest.mark.end_to_end

SECONDS = 900
PORT = 8088
INSTALL = f"""
systemctl is-system-running --wait >/dev/null
apt-get -qq update
export DEBIAN_FRONTEND=noninteractive
apt-get -qq -y --no-install-recommends install {PACKAGES_OF_DNF.replace(",", " ")} >/dev/null
"""
SERVE = f"systemd-run --quiet python3 -m http.server --directory /build/repository --bind 127.0.0.1 {PORT}"


class BootedDebian:
    """A guest, as a Debian in a folder is asked."""

    def __init__(self, shell: Shell) -> None:
        self.shell = shell

    def run(self, script: str) -> str:
        """Run a script as root and return what it printed."""
        ran = self.shell.run(f"set -eu\n{script}", SECONDS)
        assert ran.exit_status == 0, ran.stdout + ran.stderr
        return ran.stdout

    def facts(self) -> Facts:
        """Ask it what it is."""
        return gather_facts(self.shell)

    def perform(self, steps: tuple[Step, ...]) -> list[StepResult]:
        """Run the steps as a guest program."""
        return list(self.shell.run_program(compile_program(steps)))

    def write(self, path: str, content: str) -> None:
        """Write a file."""
        self.run(f"mkdir -p {Path(path).parent}; cat >{path} <<'the end'\n{content.rstrip()}\nthe end\n")

    def read(self, path: str) -> str:
        """Return a file's content."""
        return self.run(f"cat {path}")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    folder = tmp_path_factory.mktemp("dnf-guest")
    with booted_debian(folder) as guest:
        shell = guest.log_in()
        debian = BootedDebian(shell)
        debian.run(INSTALL)
        make_repository(debian)
        debian.run(SERVE)
        yield Machine(debian, f"http://127.0.0.1:{PORT}")
        shell.close()


def test_a_signed_repository_of_the_build_gives_a_package_and_is_closed_again(machine: Machine) -> None:
    install_and_close(machine, "sample", machine.repository(only_for_build=True))
    forged = machine.install("closed", source=machine.repository("other", "mallory", only_for_build=True))
    assert forged.outcome is Outcome.FAILED


def test_security_updates_come_now_and_by_a_timer_of_systemd_s(machine: Machine) -> None:
    machine.open_with("plain-1", "secure-1")
    steps = updates.steps(machine.facts, UpdatesOptions(at_build="security"))
    results = machine.debian.perform(steps)
    assert {result.outcome for result in results} == {Outcome.CHANGED}, [result.output for result in results]
    assert (machine.version("plain"), machine.version("secure")) == ("1", "2")
    assert machine.debian.run("systemctl is-enabled dnf-automatic.timer") == "enabled\n"
    assert {result.outcome for result in machine.debian.perform(steps)} == {Outcome.OK}


def test_tools_are_updated_by_a_unit_of_systemd_s(machine: Machine) -> None:
    machine.open_with("plain-1", "secure-1")
    options = ToolUpdates(packages=("plain",), reason="support needs the newest")
    (result,) = machine.debian.perform(tool_updates.steps(machine.facts, options))
    assert result.outcome is Outcome.CHANGED, result.output
    machine.debian.run(f"systemctl start {tool_updates.UNIT}")
    assert machine.debian.run(f"systemctl show -P Result {tool_updates.UNIT}") == "success\n"
    assert (machine.version("plain"), machine.version("secure")) == ("2", "1")
