"""What may not be passed on: nothing is there that the spec forbids on a shared image."""

import re

import pytest

from checks.fixtures import Ask, File
from pipeline.spec import Spec

NAMES = "dpkg-query -W -f '${db:Status-Abbrev} ${Package}\\n' 2>/dev/null || rpm -qa --qf 'ii %{NAME}\\n'"


def expression(pattern: str) -> re.Pattern[str]:
    """Return what a shell's pattern matches, with everything below it; * and ? stand for no slash."""
    signs = {"*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(signs.get(sign, re.escape(sign)) for sign in pattern.rstrip("/")) + "(/.*)?")


@pytest.mark.controls("S23", layers="LB")
def test_nothing_is_there_that_may_not_be_passed_on(spec: Spec, files: tuple[File, ...], ask: Ask) -> None:
    """No file and no package that the spec forbids."""
    if not spec.scrub.forbid:
        pytest.skip("the spec forbids nothing (scrub.forbid)")
    forbidden = [expression(path) for one in spec.scrub.forbid for path in one.paths]
    assert [str(file) for file in files if any(pattern.fullmatch(str(file)) for pattern in forbidden)] == []
    installed = {line.split()[-1] for line in ask(NAMES).splitlines() if line[1:2] == "i"}
    assert sorted(installed.intersection(name for one in spec.scrub.forbid for name in one.packages)) == []
