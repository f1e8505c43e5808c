"""What the command line says is refused with every mistake at once, and its remedy."""

import pytest

from pipeline.audit.network import Kind
from pipeline.aws import region_settings
from pipeline.aws.alarms import WantedAlarm
from pipeline.errors import SpecInvalid
from pipeline.options import choose_regions, fit_to_image, parse_alarm, parse_kinds, parse_ports, parse_tasks
from tests.verify.specs import make_spec


class Frankfurt:
    region = "eu-central-1"


@pytest.fixture(autouse=True)
def regions(monkeypatch):
    statuses = {"eu-central-1": "opt-in-not-required", "eu-south-1": "opted-in", "ap-east-1": "not-opted-in"}
    monkeypatch.setattr(region_settings, "read_regions", lambda _: statuses)


@pytest.mark.parametrize(
    ("text", "chosen"),
    [
        ("", ("eu-central-1",)),
        ("all", ("eu-central-1", "eu-south-1")),
        ("eu-south-1, eu-central-1,eu-south-1", ("eu-south-1", "eu-central-1")),
    ],
)
def test_regions_are_chosen_by_name(text, chosen):
    assert choose_regions(Frankfurt(), text) == chosen


def test_every_region_that_cannot_be_used_is_named():
    with pytest.raises(SpecInvalid) as raised:
        choose_regions(Frankfurt(), "eu-central-1,ap-east-1,mars-1")
    assert [problem.split(":")[0] for problem in raised.value.problems] == ["ap-east-1", "mars-1"]
    assert "eu-south-1" in raised.value.describe()


def test_ports_and_kinds_are_read():
    assert parse_ports("80, 443") == {80, 443}
    assert parse_ports("") == frozenset()
    assert parse_kinds("world,stale") == {Kind.WORLD, Kind.STALE}


@pytest.mark.parametrize(
    ("parse", "text", "wrong"),
    [
        (parse_ports, "80,0,http,65536", ("0", "http", "65536")),
        (parse_kinds, "world,all,wide", ("all",)),
        (parse_tasks, "build,fly", ("fly",)),
        (parse_tasks, "", ("nothing",)),
    ],
)
def test_all_mistakes_are_named_at_once(parse, text, wrong):
    with pytest.raises(SpecInvalid) as raised:
        parse(text)
    assert raised.value.problems == wrong


@pytest.mark.parametrize(
    ("address", "above", "problems"),
    [("ana", "much", 2), ("ana@example", "5", 1), ("ana@example.com", "-1", 1), ("ana@example.com", "inf", 1)],
)
def test_an_alarm_that_cannot_be_is_refused(address, above, problems):
    with pytest.raises(SpecInvalid) as raised:
        parse_alarm(address, above)
    assert len(raised.value.problems) == problems


def test_an_alarm_is_wanted_only_by_somebody():
    assert parse_alarm("", "100") is None
    assert parse_alarm("ana@example.com", "12.5") == WantedAlarm("ana@example.com", 12.5)


def test_an_image_of_somebody_else_has_another_user_and_region():
    fitted = fit_to_image(make_spec(), "ubuntu", "us-gov-west-1")
    assert (fitted.image.launch_user, fitted.ssh.user, fitted.region) == ("ubuntu", "ubuntu", "us-gov-west-1")
    assert fit_to_image(make_spec(), "", "") == make_spec()


def test_what_is_no_user_and_no_region_is_refused_at_once():
    with pytest.raises(SpecInvalid) as raised:
        fit_to_image(make_spec(), "Ubuntu User", "Frankfurt")
    assert [problem.split("=")[0] for problem in raised.value.problems] == ["--region", "--user"]


def test_a_user_of_the_spec_gets_no_launch_key():
    with pytest.raises(SpecInvalid, match="cannot be proved") as raised:
        fit_to_image(make_spec(users=("ada",)), "ada", "")
    assert "keys of their own" in raised.value.describe()
