"""The way into a guest: one ssh connection, a pinned host key, a key of the build's own. The only importer of paramiko.

Nothing here trusts a host key on first use or looks for keys in somebody's home, and an agent is asked only where the
caller says so. Everything has a deadline. A user who is not root works through `sudo -n`.
"""

import base64
import io
import logging
import select
import shlex
import socket
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Protocol, cast

import paramiko

from pipeline.errors import GuestFailed, GuestUnreachable, HostKeyMismatch, StepFailed
from pipeline.guest.environment import PRELUDE
from pipeline.guest.keys import KeyPair, fingerprint
from pipeline.guest.program import ACKNOWLEDGEMENT, Program, RecordReader, StepResult, visible
from pipeline.guest.root_shell import Output as Output
from pipeline.guest.root_shell import RootShell, new_nonce, root_shell_command, to_text
from pipeline.guest.step import Secret, Step

ATTEMPT_SECONDS = 30.0
"""One attempt to get a banner and a login; a guest that boots may swallow the first ones."""
PAUSE_SECONDS = 0.5
REFUSALS_SECONDS = 60.0
"""So long a refused login is tried again: sshd may answer before cloud-init has written the key, or before pam_nologin
lets anybody in."""
RECONNECT_SECONDS = 120.0
RECONNECT_REFUSALS_SECONDS = 5.0
"""The key was good a moment ago: a refusal after a break means that it was removed."""
CONNECTIONS = 5
"""That one guest program, or all the attempts of one user to log in, may use up."""
LOOK_AGAIN_SECONDS = 0.5
"""paramiko may lose a wake-up when both streams move at the same time; nobody waits longer than this for it."""
KEEPALIVE_SECONDS = 15
DEAD_AFTER_MILLISECONDS = 45_000
"""Of unanswered bytes: the kernel gives the connection up then, and not after its own quarter of an hour."""
RUN_SECONDS = 300.0
PROGRAM_SECONDS = 3600.0
COMPLAINT_BYTES = 4000

RUN = f"""{PRELUDE}umask 022
cd /
script=$(cat; echo .)
exec </dev/null
eval "${{script%.}}"
"""
"""Takes its script from standard input, so that it is in no process list, and leaves the script nothing to read."""

STARTED = "assay-started"
PASSWORD_METHODS = frozenset({"password", "keyboard-interactive"})

logging.getLogger("pipeline.guest.ssh").propagate = False
logging.getLogger("pipeline.guest.ssh").addHandler(logging.NullHandler())


class Connector(Protocol):
    """A way to the guest's ssh port: directly, or through whatever else a class knows."""

    @property
    def address(self) -> str:
        """What is connected to, in words."""

    def open_socket(self, deadline_seconds: float) -> socket.socket:
        """Return a connected socket with TCP_NODELAY. Raises OSError."""


@dataclass(frozen=True)
class DirectConnector:
    """TCP, straight to an address."""

    address: str
    port: int = 22

    def open_socket(self, deadline_seconds: float) -> socket.socket:
        """Return a connected socket. Without TCP_NODELAY each small packet would wait for the answer to the last."""
        opened = socket.create_connection((self.address, self.port), timeout=deadline_seconds)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, DEAD_AFTER_MILLISECONDS)
        return opened


class LoginRefused(Exception):
    """The guest answered, and does not let the user in."""


@dataclass(frozen=True)
class AgentKeys:
    """The keys of the operator's ssh agent, offered in its order. The private halves stay with the agent."""


def count_agent_keys() -> int:
    """Return how many keys the operator's ssh agent holds; 0 also where there is no agent."""
    with agent_keys() as keys:
        return len(keys)


def agent_holds(public: str) -> bool:
    """Return whether the operator's ssh agent holds the private half of a public key."""
    with agent_keys() as keys:
        return any(key.asbytes() == split_key(public)[1] for key in keys)


@contextmanager
def agent_keys() -> Iterator[tuple[paramiko.AgentKey, ...]]:
    """Yield the agent's keys; they work only while the connection to it is open."""
    try:
        agent = paramiko.Agent()
    except (OSError, paramiko.SSHException):
        yield ()
        return
    try:
        yield agent.get_keys()
    finally:
        agent.close()


