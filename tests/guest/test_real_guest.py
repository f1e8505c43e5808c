"""The ssh side on a real Debian guest, as a user who is not root."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.guest.facts import gather_facts
from pipeline.guest.keys import make_key_pair
from pipeline.guest.program import Outcome, compile_program
from pipeline.guest.shell import can_log_in, connect
from pipeline.guest.step import Step
from tests.guest.sshd import running_relay
from tests.localcloud.machine import Machine, booted_debian

pytestmark = pytest.mark.end_to_end


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with booted_debian(tmp_path) as booted:
        yield booted


def test_a_guest_from_its_console_to_its_power_off(machine: Machine) -> None:
    host_keys = machine.host_keys()
    key, other = machine.launch_key, make_key_pair("other")
    with running_relay(machine.way.port, host=machine.address) as relay:
        shell = connect(relay.connector, "admin", key, host_keys, 900)
        print(f"logged in after {time.monotonic() - machine.started:.1f} s")
        assert shell.run("id -u; echo $HOME").stdout.split() == ["0", "/root"]
        assert shell.run("systemctl is-system-running --wait", deadline_seconds=900).stdout == "running\n"

        begin = time.monotonic()
        facts = gather_facts(shell)
        print(f"facts took {time.monotonic() - begin:.2f} s")
        assert (facts.family, facts.version, facts.has_systemd) == ("debian", "12", True)
        assert facts.default_user == "admin" and facts.cloud_init and facts.user("admin") in facts.login_users
        assert facts.root_file_system and facts.root_file_system.type == "ext4"
        assert facts.sshd_version
        assert facts.kernel in facts.kernels

        steps = [Step("s", (), f"{n}", f"echo {n} >/etc/assay.{n}", f"grep -qx {n} /etc/assay.{n}") for n in range(60)]
        for outcome in (Outcome.CHANGED, Outcome.OK):
            begin = time.monotonic()
            assert {result.outcome for result in shell.run_program(compile_program(steps))} == {outcome}
            print(f"60 steps, {outcome}: {time.monotonic() - begin:.2f} s")

        slow = [Step("s", (), f"{n}", f"echo {n} >>/etc/assay.slow; sleep 1") for n in range(4)]
        for number, _ in enumerate(shell.run_program(compile_program(slow))):
            if number == 1:
                relay.cut()
        assert shell.run("cat /etc/assay.slow; ls /run/assay 2>&1 | wc -l").stdout.split() == ["0", "1", "2", "3", "1"]

        root = shell.open_root_shell()
        begin = time.monotonic()
        assert {output.stdout for output in root.run_many(["id -u"] * 120)} == {"0\n"}
        print(f"120 commands in one batch: {time.monotonic() - begin:.2f} s")
        assert can_log_in(relay.connector, "admin", key, host_keys, 300)
        assert not can_log_in(relay.connector, "admin", other, host_keys, 300)
        assert root.run("rm -f /home/*/.ssh/authorized_keys /root/.ssh/authorized_keys").exit_status == 0
        assert not can_log_in(relay.connector, "admin", key, host_keys, 300)
        history = root.run("ls /root/.*history /home/*/.*history 2>/dev/null; find / -xdev -name 'assay-shell*'")
        assert history.stdout == ""

        shell.start_and_leave("systemctl poweroff")
        shell.close()
    deadline = time.monotonic() + 900
    while machine.guest.running:
        assert time.monotonic() < deadline
        time.sleep(0.1)
