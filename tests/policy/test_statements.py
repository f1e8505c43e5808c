"""The policies: small enough, limited to what bears a build's tag, and made of every call that the code can make."""

import ast
import json
from collections import defaultdict
from pathlib import Path

import botocore.session
import pytest
from botocore import xform_name

from pipeline.aws.tags import BUILD_ID
from pipeline.errors import SpecInvalid
from pipeline.policy.statements import (
    ALARM,
    BECOMING,
    FREE,
    GRANTS,
    LONGEST,
    READING_A_ROLE,
    SIGNING,
    SUBMITTING,
    TOPIC,
    Limit,
    is_read,
    policy_document,
    recorded_calls,
    tasks,
)
from pipeline.spec import Attest, Consumer, Instance, Marketplace, Network, load_spec
from tests.fake_cloud import ROOT
from tests.publish.test_marketplace import PRODUCT

SPEC = load_spec(ROOT / "specs" / "debian-12.yaml")
ROLE = "arn:aws:iam::210987654321:role/prover"
SIGNED = SPEC.model_copy(update={"attest": Attest(kms_key_id="alias/signing")})
SOLD = SPEC.model_copy(
    update={"release": SPEC.release.model_copy(update={"marketplace": Marketplace.model_validate(PRODUCT)})}
)
CONSUMED = SPEC.model_copy(
    update={"prove": SPEC.prove.model_copy(update={"consumer": Consumer(role_arn=ROLE, external_id="assay")})}
)
NEEDED = {"attest": SIGNED, "marketplace": SOLD}
"""Tasks that are nothing without a part of the spec."""
ASKING = [*sorted((ROOT / "pipeline" / "aws").glob("*.py")), ROOT / "pipeline" / "attest_keys.py"]
"""The modules that ask AWS."""
SERVICES = {
    "ec2": "ec2",
    "ebs": "ebs",
    "ssm": "ssm",
    "sts": "sts",
    "iam": "iam",
    "cloudwatch": "cloudwatch",
    "sns": "sns",
    "kms": "kms",
    "service-quotas": "servicequotas",
    "autoscaling": "autoscaling",
    "marketplace-catalog": "aws-marketplace",
}
"""Each with how policies name it."""
BY_NAME = {*SIGNING, *TOPIC, *ALARM, *SUBMITTING, *BECOMING}
"""Calls whose resource has a name of its own, in the spec or in the code."""


def policy(*chosen: str, spec=None):
    spec = spec or NEEDED.get(chosen[0], SPEC)
    return policy_document(chosen, spec, ["eu-central-1"])


def statement(document, sid):
    return next((one for one in document["Statement"] if one["Sid"] == sid), None)


@pytest.mark.parametrize("task", tasks())
def test_a_policy_fits_into_a_managed_one(task):
    text = json.dumps(policy(task), separators=(",", ":"))
    assert len(text) <= LONGEST


@pytest.mark.parametrize("task", tasks())
def test_every_recorded_call_is_allowed_and_no_other(task):
    allowed = {action for one in policy(task)["Statement"] for action in one["Action"]}
    recorded = set(recorded_calls()[task]) - FREE
    parameters = {call for call in recorded if call.startswith("ssm:")}
    assert allowed - {"ec2:CreateTags", "iam:PassRole"} == recorded - parameters - {"ec2:CreateTags"}


@pytest.mark.parametrize("call", sorted({call for calls in recorded_calls().values() for call in calls} - FREE))
def test_a_call_that_changes_something_is_limited(call):
    assert is_read(call) or call in GRANTS or call in BY_NAME or call.startswith("ssm:")


@pytest.mark.parametrize("task", tasks())
def test_only_reads_are_without_a_resource(task):
    for one in policy(task)["Statement"]:
        if one["Resource"] == "*":
            by_alias = "ForAnyValue:StringEquals" in one.get("Condition", {})
            assert by_alias or all(is_read(action) for action in one["Action"]), one["Sid"]


