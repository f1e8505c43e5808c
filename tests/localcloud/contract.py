"""The calls that the pipeline and its peers make, and those that the local cloud is known not to have.

Each row asks one call with the arguments that its users give and says what must come back. `COVERAGE.md` is made of
the same rows: `python -m tests.localcloud.contract` writes it.
"""

import base64
import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from botocore import xform_name
from botocore.exceptions import ClientError

from pipeline.localcloud.control_plane import LocalResponse
from pipeline.localcloud.disks import BLOCK_SIZE
from tests.localcloud.clouds import (
    OTHER_ACCOUNT,
    LocalCloud,
    base_image,
    image_of,
    launch,
    refused,
    snapshot_of,
    state_of,
    wait_for,
)

COVERAGE = Path(__file__).parents[2] / "pipeline" / "localcloud" / "COVERAGE.md"
BLOCK = b"block" + b"\0" * (BLOCK_SIZE - 5)
DIGEST = base64.b64encode(hashlib.sha256(BLOCK).digest()).decode()


@dataclass
class World:
    """A cloud, and the ids that earlier rows made."""

    cloud: LocalCloud
    ids: dict[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> Any:
        """Return the client of a service."""
        return self.cloud.client(name)

    def __getitem__(self, name: str) -> Any:
        """Return what an earlier row kept under a name."""
        return self.ids[name]

    def keep(self, name: str, value: Any) -> Any:
        """Keep something for later rows."""
        self.ids[name] = value
        return value

    def wait_image(self, name: str) -> None:
        """Wait until a kept image is available."""
        wait_for(lambda: image_of(self.ec2, self[name])["State"], "available")

    def wait_state(self, state: str) -> None:
        """Wait until the kept instance has a state."""
        wait_for(lambda: state_of(self.ec2, self["instance"]), state)


@dataclass(frozen=True)
class Row:
    """A call, who makes it (P pipeline, K Packer, A awspub, I img-proof), and how it is asked."""

    service: str
    action: str
    users: str
    ask: Callable[[World], Any]
    note: str = ""


def tags(kind: str) -> list[dict[str, Any]]:
    return [{"ResourceType": kind, "Tags": [{"Key": "Name", "Value": "contract"}]}]


def images(w: World) -> None:
    found = w.ec2.describe_images(Owners=["136693071363"], Filters=[{"Name": "name", "Values": ["debian-12-*"]}])
    assert found["Images"][0]["ImageId"] == base_image(w.ec2)


def launch_one(w: World) -> None:
    w.keep(
        "instance", launch(w.ec2, KeyName="contract", SecurityGroupIds=[w["group"]], TagSpecifications=tags("instance"))
    )


def console(w: World) -> None:
    assert "SSH HOST KEY KEYS" in w.ec2.get_console_output(InstanceId=w["instance"], Latest=True)["Output"]


def stop(w: World) -> None:
    w.ec2.stop_instances(InstanceIds=[w["instance"]])
    w.wait_state("stopped")


def start(w: World) -> None:
    w.ec2.start_instances(InstanceIds=[w["instance"]])
    w.wait_state("running")


def terminate(w: World) -> None:
    w.ec2.terminate_instances(InstanceIds=[w["instance"]])
    w.wait_state("terminated")


def create_image(w: World) -> None:
    specification = tags("image") + tags("snapshot")
    w.keep(
        "image", w.ec2.create_image(InstanceId=w["instance"], Name="made", TagSpecifications=specification)["ImageId"]
    )
    w.wait_image("image")
    w.keep("snapshot", snapshot_of(w.ec2, w["image"]))


def register_image(w: World) -> None:
    mapping = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": w["written"], "DeleteOnTermination": True}}]
    made = w.ec2.register_image(
        Name="registered",
        Architecture="x86_64",
        RootDeviceName="/dev/xvda",
        BlockDeviceMappings=mapping,
        VirtualizationType="hvm",
        EnaSupport=True,
        BootMode="uefi-preferred",
        ImdsSupport="v2.0",
    )
    w.keep("registered", made["ImageId"])
    w.wait_image("registered")
    assert image_of(w.ec2, w["registered"])["BootMode"] == "uefi-preferred"


def copy_image(w: World) -> None:
    far = w.cloud.client("ec2", region="eu-west-1")
    copy = far.copy_image(SourceImageId=w["image"], SourceRegion="us-east-1", Name="copy", ClientToken="copy")[
        "ImageId"
    ]
    wait_for(lambda: image_of(far, copy)["State"], "available")


def share_image(w: World) -> None:
    add = {"Add": [{"UserId": OTHER_ACCOUNT}]}
    w.ec2.modify_image_attribute(ImageId=w["image"], LaunchPermission=add)
    w.ec2.modify_image_attribute(ImageId=w["image"], LaunchPermission=add, UserIds=[OTHER_ACCOUNT])  # as Packer does
    assert image_of(w.cloud.client("ec2", OTHER_ACCOUNT), w["image"])


def read_permissions(w: World) -> None:
    found = w.ec2.describe_image_attribute(ImageId=w["image"], Attribute="launchPermission")
    assert found["LaunchPermissions"] == [{"UserId": OTHER_ACCOUNT}]


def refer_to_image(w: World) -> None:
    w.ec2.create_launch_template(LaunchTemplateName="contract", LaunchTemplateData={"ImageId": w["image"]})
    kinds = [{"ResourceType": "ec2:LaunchTemplate"}, {"ResourceType": "ec2:Instance"}]
    found = w.ec2.describe_image_references(ImageIds=[w["image"]], ResourceTypes=kinds)["ImageReferences"]
    assert [one["ResourceType"] for one in found] == ["ec2:LaunchTemplate"]


def use_image(w: World) -> None:
    launch(w.cloud.client("ec2", OTHER_ACCOUNT), w["image"])
    report = w.ec2.create_image_usage_report(ImageId=w["image"], ResourceTypes=[{"ResourceType": "ec2:Instance"}])
    w.keep("report", report["ReportId"])


def usage_report(w: World) -> None:
    def state() -> str:
        return str(w.ec2.describe_image_usage_reports(ReportIds=[w["report"]])["ImageUsageReports"][0]["State"])

    wait_for(state, "available")


def usage_entries(w: World) -> None:
    (entry,) = w.ec2.describe_image_usage_report_entries(ReportIds=[w["report"]])["ImageUsageReportEntries"]
    assert (entry["AccountId"], entry["UsageCount"]) == (OTHER_ACCOUNT, 1)


def share_snapshot(w: World) -> None:
    add = {"Add": [{"UserId": OTHER_ACCOUNT}]}
    w.ec2.modify_snapshot_attribute(SnapshotId=w["snapshot"], CreateVolumePermission=add)
    w.ec2.modify_snapshot_attribute(SnapshotId=w["snapshot"], CreateVolumePermission=add, UserIds=[OTHER_ACCOUNT])
    found = w.ec2.describe_snapshot_attribute(SnapshotId=w["snapshot"], Attribute="createVolumePermission")
    assert found["CreateVolumePermissions"] == [{"UserId": OTHER_ACCOUNT}]


def create_snapshot(w: World) -> None:
    volume = w.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [w["instance"]]}])["Volumes"][
        0
    ]
    w.keep("volume", volume["VolumeId"])
    w.keep("taken", w.ec2.create_snapshot(VolumeId=w["volume"], TagSpecifications=tags("snapshot"))["SnapshotId"])
    wait_for(lambda: w.ec2.describe_snapshots(SnapshotIds=[w["taken"]])["Snapshots"][0]["State"], "completed")


