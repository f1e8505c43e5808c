"""The control plane over HTTP, with guests that boot nothing: launches, images, sharing, refusals."""

import datetime
import urllib.error
import urllib.request
from typing import Any

import pytest

from tests.localcloud.clouds import (
    OTHER_ACCOUNT,
    LocalCloud,
    base_image,
    image_of,
    instance_of,
    launch,
    make_image,
    refused,
    snapshot_of,
    state_of,
    wait_for,
)

pytestmark = [pytest.mark.loopback, pytest.mark.subprocess]


@pytest.fixture
def ec2(local_cloud: LocalCloud) -> Any:
    return local_cloud.client("ec2")


def test_a_launch_takes_the_images_block_devices_and_the_callers_changes(ec2: Any) -> None:
    root = {"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 3, "DeleteOnTermination": False}}
    extra = {"DeviceName": "/dev/xvdb", "Ebs": {"VolumeSize": 2, "VolumeType": "gp3", "DeleteOnTermination": True}}
    instance_id = launch(ec2, BlockDeviceMappings=[root, extra])
    volumes = {
        item["Attachments"][0]["Device"]: (item["Size"], item["VolumeType"])
        for item in ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [instance_id]}])[
            "Volumes"
        ]
    }
    assert volumes == {"/dev/xvda": (3, "gp3"), "/dev/xvdb": (2, "gp3")}
    ec2.terminate_instances(InstanceIds=[instance_id])
    wait_for(lambda: state_of(ec2, instance_id), "terminated")
    assert [item["Size"] for item in ec2.describe_volumes()["Volumes"]] == [3]


def test_a_root_volume_smaller_than_the_image_is_refused_and_leaves_nothing(ec2: Any, local_cloud: LocalCloud) -> None:
    source = make_image(ec2, "small")
    big = launch(ec2, source, BlockDeviceMappings=[{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 2}}])
    image_id = ec2.create_image(InstanceId=big, Name="big", NoReboot=True)["ImageId"]
    wait_for(lambda: image_of(ec2, image_id)["State"], "available")
    before = local_cloud.cloud.machines.disks.volume_ids()
    small = [{"DeviceName": "/dev/xvda", "Ebs": {"VolumeSize": 1}}]
    options = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.small", "BlockDeviceMappings": small}
    refused("InvalidParameterValue", lambda: ec2.run_instances(ImageId=image_id, **options))
    assert local_cloud.cloud.machines.disks.volume_ids() == before
    assert len(ec2.describe_instances(Filters=[{"Name": "image-id", "Values": [image_id]}])["Reservations"]) == 0


def test_what_does_not_exist_is_not_launched(ec2: Any) -> None:
    one = {"MinCount": 1, "MaxCount": 1}
    image_id = ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    refused("InvalidAMIID.NotFound", lambda: ec2.run_instances(ImageId="ami-0123456789abcdef0", **one))
    refused("InvalidAMIID.Malformed", lambda: ec2.run_instances(ImageId="debian", **one))
    refused("InvalidParameterValue", lambda: ec2.run_instances(ImageId="resolve:ssm:/no/such", **one))
    refused("InvalidParameterValue", lambda: ec2.run_instances(ImageId=image_id, InstanceType="t9.huge", **one))
    refused(
        "InvalidKeyPair.NotFound",
        lambda: ec2.run_instances(ImageId=image_id, InstanceType="t3.small", KeyName="no", **one),
    )
    refused("InvalidParameterValue", lambda: ec2.run_instances(ImageId=image_id, InstanceType="t4g.small", **one))


def test_an_instance_has_a_private_address_of_its_subnet_and_a_loopback_one(ec2: Any) -> None:
    found = instance_of(ec2, launch(ec2))
    subnet = ec2.describe_subnets(SubnetIds=[found["SubnetId"]])["Subnets"][0]
    assert subnet["DefaultForAz"] and found["PrivateIpAddress"].startswith("172.31.")
    assert found["PublicIpAddress"].startswith("127.") and found["PublicDnsName"] == ""


