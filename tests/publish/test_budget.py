"""How often a release asks: few calls a region besides waiting, and an end also where one a second is allowed."""

from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.aws import images, wait
from pipeline.aws.tags import NAME, Tags, new_build_id
from pipeline.journal import Journal
from pipeline.publish import copies, release, sharing
from pipeline.publish.copies import Proved
from pipeline.publish.release import Release
from pipeline.publish.status import Standing, release_status
from pipeline.spec import Release as Options
from pipeline.spec import Share, Spec
from tests.fake_cloud import CONSUMER, make_image
from tests.publish.conftest import ABROAD, HOME, REGIONS
from tests.publish.faulty import Call, Throttle, Wire, WiredSession
from tests.publish.scripted_release import BLOCK, DIGEST, SPEC

pytestmark = pytest.mark.end_to_end
MOST_CALLS = 12
"""Of one region, besides those that wait for something and those that read its blocks."""
MOST_LOOKS = 12
"""Of one region that wait, where everything is there at once."""
BLOCKS = ("ListSnapshotBlocks", "GetSnapshotBlock")


def mark_polls(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the wire know which calls are made to wait for something."""

    def wait_marked(describe, *arguments, **options):
        def look():
            wire.polling.on = True
            try:
                return describe()
            finally:
                wire.polling.on = False

        return wait.wait_until(look, *arguments, **options)

    for module in (images, copies, sharing, release):
        monkeypatch.setattr(module, "wait_until", wait_marked)


def perform(session: WiredSession, folder: Path) -> tuple[Spec, images.Image]:
    """Release a new image to everybody in all regions, with everything that a release can do."""
    now = datetime.now(UTC)
    tags = Tags(new_build_id(now), "sha256:00", "tests", now + timedelta(hours=6))
    options = Options(regions=ABROAD, parameter="/images/web", deprecate_after_days=30, protect=True)
    spec = SPEC.model_copy(update={"share": Share(accounts=(CONSUMER,), public=True), "release": options})
    image = make_image(session, tags, f"web-{tags.build_id}", BLOCK)
    session.wire.arm(None)
    with Journal(folder / "journal.jsonl", tags.build_id) as journal:
        proved = Proved(image, HOME, (DIGEST,))
        Release(session, spec, proved, tags, journal, lambda *_: None, lambda _: None).perform()
    return spec, image


def test_a_region_costs_at_most_twelve_calls(home, virtual_time, tmp_path, monkeypatch) -> None:
    mark_polls(home.wire, monkeypatch)
    perform(home, tmp_path)
    for region in REGIONS:
        made = [call for call in home.wire.calls if call.region == region and call.action not in BLOCKS]
        looks = [call for call in home.wire.polls if call.region == region]
        others = [str(call) for call in made if call not in looks]
        assert len(others) <= MOST_CALLS, others
        assert len(looks) <= MOST_LOOKS, list(map(str, looks))
        assert {"CopyImage"} <= {call.action for call in made} or region == HOME


def test_a_release_ends_where_one_request_a_second_is_allowed(home, virtual_time, tmp_path) -> None:
    allowed: dict[str, float] = {}
    refused: Counter[str] = Counter()

    def throttle(call: Call, _: str) -> None:
        if call.action in BLOCKS:
            return  # EBS direct counts by itself, and allows a thousand
        virtual_time.enter(call.region)
        if virtual_time.now() < allowed.get(call.region, 0.0):
            refused[call.region] += 1
            raise Throttle
        allowed[call.region] = virtual_time.now() + 1.0

    home.wire.before = throttle
    try:
        spec, image = perform(home, tmp_path)
    finally:
        home.wire.before = lambda *_: None
    assert min(refused[region] for region in REGIONS) > MOST_CALLS, "hardly anything was throttled: no bite"
    standing = {one.region: one.standing for one in release_status(home, spec, image.image_id)}
    assert standing == dict.fromkeys(REGIONS, Standing.CORRECT)
    assert all(len(images.find_images(home.in_region(region), image.tags[NAME])) == 1 for region in REGIONS)
