"""Hardening as a table: facts and options in, steps out."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.guest.step import Step
from pipeline.harden import harden_steps, sshd, updates, users
from pipeline.harden.managed_file import ManagedFile, written_files
from pipeline.spec import SshdOptions, UpdatesOptions
from tests.harden.samples import AMAZON, DEBIAN, KEY, spec, text_of


def drop_in(version: tuple[int, int], **options: object) -> str:
    facts = replace(DEBIAN, sshd_version=version)
    (configure, *_) = sshd.steps(facts, spec(), SshdOptions.model_validate(options))
    assert isinstance(configure.action, str)
    return configure.action.split("content='")[1].split("\n'\n")[0]


def test_every_step_names_its_controls() -> None:
    steps = harden_steps(DEBIAN, spec())
    assert all(step.controls and step.title for step in steps)
    served = {control for step in steps for control in step.controls}
    assert served >= {f"H{number:02}" for number in (*range(1, 17), 24, 25)}


@pytest.mark.parametrize(
    ("version", "present", "absent"),
    [
        (
            (7, 3),
            ["\nProtocol 2", "\nUsePrivilegeSeparation yes", "\nChallengeResponseAuthentication no"],
            ["\nRequiredRSASize"],
        ),
        (
            (8, 5),
            ["# Protocol: not applicable, unknown since OpenSSH 7.6", "sntrup761x25519-sha512@openssh.com"],
            ["mlkem"],
        ),
        (
            (9, 2),
            ["\nKbdInteractiveAuthentication no", "\nRequiredRSASize 2048"],
            ["\nChallengeResponse", "\nProtocol"],
        ),
        ((9, 9), ["KexAlgorithms mlkem768x25519-sha256,sntrup761x25519-sha512,"], []),
    ],
)
def test_the_template_is_what_this_sshd_knows(version: tuple[int, int], present: list[str], absent: list[str]) -> None:
    text = drop_in(version)
    assert [part for part in present if part not in text] == []
    assert [part for part in absent if part in text] == []


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({}, "PermitRootLogin no"),
        ({"permit_root_login": "prohibit-password"}, "PermitRootLogin prohibit-password"),
        ({"permit_root_login": "prohibit-password"}, "AllowUsers root"),
        ({}, "UseDNS no"),
        ({"use_dns": True}, "UseDNS yes"),
        ({"port": 2222}, "Port 2222"),
        ({"max_auth_tries": 2}, "MaxAuthTries 2"),
        ({"login_grace_seconds": 60}, "LoginGraceTime 60"),
        ({"allow_tcp_forwarding": True}, "AllowTcpForwarding yes"),
        ({}, "AllowUsers john"),
        ({}, "AllowUsers admin"),
    ],
)
def test_an_option_is_a_line(options: dict[str, object], line: str) -> None:
    assert line in drop_in((9, 2), **options).splitlines()


def test_root_is_not_let_in_by_default() -> None:
    assert "AllowUsers root" not in drop_in((9, 2))


def test_the_builds_user_has_a_file_of_its_own() -> None:
    own, other = spec(), spec(ssh={"user": "builder"})
    assert sshd.BUILD_DROP_IN not in text_of([sshd.configure(DEBIAN, own, SshdOptions())])[:4000]
    assert "AllowUsers builder" in text_of([sshd.configure(DEBIAN, other, SshdOptions())])
    assert sshd.login_users(other) == ("john", "sally", "admin")


def test_subjects_can_be_left_out() -> None:
    steps = harden_steps(
        DEBIAN,
        spec(
            harden={
                "sshd": None,
                "updates": None,
                "remove_other_users": False,
                "clock": None,
                "kernel": None,
                "login": None,
                "first_boot": False,
            }
        ),
    )
    assert {step.subject for step in steps} == {"users"}
    assert not any("does not name" in step.title for step in steps)


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        (
            {},
            ["disable_root: true", "name: admin", "chpasswd", "time zone Etc/UTC", "install dccp /bin/false"],
            ["users: []"],
        ),
        ({"image": {"launch_user": None}}, ["users: []"], ["name: admin"]),
        ({"harden": {"clock": {"timezone": "Europe/Berlin"}}}, ["zone=Europe/Berlin"], ["Etc/UTC"]),
        (
            {"harden": {"kernel": {"deny_modules": False}}},
            ["-kernel.yama.ptrace_scope = 1", "\nkernel.kptr_restrict = 2"],
            ["/bin/false"],
        ),
    ],
)
def test_first_boot_clock_and_kernel(changes: dict[str, Any], present: list[str], absent: list[str]) -> None:
    steps = harden_steps(DEBIAN, spec(**changes))
    text = text_of(steps) + "\n".join(step.title for step in steps)
    assert [part for part in present if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_without_cloud_init_nothing_is_said_to_it() -> None:
    assert "cloud.cfg.d" not in text_of(harden_steps(replace(DEBIAN, cloud_init=None), spec()))


def test_users_of_the_spec_have_account_keys_and_sudo() -> None:
    titles = [step.title for step in harden_steps(DEBIAN, spec()) if step.subject == "users"]
    assert titles[:5] == [
        "account john (John O'Neil)",
        "1 public key of john",
        "sudo for john: on call (decided by the CTO)",
        "account sally (Sally Doe)",
        "1 public key of sally",
    ]
    text = text_of(harden_steps(DEBIAN, spec()))
    assert "# who: the CTO\n# why: on call\njohn ALL=(ALL:ALL) NOPASSWD: ALL" in text
    assert KEY in text


def test_a_grant_of_sudo_may_end() -> None:
    sudo = {"who": "the CTO", "why": "on call", "until": "2099-12-31", "password": True, "commands": "/bin/ls"}
    text = text_of(harden_steps(DEBIAN, spec(users=[{"name": "ada", "full_name": "Ada", "keys": [KEY], "sudo": sudo}])))
    assert "ada ALL=(ALL:ALL) NOTAFTER=20991231235959Z /bin/ls\n" in text


@pytest.mark.parametrize(
    ("facts", "options", "present", "absent"),
    [
        (DEBIAN, {}, ["--with-new-pkgs upgrade", "unattended-upgrades"], ["assay-security-sources"]),
        (DEBIAN, {"at_build": "security"}, ["assay-security-sources", "Error-Mode=any"], ["dnf"]),
        (DEBIAN, {"at_build": "none"}, ["unattended-upgrades"], ["-pkgs upgrade"]),
        (DEBIAN, {"periodic": False}, ["upgrade"], ["52assay-updates"]),
        (AMAZON, {"at_build": "security"}, ["dnf -y -q --refresh upgrade --security", "dnf-automatic"], ["apt-get"]),
    ],
)
def test_updates(facts: object, options: dict[str, object], present: list[str], absent: list[str]) -> None:
    text = text_of(updates.steps(facts, UpdatesOptions.model_validate(options)))  # type: ignore[arg-type]
    assert [part for part in present if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_a_managed_file_is_quoted_and_never_half_written() -> None:
    file = ManagedFile("/etc/a b", "it's $HOME\n", "600")
    assert "content='it'\"'\"'s $HOME\n'" in file.test
    assert 'mv -f "$new" "$file"' in file.action


def test_what_steps_write_is_read_back_from_them() -> None:
    files = list(written_files(harden_steps(DEBIAN, spec())))
    assert users.SUDO_AUDIT in files
    assert "/etc/systemd/system/assay-root-password.service" in {file.path for file in files}


@given(st.text(alphabet=st.characters(exclude_characters="\0", exclude_categories=["Cs"])))
def test_a_written_file_is_read_back_whatever_it_holds(content: str) -> None:
    file = ManagedFile("/etc/a file", content, "440")
    assert list(written_files([Step("users", ("H10",), "write", f"true\n{file.action}true\n")])) == [file]
