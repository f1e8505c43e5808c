import json
import os
import signal
import stat
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from botocore.exceptions import EndpointConnectionError, ReadTimeoutError

from pipeline import journal as journal_module
from pipeline.aws.session import cloud_errors
from pipeline.aws.wait import Clock
from pipeline.errors import CloudFailed, Interrupted, JournalDamaged, JournalFailed, JournalInUse
from pipeline.journal import Journal, read_journal

BUILD_ID = "20250131-235959-1a2b3c"
REGION = "eu-central-1"


class Cloud:
    """Holds things by identity, with their names; removes by either."""

    def __init__(self):
        self.things = {}
        self.removed = []

    def make(self, identity, name):
        def make():
            self.things[identity] = name
            return identity

        return make

    def remove(self, handle):
        for identity, name in list(self.things.items()):
            if handle in (identity, name):
                del self.things[identity]
                self.removed.append(identity)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "journal.jsonl"


@pytest.fixture
def rests():
    return []


@pytest.fixture
def journal(path, rests):
    with Journal(path, BUILD_ID, "aws/111122223333", Clock(now=lambda: 0.0, rest=rests.append)) as opened:
        yield opened


@pytest.fixture
def cloud():
    return Cloud()


def create(journal, cloud, kind="snapshot", identity="snap-1", name="assay-snap"):
    return journal.create(kind, name, REGION, cloud.make(identity, name), cloud.remove)


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_the_intent_is_on_disk_before_the_call(journal, path):
    def make():
        last = lines(path)[-1]
        assert (last["event"], last["kind"], last["name"], last["region"]) == ("intent", "snapshot", "assay-s", REGION)
        return "snap-1"

    journal.create("snapshot", "assay-s", REGION, make, lambda _: None)
    assert (lines(path)[-1]["event"], lines(path)[-1]["identity"]) == ("created", "snap-1")


def test_each_line_is_synchronised(journal, cloud, monkeypatch):
    synchronised = []
    monkeypatch.setattr(journal_module.os, "fsync", synchronised.append)
    create(journal, cloud)
    assert len(synchronised) == 2


def test_the_journal_is_its_owner_s_alone(journal, path):
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_undoing_goes_backwards_and_is_recorded(journal, cloud, path):
    for number in (1, 2, 3):
        create(journal, cloud, identity=f"snap-{number}", name=f"assay-{number}")
    assert journal.undo_all() == ()
    assert cloud.removed == ["snap-3", "snap-2", "snap-1"]
    assert not any(entry.open for entry in read_journal(path).entries)
    assert all(resource.removed for resource in journal.resources())


def test_what_is_kept_is_not_undone(journal, cloud, path):
    create(journal, cloud, "image", "ami-1", "assay-image")
    create(journal, cloud, "snapshot", "snap-1", "assay-snapshot")
    create(journal, cloud, "instance", "i-1", "assay-build")
    journal.keep("ami-1", "snap-1")
    assert journal.undo_all() == ()
    assert cloud.removed == ["i-1"]
    assert [resource.identity for resource in journal.resources() if resource.kept] == ["ami-1", "snap-1"]
    assert [entry.kept for entry in read_journal(path).entries] == [True, True, False]
    assert len([line for line in lines(path) if line["event"] == "kept"]) == 1


def test_only_what_is_known_can_be_kept(journal):
    with pytest.raises(ValueError, match="ami-9"):
        journal.keep("ami-9")


def test_a_failed_undo_is_listed_and_does_not_stop_the_rest(journal, cloud):
    def refuse(_):
        raise CloudFailed("it is protected", resource="ami-1", region=REGION)

    create(journal, cloud, identity="snap-1")
    journal.create("image", "assay-image", REGION, lambda: "ami-1", refuse)
    (leak,) = journal.undo_all()
    assert (leak.kind, leak.identity, leak.region) == ("image", "ami-1", REGION)
    assert "it is protected" in leak.reason
    assert cloud.removed == ["snap-1"]


class Silence:
    """A cloud that does not answer in one region, until it does; a call takes ten seconds."""

    def __init__(self, cloud, until=float("inf")):
        self.cloud, self.until, self.now, self.asked = cloud, until, 0.0, []

    def create(self, journal, identity, region=REGION):
        undo = self.remove if region == REGION else self.cloud.remove
        journal.create("snapshot", identity, region, self.cloud.make(identity, identity), undo)

    def rest(self, seconds):
        self.now += seconds

    def remove(self, identity):
        self.asked.append(identity)
        self.now += 10.0
        if self.now < self.until:
            with cloud_errors(identity, REGION):
                raise EndpointConnectionError(endpoint_url="https://x")
        self.cloud.remove(identity)


