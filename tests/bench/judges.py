"""What others say of a guest before and after it is hardened with the profile `strict`: Lynis, OpenSCAP, ssh-audit.

One guest is booted for it. Lynis comes from this machine and runs in the guest; OpenSCAP's scanner is installed there,
with the content of this machine's ssg-debian; ssh-audit looks from outside. What a judge still says is printed, and
pipeline/harden/README.md answers to it.
"""

import base64
import io
import json
import re
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import AssayError
from pipeline.guest.facts import gather_facts
from pipeline.guest.program import Outcome, compile_program
from pipeline.guest.shell import Shell
from pipeline.harden import harden_steps
from tests.bench.rows import Row
from tests.harden.samples import spec
from tests.localcloud.machine import booted_debian
from tests.peers.environment import PeersMissing, make_environment

LOCK = Path(__file__).with_name("requirements.lock")
BOOT_SECONDS = 600
JUDGE_SECONDS = 1800
ANSWER_SECONDS = 120
"""How long ssh-audit waits for an emulated guest to say who it is; it gives up after 5 by itself."""
LYNIS = (Path("/usr/sbin/lynis"), Path("/usr/share/lynis"), Path("/etc/lynis"))
CONTENT = Path("/usr/share/xml/scap/ssg/content/ssg-debian11-ds.xml")
"""Debian 12's ssg-debian has content up to Debian 11."""
PROFILE = "xccdf_org.ssgproject.content_profile_anssi_np_nt28_high"
FOLDER = "/run/judges"
NOT_ASKED = {
    "CRYP-7902": "which of the distribution's own authorities expire: a process for each of 140",
    "NETW-2704": "whether the name servers answer: they are those of this machine",
    "NETW-2705": "how many of them do",
    "PKGS-7345": "nothing: it lists every package",
    "PKGS-7392": "which packages are vulnerable: it waits for lists to be read again",
}
"""Tests of Lynis that say nothing of a hardening and take minutes in an emulated guest."""


@dataclass(frozen=True)
class Verdict:
    """What one judge says: figures by name with their unit, and the lines of what it finds wrong."""

    figures: dict[str, tuple[float, str]]
    wrong: tuple[str, ...]


@dataclass(frozen=True)
class Accused:
    """The guest under judgement."""

    shell: Shell
    address: str
    port: int


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return a row for each figure: hardened, and beside it the same guest before."""
    with booted_guest() as guest:
        guest.shell.run("systemctl is-system-running --wait", BOOT_SECONDS)
        install_scanner(guest.shell)
        before = {name: ask(name, guest) for name in JUDGES}
        harden(guest.shell)
        after = {name: ask(name, guest) for name in JUDGES}
    return [row for name in JUDGES for row in rows(name, before[name], after[name])]


def ask(name: str, guest: Accused) -> Verdict | str:
    """Return the verdict of a judge, or why there is none: what the others say is not lost with it."""
    started = time.monotonic()
    try:
        verdict = JUDGES[name](guest)
    except (AssayError, OSError, subprocess.SubprocessError, ValueError) as error:
        verdict = f"could not judge: {error}"
    figures = (
        verdict if isinstance(verdict, str) else ", ".join(f"{it}: {v:g}" for it, (v, _) in verdict.figures.items())
    )
    print(f"{name}, {time.monotonic() - started:.0f} s: {figures}", file=sys.stderr, flush=True)
    return verdict


def rows(name: str, before: Verdict | str, after: Verdict | str) -> Iterator[Row]:
    """Yield the rows of one judge, and print what it still finds wrong."""
    if isinstance(before, str) or isinstance(after, str):
        yield Row(f"{name}: {after if isinstance(after, str) else before}", "", 0)
        return
    print("\n".join(f"{name} still says: {line}" for line in after.wrong))
    for figure, (value, unit) in after.figures.items():
        yield Row(f"{name}: {figure}, profile strict", unit, value, "not hardened", before.figures[figure][0])


@contextmanager
def booted_guest() -> Iterator[Accused]:
    """Boot a Debian 12 of the local cloud, and log in."""
    with tempfile.TemporaryDirectory(prefix="assay-bench-") as name, booted_debian(Path(name)) as machine:
        shell = machine.log_in()
        yield Accused(shell, machine.address, machine.way.port)
        shell.close()


def harden(shell: Shell) -> None:
    """Apply the profile `strict`. Raises AssayError where a step fails."""
    wanted = spec(users=[], harden={"profile": "strict"})
    results = list(shell.run_program(compile_program(harden_steps(gather_facts(shell), wanted))))
    failed = [f"{one.step.title}: {one.output}" for one in results if one.outcome is Outcome.FAILED]
    if failed:
        raise AssayError(f"the profile strict could not be applied: {'; '.join(failed)}")


def install_scanner(shell: Shell) -> None:
    """Install OpenSCAP's scanner before anybody judges: both verdicts are on the same packages."""
    installed = shell.run(
        "apt-get update && apt-get install -y --no-install-recommends openscap-scanner", JUDGE_SECONDS
    )
    if installed.exit_status:
        raise AssayError(f"openscap-scanner cannot be installed in the guest: {installed.stderr[-200:]}")


