"""The refresh of users' keys: it comes up by itself, and only root changes what it does."""

import pytest

from checks.fixtures import Ask, File
from pipeline.spec import KeySync, Spec

UNIT, TIMER = "assay-key-sync.service", "assay-key-sync.timer"
FILES = ("/etc/assay/key-sync/key-sync.sh", f"/etc/systemd/system/{UNIT}", f"/etc/systemd/system/{TIMER}")


@pytest.fixture
def refresh(spec: Spec) -> KeySync:
    """What the spec says of it."""
    if spec.harden.key_sync is None:
        pytest.skip("the image does not refresh its users' keys (harden.key_sync)")
    return spec.harden.key_sync


@pytest.mark.controls("H11", layers="LB")
def test_keys_are_refreshed_at_each_boot(refresh: KeySync, ask: Ask) -> None:
    """The timer of the refresh is enabled."""
    assert ask(f"systemctl is-enabled {TIMER} 2>/dev/null || true").strip() == "enabled"


@pytest.mark.controls("H11", layers="LB")
def test_keys_come_from_where_the_spec_says(refresh: KeySync, ask: Ask) -> None:
    """The script asks for the spec's object or parameter, and for no other."""
    name = refresh.source.removeprefix("s3:/").removeprefix("ssm:")
    asked = ask(f"grep -hE '^url=|--data-raw' {FILES[0]} || true").replace("\\", "")
    assert f"{name}'" in asked or f'"{name}"' in asked


@pytest.mark.controls("H11", layers="LB")
def test_only_root_changes_the_refresh(refresh: KeySync, files: tuple[File, ...]) -> None:
    """Script, unit and timer are root's, and nobody else may write them."""
    found = {str(file): file for file in files if str(file) in FILES}
    assert sorted(found) == sorted(FILES)
    assert [path for path, file in found.items() if file.owner != "root" or file.mode & 0o022 or file.kind != "f"] == []


@pytest.mark.controls("H11", layers="B")
def test_the_refresh_does_not_fail(refresh: KeySync, ask: Ask) -> None:
    """The last refresh did not fail; where the instance has no role, it says so and changes nothing."""
    assert ask(f"systemctl is-failed {UNIT} || true").strip() in ("active", "inactive", "activating")
