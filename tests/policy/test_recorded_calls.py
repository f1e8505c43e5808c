"""`pipeline/policy/calls.json` is what the tasks ask of a cloud, no more and no less."""

import json

import pytest

from pipeline.policy.statements import CALLS, policy_document, tasks
from tests.fake_cloud import FakeCloud, fake_cloud
from tests.policy.recording import record_elsewhere
from tests.policy.test_statements import NEEDED, SPEC

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end


def test_the_calls_of_each_task_are_those_that_it_makes(fake_cloud: FakeCloud) -> None:
    assert CALLS.read_text() == record_elsewhere(fake_cloud), "python -m tests.policy.recording writes it anew"


@pytest.mark.parametrize("task", tasks())
def test_iam_takes_the_policy_of_each_task(fake_cloud: FakeCloud, task: str) -> None:
    spec = NEEDED.get(task, SPEC)
    document = json.dumps(policy_document([task], spec, [spec.region]))
    iam = fake_cloud.open().client("iam")
    assert iam.create_policy(PolicyName=f"assay-{task}", PolicyDocument=document)["Policy"]["Arn"]
