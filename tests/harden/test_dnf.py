"""dnf for real: packages, a signed repository and updates, by Debian's own dnf and rpm in a Debian in a folder.

What is not run here is a guest of the Red Hat family: SELinux, authselect, and the packages that Amazon Linux has.
"""

import functools
import http.server
import shutil
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from pipeline.guest.program import Outcome, StepResult
from pipeline.guest.step import Step
from pipeline.harden import packages, tool_updates, updates
from pipeline.spec import Repository, ToolUpdates, UpdatesOptions
from tests.harden.samples import Debian, make_debian
from tests.harden.test_repository import Quiet

pytestmark = pytest.mark.end_to_end

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


def recipe(name: str, version: int, install: str = "", files: str = "") -> str:
    """Return what rpmbuild makes a package of."""
    return (
        f"Name: {name}\nVersion: {version}\nRelease: 1\nSummary: a sample\nLicense: none\nBuildArch: noarch\n"
        f"%description\na sample\n{install}\n%files\n{files}\n"
    )


@dataclass
class Machine:
    """A Debian whose packages are dnf's, and a repository that it reaches over http."""

    debian: Debian
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
    packages_of_dnf = "dnf,rpm,createrepo-c,systemd,gpg,gpg-agent"
    debian = make_debian(tmp_path_factory.mktemp("dnf"), "bookworm-dnf-1", packages_of_dnf)
    for name, version in (("sample", 1), ("closed", 1), ("plain", 1), ("plain", 2), ("secure", 1), ("secure", 2)):
        debian.write(f"/build/{name}-{version}.spec", recipe(name, version))
    debian.write("/build/automatic.spec", recipe("dnf-automatic", 1, AUTOMATIC, AUTOMATIC_FILES))
    debian.write("/build/updateinfo.xml", ADVISORY)
    debian.write("/etc/dnf/vars/releasever", "1\n")  # a distribution with dnf has it from a package of its own
    debian.run(MAKE)
    handler = functools.partial(Quiet, directory=str(debian.root / "build/repository"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Machine(debian, f"http://127.0.0.1:{server.server_port}")
        server.shutdown()


def test_a_repository_of_the_build_is_closed_again(machine: Machine) -> None:
    source = machine.repository(only_for_build=True)
    result = machine.install("closed", source=source)
    assert result.outcome is Outcome.CHANGED, result.output
    assert machine.version("closed") == "1"
    assert machine.debian.run("ls /etc/yum.repos.d /etc/pki/rpm-gpg") == "/etc/pki/rpm-gpg:\n\n/etc/yum.repos.d:\n"
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