def test_a_cloud_that_does_not_answer_is_asked_about_one_thing_and_not_for_ever(journal, cloud):
    silence, told = Silence(cloud), []
    journal._clock = Clock(now=lambda: silence.now, rest=silence.rest)
    silence.create(journal, "snap-1")
    silence.create(journal, "snap-2", "us-east-1")
    silence.create(journal, "snap-3")
    first, last = journal.undo_all(told.append)
    assert (first.identity, last.identity) == ("snap-1", "snap-3")
    assert "no answer" in first.reason and "no answer" in last.reason
    assert cloud.removed == ["snap-2"], "another region does answer"
    assert set(silence.asked) == {"snap-3"}
    assert 300 <= silence.now < 320
    assert told[:2] == ["removing snapshot snap-3", "removing snapshot snap-2"]


def test_what_was_not_seen_yet_is_looked_for_again_although_another_region_is_silent(journal, cloud):
    def make_and_fail():
        cloud.things["sg-1"] = "unseen"
        raise CloudFailed("the rule is refused, the group exists")

    silence = Silence(cloud)

    def rest(seconds):
        silence.rest(seconds)
        cloud.things.update({"sg-1": "assay-ssh"})

    with pytest.raises(CloudFailed):
        journal.create("security-group", "assay-ssh", "us-east-1", make_and_fail, cloud.remove)
    silence.create(journal, "snap-1")
    journal._clock = Clock(now=lambda: silence.now, rest=rest)
    (leak,) = journal.undo_all()
    assert leak.identity == "snap-1"
    assert cloud.removed == ["sg-1"]


def test_what_was_not_seen_and_then_cannot_be_removed_is_listed(journal, rests):
    answers = iter([None, CloudFailed("it is protected")])

    def undo(_):
        if answer := next(answers, CloudFailed("it is protected")):
            raise answer

    def make_and_fail():
        raise CloudFailed("the rule is refused, the group exists")

    with pytest.raises(CloudFailed):
        journal.create("security-group", "assay-ssh", REGION, make_and_fail, undo)
    (leak,) = journal.undo_all()
    assert (leak.identity, "it is protected" in leak.reason) == ("assay-ssh", True)


def test_a_cloud_that_answers_again_is_cleaned_up(journal, cloud):
    silence = Silence(cloud, until=200.0)
    journal._clock = Clock(now=lambda: silence.now, rest=silence.rest)
    for identity in ("snap-1", "snap-2", "snap-3"):
        silence.create(journal, identity)
    assert journal.undo_all() == ()
    assert cloud.removed == ["snap-3", "snap-2", "snap-1"]


def test_a_defect_in_an_undo_is_listed_without_its_text(journal):
    def crash(_):
        raise KeyError("secret")

    journal.create("image", "assay-image", REGION, lambda: "ami-1", crash)
    (leak,) = journal.undo_all()
    assert leak.reason == "a defect: KeyError"


def test_what_hangs_on_another_thing_is_tried_again_after_it(journal, cloud):
    def remove_group(handle):
        if "volume" in cloud.things.values():
            raise CloudFailed("DependencyViolation")
        cloud.remove(handle)

    create(journal, cloud, "volume", "vol-1", "volume")
    journal.create("security-group", "group", REGION, cloud.make("sg-1", "group"), remove_group)
    assert journal.undo_all() == ()
    assert cloud.removed == ["vol-1", "sg-1"]


def test_a_thing_whose_answer_was_lost_is_undone_by_its_name_and_again_when_it_has_settled(journal, cloud, rests):
    def make():
        cloud.things["i-1"] = "unseen"
        with cloud_errors("i-1", REGION):
            raise ReadTimeoutError(endpoint_url="https://x")

    with pytest.raises(CloudFailed):
        journal.create("instance", "assay-build", REGION, make, cloud.remove)
    journal._clock = Clock(now=lambda: 0.0, rest=lambda _: cloud.things.update({"i-1": "assay-build"}))
    assert journal.undo_all() == ()
    assert cloud.removed == ["i-1"]


def test_what_was_half_refused_is_undone_by_its_name_once_it_is_seen(journal, cloud):
    def make_and_fail():
        cloud.things["sg-1"] = "unseen"
        raise CloudFailed("the rule is refused, the group exists")

    with pytest.raises(CloudFailed):
        journal.create("security-group", "assay-ssh", REGION, make_and_fail, cloud.remove)
    journal._clock = Clock(now=lambda: 0.0, rest=lambda _: cloud.things.update({"sg-1": "assay-ssh"}))
    assert journal.undo_all() == ()
    assert cloud.removed == ["sg-1"]


def test_nothing_is_waited_for_when_every_answer_came(journal, cloud, rests):
    create(journal, cloud)
    assert journal.undo_all() == ()
    assert rests == []


