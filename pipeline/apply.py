"""The recipe that hardens a host that runs already, over ssh: a look first, the change when it is wanted.

Nothing is scrubbed: the host stays whose it is, with its keys, its histories and its identity. Its host key must be
known beforehand, from known_hosts or from the command line.
"""

import json
import re
import subprocess
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

from pipeline.errors import (
    AssayError,
    ChangesNeeded,
    GuestFailed,
    GuestUnreachable,
    HostKeyMismatch,
    SpecInvalid,
    StepFailed,
)
from pipeline.guest.facts import gather_facts
from pipeline.guest.keys import KeyPair, is_whole, load_key_file
from pipeline.guest.program import Outcome, StepResult, compile_program
from pipeline.guest.shell import AgentKeys, DirectConnector, Shell, can_log_in, connect, count_agent_keys
from pipeline.guest.step import Step
from pipeline.harden import harden_steps, rollback_command
from pipeline.harden.sshd import commit_command
from pipeline.spec import Spec

CONNECT_SECONDS = 30.0
REFUSALS_SECONDS = 1.0
"""The host runs already: a refused login is tried once more, and that is that."""
SSH_PORT = 22
KNOWN_HOSTS = (Path("~/.ssh/known_hosts"), Path("/etc/ssh/ssh_known_hosts"))

COLUMNS = ("verdict", "subject", "step", "controls", "detail")

Progress = Callable[[str, int, int], None]


class Verdict(StrEnum):
    """What a step found on the host, or did there."""

    IN_ORDER = "in order"
    WOULD_CHANGE = "would change"
    NOT_KNOWN = "not known"
    """The step has no test of its own: only running it tells whether it changes anything."""
    CHANGED = "changed"
    FAILED = "failed"
    SKIPPED = "skipped"
    """An earlier step failed, or the connection broke."""


VERDICTS = {
    Outcome.OK: Verdict.IN_ORDER,
    Outcome.CHANGED: Verdict.CHANGED,
    Outcome.FAILED: Verdict.FAILED,
    Outcome.SKIPPED: Verdict.SKIPPED,
}


@dataclass(frozen=True)
class Host:
    """Where to log in, and as whom."""

    user: str
    address: str
    port: int = SSH_PORT

    def __str__(self) -> str:
        return f"{self.user}@{self.known_as}"

    @property
    def known_as(self) -> str:
        """The name that known_hosts has the host under."""
        return self.address if self.port == SSH_PORT else f"[{self.address}]:{self.port}"


