"""dnf for real: packages, a signed repository and updates, by Debian's own dnf and rpm in a Debian in a folder.

What is not run here is a guest of the Red Hat family: SELinux, authselect, and the packages that Amazon Linux has.
"""

import functools
import http.server
import re
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import pytest

from pipeline.guest.facts import Facts
from pipeline.guest.program import Outcome, StepResult
from pipeline.guest.step import Step
from pipeline.harden import packages, tool_updates, updates
from pipeline.report.evidence import Layer, Status
from pipeline.spec import Repository, ToolUpdates, UpdatesOptions
from pipeline.verify.live import CHECKS
from tests.checks.small_debian import ChrootShell, overlay
from tests.harden.samples import Debian, make_debian, spec
from tests.harden.test_repository import Quiet
from tests.verify.proving import prove

pytestmark = pytest.mark.end_to_end

PACKAGES_OF_DNF = "dnf,rpm,createrepo-c,systemd,gpg,gpg-agent"
AUTOMATIC = """
%install
mkdir -p %{buildroot}/usr/lib/systemd/system
printf '[Timer]\\nOnCalendar=daily\\n[Install]\\nWantedBy=timers.target\\n' \\
    >%{buildroot}/usr/lib/systemd/system/dnf-automatic.timer
"""
AUTOMATIC_FILES = "/usr/lib/systemd/system/dnf-automatic.timer"
"""Debian's dnf has dnf-automatic's program and settings; the package of that name only adds the timer."""

DNF_AUTOMATIC = "import sys, dnf.automatic.main; sys.exit(dnf.automatic.main.main(sys.argv[1:]))"
MAKE = """
export GNUPGHOME=/build/gpg
mkdir -p -m 700 /build/gpg /build/repository
for name in vendor mallory; do
    gpg --batch --quiet --passphrase '' --quick-generate-key $name rsa3072 sign never
    gpg --armor --export $name >/build/$name.asc
done
for spec in /build/*.spec; do
    rpmbuild --quiet -bb --define '_topdir /build' "$spec" 2>/build/log || cat /build/log
done
rpmsign --define '__gpg /usr/bin/gpg' --define '_gpg_name vendor' --addsign /build/RPMS/noarch/*.rpm >/dev/null
cp /build/RPMS/noarch/*.rpm /build/repository
createrepo_c --quiet /build/repository
modifyrepo_c --mdtype=updateinfo /build/updateinfo.xml /build/repository/repodata >/dev/null
gpgconf --kill all
"""
ADVISORY = """<?xml version="1.0"?>
<updates><update from="vendor" status="final" type="security" version="1"><id>V-1</id><title>a hole</title>
<severity>Important</severity><issued date="2026-01-01 00:00:00"/><description>a hole</description>
<pkglist><collection short="v"><name>v</name>
<package name="secure" version="2" release="1" epoch="0" arch="noarch" src="secure-2-1.src.rpm">
<filename>secure-2-1.noarch.rpm</filename></package></collection></pkglist></update></updates>
"""
PLANTED = {
    "updates::dnf_installs_what_it_finds": "sed -i 's/^apply_updates.*/apply_updates = no/' /etc/dnf/automatic.conf",
    "updates::the_timers_are_enabled": "systemctl disable --quiet dnf-automatic.timer",
    "updates::dnf_checks_signatures": "printf '[a]\\nenabled=0\\ngpgcheck=0\\n' >/etc/yum.repos.d/redhat-a.repo",
    "updates::no_package_is_half_installed": "rpm -e --nodeps secure",
    "tool_updates::tools_are_the_newest": "dnf -y -q downgrade plain-1",
    "repositories::only_the_repositories_of_the_spec_are_open": "printf '[b]\\nenabled=0\\n' >/etc/yum.repos.d/b.repo",
    "repositories::each_repository_is_bound_to_its_key": "cp /build/mallory.asc /etc/pki/rpm-gpg/assay-vendor.asc",
}
"""For each check what breaks H16, H17 or H32 where dnf is."""
OF_A_BOOT = {"tool_updates::tools_are_updated_at_each_boot", "tool_updates::the_update_of_tools_went_well"}
"""These want a unit that systemd has run: tests/harden/test_on_a_guest.py."""


