"""EBS direct over HTTP: what is written is what is read, checksums and tokens are checked, pages follow each other."""

import base64
import hashlib
from typing import Any

import pytest

from pipeline.localcloud.disks import BLOCK_SIZE
from tests.localcloud.clouds import LocalCloud, launch, make_image, refused, snapshot_of, wait_for

pytestmark = [pytest.mark.loopback, pytest.mark.subprocess]


def digest(data: bytes) -> str:
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def put(ebs: Any, snapshot_id: str, index: int, data: bytes, checksum: str | None = None) -> None:
    ebs.put_snapshot_block(
        SnapshotId=snapshot_id,
        BlockIndex=index,
        BlockData=data,
        DataLength=len(data),
        Checksum=checksum or digest(data),
        ChecksumAlgorithm="SHA256",
    )


def write_snapshot(cloud: LocalCloud, blocks: dict[int, bytes], **options: Any) -> str:
    ebs, ec2 = cloud.client("ebs"), cloud.client("ec2")
    snapshot_id = str(ebs.start_snapshot(VolumeSize=1, **options)["SnapshotId"])
    for index, data in blocks.items():
        put(ebs, snapshot_id, index, data)
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=len(blocks))
    wait_for(lambda: ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["State"], "completed")
    return snapshot_id


def read(ebs: Any, snapshot_id: str) -> dict[int, bytes]:
    blocks = ebs.list_snapshot_blocks(SnapshotId=snapshot_id)["Blocks"]
    answers = {
        block["BlockIndex"]: ebs.get_snapshot_block(
            SnapshotId=snapshot_id, BlockIndex=block["BlockIndex"], BlockToken=block["BlockToken"]
        )
        for block in blocks
    }
    contents = {index: answer["BlockData"].read() for index, answer in answers.items()}
    assert all(answers[index]["Checksum"] == digest(data) for index, data in contents.items())
    return contents


def test_blocks_are_read_as_they_were_written(local_cloud: LocalCloud) -> None:
    blocks = {0: b"a" * BLOCK_SIZE, 7: b"b" * BLOCK_SIZE, 2047: b"c" * BLOCK_SIZE}
    assert read(local_cloud.client("ebs"), write_snapshot(local_cloud, blocks)) == blocks


def test_changed_blocks_are_those_of_either_snapshot_and_of_one_lineage(local_cloud: LocalCloud) -> None:
    ebs = local_cloud.client("ebs")
    first = write_snapshot(local_cloud, {0: b"a" * BLOCK_SIZE, 1: b"b" * BLOCK_SIZE})
    second = write_snapshot(local_cloud, {1: b"x" * BLOCK_SIZE, 5: b"y" * BLOCK_SIZE}, ParentSnapshotId=first)
    changed = ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=second)
    assert changed["BlockSize"] == BLOCK_SIZE
    kinds = {
        item["BlockIndex"]: ("FirstBlockToken" in item, "SecondBlockToken" in item) for item in changed["ChangedBlocks"]
    }
    assert kinds == {1: (True, True), 5: (False, True)}
    stranger = write_snapshot(local_cloud, {0: b"a" * BLOCK_SIZE})
    refused("ValidationException", lambda: ebs.list_changed_blocks(FirstSnapshotId=first, SecondSnapshotId=stranger))


def test_a_child_is_encrypted_as_its_parent_is(local_cloud: LocalCloud) -> None:
    ebs, key = local_cloud.client("ebs"), "arn:aws:kms:us-east-1:123456789012:key/web"
    first = write_snapshot(local_cloud, {0: b"a" * BLOCK_SIZE}, Encrypted=True, KmsKeyArn=key)
    child = write_snapshot(local_cloud, {1: b"b" * BLOCK_SIZE}, ParentSnapshotId=first)
    (described,) = local_cloud.client("ec2").describe_snapshots(SnapshotIds=[child])["Snapshots"]
    assert (described["Encrypted"], described["KmsKeyId"]) == (True, key)
    for asked in ({"Encrypted": True}, {"Encrypted": False}, {"KmsKeyArn": key}):
        refused(
            "ValidationException",
            lambda: ebs.start_snapshot(VolumeSize=1, ParentSnapshotId=first, **asked),  # noqa: B023
        )


