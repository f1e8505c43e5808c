"""Statements about what was proved: who signed, what they say, and that nobody can change either unnoticed."""

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from securesystemslib.signer import CryptoSigner  # type: ignore[attr-defined]

from pipeline.attest import (
    FILE,
    find_odd_forms,
    image_arn,
    make_statements,
    sign_build,
    sign_publication,
    verify_file,
)
from pipeline.errors import AttestationFailed, EvidenceChanged, SignatureRefused, SpecInvalid
from pipeline.report.evidence import Evidence, Finding, Layer, Status
from pipeline.report.evidence_folder import write_report
from tests.report.evidence_examples import CLEAN, result

DIGEST = "ab" * 32
PROVED = CLEAN.model_copy(
    update={
        "results": tuple(result("H01", layer, Status.PASS) for layer in (Layer.LIVE, Layer.RAW, Layer.FRESH_BOOT)),
        "block_digests": {"snap-1": DIGEST},
    }
)
FINDING = Finding(control="R03", layer=Layer.RAW, kind="key", place="block 7", fingerprint="00")


@pytest.fixture
def signer() -> CryptoSigner:
    return CryptoSigner.generate_ed25519()


@pytest.fixture
def signed(tmp_path: Path, signer: CryptoSigner) -> Path:
    write_report(tmp_path, PROVED)
    (tmp_path / "sbom.cdx.json").write_text("{}")
    return sign_build(tmp_path, signer)


def statements_in(path: Path) -> list[Any]:
    return [json.loads(base64.b64decode(json.loads(line)["payload"])) for line in path.read_text().splitlines()]


def test_what_was_signed_verifies(signed: Path, signer: CryptoSigner) -> None:
    verified = verify_file(signed, [signer.public_key])
    assert verified.signer == signer.public_key.keyid
    assert verified.compared
    assert list(verified.statements) == statements_in(signed)
    assert list(verified.lines())[-1] == "the report beside it says the same"


def test_statements_are_of_their_standards(signed: Path) -> None:
    provenance, verification = statements_in(signed)
    for statement in (provenance, verification):
        assert statement["_type"] == "https://in-toto.io/Statement/v1"
    assert provenance["predicateType"] == "https://slsa.dev/provenance/v1"
    assert {"buildDefinition", "runDetails"} == provenance["predicate"].keys()
    assert {"buildType", "externalParameters"} <= provenance["predicate"]["buildDefinition"].keys()
    (base,) = provenance["predicate"]["buildDefinition"]["resolvedDependencies"]
    assert base["uri"] == "arn:aws:ec2:eu-central-1::image/ami-00000001"
    assert provenance["predicate"]["runDetails"]["builder"]["id"]
    envelope = json.loads(signed.read_text().splitlines()[0])
    assert envelope["payloadType"] == "application/vnd.in-toto+json"
    assert verification["predicate"]["result"] == "PASSED"
    assert verification["predicate"]["layers"]["R"] == {"pass": 1, "notApplicable": 0}


def test_subjects_are_image_snapshot_spec_report_and_packages(signed: Path) -> None:
    provenance, verification = statements_in(signed)
    assert provenance["subject"] == verification["subject"]
    subjects = {subject["name"]: subject["digest"] for subject in provenance["subject"]}
    assert subjects.keys() == {"ami-0feed", "snap-1", "spec debian-12-local", "report.json", "sbom.cdx.json"}
    assert subjects["ami-0feed"] == subjects["snap-1"] == {"assayBlocksSha256": DIGEST}
    assert subjects["spec debian-12-local"] == {"assaySpecSha256": "0" * 64}
    assert len(subjects["report.json"]["sha256"]) == 64


@pytest.mark.parametrize(
    "change",
    [
        {"image": None},
        {"results": PROVED.results[1:]},
        {"results": (*PROVED.results, result("H02", Layer.LIVE, Status.FAIL))},
        {"results": (*PROVED.results, result("H02", Layer.LIVE, Status.UNREACHABLE))},
        {"findings": (FINDING,)},
    ],
    ids=["no image", "a layer is missing", "a failure", "unreachable", "a finding"],
)
def test_only_what_was_proved_is_signed(tmp_path: Path, signer: CryptoSigner, change: dict[str, Any]) -> None:
    write_report(tmp_path, PROVED.model_copy(update=change))
    with pytest.raises(AttestationFailed, match="not proved"):
        sign_build(tmp_path, signer)
    assert not (tmp_path / FILE).exists()


def test_another_key_is_refused(signed: Path) -> None:
    with pytest.raises(SignatureRefused, match="not good"):
        verify_file(signed, [CryptoSigner.generate_ed25519().public_key])


def change_line(path: Path, change: Callable[[Any], None]) -> None:
    first, second = path.read_text().splitlines()
    envelope = json.loads(first)
    change(envelope)
    path.write_text(json.dumps(envelope) + "\n" + second + "\n")


def other_payload(envelope: Any) -> None:
    envelope["payload"] = base64.b64encode(base64.b64decode(envelope["payload"]).replace(b"ami-0feed", b"ami-0evil"))
    envelope["payload"] = envelope["payload"].decode()


def other_type(envelope: Any) -> None:
    envelope["payloadType"] = "text/plain"


def no_signature(envelope: Any) -> None:
    envelope["signatures"] = []


@pytest.mark.parametrize("change", [other_payload, other_type, no_signature], ids=lambda change: change.__name__)
def test_changed_envelope_is_refused(signed: Path, signer: CryptoSigner, change: Callable[[Any], None]) -> None:
    change_line(signed, change)
    with pytest.raises(SignatureRefused):
        verify_file(signed, [signer.public_key])


