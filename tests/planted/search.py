"""Searching a planted disk as a build's proof does, and holding what was found against what was planted."""

from dataclasses import dataclass
from pathlib import Path

from pipeline.report.evidence import Finding, Result
from pipeline.residue.back_doors import prove_back_doors
from pipeline.residue.blocks import open_image
from pipeline.residue.locate import Locator
from pipeline.residue.patterns import PATTERNS
from pipeline.residue.proof import prove_raw
from pipeline.residue.secrets import BuildSecret
from pipeline.residue.sift import Allowed
from pipeline.spec import Forbidden
from tests.planted.planter import Planted, Planter, is_at
from tests.planted.plants import FORBIDDEN, Build, back_doors, decoys, plants

ALLOWED = Allowed(forbidden=(Forbidden(reason="its licence is for one company", paths=(FORBIDDEN,)),))


@dataclass(frozen=True)
class PlantedDisk:
    """A disk with everything on it, the same without the plants, and what must be found."""

    name: str
    disk: Path
    base: Path
    planted: list[Planted]
    secrets: tuple[BuildSecret, ...]


@dataclass(frozen=True)
class Searched:
    """What a search of a planted disk gave."""

    results: tuple[Result, ...]
    findings: tuple[Finding, ...]
    missed: list[str]
    false: list[Finding]


def plant(folder: Path, kind: str, *, in_volume: bool) -> PlantedDisk:
    """Plant everything on a disk of a kind, in a partition or in a logical volume."""
    build, silent = Build(), decoys()
    (folder / "base").mkdir()
    base = Planter(folder / "base", kind, in_volume=in_volume)
    base.make([], silent)
    planter = Planter(folder, kind, in_volume=in_volume)
    planted = planter.make([*plants(), *back_doors(), *build.plants()], silent)
    return PlantedDisk(planter.name, planter.disk, base.disk, planted, build.secrets())


def search(planted: PlantedDisk) -> Searched:
    """Search a disk for a build's secrets, for patterns, and for back doors."""
    with open_image(planted.disk) as image, open_image(planted.base) as before:
        results, findings, _ = prove_raw(image, planted.secrets, PATTERNS, allowed=ALLOWED)
        more_results, more_findings = prove_back_doors(Locator(image), ALLOWED, base=Locator(before))
    findings = (*findings, *more_findings)
    missed = [
        f"{each.plant.name} ({each.plant.control})"
        for each in planted.planted
        if not any(finding.control == each.plant.control and is_at(finding, each) for finding in findings)
    ]
    false = [finding for finding in findings if not any(is_at(finding, each) for each in planted.planted)]
    return Searched((*results, *more_results), findings, missed, false)