def test_a_wrong_checksum_size_or_index_is_refused_and_not_written(local_cloud: LocalCloud) -> None:
    ebs = local_cloud.client("ebs")
    snapshot_id = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    good = b"a" * BLOCK_SIZE
    refused("ValidationException", lambda: put(ebs, snapshot_id, 0, good, digest(b"other")))
    refused("ValidationException", lambda: put(ebs, snapshot_id, 0, good[:-1]))
    refused("ValidationException", lambda: put(ebs, snapshot_id, 2048, good))
    refused("ValidationException", lambda: ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=1))
    ebs.complete_snapshot(SnapshotId=snapshot_id, ChangedBlocksCount=0)
    refused("ValidationException", lambda: put(ebs, snapshot_id, 0, good))


def test_the_checksum_over_all_blocks_is_checked(local_cloud: LocalCloud) -> None:
    ebs = local_cloud.client("ebs")
    snapshot_id = ebs.start_snapshot(VolumeSize=1)["SnapshotId"]
    data = [b"a" * BLOCK_SIZE, b"b" * BLOCK_SIZE]
    for index, block in enumerate(data):
        put(ebs, snapshot_id, index, block)
    together = base64.b64encode(hashlib.sha256(b"".join(hashlib.sha256(block).digest() for block in data)).digest())
    options = {"ChangedBlocksCount": 2, "ChecksumAlgorithm": "SHA256", "ChecksumAggregationMethod": "LINEAR"}
    wrong = digest(b"")
    refused("ValidationException", lambda: ebs.complete_snapshot(SnapshotId=snapshot_id, Checksum=wrong, **options))
    ebs.complete_snapshot(SnapshotId=snapshot_id, Checksum=together.decode(), **options)


def test_pages_follow_each_other_and_false_tokens_are_refused(local_cloud: LocalCloud) -> None:
    ebs = local_cloud.client("ebs")
    snapshot_id = write_snapshot(local_cloud, {index: b"z" * BLOCK_SIZE for index in range(0, 230, 2)})
    first = ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=100)
    second = ebs.list_snapshot_blocks(SnapshotId=snapshot_id, MaxResults=100, NextToken=first["NextToken"])
    assert "NextToken" not in second
    found = [item["BlockIndex"] for item in first["Blocks"] + second["Blocks"]]
    assert found == list(range(0, 230, 2))
    refused("ValidationException", lambda: ebs.list_snapshot_blocks(SnapshotId=snapshot_id, NextToken="%"))
    false = {"SnapshotId": snapshot_id, "BlockIndex": 0, "BlockToken": first["Blocks"][1]["BlockToken"]}
    refused("ValidationException", lambda: ebs.get_snapshot_block(**false))


def test_a_snapshot_of_a_volume_is_read_and_a_public_one_is_not(local_cloud: LocalCloud) -> None:
    ec2, ebs = local_cloud.client("ec2"), local_cloud.client("ebs")
    snapshot_id = snapshot_of(ec2, make_image(ec2, "source"))
    assert set(read(ebs, snapshot_id)) == {0, 3, 4, 100}
    ec2.modify_snapshot_attribute(
        SnapshotId=snapshot_id, Attribute="createVolumePermission", OperationType="add", GroupNames=["all"]
    )
    refused("AccessDeniedException", lambda: ebs.list_snapshot_blocks(SnapshotId=snapshot_id))


def test_a_written_snapshot_becomes_an_image_that_launches(local_cloud: LocalCloud) -> None:
    ec2 = local_cloud.client("ec2")
    snapshot_id = write_snapshot(local_cloud, {0: b"boot" * (BLOCK_SIZE // 4)}, Tags=[{"Key": "a", "Value": "b"}])
    assert ec2.describe_snapshots(SnapshotIds=[snapshot_id])["Snapshots"][0]["Tags"] == [{"Key": "a", "Value": "b"}]
    mapping = [{"DeviceName": "/dev/xvda", "Ebs": {"SnapshotId": snapshot_id}}]
    image_id = ec2.register_image(
        Name="written",
        Architecture="x86_64",
        VirtualizationType="hvm",
        RootDeviceName="/dev/xvda",
        BlockDeviceMappings=mapping,
    )["ImageId"]
    wait_for(lambda: ec2.describe_images(ImageIds=[image_id])["Images"][0]["State"], "available")
    launch(ec2, image_id)


def test_the_same_client_token_starts_one_snapshot(local_cloud: LocalCloud) -> None:
    ebs = local_cloud.client("ebs")
    first = ebs.start_snapshot(VolumeSize=1, ClientToken="once")["SnapshotId"]
    assert ebs.start_snapshot(VolumeSize=1, ClientToken="once")["SnapshotId"] == first
