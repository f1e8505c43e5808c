"""What is asked of the cloud, held against botocore's model of it."""

from dataclasses import replace

import pytest
from botocore.stub import ANY

from pipeline.aws import (
    base_images,
    images,
    instances,
    keys,
    launch_permissions,
    network,
    security_groups,
    snapshots,
    spot_requests,
)
from pipeline.aws.launch_permissions import LaunchPermissions
from pipeline.aws.security_groups import Permission
from pipeline.aws.tags import resource_name
from pipeline.errors import BaseImageRefused, CapacityMissing, CloudFailed, SpecInvalid
from pipeline.spec import BaseImage, ImageFilter

BUILD_ID = "20250131-235959-1a2b3c"
OWNER = "136693071363"
NAME = resource_name(BUILD_ID, "build")
TAGS = [
    {"Key": "Name", "Value": NAME},
    {"Key": "team", "Value": "web"},
    {"Key": "assay:name", "Value": NAME},
    {"Key": "assay:build-id", "Value": BUILD_ID},
    {"Key": "assay:spec-digest", "Value": "sha256:0011"},
    {"Key": "assay:owner", "Value": "arn:aws:iam::111122223333:user/ana"},
    {"Key": "assay:expires", "Value": "2025-02-01T04:00:00+00:00"},
]
LAUNCH = instances.Launch(
    image_id="ami-1",
    type="t3.small",
    key_name="key",
    security_group_ids=("sg-1",),
    subnet_ids=("subnet-a", "subnet-b"),
    root_volume=instances.RootVolume("/dev/xvda", size_gib=8, type="gp3"),
)


def image(image_id="ami-1", owner=OWNER, created="2025-01-01T00:00:00.000Z", **more):
    described = {
        "ImageId": image_id,
        "OwnerId": owner,
        "Name": "debian-12-amd64",
        "CreationDate": created,
        "State": "available",
        "RootDeviceType": "ebs",
        "VirtualizationType": "hvm",
        "Architecture": "x86_64",
        "RootDeviceName": "/dev/xvda",
    }
    return described | more


def launch_parameters(subnet_id, token=ANY):
    return {
        "ClientToken": token,
        "ImageId": "ami-1",
        "InstanceType": "t3.small",
        "KeyName": "key",
        "MinCount": 1,
        "MaxCount": 1,
        "NetworkInterfaces": [
            {
                "DeviceIndex": 0,
                "SubnetId": subnet_id,
                "Groups": ["sg-1"],
                "AssociatePublicIpAddress": True,
                "DeleteOnTermination": True,
            }
        ],
        "MetadataOptions": {"HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1},
        "InstanceInitiatedShutdownBehavior": "stop",
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": TAGS} for kind in ("instance", "volume", "network-interface")
        ],
        "BlockDeviceMappings": [
            {
                "DeviceName": "/dev/xvda",
                "Ebs": {"DeleteOnTermination": True, "VolumeSize": 8, "VolumeType": "gp3"},
            }
        ],
    }


def test_a_launch_requires_imds_v2_and_tags_everything(session, stub, tags):
    token = instances.client_token(NAME, "subnet-a", "t3.small")
    answer = {"Instances": [{"InstanceId": "i-1"}]}
    stub("ec2", once=True).add_response("run_instances", answer, launch_parameters("subnet-a", token))
    assert instances.launch_instance(session, tags, NAME, LAUNCH) == "i-1"
    assert len(token) == 64


def test_a_launch_goes_on_to_the_next_zone_with_capacity(session, stub, tags):
    ec2 = stub("ec2", once=True)
    ec2.add_client_error("run_instances", "InsufficientInstanceCapacity", expected_params=launch_parameters("subnet-a"))
    ec2.add_response("run_instances", {"Instances": [{"InstanceId": "i-2"}]}, launch_parameters("subnet-b"))
    assert instances.launch_instance(session, tags, NAME, LAUNCH) == "i-2"


def test_a_launch_goes_on_to_the_next_type_when_no_zone_has_capacity(session, stub, tags):
    ec2 = stub("ec2", once=True)
    for subnet_id in LAUNCH.subnet_ids:
        ec2.add_client_error(
            "run_instances", "InsufficientInstanceCapacity", expected_params=launch_parameters(subnet_id)
        )
    other = launch_parameters("subnet-a") | {"InstanceType": "t3a.small"}
    ec2.add_response("run_instances", {"Instances": [{"InstanceId": "i-3"}]}, other)
    launch = replace(LAUNCH, other_types=("t3a.small",))
    assert instances.launch_instance(session, tags, NAME, launch) == "i-3"


