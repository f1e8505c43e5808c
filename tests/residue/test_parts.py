"""A disk that is searched in parts gives what the whole gives: nothing is lost at an edge, and nothing found twice."""

import gzip
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.residue import parts as parts_of_disk
from pipeline.residue import proof
from pipeline.residue.blocks import RawFile
from pipeline.residue.checkpoint import Checkpoint
from pipeline.residue.containers import Budget
from pipeline.residue.encodings import Encoding, literal_form
from pipeline.residue.engine import Match, Searcher
from pipeline.residue.matcher import FastMatcher
from pipeline.residue.parts import Found, Search, divide, forked, search_part, search_parts
from pipeline.residue.proof import prove_raw
from pipeline.residue.rules import Sighting, Trigger
from pipeline.residue.secrets import build_secrets
from tests.residue.test_proof import BLOCK, SECRETS, TOKEN, Disk

BLOCKS = 24
SEARCHER = Searcher(build_secrets(tokens={"deploy token": TOKEN}))
NOISE = bytes(1 + number * 7919 % 251 for number in range(3 * BLOCK))
PLAIN = TOKEN.encode()
PACKED = gzip.compress(NOISE + PLAIN + NOISE)
STORED = gzip.compress(os.urandom(5 * BLOCK) + PLAIN, compresslevel=0)
"""A container over several blocks, with the secret at its end."""


def everything(found: list[Found]) -> tuple[list[tuple[object, ...]], list[tuple[int, str]], int]:
    matches = [match for one in found for match in one.matches]
    return (
        sorted(map(known_by, matches), key=repr),
        [hash for one in found for hash in one.hashes],
        sum(one.budget.opened for one in found),
    )


def known_by(match: Match) -> tuple[object, ...]:
    return match.rule.identity, match.offset, match.encoding, match.fingerprint, match.inside, match.disk_offset


def disk_of(pieces: list[tuple[int, bytes]], holes: set[int]) -> Disk:
    data = bytearray(b"x" * BLOCKS * BLOCK)
    for hole in holes:
        data[hole * BLOCK : (hole + 1) * BLOCK] = bytes(BLOCK)
    for place, piece in pieces:
        data[place : place + len(piece)] = piece[: len(data) - place]
    return Disk(bytes(data))


@given(
    st.lists(st.tuples(st.integers(0, BLOCKS * BLOCK - 1), st.sampled_from((PLAIN, PACKED, STORED))), max_size=4),
    st.sets(st.integers(0, BLOCKS - 1), max_size=12),
    st.integers(1, 12),
)
def test_parts_together_give_what_the_whole_gives(pieces: list[tuple[int, bytes]], holes: set[int], size: int) -> None:
    disk = disk_of(pieces, holes)
    numbers = list(disk.indices())
    if not numbers:
        return
    whole = search_part(disk, list(disk.indices()), range(BLOCKS), SEARCHER, Budget())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts_of_disk, "PART_BLOCKS", size)
        parts = divide(numbers, 0)
    assert everything(
        [search_part(disk, list(disk.indices()), part, SEARCHER, Budget()) for part in parts]
    ) == everything([whole])


HALVES = (range(12), range(12, BLOCKS))


@pytest.mark.parametrize("piece", [PACKED, STORED], ids=["packed", "stored"])
def test_nothing_is_lost_at_an_edge(piece: bytes) -> None:
    for place in (*range(12 * BLOCK - 40, 12 * BLOCK + 4), *range(12 * BLOCK - len(piece), 12 * BLOCK - 40, 97)):
        disk = disk_of([(place, piece)], set())
        apart = [search_part(disk, list(disk.indices()), part, SEARCHER, Budget()) for part in HALVES]
        assert (f"gzip at {place}",) in [match.inside for one in apart for match in one.matches]


@dataclass(frozen=True)
class Second:
    """A rule for tests: a word that counts only behind another one."""

    identity: str = "second"
    controls: tuple[str, ...] = ("R03",)
    kind: str = "second"
    reach: tuple[int, int] = (40, 20)

    def triggers(self) -> tuple[Trigger, ...]:
        return (Trigger(literal_form(b"the second word"), Encoding.PLAIN),)

    def examine(self, window: bytes, place: int, trigger: Trigger) -> Sighting | None:
        return Sighting("seen") if b"the first word" in window[:place] else None


def test_a_rule_sees_what_lies_before_a_part() -> None:
    disk = disk_of([(12 * BLOCK - 20, b"the first word"), (12 * BLOCK + 3, b"the second word")], set())
    apart = [search_part(disk, list(disk.indices()), part, Searcher([Second()]), Budget()) for part in HALVES]
    assert [[match.offset for match in one.matches] for one in apart] == [[], [12 * BLOCK + 3]]


def test_parts_follow_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts_of_disk, "PART_BLOCKS", 4)
    assert divide([3, 4, 5, 9, 10, 11, 12, 40, 41], 0) == [range(10), range(10, 41), range(41, 42)]
    assert divide([7], 5) == [range(5, 8)]


def raw_file(folder: Path, disk: Disk) -> Path:
    path = folder / "disk.raw"
    with path.open("wb") as file:
        file.truncate(len(disk.data))
        for index in disk.indices():
            file.seek(index * BLOCK)
            file.write(disk.block(index))
    return path


@pytest.fixture
def in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proof, "WORTH_PARTING", 2)
    monkeypatch.setattr(parts_of_disk, "PART_BLOCKS", 4)
    monkeypatch.setattr(parts_of_disk, "TOLD_EVERY", 2)
    monkeypatch.setattr(proof, "EVERY_BLOCKS", 4)
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})


