"""What somebody typed: no history of any shell or interpreter."""

import re

import pytest

from checks.fixtures import Ask, File

HISTORIES = re.compile(
    r"^\.(bash|zsh|sh|ash|ksh|mksh|tcsh|csh|python|node_repl|mysql|mariadb|psql|rediscli|sqlite|irb|pry|php|R|gdb|lua"
    r"|influx|mongo|dbshell|ghci|scala|julia|octave|ipython)_?(history|hist)$"
    r"|^\.(history|zhistory|histfile|lesshst|lesshsQ|viminfo|dbshell|nano_history|Rhistory|wget-hsts)$"
    r"|^(fish_history|search_history|main\.shada|mongosh_repl_history)$"
)


@pytest.mark.controls("S04", layers="LB")
def test_no_history_file(files: tuple[File, ...]) -> None:
    """No history file exists, in any home or elsewhere; a link to /dev/null keeps nothing."""
    found = [file for file in files if HISTORIES.search(file.name) and file.kind != "d"]
    assert [str(file) for file in found if file.target != "/dev/null"] == []


@pytest.mark.controls("S04", layers="LB")
def test_no_history_elsewhere(ask: Ask, files: tuple[File, ...]) -> None:
    """Where profiles put the history under another name, there is none either."""
    named = ask(
        "grep -hosE '^[^#]*HISTFILE=[^ ;]+' /etc/profile /etc/profile.d/* /etc/bash.bashrc /etc/environment; true"
    )
    places = {line.rpartition("HISTFILE=")[2].strip("\"'") for line in named.splitlines()} - {"", "/dev/null"}
    assert sorted(str(file) for file in files if str(file) in places and file.size) == []
