"""The evidence as files: JSON for programs, JUnit XML for CI, and the matrix of controls and layers."""

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from pipeline.report.results import Finding, Layer, Result, Status
from pipeline.report.text import make_visible

if TYPE_CHECKING:
    from pipeline.report.evidence import Evidence, Stage

WORST_FIRST = (Status.FAIL, Status.UNREACHABLE, Status.PASS, Status.NOT_APPLICABLE)

Matrix = dict[str, dict[Layer, Status]]


def worst_status(statuses: Iterable[Status]) -> Status:
    """Return the worst of some statuses: fail, unreachable, pass, not-applicable. Of none: not-applicable."""
    return min(statuses, key=WORST_FIRST.index, default=Status.NOT_APPLICABLE)


def control_matrix(evidence: "Evidence") -> Matrix:
    """Return for each control, in order, its status at each layer where something was recorded; a finding is a fail."""
    recorded: dict[str, dict[Layer, list[Status]]] = {}
    for result in evidence.results:
        for control in result.controls:
            recorded.setdefault(control, {}).setdefault(result.layer, []).append(result.status)
    for finding in evidence.findings:
        recorded.setdefault(finding.control, {}).setdefault(finding.layer, []).append(Status.FAIL)
    return {
        control: {layer: worst_status(recorded[control][layer]) for layer in Layer if layer in recorded[control]}
        for control in sorted(recorded)
    }


def failed_results(evidence: "Evidence") -> tuple[Result, ...]:
    """Return the results that count as failures: what failed, and what could not be asked."""
    return tuple(result for result in evidence.results if result.status.is_failure)


def render_json(evidence: "Evidence") -> str:
    """Return `report.json`: the evidence and, under `controls`, the matrix. Plain ASCII, so that nothing in it acts."""
    document = evidence.model_dump(mode="json")
    document["controls"] = control_matrix(evidence)
    return json.dumps(document, indent=2) + "\n"


def parse_json(text: str) -> "Evidence":
    """Return the evidence that a `report.json` holds. Raises ValueError for anything else."""
    from pipeline.report.evidence import Evidence

    document = json.loads(text)
    if isinstance(document, dict):
        document.pop("controls", None)
    return Evidence.model_validate(document)


def export_report_schema() -> str:
    """Return the JSON Schema of `report.json`, as report.schema.json beside this module holds it."""
    from pipeline.report.evidence import Evidence

    schema = Evidence.model_json_schema(mode="serialization")
    schema["properties"]["controls"] = {
        "description": "The status of each control at each layer: the worst that was recorded.",
        "type": "object",
        "additionalProperties": {
            "type": "object",
            "propertyNames": {"enum": [layer.value for layer in Layer]},
            "additionalProperties": {"$ref": "#/$defs/Status"},
        },
    }
    schema["required"].append("controls")
    return json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}, indent=2) + "\n"


def render_junit(evidence: "Evidence") -> str:
    """Return the evidence as JUnit XML: a suite for the stages, one for each layer, one for what must not be there."""
    root = ElementTree.Element("testsuites", name=make_visible(f"{evidence.spec_name} {evidence.build_id}"))
    _add_suite(root, "stages", [_stage_case(stage) for stage in evidence.stages] + _ending_cases(evidence))
    for layer in Layer:
        cases = [_result_case(result) for result in evidence.results if result.layer is layer]
        _add_suite(root, f"layer {layer} {layer.words}", cases)
    _add_suite(root, "findings", [_finding_case(finding) for finding in evidence.findings])
    _total(root)
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode", xml_declaration=False) + "\n"


def _case(classname: str, name: str, seconds: float) -> ElementTree.Element:
    attributes = {"classname": make_visible(classname), "name": make_visible(name), "time": f"{seconds:.3f}"}
    return ElementTree.Element("testcase", attributes)


def _mark(case: ElementTree.Element, kind: str, message: str) -> ElementTree.Element:
    safe = make_visible(message)
    ElementTree.SubElement(case, kind, message=safe.split("\n", 1)[0]).text = safe
    return case


def _result_case(result: Result) -> ElementTree.Element:
    name = f"{' '.join(result.controls)}: {result.title}" if result.controls else result.title
    case = _case(f"{result.layer}.{result.source}", name, result.seconds)
    if result.status is Status.FAIL:
        return _mark(case, "failure", result.detail or "failed")
    if result.status is Status.UNREACHABLE:
        return _mark(case, "failure", f"unreachable: {result.detail}")
    if result.status is Status.NOT_APPLICABLE:
        return _mark(case, "skipped", result.detail or "not applicable")
    return case


def _finding_case(finding: Finding) -> ElementTree.Element:
    case = _case(f"{finding.layer}.{finding.kind}", f"{finding.control}: {finding.place}", 0)
    return _mark(case, "failure", f"{finding.kind} at {finding.place}, {finding.fingerprint}. {finding.detail}".strip())


def _stage_case(stage: "Stage") -> ElementTree.Element:
    case = _case("stages", stage.name, stage.seconds)
    return case if stage.status is Status.PASS else _mark(case, "failure", stage.detail or str(stage.status))


def _ending_cases(evidence: "Evidence") -> list[ElementTree.Element]:
    """Return the cases of what no stage owns: how the build ended, and each thing that it could not remove."""
    cases = []
    if evidence.error is not None:
        cases.append(_mark(_case("build", "ends well", 0), "failure", evidence.error))
    for leak in evidence.leaks:
        case = _case("build", f"removes {leak.kind} {leak.identity} in {leak.region}", 0)
        cases.append(_mark(case, "failure", leak.reason))
    return cases


def _add_suite(root: ElementTree.Element, name: str, cases: list[ElementTree.Element]) -> None:
    if not cases:
        return
    suite = ElementTree.SubElement(root, "testsuite", name=name)
    suite.extend(cases)
    _total(suite)


def _total(element: ElementTree.Element) -> None:
    cases = list(element.iter("testcase"))
    element.set("tests", str(len(cases)))
    element.set("failures", str(sum(case.find("failure") is not None for case in cases)))
    element.set("errors", "0")
    element.set("skipped", str(sum(case.find("skipped") is not None for case in cases)))
    element.set("time", f"{sum(float(case.get('time', '0')) for case in cases):.3f}")
