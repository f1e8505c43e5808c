"""EC2 tools that are updated at each boot, where the spec wants it and says why (H32; seed [3]).

Every boot then asks repositories over the network, which costs time and paid traffic, and what comes was not proved
with the image. Only the named packages are touched, and only by the repositories that the image has: signed ones.
"""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.managed_file import ManagedFile
from pipeline.harden.packages import APT_GET
from pipeline.harden.unit import enable_unit, unit_file
from pipeline.spec import ToolUpdates

UNIT = "assay-tool-updates.service"
SCRIPT = "/etc/assay/tool-updates/tool-updates.sh"

BY_APT = f"""{APT_GET}
apt update
apt install --only-upgrade --no-install-recommends $tools
"""

SERVICE = f"""# Written by Assay (H32).
[Unit]
Description=Update the EC2 tools of this instance
Wants=network-online.target
After=network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/sh {SCRIPT}
TimeoutStartSec=300
Nice=10

[Install]
WantedBy=multi-user.target
"""


def steps(facts: Facts, options: ToolUpdates) -> tuple[Step, ...]:
    """Return the step that installs the unit. Without systemd nothing would run it: the step says so, and fails."""
    title = f"{', '.join(options.packages)} are updated at each boot: {options.reason}"
    if not facts.has_systemd:
        return (Step("tool_updates", ("H32",), title, "echo 'updates at boot need systemd'; exit 1", "false"),)
    files = (ManagedFile(SCRIPT, script(facts, options), "755"), unit_file(UNIT, SERVICE))
    return (enable_unit("tool_updates", ("H32",), title, UNIT, files),)


def script(facts: Facts, options: ToolUpdates) -> str:
    """Return the script that updates the packages by the distribution's own tool."""
    by_dnf = f"{facts.package_manager} -y -q --refresh upgrade $tools\n"
    tools = assign(tools=" ".join(options.packages))
    update = BY_APT if facts.package_manager == "apt" else by_dnf
    return f"#!/bin/sh\n# Written by Assay (H32): {options.reason}\nset -eu\n{tools}{update}"