@pytest.mark.parametrize("text", ["x", "{}", "[]", '{"payload": 1, "payloadType": "x", "signatures": []}', '"x"'])
def test_line_that_is_no_envelope_is_refused(signed: Path, signer: CryptoSigner, text: str) -> None:
    signed.write_text(text + "\n")
    with pytest.raises(SignatureRefused, match="no signed envelope"):
        verify_file(signed, [signer.public_key])


@pytest.mark.parametrize("kept", [slice(0), slice(0, 1), slice(1, 2)], ids=["none", "provenance", "verification"])
def test_statement_that_was_taken_away_is_missed(signed: Path, signer: CryptoSigner, kept: slice) -> None:
    signed.write_text("".join(line + "\n" for line in signed.read_text().splitlines()[kept]))
    with pytest.raises(EvidenceChanged, match="two statements"):
        verify_file(signed, [signer.public_key])


@pytest.mark.parametrize(
    ("change", "differs"),
    [
        ({"spec_digest": "1" * 64}, "subject.spec debian-12-local.digest.assaySpecSha256: signed was"),
        ({"block_digests": {"snap-1": "cd" * 32}}, "subject.ami-0feed.digest.assayBlocksSha256"),
        ({"build_id": "b2"}, "predicate.runDetails.metadata.invocationId"),
        ({"image": CLEAN.image and CLEAN.image.model_copy(update={"image_id": "ami-1"})}, "predicate.image.id"),
        ({"findings": (FINDING,)}, "report.json: found: key"),
        ({"error": "something small"}, "subject.report.json.digest.sha256"),
    ],
)
def test_every_difference_to_the_report_is_said(
    signed: Path, signer: CryptoSigner, change: dict[str, Any], differs: str
) -> None:
    write_report(signed.parent, PROVED.model_copy(update=change))
    with pytest.raises(EvidenceChanged) as refused:
        verify_file(signed, [signer.public_key])
    assert any(difference.startswith(differs) for difference in refused.value.differences), refused.value
    assert "signed was" in str(refused.value) or "found" in str(refused.value)


def test_packages_that_were_changed_or_taken_away_are_missed(signed: Path, signer: CryptoSigner) -> None:
    bill = signed.with_name("sbom.cdx.json")
    bill.write_text("[]")
    with pytest.raises(EvidenceChanged, match=r"sbom\.cdx\.json"):
        verify_file(signed, [signer.public_key])
    bill.unlink()
    with pytest.raises(EvidenceChanged, match=r"sbom\.cdx\.json"):
        verify_file(signed, [signer.public_key])


def test_statements_alone_are_verified_and_nothing_is_claimed_to_be_compared(
    signed: Path, signer: CryptoSigner, tmp_path: Path
) -> None:
    alone = tmp_path / "elsewhere" / "statements"
    alone.parent.mkdir()
    alone.write_text(signed.read_text())
    verified = verify_file(alone, [signer.public_key])
    assert not verified.compared
    assert "nothing was compared" in list(verified.lines())[-1]


def test_no_file_is_said(tmp_path: Path, signer: CryptoSigner) -> None:
    with pytest.raises(SpecInvalid, match="no statements"):
        verify_file(tmp_path / FILE, [signer.public_key])


def test_statement_that_says_failed_does_not_pass(tmp_path: Path) -> None:
    write_report(tmp_path, PROVED)
    failed: Evidence = PROVED.model_copy(update={"findings": (FINDING,)})
    assert list(find_odd_forms(make_statements(failed, tmp_path))) == ["predicate.result: wanted PASSED, found FAILED"]


@pytest.mark.parametrize(
    ("region", "partition"), [("eu-central-1", "aws"), ("cn-north-1", "aws-cn"), ("us-gov-west-1", "aws-us-gov")]
)
def test_arn_is_of_the_region_s_partition(region: str, partition: str) -> None:
    assert image_arn(region, "ami-1") == f"arn:{partition}:ec2:{region}::image/ami-1"


PUBLISHED = {"eu-central-1": "ami-0feed", "us-east-1": "ami-0beef"}


def test_the_list_of_published_images_names_each_by_region_and_blocks(tmp_path: Path, signer: CryptoSigner) -> None:
    write_report(tmp_path, PROVED)
    path = sign_publication(tmp_path, PUBLISHED, signer)
    verified = verify_file(path, [signer.public_key])
    assert verified.compared
    (statement,) = verified.statements
    assert statement["predicate"]["images"] == PUBLISHED
    assert {one["name"]: one["digest"] for one in statement["subject"]} == {
        image_arn(region, image_id): {"assayBlocksSha256": DIGEST} for region, image_id in PUBLISHED.items()
    }


def test_a_list_of_other_blocks_or_of_an_unproved_build_is_refused(tmp_path: Path, signer: CryptoSigner) -> None:
    write_report(tmp_path, PROVED)
    path = sign_publication(tmp_path, PUBLISHED, signer)
    with pytest.raises(SignatureRefused):
        verify_file(path, [CryptoSigner.generate_ed25519().public_key])
    write_report(tmp_path, PROVED.model_copy(update={"block_digests": {"snap-1": "cd" * 32}}))
    with pytest.raises(EvidenceChanged, match="subject"):
        verify_file(path, [signer.public_key])
    write_report(tmp_path, PROVED.model_copy(update={"findings": (FINDING,)}))
    with pytest.raises(AttestationFailed, match="not proved"):
        sign_publication(tmp_path, PUBLISHED, signer)