def test_a_launch_asks_for_spare_capacity_a_profile_and_protection(session, stub, tags):
    asked = launch_parameters("subnet-a") | {
        "IamInstanceProfile": {"Name": "build"},
        "DisableApiTermination": True,
        "InstanceMarketOptions": {
            "MarketType": "spot",
            "SpotOptions": {"SpotInstanceType": "persistent", "InstanceInterruptionBehavior": "stop"},
        },
        "TagSpecifications": [
            {"ResourceType": kind, "Tags": TAGS}
            for kind in ("instance", "volume", "network-interface", "spot-instances-request")
        ],
    }
    stub("ec2", once=True).add_response("run_instances", {"Instances": [{"InstanceId": "i-4"}]}, asked)
    launch = replace(LAUNCH, profile="build", protected=True, spot=True)
    assert instances.launch_instance(session, tags, NAME, launch) == "i-4"


def test_a_spot_request_is_cancelled_by_its_name(session, stub):
    ec2 = stub("ec2")
    found = {"SpotInstanceRequests": [{"SpotInstanceRequestId": "sir-1"}, {"SpotInstanceRequestId": "sir-2"}]}
    named = [
        {"Name": "tag:assay:name", "Values": [NAME]},
        {"Name": "state", "Values": ["open", "active", "disabled"]},
    ]
    ec2.add_response("describe_spot_instance_requests", found, {"Filters": named})
    ec2.add_response("cancel_spot_instance_requests", {}, {"SpotInstanceRequestIds": ["sir-1"]})
    ec2.add_client_error("cancel_spot_instance_requests", "InvalidSpotInstanceRequestID.NotFound")
    spot_requests.cancel_spot_requests(session, NAME)


def test_a_protected_instance_is_let_go_before_it_is_terminated(session, stub):
    ec2 = stub("ec2")
    ec2.add_client_error("terminate_instances", "OperationNotPermitted")
    assert "OperationNotPermitted" in instances.try_to_terminate(session, "i-1")
    ec2.add_client_error("terminate_instances", "OperationNotPermitted")
    ec2.add_response("modify_instance_attribute", {}, {"InstanceId": "i-1", "DisableApiTermination": {"Value": False}})
    ec2.add_response("terminate_instances", {}, {"InstanceIds": ["i-1"]})
    instances.start_to_terminate(session, "i-1")
    ec2.add_response("terminate_instances", {})
    assert instances.try_to_terminate(session, "i-2") == "", "an instance that is not protected ends"


def test_what_bears_no_tag_is_named(session, stub):
    filters = [
        {"Name": "resource-id", "Values": ["i-1", "vol-1"]},
        {"Name": "key", "Values": ["assay:build-id"]},
    ]
    found = {"Tags": [{"ResourceId": "i-1", "Key": "assay:build-id", "Value": "b"}]}
    stub("ec2").add_response("describe_tags", found, {"Filters": filters})
    assert instances.untagged(session, ("i-1", "vol-1"), "b") == ("vol-1",)


def test_no_capacity_anywhere_is_an_error_of_its_own(session, stub, tags):
    for _ in LAUNCH.subnet_ids:
        stub("ec2", once=True).add_client_error("run_instances", "InsufficientInstanceCapacity")
    with pytest.raises(CapacityMissing):
        instances.launch_instance(session, tags, NAME, LAUNCH)


def test_another_refusal_is_not_tried_elsewhere(session, stub, tags):
    stub("ec2", once=True).add_client_error("run_instances", "InvalidParameterValue")
    with pytest.raises(CloudFailed, match="InvalidParameterValue"):
        instances.launch_instance(session, tags, NAME, LAUNCH)


@pytest.mark.parametrize("code, allowed", [("DryRunOperation", True), ("UnauthorizedOperation", False)])
def test_a_dry_run_says_whether_a_launch_is_allowed(session, stub, tags, code, allowed):
    stub("ec2", once=True).add_client_error("run_instances", code)
    if allowed:
        instances.may_launch(session, tags, NAME, "ami-1", "t3.small", "subnet-a")
    else:
        with pytest.raises(CloudFailed, match=code):
            instances.may_launch(session, tags, NAME, "ami-1", "t3.small", "subnet-a")


