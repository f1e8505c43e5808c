"""How often a release asks: few calls a region besides waiting, and an end also where one a second is allowed."""

import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import botocore.endpoint
import pytest

from pipeline.aws import images, wait
from pipeline.aws.session import open_session
from pipeline.aws.tags import NAME, Tags, new_build_id
from pipeline.journal import Journal
from pipeline.localcloud.accounts import BUILDER_ACCOUNT, SECRET, access_key
from pipeline.publish import copies, release, sharing
from pipeline.publish.copies import Proved
from pipeline.publish.release import Release
from pipeline.publish.status import Standing, release_status
from pipeline.spec import Release as Options
from pipeline.spec import Share, Spec
from tests.fake_cloud import CONSUMER, make_image
from tests.localcloud.clouds import running
from tests.publish.faulty import Call, Throttle, Wire, WiredSession, wired
from tests.publish.scripted_release import BLOCK, DIGEST, SPEC

pytestmark = [pytest.mark.loopback, pytest.mark.subprocess]
HOME = "eu-central-1"
ABROAD = (
    "us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1",
    "eu-west-2", "eu-north-1", "ap-southeast-2", "ap-northeast-1",
)  # fmt: skip
REGIONS = (HOME, *ABROAD)
MOST_CALLS = 12
"""Of one region, besides those that wait for something and those that read its blocks."""
MOST_LOOKS = 12
"""Of one region that wait, where everything is there at once."""
BLOCKS = ("ListSnapshotBlocks", "GetSnapshotBlock")


class RegionTime:
    """Time that passes only by resting, in each region on its own: there one thread at a time is at work."""

    def __init__(self) -> None:
        self.seconds: Counter[str] = Counter()
        self.here = threading.local()

    def enter(self, region: str) -> None:
        self.here.region = region

    def now(self) -> float:
        return self.seconds[getattr(self.here, "region", "")]

    def rest(self, seconds: float) -> None:
        self.seconds[getattr(self.here, "region", "")] += seconds  # type: ignore[assignment]

    sleep = rest


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WiredSession]:
    with running(Path(tmp_path_factory.mktemp("cloud"))) as cloud:
        key = access_key(BUILDER_ACCOUNT)
        session = open_session(HOME, cloud.server.url, access_key=key, secret_key=SECRET)
        for region in REGIONS:
            session.in_region(region).client("ec2").disable_image_block_public_access()
        yield wired(session)


@pytest.fixture
def virtual_time(monkeypatch: pytest.MonkeyPatch) -> Iterator[RegionTime]:
    """Let nothing wait, neither ours nor botocore's retries."""
    time, clock = RegionTime(), wait.CLOCK
    real = clock.now, clock.rest
    monkeypatch.setattr(botocore.endpoint, "time", time)
    object.__setattr__(clock, "now", time.now)
    object.__setattr__(clock, "rest", time.rest)
    yield time
    object.__setattr__(clock, "now", real[0])
    object.__setattr__(clock, "rest", real[1])


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

    def throttle(call: Call) -> None:
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
        home.wire.before = lambda _: None
    assert min(refused[region] for region in REGIONS) > MOST_CALLS, "hardly anything was throttled: no bite"
    standing = {one.region: one.standing for one in release_status(home, spec, image.image_id)}
    assert standing == dict.fromkeys(REGIONS, Standing.CORRECT)
    assert all(len(images.find_images(home.in_region(region), image.tags[NAME])) == 1 for region in REGIONS)
