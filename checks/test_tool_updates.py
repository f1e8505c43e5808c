"""EC2 tools are updated at each boot, where the spec wants it."""

import pytest

from checks.fixtures import Ask
from pipeline.spec import Spec, ToolUpdates

UNIT = "assay-tool-updates.service"
RESULT = f"""
while [ "$(systemctl is-active {UNIT})" = activating ]; do sleep 0.5; done
systemctl is-active {UNIT} || true
"""
"""It may still be at work: it begins when the network is there."""


@pytest.fixture
def tools(spec: Spec) -> ToolUpdates:
    """What the spec says of them."""
    if spec.harden.tool_updates is None:
        pytest.skip("no tools are updated at boot (harden.tool_updates)")
    return spec.harden.tool_updates


@pytest.mark.controls("H32", layers="LB")
def test_tools_are_updated_at_each_boot(tools: ToolUpdates, ask: Ask) -> None:
    """The unit that updates them is enabled, and names these packages and no others."""
    assert ask(f"systemctl is-enabled {UNIT} 2>/dev/null || true").strip() == "enabled"
    named = ask('sed -n "s/^tools=//p" /etc/assay/tool-updates/tool-updates.sh').replace("'", "").split()
    assert named == list(tools.packages)


@pytest.mark.controls("H32", layers="B")
def test_the_update_of_tools_went_well(tools: ToolUpdates, ask: Ask) -> None:
    """At this boot the update went through."""
    assert ask(RESULT).strip() == "active"


@pytest.mark.controls("H32", layers="B")
def test_tools_are_the_newest(tools: ToolUpdates, ask: Ask, family: str) -> None:
    """The package manager knows of nothing newer of them."""
    names = " ".join(tools.packages)
    if family == "debian":
        said = ask(f"{RESULT} >/dev/null; LC_ALL=C apt-get -s install --only-upgrade {names}")
        assert [line for line in said.splitlines() if line.startswith("Inst ")] == []
    else:
        assert ask(f"{RESULT} >/dev/null; dnf -q check-update {names} || [ $? = 100 ]").strip() == ""
