"""What differs between two builds by their evidence, and what a build records of it: the end of its recipe."""

from collections.abc import Iterator, Mapping
from pathlib import Path

from pipeline.errors import SpecInvalid
from pipeline.report.evidence import Change, Evidence, Previous
from pipeline.report.evidence_folder import REPORT, read_report, reasons_unproved
from pipeline.report.render import control_matrix
from pipeline.report.sbom import FILE as BILL
from pipeline.report.sbom import read_sizes, read_versions
from pipeline.stages.booted_state import read_state
from pipeline.stages.context import Context

ABSENT = ""
OF_EACH_BUILD = frozenset({"image", "exit status", "results"})
"""What says nothing of an image: its own id, and results by their titles, in which names of the build stand."""
Values = Mapping[str, str]


def record_differences(context: Context) -> None:
    """Record what is not as in the newest earlier build of the same spec that was proved.

    Without such a build, or where this one came to no bill of materials, nothing is recorded.
    """
    evidence = context.recorder.evidence()
    earlier = find_earlier(context.builds, evidence)
    if not earlier or not earlier.image:
        return
    try:
        before = describe_build(earlier, context.builds / earlier.build_id)
        after = describe_build(evidence, context.recorder.folder)
    except SpecInvalid:
        return
    changes = {
        subject: tuple(
            change for change in find_changes(before[subject], after[subject]) if change.name not in OF_EACH_BUILD
        )
        for subject in before
        if subject in after and subject not in OF_EACH_BUILD
    }
    previous = Previous(
        build_id=earlier.build_id, image_id=earlier.image.image_id, finished=earlier.finished, changes=changes
    )
    context.recorder.set_previous(previous)


def find_earlier(builds: Path, evidence: Evidence) -> Evidence | None:
    """Return the newest build before this one that was proved: of the same spec, in the same region."""
    for path in sorted(builds.glob(f"*/{REPORT}"), reverse=True):
        if path.parent.is_symlink() or path.parent.name >= evidence.build_id:
            continue
        try:
            other = read_report(path.parent) if evidence.spec_name in path.read_text() else None
        except (OSError, SpecInvalid):
            continue
        if other and (other.spec_name, other.region) == (evidence.spec_name, evidence.region) and was_proved(other):
            return other
    return None


def was_proved(evidence: Evidence) -> bool:
    """Return whether it is of a build, and nothing failed in it."""
    return evidence.base_image is not None and evidence.exit_status == 0 and not reasons_unproved(evidence)


def read_build(folder: Path) -> dict[str, Values]:
    """Return what the evidence of a build says, by subject. Raises SpecInvalid without a report or a bill."""
    return describe_build(read_report(folder), folder)


def describe_build(evidence: Evidence, folder: Path) -> dict[str, Values]:
    """Return what evidence and the folder that it is of say, by subject. Raises SpecInvalid without a bill."""
    bill, state = read_bill(folder), read_state(folder)
    return {
        "identity": identity_of(evidence),
        "packages": read_versions(bill),
        "sizes": sizes_of(bill),
        "controls": controls_of(evidence),
        "results": results_of(evidence),
        "findings": findings_of(evidence),
        **({"ports": state.ports, "kernel settings in effect": state.kernel_settings} if state else {}),
    }


def find_changes(before: Values, after: Values) -> Iterator[Change]:
    """Yield each name under which two mappings differ, in order."""
    for name in sorted(before.keys() | after.keys()):
        change = Change(name=name, before=before.get(name, ABSENT), after=after.get(name, ABSENT))
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
