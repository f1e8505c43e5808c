"""Killed at any line of its journal, a build leaves nothing behind after a sweep, and never loses what it kept.

Every line is tried twice: before it is written (the call was made, and nobody wrote down its answer), and after.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.journal import read_journal
from pipeline.report.evidence import Layer
from pipeline.report.render import parse_json
from pipeline.sweep import sweep_builds
from tests.fake_cloud import FakeCloud, fake_cloud, holdings

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

BEYOND_THE_END = 999
Position = tuple[int, str]


BEHIND_A_BASTION = {"create": {}, "address": "private", "connect": "bastion"}
BEHIND_ONE_THAT_IS_THE_NAT = {"create": {"nat": "instance"}, "address": "private", "connect": "bastion"}
GIVEN: dict[str, object] = {}


def run_builds(cloud: FakeCloud, builds: Path, positions: dict[str, Position], network: object) -> dict[str, str]:
    """Run a build for each position, and return by its id how it ended."""
    lines = [f"{build_id} {line} {moment}" for build_id, (line, moment) in positions.items()]
    done = subprocess.run(
        [sys.executable, "-m", "tests.scripted_build", cloud.endpoint, str(builds), json.dumps(network)],
        input="\n".join(lines),
        env=os.environ | cloud.environment,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=1200,
    )
    answers = (line.split(maxsplit=3) for line in done.stdout.splitlines())
    return {build_id: end for build_id, _, _, end in answers}


def kept(journal: Path) -> set[str]:
    """Return what a journal says is kept."""
    return {entry.identity for entry in read_journal(journal).entries if entry.kept and entry.identity}


def test_a_build_that_is_killed_at_any_line_leaves_nothing_behind(fake_cloud: FakeCloud, tmp_path: Path) -> None:
    session = fake_cloud.open()
    before = holdings(session)

    whole = "20250131-235959-ffffff"
    assert run_builds(fake_cloud, tmp_path, {whole: (BEYOND_THE_END, "after")}, GIVEN) == {whole: "exit 0"}
    assert holdings(session) == before | kept(tmp_path / whole / "journal.jsonl")
    lines = len((tmp_path / whole / "journal.jsonl").read_text().splitlines())
    assert lines >= 15

    positions = [(line, moment) for line in range(1, lines + 1) for moment in ("before", "after")]
    builds = {f"20250131-235959-{number:06x}": position for number, position in enumerate(positions)}
    assert set(run_builds(fake_cloud, tmp_path, builds, GIVEN).values()) == {"killed"}
    assert len(holdings(session)) > len(positions), "they left something to sweep"

    swept = sweep_builds(session, tmp_path)
    assert swept.exit_status == 0, swept.lines()
    journals = list(tmp_path.glob("*/journal.jsonl"))
    assert holdings(session) == before.union(*map(kept, journals)), swept.lines()
    both_or_none = {len(kept(journal)) for journal in journals}
    assert both_or_none == {0, 2}, "an image is kept with its snapshot, or not at all"
    assert not any(entry.open for journal in journals for entry in read_journal(journal).entries)
    assert sweep_builds(session, tmp_path).lines() == ["nothing to remove"]


def test_a_network_that_is_made_is_removed_whenever_its_build_is_killed(fake_cloud: FakeCloud, tmp_path: Path) -> None:
    """Before each line of the network: the call was made, and nobody wrote down its answer."""
    session = fake_cloud.open()
    before = holdings(session)

    whole = {"20250201-235959-ffffff": BEHIND_A_BASTION, "20250201-235959-eeeeee": BEHIND_ONE_THAT_IS_THE_NAT}
    for build_id, network in whole.items():
        assert run_builds(fake_cloud, tmp_path, {build_id: (BEYOND_THE_END, "after")}, network) == {build_id: "exit 0"}
    journals = {build_id: tmp_path / build_id / "journal.jsonl" for build_id in whole}
    assert holdings(session) == before.union(*map(kept, journals.values())), "it is removed by the build itself"
    results = parse_json((tmp_path / "20250201-235959-eeeeee" / "report.json").read_text()).results
    assert {"A02", "A03", "A04", "A05", "A06", "A07"} <= {one.controls[0] for one in results if one.layer is Layer.AWS}

    entries = read_journal(journals["20250201-235959-ffffff"]).entries
    network_lines = 2 * next(entry.number for entry in entries if entry.kind == "instance") + 2
    positions = [(line, "before") for line in range(3, network_lines + 1, 2)]
    assert len(positions) > 12
    builds = {f"20250202-235959-{number:06x}": position for number, position in enumerate(positions)}
    assert set(run_builds(fake_cloud, tmp_path, builds, BEHIND_A_BASTION).values()) == {"killed"}
    swept = sweep_builds(session, tmp_path)
    assert swept.exit_status == 0, swept.lines()
    assert holdings(session) == before.union(*map(kept, journals.values())), swept.lines()
