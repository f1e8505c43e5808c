"""The same functions on a control plane that answers by itself, and that goes wrong on request."""

import os
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.aws import (
    base_images,
    images,
    instances,
    inventory,
    keys,
    launch_permissions,
    network,
    security_groups,
    snapshots,
)
from pipeline.aws.blocks import BLOCK_SIZE, SnapshotBlocks, write_snapshot
from pipeline.aws.security_groups import Permission
from pipeline.aws.session import Session, open_session
from pipeline.aws.tags import Tags, new_build_id, resource_name
from pipeline.errors import BaseImageRefused, CapacityMissing, CredentialsRefused
from pipeline.spec import BaseImage, ImageFilter
from tests.fake_cloud import CONSUMER, DEBIAN_ACCOUNT, PUBLIC_KEY, FakeCloud, base_image, fake_cloud

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end


class Maker:
    """Makes one thing of each kind, named after one build."""

    def __init__(self, session: Session) -> None:
        self.session = session
        build_id = new_build_id(datetime.now(UTC))
        self.tags = Tags(build_id, "sha256:00", session.caller_arn, datetime.now(UTC) + timedelta(hours=1))

    def name(self, role: str) -> str:
        return resource_name(self.tags.build_id, role)

    def key(self) -> str:
        return keys.import_key_pair(self.session, self.tags, self.name("key"), PUBLIC_KEY)

    def group(self) -> str:
        (subnet, *_) = network.find_subnets(self.session)
        group_id = security_groups.create_security_group(
            self.session, self.tags, self.name("ssh"), vpc_id=subnet.vpc_id, description="ssh"
        )
        security_groups.let_in(self.session, group_id, [Permission(22, ("127.0.0.1/32",))])
        security_groups.let_out(self.session, group_id, [Permission(443, ("0.0.0.0/0", "::/0"))])
        return group_id

    def instance(self) -> str:
        subnet_ids = tuple(subnet.subnet_id for subnet in network.find_subnets(self.session))
        launch = instances.Launch(
            base_image(self.session).image_id, "t3.small", self.key(), (self.group(),), subnet_ids
        )
        return instances.launch_instance(self.session, self.tags, self.name("build"), launch)

    def snapshot(self, volume_id: str) -> str:
        return snapshots.create_snapshot(self.session, self.tags, self.name("root"), volume_id)

    def written(self, *blocks: tuple[int, bytes], role: str = "written") -> str:
        snapshot_id = write_snapshot(self.session, self.tags, self.name(role), 1, blocks)
        return snapshots.wait_for_snapshot(self.session, snapshot_id).snapshot_id

    def image(self, snapshot_id: str) -> str:
        base = base_image(self.session)
        registration = images.registration_like(
            base, name=self.name("image"), description="test", root_snapshot_id=snapshot_id
        )
        return images.register_image(self.session, self.tags, self.name("image"), registration)

    def possessions(self, kind: str) -> list[str]:
        mine = (one for one in inventory.list_possessions(self.session) if one.build_id == self.tags.build_id)
        return [one.identity for one in mine if one.kind == kind]

    def remove_all(self) -> None:
        for one in inventory.list_possessions(self.session):
            if one.build_id == self.tags.build_id:
                inventory.remove(self.session, one.kind, one.identity)


@pytest.fixture
def maker(fake_cloud: FakeCloud):
    maker = Maker(fake_cloud.open())
    yield maker
    maker.remove_all()
    assert not [one for one in inventory.list_possessions(maker.session) if one.build_id == maker.tags.build_id]


def lost(action):
    return {"kind": "lost-response", "action": action}


@pytest.mark.parametrize(
    "action, kind",
    [
        ("ImportKeyPair", "key-pair"),
        ("CreateSecurityGroup", "security-group"),
        ("RevokeSecurityGroupEgress", "security-group"),
        ("AuthorizeSecurityGroupIngress", "security-group"),
        ("AuthorizeSecurityGroupEgress", "security-group"),
        ("RunInstances", "instance"),
    ],
)
def test_a_lost_answer_makes_one_thing(fake_cloud, maker, action, kind):
    with fake_cloud.faults(lost(action)):
        instance_id = maker.instance()
    assert len(maker.possessions(kind)) == 1
    assert instances.wait_running(maker.session, instance_id).http_tokens == "required"


@pytest.mark.parametrize("action, kind", [("CreateSnapshot", "snapshot"), ("RegisterImage", "image")])
def test_a_lost_answer_makes_one_snapshot_and_one_image(fake_cloud, maker, action, kind):
    volume_id = instances.wait_running(maker.session, maker.instance()).root_volume_id
    with fake_cloud.faults(lost(action)):
        snapshot_id = maker.snapshot(volume_id)
        snapshots.wait_for_snapshot(maker.session, snapshot_id)
        image_id = maker.image(snapshot_id)
    assert len(maker.possessions(kind)) == 1
    assert images.wait_for_image(maker.session, image_id).snapshot_ids == (snapshot_id,)


def test_throttling_is_waited_out(fake_cloud, maker):
    with fake_cloud.faults({"kind": "throttle", "action": "RunInstances"}, {"kind": "throttle", "action": "*"}):
        assert maker.instance()


