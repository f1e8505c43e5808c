"""The policy documents: which calls a task makes (`calls.json`), and to what each is limited.

The calls are recorded from the tasks themselves on a cloud of one's own. What can be limited, and by which condition,
is from the Service Authorization Reference, "Actions, resources, and condition keys for Amazon EC2" and for its
neighbours. What a task makes must bear the tag of a build in the request; what it changes must bear it already.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from pathlib import Path
from typing import Any

from pipeline.aws import alarms, change_sets
from pipeline.aws.tags import BUILD_ID
from pipeline.errors import SpecInvalid
from pipeline.spec import Spec

CALLS = Path(__file__).with_name("calls.json")
LONGEST = 6144
"""Characters of a managed policy, white space left out (IAM quotas)."""
FREE = frozenset({"sts:GetCallerIdentity"})
"""Needs no permission, and cannot be denied."""
READS = ("Describe", "Get", "List", "Generate")
REGIONAL = ("ec2:", "ebs:", "ssm:", "kms:", "servicequotas:", "autoscaling:")

Statement = dict[str, Any]


class Limit(StrEnum):
    """What the resource of a call must be."""

    MADE = "MakeWithTheTag"
    OURS = "ChangeWhatHasTheTag"
    ANY = "Use"


@dataclass(frozen=True)
class Grant:
    """The kinds of resources that a call may touch, and under which limit."""

    limit: Limit
    kinds: tuple[str, ...]


def made(*kinds: str) -> Grant:
    """Return a grant for what the call makes."""
    return Grant(Limit.MADE, kinds)


def ours(*kinds: str) -> Grant:
    """Return a grant for what a build made before."""
    return Grant(Limit.OURS, kinds)


def used(*kinds: str) -> Grant:
    """Return a grant for what the account has, or is given by others."""
    return Grant(Limit.ANY, kinds)


GRANTS: dict[str, tuple[Grant, ...]] = {
    "ec2:RunInstances": (
        made("instance", "volume", "network-interface", "spot-instances-request"),
        ours("key-pair"),
        used("image", "snapshot", "subnet", "security-group"),
    ),
    "ec2:ImportKeyPair": (made("key-pair"),),
    "ec2:CreateSecurityGroup": (made("security-group"), used("vpc")),
    "ec2:AuthorizeSecurityGroupIngress": (ours("security-group"),),
    "ec2:AuthorizeSecurityGroupEgress": (ours("security-group"),),
    "ec2:RevokeSecurityGroupEgress": (ours("security-group"),),
    "ec2:RevokeSecurityGroupIngress": (used("security-group"),),
    "ec2:CreateSnapshot": (made("snapshot"), ours("volume")),
    "ec2:RegisterImage": (made("image"), ours("snapshot")),
    "ec2:CreateImage": (made("image", "snapshot"), ours("instance")),
    "ec2:CopyImage": (made("image", "snapshot"), ours("image", "snapshot")),
    "ec2:CreateTags": (ours("image", "snapshot"),),
    "ec2:GetConsoleOutput": (ours("instance"),),
    "ec2:RebootInstances": (ours("instance"),),
    "ec2:StartInstances": (ours("instance"),),
    "ec2:StopInstances": (ours("instance"),),
    "ec2:TerminateInstances": (ours("instance"),),
    "ec2:ModifyInstanceAttribute": (ours("instance"),),
    "ec2:CancelSpotInstanceRequests": (ours("spot-instances-request"),),
    "ec2:CreateVpc": (made("vpc"),),
    "ec2:CreateInternetGateway": (made("internet-gateway"),),
    "ec2:AttachInternetGateway": (ours("internet-gateway", "vpc"),),
    "ec2:CreateRouteTable": (made("route-table"), ours("vpc")),
    "ec2:CreateRoute": (ours("route-table"),),
    "ec2:CreateNetworkAcl": (made("network-acl"), ours("vpc")),
    "ec2:CreateNetworkAclEntry": (ours("network-acl"),),
    "ec2:ReplaceNetworkAclAssociation": (used("network-acl"),),
    "ec2:CreateSubnet": (made("subnet"), ours("vpc")),
    "ec2:AssociateRouteTable": (ours("route-table", "subnet"),),
    "ec2:AllocateAddress": (made("elastic-ip"),),
    "ec2:AssociateAddress": (ours("elastic-ip", "instance", "network-interface"),),
    "ec2:DisassociateAddress": (ours("elastic-ip", "instance", "network-interface"),),
    "ec2:ReleaseAddress": (ours("elastic-ip"),),
    "ec2:CreateNatGateway": (made("natgateway"), ours("elastic-ip", "subnet")),
    "ec2:DeleteNatGateway": (ours("natgateway"),),
    "ec2:DeleteSubnet": (ours("subnet"),),
    "ec2:DeleteNetworkAcl": (ours("network-acl"),),
    "ec2:DeleteRouteTable": (ours("route-table"),),
    "ec2:DetachInternetGateway": (ours("internet-gateway", "vpc"),),
    "ec2:DeleteInternetGateway": (ours("internet-gateway"),),
    "ec2:DeleteVpc": (ours("vpc"),),
    "ec2:DeleteVolume": (ours("volume"),),
    "ec2:DeleteSnapshot": (ours("snapshot"),),
    "ec2:DeleteKeyPair": (ours("key-pair"),),
    "ec2:DeleteSecurityGroup": (ours("security-group"),),
    "ec2:DeregisterImage": (ours("image"),),
    "ec2:ModifyImageAttribute": (ours("image"),),
    "ec2:ModifySnapshotAttribute": (ours("snapshot"),),
    "ec2:EnableImageDeprecation": (ours("image"),),
    "ec2:DisableImageDeprecation": (ours("image"),),
    "ec2:DisableImage": (ours("image"),),
    "ec2:CreateImageUsageReport": (ours("image"), used("image-usage-report")),
    "ec2:EnableImageDeregistrationProtection": (ours("image"),),
    "ec2:DisableImageDeregistrationProtection": (ours("image"),),
    "ebs:ListSnapshotBlocks": (ours("snapshot"),),
    "ebs:GetSnapshotBlock": (ours("snapshot"),),
    "ebs:ListChangedBlocks": (ours("snapshot"),),
    "ebs:StartSnapshot": (made("snapshot"),),
    "ebs:PutSnapshotBlock": (ours("snapshot"),),
    "ebs:CompleteSnapshot": (ours("snapshot"),),
}
FOREIGN = frozenset({"ebs:ListSnapshotBlocks", "ebs:ListChangedBlocks", "ebs:GetSnapshotBlock"})
"""A verification or a scan reads images of others too: there these bear no tag of ours."""
READS_OTHERS = frozenset({"verify", "scan"})
NETWORK = "network"
"""What a network of the build's own needs besides: part of these tasks where the spec has one."""
READING_A_ROLE = (
    "iam:GetInstanceProfile",
    "iam:GetPolicy",
    "iam:GetPolicyVersion",
    "iam:GetRolePolicy",
    "iam:ListAttachedRolePolicies",
    "iam:ListRolePolicies",
)
"""What a preflight asks where the spec names an instance profile."""
IN_A_NETWORK = frozenset({"plan", "build", "verify"})
OTHER_ACCOUNT = "consumer"
"""Not of the caller's account: what the role there may, through which an image is proved (prove.consumer)."""
SIGNING = ("kms:GetPublicKey", "kms:Sign")
SIGNED = frozenset({"build", "attest"})
"""What a signature takes where the spec names a key of KMS, and whose part it is."""
TOPIC = ("sns:CreateTopic", "sns:Subscribe")
ALARM = ("cloudwatch:PutMetricAlarm",)
SUBMITTING = ("aws-marketplace:StartChangeSet",)
BECOMING = ("sts:AssumeRole",)
INGESTION = "assets.marketplace.amazonaws.com"
"""The Marketplace's own service, which reads the image through release.marketplace.access_role."""


