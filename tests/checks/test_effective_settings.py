"""What sshd says of its settings is asked of it, also while its service restarts."""

import subprocess
from pathlib import Path

import pytest

from checks.fixtures import SSHD

GONE = "Missing privilege separation directory: /run/sshd"


def ask(folder: Path, times: int, problem: str) -> subprocess.CompletedProcess[str]:
    """Ask a stand-in for sshd that fails so many times."""
    program = folder / "program"
    program.write_text(
        f'#!/bin/sh\necho >>{folder}/asked\n[ $(wc -l <{folder}/asked) -gt {times} ] && echo "port 22" && exit\n'
        f'echo "{problem}" >&2\nexit 255\n'
    )
    program.chmod(0o755)
    question = SSHD.replace("%s", "root 192.0.2.1").replace("/usr/sbin/sshd", str(program))
    question = question.replace("/run/", f"{folder}/")
    return subprocess.run(["sh"], input=question, capture_output=True, text=True, check=False)


@pytest.mark.subprocess
def test_a_service_that_restarts_meanwhile_is_asked_once_more(tmp_path: Path) -> None:
    answer = ask(tmp_path, 1, GONE)
    assert (answer.returncode, answer.stdout.splitlines()[1:]) == (0, ["## root 192.0.2.1", "port 22"])


@pytest.mark.subprocess
@pytest.mark.parametrize(("times", "problem"), [(2, GONE), (1, "Bad configuration option: x")])
def test_what_stays_wrong_is_said(tmp_path: Path, times: int, problem: str) -> None:
    answer = ask(tmp_path, times, problem)
    assert answer.returncode
    assert problem in answer.stderr
