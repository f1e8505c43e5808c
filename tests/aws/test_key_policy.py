"""Whether a key lets a target launch an encrypted image: policies as AWS documents them, and what others lack."""

import json

import pytest

from pipeline.aws.key_policy import NEEDED, KeyGrant, missing_rights

CONSUMER = "210987654321"
ROOT = f"arn:aws:iam::{CONSUMER}:root"
ORGANIZATION = "arn:aws:organizations::123456789012:organization/o-abcdefghij"
UNIT = "arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-abcd-12345678"
DOCUMENTED = ["kms:DescribeKey", "kms:ReEncrypt*", "kms:CreateGrant", "kms:Decrypt"]
OPERATIONS = ("DescribeKey", "Decrypt", "ReEncryptFrom", "ReEncryptTo", "CreateGrant")


def allow(principal, action=DOCUMENTED, effect="Allow", **condition):
    statement = {"Effect": effect, "Principal": principal, "Action": action, "Resource": "*"}
    return statement | ({"Condition": condition} if condition else {})


def missing(target, *statements, grants=()):
    return missing_rights(json.dumps({"Version": "2012-10-17", "Statement": list(statements)}), grants, target)


IN_ORGANIZATION = {"StringEquals": {"aws:PrincipalOrgID": "o-abcdefghij"}}
IN_UNIT = {"ForAnyValue:StringLike": {"aws:PrincipalOrgPaths": ["o-abcdefghij/r-ab12/ou-abcd-12345678/*"]}}
THROUGH_EC2 = {"StringLike": {"kms:ViaService": "ec2.*.amazonaws.com"}}


@pytest.mark.parametrize(
    ("target", "statements"),
    [
        (CONSUMER, [allow({"AWS": ROOT})]),
        (CONSUMER, [allow({"AWS": [f"arn:aws:iam::{CONSUMER}:role/web"]})]),
        (CONSUMER, [allow({"AWS": [CONSUMER]}, "kms:*")]),
        (CONSUMER, [allow("*", **{"StringEquals": {"kms:CallerAccount": CONSUMER}})]),
        (CONSUMER, [allow({"AWS": ROOT}, DOCUMENTED[:2]), allow({"AWS": ROOT}, DOCUMENTED[2:], **THROUGH_EC2)]),
        (ORGANIZATION, [allow("*", **IN_ORGANIZATION)]),
        (UNIT, [allow({"AWS": "*"}, **IN_UNIT)]),
        (UNIT, [allow("*", **IN_ORGANIZATION)]),
    ],
)
def test_a_policy_that_lets_the_target_misses_nothing(target, statements):
    assert missing(target, *statements) == ()


@pytest.mark.parametrize(
    ("target", "statements", "rights"),
    [
        (CONSUMER, [], NEEDED),
        (CONSUMER, [allow({"AWS": "arn:aws:iam::111111111111:root"})], NEEDED),
        (CONSUMER, [allow({"AWS": ROOT}, ["kms:DescribeKey", "kms:ReEncrypt*", "kms:Decrypt"])], ("kms:CreateGrant",)),
        (CONSUMER, [allow({"AWS": ROOT}), allow({"AWS": ROOT}, "kms:Decrypt", "Deny")], ("kms:Decrypt",)),
        (CONSUMER, [allow("*", **IN_ORGANIZATION)], NEEDED),
        (CONSUMER, [allow({"AWS": ROOT}, **{"IpAddress": {"aws:SourceIp": "10.0.0.0/8"}})], NEEDED),
        (CONSUMER, [allow("*", **{"StringNotEquals": {"kms:CallerAccount": CONSUMER}})], NEEDED),
        (ORGANIZATION, [allow({"AWS": ROOT})], NEEDED),
        (ORGANIZATION, [allow("*", **{"StringEquals": {"aws:PrincipalOrgID": "o-0000000000"}})], NEEDED),
        (ORGANIZATION, [allow("*", **IN_UNIT)], NEEDED),
        (UNIT.replace("12345678", "87654321"), [allow("*", **IN_UNIT)], NEEDED),
    ],
)
def test_what_is_missing_is_named(target, statements, rights):
    assert missing(target, *statements) == tuple(rights)


def test_a_grant_serves_as_well_as_the_policy():
    grant = KeyGrant(f"arn:aws:iam::{CONSUMER}:role/web", OPERATIONS)
    assert missing(CONSUMER, grants=[grant]) == ()
    assert missing("111111111111", grants=[grant]) == NEEDED
    assert missing(CONSUMER, grants=[KeyGrant(ROOT, OPERATIONS[:4])]) == ("kms:CreateGrant",)
