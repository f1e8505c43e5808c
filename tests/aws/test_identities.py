"""Who may launch, and who signs in with what: policies and reports as IAM words them."""

from datetime import UTC, datetime

import pytest

from pipeline.aws import alarms, identities
from pipeline.aws.identities import AccessKey, PasswordPolicy, User, may_launch
from pipeline.errors import CloudFailed

EVERYTHING = {"Effect": "Allow", "Action": "*", "Resource": "*"}
LAUNCH = {"Effect": "Allow", "Action": ["ec2:RunInstances"], "Resource": "*"}


def mfa(operator, value):
    return {"Condition": {operator: {"aws:MultiFactorAuthPresent": value}}}


@pytest.mark.parametrize(
    ("statements", "allowed"),
    [
        ([EVERYTHING], True),
        ([LAUNCH], True),
        ([{**LAUNCH, "Action": "EC2:Run*"}], True),
        ([{**LAUNCH, "Action": "ec2:*Instance?"}], True),
        ([{**LAUNCH, "Action": "ec2:Describe*"}], False),
        ([{"Effect": "Allow", "NotAction": "iam:*", "Resource": "*"}], True),
        ([{"Effect": "Allow", "NotAction": ["ec2:*"], "Resource": "*"}], False),
        ([], False),
        ([{**LAUNCH, **mfa("Bool", "true")}], False),
        ([{**LAUNCH, **mfa("Bool", ["true"])}], False),
        ([{**LAUNCH, **mfa("BoolIfExists", "true")}], True),  # an access key's call does not say a word of MFA
        ([EVERYTHING, {**LAUNCH, "Effect": "Deny"}], False),
        ([{**LAUNCH, "Effect": "Deny"}, EVERYTHING], False),
        ([EVERYTHING, {**LAUNCH, "Effect": "Deny", "Resource": "arn:aws:ec2:*:*:instance/*"}], True),
        ([EVERYTHING, {**EVERYTHING, "Effect": "Deny", **mfa("BoolIfExists", "false")}], False),
        ([EVERYTHING, {**EVERYTHING, "Effect": "Deny", **mfa("Bool", "false")}], True),
        ([EVERYTHING, {**EVERYTHING, "Effect": "Deny", "Condition": {"StringEquals": {"aws:x": "y"}}}], True),
    ],
)
def test_policies_say_who_may_launch_without_mfa(statements, allowed):
    assert may_launch([{"Statement": statement} for statement in statements]) is allowed
    assert may_launch([{"Statement": statements}]) is allowed


def test_launchers_come_from_users_groups_and_attached_policies(session, stub):
    policy = "arn:aws:iam::aws:policy/Power"
    attached = [{"PolicyName": "Power", "PolicyArn": policy}]
    stub("iam").add_response(
        "get_account_authorization_details",
        {
            "UserDetailList": [
                {"UserName": "ina", "UserPolicyList": [{"PolicyName": "own", "PolicyDocument": '{"Statement": []}'}]},
                {"UserName": "gil", "GroupList": ["builders"]},
                {"UserName": "ato", "AttachedManagedPolicies": attached},
                {"UserName": "non"},
            ],
            "GroupDetailList": [{"GroupName": "builders", "AttachedManagedPolicies": attached}],
            "Policies": [
                {
                    "Arn": policy,
                    "PolicyVersionList": [
                        {"Document": '{"Statement": []}', "IsDefaultVersion": False},
                        {
                            "Document": '{"Statement": [{"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}]}',
                            "IsDefaultVersion": True,
                        },
                    ],
                }
            ],
            "IsTruncated": False,
        },
        {},
    )
    assert identities.read_launchers(session) == {"gil", "ato"}


REPORT = """user,arn,password_enabled,mfa_active,access_key_1_active,access_key_1_last_rotated,\
access_key_1_last_used_date,access_key_2_active,cert_1_active,cert_2_active
<root_account>,arn:aws:iam::111122223333:root,not_supported,true,false,N/A,N/A,false,false,false
ana,arn:aws:iam::111122223333:user/ana,true,false,true,2025-01-02T03:04:05+00:00,N/A,false,true,true
bot,arn:aws:iam::111122223333:user/bot,false,false,true,2025-01-02T03:04:05+00:00,2025-02-01T00:00:00+00:00,false,\
false,false
"""


def test_users_come_from_the_credential_report_once_it_is_made(session, stub, fake_clock):
    iam = stub("iam")
    iam.add_response("generate_credential_report", {"State": "STARTED"}, {})
    iam.add_response("generate_credential_report", {"State": "COMPLETE"}, {})
    iam.add_response("get_credential_report", {"Content": REPORT.encode()}, {})
    made = datetime(2025, 1, 2, 3, 4, 5, tzinfo=UTC)
    assert identities.read_users(session, clock=fake_clock.as_clock()) == (
        User("ana", password=True, mfa=False, keys=(AccessKey(1, made, None),), certificates=2),
        User("bot", password=False, mfa=False, keys=(AccessKey(1, made, datetime(2025, 2, 1, tzinfo=UTC)),)),
    )


def test_a_password_policy_is_read_and_its_absence_too(session, stub):
    iam = stub("iam")
    weak = {"MinimumPasswordLength": 8, "RequireNumbers": True, "RequireLowercaseCharacters": True}
    iam.add_response("get_account_password_policy", {"PasswordPolicy": weak}, {})
    iam.add_client_error("get_account_password_policy", "NoSuchEntity")
    iam.add_client_error("get_account_password_policy", "AccessDenied")
    assert identities.read_password_policy(session) == PasswordPolicy(8, ("capital letters", "symbols"), False, None)
    assert identities.read_password_policy(session) is None
    with pytest.raises(CloudFailed, match="AccessDenied"):
        identities.read_password_policy(session)


def test_only_confirmed_subscribers_of_the_bill_count(session, stub, monkeypatch):
    monkeypatch.setattr(type(session), "in_region", lambda self, region: self)
    topic = "arn:aws:sns:us-east-1:111122223333:bill"
    about = {"AlarmActions": [topic, "arn:aws:automate:us-east-1:ec2:stop"], "ActionsEnabled": True}
    stub("cloudwatch").add_response(
        "describe_alarms",
        {
            "MetricAlarms": [
                {"AlarmName": "bill", "MetricName": "EstimatedCharges", "Threshold": 50.0, **about},
                {"AlarmName": "load", "MetricName": "CPUUtilization", **about},
            ]
        },
        {"AlarmTypes": ["MetricAlarm"]},
    )
    confirmed = {"SubscriptionArn": f"{topic}:1"}
    stub("sns").add_response(
        "list_subscriptions_by_topic",
        {"Subscriptions": [confirmed, {"SubscriptionArn": "PendingConfirmation"}]},
        {"TopicArn": topic},
    )
    assert alarms.read_billing_alarms(session) == (alarms.BillingAlarm("bill", True, 50.0, 1),)
