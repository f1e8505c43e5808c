"""The root shell's protocol, over a pipe to each of three shells."""

import contextlib
import os
import select
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import GuestUnreachable
from pipeline.guest.root_shell import BATCH_BYTES, LOOP, PRELUDE, Output, RootShell, frame, new_nonce, split_batches


class Pipe:
    """A stream to a local process."""

    def __init__(self, arguments: list[str]) -> None:
        self.process = subprocess.Popen(arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin, self.process.stdout

    def write(self, data: bytes, ends: float) -> None:
        """Never wait: an ssh channel takes two megabytes at once, a pipe does not."""
        threading.Thread(target=self.feed, args=(data,), daemon=True).start()

    def feed(self, data: bytes) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.stdin.write(data)
            self.stdin.flush()

    def read(self, ends: float) -> bytes:
        if not select.select([self.stdout], [], [], max(0, ends - time.monotonic()))[0]:
            raise TimeoutError
        return os.read(self.stdout.fileno(), 65536)

    def close(self) -> None:
        self.process.stdin.close()  # type: ignore[union-attr]

    def complaint(self) -> str:
        return ""


@pytest.fixture(params=["dash", "busybox ash", "bash"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RootShell]:
    words = str(request.param).split()
    if shutil.which(words[0]) is None:
        pytest.skip(f"{words[0]} is not installed")
    nonce = new_nonce()
    pipe = Pipe([*words, "-c", f"echo noise; {PRELUDE}{LOOP}", "sh", nonce, str(tmp_path)])
    opened = RootShell(pipe, nonce, "i-0123")
    yield opened
    opened.close()
    pipe.process.wait(30)
    pipe.stdout.close()
    assert list(tmp_path.glob("assay-shell.*")) == []


COMMANDS = {
    "echo out; echo err >&2; exit 3": Output(3, "out\n", "err\n"),
    "printf open": Output(0, "open", ""),
    "printf open >&2; false": Output(1, "", "open"),
    "cat; read -r line || echo nothing": Output(0, "nothing\n", ""),
    r"printf 'a\000b\377\n'": Output(0, "a\0b\udcff\n", ""),
    "": Output(0, "", ""),
    "cd /tmp; left=behind; exec >/dev/null": Output(0, "", ""),
    'pwd; echo "${left-none} $# ${HISTFILE-none} $(umask)"': Output(0, "/\nnone 0 none 0022\n", ""),
    "cat <<'END'\nline 'one'\n\n  $two\nEND\n": Output(0, "line 'one'\n\n  $two\n", ""),
    "trap 'echo bye' EXIT; kill -9 $(exec sh -c 'echo $PPID')": Output(137, "", ""),
    "sleep 30 & echo left": Output(0, "left\n", ""),
    "echo caf\N{LATIN SMALL LETTER E WITH ACUTE} \udcfe": Output(
        0, "caf\N{LATIN SMALL LETTER E WITH ACUTE} \udcfe\n", ""
    ),
    "set -e; false; echo never": Output(1, "", ""),
    "set | grep -c '^mark=' || :": Output(0, "0\n", ""),
    "seq 50000": Output(0, "".join(f"{n}\n" for n in range(1, 50001)), ""),
}


@pytest.mark.subprocess
def test_commands_one_by_one_and_all_at_once(shell: RootShell) -> None:
    assert [shell.run(command) for command in COMMANDS] == list(COMMANDS.values())
    assert shell.run_many(list(COMMANDS)) == list(COMMANDS.values())
    assert shell.run_many([]) == []


@pytest.mark.subprocess
def test_a_command_that_cannot_be_parsed_harms_only_itself(shell: RootShell) -> None:
    broken, after = shell.run_many(["echo 'unfinished", "echo after"])
    assert broken.exit_status != 0 and broken.stderr
    assert after == Output(0, "after\n", "")


@pytest.mark.subprocess
def test_a_batch_larger_than_every_buffer(shell: RootShell) -> None:
    word = "x" * 5000
    assert [o.stdout for o in shell.run_many([f"echo {n}{word}" for n in range(110)])] == [
        f"{n}{word}\n" for n in range(110)
    ]


@pytest.mark.subprocess
def test_a_command_that_does_not_end_loses_the_shell_for_good(shell: RootShell, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with pytest.raises(GuestUnreachable, match=r"did not end in time \(i-0123\)"):
        shell.run(f"until [ -e {gate} ]; do sleep 0.05; done", deadline_seconds=0.2)
    with pytest.raises(GuestUnreachable, match="did not end in time"):
        shell.run("echo")
    gate.touch()


@pytest.mark.subprocess
def test_a_shell_that_dies_is_unreachable(shell: RootShell, tmp_path: Path) -> None:
    with pytest.raises(GuestUnreachable, match="it has ended"):
        shell.run(f"rm -r {tmp_path}/assay-shell.*; kill -9 $$")


@pytest.mark.subprocess
def test_a_shell_whose_files_are_gone_is_lost(shell: RootShell, tmp_path: Path) -> None:
    with pytest.raises(GuestUnreachable, match="is lost: it"):
        shell.run(f"rm -r {tmp_path}/assay-shell.*")


@pytest.mark.subprocess
def test_a_process_that_is_no_root_shell_is_refused(tmp_path: Path) -> None:
    pipe = Pipe(["sh", "-c", "echo 'Please login as the user admin'"])
    with pytest.raises(GuestUnreachable, match="Please login as the user admin"):
        RootShell(pipe, new_nonce())
    pipe.process.wait(30)
    pipe.stdout.close()


@settings(deadline=None)
@given(st.lists(st.integers(0, BATCH_BYTES), max_size=6))
def test_batches_lose_nothing_and_are_small(sizes: list[int]) -> None:
    frames = [bytes(size) for size in sizes]
    batches = list(split_batches(frames))
    assert [item for batch in batches for item in batch] == frames
    assert all(sum(map(len, batch)) <= BATCH_BYTES for batch in batches)


def test_a_batch_never_fills_the_channel() -> None:
    part = bytes(BATCH_BYTES // 2)
    assert [len(batch) for batch in split_batches([part, part, part, bytes(2 * BATCH_BYTES), part])] == [2, 1, 1, 1]


def test_a_frame_tells_its_lines() -> None:
    assert frame("a\n\nb", b"mark") == b"3 mark\na\n\nb\n"


class Forged:
    """A stream whose answers all end with the same words."""

    def __init__(self, end: bytes) -> None:
        self.end, self.said = end, b"abc ready\n"

    def write(self, data: bytes, ends: float) -> None:
        mark = data.split()[1]
        self.said = b"out" + mark + mark + self.end + b"\n"

    def read(self, ends: float) -> bytes:
        said, self.said = self.said, b""
        return said

    def close(self) -> None:
        pass

    def complaint(self) -> str:
        return ""


def test_an_answer_says_how_it_ended_and_how_long_it_took():
    answer = RootShell(Forged(b"abc 3 10.25 11.75"), "abc").run("true")
    assert (answer, answer.seconds) == (Output(3, "out", ""), 1.5)


@pytest.mark.parametrize(
    "end", [b"abc 0", b"abd 0 1.00 2.00", b"abc -1 1.00 2.00", b"abc 0 nan 2.00", b"abc 0 1.00 2.00 3.00", b""]
)
def test_an_answer_that_is_none_ends_the_shell(end):
    shell = RootShell(Forged(end), "abc")
    with pytest.raises(GuestUnreachable, match="its answer is no answer"):
        shell.run("true")