def test_a_guest_has_no_more_processors_than_was_asked_for(
    ec2: Any, local_cloud: LocalCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = []
    for most in (2, 1):
        monkeypatch.setattr(local_cloud.cloud.machines, "processors", most)
        guest = local_cloud.cloud.machines.running(launch(ec2, InstanceType="m5.xlarge"))
        assert guest is not None
        found.append(guest.settings.processors)
    assert found == [2, 1]


def test_an_empty_zone_is_no_zone(ec2: Any) -> None:
    """Packer's SDK sends empty strings."""
    assert launch(ec2, Placement={"AvailabilityZone": ""}, KeyName="")


def test_no_instance_gets_an_address_that_the_vpc_reserves(ec2: Any) -> None:
    subnet = ec2.create_subnet(VpcId=ec2.describe_vpcs()["Vpcs"][0]["VpcId"], CidrBlock="172.31.128.0/28")["Subnet"]
    options = {"SubnetId": subnet["SubnetId"], "MinCount": 11, "MaxCount": 11, "InstanceType": "t3.small"}
    image_id = base_image(ec2)
    made = ec2.run_instances(ImageId=image_id, **options)["Instances"]
    hosts = {int(item["PrivateIpAddress"].rpartition(".")[2]) for item in made}
    assert hosts == set(range(4, 15))
    refused("InsufficientFreeAddressesInSubnet", lambda: ec2.run_instances(ImageId=image_id, **options))


def test_the_same_client_token_makes_one_instance(ec2: Any) -> None:
    image_id = ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    options = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.small", "ClientToken": "once"}
    first = ec2.run_instances(ImageId=image_id, **options)["Instances"][0]["InstanceId"]
    second = ec2.run_instances(ImageId=image_id, **options)["Instances"][0]["InstanceId"]
    assert first == second
    changed = {**options, "InstanceType": "t3.micro"}
    refused("IdempotentParameterMismatch", lambda: ec2.run_instances(ImageId=image_id, **changed))
    assert len(ec2.describe_instances(Filters=[{"Name": "client-token", "Values": ["once"]}])["Reservations"]) == 1


def test_a_power_off_inside_stops_or_terminates(ec2: Any, local_cloud: LocalCloud) -> None:
    stays, goes = launch(ec2), launch(ec2, InstanceInitiatedShutdownBehavior="terminate")
    for instance_id in (stays, goes):
        local_cloud.cloud.machines.running(instance_id).power_off()  # type: ignore[union-attr]
    wait_for(lambda: state_of(ec2, stays), "stopped")
    wait_for(lambda: state_of(ec2, goes), "terminated")
    assert instance_of(ec2, stays)["StateReason"]["Code"] == "Client.InstanceInitiatedShutdown"
    assert "PublicIpAddress" not in instance_of(ec2, stays)


def test_stop_and_start_give_a_new_address_and_keep_the_console(ec2: Any) -> None:
    instance_id = launch(ec2)
    first = ec2.get_console_output(InstanceId=instance_id)["Output"]
    assert "BEGIN SSH HOST KEY KEYS" in first
    ec2.stop_instances(InstanceIds=[instance_id])
    wait_for(lambda: state_of(ec2, instance_id), "stopped")
    ec2.start_instances(InstanceIds=[instance_id])
    wait_for(lambda: state_of(ec2, instance_id), "running")
    assert ec2.get_console_output(InstanceId=instance_id)["Output"].count("BEGIN SSH HOST KEY KEYS") == 2


def test_protection_from_termination_holds_until_it_is_taken_off(ec2: Any) -> None:
    instance_id = launch(ec2, DisableApiTermination=True)
    refused("OperationNotPermitted", lambda: ec2.terminate_instances(InstanceIds=[instance_id]))
    ec2.modify_instance_attribute(InstanceId=instance_id, DisableApiTermination={"Value": False})
    ec2.terminate_instances(InstanceIds=[instance_id])


def test_ena_support_changes_itself_and_not_the_groups(ec2: Any) -> None:
    instance_id = launch(ec2)
    groups = instance_of(ec2, instance_id)["SecurityGroups"]
    refused(
        "IncorrectInstanceState",
        lambda: ec2.modify_instance_attribute(InstanceId=instance_id, EnaSupport={"Value": False}),
    )
    ec2.stop_instances(InstanceIds=[instance_id])
    wait_for(lambda: state_of(ec2, instance_id), "stopped")
    ec2.modify_instance_attribute(InstanceId=instance_id, EnaSupport={"Value": False})
    assert instance_of(ec2, instance_id)["SecurityGroups"] == groups != []
    assert instance_of(ec2, instance_id)["EnaSupport"] is False


def test_an_image_keeps_every_attribute(ec2: Any) -> None:
    snapshot_id = snapshot_of(ec2, make_image(ec2, "source"))
    image_id = ec2.register_image(
        Name="registered",
        Description="a description",
        Architecture="x86_64",
        BootMode="uefi",
        EnaSupport=True,
        ImdsSupport="v2.0",
        TpmSupport="v2.0",
        VirtualizationType="hvm",
        RootDeviceName="/dev/sda1",
        BlockDeviceMappings=[
            {"DeviceName": "/dev/sda1", "Ebs": {"SnapshotId": snapshot_id, "VolumeSize": 7, "VolumeType": "gp3"}},
            {"DeviceName": "/dev/sdb", "Ebs": {"VolumeSize": 1, "DeleteOnTermination": False}},
        ],
        TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}],
    )["ImageId"]
    wait_for(lambda: image_of(ec2, image_id)["State"], "available")
    found = image_of(ec2, image_id)
    wanted = {
        "Description": "a description",
        "Architecture": "x86_64",
        "BootMode": "uefi",
        "EnaSupport": True,
        "ImdsSupport": "v2.0",
        "TpmSupport": "v2.0",
        "VirtualizationType": "hvm",
        "RootDeviceName": "/dev/sda1",
        "Tags": [{"Key": "a", "Value": "b"}],
    }
    assert {name: found[name] for name in wanted} == wanted
    sizes = [
        (item["DeviceName"], item["Ebs"]["VolumeSize"], item["Ebs"]["DeleteOnTermination"])
        for item in found["BlockDeviceMappings"]
    ]
    assert sizes == [("/dev/sda1", 7, True), ("/dev/sdb", 1, False)]
    for asked, tokens, hops in (({}, "required", 2), ({"HttpPutResponseHopLimit": 1}, "required", 1)):
        options = instance_of(ec2, launch(ec2, image_id, MetadataOptions=asked))["MetadataOptions"]
        assert (options["HttpTokens"], options["HttpPutResponseHopLimit"]) == (tokens, hops)
    refused("InvalidAMIName.Duplicate", lambda: make_image(ec2, "registered"))


