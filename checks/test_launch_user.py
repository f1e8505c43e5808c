"""Who launches an instance of a paid image is not root on it, where the spec says so."""

import pytest
import yaml

from checks.fixtures import Ask
from pipeline.spec import Spec

PRIVILEGED = {"sudo", "wheel", "admin", "adm", "root", "disk", "shadow", "docker", "lxd", "libvirt", "systemd-journal"}
SETTINGS = 'for file in /etc/cloud/cloud.cfg /etc/cloud/cloud.cfg.d/*.cfg; do echo "# file"; cat "$file"; done'


@pytest.fixture
def launch_user(spec: Spec) -> str:
    """The account that gets the launch key, and nothing more."""
    if spec.harden.launch_user_sudo or spec.image.launch_user is None:
        pytest.skip("the spec leaves sudo to who launches an instance (harden.launch_user_sudo)")
    return spec.image.launch_user


@pytest.mark.controls("H30", layers="LB")
def test_the_launch_user_is_in_no_privileged_group(launch_user: str, groups: dict[str, set[str]]) -> None:
    """The launch user is in no group whose members are root, or can become it; their own group is none of these."""
    held = {name for name, members in groups.items() if launch_user in members}
    assert sorted(held & PRIVILEGED - {launch_user}) == []


@pytest.mark.controls("H30", layers="B")
def test_the_launch_user_may_run_nothing_as_root(launch_user: str, ask: Ask) -> None:
    """sudo grants the launch user nothing."""
    assert "is not allowed to run sudo" in ask(f"LC_ALL=C sudo -l -U {launch_user} 2>&1; true")


@pytest.mark.controls("H30", "H22", layers="LB")
def test_user_data_is_not_read(launch_user: str, ask: Ask, programs: frozenset[str]) -> None:
    """cloud-init reads no user-data: it would run it as root."""
    if "cloud-init" not in programs:
        pytest.skip("cloud-init is not installed")
    allowed: object = True
    for text in ask(SETTINGS).split("# file\n"):
        allowed = (yaml.safe_load(text) or {}).get("allow_userdata", allowed)
    assert allowed is False
