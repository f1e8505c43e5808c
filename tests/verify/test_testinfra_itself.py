"""testinfra's own tests of its backends and modules, run over the open session and over its own paramiko backend.

They come from testinfra's source distribution, by the hash of the lock. Those that apply to a Debian without Docker,
Ansible or a running systemd are run; they find what they expect of their own Debian: its users and their passwords.
"""

import re
import sys
import tarfile
from pathlib import Path

import pytest

from pipeline.report.evidence import Layer
from tests.checks.small_debian import missing_here
from tests.peers.environment import ROOT, PeersMissing, install
from tests.verify.far_debian import FarDebian, ask_by_paramiko, far_debian
from tests.verify.proving import prove
from tests.verify.test_both_backends import WORDS

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(bool(missing_here()), reason=missing_here() or "everything is here"),
]
NAMES = (
    *("test_command", "test_sudo", "test_package", "test_held_package", "test_systeminfo", "test_sysctl", "test_file"),
    *("test_user_get_all_users", "test_user_password_days", "test_user_user", "test_user_expiration_date"),
    *("test_nonexistent_user", "test_current_user", "test_group", "test_empty_command_output", "test_local_command"),
    *("test_mountpoint", "test_sudo_from_root", "test_sudo_fail_from_root", "test_command_execution"),
    *("test_environment_home", "test_encoding", "test_user_connection"),
)
FAILING = {"test_encoding", "test_user_connection"}
"""They want a French system, and a session that is not root's: over both backends they find neither."""
CONFTEST = f"""
import sys, types
import pytest

for name in ("winrm", "winrm.protocol"):  # one test asks it how it quotes; the others need not do without
    sys.modules.setdefault(name, types.ModuleType(name))


@pytest.fixture
def docker_image():
    return "debian_bookworm"


def pytest_configure(config):
    for mark in ("destructive: it breaks the system", "testinfra_hosts(*hosts): where their conftest runs it"):
        config.addinivalue_line("markers", mark)


def pytest_collection_modifyitems(items):
    items[:] = [item for item in items if item.name.partition("[")[0] in {NAMES!r}]
"""
THEIR_DEBIAN = """
useradd -m -c gecos.comment user && useradd -m unprivileged && chage -E 2030-01-01 -m 7 -M 90 user
echo root:foo | chpasswd && echo 'python3 hold' | dpkg --set-selections
"""


@pytest.fixture(scope="module")
def their_tests(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with testinfra's tests as they were released, and a conftest of ours in place of theirs."""
    folder = tmp_path_factory.mktemp("testinfra")
    locked = re.search(r"^pytest-testinfra==(?:.+\\\n)+.+$", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    assert locked
    (folder / "locked").write_text(locked[0])
    options = ("--quiet", "--require-hashes", "--no-deps", "--no-binary=pytest-testinfra", "--dest", str(folder))
    try:
        install("pip", "download", *options, "--requirement", str(folder / "locked"), python=sys.executable)
    except PeersMissing as problem:
        pytest.skip(f"testinfra's source distribution cannot be had here: {problem}")
    place = folder / "theirs"
    place.mkdir()
    with tarfile.open(next(folder.glob("*.tar.gz"))) as archive:
        for member in archive.getmembers():
            if member.name.endswith(("/test/test_backends.py", "/test/test_modules.py")):
                source = archive.extractfile(member)
                assert source
                (place / Path(member.name).name).write_bytes(source.read())
    (place / "conftest.py").write_text(CONFTEST)
    return place


def by_session(far: FarDebian, folder: Path, tests: Path) -> dict[str, str]:
    shell = far.log_in()
    results = prove(
        [shell.open_root_shell()], Layer.LIVE, far.spec, folder, {}, checks=tests, recordings=folder / "recordings"
    )
    shell.close()
    far.system.run("rm -r /d")
    return {result.source.rpartition("::")[2]: WORDS[result.status] for result in results}


def test_testinfra_s_own_tests_say_the_same_over_both_backends(their_tests: Path, tmp_path: Path) -> None:
    with far_debian(tmp_path) as far:
        assert far.system.run(THEIR_DEBIAN).exit_status == 0
        first, again = (by_session(far, tmp_path, their_tests) for _ in range(2))
        theirs, _ = ask_by_paramiko(far, tmp_path, their_tests)
    stock = {name.rpartition("::")[2]: word for name, word in theirs.items()}
    assert first == again == stock
    assert first == {name: "FAILED" if name in FAILING else "PASSED" for name in NAMES}