def recipe(name: str, version: int, install: str = "", files: str = "", needs: str = "") -> str:
    """Return what rpmbuild makes a package of."""
    return (
        f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: a sample\nLicense: none\nBuildArch: noarch\n{needs}"
        f"%description\na sample\n{install}\n%files\n{files}\n"
    )


class Box(Protocol):
    """A Debian, in a folder or booted."""

    def run(self, script: str) -> str:
        """Run a script and return what it printed."""

    def facts(self) -> Facts:
        """Ask it what it is."""

    def perform(self, steps: tuple[Step, ...]) -> list[StepResult]:
        """Run the steps as a guest program."""

    def write(self, path: str, content: str) -> None:
        """Write a file."""

    def read(self, path: str) -> str:
        """Return a file's content."""


@dataclass
class Machine:
    """A Debian whose packages are dnf's, and a repository that it reaches over http."""

    debian: Box
    url: str

    def repository(self, name: str = "vendor", signer: str = "vendor", **changes: Any) -> Repository:
        """Return the repository as a spec names it."""
        return Repository(name=name, url=self.url, key=self.debian.read(f"/build/{signer}.asc"), **changes)

    def perform(self, steps: tuple[Step, ...]) -> StepResult:
        """Run the one step there is."""
        (result,) = self.debian.perform(steps)
        return result

    def install(self, *names: str, source: Repository) -> StepResult:
        """Install packages from a repository, as the hardening does."""
        return self.perform(packages.steps(self.facts, names, ("H17",), (source,)))

    @property
    def facts(self) -> Any:
        """What the steps are told of it."""
        return replace(self.debian.facts(), family="redhat", package_manager="dnf", has_systemd=True)

    def version(self, name: str) -> str:
        """Return the installed version of a package."""
        return self.debian.run(f"rpm -q --qf '%{{VERSION}}' {name} || true")

    def open_with(self, *older: str) -> None:
        """Open the repository for good, and install older versions from it."""
        self.install(source=self.repository())
        self.debian.run(f"dnf -y -q install {' '.join(older)}; dnf -y -q downgrade {' '.join(older)} || true")


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    if shutil.which("mmdebstrap") is None:
        pytest.skip("needs mmdebstrap")
    debian = make_debian(tmp_path_factory.mktemp("dnf"), "bookworm-dnf-1", PACKAGES_OF_DNF)
    make_repository(debian)
    handler = functools.partial(Quiet, directory=str(debian.root / "build/repository"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Machine(debian, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def make_repository(debian: Box) -> None:
    """Build the packages, sign them, and make a repository of them."""
    for name, version in (("sample", 1), ("closed", 1), ("plain", 1), ("plain", 2), ("secure", 1), ("secure", 2)):
        debian.write(f"/build/{name}-{version}.spec", recipe(name, version))
    debian.write("/build/needy.spec", recipe("needy", 1, needs="Requires: secure\n"))
    debian.write("/build/automatic.spec", recipe("dnf-automatic", 1, AUTOMATIC, AUTOMATIC_FILES))
    debian.write("/build/updateinfo.xml", ADVISORY)
    debian.write("/etc/dnf/vars/releasever", "1\n")  # a distribution with dnf has it from a package of its own
    debian.run(MAKE)


def install_and_close(machine: Machine, name: str, source: Repository) -> None:
    """Install a package from a repository of the build alone, of which nothing is left afterwards."""
    result = machine.install(name, source=source)
    assert result.outcome is Outcome.CHANGED, result.output
    assert machine.version(name) == "1"
    assert machine.debian.run("ls /etc/yum.repos.d /etc/pki/rpm-gpg") == "/etc/pki/rpm-gpg:\n\n/etc/yum.repos.d:\n"


def test_a_repository_of_the_build_is_closed_again(machine: Machine) -> None:
    source = machine.repository(only_for_build=True)
    install_and_close(machine, "closed", source)
    assert "not installed" in machine.version("gpg-pubkey"), "its key counts for nothing any more"
    assert machine.install("closed", source=source).outcome is Outcome.OK


def test_a_package_that_another_key_signed_is_refused(machine: Machine) -> None:
    result = machine.install("sample", source=machine.repository("other", "mallory", only_for_build=True))
    assert result.outcome is Outcome.FAILED
    assert "not installed" in machine.version("sample")


def test_a_package_comes_from_a_signed_repository(machine: Machine) -> None:
    result = machine.install("sample", source=machine.repository())
    assert result.outcome is Outcome.CHANGED, result.output
    assert machine.version("sample") == "1"
    assert machine.install("sample", source=machine.repository()).outcome is Outcome.OK


def test_security_updates_are_installed_and_then_all(machine: Machine) -> None:
    """`security` takes what an advisory names and leaves the rest; `all` takes the rest; then nothing is left."""
    machine.open_with("plain-1", "secure-1")
    for at_build, versions in (("security", ("1", "2")), ("all", ("2", "2"))):
        steps = updates.steps(machine.facts, UpdatesOptions(at_build=at_build, periodic=False))
        changed, again = machine.perform(steps), machine.perform(steps)
        assert changed.outcome is Outcome.CHANGED, changed.output
        assert (machine.version("plain"), machine.version("secure")) == versions
        assert again.outcome is Outcome.OK, again.output


def test_security_updates_come_every_day(machine: Machine) -> None:
    """The step sets dnf-automatic up; what its timer starts then installs a security update, and no other."""
    steps = updates.steps(machine.facts, UpdatesOptions(at_build="none"))
    machine.open_with("plain-1", "secure-1")
    result = machine.perform(steps)
    assert result.outcome is Outcome.CHANGED, result.output
    assert machine.perform(steps).outcome is Outcome.OK
    machine.debian.run(f"python3 -c '{DNF_AUTOMATIC}' /etc/dnf/automatic.conf")
    assert (machine.version("plain"), machine.version("secure")) == ("1", "2")


def test_tools_are_updated_by_name(machine: Machine) -> None:
    """What runs at boot updates the named package, and no other (H32)."""
    machine.open_with("plain-1", "secure-1")
    options = ToolUpdates(packages=("plain",), reason="support needs the newest")
    machine.debian.write("/run/tools.sh", tool_updates.script(machine.facts, options))
    machine.debian.run("sh /run/tools.sh")
    assert (machine.version("plain"), machine.version("secure")) == ("2", "1")


def failing(machine: Machine, folder: Path, script: str) -> set[str]:
    """Plant something in a copy of it; return which checks fail there."""
    tools = {"packages": ["plain"], "reason": "support needs the newest"}
    wanted = spec(harden={"repositories": [machine.repository().model_dump(mode="json")], "tool_updates": tools})
    checks = folder / "checks"
    checks.mkdir(parents=True)
    for subject in ("repositories", "tool_updates", "updates"):
        (checks / f"test_{subject}.py").symlink_to(CHECKS / f"test_{subject}.py")
    assert isinstance(machine.debian, Debian)
    with overlay(folder / "planted", machine.debian.root) as root:
        shell = ChrootShell(root)
        planted = shell.run(f"set -e\n{script}\nrm -r /usr/bin/dpkg-query /etc/apt/sources.list*")
        assert planted.exit_status == 0, planted.stderr
        results = prove([shell], Layer.FRESH_BOOT, wanted, folder, {}, checks=checks, recordings=folder)
    bad = [one for one in results if one.status in (Status.FAIL, Status.UNREACHABLE)]
    return {re.sub(r".*test_(.+)[.]py::test_", r"\1::", one.source) for one in bad} - OF_A_BOOT


def test_violations_are_found_by_their_checks_and_by_no_other(machine: Machine, tmp_path: Path) -> None:
    """Without Debian's own tools and sources it is a machine of the other family."""
    machine.open_with("plain-2", "secure-2", "needy-1")
    machine.perform(updates.steps(machine.facts, UpdatesOptions(at_build="none")))
    for name, scripts, found in (("good", [], set()), ("bad", PLANTED.values(), PLANTED.keys())):
        assert failing(machine, tmp_path / name, "\n".join(scripts)) == found