def test_a_snapshot_of_an_image_is_in_use_until_the_image_is_gone(ec2: Any) -> None:
    image_id = make_image(ec2, "used")
    snapshot_id = snapshot_of(ec2, image_id)
    refused("InvalidSnapshot.InUse", lambda: ec2.delete_snapshot(SnapshotId=snapshot_id))
    ec2.deregister_image(ImageId=image_id)
    refused("InvalidAMIID.Unavailable", lambda: ec2.describe_images(ImageIds=[image_id]))
    ec2.delete_snapshot(SnapshotId=snapshot_id)
    refused("InvalidSnapshot.NotFound", lambda: ec2.describe_snapshots(SnapshotIds=[snapshot_id]))


def test_a_copy_has_mappings_tags_and_ancestry_in_the_other_region(ec2: Any, local_cloud: LocalCloud) -> None:
    tags = [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]
    image_id = make_image(ec2, "original", TagSpecifications=tags)
    far = local_cloud.client("ec2", region="eu-west-1")
    copy_id = far.copy_image(SourceImageId=image_id, SourceRegion="us-east-1", Name="copy", CopyImageTags=True)[
        "ImageId"
    ]
    wait_for(lambda: image_of(far, copy_id)["State"], "available")
    copy, original = image_of(far, copy_id), image_of(ec2, image_id)
    assert copy["Tags"] == original["Tags"] and copy["SourceImageId"] == image_id
    assert copy["RootDeviceName"] == original["RootDeviceName"] and copy["BootMode"] == original["BootMode"]
    assert copy["BlockDeviceMappings"][0]["Ebs"]["SnapshotId"] != snapshot_of(ec2, image_id)
    launch(far, copy_id)


