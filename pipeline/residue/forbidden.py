"""What the spec forbids on a shared image, on the disk (S23; seed [3]): sensitive data, and licensed software."""

import fnmatch
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.residue.origin import Doubt, Origin

if TYPE_CHECKING:
    from pipeline.spec import Forbidden


def doubts(origin: Origin, forbidden: "Sequence[Forbidden]") -> Iterator[Doubt]:
    """Yield the files and packages that may not be passed on, with the reason of the spec."""
    for one in forbidden:
        for entry in origin.system.entries:
            if any(matches(entry.path, pattern.rstrip("/")) for pattern in one.paths):
                yield Doubt("S23", "file that may not be passed on", entry.path, one.reason)
        for name in sorted(origin.packages.installed.intersection(one.packages)):
            yield Doubt("S23", "package that may not be passed on", name, one.reason)


def matches(path: str, pattern: str) -> bool:
    """Say whether a path, or a folder that it lies in, matches a pattern, part by part as a shell does."""
    parts, wanted = path.split("/"), pattern.split("/")
    return len(parts) >= len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted))
