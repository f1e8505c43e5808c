"""The address plan, and the proxy in front of a stand-in for a guest."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from pipeline.localcloud import network
from pipeline.localcloud.network import AddressPlan, PortProxy

PORT = 8022


@pytest.mark.parametrize(
    ("address", "prefix"),
    [
        ("172.31.5.6", "168.0.0.0/5"),
        ("172.16.0.9", "168.0.0.0/5"),
        ("192.168.1.2", "128.0.0.0/1"),
        ("169.254.7.7", "169.254.0.0/16"),
    ],
)
def test_the_network_holds_the_guest_and_the_metadata_service(address: str, prefix: str) -> None:
    assert str(network.guest_network(address)) == prefix


def test_an_address_that_no_network_can_serve_is_refused() -> None:
    with pytest.raises(network.AddressRefused, match=r"10\.0\.0\.4"):
        network.guest_network("10.0.0.4")


def test_low_ports_move_up_where_they_are_not_ours() -> None:
    assert [network.public_port(22, True), network.public_port(22, False), network.public_port(8080, False)] == [
        22,
        10022,
        8080,
    ]


@pytest.mark.loopback
def test_a_port_that_this_machine_serves_itself_is_not_a_guest_s() -> None:
    with socket.create_server(("", 0)) as server:
        port = server.getsockname()[1]
        assert not network.may_bind_low_ports(port)
    assert network.may_bind_low_ports(port)


def test_two_plans_never_have_the_same_address() -> None:
    first, second = AddressPlan(), AddressPlan()
    address = first.take()
    assert not second.reserve(address) and not first.reserve(address)
    first.release(address)
    assert second.reserve(address)
    second.release(address)


class EchoGuest:
    """Answers at one port, while it is told to."""

    def __init__(self) -> None:
        self.answers = True
        self.listener = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                threading.Thread(target=self.echo, args=(connection,), daemon=True).start()

    def echo(self, connection: socket.socket) -> None:
        with connection:
            while data := connection.recv(65536):
                connection.sendall(data)

    def dial(self, port: int) -> socket.socket:
        if not self.answers or port != PORT:
            raise ConnectionRefusedError
        return socket.create_connection(self.listener.getsockname())


class Setting:
    def __init__(self) -> None:
        self.guest, self.addresses = EchoGuest(), AddressPlan()
        self.address = self.addresses.take()
        self.rule: Callable[[int, str], bool] = lambda port, source: True
        self.ports: set[int] = {PORT}
        self.proxy = PortProxy(
            self.address, self.guest.dial, lambda port, source: self.rule(port, source), lambda: self.ports
        )

    def wait(self, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + 20
        while not condition():
            assert time.monotonic() < deadline
            threading.Event().wait(0.01)

    def connect(self) -> socket.socket:
        return socket.create_connection((self.address, PORT), 10)


@pytest.fixture
def setting() -> Iterator[Setting]:
    made = Setting()
    yield made
    made.proxy.close()
    made.guest.listener.close()
    made.addresses.release(made.address)


@pytest.mark.loopback
def test_data_goes_both_ways_and_its_end_too(setting: Setting) -> None:
    setting.wait(lambda: setting.proxy.open_ports() == {PORT})
    payload = bytes(range(256)) * 4096
    with setting.connect() as connection:
        threading.Thread(target=lambda: (connection.sendall(payload), connection.shutdown(socket.SHUT_WR))).start()
        received = bytearray()
        while data := connection.recv(65536):
            received += data
    assert received == payload


@pytest.mark.loopback
def test_nothing_listens_before_the_guest_answers_and_after_it_stopped(setting: Setting) -> None:
    setting.wait(lambda: setting.proxy.open_ports() == {PORT})
    setting.guest.answers = False
    with pytest.raises(ConnectionResetError), setting.connect() as connection:
        connection.recv(1)
    setting.wait(lambda: not setting.proxy.open_ports())
    with pytest.raises(ConnectionRefusedError):
        setting.connect()
    setting.guest.answers = True
    setting.wait(lambda: setting.proxy.open_ports() == {PORT})


@pytest.mark.loopback
@pytest.mark.parametrize("rule", [lambda port, source: False, lambda port, source: 1 / 0])
def test_a_refused_source_and_a_broken_rule_get_a_reset(setting: Setting, rule: Callable[[int, str], bool]) -> None:
    setting.wait(lambda: setting.proxy.open_ports() == {PORT})
    setting.rule = rule
    with pytest.raises(ConnectionResetError), setting.connect() as connection:
        connection.recv(1)


@pytest.mark.loopback
def test_a_rule_sees_the_port_and_the_source(setting: Setting) -> None:
    seen: list[tuple[int, str]] = []
    setting.rule = lambda port, source: bool(seen.append((port, source))) or True
    setting.wait(lambda: setting.proxy.open_ports() == {PORT})
    with socket.create_connection((setting.address, PORT), 10, source_address=("127.7.7.7", 0)) as connection:
        connection.sendall(b"x")
        assert connection.recv(1) == b"x"
    assert seen == [(PORT, "127.7.7.7")]


@pytest.mark.loopback
def test_a_port_without_a_rule_closes(setting: Setting) -> None:
    setting.wait(lambda: setting.proxy.open_ports() == {PORT})
    setting.ports = set()
    setting.wait(lambda: not setting.proxy.open_ports())
    with pytest.raises(ConnectionRefusedError):
        setting.connect()
