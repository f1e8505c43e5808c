"""The evidence on disk: the folder of one build, and what is written into it in every form."""

from pathlib import Path

from pipeline.errors import SpecInvalid
from pipeline.files import write_atomically
from pipeline.report.evidence import Evidence, Layer
from pipeline.report.html import render_html
from pipeline.report.render import failed_results, parse_json, render_json, render_junit
from pipeline.report.sarif import examined_by, render_sarif

REPORT = "report.json"
PAGE = "report.html"
PROOFS = {Layer.LIVE, Layer.RAW, Layer.FRESH_BOOT}
"""The layers of which none may be missing before an image is shared or attested."""


def write_report(folder: Path, evidence: Evidence) -> None:
    """Write the evidence in every form, each file as a whole or not at all; JSON, which nothing can do without, first.

    Raises FileUnwritable.
    """
    write_atomically(folder / REPORT, render_json(evidence))
    write_atomically(folder / "junit.xml", render_junit(evidence))
    write_atomically(folder / "report.sarif", render_sarif([examined_by(evidence)]))
    write_atomically(folder / PAGE, render_html(evidence))


def read_report(folder: Path) -> Evidence:
    """Return the evidence of a build. Raises SpecInvalid when there is none, or when it cannot be read."""
    path = folder / REPORT
    try:
        return parse_json(path.read_text())
    except (OSError, ValueError) as error:
        raise SpecInvalid(
            f"there is no report of such a build: {path}", hint="`ls builds` shows the builds of this machine"
        ) from error


def find_build_of(builds: Path, image_id: str) -> Path | None:
    """Return the folder of the newest build that made an image; None where no build of this machine did."""
    for path in sorted(builds.glob(f"*/{REPORT}"), reverse=True):
        if not path.parent.is_symlink() and image_id in path.read_text():
            image = read_report(path.parent).image
            if image and image.image_id == image_id:
                return path.parent
    return None


def reasons_unproved(evidence: Evidence) -> tuple[str, ...]:
    """Return why a build does not count as proved; nothing when every layer was proved and nothing failed."""
    missing = PROOFS - {result.layer for result in evidence.results}
    return (
        *([] if evidence.image else ["it made no image"]),
        *(f"not a pass: {result.title}" for result in failed_results(evidence)),
        *(f"nothing was proved at layer {layer}" for layer in sorted(missing)),
        *(f"found: {finding.kind}" for finding in evidence.findings),
    )


def find_page(folder: Path) -> Path:
    """Return the page of a build. One from before there were pages gets its page now.

    Raises SpecInvalid when there is no such build, FileUnwritable.
    """
    evidence = read_report(folder)
    page = folder.resolve() / PAGE
    if not page.exists():
        write_atomically(page, render_html(evidence))
    return page
