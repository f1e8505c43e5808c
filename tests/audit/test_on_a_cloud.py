"""Audits of an account that has been made unsound, on a control plane that answers by itself."""

import json
from dataclasses import replace

import pytest

from pipeline.audit.account import audit_account, open_alarm
from pipeline.audit.findings import Verdict
from pipeline.audit.network import Kind, audit_network, revoke
from pipeline.aws.alarms import NAME, WantedAlarm, read_billing_alarms
from pipeline.aws.session import Session
from pipeline.errors import CloudFailed
from tests.fake_cloud import FakeCloud, fake_cloud

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end
REGION = "us-east-1"
LAUNCH = {"Effect": "Allow", "Action": "ec2:*", "Resource": "*"}


@pytest.fixture
def session(fake_cloud: FakeCloud) -> Session:
    return fake_cloud.open(REGION)


def denial(action: str, code: str = "UnauthorizedOperation", status: int = 403) -> dict[str, object]:
    return {"kind": "error", "action": action, "code": code, "status": status, "times": 0}


def verdicts(lines, title):
    return [(line.verdict, line.subject) for line in lines if line.title == title]


def test_an_account_is_judged_by_what_iam_says(session):
    iam = session.client("iam")
    iam.create_user(UserName="ana")
    iam.create_access_key(UserName="ana")
    iam.put_user_policy(
        UserName="ana",
        PolicyName="launch",
        PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": [LAUNCH]}),
    )
    mfa = "everyone who may launch instances has MFA"
    assert verdicts(audit_account(session, [REGION]), mfa) == [(Verdict.FAIL, "ana")]
    iam.create_account_alias(AccountAlias="example")
    iam.update_account_password_policy(
        MinimumPasswordLength=14,
        RequireSymbols=True,
        RequireNumbers=True,
        RequireUppercaseCharacters=True,
        RequireLowercaseCharacters=True,
        AllowUsersToChangePassword=True,
        MaxPasswordAge=90,
    )
    iam.delete_user_policy(UserName="ana", PolicyName="launch")
    lines = audit_account(session, [REGION])
    for title in (mfa, "the account has an alias", "the password policy is strong"):
        assert verdicts(lines, title) == [(Verdict.PASS, "")]


def test_the_bill_is_heard_when_an_alarm_has_a_subscriber(session):
    title = "somebody hears of the bill"
    topic = session.client("sns").create_topic(Name="bill")["TopicArn"]
    session.client("cloudwatch").put_metric_alarm(
        AlarmName="bill",
        Namespace="AWS/Billing",
        MetricName="EstimatedCharges",
        Statistic="Maximum",
        Period=21600,
        EvaluationPeriods=1,
        Threshold=50.0,
        ComparisonOperator="GreaterThanThreshold",
        AlarmActions=[topic],
    )
    assert verdicts(audit_account(session, []), title) == [(Verdict.FAIL, "bill")]
    session.client("sns").subscribe(TopicArn=topic, Protocol="email", Endpoint="ana@example.com")
    assert verdicts(audit_account(session, []), title) == [(Verdict.PASS, "")]


def test_an_alarm_is_made_on_request_and_twice_is_once(session):
    wanted = WantedAlarm("ana@example.com", 75.0)
    before = {alarm.name for alarm in read_billing_alarms(session)}
    assert "would make an alarm on the bill above 75 USD" in open_alarm(session, wanted, dry_run=True)
    assert {alarm.name for alarm in read_billing_alarms(session)} == before

    for above in (75.0, 90.0):
        assert "confirmed" in open_alarm(session, replace(wanted, above=above), dry_run=False)
    (made,) = (alarm for alarm in read_billing_alarms(session) if alarm.name == NAME)
    assert (made.threshold, made.enabled, made.confirmed_subscribers) == (90.0, True, 1)


