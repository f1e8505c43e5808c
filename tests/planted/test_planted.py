"""The benchmark: everything that was planted is found, nothing else is."""

from pathlib import Path

import pytest

from pipeline.report.catalogue import CATALOGUE
from pipeline.report.evidence import Layer, Status
from tests.bench.peers import names_in
from tests.planted.planted_base import pieces_of
from tests.planted.planter import installed
from tests.planted.plants import Build, back_doors, decoys, plants
from tests.planted.search import plant, search

NO_PLANT = {"R01", "R02", "R06"}
"""Rows about how a disk is searched, not what is on it."""


@pytest.mark.end_to_end
@pytest.mark.parametrize(("kind", "in_volume"), [("ext4", False), ("xfs", True)])
def test_every_plant_is_found_and_no_decoy(tmp_path: Path, kind: str, in_volume: bool) -> None:
    if not installed(kind):
        pytest.skip(f"the tools that make {kind} are not installed")
    planted = plant(tmp_path, kind, in_volume=in_volume)
    searched = search(planted)
    assert searched.missed == []
    assert searched.false == []
    by_control = {result.controls[0]: result for result in searched.results}
    assert by_control["R01"].status is by_control["R02"].status is by_control["R04"].status is Status.PASS
    secrets = [each.plant.content for each in planted.planted if each.plant.content.startswith((b"ghp_", b"glpat"))]
    report = repr((searched.results, searched.findings))
    assert not any(secret.decode() in report for secret in secrets)


def test_there_are_enough_of_each_and_some_for_every_row_that_blocks_can_show() -> None:
    every = [*plants(), *back_doors(), *Build().plants()]
    rows = set().union(*(each.rows for each in every))
    wanted = {
        control.identity
        for control in CATALOGUE.values()
        if control.identity[0] in "SVR" and Layer.RAW in control.layers
    }
    assert len(every) >= 100
    assert len(decoys()) >= 25
    assert wanted - rows == NO_PLANT


def test_places_are_those_where_images_were_found_to_hold_secrets() -> None:
    places = {each.where.partition(":")[0] for each in plants()}
    assert places >= {"file", "deleted", "truncated", "edited", "free", "slack", "journal", "swap", "lvm", "gap", "end"}
    assert places >= {"join", "fragments", "xattr"}


def test_what_a_peer_prints_is_read_as_paths_of_the_disk(tmp_path: Path) -> None:
    for name in ("etc/a", "root/.b", "x y", ".ssh/id"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")
    assert names_in('{"results": {"etc/a": [{"filename": "etc/a"}], "x": {"path": "./root/.b"}}}', tmp_path) == {
        "/etc/a",
        "/root/.b",
    }
    assert names_in("./root/.b\n./x y\n./.ssh\n", tmp_path) == {"/root/.b", "/x y", "/.ssh/id"}
    assert names_in("", tmp_path) == set()


def test_what_is_left_of_a_plant_is_known_by_its_ends_and_its_middle_and_of_an_address_by_its_login() -> None:
    assert len(list(pieces_of(b"A proxy is at http://proxy.acme.io:3128/ for whoever"))) == 3
    assert list(pieces_of(b'A proxy is at "http://bob:0123456789@proxy.acme.io";')) == [b' "http://bob:0123456789@']
