"""Which way packets go: between the instances of a VPC, out of it by the route tables, and what security groups stop.

An instance with a public address goes out by it, one without by the NAT that its subnet's route table names. Security
groups judge what opens a connection, to a neighbour or to the world; access lists are kept and not enforced. What a
guest asks of this host's proxy is for the network's own router, and passes. Sources: Amazon VPC User Guide, "Route
tables", "NAT instances" and "Security group connection tracking".
"""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

from collections.abc import Collection, Iterable
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from typing import Any, cast

from pipeline.localcloud.instances import LocalInstance, LocalInstanceBackend, groups_of, rule_admits
from pipeline.localcloud.machines import Reach
from pipeline.localcloud.network import LINK_LOCAL, gateway_address
from pipeline.localcloud.traffic import NAMES, Packet
from pipeline.localcloud.wire import OUT, Steering, Way


class RoutingBackend(LocalInstanceBackend):
    """The ways of packets in one account's networks in one region, and the elastic addresses."""

    def reach(self, instance: LocalInstance) -> Reach:
        """Return what is asked about an instance at each connection, with the ways of its packets."""
        steering = Steering(
            lambda address: self.find_neighbour(instance, address),
            lambda packet: self.choose_way(instance, packet),
            lambda packet: goes_too_far(packet, int(instance.metadata_options.http_put_response_hop_limit or 1)),
        )
        return replace(super().reach(instance), steering=steering)

    def find_neighbour(self, instance: LocalInstance, address: str) -> str | None:
        """Return the other running instance of the same VPC that has a private address."""
        with self.cloud.lock:
            found = self.neighbour(instance, address)
        return found.id if found else None

    def neighbour(self, instance: LocalInstance, address: str) -> LocalInstance | None:
        """Return an instance's neighbour at an address. Another VPC may have the same addresses."""
        for other in cast(list[LocalInstance], self.all_instances()):
            lives_there = other.vpc_id == instance.vpc_id and other.private_ip == address
            if lives_there and other.state in ("pending", "running") and other.id != instance.id:
                return other
        return None

    def choose_way(self, instance: LocalInstance, packet: Packet) -> Way:
        """Return where a packet of an instance goes, as routes and security groups are now."""
        target = IPv4Address(packet.target)
        if target in LINK_LOCAL or packet.target == gateway_address(str(instance.private_ip)):
            return OUT  # the network's own: metadata, resolver, router
        own = packet.source == instance.private_ip
        if not own and instance.source_dest_check:
            return None
        with self.cloud.lock:
            if target in IPv4Network(self.get_vpc(str(instance.vpc_id)).cidr_block):
                peer = self.neighbour(instance, packet.target)
            else:
                way = OUT if own and instance.public_ip else self.way_out(instance, target)
                if way == OUT:
                    return OUT if lets_out(instance, packet) else None
                peer = self.nat_instance(way) if way else None
            return peer.id if peer and admits(instance, peer, packet) else None

    def way_out(self, instance: LocalInstance, target: IPv4Address) -> Way:
        """Return where the routes of an instance's subnet lead a packet that leaves the VPC: the narrowest wins."""
        routes = [
            (IPv4Network(route.destination_cidr_block).prefixlen, route)
            for route in self.routes_of(str(instance.subnet_id), str(instance.vpc_id))
            if route.destination_cidr_block and target in IPv4Network(route.destination_cidr_block)
        ]
        if not routes:
            return None
        route = max(routes, key=lambda one: one[0])[1]
        if route.nat_gateway:
            return OUT if route.nat_gateway.state == "available" and route.nat_gateway_id in self.nat_gateways else None
        return cast(Way, route.instance_id)

    def routes_of(self, subnet_id: str, vpc_id: str) -> Iterable[Any]:
        """Return the routes of a subnet: of its own table, or of the VPC's main one."""
        tables = [table for table in self.route_tables.values() if table.vpc_id == vpc_id]
        own = [table for table in tables if subnet_id in table._associations.values()]
        main = [table for table in tables if table.main_association_id]
        return [route for table in own or main for route in table.routes]

    def nat_instance(self, instance_id: str) -> LocalInstance | None:
        """Return an instance that takes packets of others: it runs, and its check of addresses is off."""
        instance = cast(LocalInstance | None, self.get_instance_by_id(instance_id))
        return instance if instance and instance.state == "running" and not instance.source_dest_check else None

    def allocate_address(self, domain: str, address: str | None = None, tags: dict[str, str] | None = None) -> Any:
        """Allocate an elastic address: one of this host's."""
        return super().allocate_address(domain, address or self.machines.addresses.take(), tags)

    def associate_address(self, instance: LocalInstance | None = None, *others: Any, **options: Any) -> Any:
        """Give an instance, or an interface, an elastic address in place of the one that it has."""
        if instance is not None:
            self.take_address(instance)
        address = super().associate_address(instance, *others, **options)
        if instance is not None:
            self.machines.open_proxy(instance.id, address.public_ip)
        return address

    def disassociate_address(self, address: str | None = None, association_id: str | None = None) -> None:
        """Take an elastic address away; an instance that had a public address before gets another one."""
        (found,) = self.address_by_ip([address]) if address else self.address_by_association([association_id or ""])
        instance = found.instance
        super().disassociate_address(address, association_id)
        if instance is not None:
            instance.nics[0].public_ip = None
            if instance.state == "running":
                self.give_address(instance)
            self.machines.open_proxy(instance.id, instance.public_ip or "")

    def give_address(self, instance: LocalInstance) -> None:
        """Give an instance a public address, unless it has an elastic one."""
        if not self.is_elastic(instance.public_ip):
            super().give_address(instance)

    def take_address(self, instance: LocalInstance) -> None:
        """Take the public address, unless it is an elastic one: that stays until it is taken away itself."""
        if instance.nics and not self.is_elastic(instance.public_ip):
            super().take_address(instance)

    def is_elastic(self, public_address: str | None) -> bool:
        """Tell whether an address is an elastic one that is associated."""
        return any(one.public_ip == public_address and one.association_id for one in self.addresses)

    def recover_instances(self) -> None:
        """After a restart: elastic addresses are this cloud's still, and stopped instances keep theirs."""
        super().recover_instances()
        for address in self.addresses:
            self.machines.addresses.reserve(address.public_ip)
            if address.instance is not None and address.instance.nics:
                address.instance.nics[0].public_ip = address.public_ip