def test_the_console_falls_back_where_it_cannot_be_read_live(session, stub):
    ec2 = stub("ec2")
    ec2.add_client_error(
        "get_console_output", "UnsupportedOperation", expected_params={"InstanceId": "i-1", "Latest": True}
    )
    ec2.add_response("get_console_output", {"Output": "Ym9vdGVk"}, {"InstanceId": "i-1"})
    assert instances.read_console(session, "i-1") == "booted"


def test_an_instance_that_ends_tells_why(session, stub, fake_clock):
    described = {"InstanceId": "i-1", "State": {"Name": "terminated"}, "StateReason": {"Message": "no such KMS key"}}
    stub("ec2").add_response("describe_instances", {"Reservations": [{"Instances": [described]}]})
    with pytest.raises(CloudFailed, match="no such KMS key"):
        instances.wait_running(session, "i-1", clock=fake_clock.as_clock())


def test_terminating_what_is_gone_is_done(session, stub, fake_clock):
    ec2 = stub("ec2")
    ec2.add_client_error("terminate_instances", "InvalidInstanceID.NotFound")
    ec2.add_client_error("describe_instances", "InvalidInstanceID.NotFound")
    ec2.add_client_error("describe_instances", "InvalidInstanceID.NotFound")
    instances.terminate_instance(session, "i-1", clock=fake_clock.as_clock())


def test_a_name_is_enough_to_terminate(session, stub, fake_clock):
    ec2 = stub("ec2")
    found = {"Reservations": [{"Instances": [{"InstanceId": "i-9", "State": {"Name": "pending"}}]}]}
    ended = {"Reservations": [{"Instances": [{"InstanceId": "i-9", "State": {"Name": "terminated"}}]}]}
    named = {"Name": "tag:assay:name", "Values": [NAME]}
    ec2.add_response("describe_instances", found, {"Filters": [named, ANY]})
    ec2.add_response("terminate_instances", {}, {"InstanceIds": ["i-9"]})
    ec2.add_response("describe_instances", ended)
    ec2.add_response("describe_instances", ended)
    instances.terminate_instance(session, NAME, clock=fake_clock.as_clock())


def test_only_the_public_half_of_a_key_is_sent(session, stub, tags):
    stub("ec2").add_response(
        "import_key_pair",
        {"KeyName": NAME},
        {
            "KeyName": NAME,
            "PublicKeyMaterial": b"ssh-ed25519 AAAA",
            "TagSpecifications": [{"ResourceType": "key-pair", "Tags": TAGS}],
        },
    )
    assert keys.import_key_pair(session, tags, NAME, "ssh-ed25519 AAAA") == NAME


def test_a_new_security_group_lets_nothing_out(session, stub, tags):
    ec2 = stub("ec2")
    ec2.add_response("create_security_group", {"GroupId": "sg-1"})
    ec2.add_response(
        "revoke_security_group_egress",
        {},
        {"GroupId": "sg-1", "IpPermissions": [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]},
    )
    ec2.add_client_error("revoke_security_group_egress", "InvalidPermission.NotFound")
    made = security_groups.create_security_group(session, tags, NAME, vpc_id="vpc-1", description="x")
    assert made == "sg-1"


def rule(protocol="tcp", port=2222, **peers):
    return {"IpProtocol": protocol, "FromPort": port, "ToPort": port, "IpRanges": [], "Ipv6Ranges": []} | peers


def test_a_security_group_is_open_for_what_is_named(session, stub):
    ec2 = stub("ec2")
    networks = rule(
        IpRanges=[{"CidrIp": "203.0.113.7/32", "Description": ANY}],
        Ipv6Ranges=[{"CidrIpv6": "2001:db8::/64", "Description": ANY}],
    )
    pair = rule(port=22, UserIdGroupPairs=[{"GroupId": "sg-2", "Description": ANY}])
    ec2.add_response("authorize_security_group_ingress", {}, {"GroupId": "sg-1", "IpPermissions": [networks, pair]})
    ec2.add_client_error("authorize_security_group_egress", "InvalidPermission.Duplicate")
    permissions = [Permission(2222, ("203.0.113.7/32", "2001:db8::/64")), Permission(22, group_id="sg-2")]
    security_groups.let_in(session, "sg-1", permissions)
    security_groups.let_out(session, "sg-1", [Permission(53, ("10.0.0.0/8",), protocol="udp")])
    assert security_groups.in_words(permissions, "from") == (
        "tcp 22 from sg-2",
        "tcp 2222 from 2001:db8::/64",
        "tcp 2222 from 203.0.113.7/32",
    )


