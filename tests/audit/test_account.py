"""What the audit says of an account, for each thing that can be wrong with it."""

from datetime import UTC, datetime, timedelta

import pytest

from pipeline.audit import account, findings
from pipeline.audit.findings import Verdict, as_json, as_table, judge, require_sound
from pipeline.aws.alarms import BillingAlarm
from pipeline.aws.identities import AccessKey, PasswordPolicy, User
from pipeline.aws.region_settings import AllowedImages
from pipeline.errors import AuditFailed, AuditIncomplete, CloudFailed

NOW = datetime(2025, 6, 1, tzinfo=UTC)
YOUNG, OLD = NOW - timedelta(days=10), NOW - timedelta(days=100)
SOUND = {
    "summary": {"AccountMFAEnabled": 1, "AccountAccessKeysPresent": 0, "AccountSigningCertificatesPresent": 0},
    "users": (User("ana", password=True, mfa=True, keys=(AccessKey(1, YOUNG, YOUNG),), certificates=1),),
    "launchers": frozenset({"ana"}),
    "policy": PasswordPolicy(14, (), True, 90),
    "aliases": ("example",),
    "alarms": (BillingAlarm("bill", True, 50.0, 1),),
}
SOUND_REGION = {
    "zones": {"eu-central-1a": "available"},
    "encryption": True,
    "image block": "block-new-sharing",
    "snapshot block": "block-all-sharing",
    "allowed images": AllowedImages("enabled", (frozenset({"amazon"}),)),
}


def failures(**changes):
    lines = judge(account.account_checks(NOW), SOUND | changes, "global")
    return [(line.control, line.subject) for line in lines if line.verdict is Verdict.FAIL]


def region_failures(changes, shares_publicly=False):
    lines = judge(account.region_checks(shares_publicly), SOUND_REGION | changes, "eu-central-1")
    return [line.control for line in lines if line.verdict is Verdict.FAIL]


def user(name="bob", **about):
    return User(name, **({"password": True, "mfa": False} | about))


def test_a_sound_account_has_no_failure():
    assert failures() == []
    assert region_failures({}) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"summary": {**SOUND["summary"], "AccountMFAEnabled": 0}}, [("A15", "root")]),
        ({"summary": {**SOUND["summary"], "AccountAccessKeysPresent": 1}}, [("A15", "root")]),
        ({"summary": {**SOUND["summary"], "AccountSigningCertificatesPresent": 1}}, [("A18", "root")]),
        ({"users": (user(),), "launchers": frozenset({"bob"})}, [("A16", "bob")]),
        ({"users": (user(),), "launchers": frozenset()}, []),
        ({"users": (user(password=False),), "launchers": frozenset({"bob"})}, []),
        ({"users": (user(keys=(AccessKey(2, YOUNG, None),)),)}, []),
        ({"users": (user(keys=(AccessKey(2, OLD, YOUNG),)),)}, [("A18", "bob key 2")]),
        ({"users": (user(keys=(AccessKey(2, OLD, None),)),)}, [("A18", "bob key 2")] * 2),
        ({"users": (user(keys=(AccessKey(1, None, None),)),)}, [("A18", "bob key 1")] * 2),
        ({"users": (user(certificates=2),)}, [("A18", "bob")]),
        ({"policy": None}, [("A17", "")]),
        ({"policy": PasswordPolicy(13, (), True, 90)}, [("A17", "")]),
        ({"policy": PasswordPolicy(10, ("symbols",), False, None)}, [("A17", "")] * 4),
        ({"aliases": ()}, [("A18", "")]),
        ({"alarms": ()}, [("A19", "")]),
        ({"alarms": (BillingAlarm("bill", True, 50.0, 0),)}, [("A19", "bill")]),
        ({"alarms": (BillingAlarm("bill", False, 50.0, 1),)}, [("A19", "bill")]),
        ({"alarms": (BillingAlarm("old", True, 1.0, 0), BillingAlarm("bill", True, 50.0, 1))}, []),
    ],
)
def test_what_is_unsound_fails(changes, expected):
    assert failures(**changes) == expected


@pytest.mark.parametrize(
    ("changes", "shares_publicly", "expected"),
    [
        ({"encryption": False}, False, ["A09"]),
        ({"image block": "unblocked"}, False, ["A10"]),
        ({"image block": "unblocked"}, True, []),
        ({}, True, ["A10"]),
        ({"image block": ""}, False, ["A10"]),
        ({"snapshot block": "unblocked"}, True, ["A09", "A10"]),
        ({"allowed images": AllowedImages("audit-mode", (frozenset({"amazon"}),))}, False, ["A01"]),
        ({"allowed images": AllowedImages("enabled", (frozenset(),))}, False, ["A01"]),
        ({"zones": {}}, False, ["A20"]),
        ({"zones": {"a": "available", "b": "impaired"}}, False, ["A20"]),
    ],
)
def test_what_a_region_allows_too_much_fails(changes, shares_publicly, expected):
    assert sorted(region_failures(changes, shares_publicly)) == expected


def denied(code):
    error = CloudFailed(code)
    error.__cause__ = type("Refused", (Exception,), {"response": {"Error": {"Code": code}}})()
    return error


@pytest.mark.parametrize(
    ("code", "verdict"),
    [
        ("AccessDenied", Verdict.UNKNOWN),
        ("UnauthorizedOperation", Verdict.UNKNOWN),
        ("InternalError", Verdict.UNREACHABLE),
    ],
)
def test_what_cannot_be_read_never_passes(code, verdict):
    facts = dict.fromkeys(SOUND, denied(code))
    lines = list(judge(account.account_checks(NOW), facts, "global"))
    assert {line.verdict for line in lines} == {verdict}
    with pytest.raises(AuditIncomplete):
        require_sound(lines)


def test_a_failure_decides_over_what_is_not_known():
    facts = SOUND | {"policy": None, "aliases": denied("AccessDenied")}
    with pytest.raises(AuditFailed):
        require_sound(judge(account.account_checks(NOW), facts, "global"))


def test_every_line_has_a_control_and_a_source_in_both_forms():
    lines = list(judge(account.account_checks(NOW), SOUND | {"aliases": ()}, "global"))
    assert all(line.source for line in lines)
    assert '"verdict": "fail"' in as_json(lines)
    table = list(as_table(lines))
    assert len(table) == len(lines) + 1
    assert any(row.startswith("fail") and "A18" in row and "iam:ListAccountAliases" in row for row in table)


def test_a_name_from_the_cloud_cannot_write_on_the_terminal():
    check = findings.Check("A18", "title", "call", ("aliases",), lambda _: [findings.Bad("\x1b[2Jbob", "")])
    (line,) = judge([check], SOUND, "global")
    assert "\x1b" not in line.subject