def put_block(w: World) -> None:
    w.ebs.put_snapshot_block(
        SnapshotId=w["written"],
        BlockIndex=0,
        BlockData=BLOCK,
        DataLength=BLOCK_SIZE,
        Checksum=DIGEST,
        ChecksumAlgorithm="SHA256",
    )


def complete(w: World) -> None:
    w.ebs.complete_snapshot(SnapshotId=w["written"], ChangedBlocksCount=1)
    wait_for(lambda: w.ec2.describe_snapshots(SnapshotIds=[w["written"]])["Snapshots"][0]["State"], "completed")


def get_block(w: World) -> None:
    found = w.ebs.get_snapshot_block(SnapshotId=w["written"], BlockIndex=0, BlockToken=w["token"])
    assert found["BlockData"].read() == BLOCK and found["Checksum"] == DIGEST


def import_snapshot(w: World) -> None:
    bucket = {"S3Bucket": "contract", "S3Key": "disk.raw"}
    task = w.ec2.import_snapshot(
        DiskContainer={"Format": "raw", "UserBucket": bucket}, TagSpecifications=tags("import-snapshot-task")
    )
    w.keep("task", task["ImportTaskId"])


def imported(w: World) -> None:
    def detail() -> Any:
        return w.ec2.describe_import_snapshot_tasks(ImportTaskIds=[w["task"]])["ImportSnapshotTasks"][0][
            "SnapshotTaskDetail"
        ]

    wait_for(lambda: detail()["Status"], "completed")
    other = [{"Name": "tag:Name", "Values": ["another"]}]
    assert w.ec2.describe_import_snapshot_tasks(Filters=other)["ImportSnapshotTasks"] == []
    blocks = w.ebs.list_snapshot_blocks(SnapshotId=detail()["SnapshotId"])["Blocks"]
    assert [block["BlockIndex"] for block in blocks] == [0]