@dataclass(frozen=True)
class Login:
    """Everything that a connection needs, and needs again when it breaks."""

    connector: Connector
    user: str
    credential: KeyPair | AgentKeys | Secret | None
    """A key, an agent's keys, a password, or nothing at all."""
    host_keys: tuple[str, ...]
    resource: str | None = None
    region: str | None = None

    @property
    def about(self) -> dict[str, str | None]:
        """Name the guest, as an error wants it."""
        return {"resource": self.resource, "region": self.region}

    def unreachable(self, message: str) -> GuestUnreachable:
        """Return the error, naming the guest."""
        return GuestUnreachable(message, **self.about)


@dataclass(frozen=True)
class BastionConnector:
    """Through another host, as ssh's ProxyJump: sshd there opens the connection, and sees nothing of what is in it."""

    bastion: Login
    host: str
    """The guest, as the bastion reaches it."""
    port: int = 22

    @property
    def address(self) -> str:
        """What is connected to, in words."""
        return f"{self.host} through {self.bastion.connector.address}"

    def open_socket(self, deadline_seconds: float) -> socket.socket:
        """Return a connection that the bastion opened. Raises OSError; HostKeyMismatch for another bastion."""
        ends = time.monotonic() + deadline_seconds
        try:
            transport = log_in_once(self.bastion, ends)
        except LoginRefused as refusal:
            raise self.bastion.unreachable(f"the bastion does not let {self.bastion.user} in: {refusal}") from refusal
        try:
            channel = transport.open_channel(
                "direct-tcpip", (self.host, self.port), ("127.0.0.1", 0), timeout=remaining(ends)
            )
        except (EOFError, paramiko.SSHException) as error:
            transport.close()
            raise ConnectionError(f"the bastion does not reach {self.host}:{self.port}: {error}") from error
        return cast(socket.socket, Passage(channel))


class Passage:
    """A channel through a bastion, as much of a socket as a transport needs; the bastion is left with it."""

    def __init__(self, channel: paramiko.Channel) -> None:
        self.channel = channel
        self.settimeout, self.recv, self.send = channel.settimeout, channel.recv, channel.send

    @property
    def _closed(self) -> bool:
        """Whether it is closed, as a transport asks its socket."""
        return self.channel.closed

    def close(self) -> None:
        """Close the channel and the connection to the bastion."""
        self.channel.get_transport().close()


def connect(
    connector: Connector,
    user: str,
    key: KeyPair | AgentKeys,
    host_keys: tuple[str, ...],
    deadline_seconds: float,
    *,
    resource: str | None = None,
    region: str | None = None,
    refusals_seconds: float = REFUSALS_SECONDS,
) -> "Shell":
    """Return a shell on the guest, waiting until it has booted so far that it lets us in.

    `host_keys` are OpenSSH public keys that are known from elsewhere, as the guest's console; nothing else is accepted
    (H28). Raises HostKeyMismatch at once, and GuestUnreachable after the deadline or after `refusals_seconds` (more
    than 0) of refused logins.
    """
    login = Login(connector, user, key, host_keys, resource, region)
    return Shell(login, open_transport(login, deadline_seconds, refusals_seconds))


def can_log_in(
    connector: Connector,
    user: str,
    credential: KeyPair | AgentKeys | Secret | None,
    host_keys: tuple[str, ...],
    deadline_seconds: float = ATTEMPT_SECONDS,
    *,
    resource: str | None = None,
    region: str | None = None,
) -> bool:
    """Return whether the guest lets a user in by a key, an agent's keys, a password, or nothing (None).

    A refusal is sshd's own answer, nothing less. Raises GuestUnreachable when there was no answer, and HostKeyMismatch.
    """
    login = Login(connector, user, credential, host_keys, resource, region)
    try:
        open_transport(login, deadline_seconds, refusals_seconds=0).close()
    except LoginRefused:
        return False
    return True


@dataclass(frozen=True)
class Answer:
    """What a guest said to one user's attempts to log in."""

    opened: tuple[bool, ...]
    """For each credential, whether it let the user in."""
    methods: frozenset[str]
    """The ways to log in that it offers the user, as ssh names them: `publickey`, `password` …"""


