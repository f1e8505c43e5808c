"""VPCs: what hangs on what, and what is refused while it does.

moto has the calls. It lets things go that others use, keeps associations of what is gone, and ignores filters on tags
of NAT gateways. routing.py says which way packets go.
"""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

from collections.abc import Callable
from typing import Any

from moto.core.responses import ActionResult

from pipeline.localcloud.instances import InstanceHandlers, LocalInstance
from pipeline.localcloud.listing import passes
from pipeline.localcloud.refusals import Refused, required
from pipeline.localcloud.routing import RoutingBackend

NAT_FILTERS: dict[str, Callable[[Any], Any]] = {
    "nat-gateway-id": lambda gateway: gateway.id,
    "state": lambda gateway: gateway.state,
    "subnet-id": lambda gateway: gateway.subnet_id,
    "vpc-id": lambda gateway: gateway.vpc_id,
}


def in_use(identity: str) -> Refused:
    """Return the refusal for a thing that something else uses."""
    return Refused("DependencyViolation", f"{identity} has dependencies and cannot be deleted.")


class VpcBackend(RoutingBackend):
    """The networks of one account in one region."""

    def delete_subnet(self, subnet_id: str) -> Any:
        """Delete a subnet in which nothing is left, and what ties it to a route table and an access list."""
        subnet = self.get_subnet(subnet_id)
        if any(interface.subnet.id == subnet_id for interface in self.enis.values()):
            raise in_use(subnet_id)
        for table in self.route_tables.values():
            drop(table._associations, lambda target: target == subnet_id)
        for acl in self.network_acls.values():
            drop(acl._associations, lambda association: association.subnet_id == subnet_id)
        super().delete_subnet(subnet_id)
        return subnet

    def delete_vpc(self, vpc_id: str) -> Any:
        """Delete a VPC, and the access list that came with it."""
        deleted = super().delete_vpc(vpc_id)
        for acl in [acl for acl in self.network_acls.values() if acl.vpc_id == vpc_id]:
            del self.network_acls[acl.id]
        return deleted

    def delete_nat_gateway(self, nat_gateway_id: str) -> Any:
        """Delete a NAT gateway: its interface goes, and its address is free again."""
        if nat_gateway_id not in self.nat_gateways:
            raise Refused("NatGatewayNotFound", f"The Nat Gateway {nat_gateway_id} was not found")
        gateway = super().delete_nat_gateway(nat_gateway_id)
        self.free_addresses(gateway._eni.id)
        self.enis.pop(gateway._eni.id, None)
        return gateway

    def free_addresses(self, interface_id: str) -> None:
        """Take the elastic addresses from an interface that goes."""
        for address in self.addresses:
            if address.eni is not None and address.eni.id == interface_id:
                address.eni = address.instance = address.association_id = None

    def release_address(self, address: str | None = None, allocation_id: str | None = None) -> None:
        """Release an elastic address that nothing bears."""
        (found,) = self.address_by_ip([address]) if address else self.address_by_allocation([allocation_id or ""])
        if found.association_id:
            message = f"Address {found.public_ip} is in use."
            raise Refused("InvalidIPAddress.InUse", message)
        super().release_address(address, allocation_id)
        self.machines.addresses.release(found.public_ip)

    def release(self, instance: LocalInstance) -> None:
        """Take the elastic addresses too from an instance that has ended."""
        for interface in instance.nics.values():
            self.free_addresses(interface.id)
        super().release(instance)

    def delete_security_group(self, name: str | None = None, group_id: str | None = None) -> None:
        """Delete a group that no rule of its VPC names; beyond a peering a stale rule is left."""
        group = self.get_security_group_by_name_or_id(group_id or name or "")
        named = {
            rule.source_group.get("GroupId")
            for other in self.describe_security_groups()
            if group and other.id != group.id and other.vpc_id == group.vpc_id
            for rule in (*other.ingress_rules, *other.egress_rules)
            if rule.source_group
        }
        if group and group.id in named:
            raise Refused("DependencyViolation", f"resource {group.id} has a dependent object")
        super().delete_security_group(name, group_id)


def drop(associations: dict[str, Any], chosen: Callable[[Any], bool]) -> None:
    """Take away the associations that are chosen."""
    for key in [key for key, value in associations.items() if chosen(value)]:
        del associations[key]


class VpcHandlers(InstanceHandlers):
    """Answers the actions on networks that moto answers otherwise."""

    def describe_nat_gateways(self) -> ActionResult:
        """DescribeNatGateways, with all of its filters."""
        wanted = self.params.get("NatGatewayIds") or []
        gateways = self.ec2_backend.nat_gateways
        for identity in wanted:
            if identity not in gateways:
                raise Refused("NatGatewayNotFound", f"The Nat Gateway {identity} was not found")
        found = [
            gateway
            for gateway in gateways.values()
            if (not wanted or gateway.id in wanted)
            and passes(self.filters(), gateway, NAT_FILTERS, {tag["key"]: tag["value"] for tag in gateway.get_tags()})
        ]
        return ActionResult({"NatGateways": found})

    def delete_nat_gateway(self) -> ActionResult:
        """DeleteNatGateway."""
        required(self.params, "NatGatewayId")
        return super().delete_nat_gateway()
