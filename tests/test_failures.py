"""What goes wrong in the cloud or on the guest ends a build with one clear error and a status, and leaves nothing."""

from pathlib import Path
from typing import Any

import pytest

from pipeline.build import build_image
from pipeline.report.console import Console
from pipeline.report.evidence import Evidence
from pipeline.report.evidence_folder import read_report
from pipeline.spec import load_spec
from pipeline.stages import guests
from tests.fake_cloud import FakeCloud, fake_cloud, holdings

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

SPEC = Path(__file__).parents[1] / "specs" / "debian-12-local.yaml"


def build(cloud: FakeCloud, builds: Path) -> Evidence:
    """Build where guests boot nothing: their console shows a host key, and nobody answers at their port."""
    spec = load_spec(SPEC)
    session = cloud.open(spec.region)
    return build_image(spec, spec_path=SPEC, session=session, builds=builds, console=Console(quiet=True))


def refuse(action: str, code: str, after: int = 0) -> dict[str, Any]:
    """Return a fault: every call of this action is refused with this code; the preflight's dry run is the first."""
    return {
        "kind": "error",
        "action": action,
        "after": after,
        "code": code,
        "message": "as the test wants it",
        "status": 400,
        "times": 0,
    }


FAULTS = {
    "no capacity in any zone": ({"kind": "capacity", "times": 0}, 14, "InsufficientInstanceCapacity"),
    "credentials that expire meanwhile": (refuse("RunInstances", "RequestExpired"), 12, "credentials"),
    "a right that is missing": (refuse("CreateSecurityGroup", "UnauthorizedOperation"), 16, "CreateSecurityGroup"),
    "a right that is lost": (
        refuse("CreateSecurityGroup", "UnauthorizedOperation", after=1),
        13,
        "CreateSecurityGroup",
    ),
    "a quota that is used up": (refuse("RunInstances", "VcpuLimitExceeded", after=1), 13, "quota"),
    "a snapshot that is refused": (refuse("CreateSnapshot", "SnapshotLimitExceeded"), 13, "SnapshotLimitExceeded"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_refusal_is_one_error_and_leaves_nothing(name, fake_cloud: FakeCloud, tmp_path, monkeypatch):
    monkeypatch.setattr(guests, "BOOT_SECONDS", 2.0)
    fault, status, word = FAULTS[name]
    session = fake_cloud.open("eu-central-1")
    before = holdings(session)

    with fake_cloud.faults(fault):
        evidence = build(fake_cloud, tmp_path)

    assert evidence.exit_status == status, evidence.error
    assert word in (evidence.error or "")
    assert "eu-central-1" in (evidence.error or "")
    assert evidence.leaks == ()
    assert holdings(session) == before


def test_a_guest_that_never_answers_is_named_and_removed(fake_cloud: FakeCloud, tmp_path, monkeypatch):
    monkeypatch.setattr(guests, "BOOT_SECONDS", 2.0)
    session = fake_cloud.open("eu-central-1")
    before = holdings(session)

    evidence = build(fake_cloud, tmp_path)

    assert evidence.exit_status == 20
    assert "i-" in (evidence.error or "")
    assert "console" in (evidence.error or ""), "it says where to look"
    assert (tmp_path / evidence.build_id / "console-instance.log").read_text()
    assert read_report(tmp_path / "latest").exit_status == 20
    assert holdings(session) == before


def test_what_cannot_be_removed_is_listed_and_decides_the_exit_status(fake_cloud: FakeCloud, tmp_path, monkeypatch):
    monkeypatch.setattr(guests, "BOOT_SECONDS", 2.0)
    with fake_cloud.faults(refuse("DeleteKeyPair", "UnauthorizedOperation")):
        evidence = build(fake_cloud, tmp_path)

    assert [leak.kind for leak in evidence.leaks] == ["key-pair"]
    assert "UnauthorizedOperation" in evidence.leaks[0].reason
    assert evidence.exit_status == 20, "the first error is the one to mend; the leak is listed beside it"
