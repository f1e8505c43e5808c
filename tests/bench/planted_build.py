"""An image that is built from a base image with everything planted on it: what of the plants is left in it.

It is counted by pieces of what was planted, whatever the patterns say, and by what the build's own proofs found.
"""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml

from pipeline.aws import images, snapshots
from pipeline.aws.blocks import SnapshotBlocks, write_snapshot
from pipeline.aws.images import Image, Registration
from pipeline.aws.session import Session
from pipeline.aws.tags import Tags
from pipeline.block_digest import require_readable
from pipeline.errors import AssayError
from pipeline.localcloud.base_image import default_cache, make_base_image
from pipeline.options import open_cloud
from pipeline.residue.blocks import RawFile
from pipeline.spec import load_spec
from tests.bench.build import SPEC, reason, remove_image
from tests.bench.rows import Row
from tests.planted.planted_base import FORBIDDEN, PlantedBase, canaries, pieces_in
from tests.planted.planter import Planted, run
from tests.workshop import Workshop

NAME = "debian-12-amd64-planted"


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Plant, build, and return the rows: how much was planted, and what of it is left."""
    cloud = start_local_cloud()
    session = open_cloud(load_spec(SPEC), lambda _: cloud)
    with TemporaryDirectory(prefix="assay-bench-") as name:
        folder = Path(name)
        base, planted, marks = make_base(session, folder)
        try:
            started = time.monotonic()
            made = Workshop(cloud, folder / "builds").invoke("build", f"--spec={write_spec(session, folder)}", "--json")
            seconds = time.monotonic() - started
            if not made.output.startswith("{"):
                raise AssayError(f"the build from a planted base ended with {made.status}: {reason(made)}")
            evidence = json.loads(made.output)
            if made.status:  # it kept no image
                return [
                    Row(f"a build from a planted base was refused: {reason(made)}", "status", made.status, bound="0")
                ]
            left = left_of(session, evidence, marks)
            remove_image(cloud, session.region, evidence["image"]["name"])
        finally:
            remove_image(cloud, session.region, base.name)
    return rows(planted, evidence, left, seconds)


def rows(planted: list[Planted], evidence: dict[str, Any], left: set[str], seconds: float) -> list[Row]:
    """Return the rows. Of what is left, the names are in the measure."""
    names = f": {', '.join(sorted(left))}" if left else ""
    kinds = sorted({finding["kind"] for finding in evidence["findings"]})
    found = f": {', '.join(kinds)}" if kinds else ""
    return [
        Row(f"a build from a base with {len(planted)} plants: left of them{names}", "plants", len(left), bound="0"),
        Row(f"the same: findings{found}", "findings", len(evidence["findings"]), bound="0"),
        Row("the same: the whole build", "s", seconds),
    ]


def make_base(session: Session, folder: Path) -> tuple[Image, list[Planted], dict[bytes, str]]:
    """Register an image like Debian's, with plants. Return it, them, and pieces by which they are known anywhere."""
    debian = make_base_image("bookworm", default_cache(), print)
    disk = folder / "base.raw"
    run("cp", "--sparse=always", debian.path, disk)
    with RawFile(disk) as clean:
        before = [data for _, data in blocks_of(clean)]
    planted = PlantedBase(disk).plant_all()
    marks = canaries(planted, before)
    tags = Tags("20260101-000000-abcdef", "0" * 64, session.account_id, datetime.now(UTC) + timedelta(days=1))
    with RawFile(disk) as source:
        snapshot_id = write_snapshot(session, tags, f"{NAME}-root", debian.size_gib, blocks_of(source))
    snapshots.wait_for_snapshot(session, snapshot_id)
    registration = Registration(
        NAME, "planted", "x86_64", "/dev/xvda", snapshot_id, debian.size_gib, boot_mode=debian.boot_mode
    )
    image_id = images.register_image(session, tags, NAME, registration)
    return images.wait_for_image(session, image_id), planted, marks


def blocks_of(source: RawFile | SnapshotBlocks) -> Iterator[tuple[int, bytes]]:
    """Yield the blocks of a disk. Raises what a block raises."""
    return require_readable(source.read_many(source.indices()))


def write_spec(session: Session, folder: Path) -> Path:
    """Write the spec of the benchmark: as the default one, from the planted base, with what the owner forbids."""
    spec = yaml.safe_load(SPEC.read_text())
    spec["base_image"] = {"filter": {"name": NAME, "owner": session.account_id}}
    spec["scrub"] = {"forbid": [{"reason": "it is ours alone", "paths": list(FORBIDDEN)}]}
    path = folder / "planted.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


def left_of(session: Session, evidence: dict[str, Any], marks: dict[bytes, str]) -> set[str]:
    """Return the names of the plants of which something is left in the image that was made."""
    blocks = SnapshotBlocks(session, evidence["image"]["snapshot_ids"][0])
    return {marks[piece] for piece in pieces_in((data for _, data in blocks_of(blocks)), marks)}
