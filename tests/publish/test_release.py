"""A release over regions: complete or taken back, public strictly last, and a second run changes nothing."""

import os
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.aws import images, launch_permissions, parameters, snapshots
from pipeline.aws.blocks import BLOCK_SIZE
from pipeline.aws.session import Session
from pipeline.aws.tags import EXPIRES, NAME, NEVER, Tags, new_build_id
from pipeline.block_digest import digest_blocks
from pipeline.errors import AssayError, ReleaseFailed, ReleaseIncomplete
from pipeline.journal import Journal
from pipeline.publish import copies
from pipeline.publish.copies import Proved
from pipeline.publish.release import Release, digests_of
from pipeline.publish.status import Standing, release_status, require_complete
from pipeline.report.evidence import Result
from pipeline.residue.proof import prove_raw
from pipeline.spec import Release as Options
from pipeline.spec import Share, Spec, load_spec
from tests.fake_cloud import CONSUMER, ROOT, FakeCloud, fake_cloud, make_image
from tests.publish.faulty import READING

__all__ = ["fake_cloud"]
HOME, ABROAD = "eu-central-1", "us-east-1"
REGIONS = (HOME, ABROAD)
BASE = load_spec(ROOT / "specs" / "debian-12-local.yaml")
SPEC = BASE.model_copy(
    update={
        "share": Share(accounts=(CONSUMER,), public=True),
        "release": Options(regions=(ABROAD,), parameter="/images/web", deprecate_after_days=30, protect=True),
    }
)


class Disk:
    """A disk of three blocks, one of them zeros."""

    identity = "disk"
    size_bytes, block_size = 4 * BLOCK_SIZE, BLOCK_SIZE

    def __init__(self) -> None:
        self.content = {0: os.urandom(BLOCK_SIZE), 2: bytes(BLOCK_SIZE), 3: os.urandom(BLOCK_SIZE)}

    def indices(self):
        return sorted(self.content)

    def read(self, index):
        return self.content[index]

    def read_many(self, indices):
        yield from ((index, self.content[index]) for index in indices)


def test_a_copy_is_held_against_the_digest_of_the_proof():
    disk = Disk()
    digest = digest_blocks(disk.size_bytes, disk.block_size, disk.read_many(disk.indices()))
    assert digest == prove_raw(disk, ())[2]
    del disk.content[2]
    assert digest == digest_blocks(disk.size_bytes, disk.block_size, disk.read_many(disk.indices()))
    disk.content[0] = b"x" + disk.content[0][1:]
    assert digest != digest_blocks(disk.size_bytes, disk.block_size, disk.read_many(disk.indices()))


@dataclass
class Scene:
    """A proved image, and where it is released."""

    cloud: FakeCloud
    folder: Path
    session: Session
    tags: Tags
    image: images.Image
    results: list[Result] = field(default_factory=list)

    def release(self, spec: Spec = SPEC) -> None:
        with Journal(self.folder / "journal.jsonl", self.tags.build_id) as journal:
            proved = Proved(self.image, HOME, tuple(digests_of(self.session, self.image.snapshot_ids, {})))
            run = Release(
                self.session,
                spec,
                proved,
                self.tags,
                journal,
                lambda *found: self.results.extend(found),
                lambda _: None,
            )
            try:
                run.perform()
            except BaseException:
                journal.undo_all()
                raise

    def at(self, region: str) -> images.Image | None:
        return copies.find_copy(self.session.in_region(region), self.image.tags[NAME])

    def held(self) -> set[str]:
        """Return who has what, in every region."""
        found = set()
        for region in REGIONS:
            there, image = self.session.in_region(region), self.at(region)
            value = parameters.find_parameter(there, "/images/web")
            found |= {f"{region} parameter"} if image and value == image.image_id else set()
            if image:
                who = launch_permissions.read_launch_permissions(there, image.image_id).describe()
                found |= {f"{region} launch {one}" for one in who}
                for snapshot_id in image.snapshot_ids:
                    holders = snapshots.read_snapshot_permissions(there, snapshot_id)
                    found |= {f"{region} snapshot {one}" for one in holders}
        return found

    def changing_calls(self) -> list[str]:
        calls = self.cloud.ask("GET", "calls", {})["calls"]
        return [f"{one['region']} {one['action']}" for one in calls if not one["action"].startswith(READING)]


@pytest.fixture
def scene(fake_cloud: FakeCloud, tmp_path: Path):
    session = fake_cloud.open(HOME)
    now = datetime.now(UTC)
    tags = Tags(new_build_id(now), "sha256:00", session.caller_arn, now + timedelta(hours=6))
    for region in REGIONS:
        session.in_region(region).client("ec2").disable_image_block_public_access()
        parameters.delete_parameter(session.in_region(region), "/images/web")
    image = make_image(session, tags, f"web-{tags.build_id}")
    fake_cloud.ask("DELETE", "calls", {})
    return Scene(fake_cloud, tmp_path, session, tags, image)


EVERYTHING = {
    f"{region} {what}"
    for region in REGIONS
    for what in ("parameter", "launch all", f"launch {CONSUMER}", f"snapshot {CONSUMER}")
}


