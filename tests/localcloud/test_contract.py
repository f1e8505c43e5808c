"""Every call that the pipeline and its peers make is asked, in order, of one cloud; COVERAGE.md says the same."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.localcloud import contract
from tests.localcloud.clouds import running


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[contract.World]:
    with running(Path(tmp_path_factory.mktemp("contract"))) as cloud:
        yield contract.World(cloud)


@pytest.mark.loopback
@pytest.mark.subprocess
@pytest.mark.parametrize("row", contract.ROWS, ids=lambda row: f"{row.service}-{row.action}")
def test_a_call_is_answered(world: contract.World, row: contract.Row) -> None:
    assert row.ask(world) is not False


def test_the_coverage_page_is_up_to_date() -> None:
    advice = "run `python -m tests.localcloud.contract`"
    assert contract.COVERAGE.read_text() == contract.render(), advice