def try_credentials(
    connector: Connector,
    user: str,
    credentials: Sequence[KeyPair | Secret | None],
    host_keys: tuple[str, ...],
    deadline_seconds: float = ATTEMPT_SECONDS,
    *,
    resource: str | None = None,
) -> Answer:
    """Return which of these credentials let a user in, asked in as few connections as the guest allows.

    A password is offered only where the guest takes one, so None (nothing at all) comes first: its refusal names the
    methods. A connection that breaks, as those of a busy guest, is no refusal: it is made again. Raises
    GuestUnreachable when there was no answer, and HostKeyMismatch.
    """
    login = Login(connector, user, None, host_keys, resource)
    opened: list[bool] = []
    methods: set[str] = set()
    transport: GuestTransport | None = None
    breaks = 0
    while len(opened) < len(credentials):
        credential = credentials[len(opened)]
        if isinstance(credential, Secret) and not methods & PASSWORD_METHODS:
            opened.append(False)
            continue
        if transport is None or not transport.is_active():
            transport = greet_in_time(login, deadline_seconds)
        try:
            authenticate(transport, replace(login, credential=credential), time.monotonic() + deadline_seconds)
            opened.append(True)
            transport.close()
        except LoginRefused as refusal:
            opened.append(False)
            methods |= set(getattr(refusal.__cause__, "allowed_types", ()))
        except (OSError, EOFError, paramiko.SSHException) as error:
            transport.close()
            breaks += 1
            if breaks == CONNECTIONS:
                raise login.unreachable(f"no answer to a login as {user}: {error or type(error).__name__}") from error
    if transport:
        transport.close()
    return Answer(tuple(opened), frozenset(methods))


def greet_in_time(login: Login, deadline_seconds: float) -> "GuestTransport":
    """Return a transport on which nobody is logged in yet. Raises GuestUnreachable, HostKeyMismatch."""
    ends = time.monotonic() + deadline_seconds
    while True:
        try:
            return greet(login, min(ends, time.monotonic() + ATTEMPT_SECONDS))
        except (OSError, EOFError, paramiko.SSHException) as error:
            if time.monotonic() + PAUSE_SECONDS > ends:
                raise login.unreachable(f"no answer by ssh: {error or type(error).__name__}") from error
        time.sleep(PAUSE_SECONDS)


def open_transport(
    login: Login, deadline_seconds: float, refusals_seconds: float = REFUSALS_SECONDS
) -> "GuestTransport":
    """Return a transport that is logged in. What a booting guest does is tried again until the deadline.

    Raises HostKeyMismatch, GuestUnreachable; LoginRefused only where `refusals_seconds` is 0.
    """
    ends = time.monotonic() + deadline_seconds
    refused_until: float | None = None
    while True:
        try:
            return log_in_once(login, min(ends, time.monotonic() + ATTEMPT_SECONDS))
        except LoginRefused as refusal:
            refused_until = refused_until or time.monotonic() + refusals_seconds
            if refusals_seconds == 0:
                raise
            if time.monotonic() > refused_until:
                raise login.unreachable(f"the guest does not let {login.user} in: {refusal}") from refusal
            reason = str(refusal)
        except (OSError, EOFError, paramiko.SSHException) as error:
            reason = str(error) or type(error).__name__
        if time.monotonic() + PAUSE_SECONDS > ends:
            raise login.unreachable(f"no login by ssh within {deadline_seconds:.0f} s: {reason}")
        time.sleep(PAUSE_SECONDS)


def log_in_once(login: Login, ends: float) -> "GuestTransport":
    """Return a transport that is logged in.

    Raises LoginRefused, HostKeyMismatch, and OSError, EOFError or SSHException for everything that may pass.
    """
    transport = greet(login, ends)
    try:
        authenticate(transport, login, ends)
        transport.set_keepalive(KEEPALIVE_SECONDS)
    except BaseException:
        transport.close()
        raise
    return transport


def greet(login: Login, ends: float) -> "GuestTransport":
    """Return a transport to a guest that showed a host key which is known of it; nobody is logged in yet.

    Raises HostKeyMismatch, and OSError, EOFError or SSHException for everything that may pass.
    """
    pinned = {split_key(line) for line in login.host_keys}
    if not pinned:
        raise HostKeyMismatch("no host key of the guest is known", **login.about)
    transport = GuestTransport(login.connector.open_socket(remaining(ends)))
    try:
        exchange_keys(transport, login, pinned, ends)
    except BaseException:
        transport.close()
        raise
    return transport