def upload_parts(w: World) -> None:
    w.s3.create_bucket(Bucket="contract")
    made = w.s3.create_multipart_upload(Bucket="contract", Key="disk.raw", ChecksumAlgorithm="SHA256")["UploadId"]
    part = w.s3.upload_part(
        Bucket="contract", Key="disk.raw", UploadId=made, PartNumber=1, Body=BLOCK, ChecksumAlgorithm="SHA256"
    )
    listed = w.s3.list_parts(Bucket="contract", Key="disk.raw", UploadId=made)
    assert (listed["ChecksumAlgorithm"], listed["Parts"][0]["ChecksumSHA256"]) == ("SHA256", DIGEST)
    parts = {"Parts": [{"ETag": part["ETag"], "PartNumber": 1, "ChecksumSHA256": part["ChecksumSHA256"]}]}
    w.s3.complete_multipart_upload(Bucket="contract", Key="disk.raw", UploadId=made, MultipartUpload=parts)
    tagging = {"TagSet": [{"Key": "awspub:source", "Value": "disk"}, {"Key": "team", "Value": "web"}]}
    w.s3.put_object_tagging(Bucket="contract", Key="disk.raw", Tagging=tagging)
    found = w.s3.get_object_tagging(Bucket="contract", Key="disk.raw")["TagSet"]
    assert sorted(found, key=lambda tag: tag["Key"]) == tagging["TagSet"]
    tagging["TagSet"][0]["Key"] = "aws:source"
    refused("InvalidTag", lambda: w.s3.put_object_tagging(Bucket="contract", Key="disk.raw", Tagging=tagging))


def missing(service: str, action: str, **arguments: Any) -> Row:
    """Return a row for a call that the local cloud is known not to have: it must say so properly."""

    def ask(w: World) -> None:
        client = w.cloud.client(service)
        try:
            getattr(client, xform_name(action))(**arguments)
        except ClientError as error:
            assert error.response["Error"]["Code"] == "InvalidAction", error
        else:
            raise AssertionError(f"{action} is there: move it to the other rows")

    return Row(service, action, "", ask, "missing")


def ec2(action: str, users: str, ask: Callable[[World], Any], note: str = "") -> Row:
    return Row("ec2", action, users, ask, note)


def replace_acl(w: World) -> None:
    filters = [{"Name": "association.subnet-id", "Values": [w["subnet"]]}]
    (found,) = w.ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
    (tie,) = (one for one in found["Associations"] if one["SubnetId"] == w["subnet"])
    w.ec2.replace_network_acl_association(AssociationId=tie["NetworkAclAssociationId"], NetworkAclId=w["acl"])


def describe_nat(w: World) -> None:
    by_tag = [{"Name": "tag:Name", "Values": ["contract"]}]
    assert [one["NatGatewayId"] for one in w.ec2.describe_nat_gateways(Filters=by_tag)["NatGateways"]] == [w["nat"]]
    assert not w.ec2.describe_nat_gateways(Filters=[{"Name": "tag:Name", "Values": ["other"]}])["NatGateways"]
    assert refused("InvalidIPAddress.InUse", lambda: w.ec2.release_address(AllocationId=w["address"]))
    assert refused("DependencyViolation", lambda: w.ec2.delete_subnet(SubnetId=w["subnet"]))


