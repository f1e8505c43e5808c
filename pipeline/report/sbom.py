"""The bill of materials of an image: CycloneDX 1.6 JSON, `sbom.cdx.json` in the folder of a build.

Written from the package database of the guest, after the scrub and before the seal. Package URLs follow the types `deb`
and `rpm` of the purl specification. The serial number comes from the build's id: the same build has the same one.
"""

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal
from uuid import UUID, uuid5

from cyclonedx.model import Property
from cyclonedx.model.bom import Bom, BomMetaData
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.contact import OrganizationalEntity
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.model.tool import ToolRepository
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

from pipeline.report.text import make_visible

FILE = "sbom.cdx.json"
INSTALLED = "assay:installed-bytes"
NAMESPACE = UUID("7d4c1f0a-6a55-5c0e-9a0b-2f6f7a7b6d11")
"""Serial numbers of this kind of bill are in a space of their own (RFC 9562, version 5)."""


@dataclass(frozen=True)
class Package:
    """One package that is installed on a guest."""

    name: str
    version: str
    """With its release; without the epoch in the case of rpm."""
    architecture: str
    epoch: str = ""
    source: str = ""
    """The source package, where it has another name or version."""
    supplier: str = ""
    licences: tuple[str, ...] = ()
    """As the package names them; most are no SPDX identifiers."""
    installed_bytes: int = 0
    """What it takes up, as the package says; 0 where it does not."""


@dataclass(frozen=True)
class Inventory:
    """What a guest has installed, by its package database."""

    kind: Literal["deb", "rpm"]
    distribution: str
    """The ID of os-release."""
    version: str
    """The VERSION_ID of os-release."""
    title: str
    packages: tuple[Package, ...]


def render_sbom(inventory: Inventory, *, build_id: str, spec_name: str, made: datetime) -> str:
    """Return the bill of materials of the image that a build makes."""
    image = Component(name=spec_name, version=build_id, type=ComponentType.OPERATING_SYSTEM, bom_ref="image")
    system = Component(
        name=inventory.distribution,
        version=inventory.version,
        description=make_visible(inventory.title),
        type=ComponentType.OPERATING_SYSTEM,
        bom_ref="distribution",
    )
    packages = [_component(package, inventory) for package in inventory.packages]
    assay = Component(name="assay", type=ComponentType.APPLICATION)
    bill = Bom(
        serial_number=uuid5(NAMESPACE, build_id),
        metadata=BomMetaData(component=image, timestamp=made, tools=ToolRepository(components=[assay])),
        components=[system, *packages],
    )
    bill.register_dependency(image, [system, *packages])
    return str(JsonV1Dot6(bill).output_as_string(indent=2)) + "\n"


def _component(package: Package, inventory: Inventory) -> Component:
    url = package_url(package, inventory)
    return Component(
        name=package.name,
        version=f"{package.epoch}:{package.version}" if package.epoch else package.version,
        type=ComponentType.LIBRARY,
        purl=url,
        bom_ref=url.to_string(),
        supplier=OrganizationalEntity(name=make_visible(package.supplier)) if package.supplier else None,
        properties=[Property(name=INSTALLED, value=str(package.installed_bytes))],
        licenses=[DisjunctiveLicense(name=make_visible(name)) for name in package.licences],
    )


def package_url(package: Package, inventory: Inventory) -> PackageURL:
    """Return the purl of a package, with the architecture and the distribution that it is of."""
    qualifiers = {
        "arch": package.architecture,
        "distro": "-".join(part for part in (inventory.distribution, inventory.version) if part),
        "epoch": package.epoch,
        "upstream": package.source,
    }
    # A purl drops slashes at the ends of a name; a hostile database may hold a name of nothing else.
    name = package.name if package.name.strip("/ ") else package.name.replace("/", "%2F")
    return PackageURL(
        type=inventory.kind,
        namespace=inventory.distribution,
        name=name,
        version=package.version,
        qualifiers={name: value for name, value in qualifiers.items() if value},
    )


def read_versions(text: str) -> dict[str, str]:
    """Return the version of each package in a bill, by name and architecture; of several, all with commas.

    Raises ValueError for what is no bill of ours.
    """
    found: dict[str, set[str]] = {}
    for name, version, _ in _read(text):
        found.setdefault(name, set()).add(version)
    return {name: ", ".join(sorted(versions)) for name, versions in sorted(found.items())}


def read_sizes(text: str) -> dict[str, int]:
    """Return how many bytes each package in a bill takes up, by name, architecture and version.

    Raises ValueError for what is no bill of ours.
    """
    return {f"{name} {version}": size for name, version, size in _read(text)}


def _read(text: str) -> list[tuple[str, str, int]]:
    """Return name, version and size of each package in a bill."""
    try:
        return [
            (_name_of(component["purl"]), component["version"], _size_of(component))
            for component in json.loads(text)["components"]
            if "purl" in component
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError("no CycloneDX bill of materials") from error


def _name_of(purl: str) -> str:
    url = PackageURL.from_string(purl)
    qualifiers = url.qualifiers if isinstance(url.qualifiers, dict) else {}
    return f"{url.name} {qualifiers.get('arch', '')}".strip()


def _size_of(component: dict[str, Any]) -> int:
    return next((int(one["value"]) for one in component.get("properties", []) if one["name"] == INSTALLED), 0)
