"""Every command of the README runs, and every file and task that it names exists."""

import re
import shlex

import pytest

from tests.end_to_end import ROOT

README = (ROOT / "README.md").read_text()
BLOCKS = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
COMMANDS = [line.split("#")[0].strip() for block in BLOCKS for line in block.splitlines() if line.strip()]
ELSEWHERE = {
    "ci/invoke build": "tests/test_build_end_to_end.py builds by the same task",
    "ci/invoke test": "it is what runs this",
    "ci/invoke verify --ami=ami-…": "tests/test_build_end_to_end.py, with the image that it built",
    "ci/invoke scan --ami=ami-…": "tests/test_build_end_to_end.py, with the image that it built",
    "ci/invoke diff --from=ami-… --to=ami-…": "tests/test_build_end_to_end.py, with the image that it built",
    "ci/invoke harden --host=USER@HOST": "tests/test_apply.py, on a real sshd",
    "ci/invoke bench --only=build": "tests/bench is measured by hand: a measurement beside tests would be none",
    "ci/invoke bench --only=release": "the same matrix is tests/publish/test_fault_matrix.py",
    "ci/invoke bench --only=planted": "the same search of the same disks is tests/planted/test_planted.py",
    "ci/invoke bench --only=verify": "tests/verify/test_both_backends.py runs every check by both ways",
    "ci/invoke bench --only=harden": "it takes an hour; tests/bench/test_operations.py runs our part of it",
    "ci/invoke build --spec=specs/debian-12.yaml": "needs an account of AWS: never run",
    "ci/invoke audit.account": "tests/audit: a local cloud has no root MFA and no password policy, so it exits 80",
    "ci/invoke audit.network": "tests/audit: what other tests leave open for a moment is none of the README's",
    "ci/invoke release.sign": "tests/test_attest.py, and like the status it wants a release as declared",
    "ci/invoke release.status": "tests/publish/test_release.py compares a release of two regions",
    "ci/invoke marketplace.submit --spec=SPEC": "tests/publish/test_marketplace.py: the local cloud sells nothing",
    "ci/invoke retire --spec=SPEC": "tests/publish/test_lifecycle.py, to the end of an image in two regions",
    "ci/invoke lint": "tests/test_lint.py",
}
HERE = [command for command in COMMANDS if command not in ELSEWHERE]


def test_the_readme_has_commands_and_no_other_way_to_run_them():
    assert COMMANDS[:2] == ["ci/invoke build", "ci/invoke test"]
    assert all(command.startswith("ci/invoke ") for command in COMMANDS)
    assert set(ELSEWHERE) <= set(COMMANDS)


@pytest.mark.end_to_end
@pytest.mark.parametrize("command", HERE)
def test_a_command_of_the_readme_runs(command, built, workshop, tmp_path):
    (tmp_path / "latest").symlink_to(workshop.builds / built["build_id"])
    ran = workshop.invoke(
        *shlex.split(command)[1:], ASSAY_BUILDS=str(tmp_path), AWS_ENDPOINT_URL=workshop.cloud["AWS_ENDPOINT_URL"]
    )

    assert ran.status == 0, ran.output[-3000:] + ran.errors
    assert ran.output.strip()


def test_every_file_that_the_readme_links_or_names_exists():
    linked = re.findall(r"\]\(([^)#]+)\)", README)
    named = re.findall(r"`((?:specs|pipeline|ci|tests|checks)/[\w./-]+)`", README)
    local = [path for path in (*linked, *named) if not path.startswith("http")]

    assert len(local) >= 3
    assert [path for path in local if not (ROOT / path).exists()] == []
