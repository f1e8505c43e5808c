from contextlib import contextmanager
from itertools import chain
from threading import Barrier, Event

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import GuestUnreachable
from pipeline.verify.ahead import (
    BATCH_SECONDS,
    EACH_SECONDS,
    REHEARSALS,
    WORTH_A_REHEARSAL,
    Ahead,
    Asked,
    name_recording,
    only_reads,
    read_recording,
    split,
    write_recording,
)
from tests.verify.scripted import Output, ScriptedShell

BATCH = int(BATCH_SECONDS / EACH_SECONDS)


def reads(*commands):
    return [Asked(command, True) for command in commands]


@contextmanager
def sent(shell, *recorded):
    """Give what was sent ahead to one shell."""
    with Ahead([shell], recorded) as ahead:
        ahead.send()
        yield ahead


def test_recorded_commands_cost_one_round_trip():
    shell = ScriptedShell()
    with sent(shell, *reads("a", "b", "c")) as ahead:
        assert [ahead.run(command, True).stdout for command in "abc"] == ["a\n", "b\n", "c\n"]
    assert shell.trips == [["a", "b", "c"]]
    assert ahead.live == 0


def test_a_command_that_is_not_recorded_goes_live():
    shell = ScriptedShell()
    with sent(shell, *reads("a")) as ahead:
        assert ahead.run("b", True).stdout == "b\n"
    assert shell.trips == [["a"], ["b"]]


def test_an_answer_is_used_once_and_in_order():
    answers = iter("123")
    shell = ScriptedShell(lambda command: Output(0, next(answers)))
    with sent(shell, *reads("a", "a")) as ahead:
        assert [ahead.run("a", True).stdout for _ in range(3)] == ["1", "2", "3"]
    assert shell.trips == [["a", "a"], ["a"]]


def test_nothing_read_before_a_change_is_used_after_it():
    state = {"value": "old"}

    def reply(command):
        if command == "change":
            state["value"] = "new"
        return Output(0, state["value"])

    shell = ScriptedShell(reply)
    with sent(shell, *reads("read"), Asked("change", False), *reads("read")) as ahead:
        assert ahead.run("read", True).stdout == "old"
        ahead.run("change", False)
        assert ahead.run("read", True).stdout == "new"
    assert shell.trips == [["read"], ["change"], ["read"]]


def test_a_change_that_was_not_recorded_forgets_everything():
    shell = ScriptedShell()
    with sent(shell, *reads("a", "b")) as ahead:
        ahead.run("other", False)
        ahead.run("a", True)
    assert shell.trips == [["a", "b"], ["other"], ["a"]]


def test_a_recorded_change_is_not_sent_ahead():
    shell = ScriptedShell()
    with sent(shell, Asked("change", False), *reads("a")):
        pass
    assert shell.trips == []


def test_shells_work_side_by_side():
    meeting = Barrier(2, timeout=30)

    def reply(command):
        if command in ("0", str(BATCH)):
            meeting.wait()
        return Output(0, command)

    shells = [ScriptedShell(reply), ScriptedShell(reply)]
    commands = [str(number) for number in range(2 * BATCH)]
    with Ahead(shells, reads(*commands)) as ahead:
        ahead.send()
        assert [ahead.run(command, True).stdout for command in commands] == commands
    assert sorted(shells[0].trips + shells[1].trips) == [commands[:BATCH], commands[BATCH:]]


def test_an_answer_does_not_wait_for_what_comes_later():
    asked = Event()

    def reply(command):
        if command == "late":
            assert asked.wait(30)
        return Output(0, command)

    with sent(ScriptedShell(reply), *reads("a", "b", "c", "d", "late")) as ahead:
        assert ahead.run("a", True).stdout == "a"
        asked.set()
        assert ahead.run("late", True).stdout == "late"


def test_a_change_runs_alone():
    log = []

    def reply(command):
        log.append(command)
        return Output(0)

    commands = [str(number) for number in range(3 * BATCH)]
    with Ahead([ScriptedShell(reply), ScriptedShell(reply)], reads(*commands)) as ahead:
        ahead.send()
        ahead.run("change", False)
    assert sorted(log[:-1]) == sorted(commands)
    assert log[-1] == "change"


def test_a_session_that_breaks_is_told_to_who_asks():
    shell = ScriptedShell(breaks_after=1)
    with sent(shell, *reads("a", "b", "c", "d", "e")) as ahead:
        assert ahead.run("a", True).stdout == "a\n"
        with pytest.raises(GuestUnreachable):
            ahead.run("e", True)


def test_what_a_rehearsal_misses_is_sent_at_once():
    shell = ScriptedShell()
    with sent(shell) as ahead:
        assert ahead.wants_rehearsal()
        assert [ahead.rehearse(command, True) for command in "abb"] == [None, None, None]
        assert not ahead.wants_rehearsal()
        assert [ahead.run(command, True).stdout for command in "abb"] == ["a\n", "b\n", "b\n"]
    assert shell.trips == [["a", "b", "b"]]
    assert ahead.live == 0


def test_a_rehearsal_uses_no_answer_up_and_each_check_gets_its_own():
    answers = iter("123")
    shell = ScriptedShell(lambda command: Output(0, next(answers)))
    with sent(shell) as ahead:
        ahead.wants_rehearsal()
        ahead.start(["a"])
        assert [ahead.rehearse("a", True).stdout for _ in range(3)] == ["1", "1", "1"]
        assert not ahead.wants_rehearsal()
        assert [ahead.run("a", True).stdout for _ in range(3)] == ["1", "2", "3"]
    assert shell.trips == [["a"], ["a", "a"]]