def test_what_is_made_must_be_tagged_and_what_is_changed_must_bear_the_tag():
    document = policy("build")
    made, ours = statement(document, Limit.MADE), statement(document, Limit.OURS)
    assert made["Condition"]["Null"] == {f"aws:RequestTag/{BUILD_ID}": "false"}
    assert ours["Condition"]["Null"] == {f"aws:ResourceTag/{BUILD_ID}": "false"}
    assert "ec2:RunInstances" in made["Action"] and "arn:aws:ec2:*:*:instance/*" in made["Resource"]
    assert "ec2:TerminateInstances" in ours["Action"]
    free = statement(document, Limit.ANY)
    kinds = {arn.rpartition(":")[2] for arn in free["Resource"]}
    assert kinds == {"image/*", "snapshot/*", "subnet/*", "security-group/*", "vpc/*"}
    assert set(free["Action"]) == {"ec2:RunInstances", "ec2:CreateSecurityGroup"}


def test_nothing_can_be_tagged_that_is_not_being_made_or_ours_already():
    tagging = [one for one in policy("build")["Statement"] if "ec2:CreateTags" in one["Action"]]
    assert {one["Sid"] for one in tagging} == {"TagWhileMaking", Limit.OURS}
    assert (
        "RunInstances" in statement(policy("build"), "TagWhileMaking")["Condition"]["StringEquals"]["ec2:CreateAction"]
    )


def test_calls_are_limited_to_the_regions():
    for one in policy("build")["Statement"]:
        assert one["Condition"]["StringEquals"]["aws:RequestedRegion"] == ["eu-central-1"]


def test_china_and_the_government_have_partitions_of_their_own():
    document = policy("share", spec=SPEC.model_copy(update={"region": "cn-north-1"}))
    assert statement(document, Limit.OURS)["Resource"][0].startswith("arn:aws-cn:ec2:")


def test_a_verification_reads_blocks_that_bear_no_tag_and_a_build_does_not():
    assert "ebs:GetSnapshotBlock" in statement(policy("verify"), Limit.ANY)["Action"]
    assert "ebs:GetSnapshotBlock" in statement(policy("build"), Limit.OURS)["Action"]


def test_the_spec_adds_its_parameter_and_its_key():
    base = SPEC.base_image.model_copy(update={"filter": None, "parameter": "/aws/service/debian/latest", "owner": "1"})
    encryption = {"kms_key_id": "alias/images"}
    image = type(SPEC.image).model_validate({**SPEC.image.model_dump(), "encryption": encryption})
    document = policy("build", spec=SPEC.model_copy(update={"base_image": base, "image": image}))
    assert statement(document, "Parameters")["Resource"] == ["arn:aws:ssm:*:*:parameter/aws/service/debian/latest"]
    released = SPEC.model_copy(update={"release": SPEC.release.model_copy(update={"parameter": "/images/web"})})
    assert statement(policy("share", spec=released), "Parameters")["Resource"] == [
        "arn:aws:ssm:*:*:parameter/images/web"
    ]
    granting = statement(document, "GrantTheKey")["Condition"]
    assert granting["ForAnyValue:StringEquals"] == {"kms:ResourceAliases": ["alias/images"]}
    assert statement(policy("build"), "UseTheKey") is None
    assert statement(policy("sweep", spec=SPEC.model_copy(update={"image": image})), "UseTheKey") is None


def with_parts(network=None, instance=None):
    return SPEC.model_copy(
        update={"network": Network.model_validate(network or {}), "instance": Instance.model_validate(instance or {})}
    )


def test_a_network_of_its_own_is_allowed_only_where_the_spec_makes_one():
    assert "ec2:CreateVpc" not in json.dumps(policy("build"))
    document = policy("build", spec=with_parts({"create": {}}))
    assert "ec2:CreateVpc" in statement(document, Limit.MADE)["Action"]
    assert {"ec2:DeleteVpc", "ec2:RevokeSecurityGroupIngress"} <= set(statement(document, Limit.OURS)["Action"])
    assert "ec2:RevokeSecurityGroupIngress" in statement(policy("audit"), Limit.ANY)["Action"]
    assert len(json.dumps(document, separators=(",", ":"))) <= LONGEST


def test_a_role_may_be_passed_to_instances_alone_and_only_where_the_spec_names_a_profile():
    assert statement(policy("build"), "PassTheRole") is None
    passing = statement(policy("build", spec=with_parts(instance={"profile": "build"})), "PassTheRole")
    assert passing["Condition"]["StringEquals"]["iam:PassedToService"] == "ec2.amazonaws.com"