def goes_too_far(packet: Packet, hop_limit: int) -> bool:
    """Tell whether a request for a token comes from behind more routers than its answer may pass.

    EC2 lets the answer die on its way; here the request does, and who asked waits in vain as well. Source: Amazon EC2
    User Guide, "Configure the Instance Metadata Service options" (HttpPutResponseHopLimit).
    """
    return packet.data.startswith(b"PUT ") and packet.hops >= hop_limit


def admits(source: LocalInstance, target: LocalInstance, packet: Packet) -> bool:
    """Tell whether the security groups of both ends let a packet open a connection."""
    groups = {group.id for group in groups_of(source)}
    return lets_out(source, packet, {group.id for group in groups_of(target)}) and any(
        rule_admits(rule, *asked_for(packet), packet.source, groups)
        for group in groups_of(target)
        for rule in group.ingress_rules
    )


def lets_out(source: LocalInstance, packet: Packet, peer_groups: Collection[str] = ()) -> bool:
    """Tell whether the security groups of an instance let a packet open a connection to the world, or to a peer."""
    return any(
        rule_admits(rule, *asked_for(packet), packet.target, peer_groups)
        for group in groups_of(source)
        for rule in group.egress_rules
    )


def asked_for(packet: Packet) -> tuple[str, int]:
    """Return the protocol and the port that a packet is for, as rules name them."""
    return NAMES.get(packet.protocol, str(packet.protocol)), packet.ports[1]
