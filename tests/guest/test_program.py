"""Programs are compiled, run for real under three shells, and read back."""

import base64
import os
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import GuestFailed
from pipeline.guest.program import (
    ACKNOWLEDGEMENT,
    MACHINERY,
    OUTPUT_BYTES,
    Outcome,
    Program,
    RecordReader,
    StepResult,
    compile_program,
    decode_output,
    parse_records,
    visible,
)
from pipeline.guest.step import Script, Secret, Step

SECRETS = ("it's a 'secret' $HOME `id`", "line one secret\nline two secret", "--no-option", "a\\b\tc d")
SHELLS = ("dash", "busybox ash", "bash")
DEADLINE_SECONDS = 300


@pytest.fixture(params=SHELLS)
def shell(request: pytest.FixtureRequest) -> list[str]:
    words = str(request.param).split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    return [*words, "-s"]


def step(action: Script, test: Script | None = None, optional: bool = False, title: str = "a step") -> Step:
    return Step("sample", ("H01",), title, action, test, optional)


def run(shell: list[str], program: Program) -> list[StepResult]:
    """Run a program to its end and acknowledge it, as the ssh side does."""
    with subprocess.Popen(
        shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        assert process.stdin and process.stdout
        process.stdin.write(program.text)
        process.stdin.flush()
        reader = RecordReader(program)
        results = []
        for line in process.stdout:
            result = reader.read(line)
            if result:
                results.append(result)
            if reader.finished:
                break
        if not reader.finished:
            raise GuestFailed(reader.noise)
        process.stdin.write(ACKNOWLEDGEMENT)
        process.stdin.close()
        assert process.wait(DEADLINE_SECONDS) == 0
        assert process.stdout.read() == ""
    return results


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


SAMPLES: tuple[tuple[str, Step, Outcome, str], ...] = (
    ("needed", step("touch made", "[ -e made ]"), Outcome.CHANGED, ""),
    ("not needed", step("exit 7", "true"), Outcome.OK, ""),
    ("fails", step("echo sorry; exit 7", "false"), Outcome.FAILED, "sorry"),
    ("does not help", step("true", "exit 3"), Outcome.FAILED, "but its test does not hold after it (exit status 3)"),
    ("untested", step("echo done"), Outcome.CHANGED, "done"),
    ("says changed", step("echo changed"), Outcome.CHANGED, "changed"),
    ("says unchanged", step("echo looked; echo unchanged"), Outcome.OK, "looked\nunchanged"),
    ("unchanged is not last", step("echo unchanged; echo more"), Outcome.CHANGED, "unchanged\nmore"),
    ("an error in the middle", step("false\necho never"), Outcome.FAILED, ""),
    ("an error in a test's middle", step("echo acted", "false\ntrue"), Outcome.FAILED, "acted"),
    ("an unset variable", step('echo "$no_such_name"'), Outcome.FAILED, "no_such_name"),
    ("exits early", step("echo out; exit 0; echo never"), Outcome.CHANGED, "out"),
    ("reads standard input", step("cat; read -r line || echo nothing to read"), Outcome.CHANGED, "nothing to read"),
    ("here-document", step("cat <<'END'\n  $kept \\ as it's\nEND"), Outcome.CHANGED, "  $kept \\ as it's"),
    ("only a comment", step("# nothing"), Outcome.CHANGED, ""),
    ("ends in a comment", step("echo x # } done"), Outcome.CHANGED, "x"),
    ("own function", step('record() { echo "mine $1"; }; record 1'), Outcome.CHANGED, "mine 1"),
    ("standard error", step("echo loud >&2"), Outcome.CHANGED, "loud"),
    ("no newline", step("printf unchanged"), Outcome.OK, "unchanged"),
    ("binary", step(r"printf 'a\000\033[2Jb\377'"), Outcome.CHANGED, "a[2Jb\N{REPLACEMENT CHARACTER}"),
    ("forged", step("echo 'NONCE 1 ok 0 0 0 - .'; echo end ."), Outcome.CHANGED, "NONCE 1 ok 0 0 0 - .\nend ."),
    ("a daemon", step("sleep 30 & echo left"), Outcome.CHANGED, "left"),
    ("not found", step("no-such-command-here"), Outcome.FAILED, "no-such-command-here"),
    ("a broken pipe", step("yes | head -n 1"), Outcome.CHANGED, "y"),
    ("killed", step("kill -9 $(exec sh -c 'echo $PPID')"), Outcome.FAILED, ""),
)


@pytest.mark.subprocess
def test_every_sample_ends_as_it_should(shell: list[str], tmp_path: Path) -> None:
    steps = [
        Step("sample", (), name, placed(s.action, tmp_path), placed(s.test, tmp_path), True) for name, s, *_ in SAMPLES
    ]
    results = run(shell, compile_program(steps, str(tmp_path / "state")))
    assert len(results) == len(SAMPLES)
    for (name, _, outcome, output), result in zip(SAMPLES, results, strict=True):
        assert (name, result.outcome) == (name, outcome), result
        assert output in result.output, name
        assert (result.exit_status != 0) == (outcome is Outcome.FAILED), name
    assert not (tmp_path / "state").exists()


def placed(script: Script | None, folder: Path) -> Any:
    return f"cd {folder}\n{script}" if isinstance(script, str) else script


@pytest.mark.subprocess
def test_a_second_run_changes_nothing(shell: list[str], tmp_path: Path) -> None:
    steps = [step(f"echo {n} >{tmp_path}/{n}", f"grep -x {n} {tmp_path}/{n}") for n in range(20)]
    first = run(shell, compile_program(steps, str(tmp_path / "state")))
    second = run(shell, compile_program(steps, str(tmp_path / "state")))
    assert [r.step for r in first] == steps
    assert {r.outcome for r in first} == {Outcome.CHANGED}
    assert {(r.outcome, r.output) for r in second} == {(Outcome.OK, "")}, "what the test found is of no use"


@pytest.mark.subprocess
def test_a_failure_stops_the_program_unless_it_is_optional(shell: list[str], tmp_path: Path) -> None:
    steps = [step("exit 1", optional=True), step("echo on"), step("exit 5"), step(f"touch {tmp_path}/never")]
    results = run(shell, compile_program(steps, str(tmp_path / "state")))
    assert [r.outcome for r in results] == ["failed", "changed", "failed", "skipped"]
    assert [r.exit_status for r in results] == [1, 0, 5, 0]
    assert not (tmp_path / "never").exists()


@pytest.mark.subprocess
def test_the_environment_of_a_step(shell: list[str], tmp_path: Path) -> None:
    action = (
        'echo "$PWD $LC_ALL $PATH $HOME ${HISTFILE-none} $(umask)"; ls -ld "$state" | cut -c1-10; '
        'for name in "$state"/*/*; do ls -l "$name" | cut -c1-10; done; ps -ef | grep -c "[r]eally-secret" || :;'
        "grep SigIgn /proc/self/status | cut -f2"
    )
    steps = [Step("sample", (), "look", ("state=", f"{tmp_path}/state; : ", Secret("really-secret"), f"; {action}"))]
    (result,) = run(shell, compile_program(steps, str(tmp_path / "state")))
    where, *modes, count, ignored = result.output.splitlines()
    assert where.startswith("/ C /usr/sbin:/usr/bin:/sbin:/bin:") and where.endswith("/root none 0022")
    assert set(modes) == {"drwx------", "-rw-------", "prw-------"}
    assert count == "0"
    assert int(ignored, 16) & (1 << (signal.SIGHUP - 1) | 1 << (signal.SIGPIPE - 1)) == 0


@pytest.mark.subprocess
def test_output_is_bounded_and_whole(shell: list[str], tmp_path: Path) -> None:
    (result,) = run(shell, compile_program([step("seq 100000")], str(tmp_path / "state")))
    assert OUTPUT_BYTES - 2 <= len(result.output) <= OUTPUT_BYTES
    assert result.output.endswith("99999\n100000")


@pytest.mark.subprocess
@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_arrives_whole_and_is_masked_in_output(shell: list[str], tmp_path: Path, secret: str) -> None:
    copy = tmp_path / "copy"
    action = ("printf %s ", Secret(secret, "the secret"), f" >{copy}; cat {copy}; echo; echo it said ", Secret(secret))
    program = compile_program([step(action)], str(tmp_path / "state"))
    (result,) = run(shell, program)
    assert copy.read_text() == secret
    assert secret not in result.output and "line two" not in result.output
    assert secret not in program.masked and "«the secret»" in program.masked
    assert secret not in repr(program) and program.nonce not in repr(program)


@pytest.mark.subprocess
@pytest.mark.parametrize("part", [0.1, 0.5, 0.9, 1.0])
def test_a_text_that_is_cut_short_does_nothing(shell: list[str], tmp_path: Path, part: float) -> None:
    text = compile_program([step(f"touch {tmp_path}/made")], str(tmp_path / "state")).text
    length = int(len(text.removesuffix("n; exit 0\n")) * part)
    subprocess.run(shell, input=text[:length], text=True, capture_output=True, check=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.subprocess
def test_a_step_that_cannot_be_parsed_stops_everything_before_it_begins(shell: list[str], tmp_path: Path) -> None:
    steps = [step(f"touch {tmp_path}/made"), step("echo 'unfinished")]
    with pytest.raises(GuestFailed):
        run(shell, compile_program(steps, str(tmp_path / "state")))
    assert list(tmp_path.iterdir()) == []


def start_and_drop(shell: list[str], program: Program, begun: Path) -> None:
    """Start a program, wait for a sign of it, and cut the connection: nobody reads, nobody acknowledges."""
    process = subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin and process.stdout
    process.stdin.write(program.text)
    process.stdin.close()
    wait_until(begun.exists)
    process.stdout.close()
    process.kill()
    process.wait(DEADLINE_SECONDS)


def counted(tmp_path: Path, name: str, more: str = "") -> Step:
    return step(f"echo once >>{tmp_path}/{name}; {more}\n:", title=name)


@pytest.mark.subprocess
def test_a_dropped_connection_stops_nothing_and_the_same_program_carries_on(shell: list[str], tmp_path: Path) -> None:
    gate = f"until [ -e {tmp_path}/gate ]; do sleep 0.1; done"
    steps = [counted(tmp_path, "first"), counted(tmp_path, "second", gate), counted(tmp_path, "third")]
    program = compile_program(steps, str(tmp_path / "state"))
    start_and_drop(shell, program, tmp_path / "second")
    (tmp_path / "gate").touch()
    results = run(shell, program)
    assert [r.outcome for r in results] == ["changed"] * 3
    assert [(tmp_path / name).read_text() for name in ("first", "second", "third")] == ["once\n"] * 3
    assert not (tmp_path / "state").exists()


@pytest.mark.subprocess
def test_who_reads_anew_takes_the_place_of_a_reader_whose_connection_is_dead(shell: list[str], tmp_path: Path) -> None:
    gate = f"until [ -e {tmp_path}/gate ]; do sleep 0.1; done"
    program = compile_program([counted(tmp_path, "first", gate), counted(tmp_path, "second")], str(tmp_path / "state"))
    with subprocess.Popen(shell, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as stale:
        assert stale.stdin
        stale.stdin.write(program.text)
        stale.stdin.flush()
        wait_until((tmp_path / "first").exists)
        with ThreadPoolExecutor() as pool:
            reading = pool.submit(run, shell, program)
            try:
                wait_until(lambda: stale.poll() is not None)
            finally:
                stale.kill()
                (tmp_path / "gate").touch()
            assert [result.outcome for result in reading.result()] == ["changed"] * 2


@pytest.mark.subprocess
def test_the_records_of_a_finished_program_wait_for_their_reader(shell: list[str], tmp_path: Path) -> None:
    program = compile_program([counted(tmp_path, "first")], str(tmp_path / "state"))
    start_and_drop(shell, program, tmp_path / "first")
    wait_until(lambda: any("end ." in f.read_text() for f in tmp_path.glob("state/*/records")))
    (result,) = run(shell, program)
    assert result.outcome is Outcome.CHANGED
    assert (tmp_path / "first").read_text() == "once\n"


@pytest.mark.subprocess
def test_after_the_death_of_the_runner_only_the_half_step_is_tried_again(shell: list[str], tmp_path: Path) -> None:
    gate = f"until [ -e {tmp_path}/gate ]; do sleep 0.1; done"
    steps = [
        step(f"echo once >>{tmp_path}/failed; exit 4", optional=True),
        counted(tmp_path, "first"),
        counted(tmp_path, "second", gate),
        counted(tmp_path, "third"),
    ]
    program = compile_program(steps, str(tmp_path / "state"))
    start_and_drop(shell, program, tmp_path / "second")
    (pid,) = [int(file.read_text()) for file in tmp_path.glob("state/*/runner")]
    os.kill(pid, signal.SIGKILL)
    (tmp_path / "gate").touch()
    wait_until(lambda: not Path(f"/proc/{pid}/cwd").exists())
    results = run(shell, program)
    assert [r.outcome for r in results] == ["failed", "changed", "changed", "changed"]
    assert [(tmp_path / n).read_text().count("once") for n in ("failed", "first", "second", "third")] == [1, 1, 2, 1]


@pytest.mark.subprocess
def test_another_program_waits_for_the_one_that_still_runs(shell: list[str], tmp_path: Path) -> None:
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    slow = compile_program([step(f"touch {begun}; sleep 1; touch {ended}")], str(tmp_path / "state"))
    start_and_drop(shell, slow, begun)
    (result,) = run(shell, compile_program([step(f"[ -e {ended} ]")], str(tmp_path / "state")))
    assert result.outcome is Outcome.CHANGED
    assert not (tmp_path / "state").exists()


@pytest.mark.subprocess
def test_a_runner_that_dies_is_reported_at_once(shell: list[str], tmp_path: Path) -> None:
    program = compile_program([step(f"kill -9 $(cat {tmp_path}/state/*/runner); sleep 1")], str(tmp_path / "state"))
    with pytest.raises(GuestFailed, match="died"):
        run(shell, program)


def test_the_digest_is_of_the_steps_and_not_of_the_run() -> None:
    one, same = (compile_program([step(("echo ", Secret("x")))]) for _ in range(2))
    assert one.digest == same.digest and one.text != same.text
    assert one.digest != compile_program([step("echo y")]).digest


def test_the_masked_program_names_every_step_and_control() -> None:
    masked = compile_program([step("true", optional=True, title="Say\nso; rm -rf /")]).masked
    assert "\n# 1. sample [H01], optional: Say so; rm -rf /\naction_1() {" in masked
    assert MACHINERY.read_text() in masked


def line(program: Program, rest: str) -> str:
    return f"{program.nonce} {rest}\n"


def test_records_become_results_and_noise_is_ignored() -> None:
    program = compile_program([step("a"), step("b")])
    printed = base64.b64encode(b"hello\n").decode()
    lines = ["Welcome\n", line(program, ""), line(program, "1 began 0 10.00 10.00 - ."), "f00 1 ok 0 0 0 - .\n"]
    lines += [line(program, f"1 changed 0 10.00 12.50 {printed} ."), line(program, "2 failed 3 12.50 12.50 - .")]
    assert list(parse_records(program, [*lines, line(program, "end .")])) == [
        StepResult(program.steps[0], Outcome.CHANGED, "hello", 2.5, 0),
        StepResult(program.steps[1], Outcome.FAILED, "", 0.0, 3),
    ]


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "did not run to its end: sudo: a password is required"),
        (["1 ok 0 1 2 - ."], "did not run to its end"),
        (["end ."], "without an outcome for: a step"),
        (["2 ok 0 1 2 - ."], "a step 2 that it does not have"),
        (["1 fine 0 1 2 - ."], "broken record"),
        (["1 ok zero 1 2 - ."], "broken record"),
        (["1 ok 0 1 2 !!! ."], "broken record"),
        (["died bm8gcm9vbQ== ."], "died: no room"),
    ],
)
def test_wrong_records_are_errors(records: list[str], message: str) -> None:
    program = compile_program([step("a")])
    lines = ["sudo: a password is required\n", *(line(program, record) for record in records)]
    with pytest.raises(GuestFailed, match=message):
        list(parse_records(program, lines))


