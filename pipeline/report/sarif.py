"""The evidence as SARIF 2.1.0 (OASIS), for code scanning dashboards: what was found, failed, or could not be asked.

A pass is in no SARIF file: dashboards raise an alert for each result. `report.json` has the passes.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from pipeline.report.catalogue import CATALOGUE
from pipeline.report.results import Finding, Result, Status
from pipeline.report.text import make_visible

if TYPE_CHECKING:
    from pipeline.report.evidence import Evidence, Leak

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
WITHOUT_CONTROL = "UNNAMED"
"""The rule of a check of the user's own, which serves no control of the catalogue."""
OFFSET = re.compile(r", offset (\d+)\Z")
"""How a finding of the raw layer ends that says where on the disk it lies."""

Json = dict[str, object]


@dataclass(frozen=True)
class Examined:
    """One thing that was proved, a disk or an image: a run of its own in the SARIF file."""

    name: str
    """A file, `snap-…` or `ami-…`."""
    results: tuple[Result, ...]
    findings: tuple[Finding, ...]
    digest: str = ""
    """The SHA-256 over its blocks, where they were searched."""
    error: str | None = None
    leaks: "tuple[Leak, ...]" = ()


def examined_by(evidence: "Evidence") -> Examined:
    """Return what a build or a proof examined, as the renderer takes it."""
    image = evidence.image
    digests = evidence.block_digests
    return Examined(
        name=image.image_id if image else evidence.build_id,
        results=evidence.results,
        findings=evidence.findings,
        digest=next(iter(digests.values())) if len(digests) == 1 else "",
        error=evidence.error,
        leaks=evidence.leaks,
    )


def render_sarif(examined: Sequence[Examined]) -> str:
    """Return a SARIF file with a run for each thing that was examined. Plain ASCII, so that nothing in it acts."""
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(each) for each in examined]}
    return json.dumps(document, indent=2) + "\n"


def _run(examined: Examined) -> Json:
    failed = [result for result in examined.results if result.status.is_failure]
    rules = list(dict.fromkeys([*map(_rule_of, failed), *(finding.control for finding in examined.findings)]))
    results = [
        *(_finding_alert(examined.name, finding, rules) for finding in examined.findings),
        *(_result_alert(examined.name, result, rules) for result in failed),
    ]
    return {
        "tool": {"driver": {"name": "Assay", "rules": [_rule(identity) for identity in rules]}},
        "automationDetails": {"id": f"assay/{_uri(examined.name)}"},
        "invocations": [_invocation(examined)],
        "artifacts": [_artifact(examined)],
        "results": results,
    }


def _rule_of(result: Result) -> str:
    """Return the control that a result is filed under: the first that it serves."""
    return result.controls[0] if result.controls else WITHOUT_CONTROL


def _rule(identity: str) -> Json:
    control = CATALOGUE.get(identity)
    title = make_visible(control.title) if control else "a check of the spec's own"
    return {"id": identity, "shortDescription": {"text": title}, "defaultConfiguration": {"level": "error"}}


def _invocation(examined: Examined) -> Json:
    """Return how the examination went. What could not be asked makes it unsuccessful: no alert is no proof then."""
    problems = [
        *([examined.error] if examined.error else []),
        *(f"{leak.kind} {leak.identity} in {leak.region} is left: {leak.reason}" for leak in examined.leaks),
    ]
    unreachable = any(result.status is Status.UNREACHABLE for result in examined.results)
    return {
        "executionSuccessful": not unreachable and not problems,
        "toolExecutionNotifications": [
            {"level": "error", "message": {"text": make_visible(problem)}} for problem in problems
        ],
    }


def _artifact(examined: Examined) -> Json:
    properties = {"blocksSha256": examined.digest} if examined.digest else {}
    return {"location": {"uri": _uri(examined.name)}, "properties": properties}


def _finding_alert(name: str, finding: Finding, rules: Sequence[str]) -> Json:
    parts = (f"{finding.kind} at {finding.place}", finding.detail, f"fingerprint {finding.fingerprint}")
    offset = OFFSET.search(finding.place)
    region: Json = {"region": {"byteOffset": int(offset[1])}} if offset else {}
    identity = (finding.control, finding.kind, finding.place, finding.fingerprint)
    where = _location(name, OFFSET.sub("", finding.place), region)
    return _alert(finding.control, rules, "; ".join(filter(None, parts)), where, identity)


def _result_alert(name: str, result: Result, rules: Sequence[str]) -> Json:
    verdict = "could not be asked" if result.status is Status.UNREACHABLE else "failed"
    text = f"{verdict} at layer {result.layer.value}: {result.title}"
    identity = (*result.controls, result.layer.value, result.source, result.title)
    detailed = f"{text}: {result.detail}" if result.detail else text
    return _alert(_rule_of(result), rules, detailed, _location(name, result.source), identity)


def _alert(rule: str, rules: Sequence[str], text: str, location: Json, identity: Iterable[str]) -> Json:
    """Return a result of SARIF. Its fingerprint is the same in the next run, so that a dashboard knows it again."""
    mark = hashlib.sha256("\0".join(identity).encode(errors="replace")).hexdigest()
    return {
        "ruleId": rule,
        "ruleIndex": rules.index(rule),
        "level": "error",
        "message": {"text": make_visible(text)},
        "locations": [location],
        "partialFingerprints": {"assay/v1": mark},
    }


def _location(name: str, part: str, region: Json | None = None) -> Json:
    """Return a place in what was examined: the thing as a whole, which part of it, and where in its bytes."""
    return {
        "physicalLocation": {"artifactLocation": {"uri": _uri(name), "index": 0}, **(region or {})},
        "logicalLocations": [{"fullyQualifiedName": make_visible(part)}],
    }


def _uri(name: str) -> str:
    """Return a name as a reference of a URI."""
    return quote(name, errors="replace")
