"""A signed repository for real: a package is installed from it by apt, in a Debian in a folder."""

import functools
import hashlib
import http.server
import shutil
import subprocess
import threading
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from pipeline.guest.program import Outcome, StepResult
from pipeline.harden import harden_steps
from tests.harden.samples import Debian, make_debian, spec

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(not all(map(shutil.which, ("gpg", "dpkg-deb"))), reason="needs gpg and dpkg-deb"),
]

PACKAGE = "assay-sample"
CONTROL = f"Package: {PACKAGE}\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example>\nDescription: none\n"


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files, and says nothing."""

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """A repository of one package, signed, as a spec names it."""
    folder = tmp_path_factory.mktemp("repository")
    home = str(tmp_path_factory.mktemp("gpg"))
    gpg = ["gpg", "--homedir", home, "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "vendor", "ed25519", "sign", "never"], check=True)
    key = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True, text=True).stdout
    make_repository(folder)
    release = folder / "dists/stable/Release"
    subprocess.run([*gpg, "--clearsign", "--output", str(release.with_name("InRelease")), str(release)], check=True)
    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield {"name": "vendor", "url": f"http://127.0.0.1:{server.server_port}", "key": key}
        server.shutdown()


def make_repository(folder: Path) -> None:
    """Make the package, and the lists of a repository that holds it."""
    (folder / "package/DEBIAN").mkdir(parents=True)
    (folder / "package/DEBIAN/control").write_text(CONTROL)
    subprocess.run(["dpkg-deb", "--build", "package", f"{PACKAGE}.deb"], cwd=folder, check=True, capture_output=True)
    packages = folder / "dists/stable/main/binary-amd64/Packages"
    packages.parent.mkdir(parents=True)
    binary = sum_of(folder / f"{PACKAGE}.deb", "Size: {1}\nSHA256: {0}")
    packages.write_text(f"{CONTROL}Filename: {PACKAGE}.deb\n{binary}\n")
    listed = sum_of(packages, " {0} {1} main/binary-amd64/Packages")
    release = f"Suite: stable\nCodename: stable\nComponents: main\nArchitectures: amd64\nSHA256:\n{listed}\n"
    (folder / "dists/stable/Release").write_text(f"Date: {formatdate(usegmt=True)}\n{release}")


def sum_of(path: Path, form: str) -> str:
    """Return a file's SHA-256 and size in a form."""
    content = path.read_bytes()
    return form.format(hashlib.sha256(content).hexdigest(), len(content))


@pytest.fixture
def debian(tmp_path: Path) -> Debian:
    """A Debian that knows no other source of packages: the test is about this one."""
    made = make_debian(tmp_path)
    made.run("rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /run/assay-*; dpkg --remove-architecture i386")
    return made


def install(debian: Debian, **source: Any) -> StepResult:
    """Harden with one repository and its package, and return what became of that step."""
    wanted = spec(
        users=[],
        harden={
            **{"updates": None, "kernel": None, "sshd": None, "first_boot": False, "remove_other_users": False},
            "repositories": [source],
            "packages": [PACKAGE],
        },
    )
    (result,) = (one for one in debian.perform(harden_steps(debian.facts(), wanted)) if one.step.subject == "packages")
    return result


def test_a_package_comes_from_a_signed_repository(debian: Debian, repository: dict[str, Any]) -> None:
    result = install(debian, **repository)
    assert result.outcome is Outcome.CHANGED, result.output
    assert "install ok installed" in debian.run(f"dpkg-query -W -f '${{Status}}' {PACKAGE}")
    assert debian.has("/etc/apt/sources.list.d/assay-vendor.sources")
    assert not debian.has("/usr/sbin/policy-rc.d")
    assert install(debian, **repository).outcome is Outcome.OK


def test_a_repository_of_the_build_is_closed_again(debian: Debian, repository: dict[str, Any]) -> None:
    result = install(debian, **repository, only_for_build=True)
    assert result.outcome is Outcome.CHANGED, result.output
    assert debian.run("ls /etc/apt/keyrings /etc/apt/sources.list.d | grep assay || true") == ""
    assert install(debian, **repository, only_for_build=True).outcome is Outcome.OK


def test_a_repository_that_another_key_signed_is_refused_and_closed(
    debian: Debian, repository: dict[str, Any], tmp_path: Path
) -> None:
    (home := tmp_path / "other").mkdir(mode=0o700)
    gpg = ["gpg", "--homedir", str(home), "--batch", "--quiet", "--pinentry-mode=loopback", "--passphrase", ""]
    subprocess.run([*gpg, "--quick-generate-key", "mallory", "ed25519", "sign", "never"], check=True)
    other = subprocess.run([*gpg, "--armor", "--export"], check=True, capture_output=True, text=True).stdout
    result = install(debian, **{**repository, "key": other}, only_for_build=True)
    assert result.outcome is Outcome.FAILED
    assert "not signed" in result.output or "NO_PUBKEY" in result.output
    assert debian.run("ls /etc/apt/keyrings /etc/apt/sources.list.d | grep assay || true") == ""