def run_lynis(guest: Accused) -> Verdict | str:
    """Let Lynis look at the system from inside."""
    if not LYNIS[0].exists():
        return "not installed (ci/packages-bench)"
    send(guest.shell, pack(*LYNIS))
    not_asked = "\n".join(f"skip-test={test}" for test in NOT_ASKED)
    guest.shell.run(
        f"cp -a {FOLDER}/. / && echo '{not_asked}' >/etc/lynis/custom.prf"
        " && lynis audit system --quick --no-colors --quiet >/dev/null 2>&1",
        JUDGE_SECONDS,
    )
    report = guest.shell.run(
        "cat /var/log/lynis-report.dat; rm -rf /usr/sbin/lynis /usr/share/lynis /etc/lynis /var/log/lynis*"
    ).stdout
    index = re.search(r"^hardening_index=(\d+)", report, re.MULTILINE)
    if not index:
        return f"gave no index: {report[-200:]}"
    warnings = re.findall(r"^warning\[\]=(.*)", report, re.MULTILINE)
    suggestions = re.findall(r"^suggestion\[\]=(.*)", report, re.MULTILINE)
    return Verdict(
        {
            "hardening index": (float(index[1]), "of 100"),
            "warnings": (len(warnings), "tests"),
            "suggestions": (len(suggestions), "tests"),
        },
        (*(f"warning {line}" for line in warnings), *(f"suggestion {line}" for line in suggestions)),
    )


def run_openscap(guest: Accused) -> Verdict | str:
    """Let OpenSCAP hold the system against the content for Debian 11, which is told that this is one."""
    if not CONTENT.exists():
        return "ssg-debian is not installed (ci/packages-bench)"
    text = CONTENT.read_text().replace("^11.[0-9]+$", "^12.[0-9]+$")
    send(guest.shell, pack_text("content.xml", text))
    ran = guest.shell.run(
        f"cd {FOLDER} && oscap xccdf eval --profile {PROFILE} --results results.xml content.xml", JUDGE_SECONDS
    )
    outcomes = re.findall(r"^Rule\r?\t(\S+)\n(?:Ident\r?\t.*\n)*Result\r?\t(\S+)", ran.stdout, re.MULTILINE)
    counted = [(rule, outcome) for rule, outcome in outcomes if outcome in ("pass", "fail")]
    if not counted:
        return f"judged nothing: {(ran.stdout + ran.stderr)[-400:]}"
    failed = [rule.removeprefix("xccdf_org.ssgproject.content_rule_") for rule, outcome in counted if outcome == "fail"]
    passed = len(counted) - len(failed)
    return Verdict({"rules that pass": (100 * passed / len(counted), f"% of {len(counted)}")}, tuple(failed))


def run_ssh_audit(guest: Accused) -> Verdict | str:
    """Let ssh-audit look at the algorithms from outside."""
    try:
        program = make_environment(".venv-bench", LOCK) / "ssh-audit"
    except PeersMissing as error:
        return f"cannot be installed: {error}"
    # The rate test tries how many logins sshd refuses a second: that is its denial of service, not its algorithms.
    command = [str(program), "-jj", "--skip-rate-test", "-t", str(ANSWER_SECONDS), "-p", str(guest.port), guest.address]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=JUDGE_SECONDS, check=False)
    try:
        answer = json.loads(ran.stdout)
    except json.JSONDecodeError:
        return f"said no JSON: {ran.stdout[-400:]}{ran.stderr[-400:]}"
    notes = {
        level: [
            f"{kind} {one['algorithm']}: {'; '.join(one['notes'][level])}"
            for kind in ("kex", "key", "enc", "mac")
            for one in answer[kind]
            if level in one.get("notes", {})
        ]
        for level in ("fail", "warn")
    }
    return Verdict(
        {"failures": (len(notes["fail"]), "algorithms"), "warnings": (len(notes["warn"]), "algorithms")},
        tuple(f"{level} {text}" for level, texts in notes.items() for text in texts),
    )


def pack(*places: Path) -> bytes:
    """Return files and folders of this machine as a compressed archive."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for place in places:
            archive.add(place, str(place).lstrip("/"))
    return packed.getvalue()


def pack_text(name: str, text: str) -> bytes:
    """Return one file as a compressed archive."""
    packed, data = io.BytesIO(), text.encode()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.size = len(data)
        archive.addfile(member, io.BytesIO(data))
    return packed.getvalue()


def send(shell: Shell, archive: bytes) -> None:
    """Unpack an archive in a folder of the guest that was empty."""
    encoded = base64.encodebytes(archive).decode()
    done = shell.run(
        f"rm -rf {FOLDER}; mkdir -p {FOLDER} && cd {FOLDER} && base64 -d <<'END' | tar xz\n{encoded}END\n",
        JUDGE_SECONDS,
    )
    if done.exit_status:
        raise AssayError(f"the guest cannot unpack an archive: {done.stderr}")


JUDGES: dict[str, Callable[[Accused], Verdict | str]] = {
    "Lynis": run_lynis,
    "OpenSCAP, ANSSI NT28 high of Debian 11": run_openscap,
    "ssh-audit": run_ssh_audit,
}
