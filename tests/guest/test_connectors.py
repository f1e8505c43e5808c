"""The ways to a guest that is not reached directly: through a real bastion, and through a real program."""

import socket
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.errors import GuestUnreachable, HostKeyMismatch
from pipeline.guest.keys import make_key_pair
from pipeline.guest.proxy_command import ProxyCommandConnector, missing_programs, proxy_command
from pipeline.guest.shell import BastionConnector, Connector, Login, connect
from tests.guest.sshd import Sshd, free_port, running_sshd

pytestmark = [pytest.mark.loopback, pytest.mark.subprocess]

SECONDS = 30
PIPE = """
import socket, sys, threading
far = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
def back():
    while data := far.recv(65536):
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
threading.Thread(target=back, daemon=True).start()
while data := sys.stdin.buffer.raw.read(65536):
    far.sendall(data)
"""


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with running_sshd(tmp_path_factory.mktemp("guest")) as server:
        yield server


@pytest.fixture(scope="module")
def bastion(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Login]:
    with running_sshd(tmp_path_factory.mktemp("bastion")) as server:
        yield Login(server.connector, server.user, server.key, server.host_keys, resource="the bastion")


def says(connector: Connector, sshd: Sshd) -> str:
    shell = connect(connector, sshd.user, sshd.key, sshd.host_keys, SECONDS)
    try:
        return shell.run("echo inside; head -c 1000000 /dev/zero | wc -c").stdout
    finally:
        shell.close()


def test_a_guest_is_reached_through_a_bastion(sshd: Sshd, bastion: Login) -> None:
    assert says(BastionConnector(bastion, "127.0.0.1", sshd.port), sshd) == "inside\n1000000\n"


def test_a_connection_through_a_bastion_leaves_nothing_open(sshd: Sshd, bastion: Login) -> None:
    opened = BastionConnector(bastion, "127.0.0.1", sshd.port).open_socket(SECONDS)
    opened.settimeout(SECONDS)
    assert opened.recv(4) == b"SSH-"
    transport = opened.channel.get_transport()  # type: ignore[attr-defined]
    opened.close()
    transport.join(SECONDS)
    assert not transport.is_active()


def test_a_bastion_is_known_by_its_host_key(sshd: Sshd, bastion: Login) -> None:
    another = replace(bastion, host_keys=(make_key_pair("another").public_openssh,))
    with pytest.raises(HostKeyMismatch, match="the bastion"):
        says(BastionConnector(another, "127.0.0.1", sshd.port), sshd)


def test_a_guest_behind_a_bastion_is_known_by_its_own_host_key(sshd: Sshd, bastion: Login) -> None:
    connector = BastionConnector(bastion, "127.0.0.1", sshd.port)
    with pytest.raises(HostKeyMismatch):
        connect(connector, sshd.user, sshd.key, (make_key_pair("another").public_openssh,), SECONDS)


def test_a_bastion_that_does_not_let_us_in_says_so(sshd: Sshd, bastion: Login) -> None:
    stranger = replace(bastion, credential=make_key_pair("stranger"))
    with pytest.raises(GuestUnreachable, match="the bastion does not let"):
        says(BastionConnector(stranger, "127.0.0.1", sshd.port), sshd)


def test_a_port_that_a_bastion_does_not_reach_is_said(bastion: Login) -> None:
    with pytest.raises(ConnectionError, match="the bastion does not reach 127"):
        BastionConnector(bastion, "127.0.0.1", free_port()).open_socket(SECONDS)


def test_a_guest_is_reached_through_a_program(sshd: Sshd) -> None:
    connector = ProxyCommandConnector((sys.executable, "-c", PIPE, str(sshd.port)), sshd.port)
    assert says(connector, sshd) == "inside\n1000000\n"


def test_a_program_ends_with_its_connection(sshd: Sshd) -> None:
    opened = ProxyCommandConnector((sys.executable, "-c", PIPE, str(sshd.port))).open_socket(SECONDS)
    process = opened.process  # type: ignore[attr-defined]
    assert opened.recv(4) == b"SSH-" and process.poll() is None
    opened.close()
    assert process.poll() is not None


def test_what_a_program_complains_of_is_said() -> None:
    complaint = "import sys; sys.exit('TargetNotConnected: i-0123 is not connected')"
    opened = ProxyCommandConnector((sys.executable, "-c", complaint)).open_socket(SECONDS)
    with opened, pytest.raises(ConnectionAbortedError, match="TargetNotConnected: i-0123 is not connected"):
        opened.recv(4)


def test_a_program_that_is_not_there_is_said(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="No such file"):
        ProxyCommandConnector((str(tmp_path / "no-such-program"),)).open_socket(SECONDS)


def test_the_connection_of_a_program_is_a_socket_of_its_own(sshd: Sshd) -> None:
    with ProxyCommandConnector((sys.executable, "-c", PIPE, str(sshd.port))).open_socket(SECONDS) as opened:
        assert isinstance(opened, socket.socket) and opened.gettimeout() == SECONDS


@pytest.mark.parametrize(
    ("version", "missing"),
    [("1.2.536.0", ()), ("1.2.707.0", ()), ("1.2.497.0", ("session-manager-plugin 1.2.498 or newer",))],
)
def test_programs_are_asked_for_their_version(tmp_path: Path, monkeypatch, version, missing) -> None:
    for name, says in (("aws", "aws-cli/2.17.0 Python/3.11"), ("session-manager-plugin", version)):
        program = tmp_path / name
        program.write_text(f"#!/bin/sh\necho {says}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    assert missing_programs("session-manager") == missing
    (tmp_path / "aws").write_text("#!/bin/sh\necho aws-cli/2.9.19\n")
    assert missing_programs("instance-connect") == ("aws 2.12 or newer",)
    (tmp_path / "aws").unlink()
    assert "aws 2.13.37 or newer" in missing_programs("session-manager")


@pytest.mark.parametrize(
    ("way", "command"),
    [
        (
            "session-manager",
            "aws ssm start-session --target i-1 --document-name AWS-StartSSHSession --parameters portNumber=2222"
            " --region eu-central-1",
        ),
        (
            "instance-connect",
            "aws ec2-instance-connect open-tunnel --instance-id i-1 --remote-port 2222 --region eu-central-1",
        ),
    ],
)
def test_the_commands_are_those_that_aws_documents(way, command) -> None:
    assert " ".join(proxy_command(way, "i-1", 2222, "eu-central-1")) == command
