"""The benchmark: everything that was planted is found, nothing else is."""

import re
from pathlib import Path

import pytest

from pipeline.report.evidence import Finding, Status
from pipeline.residue.blocks import open_image
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import prove_raw
from tests.planted.planter import Planted, Planter, installed
from tests.planted.plants import decoys, plants


def is_at(finding: Finding, planted: Planted) -> bool:
    """Whether a finding lies where a plant was put."""
    if planted.path:
        return f" {planted.path} " in f"{finding.place} {finding.detail} ".replace(",", " ").replace(";", " ")
    offset = re.search(r"offset (\d+)$", finding.place)
    return bool(offset) and planted.start - 64 <= int(offset[1]) < planted.end


@pytest.mark.end_to_end
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_every_plant_is_found_and_no_decoy(tmp_path: Path, kind: str) -> None:
    if not installed(kind):
        pytest.skip(f"the tools that make {kind} are not installed")
    planter = Planter(tmp_path, kind)
    planted = planter.make(plants(), decoys())
    with open_image(planter.disk) as image:
        results, findings, _ = prove_raw(image, (), PATTERNS)
    missed = [
        f"{each.plant.name} ({each.plant.control})"
        for each in planted
        if not any(finding.control == each.plant.control and is_at(finding, each) for finding in findings)
    ]
    false = [finding for finding in findings if not any(is_at(finding, each) for each in planted)]
    assert not missed
    assert not false
    assert len(planted) >= 60
    by_control = {result.controls[0]: result for result in results}
    assert by_control["R01"].status is by_control["R04"].status is Status.PASS
    assert by_control["R02"].status is Status.UNREACHABLE
    assert by_control["R02"].detail.startswith("partition 3 holds logical volumes")
    secrets = [each.plant.content for each in planted if each.plant.content.startswith((b"ghp_", b"glpat"))]
    report = repr((results, findings))
    assert not any(secret.decode() in report for secret in secrets)


def test_there_are_enough_of_each() -> None:
    controls = {plant.control for plant in plants()}
    assert len(plants()) >= 60
    assert len(decoys()) >= 25
    assert len(controls) >= 18
