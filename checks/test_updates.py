"""Package updates: the image is whole, its sources are signed, and instances stay up to date by themselves."""

import re

import pytest

from checks.fixtures import Ask
from pipeline.spec import Spec, UpdatesOptions

KERNELS = "uname -r; ls -v /boot/vmlinuz-* 2>/dev/null; true"


@pytest.fixture
def wanted(spec: Spec) -> UpdatesOptions:
    """What the spec says of updates."""
    if spec.harden.updates is None:
        pytest.skip("the spec leaves updates as the base image has them")
    return spec.harden.updates


@pytest.fixture
def periodic(wanted: UpdatesOptions) -> None:
    """Only where the spec wants periodic updates."""
    if not wanted.periodic:
        pytest.skip("the spec does not ask for periodic updates")


@pytest.fixture
def apt(ask: Ask, family: str) -> dict[str, str]:
    """The settings of apt that take effect."""
    if family != "debian":
        pytest.skip("packages are not managed by apt here")
    lines = re.findall(r'^(\S+?)(?:::)? "(.*)";$', ask("apt-config dump"), re.MULTILINE)
    settings: dict[str, str] = {}
    for name, value in lines:
        settings[name] = f"{settings.get(name, '')} {value}".strip()
    return settings


@pytest.mark.controls("H16", layers="LB")
def test_security_updates_are_installed_daily(periodic: None, apt: dict[str, str]) -> None:
    """apt looks for updates and installs them every day."""
    for name in ("APT::Periodic::Update-Package-Lists", "APT::Periodic::Unattended-Upgrade"):
        assert apt.get(name) in ("1", "always"), name
    assert apt.get("APT::Periodic::Enable", "1") == "1"


@pytest.mark.controls("H16", layers="LB")
def test_security_updates_are_allowed(periodic: None, apt: dict[str, str]) -> None:
    """unattended-upgrades takes updates from the security archive."""
    origins = apt.get("Unattended-Upgrade::Origins-Pattern", "") + apt.get("Unattended-Upgrade::Allowed-Origins", "")
    assert "security" in origins.lower()


@pytest.mark.controls("H16", layers="LB")
def test_unattended_upgrades_is_installed(
    periodic: None, apt: dict[str, str], packages: dict[str, tuple[str, str]]
) -> None:
    """The tool that installs the updates is there."""
    assert packages.get("unattended-upgrades", ("missing", ""))[0] == "installed"


@pytest.mark.controls("H16", layers="LB")
def test_the_timers_are_enabled(periodic: None, ask: Ask, family: str) -> None:
    """The timers that start the updates are enabled."""
    if family == "debian":
        states = ask("systemctl is-enabled apt-daily.timer apt-daily-upgrade.timer 2>/dev/null || true").split()
        assert states == ["enabled", "enabled"]
    else:
        names = "dnf-automatic.timer dnf-automatic-install.timer dnf5-automatic.timer"
        assert "enabled" in ask(f"systemctl is-enabled {names} 2>/dev/null || true").split()


@pytest.mark.controls("H16", layers="LB")
def test_dnf_installs_what_it_finds(periodic: None, ask: Ask, family: str) -> None:
    """dnf-automatic installs updates rather than only looking for them."""
    if family != "rpm":
        pytest.skip("packages are not managed by dnf here")
    settings = ask("cat /etc/dnf/automatic.conf; systemctl is-enabled dnf-automatic-install.timer 2>/dev/null || true")
    assert re.search(r"^apply_updates\s*=\s*(yes|true|1)|^enabled$", settings, re.MULTILINE)


@pytest.mark.controls("H16", layers="LB")
def test_no_package_is_half_installed(ask: Ask, family: str, packages: dict[str, tuple[str, str]]) -> None:
    """Every package is completely installed and configured."""
    if family == "debian":
        assert ask("dpkg --audit").splitlines() == []
        assert [name for name, (_, flag) in packages.items() if flag != "ok"] == []
    else:
        assert ask("rpm -Va --nofiles --nodigest 2>&1 | grep -i 'unsatisfied' || true").splitlines() == []


@pytest.mark.controls("H16", layers="B")
def test_the_newest_kernel_runs(ask: Ask) -> None:
    """An update of the kernel is in use: the image has booted the newest one that it holds."""
    running, *kernels = ask(KERNELS).splitlines()
    if not kernels:
        pytest.skip("the image has no kernel in /boot")
    assert running == kernels[-1].removeprefix("/boot/vmlinuz-")


@pytest.mark.controls("H16", layers="B")
def test_no_reboot_is_pending(ask: Ask) -> None:
    """No package waits for a reboot."""
    assert ask("cat /run/reboot-required.pkgs /var/run/reboot-required.pkgs 2>/dev/null || true").splitlines() == []


@pytest.mark.controls("H17", "V06", layers="LB")
def test_repositories_are_signed(apt: dict[str, str], ask: Ask) -> None:
    """No repository is trusted without a signature."""
    switches = (
        "APT::Get::AllowUnauthenticated",
        "Acquire::AllowInsecureRepositories",
        "Acquire::AllowWeakRepositories",
    )
    assert {name: apt[name] for name in switches if apt.get(name, "0") not in ("0", "false", "no")} == {}
    blind = (
        "grep -rEsl -e 'trusted=yes|allow-insecure=yes|^[Tt]rusted: *yes' /etc/apt/sources.list /etc/apt/sources.list.d"
    )
    assert ask(f"{blind}; true").splitlines() == []


@pytest.mark.controls("H17", layers="LB")
def test_dnf_checks_signatures(ask: Ask, family: str) -> None:
    """dnf installs nothing that is not signed."""
    if family != "rpm":
        pytest.skip("packages are not managed by dnf here")
    assert ask("grep -rhsiE '^gpgcheck *= *(0|no|false)' /etc/dnf/dnf.conf /etc/yum.repos.d; true") == ""