@cache
def recorded_calls() -> dict[str, tuple[str, ...]]:
    """Return the calls of each task, as `service:Action`."""
    found: dict[str, list[str]] = json.loads(CALLS.read_text())
    return {task: tuple(calls) for task, calls in found.items()}


def tasks() -> tuple[str, ...]:
    """Return the tasks that have a policy."""
    return tuple(recorded_calls())


def policy_document(chosen: Sequence[str], spec: Spec, regions: Iterable[str]) -> dict[str, Any]:
    """Return the policy for these tasks and this spec, its calls limited to these regions.

    Statements: what only reads; what is used as it is; what is made, and must be tagged; what is changed, and must bear
    the tag; the tagging itself; what the spec or the task names: parameters, keys, roles, the alarm, the product.
    Raises SpecInvalid where nothing is asked of AWS.
    """
    if spec.network.create and IN_A_NETWORK & set(chosen):
        chosen = [*chosen, NETWORK]
    region_list = sorted(set(regions))
    partition = partition_of(spec.region)
    statements = [
        *read_statements(chosen),
        *limited_statements(chosen, partition),
        *tagging_statement(chosen, partition),
    ]
    statements += [*parameter_statement(chosen, spec, partition), *key_statements(chosen, spec, partition)]
    statements += [*signing_statement(chosen, spec, partition), *alarm_statements(chosen, partition)]
    statements += marketplace_statements(chosen, spec, partition)
    if "ec2:RunInstances" in calls_of(chosen):
        statements += [*role_statement(spec, partition), *connection_statements(spec, partition)]
        statements += becoming_statement(chosen, spec)
    if not statements:
        raise SpecInvalid(f"with this spec, {' and '.join(chosen)} asks nothing of AWS", hint="name attest.kms_key_id")
    for statement in statements:
        if all(action.startswith(REGIONAL) for action in statement["Action"]) and "audit" not in chosen:
            equal = statement.setdefault("Condition", {}).setdefault("StringEquals", {})
            equal["aws:RequestedRegion"] = region_list
    return {"Version": "2012-10-17", "Statement": statements}


