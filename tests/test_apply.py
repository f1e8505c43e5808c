"""Hardening a running host: who is trusted, what a look shows, what a change does, and how it is taken back."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from invoke.context import Context
from invoke.exceptions import Exit

import tasks
from pipeline import apply
from pipeline.apply import Host, Report, Verdict, choose_credential, find_host_keys, harden_host, parse_host
from pipeline.errors import GuestFailed, HostKeyMismatch, SpecInvalid, StepFailed
from pipeline.guest.keys import KeyPair, make_key_pair
from pipeline.guest.program import compile_program
from pipeline.guest.shell import AgentKeys, Shell
from pipeline.guest.step import Secret, Step
from pipeline.harden import harden_steps
from pipeline.stages.guests import load_own_key
from tests.guest.sshd import Sshd, running_sshd, write_private
from tests.harden import samples
from tests.harden.samples import DEBIAN, spec

real = (pytest.mark.loopback, pytest.mark.subprocess)


def marked(test: Any) -> Any:
    """Mark a test that talks to a real sshd on loopback."""
    for mark in real:
        test = mark(test)
    return test


@pytest.mark.parametrize(
    ("text", "host"),
    [
        ("admin@web.example", Host("admin", "web.example")),
        ("admin@192.0.2.7:2222", Host("admin", "192.0.2.7", 2222)),
        ("root@[2001:db8::7]:2222", Host("root", "2001:db8::7", 2222)),
        ("ec2-user@[2001:db8::7]", Host("ec2-user", "2001:db8::7")),
    ],
)
def test_a_host_is_read(text: str, host: Host) -> None:
    assert parse_host(text) == host


@pytest.mark.parametrize(
    "text", ["", "web.example", "@web", "admin@", "admin@web:0", "admin@web:65536", "admin@-oProxyCommand=x", "a@b c"]
)
def test_what_is_no_host_is_refused(text: str) -> None:
    with pytest.raises(SpecInvalid, match="is no host"):
        parse_host(text)


KEY, OTHER = (line.rsplit(" ", 1)[0] for line in (samples.KEY, samples.OTHER_KEY))
"""Always the same: the processes of a test run must agree on the names of the tests."""


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("line", "host"),
    [
        (f"web.example {KEY}", Host("a", "web.example")),
        (f"other,web.example,192.0.2.7 {KEY} comment", Host("a", "192.0.2.7")),
        (f"[web.example]:2222 {KEY}", Host("a", "web.example", 2222)),
        (f"*.example {KEY}", Host("a", "web.example")),
    ],
)
@pytest.mark.parametrize("hashed", [False, True], ids=["plain", "hashed"])
def test_a_known_host_has_its_keys(tmp_path: Path, line: str, host: Host, hashed: bool) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(f"# mine\nunrelated {OTHER}\n{line}\n")
    if hashed:
        subprocess.run(["ssh-keygen", "-H", "-f", str(file)], check=True, capture_output=True)
    assert find_host_keys(host, "", [tmp_path / "none", file]) == (KEY,)


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "is not known, and none is accepted on first use"),
        (f"other {KEY}", "is not known"),
        (f"web {KEY}", "is not known"),  # another port
        (f"[web]:2222 {KEY}\n@revoked [web]:2222 {KEY}", "is revoked"),
        (f"@cert-authority [web]:2222 {KEY}", "is not known"),
        ("[web]:2222 ssh-ed25519 AAAA", "is not known"),
    ],
)
def test_a_host_without_a_known_key_is_refused(tmp_path: Path, text: str, reason: str) -> None:
    file = tmp_path / "known_hosts"
    file.write_text(text + "\n")
    with pytest.raises(HostKeyMismatch, match=reason):
        find_host_keys(Host("a", "web", 2222), "", [file])


def test_a_host_key_can_be_given_and_must_be_one() -> None:
    assert find_host_keys(Host("a", "web"), f"{KEY} root@web", []) == (KEY,)
    with pytest.raises(SpecInvalid, match="--host-key is no public key"):
        find_host_keys(Host("a", "web"), KEY[:-8], [])


def test_without_any_key_there_is_nothing_to_try(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    with pytest.raises(SpecInvalid, match="no key to log in with"):
        choose_credential("", lambda: "")


def test_root_is_not_shut_out_by_its_own_login() -> None:
    strict, loose = spec(), spec(harden={"sshd": {"permit_root_login": "prohibit-password"}})
    with pytest.raises(SpecInvalid, match="would shut you out"):
        apply.for_running_host(strict, Host("root", "web"), dry_run=False)
    assert apply.for_running_host(strict, Host("root", "web"), dry_run=True).ssh.user == "root"
    assert apply.for_running_host(loose, Host("root", "web"), dry_run=False).ssh.user == "root"


def test_the_one_who_logs_in_is_let_in_and_keeps_their_keys() -> None:
    changed = apply.for_running_host(spec(), Host("operator", "web", 2222), dry_run=False, remove_users=True)
    steps = "\n".join(str(step.action) for step in harden_steps(DEBIAN, changed))
    assert (changed.ssh.user, changed.ssh.port) == ("operator", 2222)
    assert "AllowUsers operator" in steps
    assert "kept='john sally operator admin'" in steps


@pytest.mark.parametrize(
    ("asked", "in_spec", "removed"), [(False, True, False), (True, True, True), (True, False, False)]
)
def test_other_users_are_removed_on_demand_only(asked: bool, in_spec: bool, removed: bool) -> None:
    wanted = spec(harden={"remove_other_users": in_spec})
    changed = apply.for_running_host(wanted, Host("operator", "web"), dry_run=False, remove_users=asked)
    titles = [step.title for step in harden_steps(DEBIAN, changed)]
    assert ("remove login users that the spec does not name" in titles) is removed


@pytest.mark.parametrize(("stdout", "stderr"), [("", "sudo: a password is required\n"), ("1000\n", "")])
def test_a_user_who_is_not_root_is_refused(stdout: str, stderr: str) -> None:
    shell = SimpleNamespace(run=lambda command: SimpleNamespace(stdout=stdout, stderr=stderr))
    with pytest.raises(GuestFailed, match="operator cannot become root"):
        apply.require_root(cast(Shell, shell), Host("operator", "web"))


class World:
    """A real sshd, steps that write below a folder of the test's own, and the files that they wrote."""

    def __init__(self, sshd: Sshd, folder: Path) -> None:
        self.sshd, self.folder = sshd, folder
        self.host = Host(sshd.user, "127.0.0.1", sshd.port)

    def step(self, name: str, *, tested: bool = True, **more: Any) -> Step:
        test = f'[ -e {self.folder}/{name} ] || {{ echo "{name} is missing"; exit 1; }}'
        action = more.pop("action", f"touch {self.folder}/{name}")
        return Step("sample", ("H01",), f"step {name}", action, test if tested else None, **more)

    def run(self, *, credential: KeyPair | AgentKeys | None = None, **options: Any) -> Report:
        loose = spec(harden={"sshd": {"permit_root_login": "prohibit-password"}})
        return harden_host(loose, self.host, credential or self.sshd.key, self.sshd.host_keys, **options)

    @property
    def files(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    (folder := tmp_path / "changed").mkdir()
    with running_sshd(tmp_path) as sshd:
        made = World(sshd, folder)
        monkeypatch.setattr(apply, "compile_program", lambda steps: compile_program(steps, str(tmp_path / "state")))
        monkeypatch.setattr(apply, "rollback_command", lambda: f"touch {folder}/rolled-back")
        monkeypatch.setattr(apply, "commit_command", lambda: f"touch {folder}/committed")
        monkeypatch.setattr(apply, "require_root", lambda shell, host: None)
        # The real steps would harden the machine that runs the tests: each test plans steps of its own.
        monkeypatch.setattr(apply, "harden_steps", lambda facts, spec: pytest.fail("no steps are planned"))
        yield made


def plan(monkeypatch: pytest.MonkeyPatch, *steps: Step) -> None:
    monkeypatch.setattr(apply, "harden_steps", lambda facts, spec: steps)


@marked
def test_a_dry_run_changes_nothing_and_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.folder / "here").touch()
    plan(monkeypatch, world.step("untested", tested=False), world.step("here"), world.step("gone"))
    report = world.run()
    assert world.files == {"here"}
    assert [line.verdict for line in report.lines] == [Verdict.NOT_KNOWN, Verdict.IN_ORDER, Verdict.WOULD_CHANGE]
    assert report.as_rows()[2] == ("would change", "sample", "step gone", "H01", "gone is missing")
    assert report.summary == f"{world.host}: 1 in order, 1 would change, 1 not known"
    assert report.exit_status == 31