def test_another_account_launches_what_is_shared_and_copies_what_it_may_read(ec2: Any, local_cloud: LocalCloud) -> None:
    tags = [{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]
    image_id = make_image(ec2, "shared", TagSpecifications=tags)
    other = local_cloud.client("ec2", OTHER_ACCOUNT)
    refused("InvalidAMIID.NotFound", lambda: other.describe_images(ImageIds=[image_id]))
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    assert image_of(other, image_id)["Tags"] == []
    assert [item["ImageId"] for item in other.describe_images(ExecutableUsers=["self"])["Images"]] == [image_id]
    launch(other, image_id)
    copy = {"SourceImageId": image_id, "SourceRegion": "us-east-1", "Name": "mine"}
    refused("InvalidRequest", lambda: other.copy_image(**copy))
    share = {"CreateVolumePermission": {"Add": [{"UserId": OTHER_ACCOUNT}]}}
    ec2.modify_snapshot_attribute(SnapshotId=snapshot_of(ec2, image_id), Attribute="createVolumePermission", **share)
    other.copy_image(**copy)
    refused("AuthFailure", lambda: other.modify_image_attribute(ImageId=image_id, Description={"Value": "mine"}))
    ec2.modify_image_attribute(
        ImageId=image_id, OperationType="remove", UserIds=[OTHER_ACCOUNT], Attribute="launchPermission"
    )
    refused("InvalidAMIID.NotFound", lambda: other.describe_images(ImageIds=[image_id]))


def test_an_organisation_gets_what_is_shared_with_it(ec2: Any, local_cloud: LocalCloud) -> None:
    image_id = make_image(ec2, "shared")
    organisation = "arn:aws:organizations::123456789012:organization/o-0123456789"
    unit = "arn:aws:organizations::123456789012:ou/o-0123456789/ou-ab12-11111111"
    add = {"Add": [{"OrganizationArn": organisation}, {"OrganizationalUnitArn": unit}]}
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission=add)
    found = ec2.describe_image_attribute(ImageId=image_id, Attribute="launchPermission")["LaunchPermissions"]
    assert found == [{"OrganizationArn": organisation}, {"OrganizationalUnitArn": unit}]
    other = local_cloud.client("ec2", OTHER_ACCOUNT)
    refused("InvalidAMIID.NotFound", lambda: other.describe_images(ImageIds=[image_id]))
    local_cloud.server.application.set_organisations({"account": OTHER_ACCOUNT, "arns": [unit]})
    assert image_of(other, image_id)["ImageId"] == image_id


def test_public_is_refused_while_blocked_and_with_product_codes(ec2: Any, local_cloud: LocalCloud) -> None:
    image_id = make_image(ec2, "public")
    public = {"LaunchPermission": {"Add": [{"Group": "all"}]}}
    assert ec2.get_image_block_public_access_state()["ImageBlockPublicAccessState"] == "block-new-sharing"
    refused("OperationNotPermitted", lambda: ec2.modify_image_attribute(ImageId=image_id, **public))
    ec2.disable_image_block_public_access()
    local_cloud.server.application.set_product_codes({"id": image_id, "codes": ["abc123"]})
    refused("OperationNotPermitted", lambda: ec2.modify_image_attribute(ImageId=image_id, **public))
    local_cloud.server.application.set_product_codes({"id": image_id, "codes": []})
    ec2.modify_image_attribute(ImageId=image_id, **public)
    assert image_of(ec2, image_id)["Public"] and image_of(ec2, image_id)["DeprecationTime"]
    assert image_of(local_cloud.client("ec2", OTHER_ACCOUNT), image_id)
    ec2.reset_image_attribute(ImageId=image_id, Attribute="launchPermission")
    assert not image_of(ec2, image_id)["Public"]