NETWORK_ROWS = [
    ec2(
        "CreateVpc",
        "P",
        lambda w: w.keep(
            "vpc", w.ec2.create_vpc(CidrBlock="192.168.7.0/24", TagSpecifications=tags("vpc"))["Vpc"]["VpcId"]
        ),
    ),
    ec2(
        "CreateInternetGateway",
        "P",
        lambda w: w.keep("gateway", w.ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]),
    ),
    ec2(
        "AttachInternetGateway",
        "P",
        lambda w: w.ec2.attach_internet_gateway(InternetGatewayId=w["gateway"], VpcId=w["vpc"]),
    ),
    ec2(
        "CreateRouteTable",
        "P",
        lambda w: w.keep("table", w.ec2.create_route_table(VpcId=w["vpc"])["RouteTable"]["RouteTableId"]),
    ),
    ec2(
        "CreateRoute",
        "P",
        lambda w: w.ec2.create_route(RouteTableId=w["table"], DestinationCidrBlock="0.0.0.0/0", GatewayId=w["gateway"]),
        "followed by guests without a public address: to a NAT gateway or a NAT instance",
    ),
    ec2(
        "CreateNetworkAcl",
        "P",
        lambda w: w.keep("acl", w.ec2.create_network_acl(VpcId=w["vpc"])["NetworkAcl"]["NetworkAclId"]),
    ),
    ec2(
        "CreateNetworkAclEntry",
        "P",
        lambda w: w.ec2.create_network_acl_entry(
            NetworkAclId=w["acl"],
            RuleNumber=100,
            Protocol="-1",
            RuleAction="allow",
            Egress=False,
            CidrBlock="192.168.7.0/24",
        ),
        "kept, and not enforced",
    ),
    ec2(
        "CreateSubnet",
        "P",
        lambda w: w.keep(
            "subnet", w.ec2.create_subnet(VpcId=w["vpc"], CidrBlock="192.168.7.0/25")["Subnet"]["SubnetId"]
        ),
    ),
    ec2(
        "AssociateRouteTable",
        "P",
        lambda w: w.ec2.associate_route_table(RouteTableId=w["table"], SubnetId=w["subnet"])["AssociationId"],
    ),
    ec2("ReplaceNetworkAclAssociation", "P", replace_acl),
    ec2(
        "AllocateAddress",
        "P",
        lambda w: w.keep("address", w.ec2.allocate_address(Domain="vpc")["AllocationId"]),
        "an address of 127.0.0.0/8, which leads to the guest that bears it",
    ),
    ec2(
        "CreateNatGateway",
        "P",
        lambda w: w.keep(
            "nat",
            w.ec2.create_nat_gateway(
                SubnetId=w["subnet"], AllocationId=w["address"], TagSpecifications=tags("natgateway")
            )["NatGateway"]["NatGatewayId"],
        ),
    ),
    ec2("DescribeNatGateways", "P", describe_nat, "filters on tags too"),
    ec2("DeleteNatGateway", "P", lambda w: w.ec2.delete_nat_gateway(NatGatewayId=w["nat"]), "frees its address"),
    ec2(
        "ReleaseAddress",
        "P",
        lambda w: w.ec2.release_address(AllocationId=w["address"]),
        "refused while it is borne",
    ),
    ec2(
        "DeleteSubnet",
        "P",
        lambda w: w.ec2.delete_subnet(SubnetId=w["subnet"]),
        "refused while something is in it; ends its associations",
    ),
    ec2("DeleteNetworkAcl", "P", lambda w: w.ec2.delete_network_acl(NetworkAclId=w["acl"])),
    ec2("DeleteRouteTable", "P", lambda w: w.ec2.delete_route_table(RouteTableId=w["table"])),
    ec2(
        "DetachInternetGateway",
        "P",
        lambda w: w.ec2.detach_internet_gateway(InternetGatewayId=w["gateway"], VpcId=w["vpc"]),
    ),
    ec2("DeleteInternetGateway", "P", lambda w: w.ec2.delete_internet_gateway(InternetGatewayId=w["gateway"])),
    ec2("DeleteVpc", "P", lambda w: w.ec2.delete_vpc(VpcId=w["vpc"])),
]

