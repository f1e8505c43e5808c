"""A file whose whole content is ours: how a step tests it, and how it is written."""

import re
import shlex
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.guest.step import Step, reveal
from pipeline.guest.variables import assign


@dataclass(frozen=True)
class ManagedFile:
    """A file of root's, with a content and a mode (octal, without the leading zero: `644`)."""

    path: str
    content: str
    mode: str = "644"

    @property
    def test(self) -> str:
        """Lines of a step's test: the file is there, with this content, this mode, and owned by root."""
        return assign(file=self.path, content=self.content, mode=self.mode) + IS_WRITTEN

    @property
    def action(self) -> str:
        """Lines of a step's action: the file is written beside its place and moved there, so it is never half there."""
        return assign(file=self.path, content=self.content, mode=self.mode) + WRITE


IS_WRITTEN = """
[ ! -L "$file" ]
[ "$(stat -c '%a %u %g' "$file" && cat "$file" && echo .)" = "$mode 0 0
$content." ]
"""

# The new file is hidden, with a suffix that no program reads settings from. No process more than it takes: on a slow
# guest they are what costs.
WRITE = """
folder=${file%/*}
new=$folder/.${file##*/}.assay-new
[ -d "$folder" ] || mkdir -p "$folder"
umask 077
printf %s "$content" >"$new"
umask 022
[ ! -g "$folder" ] || chown 0:0 "$new"
chmod "$mode" "$new"
mv -f "$new" "$file"
"""

WRITTEN = re.compile(rf"^file=(.*?)\ncontent=(.*?)\nmode=(.*?)\n{re.escape(WRITE)}", re.DOTALL | re.MULTILINE)


def written_files(steps: Iterable[Step]) -> Iterator[ManagedFile]:
    """Yield every file that steps write as a whole, as their actions say it themselves."""
    for step in steps:
        for values in WRITTEN.findall(reveal(step.action)):
            path, content, mode = ("".join(shlex.split(value)) for value in values)
            yield ManagedFile(path, content, mode)
