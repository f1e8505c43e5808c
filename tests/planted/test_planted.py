"""The benchmark: everything that was planted is found, nothing else is."""

from pathlib import Path

import pytest

from pipeline.report.evidence import Status
from pipeline.residue.blocks import open_image
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import prove_raw
from tests.bench.planted import names_in
from tests.planted.planter import Planter, installed, is_at
from tests.planted.plants import decoys, plants


@pytest.mark.end_to_end
@pytest.mark.parametrize(("kind", "in_volume"), [("ext4", False), ("xfs", True)])
def test_every_plant_is_found_and_no_decoy(tmp_path: Path, kind: str, in_volume: bool) -> None:
    if not installed(kind):
        pytest.skip(f"the tools that make {kind} are not installed")
    planter = Planter(tmp_path, kind, in_volume=in_volume)
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
    assert by_control["R01"].status is by_control["R02"].status is by_control["R04"].status is Status.PASS
    secrets = [each.plant.content for each in planted if each.plant.content.startswith((b"ghp_", b"glpat"))]
    report = repr((results, findings))
    assert not any(secret.decode() in report for secret in secrets)


def test_there_are_enough_of_each() -> None:
    controls = {plant.control for plant in plants()}
    assert len(plants()) >= 60
    assert len(decoys()) >= 25
    assert len(controls) >= 18


def test_what_a_peer_prints_is_read_as_paths_of_the_disk() -> None:
    assert names_in('{"results": {"etc/a": [], "./root/.b": []}}') == {"/etc/a", "/root/.b"}
    assert names_in("./root/.b\n./x y\n") == {"/root/.b", "/x y"}
    assert names_in("") == set()