@settings(deadline=None)
@given(st.lists(st.text(max_size=80), max_size=8))
def test_no_line_but_a_record_gives_a_result(lines: list[str]) -> None:
    reader = RecordReader(compile_program([step("a")]))
    assert [reader.read(text) for text in lines] == [None] * len(lines)


@settings(deadline=None)
@given(st.text(alphabet="abcdefgh '\\\n", min_size=6, max_size=60), st.text(max_size=20), st.integers(0, 60))
def test_no_secret_survives_in_output(secret: str, around: str, start: int) -> None:
    program = compile_program([step(("echo ", Secret(secret, "S"), " ", Secret("unrelated" * 3, "T")))])
    shown = decode_output(base64.b64encode(f"{around}{secret}{around}".encode()).decode(), program)
    assert secret not in shown or secret in "«S»" or not secret.strip()
    cut = f"{secret[start:]} tail ".ljust(OUTPUT_BYTES, "x")
    rest = secret[start:]
    if len(rest) >= 6 and rest.strip():
        assert not decode_output(base64.b64encode(cut.encode()).decode(), program).startswith(rest)


@settings(deadline=None)
@given(st.text())
def test_visible_text_cannot_command_a_terminal(text: str) -> None:
    assert not any(ord(character) < 32 and character not in "\n\t" for character in visible(text))


def test_a_secret_is_quoted_for_the_shell() -> None:
    program = compile_program([step(("echo ", Secret("a b'c")))])
    assert f"\necho {shlex.quote(chr(97) + ' b' + chr(39) + 'c')}\n" in program.text
