"""What a sweep may take away, and what it must leave. The kill matrix asks the same of a real control plane."""

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline import journal as journal_module
from pipeline import sweep as sweep_module
from pipeline.aws.inventory import Possession
from pipeline.aws.tags import EXPIRES, NEVER, Tags, format_time, resource_name
from pipeline.errors import CloudFailed
from pipeline.journal import Journal, read_journal
from pipeline.process_identity import this_process
from pipeline.sweep import sweep_builds

NOW = datetime(2025, 2, 1, 12, tzinfo=UTC)
REGION = "eu-central-1"
CLOUD = "aws/111122223333"
BUILD = "20250131-235959-1a2b3c"
OTHER_BUILD = "20250201-110000-4d5e6f"


@dataclass
class Account:
    """Stands for the account: what is in it, by region, and what may not be removed."""

    region: str = REGION
    cloud: str = CLOUD
    things: list[Possession] = field(default_factory=list)
    stuck: set[str] = field(default_factory=set)
    silent: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def in_region(self, region):
        return replace(self, region=region)

    def list(self):
        if self.region in self.silent:
            raise CloudFailed("no answer", region=self.region)
        return tuple(one for one in self.things if one.region == self.region)

    def remove(self, kind, handle):
        self.asked.append(handle)
        if handle in self.stuck:
            raise CloudFailed("it is in use", resource=handle, region=self.region)
        gone = [one for one in self.things if one.kind == kind and handle in (one.identity, one.name)]
        for one in gone:
            self.things.remove(one)

    def holds(self):
        return {one.identity for one in self.things}


@pytest.fixture
def account(monkeypatch):
    monkeypatch.setattr(sweep_module, "list_possessions", lambda session: session.list())
    monkeypatch.setattr(sweep_module, "remove", lambda session, kind, handle: session.remove(kind, handle))
    monkeypatch.setattr(sweep_module, "start_to_terminate", lambda session, identity: None)
    return Account()


def thing(kind, identity, *, build=BUILD, expires=NOW - timedelta(hours=1), region=REGION, snapshots=()):
    tags = Tags(build, "sha256:00", "arn:aws:iam::111122223333:user/ana", NOW)
    named = tags.of(resource_name(build, identity))
    named[EXPIRES] = format_time(expires) if isinstance(expires, datetime) else expires
    return Possession(kind, identity, region, named, snapshots)


def write_journal(monkeypatch, builds, events, *, build=BUILD, cloud=CLOUD, dead=True):
    """Write the journal of a build whose process is gone, or on another host."""
    process = this_process()
    gone = replace(process, pid=2**22 + 1) if dead else replace(process, host="elsewhere")
    folder = builds / build
    folder.mkdir()
    with monkeypatch.context() as patched:
        patched.setattr(journal_module, "this_process", lambda: gone)
        with Journal(folder / "journal.jsonl", build, cloud) as journal:
            events(journal)
    return folder / "journal.jsonl"


def made(kind, identity, *, build=BUILD, region=REGION):
    return lambda journal: journal.create(kind, resource_name(build, identity), region, lambda: identity, print)


def broken_off(kind, identity, *, build=BUILD):
    def events(journal):
        with pytest.raises(KeyboardInterrupt):
            journal.create(kind, resource_name(build, identity), REGION, interrupt, print)

    return events


def interrupt():
    raise KeyboardInterrupt


def test_what_has_expired_is_removed_in_an_order_that_works(account, tmp_path):
    kinds = ["key-pair", "snapshot", "security-group", "volume", "image", "instance"]
    account.things = [thing(kind, f"{kind}-1") for kind in kinds]
    swept = sweep_builds(account, tmp_path, now=NOW)
    assert account.asked == [
        "instance-1",
        "volume-1",
        "image-1",
        "snapshot-1",
        "security-group-1",
        "key-pair-1",
    ]
    assert account.holds() == set() and swept.exit_status == 0
    assert sweep_builds(account, tmp_path, now=NOW).lines() == ["nothing to remove"]


def test_what_has_not_expired_stays(account, tmp_path):
    account.things = [thing("instance", "i-1", expires=NOW + timedelta(seconds=1))]
    assert sweep_builds(account, tmp_path, now=NOW).lines() == ["nothing to remove"]
    assert account.asked == []


@pytest.mark.parametrize("expires", ["", "soon", "2025-01-01T00:00:00"], ids=["none", "a word", "no time zone"])
def test_an_expiry_that_cannot_be_read_never_passes(account, tmp_path, expires):
    account.things = [thing("instance", "i-1", expires=expires)]
    sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == {"i-1"}


def test_a_dry_run_removes_nothing_and_says_what_it_would(account, tmp_path, monkeypatch):
    account.things = [thing("instance", "i-1")]
    path = write_journal(monkeypatch, tmp_path, made("instance", "i-1"))
    before = path.read_bytes()
    swept = sweep_builds(account, tmp_path, now=NOW, dry_run=True)
    assert swept.lines() == [f"would remove instance i-1 in {REGION}: its build is dead"]
    assert account.holds() == {"i-1"} and path.read_bytes() == before