def test_snapshots_are_blocked_from_public_sharing_new_and_old(ec2: Any, local_cloud: LocalCloud) -> None:
    snapshot_id = snapshot_of(ec2, make_image(ec2, "source"))
    public = {"OperationType": "add", "GroupNames": ["all"], "Attribute": "createVolumePermission"}
    ec2.enable_snapshot_block_public_access(State="block-new-sharing")
    refused("OperationNotPermitted", lambda: ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, **public))
    ec2.disable_snapshot_block_public_access()
    ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, **public)
    other = local_cloud.client("ec2", OTHER_ACCOUNT)
    assert other.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"]
    ec2.enable_snapshot_block_public_access(State="block-all-sharing")
    refused("InvalidSnapshot.NotFound", lambda: other.describe_snapshots(SnapshotIds=[snapshot_id]))


def test_product_codes_come_with_the_volume_and_cannot_be_set(ec2: Any, local_cloud: LocalCloud) -> None:
    image_id = make_image(ec2, "base")
    refused("UnsupportedOperation", lambda: ec2.modify_image_attribute(ImageId=image_id, ProductCodes=["abc"]))
    local_cloud.server.application.set_product_codes({"id": image_id, "codes": ["abc123"]})
    instance_id = launch(ec2, image_id)
    wanted = [{"ProductCodeId": "abc123", "ProductCodeType": "marketplace"}]
    assert instance_of(ec2, instance_id)["ProductCodes"] == wanted
    made = ec2.create_image(InstanceId=instance_id, Name="made", NoReboot=True)["ImageId"]
    assert ec2.describe_image_attribute(ImageId=made, Attribute="productCodes")["ProductCodes"] == wanted
    backend = local_cloud.cloud.machines.running(instance_id)
    assert backend is not None and backend.instance_view().product_codes == ("abc123",)


def test_a_deprecated_image_is_hidden_from_others(ec2: Any, local_cloud: LocalCloud) -> None:
    image_id = make_image(ec2, "old")
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    soon = datetime.datetime.now(datetime.UTC)
    ec2.enable_image_deprecation(ImageId=image_id, DeprecateAt=soon)
    other = local_cloud.client("ec2", OTHER_ACCOUNT)
    filters = [{"Name": "name", "Values": ["old"]}]
    assert other.describe_images(Filters=filters)["Images"] == []
    assert len(other.describe_images(Filters=filters, IncludeDeprecated=True)["Images"]) == 1
    assert len(ec2.describe_images(Filters=filters)["Images"]) == 1
    launch(other, image_id)


def test_a_copy_brings_its_tags_where_asked_and_neither_permissions_nor_deprecation_nor_protection(ec2: Any) -> None:
    image_id = make_image(ec2, "source")
    ec2.create_tags(Resources=[image_id], Tags=[{"Key": "team", "Value": "web"}])
    ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
    soon = datetime.datetime.now(datetime.UTC) + datetime.timedelta(days=1)
    ec2.enable_image_deprecation(ImageId=image_id, DeprecateAt=soon)
    ec2.enable_image_deregistration_protection(ImageId=image_id)
    source = {"SourceImageId": image_id, "SourceRegion": ec2.meta.region_name}
    bare = ec2.copy_image(Name="bare", **source)["ImageId"]
    tagged = ec2.copy_image(Name="tagged", CopyImageTags=True, **source)["ImageId"]
    for copy_id, tags in ((bare, []), (tagged, [{"Key": "team", "Value": "web"}])):
        (found,) = ec2.describe_images(ImageIds=[copy_id])["Images"]
        assert found.get("Tags", []) == tags
        assert "DeprecationTime" not in found
        assert found["DeregistrationProtection"] == "disabled"
        permissions = ec2.describe_image_attribute(ImageId=copy_id, Attribute="launchPermission")["LaunchPermissions"]
        assert permissions == []