def calls_of(chosen: Sequence[str]) -> list[str]:
    """Return all calls of some tasks, in order."""
    return sorted({call for task in chosen for call in recorded_calls()[task]} - FREE)


def is_read(call: str) -> bool:
    """Return whether a call only reads, and cannot be limited to resources."""
    return call.partition(":")[2].startswith(READS) and call not in GRANTS


def read_statements(chosen: Sequence[str]) -> list[Statement]:
    """Return a statement for what reads a region, and one for what reads the account; parameters have their own."""
    reads = [call for call in calls_of(chosen) if is_read(call) and not call.startswith("ssm:") and call not in SIGNING]
    regional = [call for call in reads if call.startswith(REGIONAL)]
    rest = [call for call in reads if not call.startswith(REGIONAL)]
    named = (("ReadTheRegion", regional), ("ReadTheAccount", rest))
    return [{"Sid": sid, "Effect": "Allow", "Action": found, "Resource": "*"} for sid, found in named if found]


def limited_statements(chosen: Sequence[str], partition: str) -> list[Statement]:
    """Return one statement for each limit, over all calls that have it: a call knows its kinds of resources."""
    statements = []
    for limit in Limit:
        actions: set[str] = set()
        kinds: set[str] = set()
        for call in calls_of(chosen):
            for grant in grants_of(call, chosen):
                if grant.limit is limit:
                    actions.add(call)
                    kinds.update(grant.kinds)
        if actions:
            statement: Statement = {"Sid": limit.value, "Effect": "Allow", "Action": sorted(actions)}
            statements.append(
                statement | {"Resource": [arn(kind, partition) for kind in sorted(kinds)]} | condition(limit)
            )
    return statements


def grants_of(call: str, chosen: Sequence[str]) -> tuple[Grant, ...]:
    """Return what a call may touch; a read of blocks reaches others' snapshots where a task reads others' images."""
    if call in FOREIGN and READS_OTHERS & set(chosen):
        return (used("snapshot"),)
    if call == "ec2:RevokeSecurityGroupIngress" and "audit" not in chosen:
        return (ours("security-group"),)
    return GRANTS.get(call, ())


def arn(kind: str, partition: str) -> str:
    """Return the ARN of every resource of a kind; images and snapshots have no account in theirs."""
    return f"arn:{partition}:ec2:*:{'' if kind in ('image', 'snapshot') else '*'}:{kind}/*"


def partition_of(region: str) -> str:
    """Return the partition of a region: IAM refuses a wildcard there."""
    partitions = {"cn-": "aws-cn", "us-gov-": "aws-us-gov"}
    return next((name for prefix, name in partitions.items() if region.startswith(prefix)), "aws")


