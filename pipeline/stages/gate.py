"""Stage 1, the gate: a host of the build's own before its guests, where the spec wants one: bastion, NAT, or both."""

from dataclasses import replace

from pipeline.aws import vpcs
from pipeline.aws.instances import Launch
from pipeline.guest.keys import KeyPair
from pipeline.guest.shell import DirectConnector, Login
from pipeline.spec import Bastion
from pipeline.stages.context import Context
from pipeline.stages.guests import GATE, boot_guest, load_own_key
from pipeline.stages.network import Door, route_through

FORWARD = """#cloud-config
# assay build {build_id}
packages: [nftables]
write_files:
  - path: /etc/sysctl.d/90-assay-nat.conf
    content: net.ipv4.ip_forward=1
  - path: /etc/nftables.conf
    content: |
      flush ruleset
      table ip nat {{
        chain out {{
          type nat hook postrouting priority srcnat; policy accept;
          ip saddr {cidr} ip daddr != {cidr} masquerade
        }}
      }}
runcmd:
  - [sysctl, --load, /etc/sysctl.d/90-assay-nat.conf]
  - [systemctl, enable, --now, nftables]
  - [systemctl, restart, nftables]
"""
"""What makes a Linux with nftables a NAT. Nothing of it is secret (A21)."""


def open_gate(context: Context, door: Door, image_id: str, key_pair: KeyPair, key_name: str, user: str) -> Door:
    """Return the door that leads through the bastion of the spec, or through a gate, where one is needed (A04-A06).

    A gate is launched in the public subnet from the same image as the guest behind it, and removed with it. Raises as
    `boot_guest`, and SpecInvalid for a key of the bastion that others may read.
    """
    wanted = context.spec.network
    if wanted.bastion:
        return door if door.bastion else replace(door, bastion=log_in_at(wanted.bastion))
    if not wanted.makes_gate or not (door.made and door.gate and wanted.create):
        return door
    if door.bastion or (wanted.makes_nat == "instance" and door.made.nat_id):
        return door  # it stands already
    forwards = wanted.makes_nat == "instance"
    launch = Launch(
        image_id=image_id,
        type=context.spec.instance.type,
        other_types=context.spec.instance.types,
        key_name=key_name,
        security_group_ids=(door.gate.group_id,),
        subnet_ids=(door.made.public_subnet_id,),
        public_address=True,
        user_data=FORWARD.format(build_id=context.build_id, cidr=wanted.create.cidr) if forwards else "",
    )
    guest = boot_guest(context, GATE, launch, key_pair, user, door)
    guest.shell.close()
    address = guest.instance.public_address or ""
    if forwards:
        made = route_through(context, door.made, guest.instance.instance_id)
        door = replace(door, made=made)
        address = vpcs.describe_address(context.session, made.address_id or "").address
    if not wanted.makes_bastion:
        return door
    connector = DirectConnector(address, context.session.port_outside(context.spec.ssh.port))
    login = Login(connector, user, key_pair, guest.host_keys, guest.instance.instance_id, context.region)
    return replace(door, bastion=login)


def log_in_at(bastion: Bastion) -> Login:
    """Return how the bastion of the spec is logged in to: with its own key, and under its own host keys (H28)."""
    return Login(
        DirectConnector(bastion.host, bastion.port),
        bastion.user,
        load_own_key(bastion.key_file),
        bastion.host_keys,
        resource=bastion.host,
    )
