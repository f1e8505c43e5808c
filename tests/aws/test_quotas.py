"""Quotas, and what is counted under each, held against botocore's models of Service Quotas and EC2."""

import pytest

from pipeline.aws import quotas
from pipeline.aws.quotas import Counted, Usage
from pipeline.aws.session import is_denied
from pipeline.errors import CloudFailed

COUNTED = [one for one in vars(quotas).values() if isinstance(one, Counted)]
PUBLIC = {
    "Owners": ["self"],
    "Filters": [{"Name": "is-public", "Values": ["true"]}],
    "IncludeDeprecated": True,
    "IncludeDisabled": True,
}
THERE = {"Name": "state", "Values": ["pending", "available", "deleting"]}
LISTS = {
    "VPCs": ("describe_vpcs", "Vpcs", {}),
    "internet gateways": ("describe_internet_gateways", "InternetGateways", {}),
    "security groups": ("describe_security_groups", "SecurityGroups", {}),
    "elastic addresses": ("describe_addresses", "Addresses", {}),
    "public images": ("describe_images", "Images", PUBLIC),
    "NAT gateways of a zone": ("describe_nat_gateways", "NatGateways", {"Filters": [THERE]}),
}


def answer_limit(stub, quota: Counted, value: float) -> None:
    asked = {"ServiceCode": quota.service, "QuotaCode": quota.code}
    stub("service-quotas").add_response("get_service_quota", {"Quota": {"Value": value}}, asked)


@pytest.mark.parametrize("quota", COUNTED, ids=lambda quota: quota.what)
def test_things_are_counted_under_their_quota(session, stub, quota):
    operation, key, asked = LISTS[quota.what]
    answer_limit(stub, quota, 5.0)
    stub("ec2").add_response(operation, {key: [{}, {}]}, asked)
    assert quotas.read_usage(session, quota) == Usage(limit=5, used=2)
    assert quota.asked.lower() == f"ec2:{operation.replace('_', '')}"


def test_every_counted_quota_has_a_case():
    assert {quota.what for quota in COUNTED} == set(LISTS)


def test_the_image_of_the_release_is_not_one_more(session, stub):
    answer_limit(stub, quotas.PUBLIC_IMAGES, 5.0)
    stub("ec2").add_response("describe_images", {"Images": [{"Name": "web-1"}, {"Name": "web-2"}]}, PUBLIC)
    assert quotas.read_usage(session, quotas.PUBLIC_IMAGES, ours="web-2") == Usage(limit=5, used=1)


def test_a_quota_that_nobody_changed_is_what_aws_gives_to_everybody(session, stub):
    asked = {"ServiceCode": "vpc", "QuotaCode": quotas.VPCS.code}
    service = stub("service-quotas")
    service.add_client_error("get_service_quota", "NoSuchResourceException", expected_params=asked)
    service.add_response("get_aws_default_service_quota", {"Quota": {"Value": 5.0}}, asked)
    assert quotas.read_limit(session, "vpc", quotas.VPCS.code) == 5


def test_a_quota_that_may_not_be_read_is_not_known(session, stub):
    stub("service-quotas").add_client_error("get_service_quota", "AccessDeniedException", http_status_code=403)
    with pytest.raises(CloudFailed) as raised:
        quotas.read_limit(session, "vpc", quotas.VPCS.code)
    assert is_denied(raised.value)


def test_nat_gateways_are_counted_in_the_zone_where_the_network_is_made(session, stub):
    answer_limit(stub, quotas.NAT_GATEWAYS, 5.0)
    ec2 = stub("ec2")
    gateways = {"NatGateways": [{"SubnetId": "subnet-a"}, {"SubnetId": "subnet-b"}]}
    ec2.add_response("describe_nat_gateways", gateways, {"Filters": [THERE]})
    zone = {"Filters": [{"Name": "availability-zone", "Values": ["eu-central-1a"]}]}
    ec2.add_response("describe_subnets", {"Subnets": [{"SubnetId": "subnet-a"}, {"SubnetId": "subnet-c"}]}, zone)
    assert quotas.read_zone_usage(session, "eu-central-1a") == Usage(limit=5, used=1)


def running(instance_type: str, **more) -> dict:
    return {"InstanceType": instance_type, "CpuOptions": {"CoreCount": 2, "ThreadsPerCore": 2}} | more


@pytest.mark.parametrize(("spot", "code"), [(False, "L-1216C47A"), (True, "L-34B43A08")])
def test_vcpus_are_counted_by_family_and_apart_for_spot(session, stub, spot, code):
    asked = {"ServiceCode": "ec2", "QuotaCode": code}
    stub("service-quotas").add_response("get_service_quota", {"Quota": {"Value": 32.0}}, asked)
    instances = [
        running("t3.xlarge"),
        running("m7i.xlarge"),
        running("g5.xlarge"),
        running("c5.xlarge", InstanceLifecycle="spot"),
    ]
    filters = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping"]}]
    stub("ec2").add_response("describe_instances", {"Reservations": [{"Instances": instances}]}, {"Filters": filters})
    assert quotas.read_vcpu_usage(session, "t3.small", spot=spot) == Usage(limit=32, used=4 if spot else 8)


def test_a_family_without_a_quota_is_not_asked_about(session):
    assert quotas.read_vcpu_usage(session, "hpc7a.96xlarge", spot=True) is None


def test_a_type_says_how_many_vcpus_it_has(session, stub):
    answer = {"InstanceTypes": [{"VCpuInfo": {"DefaultVCpus": 2}}]}
    stub("ec2").add_response("describe_instance_types", answer, {"InstanceTypes": ["t3.small"]})
    assert quotas.vcpus_of(session, "t3.small") == 2


@pytest.mark.parametrize(
    ("instance_type", "family"),
    [
        ("t3.small", "standard"),
        ("m7i.large", "standard"),
        ("is4gen.large", "standard"),
        ("g5.xlarge", "g"),
        ("gr6.4xlarge", "g"),
        ("p4d.24xlarge", "p"),
        ("inf2.xlarge", "inf"),
        ("vt1.3xlarge", "g"),
        ("trn1.2xlarge", "trn"),
        ("dl1.24xlarge", "dl"),
        ("hpc7a.96xlarge", "hpc"),
        ("x2gd.medium", "x"),
        ("f1.2xlarge", "f"),
        ("u-6tb1.56xlarge", "u"),
    ],
)
def test_types_are_counted_in_families(instance_type, family):
    assert quotas.family_of(instance_type) == family