def condition(limit: Limit) -> Statement:
    """Return the condition of a limit: the tag of a build in the request, or on the resource."""
    if limit is Limit.ANY:
        return {}
    key = f"aws:{'RequestTag' if limit is Limit.MADE else 'ResourceTag'}/{BUILD_ID}"
    return {"Condition": {"Null": {key: "false"}}}


def tagging_statement(chosen: Sequence[str], partition: str) -> list[Statement]:
    """Return the right to tag in the call that makes a thing, and in no other (`ec2:CreateAction`)."""
    making = {call: grant for call in calls_of(chosen) for grant in GRANTS.get(call, ()) if grant.limit is Limit.MADE}
    if not making:
        return []
    kinds = sorted({kind for grant in making.values() for kind in grant.kinds})
    actions = [call.partition(":")[2] for call in making]
    return [
        {
            "Sid": "TagWhileMaking",
            "Effect": "Allow",
            "Action": ["ec2:CreateTags"],
            "Resource": [arn(kind, partition) for kind in kinds],
            "Condition": {"StringEquals": {"ec2:CreateAction": actions}},
        }
    ]


def parameter_statement(chosen: Sequence[str], spec: Spec, partition: str) -> list[Statement]:
    """Return the right to the spec's own parameters, where the task asks for any."""
    actions = [call for call in calls_of(chosen) if call.startswith("ssm:")]
    names = [name.removeprefix("resolve:ssm:").partition(":")[0] for name in parameter_names(spec)]
    if not actions or not names:
        return []
    resources = [f"arn:{partition}:ssm:*:*:parameter/{name.lstrip('/')}" for name in names]
    return [{"Sid": "Parameters", "Effect": "Allow", "Action": actions, "Resource": resources}]


def parameter_names(spec: Spec) -> list[str]:
    """Return the parameters that a spec names."""
    return [name for name in (spec.base_image.parameter, spec.release.parameter) if name]


def key_statements(chosen: Sequence[str], spec: Spec, partition: str) -> list[Statement]:
    """Return the rights to the spec's key: EBS uses it in the caller's name (EBS User Guide, "EBS encryption")."""
    makes = any(grant.limit is Limit.MADE for call in calls_of(chosen) for grant in GRANTS.get(call, ()))
    if not spec.image.encryption or not makes:
        return []
    named = key_resource(spec.image.encryption.kms_key_id, partition)
    using = ["kms:Decrypt", "kms:DescribeKey", "kms:GenerateDataKeyWithoutPlaintext", "kms:ReEncrypt*"]
    granting = {**named.get("Condition", {}), "Bool": {"kms:GrantIsForAWSResource": "true"}}
    return [
        {"Sid": "UseTheKey", "Effect": "Allow", "Action": using, **named},
        {"Sid": "GrantTheKey", "Effect": "Allow", "Action": ["kms:CreateGrant"], **named, "Condition": granting},
    ]


def signing_statement(chosen: Sequence[str], spec: Spec, partition: str) -> list[Statement]:
    """Return the right to sign with the spec's key of KMS, and with no other."""
    key = spec.attest.kms_key_id
    if not key or not SIGNED & set(chosen):
        return []
    return [{"Sid": "Sign", "Effect": "Allow", "Action": list(SIGNING), **key_resource(key, partition)}]


def key_resource(key: str, partition: str) -> Statement:
    """Return what limits a statement to a key of KMS: by its id or ARN, or, as an alias is no resource, a condition."""
    if "alias/" in key:
        alias = key[key.index("alias/") :]
        return {"Resource": "*", "Condition": {"ForAnyValue:StringEquals": {"kms:ResourceAliases": [alias]}}}
    return {"Resource": key if key.startswith("arn:") else f"arn:{partition}:kms:*:*:key/{key}"}


