"""The fresh boot in another account: with what was shared for it, which is taken back, and nothing is left there."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.aws.launch_permissions import read_launch_permissions
from pipeline.aws.session import Session
from pipeline.aws.tags import Tags
from pipeline.prove import prove_image
from pipeline.report.console import Console
from pipeline.report.evidence import Evidence, Layer, Status
from pipeline.spec import Consumer, load_spec
from pipeline.stages import boots, consumer, context, guests
from tests.fake_cloud import CONSUMER, FakeCloud, fake_cloud, holdings, make_image
from tests.scripted_build import SPEC, ScriptedChecks, ScriptedShell, passed

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

ROLE = f"arn:aws:iam::{CONSUMER}:role/prover"
TAGS = Tags("20260101-000000-abcdee", "0" * 64, "arn:aws:iam::123456789012:user/test", datetime(2026, 1, 2, tzinfo=UTC))
REGION = "eu-central-1"


@pytest.fixture(scope="module")
def image_id(fake_cloud: FakeCloud) -> str:
    """An image of the builder's, private."""
    return make_image(fake_cloud.open(REGION), TAGS, "consumed").image_id


@pytest.fixture
def theirs(fake_cloud: FakeCloud) -> Session:
    """The consumer's account."""
    return fake_cloud.open(REGION).as_role(ROLE)


@pytest.fixture
def prove(fake_cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Evidence]:
    """A function that proves an image from the consumer's account, where a script stands in for the guest."""
    monkeypatch.setattr(guests, "connect", lambda *_, **__: ScriptedShell(lambda: None))
    monkeypatch.setattr(context, "start_checks", lambda layer, *_, **__: nullcontext(ScriptedChecks(layer)))
    monkeypatch.setattr(boots, "prove_console", lambda *_, **__: passed(Layer.FRESH_BOOT))
    monkeypatch.setattr(boots, "try_logins", lambda *_: passed(Layer.FRESH_BOOT))
    monkeypatch.setattr(boots, "prove_outbound", lambda *_: passed(Layer.FRESH_BOOT)[0])
    monkeypatch.setattr(boots, "write_sbom", lambda *_: None)
    spec = load_spec(SPEC)
    named = spec.prove.model_copy(update={"consumer": Consumer(role_arn=ROLE, external_id="assay")})

    def run(image_id: str) -> Evidence:
        return prove_image(
            image_id,
            spec.model_copy(update={"prove": named}),
            spec_path=SPEC,
            session=fake_cloud.open(REGION),
            builds=tmp_path,
            console=Console(quiet=True),
        )

    return run


def launched_in(session: Session) -> list[dict[str, Any]]:
    """Return the instances of an account, ended ones too."""
    reservations = session.client("ec2").describe_instances()["Reservations"]
    return [dict(instance) for reservation in reservations for instance in reservation["Instances"]]


def shared_with(cloud: FakeCloud, image_id: str) -> frozenset[str]:
    return read_launch_permissions(cloud.open(REGION), image_id).accounts


def test_the_consumer_launches_what_was_shared_with_nobody_else(
    fake_cloud: FakeCloud, theirs: Session, prove: Callable[[str], Evidence], image_id: str
) -> None:
    before = holdings(theirs)
    evidence = prove(image_id)

    shared = [result for result in evidence.results if result.source == "stages/consumer"]
    assert [result.status for result in shared] == [Status.PASS]
    assert {result.status for result in evidence.results if result.layer is Layer.FRESH_BOOT} <= {
        Status.PASS,
        Status.NOT_APPLICABLE,
    }
    assert [one["ImageId"] for one in launched_in(theirs)] == [image_id]
    assert launched_in(fake_cloud.open(REGION)) == []
    assert shared_with(fake_cloud, image_id) == frozenset()
    assert (holdings(theirs), evidence.leaks) == (before, ())
    assert {one.kind for one in evidence.resources} == {"key-pair", "security-group", "instance"}
    assert all(one.removed for one in evidence.resources)


def test_a_launch_that_fails_takes_the_permission_back(
    fake_cloud: FakeCloud, theirs: Session, prove: Callable[[str], Evidence], image_id: str
) -> None:
    before = holdings(theirs)
    with fake_cloud.faults({"kind": "capacity", "times": 0}):
        evidence = prove(image_id)

    assert evidence.exit_status == 14
    assert shared_with(fake_cloud, image_id) == frozenset()
    assert (holdings(theirs), evidence.leaks) == (before, ())


def test_without_the_permission_the_consumer_launches_nothing(
    prove: Callable[[str], Evidence], image_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(consumer, "grant_launch", lambda *_: None)
    evidence = prove(image_id)

    assert evidence.exit_status == 13
    assert "InvalidAMIID" in (evidence.error or "")
    assert [result.status for result in evidence.results if result.source == "stages/consumer"] == [Status.FAIL]


def test_a_permission_that_stays_is_a_leak(
    fake_cloud: FakeCloud, prove: Callable[[str], Evidence], image_id: str
) -> None:
    refused = {
        "kind": "error",
        "action": "ModifyImageAttribute",
        "code": "UnauthorizedOperation",
        "message": "as the test wants it",
        "status": 403,
        "after": 1,
        "times": 0,
    }
    with fake_cloud.faults(refused):
        evidence = prove(image_id)

    assert [leak.kind for leak in evidence.leaks] == ["launch-permission"]
    assert evidence.exit_status != 0