def test_threads_create_side_by_side(journal, cloud, path):
    together = threading.Barrier(8, timeout=20)

    def make(number):
        def make_one():
            together.wait()
            return cloud.make(f"snap-{number}", f"assay-{number}")()

        return make_one

    with ThreadPoolExecutor(8) as pool:
        for number in range(8):
            pool.submit(journal.create, "snapshot", f"assay-{number}", REGION, make(number), cloud.remove)
    entries = read_journal(path).entries
    assert {(entry.identity, entry.name) for entry in entries} == {(f"snap-{n}", f"assay-{n}") for n in range(8)}
    assert journal.undo_all() == () and not cloud.things


def test_an_interruption_within_the_call_is_undone_by_name(journal, cloud, rests):
    def make():
        cloud.things["i-1"] = "assay-build"
        raise Interrupted("now")

    with pytest.raises(Interrupted):
        journal.create("instance", "assay-build", REGION, make, cloud.remove)
    assert journal.undo_all() == ()
    assert cloud.removed == ["i-1"]
    assert rests


def test_ctrl_c_does_not_stop_the_undoing(journal, cloud, capfd):
    create(journal, cloud, identity="snap-1")
    journal.create("image", "assay-image", REGION, lambda: "ami-1", lambda _: os.kill(os.getpid(), signal.SIGINT))
    assert journal.undo_all() == ()
    assert cloud.removed == ["snap-1"]
    assert "still cleaning up" in capfd.readouterr().err


def test_one_thing_can_go_before_its_time(journal, cloud):
    create(journal, cloud, "instance", "i-1", "assay-build")
    journal.undo("i-1")
    assert cloud.removed == ["i-1"]
    journal.undo_all()
    assert cloud.removed == ["i-1"]


def test_an_intent_that_never_became_a_thing_is_not_a_resource(journal, cloud):
    def refuse():
        raise CloudFailed("no")

    with pytest.raises(CloudFailed):
        journal.create("instance", "assay-build", REGION, refuse, cloud.remove)
    assert journal.resources() == ()


def test_a_journal_is_read_back_as_it_was(journal, cloud, path):
    create(journal, cloud)
    reading = read_journal(path)
    assert (reading.build_id, reading.cloud, reading.process.pid) == (BUILD_ID, "aws/111122223333", os.getpid())
    assert [(entry.identity, entry.name, entry.open) for entry in reading.entries] == [("snap-1", "assay-snap", True)]


@pytest.mark.parametrize("cut", range(1, 40, 7))
def test_a_torn_last_line_is_left_out(journal, cloud, path, cut):
    create(journal, cloud)
    with path.open("rb+") as file:
        file.truncate(path.stat().st_size - cut)
    (entry,) = read_journal(path).entries
    assert entry.identity is None
    journal.close()
    with Journal(path, BUILD_ID) as again:
        again.mark_removed(entry.number)
    assert not read_journal(path).entries[0].open


@pytest.mark.parametrize("damage", ["nonsense", '{"event": "created"}', '{"event": "?", "time": "x"}', "[]", "\0"])
def test_any_other_damage_is_an_error(journal, cloud, path, damage):
    with path.open("a") as file:
        file.write(damage + "\n")
    create(journal, cloud)
    with pytest.raises(JournalDamaged, match=path.name):
        read_journal(path)


def test_only_one_process_writes_a_journal(journal, path):
    with pytest.raises(JournalInUse):
        Journal(path, BUILD_ID)
    journal.close()
    Journal(path, BUILD_ID).close()


@pytest.mark.subprocess
def test_the_kernel_gives_the_lock_back_when_the_process_is_killed(path):
    program = (
        "import sys; from pathlib import Path; from pipeline.journal import Journal;"
        "held = Journal(Path(sys.argv[1]), sys.argv[2]); print('held', flush=True); input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", program, path, BUILD_ID], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert child.stdout.readline() == b"held\n"
    with pytest.raises(JournalInUse):
        Journal(path, BUILD_ID)
    child.kill()
    child.communicate()
    Journal(path, BUILD_ID).close()


def test_a_full_disk_is_one_error_and_leaves_whole_lines(journal, cloud, path, monkeypatch):
    create(journal, cloud, identity="snap-1", name="one")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(journal_module.os, "fsync", full)
    with pytest.raises(JournalFailed, match="No space left"):
        create(journal, cloud, identity="snap-2", name="two")
    assert "snap-2" not in cloud.things, "nothing is made without its line"
    assert [entry.name for entry in read_journal(path).entries] == ["one"]
    assert journal.undo_all() == ()
    assert cloud.removed == ["snap-1"]


def test_a_folder_that_cannot_be_written_is_one_error(tmp_path):
    with pytest.raises(JournalFailed, match=r"journal\.jsonl"):
        Journal(tmp_path / "missing" / "journal.jsonl", BUILD_ID)
