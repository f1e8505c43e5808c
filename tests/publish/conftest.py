"""A cloud in this process, with a session over a wire, and time that nobody waits for."""

import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import botocore.endpoint
import pytest

from pipeline.aws import wait
from pipeline.aws.session import open_session
from pipeline.localcloud.accounts import BUILDER_ACCOUNT, SECRET, access_key
from pipeline.localcloud.cloud import Cloud
from tests.localcloud.clouds import LocalCloud, running
from tests.publish.faulty import WiredSession, wired

SECONDS = 60.0
HOME = "eu-central-1"
ABROAD = (
    "us-east-1", "us-east-2", "us-west-1", "us-west-2", "eu-west-1",
    "eu-west-2", "eu-north-1", "ap-southeast-2", "ap-northeast-1",
)  # fmt: skip
REGIONS = (HOME, *ABROAD)


class RegionTime:
    """Time that passes only by resting, in each region on its own: there one thread at a time is at work.

    Who rests gives the cloud the time to end what it is at, however busy this machine is.
    """

    def __init__(self, cloud: Cloud) -> None:
        self.cloud = cloud
        self.seconds: Counter[str] = Counter()
        self.here = threading.local()

    def enter(self, region: str) -> None:
        self.here.region = region

    def now(self) -> float:
        return self.seconds[getattr(self.here, "region", "")]

    def rest(self, seconds: float) -> None:
        self.cloud.wait_idle(SECONDS)
        self.seconds[getattr(self.here, "region", "")] += seconds  # type: ignore[assignment]

    sleep = rest


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with running(Path(tmp_path_factory.mktemp("cloud"))) as started:
        yield started


@pytest.fixture(scope="module")
def home(cloud: LocalCloud) -> WiredSession:
    key = access_key(BUILDER_ACCOUNT)
    session = open_session(HOME, cloud.server.url, access_key=key, secret_key=SECRET)
    for region in REGIONS:
        session.in_region(region).client("ec2").disable_image_block_public_access()
    return wired(session)


@pytest.fixture
def virtual_time(cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch) -> Iterator[RegionTime]:
    """Let nothing wait, neither ours nor botocore's retries."""
    time, clock = RegionTime(cloud.cloud), wait.CLOCK
    real = clock.now, clock.rest
    monkeypatch.setattr(botocore.endpoint, "time", time)
    object.__setattr__(clock, "now", time.now)
    object.__setattr__(clock, "rest", time.rest)
    yield time
    object.__setattr__(clock, "now", real[0])
    object.__setattr__(clock, "rest", real[1])