def alarm_statements(chosen: Sequence[str], partition: str) -> list[Statement]:
    """Return the right to make the one alarm on the bill, and the topic that is heard of it (A19)."""
    if not {*TOPIC, *ALARM} <= set(calls_of(chosen)):
        return []
    topic = f"arn:{partition}:sns:{alarms.BILLING_REGION}:*:{alarms.NAME}"
    alarm = f"arn:{partition}:cloudwatch:{alarms.BILLING_REGION}:*:alarm:{alarms.NAME}"
    return [
        {"Sid": "MakeTheTopic", "Effect": "Allow", "Action": list(TOPIC), "Resource": topic},
        {"Sid": "MakeTheAlarm", "Effect": "Allow", "Action": list(ALARM), "Resource": alarm},
    ]


def marketplace_statements(chosen: Sequence[str], spec: Spec, partition: str) -> list[Statement]:
    """Return the right to add versions to the spec's product, and to let the Marketplace read their images (A22)."""
    market = spec.release.marketplace
    if not market or not set(SUBMITTING) <= set(calls_of(chosen)):
        return []
    catalog = f"arn:{partition}:aws-marketplace:{change_sets.REGION}:*:{change_sets.CATALOG}"
    versions = {"StringEquals": {"catalog:ChangeType": ["AddDeliveryOptions"]}}
    ingestion = {"StringEquals": {"iam:PassedToService": INGESTION}}
    return [
        {
            "Sid": "AddVersions",
            "Effect": "Allow",
            "Action": list(SUBMITTING),
            "Resource": [f"{catalog}/AmiProduct/{market.product_id}", f"{catalog}/ChangeSet/*"],
            "Condition": versions,
        },
        {
            "Sid": "PassTheAccessRole",
            "Effect": "Allow",
            "Action": ["iam:PassRole"],
            "Resource": market.access_role,
            "Condition": ingestion,
        },
    ]


def becoming_statement(chosen: Sequence[str], spec: Spec) -> list[Statement]:
    """Return the right to become the role through which a consumer's account launches the image."""
    consumer = spec.prove.consumer
    if not consumer or set(chosen) <= {OTHER_ACCOUNT}:
        return []
    return [{"Sid": "BecomeTheConsumer", "Effect": "Allow", "Action": list(BECOMING), "Resource": consumer.role_arn}]


def role_statement(spec: Spec, partition: str) -> list[Statement]:
    """Return the right to give the role of the spec's instance profile to instances, and to nothing else (A21)."""
    if not spec.instance.profile:
        return []
    to_instances = {"StringEquals": {"iam:PassedToService": f"ec2.{suffix_of(partition)}"}}
    passing = {"Sid": "PassTheRole", "Effect": "Allow", "Action": ["iam:PassRole"]}
    resource = f"arn:{partition}:iam::*:role/*"
    reading = {"Sid": "ReadTheRole", "Effect": "Allow", "Action": list(READING_A_ROLE), "Resource": "*"}
    return [{**passing, "Resource": resource, "Condition": to_instances}, reading]


def suffix_of(partition: str) -> str:
    """Return how the names of services end in a partition."""
    return "amazonaws.com.cn" if partition == "aws-cn" else "amazonaws.com"


def connection_statements(spec: Spec, partition: str) -> list[Statement]:
    """Return the rights of AWS's own tools, by which the spec's guests are reached (see `guest/proxy_command.py`)."""
    instances = arn("instance", partition)
    match spec.network.connect:
        case "session-manager":
            build = {"Condition": {"Null": {f"ssm:resourceTag/{BUILD_ID}": "false"}}}
            document = f"arn:{partition}:ssm:*::document/AWS-StartSSHSession"
            own = f"arn:{partition}:ssm:*:*:session/${{aws:userid}}-*"
            start = {"Effect": "Allow", "Action": ["ssm:StartSession"]}
            return [
                {"Sid": "StartSessions", **start, "Resource": instances, **build},
                {"Sid": "UseTheDocument", **start, "Resource": document},
                {"Sid": "EndSessions", "Effect": "Allow", "Action": ["ssm:TerminateSession"], "Resource": own},
            ]
        case "instance-connect":
            endpoint = arn("instance-connect-endpoint", partition)
            tunnel = {"Effect": "Allow", "Action": ["ec2-instance-connect:OpenTunnel"], "Resource": endpoint}
            find = {"Effect": "Allow", "Action": ["ec2:DescribeInstanceConnectEndpoints"], "Resource": "*"}
            return [{"Sid": "OpenTunnels", **tunnel}, {"Sid": "FindEndpoints", **find}]
    return []
