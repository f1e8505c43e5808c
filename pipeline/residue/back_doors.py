"""The proof that a disk has no back door, from its files: nothing of it has run (V01-V09; seed [2], Balduzzi 2012)."""

from collections.abc import Callable, Iterator, Sequence

from pipeline.errors import AssayError
from pipeline.report.results import Finding, Layer, Result, Status
from pipeline.residue import forbidden, kernel, packages, privilege, startup, trust, users
from pipeline.residue.difference import doubts
from pipeline.residue.locate import Locator, first_line
from pipeline.residue.origin import Doubt, Origin, Written
from pipeline.residue.rules import fingerprint_of
from pipeline.residue.sift import Allowed
from pipeline.residue.system import System, find_systems

Subject = Callable[[Origin], Iterator[Doubt]]

Row = tuple[str, tuple[str, ...], str, Subject]
"""Where it is proved, which controls, in which words, and by what."""

SUBJECTS: tuple[Row, ...] = (
    ("residue/users", ("V02", "H14"), "no second root, no open account, no unexplained grant", users.doubts),
    ("residue/privilege", ("V03",), "set-user-id programs and capabilities are packages'", privilege.doubts),
    ("residue/startup", ("V04",), "what runs by itself is a package's or the spec's", startup.doubts),
    (
        "residue/packages",
        ("V05", "V08"),
        "programs, libraries and PAM are as their packages have them",
        packages.doubts,
    ),
    (
        "residue/trust",
        ("V01", "V06", "V07"),
        "whom the system trusts is the distribution's or the spec's",
        trust.doubts,
    ),
    ("residue/kernel", ("V09",), "kernels, modules, RAM disks and boot loaders are packages'", kernel.doubts),
)


def prove_back_doors(
    locator: Locator, allowed: Allowed, written: Written = frozenset(), base: Locator | None = None
) -> tuple[tuple[Result, ...], tuple[Finding, ...]]:
    """Return results and findings for every system on a disk.

    `written` is what the build itself wrote, `base` the disk as it was before: V10 is proved where it is given. A disk
    without a system has no back door: not applicable. Where files or the package database cannot be read, the result
    is `unreachable`. Raises nothing.
    """
    results: list[Result] = []
    findings: list[Finding] = []
    systems, problem = read_systems(locator)
    before, base_problem = read_systems(base) if base else ((), "")
    if systems and base and not before:
        problem = f"there is no system on the base image; {base_problem}"
    for source, controls, title, subject in (*SUBJECTS, *by_spec(allowed), *compared_with(before, allowed)):
        status, detail = Status.NOT_APPLICABLE, "there is no operating system on the disk"
        if systems:
            status, detail, found = examine([Origin(system, written) for system in systems], subject, allowed)
            findings += found
        if problem and status is not Status.FAIL:
            status, detail = Status.UNREACHABLE, problem
        results.append(
            Result(controls=controls, layer=Layer.RAW, status=status, title=title, source=source, detail=detail)
        )
    return tuple(results), tuple(findings)


def by_spec(allowed: Allowed) -> tuple[Row, ...]:
    """Return the subject of what the spec forbids; none where it forbids nothing."""
    title = "nothing is there that the spec forbids on a shared image"
    row: Row = ("residue/forbidden", ("S23",), title, lambda origin: forbidden.doubts(origin, allowed.forbidden))
    return (row,) if allowed.forbidden else ()


def compared_with(before: Sequence[System], allowed: Allowed) -> tuple[Row, ...]:
    """Return the subject that compares with the base image; none where there is nothing to compare with."""
    title = "every difference to the base image is the spec's, a package's, or what a build changes"
    return tuple(
        ("residue/difference", ("V10",), title, lambda origin, base=base: doubts(origin, base, allowed.kept_files))
        for base in before[:1]
    )


def read_systems(locator: Locator) -> tuple[Sequence[System], str]:
    """Return the systems of a disk, and what of it could not be read: of that, no pass is given."""
    try:
        systems = find_systems(locator)
    except (AssayError, OSError, RuntimeError, ValueError) as broken:
        return (), f"the file systems cannot be read: {first_line(broken)}"
    return systems, "; ".join(locator.problems)


def examine(origins: Sequence[Origin], subject: Subject, allowed: Allowed) -> tuple[Status, str, list[Finding]]:
    """Return what one subject says of all systems on a disk."""
    found: list[Finding] = []
    try:
        for origin in origins:
            if not origin.packages.is_known:
                return Status.UNREACHABLE, "the system has no package database that is known here", []
            found += (finding_of(origin, doubt, allowed) for doubt in subject(origin))
    except (AssayError, OSError, RuntimeError, ValueError) as problem:
        return Status.UNREACHABLE, f"the files cannot be read: {first_line(problem)}", []
    found = [finding for finding in found if not allowed.waives(finding.fingerprint)]
    if found:
        return Status.FAIL, "found: " + ", ".join(sorted({finding.kind for finding in found})), found
    return Status.PASS, "", []


def finding_of(origin: Origin, doubt: Doubt, allowed: Allowed) -> Finding:
    """Return a doubt as a finding. Its fingerprint is over kind, place and content: a waiver is for this alone."""
    entry = origin.system.find(doubt.path)
    content = origin.system.fingerprint(entry) if entry and (entry.is_file or entry.is_link) else ""
    fingerprint = fingerprint_of("\0".join((doubt.kind, doubt.path, doubt.detail, content)).encode())
    return Finding(
        control=doubt.control,
        layer=Layer.RAW,
        kind=doubt.kind,
        place=f"file {doubt.path}",
        fingerprint=fingerprint,
        detail="; ".join(filter(None, (doubt.detail, allowed.remark(fingerprint)))),
    )
