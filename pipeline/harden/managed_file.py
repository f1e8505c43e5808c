"""A file whose whole content is ours: how a step tests it, and how it is written."""

import shlex
from dataclasses import dataclass

END = "ASSAY_END_OF_FILE"


@dataclass(frozen=True)
class ManagedFile:
    """A file of root's, with a content and a mode (octal, without the leading zero: `644`)."""

    path: str
    content: str
    mode: str = "644"

    @property
    def test(self) -> str:
        """Lines of a step's test: the file is there, with this content, this mode, and owned by root."""
        path = shlex.quote(self.path)
        return (
            f"[ ! -L {path} ]\n"
            f"[ \"$(stat -c '%a %u %g' {path} 2>/dev/null)\" = '{self.mode} 0 0' ]\n"
            f'[ "$(cat {path}; echo .)" = "$(cat <<\'{END}\'\n{self.content}{END}\necho .)" ]\n'
        )

    @property
    def action(self) -> str:
        """Lines of a step's action: the file is written beside its place and moved there, so it is never half there."""
        path, folder = shlex.quote(self.path), shlex.quote(self.path.rpartition("/")[0] or "/")
        # Hidden, with a suffix that no program reads a configuration from.
        new = shlex.quote(f"{self.path.rpartition('/')[0]}/.{self.path.rpartition('/')[2]}.assay-new")
        return (
            f"mkdir -p {folder}\n(umask 077 && cat >{new}) <<'{END}'\n{self.content}{END}\n"
            f"chown 0:0 {new}\nchmod {self.mode} {new}\nmv -f {new} {path}\n"
        )
