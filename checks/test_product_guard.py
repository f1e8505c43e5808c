"""The product-code guard of a paid image: it passed on this instance, and the application waits for it."""

import pytest

from checks.fixtures import Ask, File
from pipeline.spec import ProductGuard, Spec

UNIT = "assay-product-guard.service"
FOLDER = "/etc/assay/product-guard"
STATES = "systemctl show --property=Id,ActiveState,UnitFileState,Requires,After -- "


@pytest.fixture
def guard(spec: Spec) -> ProductGuard:
    """What the spec says of the guard."""
    if spec.harden.product_guard is None:
        pytest.skip("the image is not guarded by a product code (harden.product_guard)")
    return spec.harden.product_guard


@pytest.fixture
def units(ask: Ask, systemd: None, guard: ProductGuard) -> dict[str, dict[str, str]]:
    """What systemd says of the guard and of the units that it guards."""
    blocks = ask(STATES + " ".join((UNIT, *guard.services))).split("\n\n")
    described = [dict(line.split("=", 1) for line in block.splitlines()) for block in blocks]
    return {one["Id"]: one for one in described}


@pytest.mark.controls("H31", layers="B")
def test_the_guard_passed(units: dict[str, dict[str, str]]) -> None:
    """The guard runs at each boot, and found the product codes and a good signature."""
    assert (units[UNIT]["UnitFileState"], units[UNIT]["ActiveState"]) == ("enabled", "active")


@pytest.mark.controls("H31", layers="B")
def test_the_application_waits_for_it(units: dict[str, dict[str, str]], guard: ProductGuard) -> None:
    """Each unit of the application requires the guard, and comes after it."""
    free = [
        unit
        for unit in guard.services
        if unit not in units or any(UNIT not in units[unit][word].split() for word in ("Requires", "After"))
    ]
    assert free == []


@pytest.mark.controls("H31", layers="LB")
def test_the_certificates_are_the_spec_s(ask: Ask, guard: ProductGuard) -> None:
    """The guard trusts the certificates of the spec, and no other."""
    said = ask(f'for file in {FOLDER}/*.pem; do echo "# $file"; cat "$file"; done').split("# ")[1:]
    found = {part.partition("\n")[0].removeprefix(f"{FOLDER}/").removesuffix(".pem"): part for part in said}
    assert {region: "".join(part.split()[1:]) for region, part in found.items()} == {
        region: "".join(certificate.split()) for region, certificate in guard.certificates.items()
    }


@pytest.mark.controls("H31", layers="LB")
def test_only_root_changes_the_guard(files: tuple[File, ...], guard: ProductGuard) -> None:
    """Script, unit and certificates are root's, and nobody else may write them."""
    parts = [one for one in files if one.under(FOLDER) or one.name == UNIT or "assay-product-guard" in one.name]
    assert [one for one in parts if one.under(FOLDER)], "there is no guard"
    assert [str(one) for one in parts if one.owner != "root" or (one.kind != "l" and one.mode & 0o022)] == []