def test_a_dead_build_is_swept_before_it_expires(account, tmp_path, monkeypatch):
    account.things = [thing("instance", "i-1", expires=NOW + timedelta(hours=9))]
    path = write_journal(monkeypatch, tmp_path, made("instance", "i-1"))
    sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == set()
    assert read_journal(path).entries[0].removed


def test_tags_complete_what_the_journal_of_a_dead_build_shows(account, tmp_path, monkeypatch):
    later = NOW + timedelta(hours=9)
    account.things = [thing("instance", "i-1", expires=later), thing("volume", "vol-1", expires=later)]
    write_journal(monkeypatch, tmp_path, made("instance", "i-1"))
    sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == set()


def test_a_build_on_another_host_is_left_until_it_expires(account, tmp_path, monkeypatch):
    account.things = [thing("instance", "i-1", expires=NOW + timedelta(hours=1))]
    write_journal(monkeypatch, tmp_path, made("instance", "i-1"), dead=False)
    sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == {"i-1"}
    sweep_builds(account, tmp_path, now=NOW + timedelta(hours=2))
    assert account.holds() == set()


def test_a_build_at_work_is_left_even_when_it_has_expired(account, tmp_path):
    account.things = [thing("instance", "i-1"), thing("instance", "i-2", build=OTHER_BUILD)]
    (tmp_path / BUILD).mkdir()
    with Journal(tmp_path / BUILD / "journal.jsonl", BUILD, CLOUD) as journal:
        made("instance", "i-1")(journal)
        sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == {"i-1"}


def test_an_intent_without_an_answer_is_looked_for_by_its_name(account, tmp_path, monkeypatch):
    path = write_journal(monkeypatch, tmp_path, broken_off("snapshot", "snap-1"))
    sweep_builds(account, tmp_path, now=NOW)
    assert account.asked == [resource_name(BUILD, "snap-1")]
    assert read_journal(path).entries[0].removed


def test_an_intent_whose_thing_is_stuck_stays_open_in_the_journal(account, tmp_path, monkeypatch):
    account.things = [thing("snapshot", "snap-1")]
    account.stuck = {"snap-1"}
    path = write_journal(monkeypatch, tmp_path, broken_off("snapshot", "snap-1"))
    sweep_builds(account, tmp_path, now=NOW)
    (entry,) = read_journal(path).entries
    assert entry.open and "in use" in entry.reason


@pytest.mark.parametrize("by", ["tags", "journal"])
def test_a_kept_image_is_never_removed_and_nor_is_what_it_stands_on(account, tmp_path, monkeypatch, by):
    expires = NEVER if by == "tags" else NOW - timedelta(hours=1)
    account.things = [
        thing("image", "ami-1", expires=expires, snapshots=("snap-1",)),
        thing("snapshot", "snap-1"),
        thing("snapshot", "snap-0"),
    ]

    def events(journal):
        made("image", "ami-1")(journal)
        made("instance", "i-1")(journal)
        if by == "journal":
            journal.keep("ami-1")

    path = write_journal(monkeypatch, tmp_path, events)
    sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == {"ami-1", "snap-1"}
    assert read_journal(path).entries[0].kept


def test_a_thing_that_cannot_be_removed_is_listed_and_does_not_stop_the_rest(account, tmp_path):
    account.things = [thing("instance", "i-1"), thing("key-pair", "key-1")]
    account.stuck = {"i-1"}
    swept = sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == {"i-1"}
    assert swept.exit_status == 60
    assert swept.lines() == [
        f"removed key-pair key-1 in {REGION}: it has expired",
        f"could not remove instance i-1 in {REGION}: it is in use (i-1 in {REGION})",
    ]


def test_regions_that_a_journal_names_are_swept_too(account, tmp_path, monkeypatch):
    account.things = [thing("image", "ami-1", region="us-east-1")]
    write_journal(monkeypatch, tmp_path, made("image", "ami-1", region="us-east-1"))
    sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == set()


def test_a_region_that_does_not_answer_is_listed_and_its_journal_stays_open(account, tmp_path, monkeypatch):
    account.silent = {"us-east-1"}
    account.things = [thing("instance", "i-1")]
    path = write_journal(monkeypatch, tmp_path, made("image", "ami-1", region="us-east-1"))
    swept = sweep_builds(account, tmp_path, now=NOW)
    assert swept.exit_status == 60 and account.holds() == set()
    assert read_journal(path).entries[0].open


def test_the_journal_of_another_cloud_is_left_and_told(account, tmp_path, monkeypatch):
    path = write_journal(monkeypatch, tmp_path, made("instance", "i-1"), cloud="local/123456789012")
    swept = sweep_builds(account, tmp_path, now=NOW)
    assert account.asked == [] and read_journal(path).entries[0].open
    assert "local/123456789012" in swept.lines()[0]


def test_a_damaged_journal_is_told_and_stops_nothing(account, tmp_path):
    account.things = [thing("instance", "i-1")]
    (tmp_path / BUILD).mkdir()
    (tmp_path / BUILD / "journal.jsonl").write_text("nonsense\n")
    swept = sweep_builds(account, tmp_path, now=NOW)
    assert account.holds() == set()
    assert swept.exit_status == 60 and swept.lines()[-1].startswith("could not look into journal")
