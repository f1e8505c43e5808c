"""Every check gives the same result over the open session as over testinfra's own paramiko backend.

Both talk to a real sshd, which runs in a small Debian, 80 ms away.
"""

import time

import pytest

from pipeline.report.evidence import Layer, Status
from pipeline.verify.live import CHECKS
from tests.checks.small_debian import missing_here
from tests.verify.far_debian import ask_by_paramiko, far_debian
from tests.verify.proving import prove

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(bool(missing_here()), reason=missing_here() or "everything is here"),
]
WORDS = {Status.PASS: "PASSED", Status.FAIL: "FAILED", Status.NOT_APPLICABLE: "SKIPPED"}


@pytest.fixture
def far_away(tmp_path):
    """A guest with a violation."""
    with far_debian(tmp_path) as far:
        far.system.run("echo x >/root/.netrc")
        yield far


def ask_by_session(far, folder):
    """Return the results over one open session, and the seconds that it took."""
    shell = far.log_in()
    root_shells = [shell.open_root_shell() for _ in range(2)]
    started = time.monotonic()
    results = prove(root_shells, Layer.LIVE, far.spec, folder, {}, recordings=folder / "recordings")
    seconds = time.monotonic() - started
    shell.close()
    return {result.source: WORDS[result.status] for result in results}, seconds


def test_both_backends_agree(far_away, tmp_path):
    first, first_seconds = ask_by_session(far_away, tmp_path)
    again, again_seconds = ask_by_session(far_away, tmp_path)
    theirs, their_seconds = ask_by_paramiko(far_away, tmp_path, CHECKS)
    print(
        f"{len(first)} checks: first {first_seconds:.1f} s, again {again_seconds:.1f} s, paramiko {their_seconds:.1f} s"
    )
    assert first == again == theirs
    assert theirs["checks/test_credentials.py::test_no_service_credentials"] == "FAILED"
    assert far_away.distance.connections == 3
