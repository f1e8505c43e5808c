"""Enabling a unit: its files and its link are tested, and written where they are missing."""

import pytest

from pipeline.guest.step import reveal
from pipeline.harden.unit import enable_unit, unit_file

STEP = enable_unit("sample", ("H25",), "a unit", "sample.service", (unit_file("sample.service", "[Unit]\n"),))


@pytest.mark.parametrize("part", ["/etc/systemd/system/sample.service", "[Unit]", "/*.wants/sample.service"])
def test_test_and_action_are_about_the_file_and_the_link(part: str) -> None:
    assert part in reveal(STEP.test or "") and part in reveal(STEP.action)
    assert reveal(STEP.action).endswith("systemctl --no-reload enable sample.service\n")
