"""What one boot of an instance proves besides the checks: what the console shows, and what a later boot must keep."""

import re
from collections.abc import Callable

from pipeline.guest.root_shell import Output
from pipeline.report.evidence import Layer, Result, Status

ESCAPES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])|[\x00-\x08\x0b-\x1f\x7f]")
FAILED_UNIT = re.compile(r"\[\s*(?:FAILED|DEPEND)\s*\]\s*(?P<what>.+)")
TROUBLE = re.compile(
    r"Kernel panic|\bOops:|Out of memory: Kill|You are in (?:emergency|rescue) mode|Give root password for maintenance"
    r"|EXT4-fs error|XFS .*(?:Corruption|corruption)|I/O error, dev (?!fd)|Traceback \(most recent call last\)"
    r"|GRUB rescue|no bootable device",
    re.IGNORECASE,
)
FINGERPRINTS = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")
HOST_KEYS_SHOWN = "the console shows the fingerprints of the host keys"
WHAT_STAYS = r"""
echo "boot_id $(cat /proc/sys/kernel/random/boot_id)"
echo "machine_id $(cat /etc/machine-id)"
echo "host_keys $(cat /etc/ssh/ssh_host_*_key.pub | sha256sum | cut -c 1-64)"
echo "root_password $(getent shadow root | cut -d : -f 2 | sha256sum | cut -c 1-64)"
echo "authorized_keys $(getent passwd | cut -d : -f 6 | sort -u | while read -r home; do
  cat "$home/.ssh/authorized_keys" 2>/dev/null; done | sha256sum | cut -c 1-64)"
"""
LONGEST_LINE = 200
MOST_LINES = 20


def read_what_stays(run: Callable[[str], Output]) -> dict[str, str]:
    """Return what a later boot must not change, as facts for its checks (H13, H15, H29, S01, S12); digests of secrets.

    Raises GuestUnreachable.
    """
    lines = run(WHAT_STAYS).stdout.splitlines()
    return {f"earlier_{name}": value for name, _, value in (line.partition(" ") for line in lines)}


def prove_console(console: str, first: bool = True) -> tuple[Result, ...]:
    """Return what the console log proves: no unit failed, nothing broke, and the host keys were shown (H08, H29).

    Host keys are shown when they are made: at the first boot.
    """
    lines = clean_console(console).splitlines()
    failed = [match["what"].strip() for line in lines if (match := FAILED_UNIT.search(line))]
    trouble = [line.strip() for line in lines if TROUBLE.search(line)]
    fingerprints = [] if FINGERPRINTS.search("\n".join(lines)) else ["no SHA256 fingerprint of a host key"]
    return (
        console_result(console, "failed_units", ("H29",), "the console shows no failed unit", failed),
        console_result(console, "trouble", ("H29",), "the console shows no panic, damage or traceback", trouble),
        *([console_result(console, "host_keys", ("H08",), HOST_KEYS_SHOWN, fingerprints)] if first else []),
    )


def console_result(console: str, name: str, controls: tuple[str, ...], title: str, problems: list[str]) -> Result:
    """Return one result about the console; an empty console proves nothing."""
    status = Status.FAIL if problems else Status.PASS
    detail = "; ".join(problem[:LONGEST_LINE] for problem in problems[:MOST_LINES])
    if not console.strip():
        status, detail = Status.UNREACHABLE, "the console is empty"
    return Result(
        controls=controls,
        layer=Layer.FRESH_BOOT,
        status=status,
        title=title,
        source=f"verify/fresh_boot::console[{name}]",
        detail=detail,
    )


def clean_console(console: str) -> str:
    """Return the console as plain text: no colours, no cursor movements, no control characters."""
    return ESCAPES.sub("", console.replace("\r\n", "\n").replace("\r", "\n"))