@pytest.mark.parametrize(
    ("connect", "sids"),
    [
        ("direct", set()),
        ("session-manager", {"StartSessions", "UseTheDocument", "EndSessions"}),
        ("instance-connect", {"OpenTunnels", "FindEndpoints"}),
    ],
)
def test_the_tools_that_reach_guests_get_their_rights(connect, sids):
    known = {one["Sid"] for one in policy("build")["Statement"]}
    found = {one["Sid"] for one in policy("build", spec=with_parts({"connect": connect}))["Statement"]}
    assert found - known == sids
    assert not sids & {one["Sid"] for one in policy("sweep", spec=with_parts({"connect": connect}))["Statement"]}


def test_a_build_signs_with_the_key_of_its_spec_and_no_other():
    for task in ("attest", "build"):
        signing = statement(policy(task, spec=SIGNED), "Sign")
        assert set(signing["Action"]) == set(SIGNING)
        assert signing["Condition"]["ForAnyValue:StringEquals"] == {"kms:ResourceAliases": ["alias/signing"]}
    assert not set(SIGNING) & {action for one in policy("build")["Statement"] for action in one["Action"]}
    assert statement(policy("scan", spec=SIGNED), "Sign") is None


def test_a_task_that_asks_nothing_of_aws_has_no_policy():
    with pytest.raises(SpecInvalid, match="attest asks nothing"):
        policy("attest", spec=SPEC)


def test_an_alarm_is_the_one_alarm_and_its_topic():
    document = policy("alarm")
    assert {one["Resource"] for one in document["Statement"]} == {
        "arn:aws:sns:us-east-1:*:assay-bill",
        "arn:aws:cloudwatch:us-east-1:*:alarm:assay-bill",
    }
    assert statement(policy("audit"), "MakeTheAlarm") is None


def test_a_new_version_is_one_of_the_product_of_the_spec():
    document = policy("marketplace")
    adding = statement(document, "AddVersions")
    assert adding["Condition"]["StringEquals"] == {"catalog:ChangeType": ["AddDeliveryOptions"]}
    assert any(resource.endswith(f"AmiProduct/{PRODUCT['product_id']}") for resource in adding["Resource"])
    passing = statement(document, "PassTheAccessRole")
    assert passing["Resource"] == PRODUCT["access_role"]
    assert passing["Condition"]["StringEquals"] == {"iam:PassedToService": "assets.marketplace.amazonaws.com"}


def test_the_consumers_role_is_assumed_by_the_builder_and_launches_by_itself():
    becoming = statement(policy("build", spec=CONSUMED), "BecomeTheConsumer")
    assert (becoming["Action"], becoming["Resource"]) == (["sts:AssumeRole"], ROLE)
    for document in (policy("build"), policy("consumer", spec=CONSUMED), policy("scan", spec=CONSUMED)):
        assert statement(document, "BecomeTheConsumer") is None
    theirs = policy("consumer", spec=CONSUMED)
    assert "ec2:RunInstances" in statement(theirs, Limit.MADE)["Action"]
    assert not {"ec2:ModifyImageAttribute", "ec2:RegisterImage"} & set(statement(theirs, Limit.OURS)["Action"])


def operations() -> dict[str, set[str]]:
    """Return what each method may ask: several services have a `describe_tags`."""
    session = botocore.session.get_session()
    found = defaultdict(set)
    for service, prefix in SERVICES.items():
        for name in session.get_service_model(service).operation_names:
            found[xform_name(name)].add(f"{prefix}:{name}")
    return found


def asked_in(path: Path) -> set[str]:
    """Return the methods that a module calls, and the paginators that it asks for."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Attribute | ast.Call)]
    names = {node.attr for node in calls if isinstance(node, ast.Attribute)}
    return names | {
        node.args[0].value
        for node in calls
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "get_paginator"
        and isinstance(node.args[0], ast.Constant)
    }


def test_every_call_in_the_code_was_recorded_for_some_task():
    known = operations()
    asked = {name for path in ASKING for name in asked_in(path) if name in known}
    recorded = {call for calls in recorded_calls().values() for call in calls} | FREE | {*READING_A_ROLE, *BECOMING}
    assert {name for name in asked if not known[name] & recorded} == set()
    assert len(asked) > 30
