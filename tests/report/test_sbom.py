"""The bill of materials is valid CycloneDX, whatever a guest's package database holds."""

import json
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from packageurl import PackageURL

from pipeline.report.sbom import Inventory, Package, package_url, read_sizes, read_versions, render_sbom
from tests.report.evidence_examples import START

OPENSSH = Package(
    "openssh-server",
    "1:9.2p1-2+deb12u7",
    "amd64",
    source="openssh",
    supplier="Debian <a@example.org>",
    licences=("BSD",),
)
DEBIAN = Inventory("deb", "debian", "12", "Debian GNU/Linux 12", (OPENSSH, Package("adduser", "3.134", "all")))
AMAZON = Inventory("rpm", "amzn", "2023", "Amazon Linux", (Package("dbus", "1.12-1", "x86_64", epoch="1"),))

if TYPE_CHECKING:
    from cyclonedx.validation.json import JsonStrictValidator


@cache
def validator() -> "JsonStrictValidator":
    """Return the validator, which takes seconds to import: every process that runs tests imports this file."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    return JsonStrictValidator(SchemaVersion.V1_6)


def render(inventory: Inventory, build_id: str = "b1") -> str:
    return render_sbom(inventory, build_id=build_id, spec_name="web", made=START)


@pytest.mark.parametrize("inventory", [DEBIAN, AMAZON], ids=["deb", "rpm"])
def test_bill_is_valid_and_says_what_image_it_is_of(inventory: Inventory) -> None:
    text = render(inventory)
    assert validator().validate_str(text) is None
    document = json.loads(text)
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    image = document["metadata"]["component"]
    assert (image["name"], image["version"]) == ("web", "b1")
    names = {component["name"] for component in document["components"]}
    assert names == {inventory.distribution, *(package.name for package in inventory.packages)}


def test_serial_number_follows_from_the_build() -> None:
    serials = {json.loads(render(DEBIAN, build))["serialNumber"] for build in ("b1", "b1", "b2")}
    assert len(serials) == 2
    assert render(DEBIAN) == render(DEBIAN)


def test_purl_names_the_distribution() -> None:
    assert str(package_url(OPENSSH, DEBIAN)) == (
        "pkg:deb/debian/openssh-server@1:9.2p1-2%2Bdeb12u7?arch=amd64&distro=debian-12&upstream=openssh"
    )
    dbus = package_url(AMAZON.packages[0], AMAZON)
    assert str(dbus) == "pkg:rpm/amzn/dbus@1.12-1?arch=x86_64&distro=amzn-2023&epoch=1"
    assert PackageURL.from_string(str(dbus)) == dbus


def test_licences_and_suppliers_are_named() -> None:
    components = {component["name"]: component for component in json.loads(render(DEBIAN))["components"]}
    assert components["openssh-server"]["licenses"] == [{"license": {"name": "BSD"}}]
    assert components["openssh-server"]["supplier"] == {"name": "Debian <a@example.org>"}
    assert "licenses" not in components["adduser"]


def test_versions_are_read_back() -> None:
    assert read_versions(render(DEBIAN)) == {"adduser all": "3.134", "openssh-server amd64": "1:9.2p1-2+deb12u7"}
    sized = replace(DEBIAN, packages=(replace(OPENSSH, installed_bytes=7), DEBIAN.packages[1]))
    assert read_sizes(render(sized)) == {"adduser all 3.134": 0, "openssh-server amd64 1:9.2p1-2+deb12u7": 7}
    kernels = tuple(Package("kernel", version, "x86_64") for version in ("6.1.2-1", "6.1.1-1"))
    assert read_versions(render(replace(AMAZON, packages=kernels))) == {"kernel x86_64": "6.1.1-1, 6.1.2-1"}


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"components": [1]}', '{"components": [{"purl": "x"}]}'])
def test_anything_else_is_no_bill(text: str) -> None:
    with pytest.raises(ValueError):
        read_versions(text)


plain = st.from_regex(r"[!-~]{1,12}", fullmatch=True)
fields = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\t\n"), min_size=1, max_size=12)
packages = st.builds(Package, plain, plain, plain, plain, plain, fields, st.tuples(fields))


@settings(max_examples=40)
@example([Package("/", "1", "amd64", "", "", "x", ("x",)), Package("//", "1", "amd64", "", "", "x", ("x",))])
@given(st.lists(packages, min_size=1, max_size=3, unique_by=lambda one: (one.name, one.version, one.architecture)))
def test_no_name_of_a_package_makes_a_bill_invalid(found: list[Package]) -> None:
    text = render(replace(DEBIAN, packages=tuple(found)))
    assert validator().validate_str(text) is None
    assert len(json.loads(text)["components"]) == len(found) + 1
    assert text.isascii()


def test_validator_that_these_tests_trust_does_refuse() -> None:
    assert validator().validate_str(render(DEBIAN).replace('"specVersion": "1.6"', '"specVersion": 16')) is not None
