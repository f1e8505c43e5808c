"""EC2 tools that are updated at boot: a unit, and nothing else than what the spec names."""

from dataclasses import replace

import pytest

from pipeline.guest.facts import Facts
from pipeline.harden import harden_steps, tool_updates
from pipeline.spec import ToolUpdates
from tests.harden.samples import AMAZON, DEBIAN, spec, text_of

OPTIONS = ToolUpdates(packages=("amazon-ssm-agent", "ec2-instance-connect"), reason="support needs the newest agent")


@pytest.mark.parametrize(
    ("facts", "present", "absent"),
    [
        (DEBIAN, ["apt install --only-upgrade", "$sources"], ["dnf"]),
        (AMAZON, ["dnf -y -q --refresh upgrade $tools"], ["apt"]),
    ],
)
def test_the_distribution_s_own_tool_updates_the_named_packages(
    facts: Facts, present: list[str], absent: list[str]
) -> None:
    text = tool_updates.script(facts, OPTIONS)
    assert "tools='amazon-ssm-agent ec2-instance-connect'\n" in text
    assert [part for part in present if part not in text] == []
    assert [part for part in absent if part in text] == []


def test_the_tools_are_installed_and_the_reason_is_in_the_title() -> None:
    steps = harden_steps(DEBIAN, spec(harden={"tool_updates": OPTIONS.model_dump()}))
    by_subject = {step.subject: step for step in steps if "H32" in step.controls}
    assert by_subject.keys() == {"packages", "tool_updates"}
    assert by_subject["packages"].title == "install amazon-ssm-agent ec2-instance-connect"
    assert by_subject["tool_updates"].title.endswith("at each boot: support needs the newest agent")
    assert "systemctl --no-reload enable assay-tool-updates.service" in text_of([by_subject["tool_updates"]])


def test_nothing_is_updated_at_boot_by_default() -> None:
    assert "H32" not in {control for step in harden_steps(DEBIAN, spec()) for control in step.controls}


def test_without_systemd_nothing_pretends_to_update() -> None:
    (step,) = tool_updates.steps(replace(DEBIAN, has_systemd=False), OPTIONS)
    assert (step.optional, step.test) == (False, "false")
