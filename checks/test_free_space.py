"""What was deleted: a file that a process still holds open is no free space yet, and would ship with all it holds."""

import pytest

from checks.fixtures import Ask

HELD = r"""
disks=$(awk '$2 == "/" || $1 ~ "^/dev/" { print $2 }' /proc/mounts | xargs stat -c ' %d ')
find /proc/[0-9]*/fd -maxdepth 1 -type l -lname '/* (deleted)' ! -lname '/dev/*' ! -lname '/memfd:*' \
  ! -lname '/run/*' 2>/dev/null | while IFS= read -r file; do
    [ -f "$file" ] && [ -s "$file" ] || continue
    case $disks in *" $(stat -L -c %d "$file" 2>/dev/null) "*) readlink "$file" ;; esac
done
true
"""
"""On the disks alone: what lies in memory is gone with it."""


@pytest.mark.controls("S22", "S14", layers="L")
def test_no_deleted_file_is_held_open(ask: Ask) -> None:
    """No process holds a file that was deleted and is not empty: nothing would overwrite its blocks."""
    assert ask(HELD).splitlines() == []
