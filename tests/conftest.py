"""What every test shares. Unit tests may neither open a network connection nor start a process."""

import json
import socket
import subprocess
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest
from hypothesis import HealthCheck, settings

from tests.end_to_end import remove_home, running_cloud
from tests.workshop import Workshop

# How long an example takes says more of the machine than of the code: no test asserts a time.
settings.register_profile("assay", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("assay")

FREE = ("end_to_end", "loopback", "subprocess")
LONGEST_FIRST = (
    "test_paid_image",
    "test_on_a_guest",
    "test_build_end_to_end",
    "test_readme",
    "test_guests",
    "test_private_build",
    "test_dnf_on_a_guest",
    "test_without_cloud_init",
    "test_img_proof",
    "test_recorded_calls",
    "test_kill_matrix",
    "test_fault_matrix",
    "test_real_guest",
    "test_awspub",
    "test_packer",
    "test_shell",
    "test_live",
    "test_rewrite",
    "test_control_plane",
    "test_secrets",
    "test_spec",
    "test_faults",
    "test_ci",
    "test_port_scan",
)
"""The files that boot guests, wait, or take long: begun first, no process is left alone with one at the end."""
SHARE = (
    # Their tests look at what the same build left.
    ("tests/test_build_end_to_end.py", "tests/test_readme.py"),
    # They import jsonschema, which takes seconds.
    ("tests/test_spec.py", "tests/report/test_render.py", "tests/report/test_sarif.py", "tests/report/test_sbom.py"),
)
"""Files that one process runs: what is made for the first is there for the others."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    place = {name: number for number, name in enumerate(LONGEST_FIRST)}
    items.sort(key=lambda item: place.get(item.path.stem, len(place)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> object:
    """Give each process whole files, so that what the tests of a file share is made once."""
    from xdist.scheduler import LoadFileScheduling

    class FileScheduling(LoadFileScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = super()._split_scope(nodeid)
            return next((files[0] for files in SHARE if file in files), file)

    return FileScheduling(config, log)


@pytest.fixture(autouse=True)
def no_network_and_no_processes(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit test that needs more says so with a marker: `loopback`, `subprocess` or `end_to_end`."""
    allowed = {mark for mark in FREE if request.node.get_closest_marker(mark)}
    if "end_to_end" in allowed:
        return
    if "loopback" not in allowed:
        monkeypatch.setattr(socket.socket, "connect", refuse_connection)
    if "subprocess" not in allowed:
        monkeypatch.setattr(subprocess, "Popen", RefusedProcess)


@pytest.fixture(scope="session", autouse=True)
def signing_key_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test signs with the key of the user who runs it, nor makes one for them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ASSAY_SIGNING_KEY", str(tmp_path_factory.mktemp("keys") / "signing-key.pem"))
        yield


@pytest.fixture(scope="session")
def local_cloud(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run one local cloud with real guests for all end-to-end tests, and yield the environment of its clients."""
    home = tmp_path_factory.mktemp("cloud")
    failed_before = request.session.testsfailed
    with running_cloud(home) as environment:
        yield environment
    remove_home(home, keep_logs=request.session.testsfailed > failed_before)


@pytest.fixture(scope="session")
def workshop(local_cloud: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Workshop:
    """Where Assay's own commands run."""
    return Workshop(local_cloud, tmp_path_factory.mktemp("builds"))


@pytest.fixture(scope="session")
def built(workshop: Workshop) -> dict[str, Any]:
    """The evidence of one build of the default spec, for all tests. When it fails, they say what it said."""
    run = workshop.invoke("build", "--json")
    assert run.status == 0, run.errors + run.output[-8000:]
    evidence: dict[str, Any] = json.loads(run.output)
    return evidence


def refuse_connection(self: socket.socket, address: object) -> None:
    """Let unix sockets through, and nothing else."""
    if self.family != socket.AF_UNIX:
        raise AssertionError(f"a unit test opened a connection to {address}: mark it loopback or end_to_end")
    super(socket.socket, self).connect(address)  # type: ignore[arg-type]


class RefusedProcess(subprocess.Popen[bytes]):
    """Stays a class, so that libraries that subclass or annotate with Popen still import."""

    def __init__(self, *arguments: object, **options: object) -> NoReturn:
        raise AssertionError(f"a unit test started a process: {arguments}: mark it subprocess or end_to_end")
