import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.evidence import Status
from pipeline.verify.fresh_boot import clean_console, prove_console

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


def test_a_later_boot_shows_no_host_keys():
    assert [result.status for result in prove_console("[  OK  ] Started ssh.\n", first=False)] == [Status.PASS] * 2


def test_an_empty_console_proves_nothing():
    assert set(statuses(" \n").values()) == {Status.UNREACHABLE}


@given(st.text())
def test_a_console_is_never_too_much(text):
    assert not set(clean_console(text)) & set("\x1b\x00\x07")
    prove_console(text)