def test_what_many_checks_miss_is_asked_once_at_first():
    shell = ScriptedShell()
    with sent(shell) as ahead:
        ahead.wants_rehearsal()
        assert [ahead.rehearse("a", True) for _ in range(WORTH_A_REHEARSAL)] == [None] * WORTH_A_REHEARSAL
        assert ahead.wants_rehearsal()
    assert shell.trips == [["a"]]


def test_a_rehearsal_never_runs_what_may_write():
    shell = ScriptedShell()
    with sent(shell) as ahead:
        ahead.wants_rehearsal()
        assert ahead.rehearse("touch /x", False) is None
        assert not ahead.wants_rehearsal()
    assert shell.trips == []


def test_rehearsals_end():
    with sent(ScriptedShell()) as ahead:
        for rehearsal in range(REHEARSALS - 1):
            assert ahead.wants_rehearsal()
            for number in range(WORTH_A_REHEARSAL):
                ahead.rehearse(f"{rehearsal} {number}", True)
        assert not ahead.wants_rehearsal()


def test_what_is_recorded_is_not_rehearsed():
    with sent(ScriptedShell(), *reads("a")) as ahead:
        assert not ahead.wants_rehearsal()


@given(st.integers(0, 500), st.integers(1, 4))
def test_batches_hold_every_command_once_and_in_order(count, shells):
    commands = reads(*map(str, range(count)))
    assert list(chain(*split(commands, shells))) == commands


def test_what_took_long_goes_first_and_alone():
    shell = ScriptedShell()
    with sent(shell, *reads("a", "b"), Asked("long", True, 2.0), Asked("longer", True, 3.0), *reads("c")) as ahead:
        assert [ahead.run(command, True).stdout for command in ("a", "b", "long", "longer", "c")]
    assert shell.trips == [["longer"], ["long"], ["a", "b", "c"]]


def test_what_took_little_is_read_in_the_order_in_which_it_is_asked_for():
    shell = ScriptedShell()
    with sent(shell, Asked("a", True, 0.01), Asked("b", True, 0.09), Asked("c", True, 0.02)) as ahead:
        assert [ahead.run(command, True) for command in ("a", "b", "c")]
    assert [command for trip in shell.trips for command in trip] == ["a", "b", "c"]


def test_what_took_long_does_not_pass_what_may_write():
    shell = ScriptedShell()
    with sent(shell, Asked("a", True), Asked("touch", False), Asked("long", True, 2.0)) as ahead:
        assert [ahead.run(command, command != "touch").stdout for command in ("a", "touch", "long")]
    assert shell.trips == [["a"], ["touch"], ["long"]]


def test_how_long_a_command_took_is_remembered():
    with sent(ScriptedShell(lambda command: Output(0, seconds=1.5))) as ahead:
        ahead.run("a", True)
        ahead.run("touch", False)
    assert [one.seconds for one in ahead.asked] == [1.5, 1.5]


@pytest.mark.parametrize(
    "command",
    [
        "cat /etc/passwd",
        "test -e /etc/passwd",
        "command -v sshd",
        "systemctl is-active ssh",
        "ss -ltn | grep -q :22",
        "stat -c %a '/a b' 2>/dev/null",
        "getent passwd root && id root",
        "cat /a 2>&1",
    ],
)
def test_known_readers_read(command):
    assert only_reads(command)


@pytest.mark.parametrize(
    "command",
    [
        "touch /x",
        "cat /a > /b",
        "cat /a >> /b",
        "cat `touch /x`",
        "cat $(touch /x)",
        "cat /a; rm /a",
        "cat /a & rm /a",
        "cat /a | tee /b",
        "cat /a\nrm /a",
        "(rm /a)",
        "systemctl restart ssh",
        "command rm /a",
        "hostname other",
        "X=1 rm /a",
        "{ rm /a; }",
        "find / -delete",
        "sed -i s/a/b/ /x",
        "cat 'unclosed",
        "echo x >/dev/null2",
        "cat /a >|/b",
        "cat <(rm /a)",
        "",
    ],
)
def test_what_may_write_does_not_pass_for_reading(command):
    assert not only_reads(command)


@given(st.text())
def test_any_text_can_be_judged(command):
    only_reads(command)


def test_a_recording_comes_back(tmp_path):
    asked = [Asked("a", True), Asked("b", False)]
    path = tmp_path / "new" / "recording.json"
    write_recording(path, asked, {})
    assert read_recording(path, {}) == tuple(asked)
    assert path.stat().st_mode & 0o077 == 0


def test_a_recording_asks_about_the_build_at_hand(tmp_path):
    path = tmp_path / "recording.json"
    write_recording(path, reads("grep i-1 /etc", "ls"), {"instance_id": "i-1", "machine_id": ""})
    assert "i-1" not in path.read_text()
    assert read_recording(path, {"instance_id": "i-2", "machine_id": ""}) == tuple(reads("grep i-2 /etc", "ls"))
    assert read_recording(path, {}) == tuple(reads("ls"))


@pytest.mark.parametrize("text", ["", "{", "[1]", '[["a"]]', "null"])
def test_a_damaged_recording_is_none(tmp_path, text):
    path = tmp_path / "recording.json"
    path.write_text(text)
    assert read_recording(path, {}) == ()


def test_another_check_is_another_recording(tmp_path):
    check = tmp_path / "test_a.py"
    check.write_text("1")
    first = name_recording([check], "L", "web")
    assert first == name_recording([check], "L", "web") != name_recording([check], "B", "web")
    check.write_text("2")
    assert first != name_recording([check], "L", "web")
