"""What differs between two builds, by the evidence in their folders: packages, sizes, controls, findings."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import SpecInvalid
from pipeline.report.evidence import Evidence
from pipeline.report.evidence_folder import read_report
from pipeline.report.render import control_matrix
from pipeline.report.sbom import FILE as BILL
from pipeline.report.sbom import read_sizes, read_versions

ABSENT = ""
Values = Mapping[str, str]


@dataclass(frozen=True)
class Change:
    """One thing that is not the same in both. Empty is: not there."""

    name: str
    before: str
    after: str

    def line(self) -> str:
        """Return it as people read it: `+` came, `-` went, `~` changed."""
        if not self.before:
            return f"+ {self.name} {self.after}".rstrip()
        if not self.after:
            return f"- {self.name} {self.before}".rstrip()
        return f"~ {self.name} {self.before} → {self.after}"


@dataclass(frozen=True)
class Difference:
    """Everything that differs between two builds, by subject. A subject without changes is in it, and empty."""

    before: str
    after: str
    subjects: Mapping[str, tuple[Change, ...]]

    def lines(self) -> Iterator[str]:
        """Yield it as people read it."""
        yield f"from {self.before} to {self.after}"
        for subject, changes in self.subjects.items():
            yield f"{subject}: {len(changes) or 'nothing'} changed"
            yield from (f"  {change.line()}" for change in changes)

    def as_json(self) -> str:
        """Return it as JSON."""
        subjects = {
            subject: [{"name": change.name, "from": change.before, "to": change.after} for change in changes]
            for subject, changes in self.subjects.items()
        }
        return json.dumps({"from": self.before, "to": self.after, "subjects": subjects}, indent=2)


def compare_builds(before: Path, after: Path) -> Difference:
    """Return what differs between the builds in two folders.

    Raises SpecInvalid when there is no such build, or when one of them has no bill of materials to compare.
    """
    one, other = read_report(before), read_report(after)
    bills = read_bill(before), read_bill(after)
    subjects = {
        "identity": (identity_of(one), identity_of(other)),
        "packages": (read_versions(bills[0]), read_versions(bills[1])),
        "sizes": (sizes_of(bills[0]), sizes_of(bills[1])),
        "controls": (controls_of(one), controls_of(other)),
        "results": (results_of(one), results_of(other)),
        "findings": (findings_of(one), findings_of(other)),
    }
    return Difference(
        one.build_id, other.build_id, {subject: tuple(find_changes(*pair)) for subject, pair in subjects.items()}
    )


def find_changes(before: Values, after: Values) -> Iterator[Change]:
    """Yield each name under which two mappings differ, in order."""
    for name in sorted(before.keys() | after.keys()):
        change = Change(name, before.get(name, ABSENT), after.get(name, ABSENT))
        if change.before != change.after:
            yield change


def read_bill(folder: Path) -> str:
    """Return the bill of materials of a build. Raises SpecInvalid when it has none that can be read."""
    path = folder / BILL
    try:
        text = path.read_text()
        read_versions(text)
    except (OSError, ValueError) as error:
        raise SpecInvalid(
            f"there is no bill of materials at {path}", hint="a build writes one once its guest was proved live"
        ) from error
    return text


def identity_of(evidence: Evidence) -> Values:
    """Return what the build is about."""
    image, base = evidence.image, evidence.base_image
    return {
        "spec": evidence.spec_name,
        "spec digest": evidence.spec_digest,
        "region": evidence.region,
        "base image": f"{base.image_id} {base.name}" if base else ABSENT,
        "image": f"{image.image_id} {image.name}" if image else ABSENT,
        "exit status": str(evidence.exit_status),
    }


def sizes_of(bill: str) -> Values:
    """Return how many packages there are, and how much they take up, as their package database says."""
    sizes = read_sizes(bill)
    return {"packages": str(len(sizes)), "installed": f"{sum(sizes.values()) / 2**20:.1f} MiB"}


def controls_of(evidence: Evidence) -> Values:
    """Return the status of each control at each layer."""
    return {
        f"{control} {layer.words}": str(status)
        for control, row in control_matrix(evidence).items()
        for layer, status in row.items()
    }


def results_of(evidence: Evidence) -> Values:
    """Return the status of each step and check, by where it comes from and what it says of itself."""
    return {f"{one.layer.words}: {one.source} {one.title}": str(one.status) for one in evidence.results}


def findings_of(evidence: Evidence) -> Values:
    """Return what was found that must not be there; the same thing elsewhere on the disk is the same thing."""
    return {f"{one.control} {one.kind} {one.fingerprint}": one.place for one in evidence.findings}
