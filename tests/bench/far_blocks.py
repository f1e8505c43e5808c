"""How fast a snapshot is read through EBS direct: rows of `invoke bench --only scan`.

The local cloud waits before it gives each block. EBS direct gives 1,000 blocks a second, and readers who wait can ask
no more often than their number divided by the wait; the local cloud itself gives no more than it does without a wait.
"""

import json
import os
import statistics
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from pipeline.aws.blocks import BLOCK_SIZE, READERS, SnapshotBlocks, write_snapshot
from pipeline.aws.tags import Tags, new_build_id, resource_name
from pipeline.errors import AssayError
from pipeline.options import open_cloud
from pipeline.spec import load_spec
from tests.bench.rows import Row
from tests.end_to_end import DIRECT, ROOT

SPEC = ROOT / "specs" / "debian-12-local.yaml"
ALLOWED = 1000
"""Blocks a second that EBS direct gives (EBS direct APIs, quotas)."""
WAITS = (0.02, 0.08)
"""Seconds: within a region, and from another continent."""
RUNS = 3
WRITTEN, REPEATED = 128, 8
"""Blocks of the snapshot, and how often each is read."""


def rows(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Return a row for each wait: blocks a second, beside the bound."""
    cloud = start_local_cloud()
    session = open_cloud(load_spec(SPEC), lambda: cloud)
    now = datetime.now(UTC)
    tags = Tags(new_build_id(now), "sha256:bench", "bench", now + timedelta(hours=1))
    written = ((index, os.urandom(BLOCK_SIZE)) for index in range(WRITTEN))
    snapshot_id = write_snapshot(session, tags, resource_name(tags.build_id, "bench"), 1, written)
    try:
        source = SnapshotBlocks(session, snapshot_id)
        read(source)
        return [row_of(cloud, source, seconds) for seconds in WAITS]
    finally:
        session.client("ec2").delete_snapshot(SnapshotId=snapshot_id)


def row_of(cloud: dict[str, str], source: SnapshotBlocks, seconds: float) -> Row:
    """Return the row of one wait, beside the lowest of what bounds it; measured in turn with no wait at all."""
    with_wait, without = [], []
    for _ in range(RUNS):
        without.append(read(source))
        set_faults(cloud, [{"kind": "latency", "action": "GetSnapshotBlock", "times": 0, "seconds": seconds}])
        try:
            with_wait.append(read(source))
        finally:
            set_faults(cloud, [])
    bounds = {
        "EBS direct": ALLOWED,
        f"{READERS} readers": READERS / seconds,
        "the local cloud": statistics.median(without),
    }
    name = min(bounds, key=lambda name: bounds[name])
    title = f"blocks of a snapshot that is {1000 * seconds:.0f} ms away"
    return Row(title, "blocks/s", statistics.median(with_wait), f"bound by {name}", bounds[name], "1", RUNS)


def read(source: SnapshotBlocks) -> float:
    """Return the blocks a second at which some are read, checksums verified."""
    wanted = source.indices() * REPEATED
    started = time.monotonic()
    for _, data in source.read_many(wanted):
        if isinstance(data, AssayError):
            raise data
    return len(wanted) / (time.monotonic() - started)


def set_faults(cloud: dict[str, str], faults: list[dict[str, object]]) -> None:
    """Say what goes wrong on the local cloud from now on."""
    body = json.dumps({"faults": faults}).encode()
    url = f"{cloud['AWS_ENDPOINT_URL']}/_cloud/faults"
    DIRECT.open(urllib.request.Request(url, body, method="PUT")).close()
