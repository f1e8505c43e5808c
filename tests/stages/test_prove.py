"""A proof is passed only when everything passed."""

import pytest

from pipeline.errors import ProofFailed, ResidueFound
from pipeline.report.evidence import Finding, Layer, Result, Status
from pipeline.stages.prove import no_way_in, require_pass


def result(status: Status) -> Result:
    return Result(controls=("H01",), layer=Layer.LIVE, status=status, title="a check", source="checks/test_x.py")


FINDING = Finding(control="S02", layer=Layer.RAW, kind="public key", place="offset 7", fingerprint="sha256/0011")


def test_passes_and_what_does_not_apply_are_enough():
    require_pass((result(Status.PASS), result(Status.NOT_APPLICABLE)), (), "ami-1")


@pytest.mark.parametrize("status", [Status.FAIL, Status.UNREACHABLE])
def test_one_result_that_is_no_pass_fails_the_proof(status):
    with pytest.raises(ProofFailed, match="H01"):
        require_pass((result(Status.PASS), result(status)), (), "ami-1")


def test_one_finding_fails_the_proof_even_when_every_result_passed():
    with pytest.raises(ResidueFound, match="1 finding"):
        require_pass((result(Status.PASS),), (FINDING,), "ami-1")


def test_an_image_that_nobody_can_enter_is_not_proved():
    with pytest.raises(ProofFailed):
        require_pass((no_way_in(),), (), "ami-1")
