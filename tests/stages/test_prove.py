"""A proof is passed only when everything passed."""

import pytest

from pipeline.errors import ProofFailed, ResidueFound, SpecInvalid
from pipeline.guest.keys import KeyPair, make_key_pair
from pipeline.report.evidence import Finding, Layer, Result, Status
from pipeline.stages.boots import choose_prover, no_way_in
from pipeline.stages.prove import require_pass
from tests.guest.sshd import write_private
from tests.harden.samples import spec


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


def unprivileged(folder, key: KeyPair, sudo: bool = True):
    """Return a spec whose launch user is not root, with one user, and the private key of another or of that one."""
    mine = make_key_pair("alice")
    write_private(folder / "key", mine.private_openssh.reveal)
    user = {"name": "alice", "full_name": "Alice", "keys": [(key or mine).public_openssh]}
    grant = {"sudo": {"who": "the CTO", "why": "on call"}} if sudo else {}
    return spec(
        harden={"launch_user_sudo": False},
        ssh={"administrator_key_file": str(folder / "key")},
        users=[{**user, **grant}],
    )


def test_the_launch_user_asks_a_fresh_boot():
    launch_key = make_key_pair("launch")
    assert choose_prover(spec(), "admin", launch_key) == ("admin", launch_key)


def test_an_administrator_asks_where_the_launch_user_is_not_root(tmp_path):
    name, key = choose_prover(unprivileged(tmp_path, None), "admin", make_key_pair("launch"))
    assert (name, key.public_openssh.split()[0]) == ("alice", "ssh-ed25519")


@pytest.mark.parametrize("wrong", ["another's key", "no sudo"])
def test_a_key_of_no_administrator_is_refused(tmp_path, wrong):
    key = make_key_pair("other") if wrong == "another's key" else None
    with pytest.raises(SpecInvalid, match="of no user with sudo"):
        choose_prover(unprivileged(tmp_path, key, sudo=wrong != "no sudo"), "admin", make_key_pair("launch"))