def test_what_the_caller_may_not_ask_is_unknown(fake_cloud, session):
    with fake_cloud.faults(denial("GetAllowedImagesSettings"), denial("GetAccountSummary", "AccessDenied")):
        lines = audit_account(session, [REGION])
    unknown = {line.title for line in lines if line.verdict is Verdict.UNKNOWN}
    assert unknown == {
        "only images of known owners are launched",
        "the root user has MFA",
        "the root user has no access keys",
        "the root user has no signing certificate",
    }


def test_a_region_that_does_not_answer_is_unreachable(fake_cloud, session):
    with fake_cloud.faults(denial("GetImageBlockPublicAccessState", "AuthFailure")):
        lines = audit_account(session, [REGION])
    assert verdicts(lines, "public images are blocked, or meant") == [(Verdict.UNREACHABLE, "")]


@pytest.fixture
def open_group(session: Session):
    ec2 = session.client("ec2")
    vpc_id = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    group_id = ec2.create_security_group(GroupName="open", Description="x", VpcId=vpc_id)["GroupId"]
    ec2.authorize_security_group_ingress(
        GroupId=group_id,
        IpPermissions=[
            {"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "0.0.0.0/0"}]},
            {"IpProtocol": "-1", "IpRanges": [{"CidrIp": "10.0.0.0/8"}]},
        ],
    )
    yield group_id
    ec2.delete_security_group(GroupId=group_id)


def openings(session: Session, group_id: str) -> set[str]:
    rules = [
        rule
        for by_kind in audit_network(session, [REGION]).rules.values()
        for kind in by_kind.values()
        for rule in kind
    ]
    return {rule.summary for rule in rules if rule.group_id == group_id}


def test_open_rules_are_found_and_revoked_after_a_dry_run(session, open_group):
    audit = audit_network(session, [REGION])
    assert openings(session, open_group) == {"tcp 22 from 0.0.0.0/0", "every protocol from 10.0.0.0/8"}

    (line,) = revoke(session, audit, frozenset({Kind.WORLD}), dry_run=True)
    assert line.startswith(f"would revoke {open_group} sgr-") and line.endswith("tcp 22 from 0.0.0.0/0")
    assert len(openings(session, open_group)) == 2

    (line,) = revoke(session, audit, frozenset({Kind.WORLD}), dry_run=False)
    assert line.startswith("revokes")
    assert openings(session, open_group) == {"every protocol from 10.0.0.0/8"}
    assert list(revoke(session, audit_network(session, [REGION]), frozenset({Kind.WORLD}), dry_run=False)) == [
        "nothing to revoke"
    ]


def test_nothing_is_revoked_when_it_would_be_refused(fake_cloud, session, open_group):
    audit = audit_network(session, [REGION])
    with (
        fake_cloud.faults(denial("RevokeSecurityGroupIngress")),
        pytest.raises(CloudFailed, match="UnauthorizedOperation"),
    ):
        list(revoke(session, audit, frozenset(Kind), dry_run=False))
    assert len(openings(session, open_group)) == 2


def test_a_group_that_another_names_is_stale_once_it_is_gone(session):
    ec2 = session.client("ec2")
    vpc_id = ec2.describe_vpcs()["Vpcs"][0]["VpcId"]
    peer_id = ec2.create_vpc(CidrBlock="172.29.0.0/16")["Vpc"]["VpcId"]
    naming, gone = (
        ec2.create_security_group(GroupName=name, Description="x", VpcId=one)["GroupId"]
        for name, one in (("naming", vpc_id), ("gone", peer_id))
    )
    pair = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "UserIdGroupPairs": [{"GroupId": gone}]}]
    ec2.authorize_security_group_ingress(GroupId=naming, IpPermissions=pair)
    assert openings(session, naming) == set()
    ec2.delete_security_group(GroupId=gone)
    try:
        assert openings(session, naming) == {f"tcp 22 from {gone}"}
    finally:
        ec2.delete_security_group(GroupId=naming)
        ec2.delete_vpc(VpcId=peer_id)
