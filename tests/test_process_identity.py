import os
import subprocess
import sys
from dataclasses import replace

import pytest

from pipeline.process_identity import is_dead, start_time, this_process

HERE = this_process()
NO_PID = 2**22 + 1
"""Above the kernel's highest pid."""


@pytest.mark.parametrize(
    "process, dead",
    [
        (HERE, False),
        (replace(HERE, pid=NO_PID), True),
        (replace(HERE, started="1"), True),
        (replace(HERE, boot_id="another"), True),
        (replace(HERE, boot_id="another", host="elsewhere"), False),
        (replace(HERE, pid=NO_PID, host="elsewhere"), False),
        (replace(HERE, pid=NO_PID, machine_id="another"), False),
        (replace(HERE, pid=NO_PID, namespace="pid:[1]"), False),
        (replace(HERE, pid=NO_PID, boot_id=""), False),
    ],
    ids=[
        "itself",
        "no such pid",
        "the pid is used again",
        "rebooted",
        "another host",
        "another host's pid",
        "another machine's pid",
        "another container's pid",
        "unknown boot",
    ],
)
def test_only_a_process_that_is_certainly_dead_is_dead(process, dead):
    assert is_dead(process) is dead


@pytest.mark.subprocess
def test_a_process_that_was_killed_is_dead():
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    process = replace(HERE, pid=child.pid, started=start_time(child.pid))
    assert not is_dead(process)
    child.kill()
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert is_dead(process), "a zombie is dead"
    child.communicate()
    assert is_dead(process)
