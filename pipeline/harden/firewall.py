"""The host firewall (H20; seed [1], CIS): nothing comes in but ssh and the ports that the spec says are served."""

import ipaddress
from collections.abc import Iterable, Iterator

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.nftables import load_table, table_file
from pipeline.spec import FirewallOptions, Spec

TABLE = "assay_firewall"


def steps(facts: Facts, spec: Spec, options: FirewallOptions) -> tuple[Step, ...]:
    """Return the step that loads the firewall. It belongs at the end: whoever was locked out could not go on.

    It refuses on the guest when sshd listens on a port that it would close.
    """
    ports = " ".join(map(str, ssh_ports(spec)))
    guard = assign(ssh_ports=ports) + (SEE_SSH if facts.sshd_path else "")
    title = f"host firewall: drops what comes in, except for {describe_ports(spec)}"
    return (load_table(facts, Step("firewall", ("H20",), title, guard), TABLE, chains(spec, options)),)


def rollback_command() -> str:
    """Return the command that takes the firewall away, should a second login have been refused (H07)."""
    return f"nft delete table inet {TABLE} 2>/dev/null; rm -f {table_file(TABLE, '').path}"


def ssh_ports(spec: Spec) -> tuple[int, ...]:
    """Return the ports of ssh: the image's, and the one that the build comes in by until then."""
    image = {spec.harden.sshd.port} if spec.harden.sshd else set()
    return tuple(sorted({spec.ssh.port} | image))


def describe_ports(spec: Spec) -> str:
    """Return what is let in, for people."""
    return ", ".join(["ssh", *(f"{one.port}/{one.protocol}" for one in spec.harden.listen)])


def chains(spec: Spec, options: FirewallOptions) -> str:
    """Return the chains of the table. What the kernel itself needs is let in: neighbours, errors, addresses."""
    ping = ("icmp type echo-request accept", "icmpv6 type echo-request accept") if options.answer_ping else ()
    rules = (
        "ct state established,related accept",
        "ct state invalid drop",
        'iif "lo" accept',
        "ip saddr 127.0.0.0/8 drop",
        "ip6 saddr ::1 drop",
        "icmp type { destination-unreachable, time-exceeded, parameter-problem } accept",
        "icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept",
        "icmpv6 type { nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept",
        "udp sport 67 udp dport 68 accept",
        "ip6 saddr fe80::/10 udp sport 547 udp dport 546 accept",
        *ping,
        *(rule for port in ssh_ports(spec) for rule in accept_rules("tcp", port, options.ssh_sources)),
        *(rule for one in spec.harden.listen for rule in accept_rules(one.protocol, one.port, one.sources)),
    )
    forward = () if options.forward else (chain("forward", ()),)
    return "".join((chain("input", rules), *forward))


def accept_rules(protocol: str, port: int, sources: Iterable[str]) -> Iterator[str]:
    """Yield the rules that let a port in, one for each family of addresses where sources are given."""
    networks = [ipaddress.ip_network(source) for source in sources]
    if not networks:
        yield f"{protocol} dport {port} accept"
    for version, word in ((4, "ip"), (6, "ip6")):
        ranges = sorted(map(str, (network for network in networks if network.version == version)))
        if ranges:
            yield f"{word} saddr {{ {', '.join(ranges)} }} {protocol} dport {port} accept"


def chain(hook: str, rules: Iterable[str]) -> str:
    """Return a base chain that drops what none of its rules accepts."""
    lines = (f"type filter hook {hook} priority filter; policy drop;", *rules)
    return f"\tchain {hook} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


SEE_SSH = """
[ -d /run/sshd ] || install -d -m 755 /run/sshd
for port in $(sshd -T -C user=root,host=client.invalid,addr=192.0.2.1 | sed -n 's/^port //p'); do
    case " $ssh_ports " in
    *" $port "*) ;;
    *) echo "sshd listens on port $port, which the firewall would close: name it in ssh.port"; exit 1 ;;
    esac
done
"""