@pytest.mark.subprocess
def test_a_file_is_searched_in_processes_with_the_same_result(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_parts: None
) -> None:
    disk = disk_of([(12 * BLOCK - 3, PLAIN), (17 * BLOCK - 9, STORED)], {2, 3, 13})
    shown: list[int] = []
    with RawFile(raw_file(tmp_path, disk), BLOCK) as file:
        apart = prove_raw(file, SECRETS, progress=lambda text, done, total: shown.append(done))
        monkeypatch.setattr(proof, "WORTH_PARTING", 1000)
        assert prove_raw(file, SECRETS) == apart
    assert len(shown) > 3 and shown == sorted(shown) and shown[-1] == len(list(disk.indices())) * BLOCK
    assert {finding.place.rpartition(" ")[2] for finding in apart[1]} >= {str(12 * BLOCK - 3), str(17 * BLOCK - 9)}


@pytest.mark.subprocess
def test_of_a_process_that_is_killed_every_block_is_unreadable(tmp_path: Path) -> None:
    class Deadly(RawFile):
        def read(self, index: int) -> bytes:
            if index == 15:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(index)

    with Deadly(raw_file(tmp_path, disk_of([(0, PLAIN)], {14})), BLOCK) as file:
        (_, alive), (_, dead) = search_parts(
            file, list(file.indices()), [range(8), range(8, BLOCKS)], SEARCHER, Budget(), 2, print
        )
    assert [match.offset for match in alive.matches] == [0]
    assert alive.unreadable == []
    reason = "the process that searched it was ended"
    assert dead.unreadable == [(index, reason) for index in range(8, BLOCKS) if index != 14]


@pytest.mark.subprocess
def test_no_more_processes_are_at_work_than_there_may_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at_work: list[int] = [0]

    @contextmanager
    def counted(search: Search) -> Iterator[object]:
        at_work.append(at_work[-1] + 1)
        with forked(search) as connection:
            yield connection
        at_work.append(at_work[-1] - 1)

    monkeypatch.setattr(parts_of_disk, "forked", counted)
    with RawFile(raw_file(tmp_path, disk_of([], set())), BLOCK) as file:
        parts = [range(start, start + 2) for start in range(0, BLOCKS, 2)]
        found = list(search_parts(file, list(file.indices()), parts, SEARCHER, Budget(), 3, print))
    assert [part for part, _ in found] == parts
    assert (max(at_work), at_work[-1]) == (3, 0)


@pytest.mark.subprocess
def test_a_defect_in_a_process_is_raised_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(data: bytes) -> str:
        raise ZeroDivisionError("a defect")

    monkeypatch.setattr(parts_of_disk, "hash_block", broken)
    with (
        RawFile(raw_file(tmp_path, disk_of([], set())), BLOCK) as file,
        pytest.raises(RuntimeError, match="ZeroDivisionError: a defect"),
    ):
        list(search_parts(file, list(file.indices()), [range(8), range(8, BLOCKS)], SEARCHER, Budget(), 2, print))


@pytest.mark.subprocess
def test_a_block_that_cannot_be_read_is_one_of_its_part(tmp_path: Path, in_parts: None) -> None:
    path = raw_file(tmp_path, disk_of([(0, PLAIN)], set()))
    with RawFile(path, BLOCK) as file:
        os.truncate(path, (BLOCKS - 1) * BLOCK)
        file.size_bytes = BLOCKS * BLOCK
        results, findings, _ = prove_raw(file, SECRETS)
    assert {str(result.status) for result in results if "R01" in result.controls} <= {"unreachable"}
    assert len(findings) == 1


@pytest.mark.subprocess
def test_a_search_in_parts_goes_on_where_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_parts: None
) -> None:
    path = raw_file(tmp_path, disk_of([(1 * BLOCK - 3, PLAIN), (17 * BLOCK - 9, STORED)], {2}))
    saved: list[int] = []

    class Interrupted(Exception):
        pass

    def save(self: Checkpoint, next_block: int, matches: list[Match]) -> None:
        real(self, next_block, matches)
        saved.append(next_block)
        if len(saved) == 2:
            raise Interrupted

    real = Checkpoint.save
    with RawFile(path, BLOCK) as file:
        whole = prove_raw(file, SECRETS)
        monkeypatch.setattr(Checkpoint, "save", save)
        with pytest.raises(Interrupted):
            prove_raw(file, SECRETS, state=tmp_path / "state")
        searched: list[range] = []

        def spy(source: RawFile, numbers: list[int], parts: list[range], *more: Any) -> Iterator[tuple[range, Found]]:
            searched.extend(parts)
            return search_parts(source, numbers, parts, *more)

        monkeypatch.setattr(proof, "search_parts", spy)
        assert prove_raw(file, SECRETS, state=tmp_path / "state")[1:] == whole[1:]
    assert searched[0].start == saved[1] > 0


def test_what_comes_out_of_containers_is_bounded_over_all_parts() -> None:
    budget = Budget(output_bytes=1000)
    first = budget.rest()
    first.came_out, first.opened, first.stopped = 600, 2, ["one"]
    budget.take(first)
    assert (budget.rest().output_bytes, budget.opened, budget.stopped) == (400, 2, ["one"])


def test_the_fast_engine_is_what_is_tested() -> None:
    assert isinstance(SEARCHER.matcher, FastMatcher)
