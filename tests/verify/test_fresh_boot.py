from threading import Barrier

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import GuestUnreachable
from pipeline.report.evidence import Status
from pipeline.verify.fresh_boot import LOGINS_AT_ONCE, clean_console, plan_logins, prove_console, prove_logins
from tests.verify.specs import make_spec

GOOD = (
    "\x1b[0;1;32m  OK  \x1b[0m] Started ssh.\r\n256 SHA256:"
    + "a" * 43
    + " root@x (ED25519)\r\n[  OK  ] Reached target\r\n"
)


def statuses(console):
    return {result.source.partition("[")[2].rstrip("]"): result.status for result in prove_console(console)}


def test_a_good_console_passes():
    assert set(statuses(GOOD).values()) == {Status.PASS}


@pytest.mark.parametrize(
    ("line", "what"),
    [
        ("[\x1b[0;1;31mFAILED\x1b[0m] Failed to start \x1b[0;1;39mweb.service\x1b[0m - Web.", "failed_units"),
        ("[FAILED] Failed to mount boot.mount", "failed_units"),
        ("[DEPEND] Dependency failed for remote-fs.target", "failed_units"),
        ("[    1.2] Kernel panic - not syncing: VFS", "trouble"),
        ("You are in emergency mode. After logging in", "trouble"),
        ("Traceback (most recent call last):", "trouble"),
    ],
)
def test_a_bad_line_fails_one_result(line, what):
    expected = {"failed_units": Status.PASS, "trouble": Status.PASS, "host_keys": Status.PASS} | {what: Status.FAIL}
    assert statuses(GOOD + line + "\r\n") == expected


def test_the_reason_names_the_unit():
    failed = prove_console(GOOD + "[FAILED] Failed to start \x1b[1mweb.service\x1b[0m.\n")[0]
    assert failed.detail == "Failed to start web.service."


def test_a_console_without_host_keys_fails():
    assert statuses("[  OK  ] Started ssh.\n")["host_keys"] is Status.FAIL


def test_an_empty_console_proves_nothing():
    assert set(statuses(" \n").values()) == {Status.UNREACHABLE}


@given(st.text())
def test_a_console_is_never_too_much(text):
    assert not set(clean_console(text)) & set("\x1b\x00\x07")
    prove_console(text)


@pytest.fixture
def logins():
    return plan_logins(make_spec(users=("ada",), launch_user="admin"), "old", "new")


def test_the_welcome_come_first(logins):
    assert [login.welcome for login in logins] == [True] + [False] * (len(logins) - 1)


def test_everybody_is_tried_with_the_old_key(logins):
    assert {login.user for login in logins if login.key == "old"} == {"root", "admin", "ada"}
    assert {login.user for login in logins if login.key == "new"} == {"root", "admin", "ada"}


def test_a_good_image_passes(logins):
    results = prove_logins(logins, lambda user, key: (user, key) == ("admin", "new"))
    assert {result.status for result in results} == {Status.PASS}


def test_strangers_try_at_the_same_time_and_after_the_welcome(logins):
    strangers = [login for login in logins if not login.welcome]
    together = Barrier(min(len(strangers), LOGINS_AT_ONCE), timeout=30)
    seen = []

    def try_it(user, key):
        seen.append((user, key))
        if (user, key) == ("admin", "new"):
            return True
        if len(seen) <= 1 + together.parties:
            together.wait()
        return False

    results = prove_logins(logins, try_it)
    assert seen[0] == ("admin", "new")
    assert [result.title for result in results] == [
        f"{login.key_name} {'opens' if login.welcome else 'does not open'} the account {login.user}" for login in logins
    ]


def test_an_old_key_that_opens_fails(logins):
    results = prove_logins(logins, lambda user, key: (user, key) in (("admin", "new"), ("ada", "old")))
    assert [result.title for result in results if result.status is Status.FAIL] == [
        "the build's key does not open the account ada"
    ]


def test_a_new_key_that_does_not_open_fails(logins):
    assert prove_logins(logins, lambda user, key: False)[0].status is Status.FAIL


def test_who_cannot_be_asked_is_unreachable(logins):
    def lost(user, key):
        raise GuestUnreachable("no banner", resource="i-1")

    assert {result.status for result in prove_logins(logins, lost)} == {Status.UNREACHABLE}


def test_an_image_of_somebody_else_has_no_old_key():
    logins = plan_logins(make_spec(users=("ada",), launch_user="admin"), None, "new")
    assert {login.key for login in logins} == {"new"}
