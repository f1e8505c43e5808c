"""Which way a packet goes in VPCs that are made through the API."""

import struct
from collections.abc import Iterator
from typing import Any

import pytest

from pipeline.localcloud.instances import LocalInstance
from pipeline.localcloud.traffic import ICMP, TCP, UDP, Packet
from pipeline.localcloud.wire import OUT, Way
from tests.localcloud.clouds import REGION, LocalCloud, instance_of, launch, refused, running, state_of, wait_for

pytestmark = [pytest.mark.loopback, pytest.mark.subprocess]

WEB = "198.51.100.7"
ROUTER, METADATA, RESOLVER = "172.30.0.1", "169.254.169.254", "169.254.169.253"
WORLD = [{"CidrIp": "0.0.0.0/0"}]


class Network:
    """A VPC with a gate in its public subnet and a guest in its private one, as a private build makes it."""

    def __init__(self, local_cloud: LocalCloud) -> None:
        self.cloud, ec2 = local_cloud, local_cloud.client("ec2")
        self.ec2 = ec2
        self.vpc = ec2.create_vpc(CidrBlock="172.30.0.0/24")["Vpc"]["VpcId"]
        self.subnets = [
            ec2.create_subnet(VpcId=self.vpc, CidrBlock=half)["Subnet"]["SubnetId"]
            for half in ("172.30.0.0/25", "172.30.0.128/25")
        ]
        gateway = ec2.create_internet_gateway()["InternetGateway"]["InternetGatewayId"]
        ec2.attach_internet_gateway(InternetGatewayId=gateway, VpcId=self.vpc)
        self.tables = [ec2.create_route_table(VpcId=self.vpc)["RouteTable"]["RouteTableId"] for _ in self.subnets]
        for table, subnet in zip(self.tables, self.subnets, strict=True):
            ec2.associate_route_table(RouteTableId=table, SubnetId=subnet)
        ec2.create_route(RouteTableId=self.tables[0], DestinationCidrBlock="0.0.0.0/0", GatewayId=gateway)
        self.public, self.private = (self.group(name) for name in ("public", "private"))
        self.gate = self.launch(self.subnets[0], self.public, "172.30.0.10", public=True)
        self.guest = self.launch(self.subnets[1], self.private, "172.30.0.140", public=False)

    def group(self, name: str) -> str:
        return str(self.ec2.create_security_group(GroupName=name, Description=name, VpcId=self.vpc)["GroupId"])

    def launch(self, subnet: str, group: str, address: str, *, public: bool) -> str:
        card = {"DeviceIndex": 0, "SubnetId": subnet, "Groups": [group], "AssociatePublicIpAddress": public}
        card["PrivateIpAddress"] = address
        return launch(self.ec2, NetworkInterfaces=[card])

    def address(self, instance_id: str) -> str:
        return str(instance_of(self.ec2, instance_id)["PrivateIpAddress"])

    def admit(self, group: str, first: int, last: int, protocol: str = "tcp", **peer: object) -> None:
        rule = {"IpProtocol": protocol, "FromPort": first, "ToPort": last, **peer}
        self.ec2.authorize_security_group_ingress(GroupId=group, IpPermissions=[rule])

    def nat(self) -> None:
        """Make the gate the NAT of the private subnet."""
        self.ec2.modify_instance_attribute(InstanceId=self.gate, SourceDestCheck={"Value": False})
        self.lead_out(InstanceId=self.gate)

    def lead_out(self, **target: str) -> None:
        self.ec2.create_route(RouteTableId=self.tables[1], DestinationCidrBlock="0.0.0.0/0", **target)

    def backend(self) -> Any:
        from moto.ec2.models import ec2_backends

        return ec2_backends["123456789012"][REGION]

    def way(
        self, instance_id: str, target: str, port: int = 443, protocol: int = TCP, source: str | None = None
    ) -> Way:
        """Return where a packet goes that opens a connection."""
        instance: LocalInstance = self.backend().one_instance(instance_id)
        payload = struct.pack("!HH", 40000, port) if protocol != ICMP else b"\x08\0\0\0"
        packet = Packet(True, protocol, source or str(instance.private_ip), target, payload)
        return self.backend().choose_way(instance, packet)  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with running(tmp_path_factory.mktemp("cloud")) as started:
        yield started