@pytest.mark.end_to_end
def test_a_release_is_complete_in_every_region_and_public_strictly_last(scene):
    scene.release()
    assert scene.held() == EVERYTHING
    copy = scene.at(ABROAD)
    assert copy.image_id != scene.image.image_id
    assert copy.tags[EXPIRES] == NEVER
    assert copy.protection.startswith("enabled") and scene.at(HOME).protection.startswith("enabled")
    assert copy.deprecated_after == scene.at(HOME).deprecated_after
    assert (
        copy.deprecated_after[:10]
        == f"{datetime.fromisoformat(scene.image.creation_date) + timedelta(days=30):%Y-%m-%d}"
    )
    assert {one.status for one in scene.results} == {"pass"}
    assert any(one.controls == ("R06",) for one in scene.results)
    modifications = [call for call in scene.changing_calls() if call.endswith(("ModifyImageAttribute", "PutParameter"))]
    assert [call.split()[1] for call in modifications] == [
        *["ModifyImageAttribute"] * 2, *["PutParameter"] * 2, *["ModifyImageAttribute"] * 2
    ]  # fmt: skip


@pytest.mark.end_to_end
def test_a_second_run_changes_nothing(scene):
    scene.release()
    scene.cloud.ask("DELETE", "calls", {})
    scene.release()
    assert scene.changing_calls() == []
    assert scene.held() == EVERYTHING


@pytest.mark.end_to_end
def test_copies_that_are_not_to_stay_go_with_a_failed_release(scene):
    options = SPEC.release.model_copy(update={"copies_on_failure": "remove"})
    spec = SPEC.model_copy(update={"release": options})
    refused = {"kind": "error", "action": "PutParameter", "code": "AccessDeniedException", "status": 400, "times": 0}
    with scene.cloud.faults(refused), pytest.raises(ReleaseFailed, match="taken back"):
        scene.release(spec)
    assert scene.at(ABROAD) is None
    scene.release(spec)
    assert scene.held() == EVERYTHING
    assert scene.at(ABROAD).tags[EXPIRES] == NEVER


@pytest.mark.end_to_end
def test_a_copy_with_other_blocks_is_never_shared(scene):
    there = scene.session.in_region(ABROAD)
    planted = make_image(there, scene.tags, scene.image.name)
    assert planted.tags[NAME] == scene.image.tags[NAME]
    with pytest.raises(ReleaseFailed, match="not those that were proved"):
        scene.release()
    assert scene.held() == set()


@pytest.mark.end_to_end
def test_a_parameter_holds_again_what_it_held_when_the_release_fails(scene):
    for region in REGIONS:
        parameters.write_image_parameter(scene.session.in_region(region), "/images/web", "ami-0123456789abcdef0")
    refused = {"kind": "error", "action": "ModifyImageAttribute", "after": 3, "code": "Unavailable", "status": 400}
    with scene.cloud.faults(refused), pytest.raises(ReleaseFailed):
        scene.release()
    values = {parameters.find_parameter(scene.session.in_region(region), "/images/web") for region in REGIONS}
    assert values == {"ami-0123456789abcdef0"}


@pytest.mark.end_to_end
def test_the_status_of_a_release_names_each_kind_of_difference(scene):
    def standings(spec: Spec = SPEC) -> dict[str, Standing]:
        return {one.region: one.standing for one in release_status(scene.session, spec, scene.image.image_id)}

    assert standings() == {HOME: Standing.INCORRECT, ABROAD: Standing.MISSING}
    scene.release()
    found = release_status(scene.session, SPEC, scene.image.image_id)
    assert {one.standing for one in found} == {Standing.CORRECT}
    require_complete(found)
    at_home = SPEC.model_copy(update={"release": SPEC.release.model_copy(update={"regions": ()})})
    assert standings(at_home) == {HOME: Standing.CORRECT, ABROAD: Standing.UNEXPECTED}
    with pytest.raises(ReleaseIncomplete) as unexpected:
        require_complete(release_status(scene.session, at_home, scene.image.image_id))
    assert "deregister it" in unexpected.value.hint and "invoke share" not in unexpected.value.hint
    private = SPEC.model_copy(update={"share": Share(accounts=(CONSUMER,))})
    changed = release_status(scene.session, private, scene.image.image_id)
    assert "revoke launch: all" in changed[0].describe()
    with pytest.raises(ReleaseIncomplete, match=f"{HOME} Incorrect, {ABROAD} Incorrect"):
        require_complete(changed)
    with scene.cloud.faults({"kind": "error", "action": "DescribeSnapshotAttribute", "code": "Denied", "times": 0}):
        assert set(standings().values()) == {Standing.UNREACHABLE}


@pytest.mark.end_to_end
def test_what_the_spec_no_longer_declares_is_revoked_in_every_region(scene):
    scene.release()
    scene.release(SPEC.model_copy(update={"share": Share()}))
    assert scene.held() == {f"{region} parameter" for region in REGIONS}


def test_nothing_is_called_a_copy_that_could_not_be_read(monkeypatch):
    class Broken(Disk):
        def read_many(self, indices):
            yield 0, AssayError("unreadable")

    monkeypatch.setattr(copies, "SnapshotBlocks", lambda *_: Broken())
    with pytest.raises(AssayError, match="unreadable"):
        copies.read_digest(None, "snap-1")