def test_missing_capacity_ends_at_once(fake_cloud, maker):
    with fake_cloud.faults({"kind": "capacity", "times": 0}), pytest.raises(CapacityMissing):
        maker.instance()


def test_an_instance_is_as_it_was_asked_for(fake_cloud, maker):
    instance = instances.wait_running(maker.session, maker.instance())
    (group_id,) = maker.possessions("security-group")
    assert (instance.http_tokens, instance.hop_limit) == ("required", 1)
    assert instance.security_group_ids == (group_id,)
    assert instance.public_address and instance.private_address and instance.root_volume_id
    (group,) = security_groups.describe_security_groups(maker.session, group_id)
    assert group.openings == ("tcp 22 from 127.0.0.1/32",)
    assert group.outlets == ("tcp 443 to 0.0.0.0/0", "tcp 443 to ::/0"), "and not everything"
    assert instances.stop_instance(maker.session, instance.instance_id).state == "stopped"


def test_an_image_is_as_it_was_registered_and_shared_as_it_was_asked(fake_cloud, maker):
    snapshot_id = maker.written((0, os.urandom(BLOCK_SIZE)))
    image = images.wait_for_image(maker.session, maker.image(snapshot_id))
    base = base_image(maker.session)
    assert (image.imds, image.architecture, image.boot_mode) == ("v2.0", base.architecture, base.boot_mode)
    assert (image.root_device_name, image.ena, image.public) == (base.root_device_name, base.ena, False)
    assert [(disk.snapshot_id, disk.delete_on_termination) for disk in image.block_devices] == [(snapshot_id, True)]
    wanted = launch_permissions.LaunchPermissions(accounts=frozenset({CONSUMER}))
    launch_permissions.set_launch_permissions(maker.session, image.image_id, wanted)
    assert launch_permissions.read_launch_permissions(maker.session, image.image_id) == wanted
    snapshots.change_snapshot_permissions(maker.session, snapshot_id, add=[CONSUMER])
    assert snapshots.read_snapshot_permissions(maker.session, snapshot_id) == (CONSUMER,)
    launch_permissions.set_launch_permissions(maker.session, image.image_id, launch_permissions.LaunchPermissions())
    assert not launch_permissions.read_launch_permissions(maker.session, image.image_id)


def test_what_is_written_is_what_is_read(fake_cloud, maker):
    first, second = os.urandom(BLOCK_SIZE), os.urandom(BLOCK_SIZE)
    blocks = SnapshotBlocks(maker.session, maker.written((0, first), (7, second)))
    assert blocks.indices() == [0, 7]
    assert list(blocks.read_many([0, 7])) == [(0, first), (7, second)]
    assert (blocks.size_bytes, blocks.block_size) == (2**30, BLOCK_SIZE)


def test_reading_survives_a_connection_that_breaks(fake_cloud, maker):
    data = os.urandom(BLOCK_SIZE)
    snapshot_id = maker.written(*((index, data) for index in range(20)))
    with fake_cloud.faults({"kind": "lost-response", "action": "GetSnapshotBlock", "times": 3}):
        assert all(found == data for _, found in SnapshotBlocks(maker.session, snapshot_id).read_many(range(20)))


def test_the_base_image_is_debian_s_and_nobody_else_s(fake_cloud):
    session = fake_cloud.open()
    name = base_image(session).name
    wanted = BaseImage(filter=ImageFilter(name=name, owner=DEBIAN_ACCOUNT))
    assert base_images.find_base_image(session, wanted).owner_id == DEBIAN_ACCOUNT
    other = BaseImage(filter=ImageFilter(name=name, owner="999999999999"))
    with pytest.raises(BaseImageRefused, match=f"{DEBIAN_ACCOUNT} are refused"):
        base_images.find_base_image(session, other)


def test_a_dry_run_makes_nothing(fake_cloud, maker):
    subnet, session = network.find_subnets(maker.session)[0], maker.session
    image_id = base_image(session).image_id
    instances.may_launch(session, maker.tags, maker.name("build"), image_id, "t3.small", subnet.subnet_id)
    keys.may_import_key_pair(session, maker.tags, maker.name("key"), PUBLIC_KEY)
    security_groups.may_create_security_group(session, maker.tags, maker.name("ssh"), subnet.vpc_id)
    assert not [one for one in inventory.list_possessions(session) if one.build_id == maker.tags.build_id]


def test_a_region_that_does_not_exist_is_refused(fake_cloud):
    with pytest.raises(CredentialsRefused, match="xx-nowhere-1"):
        network.find_subnets(fake_cloud.open("xx-nowhere-1"))


def test_expired_credentials_are_refused(fake_cloud):
    expired = {"kind": "error", "action": "GetCallerIdentity", "code": "ExpiredToken", "status": 403, "times": 0}
    with fake_cloud.faults(expired), pytest.raises(CredentialsRefused, match="ExpiredToken"):
        fake_cloud.open()


def test_a_proxy_of_the_user_s_is_not_asked_for_this_machine(fake_cloud, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    assert fake_cloud.open().account_id == fake_cloud.open().account_id


def test_no_credentials_at_all_are_refused(fake_cloud, monkeypatch, tmp_path):
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "config"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    with pytest.raises(CredentialsRefused, match="credentials"):
        open_session("us-east-1", endpoint_url=fake_cloud.endpoint)