def test_a_disabled_image_is_not_launched_and_not_shared(ec2: Any) -> None:
    image_id = make_image(ec2, "off")
    ec2.disable_image(ImageId=image_id)
    one = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.small"}
    refused("InvalidAMIID.Unavailable", lambda: ec2.run_instances(ImageId=image_id, **one))
    share = {"LaunchPermission": {"Add": [{"UserId": OTHER_ACCOUNT}]}}
    refused("OperationNotPermitted", lambda: ec2.modify_image_attribute(ImageId=image_id, **share))
    assert ec2.describe_images(Owners=["self"])["Images"] == []
    assert len(ec2.describe_images(Owners=["self"], IncludeDisabled=True)["Images"]) == 1
    ec2.enable_image(ImageId=image_id)
    launch(ec2, image_id)


def test_a_protected_image_stays_registered(ec2: Any) -> None:
    image_id = make_image(ec2, "kept")
    ec2.enable_image_deregistration_protection(ImageId=image_id, WithCooldown=True)
    refused("OperationNotPermitted", lambda: ec2.deregister_image(ImageId=image_id))
    ec2.disable_image_deregistration_protection(ImageId=image_id)
    refused("OperationNotPermitted", lambda: ec2.deregister_image(ImageId=image_id))
    ec2.enable_image_deregistration_protection(ImageId=image_id)
    ec2.disable_image_deregistration_protection(ImageId=image_id)
    ec2.deregister_image(ImageId=image_id)


def test_only_allowed_images_are_launched(ec2: Any) -> None:
    image_id = ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    ec2.replace_image_criteria_in_allowed_images_settings(ImageCriteria=[{"ImageProviders": ["111122223333"]}])
    ec2.enable_allowed_images_settings(AllowedImagesSettingsState="audit-mode")
    assert image_of(ec2, image_id)["ImageAllowed"] is False
    ec2.enable_allowed_images_settings(AllowedImagesSettingsState="enabled")
    one = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.small"}
    refused("InvalidAMIID.NotFound", lambda: ec2.run_instances(ImageId=image_id, **one))
    ec2.replace_image_criteria_in_allowed_images_settings(ImageCriteria=[{"ImageProviders": ["136693071363"]}])
    launch(ec2, image_id)


def test_what_is_encrypted_with_the_default_key_is_not_shared(ec2: Any) -> None:
    zone = ec2.describe_availability_zones()["AvailabilityZones"][0]["ZoneName"]
    volume_id = ec2.create_volume(AvailabilityZone=zone, Size=1, Encrypted=True)["VolumeId"]
    snapshot_id = ec2.create_snapshot(VolumeId=volume_id)["SnapshotId"]
    share = {"OperationType": "add", "UserIds": [OTHER_ACCOUNT], "Attribute": "createVolumePermission"}
    refused("InvalidParameter", lambda: ec2.modify_snapshot_attribute(SnapshotId=snapshot_id, **share))