class GuestTransport(paramiko.Transport):
    """A transport that remembers why the guest hung up, and keeps its log to itself."""

    def __init__(self, opened: socket.socket) -> None:
        super().__init__(opened)
        self.set_log_channel("pipeline.guest.ssh")
        self.farewell = ""

    def log_in_with_key(self, user: str, key: paramiko.PKey) -> list[str]:
        """Log in by a key, in one round trip; return what the guest wants besides. Raises AuthenticationException."""
        self.auth_handler = handler = PromptLogin(self)
        answered = threading.Event()
        handler.auth_publickey(user, key, answered)
        return list(handler.wait_for_response(answered))

    def _parse_disconnect(self, message: paramiko.Message) -> None:
        message.get_int()
        self.farewell = visible(message.get_text())


class PromptLogin(paramiko.auth_handler.AuthHandler):
    """A login that asks for the service and for the user at once. sshd answers in order, one round trip earlier."""

    def _request_auth(self) -> None:
        super()._request_auth()  # type: ignore[misc] # the types of paramiko leave these two out
        granted = paramiko.Message()
        granted.add_string("ssh-userauth")
        granted.rewind()
        super()._parse_service_accept(granted)  # type: ignore[misc]

    def _parse_service_accept(self, message: paramiko.Message) -> None:
        """Nothing is left to do: who does not grant the service hangs up instead (RFC 4253, 10)."""


def exchange_keys(transport: GuestTransport, login: Login, pinned: set[tuple[str, bytes]], ends: float) -> None:
    """Wait for the banner and agree on keys. Only host keys of pinned types are asked for: those can be compared.

    Raises HostKeyMismatch for another key, or where the guest has none of these types; SSHException for what may pass.
    """
    types = {name for name, _ in pinned}
    types |= {"rsa-sha2-512", "rsa-sha2-256"} if "ssh-rsa" in types else set()
    options = transport.get_security_options()
    options.key_types = tuple(name for name in options.key_types if name in types)
    transport.banner_timeout = transport.handshake_timeout = remaining(ends)
    try:
        transport.start_client(timeout=remaining(ends))
        shown = transport.get_remote_server_key()
    except paramiko.ssh_exception.IncompatiblePeer as error:
        if "host key" not in str(error):
            raise
        raise mismatch(login, pinned, "none of their types") from error
    if (shown.get_name(), shown.asbytes()) not in pinned:
        raise mismatch(login, pinned, f"{shown.get_name()} {shown.fingerprint}")


def mismatch(login: Login, pinned: set[tuple[str, bytes]], shown: str) -> HostKeyMismatch:
    """Return the error, with the fingerprints on both sides."""
    expected = ", ".join(f"{line.split()[0]} {fingerprint(line)}" for line in login.host_keys)
    return HostKeyMismatch(
        f"the guest shows {shown} as its host key; known is {expected}",
        **login.about,
    )


def split_key(line: str) -> tuple[str, bytes]:
    """Return the type and the bytes of a public key."""
    name, encoded, *_ = line.split()
    return name, base64.b64decode(encoded)


def authenticate(transport: GuestTransport, login: Login, ends: float) -> None:
    """Log in with exactly what was given. Raises LoginRefused when sshd says no, SSHException when it says nothing."""
    transport.auth_timeout = remaining(ends)
    try:
        match login.credential:
            case KeyPair(private_openssh=Secret() as secret):
                left = transport.log_in_with_key(login.user, load_key(secret))
            case KeyPair(public_openssh=public):
                left = offer_agent_keys(transport, login.user, public)
            case AgentKeys():
                left = offer_agent_keys(transport, login.user)
            case Secret(reveal=password):
                left = transport.auth_password(login.user, password)
            case None:
                left = transport.auth_none(login.user)
    except paramiko.AuthenticationException as error:
        refused = transport.is_active() and "timeout" not in str(error)
        if refused or "authentication failures" in transport.farewell:
            raise LoginRefused(str(error)) from error
        raise
    if left:
        raise LoginRefused(f"it also wants {', '.join(left)}")


def offer_agent_keys(transport: GuestTransport, user: str, public: str | None = None) -> list[str]:
    """Log in with the first of the agent's keys that the guest accepts; return what it wants besides.

    With `public`, a line as in authorized_keys, no other key is offered. Raises AuthenticationException when the guest
    accepts none.
    """
    refusal = paramiko.AuthenticationException("the ssh agent holds no such key")
    with agent_keys() as keys:
        for key in (key for key in keys if public is None or key.asbytes() == split_key(public)[1]):
            try:
                return transport.log_in_with_key(user, key)
            except paramiko.AuthenticationException as error:
                if not transport.is_active():
                    raise
                refusal = error
    raise refusal


