"""What the spec forbids on a shared image: files go, and a forbidden package stops the build (S23; seed [3])."""

import shlex

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.scrub.removal import removal
from pipeline.spec import Spec

INSTALLED = r"""
installed() {
    for name in $packages; do
        if command -v dpkg-query >/dev/null; then
            case $(dpkg-query -W -f '${db:Status-Abbrev}' "$name" 2>/dev/null) in ?i*) echo "$name" ;; esac
        elif rpm -q "$name" >/dev/null 2>&1; then
            echo "$name"
        fi
    done
}
"""


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the steps that remove forbidden files, and that fail where a forbidden package is installed.

    A package is not removed: others may need it, and whoever wrote the spec asked for it.
    """
    found = []
    for forbidden in spec.scrub.forbid:
        if forbidden.paths:
            patterns = " ".join(shlex.quote(path.rstrip("/")) for path in forbidden.paths)
            title = f"remove what may not be passed on: {forbidden.reason}"
            found.append(removal(spec, "forbidden", ("S23",), title, f"under {patterns}"))
        if forbidden.packages:
            define = assign(packages=" ".join(forbidden.packages)) + INSTALLED
            title = f"no package that may not be passed on: {forbidden.reason}"
            refuse = f'{define}echo "installed, and forbidden by the spec:" $(installed)\nexit 1\n'
            found.append(Step("forbidden", ("S23",), title, refuse, f'{define}[ -z "$(installed)" ]'))
    return tuple(found)
