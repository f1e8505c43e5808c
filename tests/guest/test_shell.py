"""The ssh side against a real sshd on loopback."""

import os
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import paramiko
import pytest

from pipeline.errors import GuestFailed, GuestUnreachable, HostKeyMismatch, StepFailed
from pipeline.guest.facts import gather_facts
from pipeline.guest.keys import make_key_pair
from pipeline.guest.program import compile_program
from pipeline.guest.root_shell import Output
from pipeline.guest.shell import DirectConnector, GuestTransport, Shell, can_log_in, connect, load_key, try_credentials
from pipeline.guest.step import Secret, Step
from tests.guest.sshd import Relay, Sshd, free_port, running_relay, running_sshd

pytestmark = [pytest.mark.loopback, pytest.mark.subprocess]

SECONDS = 30
HOST_KEY = make_key_pair("the host key").public_openssh


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


@pytest.fixture
def shell(sshd: Sshd) -> Iterator[Shell]:
    opened = open_shell(sshd)
    yield opened
    opened.close()


def open_shell(sshd: Sshd, port: int | None = None) -> Shell:
    connector = DirectConnector("127.0.0.1", port or sshd.port)
    return connect(connector, sshd.user, sshd.key, sshd.host_keys, SECONDS, resource="i-0123", region="eu-north-1")


def step(action: str, title: str = "a step") -> Step:
    return Step("sample", (), title, action)


def test_run_separates_streams_and_survives_everything(shell: Shell) -> None:
    assert shell.run("echo out; echo err >&2; exit 3") == Output(3, "out\n", "err\n")
    assert shell.run(r"cat; printf 'a\000\377'") == Output(0, "a\0\udcff", "")
    assert shell.run("echo 'two\nlines'\n\n") == Output(0, "two\nlines\n", "")
    size = 3_000_000
    both = shell.run(f"head -c {size} /dev/zero | tee /dev/stderr")
    assert (len(both.stdout), len(both.stderr)) == (size, size)


def test_nothing_of_a_command_is_in_the_process_list(shell: Shell) -> None:
    listed = shell.run("list=$(ps -eo args); printf '%s\\n' \"$list\" | grep -c my-secret-word; : my-secret-word")
    assert listed.stdout == "0\n"


def test_a_command_that_does_not_end_is_an_error_and_the_shell_lives_on(shell: Shell) -> None:
    with pytest.raises(GuestFailed, match=r"did not end within 3 s \(i-0123 in eu-north-1\)"):
        shell.run("sleep 9", deadline_seconds=3)
    assert shell.run("echo on").stdout == "on\n"


