"""Who may log in, as a table of what the guest lets in; sshd itself is asked in tests/guest/test_shell.py."""

from threading import Barrier, Lock

import pytest

from pipeline.errors import GuestUnreachable
from pipeline.guest.shell import Answer
from pipeline.report.evidence import Status
from pipeline.verify.logins import AT_ONCE, MOST_ACCOUNTS, Attempts, prove_logins

ACCOUNTS = ("root", "daemon", "games", "admin", "ada", "")
GOOD = {("admin", "new")}
ONLY_KEYS = frozenset({"publickey"})
BUILT, FOREIGN = Attempts("admin", "new", "old"), Attempts("admin", "new", None)


def guest(let_in, methods=ONLY_KEYS):
    """Return a guest that lets in these pairs of a user and a key, a password or None."""

    def try_all(user, keys, passwords):
        return Answer(tuple((user, one) in let_in for one in (*keys, *passwords)), methods)

    return try_all


def found(results):
    return {result.source.partition("[")[2].rstrip("]"): result.status for result in results}


def failing(results):
    return {name for name, status in found(results).items() if status is not Status.PASS}


def test_a_good_image_passes():
    results = prove_logins(BUILT, ACCOUNTS, guest(GOOD))
    assert failing(results) == set()
    assert {control for result in results for control in result.controls} == {
        *("H01", "H02", "H03", "H11", "H14", "H15", "S02", "V01")
    }


@pytest.mark.parametrize(
    ("user", "opens", "result"),
    [
        ("ada", "old", "build_key"),
        ("root", "old", "build_key"),
        ("admin", "old", "build_key"),
        ("root", "new", "root"),
        ("games", "new", "others"),
        ("games", None, "nothing"),
        ("games", "", "passwords"),
        ("ada", "ada", "passwords"),
        ("root", "toor", "passwords"),
    ],
)
def test_whatever_opens_an_account_fails_one_result_that_names_the_account(user, opens, result):
    results = prove_logins(BUILT, ACCOUNTS, guest({*GOOD, (user, opens)}))
    assert failing(results) == {result}
    assert [one.detail for one in results if one.status is Status.FAIL] == [user]


def test_an_account_that_is_asked_for_a_password_fails():
    assert failing(prove_logins(BUILT, ACCOUNTS, guest(GOOD, ONLY_KEYS | {"keyboard-interactive"}))) == {"methods"}


def test_a_launch_key_that_does_not_open_fails():
    assert failing(prove_logins(BUILT, ACCOUNTS, guest(set()))) == {"welcome"}


def test_an_image_of_somebody_else_has_no_old_key():
    assert found(prove_logins(FOREIGN, ACCOUNTS, guest({*GOOD, ("ada", "ada")})))["passwords"] is Status.FAIL
    assert "build_key" not in found(prove_logins(FOREIGN, ACCOUNTS, guest(GOOD)))


def test_every_account_is_tried_once_the_launch_user_first():
    tried = []

    def try_all(user, keys, passwords):
        tried.append((user, keys, passwords[:2]))
        return guest(GOOD)(user, keys, passwords)

    prove_logins(BUILT, ACCOUNTS, try_all)
    assert tried[0] == ("admin", (None, "new", "old"), ("", "admin"))
    assert sorted(user for user, *_ in tried) == ["ada", "admin", "daemon", "games", "root"]


def test_few_are_tried_side_by_side_and_sshd_forgives_after_each_few():
    together, lock, events = Barrier(AT_ONCE, timeout=30), Lock(), []

    def try_all(user, keys, passwords):
        together.wait()
        with lock:
            events.append("tried")
        return guest(GOOD)(user, keys, passwords)

    prove_logins(
        BUILT, [f"user{number}" for number in range(2 * AT_ONCE - 2)], try_all, lambda: events.append("forgave")
    )
    assert events == ["tried"] * AT_ONCE + ["forgave"] + ["tried"] * AT_ONCE + ["forgave"]


def test_who_cannot_be_asked_is_unreachable_and_named():
    def lost(user, keys, passwords):
        if user == "games":
            raise GuestUnreachable("no banner", resource="i-1")
        return guest(GOOD)(user, keys, passwords)

    results = prove_logins(BUILT, ACCOUNTS, lost)
    assert failing(results) == {"others", "build_key", "nothing", "methods", "passwords"}
    assert {result.status for result in results} == {Status.PASS, Status.UNREACHABLE}
    assert all("games: no banner" in result.detail for result in results if result.status is Status.UNREACHABLE)


def test_too_many_accounts_are_not_tried_to_the_end():
    results = prove_logins(BUILT, [f"user{number}" for number in range(MOST_ACCOUNTS + 5)], guest(GOOD))
    assert found(results)["passwords"] is Status.UNREACHABLE
    assert "more than 300" in results[-1].detail
