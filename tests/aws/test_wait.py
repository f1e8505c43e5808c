import pytest
from botocore.exceptions import ClientError

from pipeline.aws.session import cloud_errors, error_code
from pipeline.aws.wait import LONGEST_SECONDS, pause_seconds, wait_until
from pipeline.errors import CloudFailed, DeadlinePassed


def answers(*script):
    """Return a describe that gives each answer in turn, the last one for ever; a code is raised as a refusal."""
    remaining = list(script)

    def describe():
        answer = remaining.pop(0) if len(remaining) > 1 else remaining[0]
        if not answer.startswith("!"):
            return answer
        with cloud_errors("i-1", "eu-central-1"):
            raise ClientError({"Error": {"Code": answer[1:], "Message": "no"}}, "Describe")

    return describe


def wait(fake_clock, describe, **options):
    settings = {"what": "i-1", "region": "eu-central-1", "deadline_seconds": 100.0, "clock": fake_clock.as_clock()}
    return wait_until(describe, lambda answer: answer == "running", **(settings | options))


def test_one_sighting_is_not_enough(fake_clock):
    seen = []
    described = answers("running", "pending", "running", "running")
    wait(fake_clock, described, progress=seen.append)
    assert seen == ["running", "pending", "running"]
    assert len(fake_clock.rests) == 3, "the first sighting does not count once it was contradicted"


def test_each_state_is_told_once(fake_clock):
    seen = []
    wait(fake_clock, answers("pending", "pending", "pending", "running"), progress=seen.append)
    assert seen == ["pending", "running"]


def test_a_deadline_names_the_resource_and_the_last_state(fake_clock):
    with pytest.raises(DeadlinePassed, match=r"100 s; last seen: pending \(i-1 in eu-central-1\)"):
        wait(fake_clock, answers("pending"))
    assert fake_clock.seconds == pytest.approx(100)


def test_a_deadline_is_caused_by_what_was_met_last(fake_clock):
    with pytest.raises(DeadlinePassed) as refused:
        wait(fake_clock, answers("pending", "!Throttling"))
    assert error_code(refused.value) == "Throttling"
    with pytest.raises(DeadlinePassed) as pending:
        wait(fake_clock, answers("!Throttling", "pending"))
    assert error_code(pending.value) == ""


def test_a_failed_state_ends_the_wait_at_once(fake_clock):
    with pytest.raises(CloudFailed, match="the volume is gone"):
        wait(fake_clock, answers("dead"), failed=lambda answer: "the volume is gone" if answer == "dead" else None)
    assert fake_clock.rests == []


def test_a_new_thing_may_be_unseen_at_first(fake_clock):
    described = answers("!InvalidInstanceID.NotFound", "running")
    assert wait(fake_clock, described, missing_codes={"InvalidInstanceID.NotFound"}) == "running"


def test_a_refusal_is_not_waited_out(fake_clock):
    with pytest.raises(CloudFailed, match="UnauthorizedOperation"):
        wait(fake_clock, answers("!UnauthorizedOperation", "running"))


def test_throttling_is_waited_out_with_longer_pauses(fake_clock):
    wait(fake_clock, answers("!Throttling", "!Throttling", "!Throttling", "running"))
    first, second, third, *_ = fake_clock.rests
    assert first < second < third


def test_pauses_grow_with_the_wait_and_have_an_end():
    pauses = [pause_seconds(elapsed, 0, confirming=False) for elapsed in (0, 6, 60, 600)]
    assert pauses == sorted(pauses) and pauses[0] < 1 and pauses[-1] == LONGEST_SECONDS
    assert pause_seconds(30, 0, confirming=False, patience=30) == 1
    assert pause_seconds(600, 0, confirming=True) < 1
