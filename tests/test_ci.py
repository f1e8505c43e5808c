"""The nightly workflows: each is what its service reads, and calls tasks that exist, with options that they have."""

import re
import subprocess
import sys

import pytest
import yaml
from invoke.parser import Parser

from tasks import namespace
from tests.end_to_end import ROOT

SCHEMAS = {"github-actions.yml": "vendor.github-workflows", "gitlab-ci.yml": "vendor.gitlab-ci"}
"""CodeBuild publishes no schema."""
WORKFLOWS = sorted((ROOT / "ci").glob("*.yml"))


def test_there_is_a_workflow_for_each_service() -> None:
    assert {path.name for path in WORKFLOWS} == {*SCHEMAS, "codebuild.yml"}


@pytest.mark.subprocess
@pytest.mark.parametrize("name", SCHEMAS)
def test_a_workflow_fits_the_schema_of_its_service(name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", SCHEMAS[name], str(ROOT / "ci" / name)]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert ran.returncode == 0, ran.stdout + ran.stderr


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_builds_and_sweeps_by_tasks_that_exist(path) -> None:
    text = path.read_text()
    calls = [call.replace('"', "").split() for call in re.findall(r"ci/invoke ([^`\n]+)", text)]
    spec = re.search(r"SPEC: (\S+)", text)

    parsed = [Parser(contexts=namespace.to_contexts()).parse_argv(call)[0].name for call in calls]

    assert {"build", "sweep", "iam.policy"} == set(parsed)
    assert spec and (ROOT / spec[1]).is_file()


def test_codebuild_sweeps_after_a_build_that_failed_too() -> None:
    phases = yaml.safe_load((ROOT / "ci" / "codebuild.yml").read_text())["phases"]

    assert [command.split()[1] for phase in ("build", "post_build") for command in phases[phase]["commands"]] == [
        "build",
        "sweep",
    ]
