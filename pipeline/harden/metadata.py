"""The metadata service (H21; seed [4]): for root only, so that no service can be talked into giving it away."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden.managed_file import ManagedFile
from pipeline.harden.nftables import load_table
from pipeline.harden.unit import enable_unit, unit_file
from pipeline.spec import MetadataOptions

TABLE = "assay_metadata"
ADDRESSES = {"ip": "169.254.169.254", "ip6": "fd00:ec2::254"}
"""Of the metadata service, by nftables' name of the protocol (EC2 guide, instance metadata)."""

UNIT = "assay-metadata.service"


def steps(facts: Facts, options: MetadataOptions) -> tuple[Step, ...]:
    """Return the step that closes the metadata service.

    cloud-init and our own units are root's: the launch key still arrives at boot (H15).
    """
    if options.reachable == "while-booting":
        return (close_after_boot(facts),)
    people = ", ".join(("root", *options.users))
    step = Step("metadata", ("H21",), f"metadata service: for {people} only", "")
    return (load_table(facts, step, TABLE, chains(options.users)),)


def chains(users: tuple[str, ...]) -> str:
    """Return the chains of the table.

    The owner decides about new connections only: the last packets of a socket that was closed have no owner any more.
    What is forwarded comes from a container or a virtual machine, and is nobody's who is known here.
    """
    owners = ", ".join(dict.fromkeys(("root", *users)))
    choose = "".join(f"\t\t{family} daddr {address} goto owner\n" for family, address in ADDRESSES.items())
    drop = "".join(f"\t\t{family} daddr {address} drop\n" for family, address in ADDRESSES.items())
    return (
        "\tchain output {\n\t\ttype filter hook output priority filter; policy accept;\n" + choose + "\t}\n"
        "\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n" + drop + "\t}\n"
        "\tchain owner {\n\t\tct state established,related accept\n"
        f"\t\tmeta skuid {{ {owners} }} accept\n\t\treject\n\t}}\n"
    )


def route_unit(target: str) -> ManagedFile:
    """Return the unit of the blackhole route, which a target wants."""
    text = f"""# Written by Assay (H21).
[Unit]
Description=Nobody reaches the metadata service after the boot
After=network-online.target cloud-config.service cloud-final.service

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh -c 'ip route replace blackhole {ADDRESSES["ip"]}/32'
ExecStart=-/bin/sh -c 'ip -6 route replace blackhole {ADDRESSES["ip6"]}/128'

[Install]
WantedBy={target}
"""
    return unit_file(UNIT, text)


def close_after_boot(facts: Facts) -> Step:
    """Return the step that installs the unit of the blackhole route; it acts from the next boot on.

    cloud-final comes after multi-user.target: a unit that this target wants could not come after cloud-final.
    """
    target = "cloud-init.target" if facts.cloud_init else "multi-user.target"
    title = "metadata service: for nobody once an instance is up"
    return enable_unit("metadata", ("H21",), title, UNIT, (route_unit(target),))
