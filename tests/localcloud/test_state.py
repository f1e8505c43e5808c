"""What survives a restart, and a crash."""

import pickle
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.localcloud.control_plane import of_account
from pipeline.localcloud.distributions import DISTRIBUTIONS
from pipeline.localcloud.seeding import make_fake_base, register_base
from pipeline.localcloud.state import StateRefused, load_state, save_state
from tests.localcloud.clouds import (
    OTHER_ACCOUNT,
    LocalCloud,
    base_image,
    image_of,
    launch,
    make_image,
    running,
    snapshot_of,
    state_of,
    wait_for,
)


def test_a_state_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "state.pickle"
    assert load_state(path, "1") is None
    save_state(path, {"a": [1, 2]}, "1")
    assert load_state(path, "1") == {"a": [1, 2]}
    assert path.stat().st_mode & 0o077 == 0
    assert list(tmp_path.iterdir()) == [path]


def test_a_state_of_another_version_or_a_torn_one_is_refused_with_advice(tmp_path: Path) -> None:
    path = tmp_path / "state.pickle"
    save_state(path, {}, "1")
    with pytest.raises(StateRefused, match="reset"):
        load_state(path, "2")
    path.write_bytes(pickle.dumps(("x",))[:-2])
    with pytest.raises(StateRefused, match="reset"):
        load_state(path, "1")


@pytest.mark.loopback
@pytest.mark.subprocess
def test_a_restart_keeps_everything_and_stops_what_ran(tmp_path: Path) -> None:
    with running(tmp_path) as cloud:
        ec2 = cloud.client("ec2")
        image_id = make_image(
            ec2, "kept", TagSpecifications=[{"ResourceType": "image", "Tags": [{"Key": "a", "Value": "b"}]}]
        )
        ec2.modify_image_attribute(ImageId=image_id, LaunchPermission={"Add": [{"UserId": OTHER_ACCOUNT}]})
        ec2.create_key_pair(KeyName="key", KeyType="ed25519")
        group_id = ec2.create_security_group(GroupName="group", Description="d")["GroupId"]
        cloud.client("ssm").put_parameter(Name="/my/image", Value=image_id, Type="String")
        instance_id = launch(ec2, image_id, KeyName="key", SecurityGroupIds=[group_id])
    with running(tmp_path) as cloud:
        ec2 = cloud.client("ec2")
        assert image_of(ec2, image_id)["Tags"] == [{"Key": "a", "Value": "b"}]
        assert image_of(cloud.client("ec2", OTHER_ACCOUNT), image_id)["State"] == "available"
        assert cloud.client("ssm").get_parameter(Name="/my/image")["Parameter"]["Value"] == image_id
        assert cloud.client("ebs").list_snapshot_blocks(SnapshotId=snapshot_of(ec2, image_id))["Blocks"]
        assert state_of(ec2, instance_id) == "stopped"
        ec2.start_instances(InstanceIds=[instance_id])
        wait_for(lambda: state_of(ec2, instance_id), "running")
        ec2.delete_key_pair(KeyName="key")


@pytest.mark.loopback
@pytest.mark.subprocess
def test_the_end_of_the_cloud_is_no_power_off_of_its_guests(tmp_path: Path) -> None:
    with running(tmp_path) as cloud:
        instance_id = launch(cloud.client("ec2"), InstanceInitiatedShutdownBehavior="terminate")
    with running(tmp_path) as cloud:
        assert state_of(cloud.client("ec2"), instance_id) == "stopped"


@pytest.mark.loopback
@pytest.mark.subprocess
def test_a_base_image_of_another_recipe_takes_the_place_of_its_namesake(tmp_path: Path) -> None:
    with running(tmp_path) as cloud:
        before = base_image(cloud.client("ec2"))
        path = cloud.home / "another.raw"
        (cloud.home / "fake-debian-12.raw").rename(path)
        register_base(
            of_account(DISTRIBUTIONS["bookworm"].owner_id, "us-east-1"), replace(make_fake_base(cloud.home), path=path)
        )
        found = cloud.client("ec2").describe_images(Owners=[DISTRIBUTIONS["bookworm"].owner_id])["Images"]
        assert len(found) == 1 and found[0]["ImageId"] != before


def crash(cloud: LocalCloud) -> None:
    """End without saving, as SIGKILL does."""
    cloud.cloud.save = lambda: None
    cloud.stop()


@pytest.mark.loopback
@pytest.mark.subprocess
def test_a_crash_loses_nothing_that_was_answered_and_leaves_no_garbage(tmp_path: Path) -> None:
    cloud = LocalCloud(tmp_path)
    ec2 = cloud.client("ec2")
    kept = make_image(ec2, "kept")
    wait_for(lambda: len(cloud.cloud.machines.disks.volume_ids()), 0)
    instance_id = launch(ec2, kept)
    cloud.cloud.save = lambda: None
    cloud.cloud.machines.disks.create_volume("vol-0000000000000dead", 1, None)
    crash(cloud)
    with running(tmp_path) as again:
        ec2 = again.client("ec2")
        assert image_of(ec2, kept)["State"] == "available"
        assert state_of(ec2, instance_id) == "stopped"
        assert "vol-0000000000000dead" not in again.cloud.machines.disks.volume_ids()
        ec2.terminate_instances(InstanceIds=[instance_id])
        wait_for(lambda: state_of(ec2, instance_id), "terminated")
        ec2.deregister_image(ImageId=kept, DeleteAssociatedSnapshots=True)
        assert again.cloud.machines.disks.volume_ids() == set()
        assert len(again.cloud.machines.disks.snapshot_ids()) == 1, "only the base image's"