@pytest.fixture
def network(cloud: LocalCloud) -> Network:
    """A network of the test's own."""
    return Network(cloud)


def test_the_network_s_own_services_are_always_reached(network: Network) -> None:
    assert {network.way(network.guest, address) for address in (ROUTER, METADATA, RESOLVER)} == {OUT}


def test_a_neighbour_is_found_by_its_address_in_the_same_vpc_alone(network: Network) -> None:
    backend = network.backend()
    guest = backend.one_instance(network.guest)
    assert backend.find_neighbour(guest, network.address(network.gate)) == network.gate
    assert backend.find_neighbour(guest, network.address(network.guest)) is None
    twin = Network(network.cloud)
    assert twin.address(twin.gate) == network.address(network.gate)
    assert backend.find_neighbour(backend.one_instance(twin.guest), twin.address(twin.gate)) == twin.gate
    assert backend.find_neighbour(guest, network.address(network.gate)) == network.gate, "each in its own VPC"
    stranger = launch(network.ec2)
    assert backend.find_neighbour(guest, network.address(stranger)) is None
    gate_address = network.address(network.gate)
    network.ec2.terminate_instances(InstanceIds=[network.gate])
    wait_for(lambda: state_of(network.ec2, network.gate), "terminated")
    assert backend.find_neighbour(guest, gate_address) is None


def test_a_neighbour_is_reached_where_its_groups_admit_the_sender_s_group(network: Network) -> None:
    guest = network.address(network.guest)
    assert network.way(network.gate, guest, 22) is None
    network.admit(network.private, 22, 22, UserIdGroupPairs=[{"GroupId": network.public}])
    assert network.way(network.gate, guest, 22) == network.guest
    assert network.way(network.gate, guest, 23) is None
    assert network.way(network.gate, guest, 22, UDP) is None
    assert network.way(network.guest, network.address(network.gate), 22) is None, "the other way is another rule"


def test_a_neighbour_is_reached_where_its_groups_admit_the_sender_s_network(network: Network) -> None:
    guest = network.address(network.guest)
    network.admit(network.private, 0, 65535, IpRanges=[{"CidrIp": "172.30.0.128/25"}])
    assert network.way(network.gate, guest, 22) is None
    network.admit(network.private, -1, -1, "icmp", IpRanges=[{"CidrIp": "172.30.0.0/25"}])
    assert network.way(network.gate, guest, 22) is None
    assert network.way(network.gate, guest, protocol=ICMP) == network.guest
    network.admit(network.private, -1, -1, "-1", IpRanges=[{"CidrIp": "172.30.0.0/25"}])
    assert network.way(network.gate, guest, 22, UDP) == network.guest


def test_what_a_group_does_not_let_out_stays_in(network: Network) -> None:
    network.admit(network.private, 22, 22, IpRanges=WORLD)
    every = {"IpProtocol": "-1", "IpRanges": WORLD}
    network.ec2.revoke_security_group_egress(GroupId=network.public, IpPermissions=[every])
    assert network.way(network.gate, network.address(network.guest), 22) is None


def test_only_what_a_group_lets_out_reaches_the_world(network: Network) -> None:
    every = {"IpProtocol": "-1", "IpRanges": WORLD}
    some = {"IpProtocol": "tcp", "FromPort": 443, "ToPort": 443, "IpRanges": [{"CidrIp": "198.51.100.0/24"}]}
    network.ec2.revoke_security_group_egress(GroupId=network.public, IpPermissions=[every])
    assert network.way(network.gate, WEB) is None
    network.ec2.authorize_security_group_egress(GroupId=network.public, IpPermissions=[some])
    assert network.way(network.gate, WEB) == OUT
    assert network.way(network.gate, WEB, 80) is None
    assert network.way(network.gate, WEB, protocol=UDP) is None
    assert network.way(network.gate, "203.0.113.7") is None
    assert network.way(network.gate, RESOLVER, 53, UDP) == OUT, "the network's own services are in no rule"