@dataclass(frozen=True)
class Line:
    """One step, and what became of it on this host."""

    step: Step
    verdict: Verdict
    detail: str = ""
    """What the step's test or its action said; secrets are masked."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Report:
    """What a run saw and did, and what ended it, if anything did. It is whole after a failure too."""

    host: Host
    dry_run: bool
    lines: tuple[Line, ...]
    problem: AssayError | None = None

    @property
    def exit_status(self) -> int:
        """0 when the host is as the spec says, otherwise the status of the problem."""
        return self.problem.exit_status if self.problem else 0

    @property
    def summary(self) -> str:
        """How many steps there are of each verdict."""
        counts = Counter(line.verdict for line in self.lines)
        return f"{self.host}: " + ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if counts[verdict])

    def as_rows(self) -> tuple[tuple[str, ...], ...]:
        """Return a row for each step: verdict, subject, title, controls, and the last words of what it said."""
        return tuple(
            (line.verdict.value, line.step.subject, line.step.title, " ".join(line.step.controls), last_line(line))
            for line in self.lines
        )

    def as_json(self) -> str:
        """Return the report as JSON."""
        document = {
            "host": str(self.host),
            "dry_run": self.dry_run,
            "exit_status": self.exit_status,
            "error": str(self.problem) if self.problem else None,
            "steps": [
                {
                    "subject": line.step.subject,
                    "controls": line.step.controls,
                    "title": line.step.title,
                    "optional": line.step.optional,
                    "verdict": line.verdict,
                    "detail": line.detail,
                    "seconds": round(line.seconds, 3),
                }
                for line in self.lines
            ],
        }
        return json.dumps(document, indent=2)


def harden_host(
    spec: Spec,
    host: Host,
    credential: KeyPair | AgentKeys,
    host_keys: tuple[str, ...],
    *,
    dry_run: bool = True,
    remove_users: bool = False,
    progress: Progress = lambda title, done, total: None,
) -> Report:
    """Hold a host against the hardening of a spec; change it where it differs, unless it is a dry run.

    The user who logs in stays welcome, with the key that works now. Other login users stay too, unless `remove_users`
    and the spec say otherwise: what they own cannot be brought back. Raises SpecInvalid, GuestUnreachable,
    HostKeyMismatch and GuestFailed while nothing has been done; whatever goes wrong later is in the report.
    """
    spec = for_running_host(spec, host, dry_run=dry_run, remove_users=remove_users)
    shell = connect(
        DirectConnector(host.address, host.port),
        host.user,
        credential,
        host_keys,
        CONNECT_SECONDS,
        resource=str(host),
        refusals_seconds=REFUSALS_SECONDS,
    )
    try:
        require_root(shell, host)
        steps = harden_steps(gather_facts(shell), spec)
        if dry_run:
            return look(shell, host, steps, progress)
        return change(shell, host, steps, credential, host_keys, progress)
    finally:
        shell.close()


def look(shell: Shell, host: Host, steps: tuple[Step, ...], progress: Progress) -> Report:
    """Return what each step would do, by its own test. Nothing but the tests runs on the host."""
    tests = tuple(replace(step, test=None, action=step.test, optional=True) for step in steps if step.test is not None)
    found: list[StepResult] = []
    problem = collect(shell, tests, found.append, progress)
    results = iter(found)
    lines = []
    for step in steps:
        if step.test is None:
            lines.append(Line(step, Verdict.NOT_KNOWN))
        elif (tested := next(results, None)) is None:
            lines.append(Line(step, Verdict.SKIPPED))
        else:
            verdict = Verdict.WOULD_CHANGE if tested.outcome is Outcome.FAILED else Verdict.IN_ORDER
            lines.append(Line(step, verdict, tested.output, tested.seconds))
    return Report(host, True, tuple(lines), problem or missing_changes(host, lines))


def missing_changes(host: Host, lines: Iterable[Line]) -> ChangesNeeded | None:
    """Return the error for a host that is not as the spec says; None for one that is."""
    pending = sum(line.verdict is Verdict.WOULD_CHANGE for line in lines)
    return ChangesNeeded(f"{pending} steps would change the host", resource=str(host)) if pending else None


def change(
    shell: Shell,
    host: Host,
    steps: tuple[Step, ...],
    credential: KeyPair | AgentKeys,
    host_keys: tuple[str, ...],
    progress: Progress,
) -> Report:
    """Run every step, then prove a second login while the first session is held; what bars it is put back (H07)."""
    lines: list[Line] = []

    def note(result: StepResult) -> None:
        lines.append(Line(result.step, VERDICTS[result.outcome], result.output, result.seconds))

    problem = collect(shell, steps, note, progress)
    failed = next((line for line in lines if line.verdict is Verdict.FAILED and not line.step.optional), None)
    if problem is None and failed:
        problem = StepFailed(
            f"harden/{failed.step.subject}: {failed.step.title}: {last_line(failed)}",
            resource=str(host),
            hint="mend what the step complains about and run it again: what was done is kept",
        )
    return Report(host, False, tuple(lines), settle_sshd(shell, host, credential, host_keys) or problem)


def collect(
    shell: Shell, steps: tuple[Step, ...], note: Callable[[StepResult], None], progress: Progress
) -> AssayError | None:
    """Run steps as one program and note each result; return what broke the program, if anything did."""
    try:
        for number, result in enumerate(shell.run_program(compile_program(steps)), 1):
            note(result)
            progress(result.step.title, number, len(steps))
    except AssayError as error:
        return error
    return None


def settle_sshd(
    shell: Shell, host: Host, credential: KeyPair | AgentKeys, host_keys: tuple[str, ...]
) -> AssayError | None:
    """Keep sshd and firewall as they are now where a second login proves them, and put them back otherwise (H07).

    Returns the error of the second login, or None. Where no step reached them, there is nothing to put back.
    """
    problem: AssayError | None = None
    try:
        if not can_log_in(DirectConnector(host.address, host.port), host.user, credential, host_keys):
            problem = StepFailed("a second login is refused after the change", resource=str(host))
    except GuestUnreachable as error:
        problem = error
    try:
        settled = shell.run(rollback_command() if problem else commit_command())
    except AssayError as error:
        return problem or error
    if problem is None:
        return None
    kept = "the guest is open again" if settled.exit_status == 0 else "the guest could not be opened again"
    return StepFailed(
        f"harden/sshd: no second login after the change: {problem.message}; {kept}",
        resource=str(host),
        hint="compare users, harden.sshd, harden.firewall and image.launch_user of the spec with this login",
    )


def for_running_host(spec: Spec, host: Host, *, dry_run: bool, remove_users: bool = False) -> Spec:
    """Return the spec with the one who logs in here as its login user, who is let in and keeps their keys.

    Nobody's account is removed but on demand. Raises SpecInvalid where the change would shut the user out for good:
    root, where the spec forbids root's login.
    """
    sshd = spec.harden.sshd
    if host.user == "root" and not dry_run and sshd and sshd.permit_root_login == "no":
        raise SpecInvalid(
            "you log in as root, and harden.sshd.permit_root_login is `no`: the change would shut you out",
            resource=str(host),
            hint="log in as a user who may use sudo, or set permit_root_login to prohibit-password",
        )
    ssh = spec.ssh.model_copy(update={"user": host.user, "port": host.port})
    leavers_go = remove_users and spec.harden.remove_other_users
    harden = spec.harden.model_copy(update={"remove_other_users": leavers_go})
    return spec.model_copy(update={"ssh": ssh, "harden": harden})


def require_root(shell: Shell, host: Host) -> None:
    """Raise GuestFailed where the user may not become root."""
    answer = shell.run("id -u")
    if answer.stdout.strip() != "0":
        said = answer.stderr.strip().splitlines()
        raise GuestFailed(
            f"{host.user} cannot become root: {said[-1] if said else 'sudo said nothing'}",
            resource=str(host),
            hint="hardening needs root: log in as a user whom sudo asks for no password",
        )


def parse_host(text: str) -> Host:
    """Return the host that `--host` names: USER@ADDRESS, USER@ADDRESS:PORT, or USER@[IPv6]:PORT. Raises SpecInvalid."""
    match = re.fullmatch(
        r"(?P<user>[A-Za-z_][\w.-]*)@(?:\[(?P<six>[0-9A-Fa-f:.%]+)\]|(?P<name>[A-Za-z0-9][\w.-]*))(?::(?P<port>\d+))?",
        text,
    )
    port = int(match["port"] or SSH_PORT) if match else 0
    if not match or not 1 <= port <= 65535:
        raise SpecInvalid(f"--host={text!r} is no host", hint="write USER@ADDRESS or USER@ADDRESS:PORT")
    return Host(match["user"], match["six"] or match["name"], port)


def choose_credential(key_file: str, ask_passphrase: Callable[[], str]) -> KeyPair | AgentKeys:
    """Return the key of `--key`, or the keys of the ssh agent. Raises SpecInvalid when there is neither (H26)."""
    if key_file:
        return load_key_file(Path(key_file), ask_passphrase)
    if not count_agent_keys():
        raise SpecInvalid(
            "there is no key to log in with: --key names none, and no ssh agent offers one",
            hint="name a private key with --key, or `ssh-add` it",
        )
    return AgentKeys()


def find_host_keys(host: Host, given: str, files: Iterable[Path] = KNOWN_HOSTS) -> tuple[str, ...]:
    """Return the host keys to accept: the one of `--host-key`, or those that known_hosts has for the host (H28).

    Raises SpecInvalid for a `--host-key` that is none, HostKeyMismatch when nothing is known of the host.
    """
    if given:
        key = " ".join(given.split()[:2])
        if not is_whole(key):
            raise SpecInvalid("--host-key is no public key", hint="write it as `ssh-ed25519 AAAA…`, in quotes")
        return (key,)
    lines = [line for file in files for line in known_lines(host, file.expanduser())]
    revoked = {key for marker, key in lines if marker == "@revoked"}
    keys = tuple(dict.fromkeys(key for marker, key in lines if not marker and key not in revoked and is_whole(key)))
    if not keys:
        reason = "is revoked in known_hosts" if revoked else "is not known"
        raise HostKeyMismatch(
            f"the host key of {host.known_as} {reason}, and none is accepted on first use",
            resource=str(host),
            hint="read it on the host's own console (/etc/ssh/ssh_host_ed25519_key.pub) and pass it with --host-key",
        )
    return keys


def known_lines(host: Host, file: Path) -> Iterator[tuple[str, str]]:
    """Yield (marker, key) of each line of a known_hosts file that is about the host, as OpenSSH itself finds them.

    Hashed names, patterns and ports are ssh-keygen's business. Raises SpecInvalid where it is not installed.
    """
    if not file.is_file():
        return
    try:
        found = subprocess.run(
            ["ssh-keygen", "-F", host.known_as, "-f", str(file)], capture_output=True, text=True, check=False
        )
    except OSError as error:
        raise SpecInvalid(
            f"known_hosts cannot be searched: ssh-keygen: {error.strerror}",
            hint="install OpenSSH's client, or pass the host's key with --host-key",
        ) from error
    for line in found.stdout.splitlines():
        fields = line.split()
        if not fields or line.startswith("#"):
            continue
        marker = fields.pop(0) if fields[0].startswith("@") else ""
        if len(fields) >= 3:
            yield marker, " ".join(fields[1:3])


def last_line(line: Line) -> str:
    """Return the last line of what a step said; nothing for one that is in order."""
    said = [text.strip() for text in line.detail.splitlines() if text.strip()]
    return said[-1] if said and line.verdict is not Verdict.IN_ORDER else ""