ROWS = [
    Row("sts", "GetCallerIdentity", "PKA", lambda w: w.sts.get_caller_identity()["Account"] == "123456789012"),
    Row(
        "sts",
        "AssumeRole",
        "P",
        lambda w: w.sts.assume_role(RoleArn=f"arn:aws:iam::{OTHER_ACCOUNT}:role/r", RoleSessionName="contract"),
    ),
    Row(
        "ssm",
        "GetParameter",
        "P",
        lambda w: w.ssm.get_parameter(Name="/aws/service/debian/release/12/latest/amd64")["Parameter"],
        "Debian's public parameters too",
    ),
    Row("ssm", "PutParameter", "PA", lambda w: w.ssm.put_parameter(Name="/contract", Value="ami-1", Type="String")),
    Row("ssm", "GetParameters", "A", lambda w: w.ssm.get_parameters(Names=["/contract"])["Parameters"][0]),
    ec2("DescribeRegions", "KA", lambda w: w.ec2.describe_regions()["Regions"][0]),
    ec2("DescribeImages", "PKAI", images, "visibility by permission, deprecated and disabled ones hidden, pages"),
    ec2(
        "DescribeVpcs",
        "P",
        lambda w: w.ec2.describe_vpcs(Filters=[{"Name": "is-default", "Values": ["true"]}])["Vpcs"][0],
    ),
    ec2(
        "DescribeSubnets",
        "P",
        lambda w: w.ec2.describe_subnets(Filters=[{"Name": "default-for-az", "Values": ["true"]}])["Subnets"][0],
    ),
    ec2("DescribeAvailabilityZones", "P", lambda w: w.ec2.describe_availability_zones()["AvailabilityZones"][0]),
    ec2(
        "DescribeInstanceTypeOfferings",
        "PK",
        lambda w: w.ec2.describe_instance_type_offerings(Filters=[{"Name": "instance-type", "Values": ["t3.small"]}])[
            "InstanceTypeOfferings"
        ][0],
    ),
    ec2(
        "ImportKeyPair",
        "P",
        lambda w: w.ec2.import_key_pair(
            KeyName="imported",
            PublicKeyMaterial=b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f c",
        ),
    ),
    ec2("CreateKeyPair", "KI", lambda w: w.ec2.create_key_pair(KeyName="contract")["KeyMaterial"]),
    ec2("DescribeKeyPairs", "P", lambda w: w.ec2.describe_key_pairs(KeyNames=["contract"])["KeyPairs"][0]),
    ec2(
        "CreateSecurityGroup",
        "PKI",
        lambda w: w.keep(
            "group",
            w.ec2.create_security_group(
                GroupName="contract", Description="d", TagSpecifications=tags("security-group")
            )["GroupId"],
        ),
    ),
    ec2(
        "DescribeSecurityGroups",
        "PK",
        lambda w: w.ec2.describe_security_groups(GroupIds=[w["group"]])["SecurityGroups"][0],
    ),
    ec2(
        "AuthorizeSecurityGroupIngress",
        "PKI",
        lambda w: w.ec2.authorize_security_group_ingress(
            GroupId=w["group"], CidrIp="127.0.0.1/32", IpProtocol="tcp", FromPort=22, ToPort=22
        ),
        "the proxy on the public address obeys, at each connection",
    ),
    ec2(
        "RevokeSecurityGroupEgress",
        "P",
        lambda w: w.ec2.revoke_security_group_egress(
            GroupId=w["group"], IpPermissions=[{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]
        ),
        "enforced between guests; out to the world it is all or nothing (`--no-egress`)",
    ),
    ec2(
        "RunInstances",
        "PKI",
        launch_one,
        "real guests; unknown images and types refused; the image's disks; `resolve:ssm:`; client tokens",
    ),
    ec2(
        "DescribeInstances",
        "PKI",
        lambda w: w.ec2.describe_instances(Filters=[{"Name": "tag:Name", "Values": ["contract"]}])["Reservations"][0],
    ),
    ec2(
        "DescribeInstanceStatus",
        "K",
        lambda w: w.ec2.describe_instance_status(InstanceIds=[w["instance"]])["InstanceStatuses"][0],
    ),
    ec2(
        "DescribeTags",
        "K",
        lambda w: w.ec2.describe_tags(Filters=[{"Name": "resource-id", "Values": [w["instance"]]}])["Tags"][0],
    ),
    ec2("CreateTags", "PKA", lambda w: w.ec2.create_tags(Resources=[w["instance"]], Tags=[{"Key": "a", "Value": "b"}])),
    ec2("GetConsoleOutput", "PI", console, "the guest's serial console"),
    ec2(
        "GetConsoleScreenshot",
        "",
        lambda w: w.ec2.get_console_screenshot(InstanceId=w["instance"])["ImageData"],
        "PNG; EC2 gives JPG",
    ),
    ec2("RebootInstances", "PI", lambda w: w.ec2.reboot_instances(InstanceIds=[w["instance"]])),
    ec2(
        "DescribeVolumes",
        "PK",
        lambda w: w.ec2.describe_volumes(Filters=[{"Name": "attachment.instance-id", "Values": [w["instance"]]}])[
            "Volumes"
        ][0],
    ),
    ec2("CreateSnapshot", "P", create_snapshot, "live, through the guest"),
    ec2("StopInstances", "PKI", stop),
    ec2(
        "ModifyInstanceAttribute",
        "PK",
        lambda w: w.ec2.modify_instance_attribute(InstanceId=w["instance"], EnaSupport={"Value": True}),
        "every attribute changes itself only",
    ),
    ec2(
        "DescribeInstanceAttribute",
        "P",
        lambda w: w.ec2.describe_instance_attribute(InstanceId=w["instance"], Attribute="enaSupport")["EnaSupport"][
            "Value"
        ],
    ),
    ec2(
        "ModifyInstanceMetadataOptions",
        "P",
        lambda w: w.ec2.modify_instance_metadata_options(InstanceId=w["instance"], HttpTokens="required"),
    ),
    ec2("CreateImage", "PK", create_image, "with or without reboot, snapshot tags, real sizes, pending at first"),
    ec2("StartInstances", "I", start),
    ec2(
        "DescribeInstanceImageMetadata",
        "",
        lambda w: w.ec2.describe_instance_image_metadata()["InstanceImageMetadata"][0],
    ),
    ec2("TerminateInstances", "PKI", terminate),
    ec2("DescribeSnapshots", "PKA", lambda w: w.ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"][0]),
    ec2(
        "CopyImage",
        "PKA",
        copy_image,
        "mappings, attributes, tags where asked, across regions; no permissions, no deprecation",
    ),
    ec2(
        "ModifyImageAttribute",
        "PKA",
        share_image,
        "accounts, organisations, units, all; description; IMDS; product codes refused",
    ),
    ec2("DescribeImageAttribute", "P", read_permissions),
    ec2(
        "DescribeImageReferences",
        "P",
        refer_to_image,
        "instances, launch templates, parameters; no Image Builder",
    ),
    ec2("CreateImageUsageReport", "P", use_image, "instances and launch templates of the other accounts"),
    ec2("DescribeImageUsageReports", "P", usage_report),
    ec2("DescribeImageUsageReportEntries", "P", usage_entries),
    Row(
        "autoscaling",
        "DescribeLaunchConfigurations",
        "P",
        lambda w: w.autoscaling.describe_launch_configurations()["LaunchConfigurations"] == [],
    ),
    ec2("ModifySnapshotAttribute", "PKA", share_snapshot, "both forms"),
    ec2(
        "DescribeSnapshotAttribute",
        "P",
        lambda w: w.ec2.describe_snapshot_attribute(SnapshotId=w["snapshot"], Attribute="productCodes")["ProductCodes"],
    ),
    ec2(
        "ResetSnapshotAttribute",
        "",
        lambda w: w.ec2.reset_snapshot_attribute(SnapshotId=w["snapshot"], Attribute="createVolumePermission"),
    ),
    ec2(
        "ResetImageAttribute",
        "P",
        lambda w: w.ec2.reset_image_attribute(ImageId=w["image"], Attribute="launchPermission"),
    ),
    ec2(
        "EnableImageDeprecation",
        "PK",
        lambda w: w.ec2.enable_image_deprecation(ImageId=w["image"], DeprecateAt="2099-01-01T00:00:00Z"),
        "enforced",
    ),
    ec2("DisableImageDeprecation", "P", lambda w: w.ec2.disable_image_deprecation(ImageId=w["image"])),
    ec2(
        "EnableImageDeregistrationProtection",
        "P",
        lambda w: w.ec2.enable_image_deregistration_protection(ImageId=w["image"]),
        "enforced, cooldown too",
    ),
    ec2(
        "DisableImageDeregistrationProtection",
        "P",
        lambda w: w.ec2.disable_image_deregistration_protection(ImageId=w["image"]),
    ),
    ec2("DisableImage", "P", lambda w: w.ec2.disable_image(ImageId=w["image"]), "enforced"),
    ec2("EnableImage", "P", lambda w: w.ec2.enable_image(ImageId=w["image"])),
    ec2("GetImageAncestry", "P", lambda w: w.ec2.get_image_ancestry(ImageId=w["image"])["ImageAncestryEntries"][1]),
    ec2(
        "GetImageBlockPublicAccessState",
        "P",
        lambda w: w.ec2.get_image_block_public_access_state()["ImageBlockPublicAccessState"],
    ),
    ec2("DisableImageBlockPublicAccess", "P", lambda w: w.ec2.disable_image_block_public_access()),
    ec2(
        "EnableImageBlockPublicAccess",
        "P",
        lambda w: w.ec2.enable_image_block_public_access(ImageBlockPublicAccessState="block-new-sharing"),
        "enforced",
    ),
    ec2("GetSnapshotBlockPublicAccessState", "P", lambda w: w.ec2.get_snapshot_block_public_access_state()["State"]),
    ec2(
        "EnableSnapshotBlockPublicAccess",
        "P",
        lambda w: w.ec2.enable_snapshot_block_public_access(State="block-all-sharing"),
        "enforced",
    ),
    ec2("DisableSnapshotBlockPublicAccess", "P", lambda w: w.ec2.disable_snapshot_block_public_access()),
    ec2("GetAllowedImagesSettings", "P", lambda w: w.ec2.get_allowed_images_settings()["State"]),
    ec2(
        "ReplaceImageCriteriaInAllowedImagesSettings",
        "",
        lambda w: w.ec2.replace_image_criteria_in_allowed_images_settings(ImageCriteria=[]),
    ),
    ec2(
        "EnableAllowedImagesSettings",
        "",
        lambda w: w.ec2.enable_allowed_images_settings(AllowedImagesSettingsState="audit-mode"),
        "enforced",
    ),
    ec2("DisableAllowedImagesSettings", "", lambda w: w.ec2.disable_allowed_images_settings()),
    Row(
        "ebs",
        "StartSnapshot",
        "PA",
        lambda w: w.keep("written", w.ebs.start_snapshot(VolumeSize=1, ClientToken="contract")["SnapshotId"]),
    ),
    Row("ebs", "PutSnapshotBlock", "P", put_block, "512 KiB, checksum verified"),
    Row("ebs", "CompleteSnapshot", "P", complete, "number and checksum of the blocks verified"),
    Row(
        "ebs",
        "ListSnapshotBlocks",
        "P",
        lambda w: w.keep("token", w.ebs.list_snapshot_blocks(SnapshotId=w["written"])["Blocks"][0]["BlockToken"]),
        "real disks, page tokens",
    ),
    Row("ebs", "GetSnapshotBlock", "P", get_block),
    Row(
        "ebs",
        "ListChangedBlocks",
        "P",
        lambda w: (
            w.ebs.list_changed_blocks(FirstSnapshotId=w["taken"], SecondSnapshotId=w["snapshot"])["BlockSize"]
            == BLOCK_SIZE
        ),
        "of one lineage only",
    ),
    ec2("RegisterImage", "PA", register_image, "every attribute; duplicate names refused"),
    ec2(
        "CopySnapshot",
        "PA",
        lambda w: w.ec2.copy_snapshot(SourceSnapshotId=w["written"], SourceRegion="us-east-1")["SnapshotId"],
    ),
    Row(
        "s3",
        "CreateMultipartUpload",
        "A",
        upload_parts,
        "checksums of parts, tags as S3 has them; objects do not survive a restart",
    ),
    ec2("ImportSnapshot", "A", import_snapshot, "raw, vmdk, vhd, vhdx"),
    ec2("DescribeImportSnapshotTasks", "A", imported),
    ec2(
        "CreateVolume",
        "P",
        lambda w: w.keep(
            "fresh", w.ec2.create_volume(AvailabilityZone="us-east-1a", Size=1, ClientToken="fresh")["VolumeId"]
        ),
    ),
    ec2(
        "DescribeVolumeAttribute",
        "P",
        lambda w: w.ec2.describe_volume_attribute(VolumeId=w["fresh"], Attribute="productCodes"),
    ),
    ec2(
        "DescribeVolumeStatus", "", lambda w: w.ec2.describe_volume_status(VolumeIds=[w["fresh"]])["VolumeStatuses"][0]
    ),
    ec2("DeleteVolume", "P", lambda w: w.ec2.delete_volume(VolumeId=w["fresh"])),
    ec2(
        "DeregisterImage",
        "PKA",
        lambda w: w.ec2.deregister_image(ImageId=w["image"], DeleteAssociatedSnapshots=True)["DeleteSnapshotResults"][
            0
        ],
    ),
    ec2(
        "DeleteSnapshot",
        "PKA",
        lambda w: w.ec2.delete_snapshot(SnapshotId=w["taken"]),
        "refused while an image uses it",
    ),
    ec2("DeleteSecurityGroup", "PKI", lambda w: w.ec2.delete_security_group(GroupId=w["group"])),
    ec2("DeleteKeyPair", "PKI", lambda w: w.ec2.delete_key_pair(KeyName="contract")),
    *NETWORK_ROWS,
    missing("ec2", "ListImagesInRecycleBin"),
    missing("ec2", "CreateStoreImageTask", ImageId="ami-0123456789abcdef0", Bucket="b"),
    missing(
        "ec2", "ExportImage", DiskImageFormat="RAW", ImageId="ami-0123456789abcdef0", S3ExportLocation={"S3Bucket": "b"}
    ),
    missing("ec2", "EnableFastSnapshotRestores", AvailabilityZones=["us-east-1a"], SourceSnapshotIds=["snap-1"]),
    missing("ec2", "EnableFastLaunch", ImageId="ami-0123456789abcdef0"),
    missing("ec2", "LockSnapshot", SnapshotId="snap-0123456789abcdef0", LockMode="governance"),
]


def how(row: Row) -> str:
    """Return whose answer it is: moto's (fine), ours (filled in), or nobody's (missing)."""
    if row.note == "missing":
        return "missing"
    if row.service == "ebs":
        return "filled in"
    handler = getattr(LocalResponse, xform_name(row.action), None) if row.service == "ec2" else None
    ours = handler is not None and handler.__module__.startswith("pipeline.")
    return "filled in" if ours else "fine"


def render() -> str:
    """Return COVERAGE.md."""
    counts = {kind: sum(how(row) == kind for row in ROWS) for kind in ("fine", "filled in", "missing")}
    lines = [
        "# What the local cloud answers",
        "",
        "Made by the contract test, which asks each call: `python -m tests.localcloud.contract` writes this page, and",
        "`tests/localcloud/test_contract.py` fails when it is out of date. *fine*: moto's own answer serves.",
        "*filled in*: the local cloud answers instead of moto. *missing*: answered with `InvalidAction`, as every",
        "other action that neither has. Users: P pipeline, K Packer, A awspub, I img-proof.",
        "",
        f"{counts['fine']} fine, {counts['filled in']} filled in, {counts['missing']} missing.",
        "",
        "| service | action | users | answer | of note |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        note = "" if row.note == "missing" else row.note
        lines.append(f"| {row.service} | {row.action} | {row.users} | {how(row)} | {note} |")
    lines += [
        "",
        "Different from EC2: signatures and IAM policies are not checked (the cloud listens on loopback only);",
        "volumes attach to stopped instances only and do not grow; guests get at most 2 processors (1 on request) and",
        "2 GiB whatever the type says; access lists are kept and not followed; what a guest asks of this host's proxy",
        "passes every security group; there are no quotas; encryption is recorded and its sharing rules hold, the",
        "disks are plain files of the user's.",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    COVERAGE.write_text(render())