def load_key(private: Secret) -> paramiko.PKey:
    """Return a private key as paramiko wants it."""
    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        with suppress(paramiko.SSHException):
            return kind.from_private_key(io.StringIO(private.reveal))
    raise GuestFailed("the ssh key is of no kind that can log in")


def remaining(ends: float) -> float:
    """Return the seconds that are left. Raises TimeoutError when there are none."""
    left = ends - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time is over")
    return left


class Channel:
    """The standard streams of one process on the guest: a `Stream` for a root shell, and events for everything else."""

    def __init__(self, login: Login, transport: GuestTransport, command: str, ends: float) -> None:
        """Start the process. Raises GuestUnreachable."""
        self.login = login
        self.errors = b""
        with self.broken("a command was started"):
            self.channel = transport.open_session(timeout=remaining(ends))
            self.channel.settimeout(remaining(ends))
            self.channel.exec_command(command)

    @contextmanager
    def broken(self, doing: str) -> Iterator[None]:
        """Turn every way in which a connection breaks into GuestUnreachable."""
        try:
            yield
        except TimeoutError:
            raise
        except (OSError, EOFError, paramiko.SSHException) as error:
            reason = f": {error}" if str(error) else ""
            raise self.login.unreachable(f"the connection broke when {doing}{reason}") from error

    def write(self, data: bytes, ends: float) -> None:
        """Send all of it to standard input. Raises GuestUnreachable, TimeoutError."""
        with self.broken("a command was sent"):
            self.channel.settimeout(remaining(ends))
            self.channel.sendall(data)

    def close_input(self) -> None:
        """Let the process see the end of its standard input."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            self.channel.shutdown_write()

    def events(self, ends: float) -> Iterator[tuple[bool, bytes]]:
        """Yield what arrives as (is it standard error, bytes) until both streams end. Raises TimeoutError."""
        while True:
            while self.channel.recv_stderr_ready():
                yield True, self.channel.recv_stderr(1 << 16)
            while self.channel.recv_ready():
                yield False, self.channel.recv(1 << 16)
            if self.channel.eof_received or self.channel.closed:
                if self.channel.recv_ready() or self.channel.recv_stderr_ready():
                    continue
                return
            select.select([self.channel], [], [], min(remaining(ends), LOOK_AGAIN_SECONDS))

    def read(self, ends: float) -> bytes:
        """Return what has arrived on standard output; nothing at its end. Raises GuestUnreachable, TimeoutError."""
        for is_error, data in self.events(ends):
            if not is_error:
                return data
            self.errors = (self.errors + data)[-COMPLAINT_BYTES:]
        if not self.has_ended():
            raise self.login.unreachable("the connection broke")
        return b""

    def has_ended(self) -> bool:
        """Return whether the process ended by itself: its status came, or comes with the end of the channel."""
        self.channel.status_event.wait(ATTEMPT_SECONDS)
        return self.channel.exit_status_ready() and self.channel.exit_status != -1

    def complaint(self) -> str:
        """Return the last words on standard error."""
        return visible(to_text(self.errors)).strip()

    def close(self) -> None:
        """Close the channel; the process is on its own."""
        with suppress(OSError, EOFError, paramiko.SSHException):
            self.channel.close()


class Shell:
    """A connection to a guest. Every command runs as root, in `/`, without a history."""

    def __init__(self, login: Login, transport: GuestTransport) -> None:
        self.login = login
        self.transport = transport
        self.left: Channel | None = None

    def run(self, command: str, deadline_seconds: float = RUN_SECONDS) -> Output:
        """Run a script, in one channel; nothing of it is in the process list.

        Raises GuestUnreachable when the connection breaks, GuestFailed when it does not end in time.
        """
        ends = time.monotonic() + deadline_seconds
        channel = self.start(f"sh -c {shlex.quote(RUN)}", ends)
        parts: dict[bool, list[bytes]] = {False: [], True: []}
        try:
            channel.write(command.encode(errors="surrogateescape"), ends)
            channel.close_input()
            for is_error, data in channel.events(ends):
                parts[is_error].append(data)
            if not channel.has_ended():
                raise self.login.unreachable("the connection broke while a command ran")
        except TimeoutError as error:
            raise self.too_late("a command", deadline_seconds) from error
        finally:
            channel.close()
        return Output(channel.channel.exit_status, to_text(b"".join(parts[False])), to_text(b"".join(parts[True])))

    def run_program(
        self,
        program: Program,
        deadline_seconds: float = PROGRAM_SECONDS,
        began: Callable[[Step], None] | None = None,
    ) -> Iterator[StepResult]:
        """Run a guest program and yield the result of each step as it comes; `began` is told of each that begins.

        A broken connection is made anew, and the program goes on where it is. Raises GuestUnreachable when the guest
        cannot be reached or does not let us in again, GuestFailed when the program breaks, and StepFailed when a step
        outlives the deadline. A step that fails is a result, and no exception.
        """
        ends = time.monotonic() + deadline_seconds
        reader = RecordReader(program, began)
        for _ in range(CONNECTIONS):
            try:
                yield from self.follow(program, reader, ends)
            except TimeoutError as error:
                at = f"step “{reader.current.title}”" if reader.current else "the guest program"
                raise StepFailed(f"{at} did not end within {deadline_seconds:.0f} s", **self.login.about) from error
            except GuestUnreachable:
                self.reconnect(min(RECONNECT_SECONDS, max(1.0, ends - time.monotonic())))
            else:
                return
        raise self.login.unreachable(f"the connection broke {CONNECTIONS} times in one guest program")

    def follow(self, program: Program, reader: RecordReader, ends: float) -> Iterator[StepResult]:
        """Run a program over one channel, to its end or to the connection's. Raises GuestFailed, GuestUnreachable."""
        channel = self.start("sh -s", ends)
        try:
            channel.write(program.text.encode(errors="surrogateescape"), ends)
            unread = b""
            while not reader.finished:
                data = channel.read(ends)
                if not data:
                    said = visible(reader.noise).strip() or channel.complaint() or "it said nothing"
                    raise GuestFailed(f"the guest program did not run to its end: {said}", **self.login.about)
                *lines, unread = (unread + data).split(b"\n")
                yield from filter(None, map(reader.read, map(to_text, lines)))
            with suppress(GuestUnreachable, TimeoutError):
                channel.write(ACKNOWLEDGEMENT.encode(), ends)
        finally:
            channel.close()

    def open_root_shell(self, folder: str = "/run") -> RootShell:
        """Return a root shell that stays open: one round trip a command. Raises GuestUnreachable."""
        nonce = new_nonce()
        ends = time.monotonic() + RUN_SECONDS
        channel = self.start(root_shell_command(nonce, folder), ends)
        return RootShell(channel, nonce, self.login.resource, self.login.region)

    def start_and_leave(self, command: str, deadline_seconds: float = RUN_SECONDS) -> None:
        """Start a last command (the power-off) and return as soon as the guest has it; its end is not waited for.

        Raises GuestUnreachable when it could not be started.
        """
        ends = time.monotonic() + deadline_seconds
        channel = self.start(f"sh -c {shlex.quote(RUN)}", ends)
        try:
            channel.write(f"echo {STARTED}\n{command}".encode(), ends)
            channel.close_input()
            answer = b""
            while STARTED.encode() not in answer:
                data = channel.read(ends)
                if not data:
                    raise self.login.unreachable(f"a last command did not start: {channel.complaint()}")
                answer += data
        except TimeoutError as error:
            raise self.too_late("a last command", deadline_seconds) from error
        self.left = channel

    def too_late(self, what: str, deadline_seconds: float) -> GuestFailed:
        """Return the error for something that did not end."""
        return GuestFailed(f"{what} did not end within {deadline_seconds:.0f} s", **self.login.about)

    def start(self, command: str, ends: float) -> Channel:
        """Start a process as root. Raises GuestUnreachable."""
        as_root = command if self.login.user == "root" else f"sudo -n -- {command}"
        try:
            return Channel(self.login, self.transport, f"exec {as_root}", ends)
        except TimeoutError as error:
            raise self.login.unreachable("the guest does not start a command") from error

    def reconnect(self, deadline_seconds: float) -> None:
        """Connect again after a break. Raises GuestUnreachable, also when our key is gone from the guest by now."""
        self.close()
        self.transport = open_transport(self.login, deadline_seconds, RECONNECT_REFUSALS_SECONDS)

    def close(self) -> None:
        """Close the connection. What was started and left goes on."""
        self.transport.close()