def test_a_group_whose_answer_was_lost_is_found(session, stub, tags):
    ec2 = stub("ec2")
    ec2.add_client_error("create_security_group", "InvalidGroup.Duplicate")
    ec2.add_response("describe_security_groups", {"SecurityGroups": [{"GroupId": "sg-7"}]})
    for _ in security_groups.EVERYTHING:
        ec2.add_client_error("revoke_security_group_egress", "InvalidPermission.NotFound")
    assert security_groups.create_security_group(session, tags, NAME, vpc_id="vpc-1", description="x") == "sg-7"


def test_ssh_open_to_the_world_is_refused_with_every_problem_at_once():
    with pytest.raises(SpecInvalid) as caught:
        network.check_cidrs(["0.0.0.0/0", "::/0", "128.0.0.0/1", "nonsense", "10.0.0.0/8"])
    refused = [problem.partition(": ")[0] for problem in caught.value.problems]
    assert refused == ["0.0.0.0/0", "::/0", "128.0.0.0/1", "nonsense"]
    with pytest.raises(SpecInvalid):
        network.check_cidrs([])


def test_a_group_in_use_is_waited_for_and_no_longer_named_by_its_pair(session, stub, fake_clock):
    ec2 = stub("ec2")
    tags = [{"Key": "assay:owner", "Value": "me"}, {"Key": "assay:build-id", "Value": "20250131-235959-1a2b3c"}]
    tags.append({"Key": "assay:name", "Value": "assay-20250131-235959-1a2b3c-public"})
    pair = {"UserIdGroupPairs": [{"GroupId": "sg-1"}], "IpProtocol": "tcp", "FromPort": 22, "ToPort": 22}
    naming = [
        {"GroupId": "sg-2", "Tags": tags, "IpPermissions": [pair]},
        {"GroupId": "sg-3", "Tags": [], "IpPermissions": [pair]},
    ]
    ec2.add_client_error("delete_security_group", "DependencyViolation")
    ec2.add_response("describe_security_groups", {"SecurityGroups": naming})
    revoked = rule(port=22, UserIdGroupPairs=[{"GroupId": "sg-1", "Description": ANY}])
    ec2.add_response("revoke_security_group_ingress", {}, {"GroupId": "sg-2", "IpPermissions": [revoked]})
    ec2.add_client_error("delete_security_group", "DependencyViolation")
    ec2.add_response("describe_security_groups", {"SecurityGroups": []})
    ec2.add_response("delete_security_group", {}, {"GroupId": "sg-1"})
    security_groups.delete_security_group(session, "sg-1", clock=fake_clock.as_clock())
    assert fake_clock.rests


def test_a_missing_default_vpc_says_what_to_do(session, stub):
    stub("ec2").add_response("describe_subnets", {"Subnets": []})
    with pytest.raises(CloudFailed, match="default VPC") as caught:
        network.find_subnets(session)
    assert "network.subnet_id" in caught.value.hint


def test_a_snapshot_is_made_by_a_client_that_never_repeats(session, stub, tags):
    stub("ec2", once=True).add_response(
        "create_snapshot",
        {"SnapshotId": "snap-1"},
        {
            "VolumeId": "vol-1",
            "Description": "root",
            "TagSpecifications": [{"ResourceType": "snapshot", "Tags": TAGS}],
        },
    )
    assert snapshots.create_snapshot(session, tags, NAME, "vol-1", "root") == "snap-1"


def test_a_snapshot_in_use_is_waited_for(session, stub, fake_clock):
    ec2 = stub("ec2")
    ec2.add_client_error("delete_snapshot", "InvalidSnapshot.InUse")
    ec2.add_response("delete_snapshot", {}, {"SnapshotId": "snap-1"})
    snapshots.delete_snapshot(session, "snap-1", clock=fake_clock.as_clock())