@marked
def test_a_host_that_is_in_order_is_no_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.folder / "here").touch()
    plan(monkeypatch, world.step("here"))
    assert world.run().exit_status == 0


@marked
def test_the_changes_are_made_and_a_second_login_proved(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    (world.folder / "here").touch()
    plan(monkeypatch, world.step("here"), world.step("gone"))
    seen: list[tuple[str, int, int]] = []
    report = world.run(dry_run=False, progress=lambda title, done, total: seen.append((title, done, total)))
    assert [line.verdict for line in report.lines] == [Verdict.IN_ORDER, Verdict.CHANGED]
    assert (report.exit_status, report.problem) == (0, None)
    assert world.files == {"here", "gone", "committed"}
    assert seen == [("step here", 1, 2), ("step gone", 2, 2)]


@marked
def test_a_step_that_fails_ends_it_and_the_report_is_whole(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    secret = Secret("swordfish")
    broken = world.step("broken", action=("echo ", secret, "; echo no room; exit 4"))
    plan(monkeypatch, world.step("one"), broken, world.step("three"))
    report = world.run(dry_run=False)
    document = json.loads(report.as_json())
    assert [line["verdict"] for line in document["steps"]] == ["changed", "failed", "skipped"]
    assert (document["exit_status"], document["dry_run"]) == (30, False)
    assert document["error"].startswith("harden/sample: step broken: no room")
    assert "swordfish" not in report.as_json()
    assert world.files == {"one", "committed"}


@marked
def test_an_optional_step_that_fails_is_shown_and_no_problem(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(monkeypatch, world.step("maybe", action="exit 1", optional=True), world.step("two"))
    report = world.run(dry_run=False)
    assert [line.verdict for line in report.lines] == [Verdict.FAILED, Verdict.CHANGED]
    assert report.exit_status == 0


@marked
def test_sshd_is_put_back_when_the_second_login_is_refused(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    plan(monkeypatch, world.step("lock", action=f"touch {world.folder}/lock; : >{world.sshd.folder}/authorized_keys"))
    report = world.run(dry_run=False)
    assert isinstance(report.problem, StepFailed)
    assert "a second login is refused" in str(report.problem)
    assert "the guest is open again" in str(report.problem)
    assert [line.verdict for line in report.lines] == [Verdict.CHANGED]
    assert world.files == {"lock", "rolled-back"}


@marked
def test_the_keys_of_an_agent_log_in(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    command = ["ssh-agent", "-D", "-a", str(tmp_path / "agent")]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as agent:
        assert agent.stdout
        agent.stdout.readline()  # it listens before it says where
        environment = {**os.environ, "SSH_AUTH_SOCK": str(tmp_path / "agent")}
        for name, key in (("strange", make_key_pair("strange")), ("right", world.sshd.key)):
            write_private(tmp_path / name, key.private_openssh.reveal)
            subprocess.run(["ssh-add", "-q", str(tmp_path / name)], check=True, env=environment)
        monkeypatch.setenv("SSH_AUTH_SOCK", str(tmp_path / "agent"))
        plan(monkeypatch, world.step("one"))
        assert world.run(credential=choose_credential("", lambda: ""), dry_run=False).exit_status == 0
        only = own_key_of(tmp_path, world.sshd.key)
        assert (only.private_openssh, world.run(credential=only).exit_status) == (None, 0)
        with pytest.raises(SpecInvalid, match="does not hold the private half"):
            own_key_of(tmp_path, make_key_pair("not added"))
        agent.terminate()
    assert world.files == {"one", "committed"}


def own_key_of(folder: Path, key: KeyPair) -> KeyPair:
    """Return a key as a build takes it from the public half in a file (H26)."""
    (folder / "own.pub").write_text(key.public_openssh)
    return load_own_key(str(folder / "own.pub"))


@marked
@pytest.mark.parametrize(("options", "status", "made"), [({}, 31, set()), ({"yes": True}, 0, {"gone", "committed"})])
def test_the_command_shows_a_table_and_exits_by_the_result(
    world: World,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
    options: dict[str, bool],
    status: int,
    made: set[str],
) -> None:
    """In this process, with steps that write below the test's own folder: never the real ones on this machine."""
    plan(monkeypatch, world.step("gone"))
    monkeypatch.setattr(apply, "for_running_host", lambda spec, host, **_: spec)
    write_private(tmp_path / "key", world.sshd.key.private_openssh.reveal)
    with pytest.raises(Exit) as ended:
        tasks.harden.body(
            Context(), str(world.host), key=str(tmp_path / "key"), host_key=world.sshd.host_keys[0], **options
        )
        raise Exit(code=0)
    assert ended.value.code == status
    assert world.files == made
    assert f"{'changed' if made else 'would change'}  sample  step gone  H01" in capsys.readouterr().out
