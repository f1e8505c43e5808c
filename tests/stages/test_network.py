"""What is read back of a network: nothing is wrong with one that was just made, and each thing that is, is found."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from pipeline.aws import instances
from pipeline.aws.instances import Instance, Launch
from pipeline.aws.session import Session
from pipeline.aws.tags import Tags, new_build_id
from pipeline.journal import Journal
from pipeline.recorder import Recorder
from pipeline.report.console import Console
from pipeline.report.evidence import Result, Status
from pipeline.spec import Instance as InstanceOptions
from pipeline.spec import Network, load_spec
from pipeline.stages.clean_up import clean_up
from pipeline.stages.context import Context
from pipeline.stages.guests import make_key
from pipeline.stages.network import Door, group_results, instance_results, open_door, route_results
from tests.fake_cloud import ROOT, FakeCloud, base_image, fake_cloud, holdings

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

PATH = ROOT / "specs" / "debian-12-local.yaml"
PRIVATE = {
    "create": {"cidr": "192.168.4.0/24"},
    "address": "private",
    "connect": "session-manager",
    "egress": [{"port": 443}, {"port": 123, "protocol": "udp", "to": ["198.51.100.0/24"]}],
}
EVERYTHING = [{"IpProtocol": "-1", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}]


class World:
    """A build's network with an instance in it."""

    def __init__(self, session: Session, context: Context) -> None:
        self.session, self.context = session, context
        self.door: Door = open_door(context)
        make_key(context, "key")
        launch = Launch(
            image_id=base_image(session).image_id,
            type="t3.small",
            key_name=context.name("key"),
            security_group_ids=self.door.security_group_ids,
            subnet_ids=self.door.subnet_ids,
            public_address=False,
            protected=True,
        )
        name = context.name("instance")
        self.instance_id = context.journal.create(
            "instance",
            name,
            context.region,
            lambda: instances.launch_instance(session, context.tags, name, launch),
            lambda identity: instances.terminate_instance(session, identity),
        )
        instances.wait_running(session, self.instance_id)

    @property
    def made(self) -> Any:
        return self.door.made

    @property
    def ec2(self) -> Any:
        return self.session.client("ec2")

    @property
    def instance(self) -> Instance:
        return instances.describe_instance(self.session, self.instance_id)

    def results(self) -> tuple[Result, ...]:
        instance = self.instance
        return (
            *group_results(self.context, self.door),
            *route_results(self.context, self.door, instance),
            *instance_results(self.context, instance),
        )