def test_a_snapshot_is_shared_and_taken_back_in_one_call(session, stub):
    stub("ec2").add_response(
        "modify_snapshot_attribute",
        {},
        {
            "SnapshotId": "snap-1",
            "Attribute": "createVolumePermission",
            "CreateVolumePermission": {"Add": [{"UserId": "1"}], "Remove": [{"Group": "all"}]},
        },
    )
    snapshots.change_snapshot_permissions(session, "snap-1", add=["1"], remove=["all"])
    snapshots.change_snapshot_permissions(session, "snap-1")


def test_an_image_is_registered_with_every_attribute(session, stub, tags):
    base = images.read_image(
        image(
            EnaSupport=True,
            SriovNetSupport="simple",
            BootMode="uefi",
            TpmSupport="v2.0",
            BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": "snap-0", "VolumeSize": 8}}],
        )
    )
    stub("ec2").add_response(
        "register_image",
        {"ImageId": "ami-9"},
        {
            "Name": "web-1",
            "Description": "the web",
            "Architecture": "x86_64",
            "RootDeviceName": "/dev/xvda",
            "VirtualizationType": "hvm",
            "EnaSupport": True,
            "SriovNetSupport": "simple",
            "BootMode": "uefi",
            "ImdsSupport": "v2.0",
            "TpmSupport": "v2.0",
            "BlockDeviceMappings": [
                {
                    "DeviceName": "/dev/xvda",
                    "Ebs": {
                        "SnapshotId": "snap-1",
                        "VolumeType": "gp3",
                        "DeleteOnTermination": True,
                        "VolumeSize": 8,
                    },
                }
            ],
            "TagSpecifications": [{"ResourceType": "image", "Tags": TAGS}],
        },
    )
    registration = images.registration_like(base, name="web-1", description="the web", root_snapshot_id="snap-1")
    assert images.register_image(session, tags, NAME, registration) == "ami-9"


def test_product_codes_decide_how_an_image_is_made():
    assert not images.must_inherit(images.read_image(image()))
    codes = [{"ProductCodeId": "abc", "ProductCodeType": "marketplace"}]
    assert images.must_inherit(images.read_image(image(ProductCodes=codes)))


def test_only_snapshots_of_the_same_build_go_with_an_image(session, stub, fake_clock):
    ec2 = stub("ec2")
    ours = {"Tags": [{"Key": "assay:build-id", "Value": BUILD_ID}], "OwnerId": OWNER}
    mapped = [{"DeviceName": f"/dev/sd{n}", "Ebs": {"SnapshotId": f"snap-{n}"}} for n in "abcd"]
    ec2.add_response("describe_images", {"Images": [image(BlockDeviceMappings=mapped, Tags=ours["Tags"])]})
    ec2.add_response("deregister_image", {}, {"ImageId": "ami-1"})
    ec2.add_response("describe_snapshots", {"Snapshots": [{"SnapshotId": "snap-a", **ours}]})
    ec2.add_response("describe_snapshots", {"Snapshots": [{"SnapshotId": "snap-b", "OwnerId": OWNER}]})
    ec2.add_client_error("describe_snapshots", "InvalidSnapshot.NotFound")
    others = {"Tags": ours["Tags"], "OwnerId": "999999999999"}
    ec2.add_response("describe_snapshots", {"Snapshots": [{"SnapshotId": "snap-d", **others}]})
    ec2.add_response("delete_snapshot", {}, {"SnapshotId": "snap-a"})
    images.deregister_image(session, "ami-1", clock=fake_clock.as_clock())


def permissions(**granted):
    return {"LaunchPermissions": [{key: value} for key, values in granted.items() for value in values]}


def test_permissions_become_exactly_what_is_wanted(session, stub):
    ec2 = stub("ec2")
    ec2.add_response("describe_image_attribute", permissions(UserId=["1", "2"]))
    ec2.add_response(
        "modify_image_attribute", {}, {"ImageId": "ami-1", "LaunchPermission": {"Remove": [{"UserId": "1"}]}}
    )
    ec2.add_response(
        "modify_image_attribute",
        {},
        {"ImageId": "ami-1", "LaunchPermission": {"Add": [{"UserId": "3"}, {"OrganizationArn": "arn:org"}]}},
    )
    ec2.add_response(
        "modify_image_attribute", {}, {"ImageId": "ami-1", "LaunchPermission": {"Add": [{"Group": "all"}]}}
    )
    wanted = LaunchPermissions(frozenset({"2", "3"}), frozenset({"arn:org"}), public=True)
    granted, revoked = launch_permissions.set_launch_permissions(session, "ami-1", wanted)
    assert granted.describe() == ("3", "arn:org", "all")
    assert revoked.describe() == ("1",)