def test_owner_ids_narrow_snapshots(ec2: Any) -> None:
    make_image(ec2, "mine")
    owners = {item["OwnerId"] for item in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert owners == {"123456789012"}
    assert ec2.describe_snapshots(OwnerIds=["111122223333"])["Snapshots"] == []


def test_an_image_of_a_running_instance_without_no_reboot_stops_and_starts_its_guest(ec2: Any) -> None:
    instance_id = launch(ec2)
    image_id = ec2.create_image(InstanceId=instance_id, Name="rebooted")["ImageId"]
    wait_for(lambda: image_of(ec2, image_id)["State"], "available")
    assert state_of(ec2, instance_id) == "running"
    assert ec2.get_console_output(InstanceId=instance_id)["Output"].count("BEGIN SSH HOST KEY KEYS") == 2


def test_a_dry_run_does_nothing_and_unknown_actions_are_named(ec2: Any, local_cloud: LocalCloud) -> None:
    image_id = ec2.describe_images(Owners=["136693071363"])["Images"][0]["ImageId"]
    one = {"MinCount": 1, "MaxCount": 1, "InstanceType": "t3.small"}
    refused("DryRunOperation", lambda: ec2.run_instances(ImageId=image_id, DryRun=True, **one))
    assert ec2.describe_instances()["Reservations"] == []
    assert "DescribeBundleTasks" in refused("InvalidAction", ec2.describe_bundle_tasks)
    credential = "Credential=AKIALOCL123456789012/20260101/us-east-1/ec2/aws4_request"
    headers = {"Authorization": f"AWS4-HMAC-SHA256 {credential}, SignedHeaders=a, Signature=b"}
    request = urllib.request.Request(local_cloud.server.url, b"Action=NoSuchThing&Version=2016-11-15", headers)
    with pytest.raises(urllib.error.HTTPError) as failure:
        urllib.request.build_opener(urllib.request.ProxyHandler({})).open(request)
    assert b"<Code>InvalidAction</Code>" in failure.value.read()


def test_a_region_that_does_not_exist_is_refused(local_cloud: LocalCloud) -> None:
    refused("AuthFailure", lambda: local_cloud.client("ec2", region="us-nowhere-1").describe_images())


def test_roles_of_another_account_can_be_assumed(local_cloud: LocalCloud) -> None:
    sts = local_cloud.client("sts")
    made = sts.assume_role(RoleArn=f"arn:aws:iam::{OTHER_ACCOUNT}:role/publisher", RoleSessionName="test")[
        "Credentials"
    ]
    import boto3

    there = boto3.client(
        "sts",
        endpoint_url=local_cloud.server.url,
        region_name="us-east-1",
        aws_access_key_id=made["AccessKeyId"],
        aws_secret_access_key=made["SecretAccessKey"],
        aws_session_token=made["SessionToken"],
    )
    assert there.get_caller_identity()["Account"] == OTHER_ACCOUNT
    assert sts.get_caller_identity()["Account"] == "123456789012"


def test_the_metadata_shows_the_role_of_an_instance_profile(ec2: Any, local_cloud: LocalCloud) -> None:
    iam = local_cloud.client("iam")
    iam.create_role(RoleName="builder", AssumeRolePolicyDocument="{}")
    iam.create_instance_profile(InstanceProfileName="profile")
    iam.add_role_to_instance_profile(InstanceProfileName="profile", RoleName="builder")
    instance_id = launch(
        ec2,
        IamInstanceProfile={"Name": "profile"},
        MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"},
        TagSpecifications=[{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": "x"}]}],
    )
    guest = local_cloud.cloud.machines.running(instance_id)
    assert guest is not None
    view = guest.instance_view()
    credentials = view.role_credentials()
    assert view.role_name == "builder" and credentials and credentials["AccessKeyId"] == "ASIALOCL123456789012"
    assert view.tokens_required and view.tags == {"Name": "x"}
    ec2.modify_instance_metadata_options(InstanceId=instance_id, HttpPutResponseHopLimit=3)
    assert guest.instance_view().tokens_required and guest.instance_view().hop_limit == 3


def test_security_groups_say_who_may_connect_where(ec2: Any, local_cloud: LocalCloud) -> None:
    group_id = ec2.create_security_group(GroupName="build", Description="test")["GroupId"]
    instance_id = launch(ec2, SecurityGroupIds=[group_id])
    rule = [{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "127.0.0.1/32"}]}]
    proxy = local_cloud.cloud.machines._proxies[instance_id]
    assert not proxy.may_connect(22, "127.0.0.1")
    ec2.authorize_security_group_ingress(GroupId=group_id, IpPermissions=rule)
    assert proxy.may_connect(22, "127.0.0.1") and set(proxy.ports()) == {22}
    assert not proxy.may_connect(22, "127.0.0.2") and not proxy.may_connect(80, "127.0.0.1")
