import pytest
from botocore.exceptions import ClientError, ReadTimeoutError

from pipeline.aws.creation import ATTEMPTS, find_or_create
from pipeline.aws.session import cloud_errors
from pipeline.errors import CloudFailed

LOST = ReadTimeoutError(endpoint_url="https://x")
TAKEN = ClientError({"Error": {"Code": "InvalidGroup.Duplicate", "Message": "taken"}}, "CreateSecurityGroup")
THROTTLED = ClientError({"Error": {"Code": "RequestLimitExceeded"}, "ResponseMetadata": {"HTTPStatusCode": 503}}, "x")
REFUSED = ClientError({"Error": {"Code": "InvalidParameterValue", "Message": "no"}}, "CreateSecurityGroup")


class Cloud:
    """Makes things; each attempt may lose its answer, before or after the thing was made."""

    def __init__(self, *script):
        self.script = list(script)
        self.things = []

    def create(self):
        made, error = self.script.pop(0)
        if made:
            self.things.append(f"sg-{len(self.things) + 1}")
        with cloud_errors("group", "eu-central-1"):
            if error:
                raise error
        return self.things[-1]


def run(cloud, fake_clock, look_up=None):
    return find_or_create(
        look_up or (lambda: cloud.things),
        cloud.create,
        what="group",
        region="eu-central-1",
        taken_codes={"InvalidGroup.Duplicate"},
        clock=fake_clock.as_clock(),
    )


@pytest.mark.parametrize(
    "script",
    [
        [(True, None)],
        [(True, LOST)],
        [(False, LOST), (True, None)],
        [(False, LOST), (True, LOST)],
    ],
)
def test_a_lost_answer_makes_one_thing(script, fake_clock):
    cloud = Cloud(*script)
    assert run(cloud, fake_clock) == "sg-1"
    assert cloud.things == ["sg-1"]


def test_a_taken_name_is_the_thing_whose_answer_was_lost(fake_clock):
    cloud = Cloud((False, TAKEN))
    cloud.things = ["sg-7"]
    assert run(cloud, fake_clock) == "sg-7"


def test_a_name_that_somebody_else_has_is_refused(fake_clock):
    with pytest.raises(CloudFailed, match=r"InvalidGroup\.Duplicate"):
        run(Cloud((False, TAKEN)), fake_clock)


def test_a_refusal_is_not_repeated(fake_clock):
    cloud = Cloud((False, REFUSED), (True, None))
    with pytest.raises(CloudFailed, match="InvalidParameterValue"):
        run(cloud, fake_clock)
    assert cloud.things == []


def test_a_thing_that_is_seen_late_is_not_made_again(fake_clock):
    cloud = Cloud((True, LOST), (True, None))
    assert run(cloud, fake_clock, look_up=lambda: cloud.things if fake_clock.seconds >= 3 else []) == "sg-1"
    assert cloud.things == ["sg-1"]


def test_many_are_refused_by_name(fake_clock):
    cloud = Cloud((True, LOST))
    cloud.things = ["sg-0"]
    with pytest.raises(CloudFailed, match="sg-0, sg-2"):
        run(cloud, fake_clock)


def test_a_cloud_that_never_answers_is_given_up(fake_clock):
    with pytest.raises(CloudFailed, match="no answer"):
        run(Cloud(*[(False, LOST)] * ATTEMPTS), fake_clock)


def test_throttling_is_waited_out_without_looking(fake_clock):
    looks = []
    cloud = Cloud((False, THROTTLED), (False, THROTTLED), (True, None))
    assert run(cloud, fake_clock, look_up=lambda: looks.append(1) or []) == "sg-1"
    assert looks == [] and fake_clock.rests == sorted(fake_clock.rests) != []