@pytest.fixture(scope="module")
def world(fake_cloud: FakeCloud, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    session = fake_cloud.open()
    before = holdings(session)
    builds = tmp_path_factory.mktemp("builds")
    spec = load_spec(PATH).model_copy(
        update={
            "network": Network.model_validate(PRIVATE),
            "instance": InstanceOptions(termination_protection=True),
        }
    )
    build_id = new_build_id(datetime.now(UTC))
    tags = Tags(build_id, "sha256:00", session.caller_arn, datetime.now(UTC) + timedelta(hours=1))
    recorder = Recorder(
        builds / build_id, Console(quiet=True), build_id=build_id, spec_name="x", spec_digest="x", region=session.region
    )
    with Journal(builds / build_id / "journal.jsonl", build_id, session.cloud) as journal:
        context = Context(spec, PATH, builds, session, tags, journal, recorder)
        yield World(session, context)
        clean_up(context)
    gone = {result.controls[0]: result.status for result in recorder.evidence().results}
    assert gone == {"A14": Status.PASS, "A06": Status.PASS}
    assert holdings(session) == before, "the protected instance too"


def failed(world: World) -> set[str]:
    return {result.controls[0] for result in world.results() if result.status.is_failure}


def test_a_network_that_was_just_made_is_as_declared(world: World) -> None:
    results = world.results()
    assert [result for result in results if result.status is not Status.PASS] == []
    assert {result.controls[0] for result in results} == {"A02", "A03", "A04", "A05", "A06", "A07", "A21"}
    assert world.instance.private_address.startswith("192.168.4.")  # type: ignore[union-attr]


def open_to_the_world(world: World) -> Callable[[], object]:
    rule = {"GroupId": world.door.groups[0].group_id, "IpPermissions": EVERYTHING}
    world.ec2.authorize_security_group_ingress(**rule)
    return lambda: world.ec2.revoke_security_group_ingress(**rule)


def let_everything_out(world: World) -> Callable[[], object]:
    rule = {"GroupId": world.door.groups[0].group_id, "IpPermissions": EVERYTHING}
    world.ec2.authorize_security_group_egress(**rule)
    return lambda: world.ec2.revoke_security_group_egress(**rule)


def lead_elsewhere(world: World) -> Callable[[], object]:
    table = {"RouteTableId": world.made.private_table_id, "DestinationCidrBlock": "0.0.0.0/0"}
    world.ec2.replace_route(**table, GatewayId=world.made.gateway_id)
    return lambda: world.ec2.replace_route(**table, NatGatewayId=world.made.nat_id)


def open_the_access_list(world: World) -> Callable[[], object]:
    filters = [{"Name": "association.subnet-id", "Values": [world.made.private_subnet_id]}]
    (acl,) = world.ec2.describe_network_acls(Filters=filters)["NetworkAcls"]
    entry = {"NetworkAclId": acl["NetworkAclId"], "RuleNumber": 1, "Egress": False}
    world.ec2.create_network_acl_entry(**entry, Protocol="-1", RuleAction="allow", CidrBlock="0.0.0.0/0")
    return lambda: world.ec2.delete_network_acl_entry(**entry)


def forward(world: World) -> Callable[[], object]:
    def switch(on: bool) -> object:
        return world.ec2.modify_instance_attribute(InstanceId=world.instance_id, SourceDestCheck={"Value": on})

    switch(False)
    return lambda: switch(True)


def untag(world: World) -> Callable[[], object]:
    (volume_id,) = (part for part in world.instance.parts if part.startswith("vol-"))
    tag = {"Key": "assay:build-id", "Value": world.context.build_id}
    world.ec2.delete_tags(Resources=[volume_id], Tags=[tag])
    return lambda: world.ec2.create_tags(Resources=[volume_id], Tags=[tag])


def outlive(world: World) -> Callable[[], object]:
    def keep(keeping: bool) -> object:
        disk = {"DeviceName": world.instance.root_device_name, "Ebs": {"DeleteOnTermination": not keeping}}
        return world.ec2.modify_instance_attribute(InstanceId=world.instance_id, BlockDeviceMappings=[disk])

    keep(True)
    return lambda: keep(False)


@pytest.mark.parametrize(
    ("plant", "control"),
    [
        (open_to_the_world, "A02"),
        (let_everything_out, "A03"),
        (lead_elsewhere, "A04"),
        (open_the_access_list, "A04"),
        (forward, "A05"),
        (untag, "A07"),
        (outlive, "A07"),
    ],
)
def test_each_thing_that_is_not_as_declared_is_found(
    world: World, plant: Callable[[World], Callable[[], object]], control: str
) -> None:
    take_away = plant(world)
    try:
        assert failed(world) == {control}
    finally:
        take_away()
    assert failed(world) == set()


def test_a_group_of_somebody_is_asked_for_ssh_from_everywhere(world: World) -> None:
    door = Door(world.door.security_group_ids, world.door.subnet_ids)
    statuses = {result.controls[0]: result.status for result in group_results(world.context, door)}
    assert statuses == {"A02": Status.PASS, "A03": Status.NOT_APPLICABLE}
    take_away = open_to_the_world(world)
    try:
        statuses = {result.controls[0]: result.status for result in group_results(world.context, door)}
    finally:
        take_away()
    assert statuses["A02"] is Status.FAIL


def test_an_instance_that_is_not_protected_is_found_and_ends(world: World) -> None:
    """The last one: the instance is gone after it."""
    world.ec2.modify_instance_attribute(InstanceId=world.instance_id, DisableApiTermination={"Value": False})
    assert failed(world) == {"A07"}