def test_an_instance_without_a_public_address_goes_out_through_a_nat_or_not_at_all(network: Network) -> None:
    assert network.way(network.gate, WEB) == OUT
    assert network.way(network.guest, WEB) is None
    network.admit(network.public, 443, 443, UserIdGroupPairs=[{"GroupId": network.private}])
    network.nat()
    assert network.way(network.guest, WEB) == network.gate
    assert network.way(network.guest, WEB, 80) is None, "the NAT's group admits 443 alone"
    network.ec2.modify_instance_attribute(InstanceId=network.gate, SourceDestCheck={"Value": True})
    assert network.way(network.guest, WEB) is None, "it drops what is not for it"
    network.ec2.stop_instances(InstanceIds=[network.gate])
    wait_for(lambda: state_of(network.ec2, network.gate), "stopped")
    assert network.way(network.guest, WEB) is None


def test_a_nat_gateway_leads_out_while_it_is_there(network: Network) -> None:
    address = network.ec2.allocate_address(Domain="vpc")
    made = network.ec2.create_nat_gateway(SubnetId=network.subnets[0], AllocationId=address["AllocationId"])
    gateway_id = made["NatGateway"]["NatGatewayId"]
    network.lead_out(NatGatewayId=gateway_id)
    assert network.way(network.guest, WEB) == OUT
    network.ec2.delete_nat_gateway(NatGatewayId=gateway_id)
    assert network.way(network.guest, WEB) is None


def test_nobody_sends_under_another_s_address_unless_its_check_is_off(network: Network) -> None:
    network.admit(network.private, 22, 22, IpRanges=WORLD)
    guest = network.address(network.guest)
    assert network.way(network.gate, guest, 22, source=WEB) is None
    network.ec2.modify_instance_attribute(InstanceId=network.gate, SourceDestCheck={"Value": False})
    assert network.way(network.gate, guest, 22, source=WEB) == network.guest
    assert network.way(network.gate, WEB, source="172.30.0.200") is None, "no public address is its own"


def test_an_elastic_address_is_this_host_s_and_stays_with_its_instance(network: Network) -> None:
    ec2, gate = network.ec2, network.gate
    before = instance_of(ec2, gate)["PublicIpAddress"]
    address = ec2.allocate_address(Domain="vpc")
    assert address["PublicIp"].startswith("127.") and address["PublicIp"] != before
    made = ec2.associate_address(InstanceId=gate, AllocationId=address["AllocationId"])
    assert instance_of(ec2, gate)["PublicIpAddress"] == address["PublicIp"]
    assert network.cloud.cloud.machines.addresses.reserve(before), "the one of before is free"
    ec2.stop_instances(InstanceIds=[gate])
    wait_for(lambda: state_of(ec2, gate), "stopped")
    ec2.start_instances(InstanceIds=[gate])
    wait_for(lambda: state_of(ec2, gate), "running")
    assert instance_of(ec2, gate)["PublicIpAddress"] == address["PublicIp"]
    refused("InvalidIPAddress.InUse", lambda: ec2.release_address(AllocationId=address["AllocationId"]))
    ec2.disassociate_address(AssociationId=made["AssociationId"])
    after = instance_of(ec2, gate)["PublicIpAddress"]
    assert after.startswith("127.") and after != address["PublicIp"]
    ec2.release_address(AllocationId=address["AllocationId"])
    assert network.cloud.cloud.machines.addresses.reserve(address["PublicIp"])


def test_an_elastic_address_outlives_a_restart(tmp_path: Any) -> None:
    with running(tmp_path) as first:
        network = Network(first)
        address = network.ec2.allocate_address(Domain="vpc")
        network.ec2.associate_address(InstanceId=network.gate, AllocationId=address["AllocationId"])
    with running(tmp_path) as second:
        assert not second.cloud.machines.addresses.reserve(address["PublicIp"])
        assert instance_of(second.client("ec2"), network.gate)["PublicIpAddress"] == address["PublicIp"]
