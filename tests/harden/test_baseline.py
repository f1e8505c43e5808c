"""Logins, mounts, audit trail and mandatory access control as tables: facts and options in, steps out."""

from dataclasses import replace
from typing import Any

import pytest

from pipeline.guest.facts import Facts
from pipeline.harden import audit, harden_steps, login, mandatory_access, mounts, permissions
from pipeline.spec import AuditOptions, LoginOptions, MountsOptions
from tests.harden.samples import AMAZON, DEBIAN, spec, text_of


@pytest.mark.parametrize(
    ("options", "present", "absent"),
    [
        ({}, ["UMASK 027", "HOME_MODE 0700", "\numask 027\n"], ["TMOUT"]),
        ({"umask": "077"}, ["UMASK 077", "\numask 077\n"], ["027"]),
        ({"idle_minutes": 15}, ["TMOUT=900\nreadonly TMOUT"], []),
    ],
)
def test_logins(options: dict[str, Any], present: list[str], absent: list[str]) -> None:
    text = text_of(login.steps(LoginOptions.model_validate(options)))
    assert [part for part in present if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_passwords_get_no_age() -> None:
    """PAM would shut out people who log in by key."""
    assert "PASS_MAX_DAYS" not in text_of(harden_steps(DEBIAN, spec()))


@pytest.mark.parametrize("place", ["/etc/crontab", "/etc/cron.d", "/etc/cron.yearly", "/etc/ssh/sshd_config.d"])
def test_permissions(place: str) -> None:
    assert place in text_of(permissions.steps())
    assert [step.subject for step in harden_steps(DEBIAN, spec(harden={"permissions": True}))].count("permissions") == 1


@pytest.mark.parametrize(
    ("facts", "options", "present", "absent"),
    [
        (
            DEBIAN,
            {},
            ["size=50%,nosuid,nodev,noexec", "/var/tmp /var/tmp none bind,nosuid,nodev,noexec", "TempDir"],
            [],
        ),
        (DEBIAN, {"noexec": False, "tmp_percent": 20}, ["size=20%,nosuid,nodev 0 0"], ["noexec", "TempDir"]),
        (AMAZON, {}, ["tmpfs /dev/shm tmpfs mode=1777,nosuid,nodev,noexec"], ["apt"]),
    ],
)
def test_mounts(facts: Facts, options: dict[str, Any], present: list[str], absent: list[str]) -> None:
    text = text_of(mounts.steps(facts, MountsOptions.model_validate(options)))
    assert [part for part in present if part not in text] == []
    assert [part for part in absent if part in text] == []


@pytest.mark.parametrize(
    ("facts", "options", "present", "absent"),
    [
        (DEBIAN, {}, ["arch=b32", "arch=b64", "\n-e 2\n", "-w /etc/shadow -p wa -k identity"], []),
        (DEBIAN, {"immutable": False}, ["arch=b64"], ["-e 2"]),
        (replace(DEBIAN, architecture="aarch64"), {}, ["arch=b64"], ["arch=b32"]),
    ],
)
def test_audit(facts: Facts, options: dict[str, Any], present: list[str], absent: list[str]) -> None:
    text = text_of(audit.steps(facts, AuditOptions.model_validate(options)))
    assert [part for part in present if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_each_family_has_its_own_access_control_and_packages() -> None:
    assert "apparmor" in text_of(mandatory_access.steps(DEBIAN)) and "selinux" in text_of(
        mandatory_access.steps(AMAZON)
    )
    wanted = spec(harden={"audit": {}, "mandatory_access": True})
    titles = {facts.family: [step.title for step in harden_steps(facts, wanted)] for facts in (DEBIAN, AMAZON)}
    assert "install apparmor auditd" in titles["debian"]
    assert "install audit selinux-policy-targeted" in titles["redhat"]


def test_what_costs_time_is_off_by_default() -> None:
    subjects = {step.subject for step in harden_steps(DEBIAN, spec())}
    off = {"packages", "audit", "mounts", "mandatory_access", "permissions", "firewall", "metadata"}
    assert subjects & off == set()