def test_nothing_is_asked_when_the_permissions_are_right(session, stub):
    stub("ec2").add_response("describe_image_attribute", permissions(UserId=["1"], Group=["all"]))
    wanted = LaunchPermissions(frozenset({"1"}), public=True)
    assert not any(launch_permissions.set_launch_permissions(session, "ami-1", wanted))


@pytest.mark.parametrize(
    "changes, reason",
    [
        ({"OwnerId": "999999999999"}, "belongs to 999999999999"),
        ({"State": "pending"}, "it is pending"),
        ({"RootDeviceType": "instance-store"}, "not ebs"),
        ({"VirtualizationType": "paravirtual"}, "not hvm"),
    ],
)
def test_a_base_image_that_is_not_what_it_should_be_is_refused(session, stub, changes, reason):
    stub("ec2").add_response("describe_images", {"Images": [image(**changes)]})
    with pytest.raises(BaseImageRefused, match=reason):
        base_images.find_base_image(session, BaseImage(id="ami-0123456789abcdef0", owner=OWNER))


def test_a_base_image_without_an_owner_is_refused(session, stub):
    stub("ec2").add_response("describe_images", {"Images": [image()]})
    with pytest.raises(BaseImageRefused, match="whose image"):
        base_images.find_base_image(session, BaseImage(id="ami-0123456789abcdef0"))


def test_a_missing_base_image_is_refused(session, stub):
    stub("ec2").add_client_error("describe_images", "InvalidAMIID.NotFound")
    with pytest.raises(BaseImageRefused, match="no such image"):
        base_images.find_base_image(session, BaseImage(id="ami-0123456789abcdef0", owner=OWNER))


WANTED = BaseImage(filter=ImageFilter(name="debian-12-*", owner=OWNER))


def test_the_newest_image_of_the_owner_is_taken(session, stub):
    found = [image("ami-1"), image("ami-3", created="2025-03-01T00:00:00.000Z"), image("ami-2", created="2025-02-01")]
    stub("ec2").add_response("describe_images", {"Images": found}, {"Owners": [OWNER], "Filters": ANY})
    assert base_images.find_base_image(session, WANTED).image_id == "ami-3"


def test_two_newest_images_are_ambiguous(session, stub):
    stub("ec2").add_response("describe_images", {"Images": [image("ami-1"), image("ami-2")]})
    with pytest.raises(BaseImageRefused, match="ami-1, ami-2"):
        base_images.find_base_image(session, WANTED)


def test_an_image_that_only_bears_the_name_is_refused_and_told(session, stub):
    stub("ec2").add_response("describe_images", {"Images": []}, {"Owners": [OWNER], "Filters": ANY})
    stub("ec2").add_response("describe_images", {"Images": [image(owner="666666666666")]}, {"Filters": ANY})
    with pytest.raises(BaseImageRefused, match="666666666666 are refused"):
        base_images.find_base_image(session, WANTED)


def test_a_parameter_leads_to_an_image(session, stub):
    stub("ssm").add_response("get_parameter", {"Parameter": {"Value": "ami-1"}}, {"Name": "/aws/debian:latest"})
    stub("ec2").add_response("describe_images", {"Images": [image()]})
    base = BaseImage(parameter="resolve:ssm:/aws/debian:latest", owner=OWNER)
    assert base_images.find_base_image(session, base).image_id == "ami-1"


@pytest.mark.parametrize("value, code", [("not an image", None), ("", "ParameterNotFound")])
def test_a_parameter_that_leads_nowhere_is_refused(session, stub, value, code):
    if code:
        stub("ssm").add_client_error("get_parameter", code)
    else:
        stub("ssm").add_response("get_parameter", {"Parameter": {"Value": value}})
    with pytest.raises(BaseImageRefused, match="/aws/debian"):
        base_images.find_base_image(session, BaseImage(parameter="resolve:ssm:/aws/debian", owner=OWNER))
