import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.verify.ahead import Ahead, Asked, name_recording, only_reads, read_recording, write_recording
from tests.verify.scripted import Output, ScriptedShell


def reads(*commands):
    return [Asked(command, True) for command in commands]


def test_recorded_commands_cost_one_round_trip():
    shell = ScriptedShell()
    ahead = Ahead(shell, reads("a", "b", "c"))
    ahead.send()
    assert [ahead.run(command, True).stdout for command in "abc"] == ["a\n", "b\n", "c\n"]
    assert shell.trips == [["a", "b", "c"]]
    assert ahead.live == 0


def test_a_command_that_is_not_recorded_goes_live():
    shell = ScriptedShell()
    ahead = Ahead(shell, reads("a"))
    ahead.send()
    assert ahead.run("b", True).stdout == "b\n"
    assert shell.trips == [["a"], ["b"]]


def test_an_answer_is_used_once_and_in_order():
    answers = iter("123")
    shell = ScriptedShell(lambda command: Output(0, next(answers)))
    ahead = Ahead(shell, reads("a", "a"))
    ahead.send()
    assert [ahead.run("a", True).stdout for _ in range(3)] == ["1", "2", "3"]
    assert shell.trips == [["a", "a"], ["a"]]


def test_nothing_read_before_a_change_is_used_after_it():
    state = {"value": "old"}

    def reply(command):
        if command == "change":
            state["value"] = "new"
        return Output(0, state["value"])

    shell = ScriptedShell(reply)
    ahead = Ahead(shell, [*reads("read"), Asked("change", False), *reads("read")])
    ahead.send()
    assert ahead.run("read", True).stdout == "old"
    ahead.run("change", False)
    assert ahead.run("read", True).stdout == "new"
    assert shell.trips == [["read"], ["change"], ["read"]]


def test_a_change_that_was_not_recorded_forgets_everything():
    shell = ScriptedShell()
    ahead = Ahead(shell, reads("a", "b"))
    ahead.send()
    ahead.run("other", False)
    ahead.run("a", True)
    assert shell.trips == [["a", "b"], ["other"], ["a"]]


def test_a_recorded_change_is_not_sent_ahead():
    shell = ScriptedShell()
    Ahead(shell, [Asked("change", False), *reads("a")]).send()
    assert shell.trips == []


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
    write_recording(path, asked)
    assert read_recording(path) == tuple(asked)
    assert path.stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "{", "[1]", '[["a"]]', "null"])
def test_a_damaged_recording_is_none(tmp_path, text):
    path = tmp_path / "recording.json"
    path.write_text(text)
    assert read_recording(path) == ()


def test_another_check_is_another_recording(tmp_path):
    check = tmp_path / "test_a.py"
    check.write_text("1")
    first = name_recording([check], "L", "web")
    assert first == name_recording([check], "L", "web") != name_recording([check], "B", "web")
    check.write_text("2")
    assert first != name_recording([check], "L", "web")
