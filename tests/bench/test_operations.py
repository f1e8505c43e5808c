"""The operations of the benchmark on its real target: done by hand and by a guest program, they are the same."""

from pathlib import Path

import pytest

from pipeline.guest.program import Outcome, compile_program
from tests.bench.harden import look_again, own_tools
from tests.bench.operations import operations
from tests.bench.target import RESET, running_target
from tests.checks.small_debian import missing_here

pytestmark = [
    pytest.mark.end_to_end,
    pytest.mark.skipif(bool(missing_here()), reason=missing_here()),
]


def test_each_way_does_all_of_it_and_a_second_run_changes_nothing(tmp_path: Path) -> None:
    wanted = operations()
    assert len(wanted) >= 60
    with running_target(tmp_path) as target:
        shell = target.log_in(target.port)
        for tool in own_tools(wanted)[:2]:
            shell.run(RESET)
            tool.run(shell, target.port)
            look_again(shell, tool, wanted)
            again = shell.run_program(compile_program(each.step() for each in wanted))
            assert {result.outcome for result in again} == {Outcome.OK}
        shell.close()
