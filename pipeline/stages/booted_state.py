"""A part of the proof of a fresh boot: which ports listen, and how the kernel is set, kept for comparisons."""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from pipeline.guest.root_shell import Output
from pipeline.stages.context import Context

FILE = "booted-state.json"
QUESTION = r"""
ss -Hlntu | awk '{ print "port " $1 " " $5 }'
sysctl -a 2>/dev/null | sed 's/^/set /'
true
"""
VOLATILE = re.compile(
    r"fs\.(dentry-state|file-nr|inode-(nr|state)|aio-nr|quota\..*|nr_open_.*)|kernel\.(random\..*|ns_last_pid|pty\.nr|hostname"
    r"|core_uses.*|sched_domain\..*|perf_event_max_sample_rate)|dev\.cdrom\..*|vm\.(stat_.*|.*_kbytes)"
    r"|net\.netfilter\..*|net\.ipv[46]\.(conf|neigh)\.(?!all\.|default\.).*|sunrpc\..*"
)
"""Settings that differ from boot to boot, or that are figures and no settings."""


@dataclass(frozen=True)
class BootedState:
    """What a fresh boot of an image shows."""

    ports: Mapping[str, str]
    """By port and protocol: the addresses that listen, or the interface where that is named: its address may change."""
    kernel_settings: Mapping[str, str]


def write_state(context: Context, run: Callable[[str], Output]) -> None:
    """Ask a fresh boot, with one command as root, and write what it says into the build's folder."""
    context.recorder.save(FILE, json.dumps(asdict(parse_state(run(QUESTION).stdout)), indent=1, sort_keys=True))


def parse_state(text: str) -> BootedState:
    """Return what a guest answered to `QUESTION`; lines that make no sense are passed over."""
    ports: dict[str, list[str]] = {}
    settings: dict[str, str] = {}
    for line in text.splitlines():
        match line.split(" ", 2):
            case ["port", protocol, address]:
                place, _, port = address.rpartition(":")
                ports.setdefault(f"{port}/{protocol}", []).append(place.partition("%")[2] or place)
            case ["set", name, rest] if rest.startswith("=") and not VOLATILE.fullmatch(name):
                settings[name] = " ".join(rest[1:].split())
    return BootedState({port: ", ".join(sorted(set(places))) for port, places in ports.items()}, settings)


def read_state(folder: Path) -> BootedState | None:
    """Return what a build's folder holds of it; None where there is none, or none that can be read."""
    try:
        document = json.loads((folder / FILE).read_text())
        return BootedState(dict(document["ports"]), dict(document["kernel_settings"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
