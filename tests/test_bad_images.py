"""`verify` of an image that is no good: a report that says so, nothing left behind, and a status by what was wrong."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from pipeline.aws import images
from pipeline.aws.session import Session
from pipeline.aws.tags import Tags
from pipeline.errors import GuestFailed
from pipeline.prove import prove_image
from pipeline.report.catalogue import controls_at
from pipeline.report.console import Console
from pipeline.report.evidence import Evidence, Layer, Status
from pipeline.report.evidence_folder import find_page
from pipeline.spec import load_spec
from pipeline.stages import guests
from tests.fake_cloud import FakeCloud, base_image, fake_cloud, holdings, make_image
from tests.scripted_build import ScriptedShell

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

TAGS = Tags("20260101-000000-abcdef", "0" * 64, "arn:aws:iam::123456789012:user/test", datetime(2026, 1, 2, tzinfo=UTC))
SPEC = Path(__file__).parents[1] / "specs" / "debian-12-local.yaml"
NEVER_BOOTED = b"GRUB loading...\r\nerror: no such partition.\r\ngrub rescue> \r\n"
HOSTILE = (
    b"\x1b]0;owned\x07\x1b[2J<script>alert(1)</script> & \xe2\x80\xae reversed \x00\r\n"
    b"-----BEGIN SSH HOST KEY KEYS-----\r\n\x1b[31m<img src=x onerror=alert(2)>\r\n"
    b"-----END SSH HOST KEY KEYS-----\r\n" * 400
)


@contextmanager
def saying(cloud: FakeCloud, console: bytes) -> Iterator[None]:
    """Let guests print something else."""
    path = Path(cloud.ask("GET", "status", {})["home"]) / "instances" / "console"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(console)
    try:
        yield
    finally:
        path.unlink()


@pytest.fixture
def verify(fake_cloud: FakeCloud, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Evidence]:
    """A function that proves an image on a cloud whose guests boot nothing."""
    monkeypatch.setattr(guests, "BOOT_SECONDS", 2.0)
    spec = load_spec(SPEC)

    def run(image_id: str) -> Evidence:
        session = fake_cloud.open(spec.region)
        before = holdings(session)
        evidence = prove_image(
            image_id, spec, spec_path=SPEC, session=session, builds=tmp_path, console=Console(quiet=True)
        )
        assert holdings(session) == before
        assert evidence.leaks == ()
        return evidence

    return run


@pytest.fixture(scope="module")
def session(fake_cloud: FakeCloud) -> Session:
    return fake_cloud.open(load_spec(SPEC).region)


@pytest.fixture(scope="module")
def image_id(session: Session) -> str:
    """An image of one block, in which nothing is to be found."""
    return make_image(session, TAGS, "bad").image_id


def require_unknown(evidence: Evidence, reason: str) -> None:
    """Require that nothing is known of the fresh boot, that the report says why, and that the blocks were searched."""
    boot = [result for result in evidence.results if result.layer is Layer.FRESH_BOOT]
    assert [result.status for result in boot if result.status is not Status.NOT_APPLICABLE] == [Status.UNREACHABLE]
    assert set(boot[0].controls) == set(controls_at(Layer.FRESH_BOOT))
    assert reason in boot[0].detail
    assert {result.status for result in evidence.results if result.layer is Layer.RAW} >= {Status.PASS}
    assert any(result.layer is Layer.AWS for result in evidence.results)


def test_an_image_that_does_not_boot(fake_cloud: FakeCloud, verify: Any, image_id: str) -> None:
    with saying(fake_cloud, NEVER_BOOTED):
        evidence = verify(image_id)
    assert evidence.exit_status == 20
    require_unknown(evidence, "no host key appeared on the console")
    require_unknown(evidence, "grub rescue>")


def test_an_image_without_ssh(verify: Any, image_id: str) -> None:
    evidence = verify(image_id)
    assert evidence.exit_status == 20
    require_unknown(evidence, "no login by ssh")


def test_an_image_that_hangs_in_cloud_init(verify: Any, image_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Hanging(ScriptedShell):
        def run(self, command: str, **_: Any) -> Any:
            raise GuestFailed("a command did not end within 600 s", resource="i-1")

    monkeypatch.setattr(guests, "connect", lambda *_, **__: Hanging(lambda: None))
    evidence = verify(image_id)
    assert evidence.exit_status == 22
    require_unknown(evidence, "did not end within 600 s")


def test_an_image_of_another_architecture(verify: Any, session: Session) -> None:
    made = make_image(session, TAGS, "arm")
    like_base = images.registration_like(
        base_image(session), name="arm of a test", description="x", root_snapshot_id=made.snapshot_ids[0]
    )
    registration = replace(like_base, architecture="arm64", boot_mode="uefi")
    evidence = verify(images.register_image(session, TAGS, "assay-test-arm", registration))
    assert evidence.exit_status == 13
    require_unknown(evidence, "architecture")
    assert "the architecture is as asked" in [
        result.title for result in evidence.results if result.status is Status.FAIL
    ]


def test_an_image_that_wants_a_subscription(fake_cloud: FakeCloud, verify: Any, image_id: str) -> None:
    refused = {
        "kind": "error",
        "action": "RunInstances",
        "code": "OptInRequired",
        "message": "In order to use this AWS Marketplace product you need to accept terms and subscribe."
        " To do so please visit https://aws.amazon.com/marketplace/pp?sku=abc",
        "status": 401,
        "times": 0,
    }
    with fake_cloud.faults(refused):
        evidence = verify(image_id)
    assert evidence.exit_status == 17
    require_unknown(evidence, "accept terms and subscribe")


def test_an_image_that_does_not_exist(verify: Any) -> None:
    evidence = verify("ami-0123456789abcdef0")
    assert evidence.exit_status == 13
    assert "ami-0123456789abcdef0" in (evidence.error or "")


def test_a_hostile_console_is_escaped_everywhere(
    fake_cloud: FakeCloud, verify: Any, image_id: str, tmp_path: Path
) -> None:
    with saying(fake_cloud, HOSTILE):
        evidence = verify(image_id)
    assert evidence.exit_status == 20
    require_unknown(evidence, "<script>")
    folder = tmp_path / evidence.build_id
    for path in (path for path in folder.iterdir() if path.is_file()):
        content = path.read_bytes()
        assert not {b"\x1b", b"\x00", b"\x07"} & {content[i : i + 1] for i in range(len(content))}, path
        assert "\u202e" not in content.decode(), path
    page = find_page(folder).read_text()
    assert "<script" not in page and "<img" not in page
    assert "&lt;script&gt;" in page
