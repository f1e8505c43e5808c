"""Signed statements: what image a build made of what, and that it was proved (in-toto Statement v1, DSSE).

Two statements with the same subjects, each in an envelope on a line of its own: SLSA provenance v1, and a verification
of ours. Both are functions of the report alone, so that checking them means making them again and comparing.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from securesystemslib.dsse import Envelope
from securesystemslib.exceptions import Error as SignatureError
from securesystemslib.signer import Key, Signer  # type: ignore[attr-defined]  # it does not say what it exports

from pipeline.errors import AttestationFailed, EvidenceChanged, SignatureRefused, SpecInvalid
from pipeline.files import write_atomically
from pipeline.report.evidence import Evidence, Image, Status
from pipeline.report.evidence_folder import REPORT, read_report, reasons_unproved
from pipeline.report.render import control_matrix
from pipeline.report.sbom import FILE as BILL

FILE = "attestation.intoto.jsonl"
PUBLISHED = "published.intoto.jsonl"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT = "https://in-toto.io/Statement/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
VERIFICATION = "urn:ami-assay:verification:v1"
PUBLICATION = "urn:ami-assay:publication:v1"
BUILD_TYPE = "urn:ami-assay:build:v1"
BUILDER = "urn:ami-assay:builder"
BLOCKS = "assayBlocksSha256"
"""SHA-256 over the written blocks of a snapshot in their order, as the report has it: no digest of a file."""
SPEC = "assaySpecSha256"
"""SHA-256 over the canonical JSON of a spec."""

Json = dict[str, Any]


@dataclass(frozen=True)
class Verified:
    """A file of statements in which everything fits."""

    signer: str
    """The id of the key that signed."""
    statements: tuple[Json, ...]
    compared: bool
    """Whether the report was there to be held against them."""

    def lines(self) -> Iterator[str]:
        """Yield what was verified, as people read it."""
        yield f"signed by key {self.signer}"
        for statement in self.statements:
            yield f"{statement['predicateType']}"
        for subject in self.statements[0]["subject"]:
            yield from (f"  {subject['name']} {kind}:{digest}" for kind, digest in subject["digest"].items())
        yield "the report beside it says the same" if self.compared else "no report is beside it: nothing was compared"


def sign_build(folder: Path, signer: Signer) -> Path:
    """Write the statements about a proved build beside its report, and return their path.

    Raises AttestationFailed for a build that was not proved, or when the key does not sign; FileUnwritable.
    """
    evidence = read_report(folder)
    require_proved(evidence)
    return write_signed(folder.resolve() / FILE, make_statements(evidence, folder), signer)


def sign_publication(folder: Path, published: Mapping[str, str], signer: Signer) -> Path:
    """Write the list of a proved build's published images, an id by region, beside its report; return its path (A13).

    Raises AttestationFailed for a build that was not proved, or when the key does not sign; FileUnwritable.
    """
    evidence = read_report(folder)
    require_proved(evidence)
    return write_signed(folder.resolve() / PUBLISHED, [make_publication(evidence, published)], signer)


def require_proved(evidence: Evidence) -> None:
    """Raise AttestationFailed for a build that was not proved."""
    if reasons := reasons_unproved(evidence):
        raise AttestationFailed(
            f"the build {evidence.build_id} is not proved: {'; '.join(reasons[:5])}",
            region=evidence.region,
            hint="only what was proved is attested: build it again",
        )


def write_signed(path: Path, statements: Iterable[Json], signer: Signer) -> Path:
    """Sign statements, and write an envelope on each line. Raises AttestationFailed, FileUnwritable."""
    envelopes = []
    for statement in statements:
        payload = json.dumps(statement, sort_keys=True, separators=(",", ":")).encode()
        envelope = Envelope(payload, PAYLOAD_TYPE, {})
        try:
            envelope.sign(signer)
        except SignatureError as error:
            raise AttestationFailed(f"the key does not sign: {error}") from error
        envelopes.append(json.dumps(envelope.to_dict()))
    write_atomically(path, "\n".join(envelopes) + "\n")
    return path


def make_statements(evidence: Evidence, folder: Path) -> tuple[Json, Json]:
    """Return the provenance and the verification of a proved build, over its report and its bill of materials.

    Raises SpecInvalid for a report without an image.
    """
    if evidence.image is None:
        raise SpecInvalid("the report is about no image", hint="only a build that made one can be attested")
    subjects = make_subjects(evidence, evidence.image, folder)
    return (
        statement_of(subjects, PROVENANCE, make_provenance(evidence, subjects)),
        statement_of(subjects, VERIFICATION, make_verification(evidence, evidence.image)),
    )


def statement_of(subjects: list[Json], predicate_type: str, predicate: Json) -> Json:
    """Return an in-toto statement (v1)."""
    return {"_type": STATEMENT, "subject": subjects, "predicateType": predicate_type, "predicate": predicate}


def make_subjects(evidence: Evidence, image: Image, folder: Path) -> list[Json]:
    """Return what the statements are about: image and snapshots by their blocks, the spec, the report, the packages."""
    root = image.snapshot_ids[0]
    blocks = [(image.image_id, root), *((snapshot, snapshot) for snapshot in image.snapshot_ids)]
    files = [name for name in (REPORT, BILL) if (folder / name).exists()]
    return [
        *(
            {"name": name, "digest": {BLOCKS: evidence.block_digests[snapshot]}}
            for name, snapshot in blocks
            if snapshot in evidence.block_digests
        ),
        {"name": f"spec {evidence.spec_name}", "digest": {SPEC: evidence.spec_digest}},
        *({"name": name, "digest": {"sha256": file_digest(folder / name)}} for name in files),
    ]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_provenance(evidence: Evidence, subjects: list[Json]) -> Json:
    """Return the SLSA provenance (v1): what was built, of what, by whom and when."""
    base = evidence.base_image
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {
                "spec": {"name": evidence.spec_name, "digest": {SPEC: evidence.spec_digest}},
                "region": evidence.region,
            },
            "internalParameters": {},
            "resolvedDependencies": [
                {
                    "name": base.name,
                    "uri": image_arn(evidence.region, base.image_id),
                    "annotations": {"owner": base.owner_id, "created": base.creation_date},
                }
            ]
            if base
            else [],
        },
        "runDetails": {
            "builder": {"id": BUILDER},
            "metadata": {
                "invocationId": evidence.build_id,
                "startedOn": evidence.started.isoformat(),
                "finishedOn": evidence.finished.isoformat() if evidence.finished else None,
            },
            "byproducts": [subject for subject in subjects if subject["name"] in (REPORT, BILL)],
        },
    }


def image_arn(region: str, image_id: str) -> str:
    """Return the ARN of an image, in the partition of its region."""
    partitions = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    partition = next((name for start, name in partitions.items() if region.startswith(start)), "aws")
    return f"arn:{partition}:ec2:{region}::image/{image_id}"


def make_verification(evidence: Evidence, image: Image) -> Json:
    """Return our own predicate: what was checked at which layer, and how it ended."""
    passed = {"pass": Status.PASS, "notApplicable": Status.NOT_APPLICABLE}
    layers = sorted({result.layer for result in evidence.results})
    return {
        "result": "PASSED" if not reasons_unproved(evidence) else "FAILED",
        "verifiedOn": evidence.finished.isoformat() if evidence.finished else None,
        "buildId": evidence.build_id,
        "image": {"id": image.image_id, "name": image.name, "region": image.region},
        "snapshots": list(image.snapshot_ids),
        "policy": {"name": evidence.spec_name, "digest": {SPEC: evidence.spec_digest}},
        "exitStatus": evidence.exit_status,
        "findings": len(evidence.findings),
        "layers": {
            str(layer): {
                word: sum(result.layer is layer and result.status is status for result in evidence.results)
                for word, status in passed.items()
            }
            for layer in layers
        },
        "controls": {
            control: {str(layer): str(status) for layer, status in row.items()}
            for control, row in control_matrix(evidence).items()
        },
    }


def make_publication(evidence: Evidence, published: Mapping[str, str]) -> Json:
    """Return the statement about where a build's image is published: each copy by its ARN and its blocks (A13).

    Raises SpecInvalid for a report without an image.
    """
    if evidence.image is None:
        raise SpecInvalid("the report is about no image", hint="only a build that made one can be attested")
    digest = {BLOCKS: evidence.block_digests.get(evidence.image.snapshot_ids[0], "")}
    subjects = [{"name": image_arn(region, image_id), "digest": digest} for region, image_id in published.items()]
    about = {
        "buildId": evidence.build_id,
        "name": evidence.image.name,
        "spec": {"name": evidence.spec_name, "digest": {SPEC: evidence.spec_digest}},
        "images": dict(published),
    }
    return statement_of(subjects, PUBLICATION, about)


def verify_file(path: Path, keys: Iterable[Key]) -> Verified:
    """Verify signatures, form and content of a file of statements; the report beside it must say the same.

    Raises SpecInvalid when there is no such file, SignatureRefused when no key fits or something is not signed,
    EvidenceChanged with everything that does not fit.
    """
    envelopes = read_envelopes(path)
    signers = {require_signature(envelope, list(keys), path) for envelope in envelopes}
    statements = tuple(read_statement(envelope, path) for envelope in envelopes)
    compared = (path.parent / REPORT).exists()
    problems = [*find_odd_forms(statements), *(find_differences(statements, path.parent) if compared else ())]
    if problems:
        raise EvidenceChanged(f"{path.name} does not fit", tuple(problems))
    return Verified(", ".join(sorted(signers)), statements, compared)


def read_envelopes(path: Path) -> list[Envelope]:
    """Return the envelopes of a file, one on each line."""
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise SpecInvalid(
            f"there are no statements at {path}", hint="only a proved build has some; `invoke attest.sign` signs it"
        ) from error
    try:
        return [Envelope.from_dict(json.loads(line)) for line in text.splitlines()]
    except (ValueError, KeyError, TypeError, AttributeError, SignatureError) as error:
        raise SignatureRefused("a line is no signed envelope", resource=str(path)) from error


def require_signature(envelope: Envelope, keys: list[Key], path: Path) -> str:
    """Return the id of the key that signed an envelope. Raises SignatureRefused."""
    try:
        accepted = envelope.verify(keys, threshold=1)
    except (SignatureError, ValueError) as error:
        known = ", ".join(key.keyid[:16] for key in keys)
        named = ", ".join(keyid[:16] for keyid in envelope.signatures) or "nobody"
        raise SignatureRefused(
            f"the signature is not good: signed by {named}, and we trust {known}", resource=str(path)
        ) from error
    return next(iter(accepted))


def read_statement(envelope: Envelope, path: Path) -> Json:
    """Return the statement in an envelope. Raises EvidenceChanged when it is none."""
    try:
        statement = json.loads(envelope.payload)
    except ValueError as error:
        raise EvidenceChanged("a payload is no JSON", resource=str(path)) from error
    if envelope.payload_type != PAYLOAD_TYPE or not isinstance(statement, dict):
        raise EvidenceChanged("a payload is no in-toto statement", resource=str(path))
    return statement


def find_odd_forms(statements: tuple[Json, ...]) -> Iterator[str]:
    """Yield what is wrong with the statements by themselves."""
    kinds = [statement.get("predicateType") for statement in statements]
    if kinds not in ([PROVENANCE, VERIFICATION], [PUBLICATION]):
        yield f"wanted are two statements, {PROVENANCE} and {VERIFICATION}, or one, {PUBLICATION}"
        return
    for statement in statements:
        if statement.get("_type") != STATEMENT:
            yield f"_type: wanted {STATEMENT}, found {statement.get('_type')}"
    if kinds == [PUBLICATION]:
        return
    if statements[0].get("subject") != statements[1].get("subject"):
        yield "subject: the two statements are about different things"
    result = (statements[1].get("predicate") or {}).get("result")
    if result != "PASSED":
        yield f"predicate.result: wanted PASSED, found {result}"


def find_differences(statements: tuple[Json, ...], folder: Path) -> Iterator[str]:
    """Yield where the statements differ from what the report beside them would make us state now."""
    evidence = read_report(folder)
    yield from (f"{REPORT}: {reason}" for reason in reasons_unproved(evidence))
    if [statement.get("predicateType") for statement in statements] == [PUBLICATION]:
        published = (statements[0].get("predicate") or {}).get("images") or {}
        yield from compare(statements[0], make_publication(evidence, published), "")
        return
    for signed, stated in zip(statements, make_statements(evidence, folder), strict=False):
        yield from compare(signed, stated, "")


def compare(signed: object, found: object, place: str) -> Iterator[str]:
    """Yield each place at which two JSON values differ."""
    signed, found = by_name(signed), by_name(found)
    if isinstance(signed, dict) and isinstance(found, dict):
        for key in sorted(signed.keys() | found.keys()):
            yield from compare(signed.get(key), found.get(key), f"{place}.{key}" if place else key)
    elif signed != found:
        yield f"{place}: signed was {json.dumps(signed)}, here is {json.dumps(found)}"


def by_name(value: object) -> object:
    """Return a list of things that have names as a mapping, so that each is compared with its namesake."""
    if isinstance(value, list) and value and all(isinstance(one, dict) and "name" in one for one in value):
        return {str(one["name"]): one for one in value}
    return value