def test_a_program_streams_its_results(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    steps = [step("echo one"), step(f"until [ -e {gate} ]; do sleep 0.05; done"), step("exit 3"), step("echo four")]
    began: list[Step] = []
    results = []
    for result in shell.run_program(compile_program(steps, str(tmp_path / "state")), began=began.append):
        results.append(result)
        gate.touch()
    assert [(r.outcome, r.exit_status) for r in results] == [("changed", 0)] * 2 + [("failed", 3), ("skipped", 0)]
    assert results[0].output == "one"
    assert began == steps[:3]
    wait_until(lambda: not (tmp_path / "state").exists())


def test_a_program_carries_on_over_broken_connections(sshd: Sshd, tmp_path: Path) -> None:
    counts = tmp_path / "counts"
    steps = [step(f"until [ -e {tmp_path}/{n} ]; do sleep 0.05; done; echo {n} >>{counts}") for n in range(6)]
    (tmp_path / "0").touch()
    with running_relay(sshd.port) as relay:
        shell = open_shell(sshd, relay.port)
        numbers = []
        for number, _ in enumerate(shell.run_program(compile_program(steps, str(tmp_path / "state")))):
            numbers.append(number)
            if number in (1, 3):
                relay.cut()
            (tmp_path / str(number + 1)).touch()
        shell.close()
        assert relay.accepted == 3
    assert numbers == list(range(6))
    assert counts.read_text().split() == [str(n) for n in range(6)]


def test_a_program_whose_key_is_gone_when_the_connection_breaks(
    sshd: Sshd, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.guest.shell.RECONNECT_REFUSALS_SECONDS", 0.5)
    gate = tmp_path / "gate"
    steps = [step("true"), step(f"until [ -e {gate} ]; do sleep 0.05; done")]
    with running_relay(sshd.port) as relay:
        shell = open_shell(sshd, relay.port)
        results = shell.run_program(compile_program(steps, str(tmp_path / "state")))
        next(results)
        sshd.authorize()
        try:
            relay.cut()
            with pytest.raises(GuestUnreachable, match=f"the guest does not let {sshd.user} in"):
                next(results)
        finally:
            sshd.authorize(sshd.key)
            gate.touch()


def test_a_step_that_does_not_end_is_named(shell: Shell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    program = compile_program(
        [step(f"until [ -e {gate} ]; do sleep 0.1; done", "Wait for ever")], str(tmp_path / "state")
    )
    with pytest.raises(StepFailed, match="Wait for ever"):
        list(shell.run_program(program, deadline_seconds=8))
    gate.touch()


def test_a_program_that_sh_cannot_read_says_why(shell: Shell, tmp_path: Path) -> None:
    with pytest.raises(GuestFailed, match=r"[Uu]nterminated|unexpected"):
        list(shell.run_program(compile_program([step("echo 'unfinished")], str(tmp_path / "state"))))


def test_a_secret_of_a_program_is_in_no_process_list(shell: Shell, tmp_path: Path) -> None:
    action = ("ps -eo args >list; grep -c swordfish list || : ", Secret("swordfish"))
    steps = [Step("sample", (), "look", (f"cd {tmp_path}; ", *action))]
    (result,) = shell.run_program(compile_program(steps, str(tmp_path / "state")))
    assert result.output == "0"


def test_the_root_shell(shell: Shell, tmp_path: Path) -> None:
    root = shell.open_root_shell(str(tmp_path))
    assert root.run("echo out; echo err >&2; exit 3") == Output(3, "out\n", "err\n")
    assert [o.stdout for o in root.run_many([f"echo {n}" for n in range(300)])] == [f"{n}\n" for n in range(300)]
    word = "x" * 10_000
    assert {o.stdout for o in root.run_many([f"echo {word}"] * 120)} == {f"{word}\n"}
    root.close()
    wait_until(lambda: not list(tmp_path.iterdir()))


def test_a_root_shell_whose_connection_breaks(sshd: Sshd, tmp_path: Path) -> None:
    with running_relay(sshd.port) as relay:
        shell = open_shell(sshd, relay.port)
        root = shell.open_root_shell(str(tmp_path))
        relay.cut()
        for _ in range(2):
            with pytest.raises(GuestUnreachable, match=r"i-0123 in eu-north-1"):
                root.run("echo")
        with pytest.raises(GuestUnreachable):
            shell.run("echo")
        shell.close()


def test_a_last_command_goes_on_after_the_connection(shell: Shell, tmp_path: Path) -> None:
    made = tmp_path / "made"
    shell.start_and_leave(f"sleep 0.5; touch {made}")
    assert not made.exists()
    shell.close()
    wait_until(made.exists)


def test_facts_over_ssh(shell: Shell) -> None:
    assert gather_facts(shell).kernel == os.uname().release


def test_another_host_key_is_refused_before_anything_is_said(sshd: Sshd) -> None:
    other = make_key_pair("another")
    with pytest.raises(HostKeyMismatch, match=re.escape(other.fingerprint)) as error:
        connect(sshd.connector, sshd.user, sshd.key, (other.public_openssh,), SECONDS, resource="i-0123")
    assert sshd.host_keys[0].split()[1] not in str(error.value)
    assert "(i-0123)" in str(error.value)


ECDSA = (
    "ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAAIbmlzdHAyNTYAAABBB"
    "EmKSENjQEezOmxkZMy7opKgwFB9nkt5YRrYMjNuG5N87uRg"
    "g6CLrbo5wAdT/y6v0mKV0U2w0WZ2YB/++Tpockg="
)


def test_a_guest_without_the_pinned_type_is_refused(sshd: Sshd) -> None:
    with pytest.raises(HostKeyMismatch, match="none of their types"):
        connect(sshd.connector, sshd.user, sshd.key, (ECDSA,), SECONDS)


def test_no_pinned_key_at_all_is_refused(sshd: Sshd) -> None:
    with pytest.raises(HostKeyMismatch, match="no host key of the guest is known"):
        connect(sshd.connector, sshd.user, sshd.key, (), SECONDS)


def test_one_of_several_pinned_keys_is_enough(sshd: Sshd) -> None:
    assert can_log_in(sshd.connector, sshd.user, sshd.key, (ECDSA, make_key_pair("x").public_openssh, *sshd.host_keys))


def test_who_may_log_in(sshd: Sshd) -> None:
    for credential, expected in (
        (sshd.key, True),
        (make_key_pair("other"), False),
        (Secret("pw"), False),
        (None, False),
    ):
        assert can_log_in(sshd.connector, sshd.user, credential, sshd.host_keys) is expected
    assert not can_log_in(sshd.connector, "no-such-user", sshd.key, sshd.host_keys)


def test_a_refusal_is_also_a_guest_that_hangs_up_after_one_attempt(tmp_path: Path) -> None:
    with running_sshd(tmp_path, "MaxAuthTries 1") as strict:
        assert not can_log_in(strict.connector, strict.user, make_key_pair("other"), strict.host_keys)
        assert can_log_in(strict.connector, strict.user, strict.key, strict.host_keys)


class GrantsAfterwards(paramiko.auth_handler.AuthHandler):
    """A server's side of a login that grants no service before it was asked for the user."""

    def _parse_service_request(self, message: paramiko.Message) -> None:
        self.asked = message

    def _parse_userauth_request(self, message: paramiko.Message) -> None:
        super()._parse_service_request(self.asked)
        super()._parse_userauth_request(message)


class LetsEverybodyIn(paramiko.ServerInterface):
    def check_auth_publickey(self, username: str, key: paramiko.PKey) -> int:
        return paramiko.common.AUTH_SUCCESSFUL


def test_a_login_asks_for_the_service_and_for_the_user_at_once() -> None:
    """A round trip less for who is far away: the server here answers only when it has both."""
    key = load_key(make_key_pair("a key").private_openssh)
    ours, theirs = socket.socketpair()
    server, client = paramiko.Transport(theirs), GuestTransport(ours)
    try:
        server.add_server_key(key)
        server.auth_handler = GrantsAfterwards(server)
        server.start_server(threading.Event(), LetsEverybodyIn())
        client.start_client(timeout=SECONDS)
        client.auth_timeout = SECONDS
        assert client.log_in_with_key("somebody", key) == []
        assert client.is_authenticated()
    finally:
        client.close()
        server.close()


def test_silence_is_no_refusal(sshd: Sshd) -> None:
    with pytest.raises(GuestUnreachable, match="no login by ssh within 1 s"):
        can_log_in(DirectConnector("127.0.0.1", free_port()), "x", sshd.key, sshd.host_keys, 1)


def test_a_connection_that_breaks_during_the_login_is_no_refusal(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_relay(sshd.port) as relay:

        def cut_then_load(secret: Secret) -> object:
            relay.cut()
            return load_key(secret)

        monkeypatch.setattr("pipeline.guest.shell.load_key", cut_then_load)
        with pytest.raises(GuestUnreachable):
            can_log_in(relay.connector, sshd.user, make_key_pair("other"), sshd.host_keys, 2)


def test_connect_waits_for_a_guest_that_boots(sshd: Sshd) -> None:
    """First something accepts and hangs up, then sshd is there without the key, then with it."""
    port = free_port()
    sshd.authorize()
    rude, served = socket.create_server(("127.0.0.1", port)), []

    def boot() -> None:
        for _ in range(2):
            rude.accept()[0].close()
        rude.close()
        served.append(Relay(sshd.port, port=port))
        wait_until(lambda: served[0].accepted)
        sshd.authorize(sshd.key)

    thread = threading.Thread(target=boot)
    thread.start()
    try:
        open_shell(sshd, port).close()
    finally:
        sshd.authorize(sshd.key)
        thread.join()
        served[0].close()


def test_the_program_text_never_waits_on_a_disk(shell: Shell, tmp_path: Path) -> None:
    look = ("grep -rlF ", Secret("unusual words"), f" {tmp_path} || echo none")
    (result,) = shell.run_program(compile_program([Step("sample", (), "look", look)], str(tmp_path / "state")))
    assert result.output == "none"


def wait_until(condition: Callable[[], object]) -> None:
    ends = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.02)


def test_one_account_is_tried_with_everything_over_few_connections(tmp_path: Path) -> None:
    """A daemon that hangs up after two refusals is asked again; a password is offered only where one is taken."""
    other = make_key_pair("a stranger")
    with running_sshd(tmp_path, "MaxAuthTries 2") as sshd, running_relay(sshd.port) as relay:
        credentials = (None, other, sshd.key, other, other, other, Secret("password"))
        answer = try_credentials(relay.connector, sshd.user, credentials, sshd.host_keys, SECONDS)
        assert answer.opened == (False, False, True, False, False, False, False)
        assert answer.methods == {"publickey"}
        assert relay.accepted == 3


def test_passwords_are_tried_where_they_are_taken(tmp_path: Path) -> None:
    with running_sshd(tmp_path, "") as sshd:
        config = sshd.folder / "config"
        config.write_text(config.read_text().replace("PasswordAuthentication no", "PasswordAuthentication yes"))
        os.kill(sshd.process.pid, signal.SIGHUP)
        wait_until(lambda: "Received SIGHUP" in (sshd.folder / "log").read_text())
        sshd.wait()
        answer = try_credentials(sshd.connector, sshd.user, (None, Secret("not this one")), sshd.host_keys, SECONDS)
    assert answer.opened == (False, False)
    assert "password" in answer.methods


def test_a_daemon_that_does_not_answer_is_no_refusal() -> None:
    with pytest.raises(GuestUnreachable, match="no answer"):
        try_credentials(DirectConnector("127.0.0.1", free_port()), "root", (None,), (HOST_KEY,), 1)


def test_a_connection_that_breaks_between_attempts_is_made_again(sshd: Sshd, monkeypatch: pytest.MonkeyPatch) -> None:
    with running_relay(sshd.port) as relay:
        breaks = [True, False]

        def cut_once(secret: Secret) -> object:
            if breaks.pop(0):
                relay.cut()
            return load_key(secret)

        monkeypatch.setattr("pipeline.guest.shell.load_key", cut_once)
        answer = try_credentials(relay.connector, sshd.user, (None, sshd.key), sshd.host_keys, SECONDS)
    assert (answer.opened, breaks) == ((False, True), [])
