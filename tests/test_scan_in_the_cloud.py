"""Scans of snapshots that do not go smoothly: interrupted, throttled, refused, public. None of them ends as a pass."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from pipeline.aws.blocks import BLOCK_SIZE
from pipeline.aws.images import Image
from pipeline.aws.session import Session
from pipeline.aws.tags import Tags
from pipeline.errors import CloudFailed, ProofFailed
from pipeline.report.results import Status
from pipeline.residue import proof
from pipeline.residue.proof import Reading
from pipeline.residue.scan import ScanReport
from pipeline.scan import scan
from tests.fake_cloud import FakeCloud, fake_cloud, make_image
from tests.planted.plants import checked_token

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

TAGS = Tags("20260101-000000-abcdef", "0" * 64, "arn:aws:iam::123456789012:user/test", datetime(2026, 1, 2, tzinfo=UTC))
TOKEN_AT = 2 * BLOCK_SIZE + 100


@pytest.fixture(scope="module")
def session(fake_cloud: FakeCloud) -> Session:
    return fake_cloud.open()


@pytest.fixture(scope="module")
def image(session: Session) -> Image:
    """An image of 12 blocks, one of which holds a token."""
    blocks = [bytearray(os.urandom(BLOCK_SIZE)) for _ in range(12)]
    token = b" " + checked_token("ghp_") + b"\n"
    blocks[2][100 : 100 + len(token)] = token
    return make_image(session, TAGS, "scanned", *((index, bytes(data)) for index, data in enumerate(blocks)))


def search(session: Session, ami: str = "", snapshot: str = "", state: str = "") -> ScanReport:
    (report,) = scan("", ami, snapshot, lambda: session, lambda *_: None, state=state).values()
    return report


def found(report: ScanReport) -> list[tuple[str, str]]:
    return [(finding.control, finding.place.rpartition("offset ")[2]) for finding in report.findings]


@contextmanager
def interrupted_at(index: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let somebody press Ctrl-C when a block comes."""
    blocks = Reading.blocks

    def breaking(reading: Reading, first: int) -> Iterator[tuple[int, bytes]]:
        for number, data in blocks(reading, first):
            if number == index:
                raise KeyboardInterrupt
            yield number, data

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(proof, "EVERY_BLOCKS", 2)
        patch.setattr(Reading, "blocks", breaking)
        yield


@pytest.mark.parametrize("by", ["ami", "snapshot"])
def test_an_interrupted_scan_goes_on_where_it_was(
    session: Session, image: Image, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, by: str
) -> None:
    named = {"ami": image.image_id} if by == "ami" else {"snapshot": image.snapshot_ids[0]}
    whole, state = search(session, **named), tmp_path / "state"
    with interrupted_at(11, monkeypatch):
        search(session, **named, state=str(state))
    begun: list[int] = []
    blocks = Reading.blocks
    monkeypatch.setattr(Reading, "blocks", lambda reading, first: (begun.append(first), blocks(reading, first))[1])
    report = search(session, **named, state=str(state))
    assert begun[0] > 2
    assert found(report) == found(whole) == [("S07", str(TOKEN_AT + 1))]
    assert report.digest == whole.digest
    assert not state.exists()


def test_throttling_is_waited_out_and_nothing_is_missed(fake_cloud: FakeCloud, session: Session, image: Image) -> None:
    throttled = {"kind": "throttle", "action": "GetSnapshotBlock", "code": "RequestThrottledException", "times": 8}
    with fake_cloud.faults(throttled):
        report = search(session, image.image_id)
    assert found(report) == [("S07", str(TOKEN_AT + 1))]
    assert not [result for result in report.results if result.status is Status.UNREACHABLE and "R01" in result.controls]


def test_what_may_not_be_decrypted_is_unreachable(fake_cloud: FakeCloud, session: Session, image: Image) -> None:
    refused = {
        "kind": "error",
        "action": "GetSnapshotBlock",
        "code": "AccessDeniedException",
        "status": 403,
        "times": 0,
    }
    with fake_cloud.faults(refused):
        report = search(session, image.image_id)
    assert report.findings == ()
    assert {result.status for result in report.results} <= {Status.UNREACHABLE, Status.NOT_APPLICABLE}
    (read,) = (result for result in report.results if result.controls == ("R01",))
    assert "bytes 0-6291455: " in read.detail
    assert "AccessDeniedException" in read.detail
    with pytest.raises(ProofFailed):
        report.require_clean(image.image_id)


def test_a_snapshot_that_became_public_is_refused(session: Session, image: Image) -> None:
    snapshot_id = image.snapshot_ids[0]
    ec2 = session.client("ec2")
    everybody = {"Attribute": "createVolumePermission", "GroupNames": ["all"], "SnapshotId": snapshot_id}
    ec2.modify_snapshot_attribute(OperationType="add", **everybody)
    try:
        with pytest.raises(CloudFailed, match="public"):
            search(session, snapshot=snapshot_id)
    finally:
        ec2.modify_snapshot_attribute(OperationType="remove", **everybody)
