"""Logical volumes are found where they lie; what is damaged or not understood is never taken for understood."""

import contextlib
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.residue.blocks import RawFile
from pipeline.residue.filesystems import Extent, Partition, SourceFile
from pipeline.residue.locate import Locator, Space
from pipeline.residue.lvm import parse, volumes_in
from tests.planted import lvm

SIZE = lvm.DATA_START + 20 * lvm.EXTENT
SEGMENTS = [(10, 4), (2, 5)]
PARTITION = Partition("partition 1", 0, SIZE, "lvm")


def write_disk(path: Path, head: bytes) -> Path:
    with path.open("wb") as file:
        file.write(head)
        file.truncate(SIZE)
    return path


def volumes(path: Path) -> list[Partition]:
    with RawFile(path) as disk:
        return volumes_in(SourceFile(disk), [PARTITION])


def test_a_volume_is_read_through_its_segments(tmp_path: Path) -> None:
    path = write_disk(tmp_path / "disk", lvm.physical_volume(SIZE, "system", {"root": SEGMENTS}))
    with path.open("r+b") as file:
        file.seek(lvm.DATA_START + 14 * lvm.EXTENT - 10)
        file.write(b"first half")
        file.seek(lvm.DATA_START + 2 * lvm.EXTENT)
        file.write(b"second half")
    with RawFile(path) as disk:
        file = SourceFile(disk)
        root = next(part for part in volumes_in(file, [PARTITION]) if part.extents)
        volume = file.joined(root.extents)
        assert root.name == "logical volume system/root"
        assert volume.get_size() == 9 * lvm.EXTENT
        assert volume.read_at(4 * lvm.EXTENT - 10, 21) == b"first halfsecond half"
        assert volume.part(4 * lvm.EXTENT - 10, 21).read_at(5, 10) == b" halfsecon"


def test_offsets_and_places_are_each_others_inverse(tmp_path: Path) -> None:
    path = write_disk(tmp_path / "disk", lvm.physical_volume(SIZE, "system", {"root": SEGMENTS}))
    root = next(part for part in volumes(path) if part.extents)
    for place in (0, 4 * lvm.EXTENT - 1, 4 * lvm.EXTENT, 9 * lvm.EXTENT - 1):
        assert root.within(root.offset_of(place)) == place
    assert root.offset_of(4 * lvm.EXTENT) == lvm.DATA_START + 2 * lvm.EXTENT
    assert root.within(lvm.DATA_START) is None
    with pytest.raises(ValueError, match="no place"):
        root.offset_of(9 * lvm.EXTENT)


def test_what_no_volume_owns_has_a_place_too(tmp_path: Path) -> None:
    path = write_disk(tmp_path / "disk", lvm.physical_volume(SIZE, "old", {"root": SEGMENTS}))
    with RawFile(path) as disk:
        locator = Locator(disk)
        places = [locator.place_of(lvm.DATA_START + extent * lvm.EXTENT) for extent in (0, 2)]
    assert [place.space for place in places] == [Space.NO_FILE, Space.UNKNOWN]
    assert places[0].partition == "the whole disk, outside the logical volumes"
    assert places[1].partition.startswith("logical volume old/root")


@pytest.mark.parametrize(
    ("old", "new", "content"),
    [
        (b'type = "striped"', b'type = "thin"   ', "lvm thin"),
        (b"stripe_count = 1", b"stripe_count = 2", "lvm striped"),
        (b'"pv0", 10', b'"pv1", 10', "lvm on another disk"),
    ],
)
def test_a_volume_that_is_not_understood_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: bytes, new: bytes, content: str
) -> None:
    monkeypatch.setattr(lvm, "metadata", changed_metadata(old.decode(), new.decode()))
    path = write_disk(tmp_path / "disk", lvm.physical_volume(SIZE, "system", {"root": SEGMENTS}))
    assert volumes(path)[-1].content == content
    with RawFile(path) as disk:
        locator = Locator(disk)
        assert locator.file_systems() == []
        assert any("logical volume system/root holds" in problem for problem in locator.problems)


def changed_metadata(old: str, new: str):
    original = lvm.metadata

    def changed(*arguments):
        return "\n".join(original(*arguments)).replace(old, new).split("\n")

    return changed


@pytest.mark.parametrize("place", [512 + 40, 4096 + 30, 4096 + 512 + 40])
def test_a_damaged_header_or_text_leaves_the_partition_what_it_was(tmp_path: Path, place: int) -> None:
    head = bytearray(lvm.physical_volume(SIZE, "system", {"root": SEGMENTS}))
    head[place] ^= 1
    path = write_disk(tmp_path / "disk", bytes(head))
    assert volumes(path) == [PARTITION]


@given(st.lists(st.sampled_from(["a", "{", "}", "=", "[", "]", ",", '"b"', "1", "\n", "# c"])).map(" ".join))
def test_nonsense_is_refused_and_nothing_worse(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert isinstance(parse(text), dict)


words = st.sampled_from(["id", '"x"', "0", "9999999999", "[]", "{}", '"pv0"', "-1"])


@given(st.sampled_from(['"pv0", 10', "extent_size = 8192", 'id = "', "segment_count = 2", "pe_start = 2048"]), words)
def test_text_that_makes_no_sense_is_no_volume_and_no_crash(old: str, new: str) -> None:
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(lvm, "metadata", changed_metadata(old, new))
        path = write_disk(Path(folder) / "disk", lvm.physical_volume(SIZE, "system", {"root": SEGMENTS}))
        assert volumes(path)


def test_a_part_of_joined_ranges_is_cut_off_at_their_end(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"0123456789")
    with RawFile(path) as disk:
        joined = SourceFile(disk).joined((Extent(0, 6, 3), Extent(3, 1, 2)))
        assert joined.read_at(0, 100) == b"67812"
        assert joined.read_at(4, 5) == b"2"
        assert joined.read_at(9, 5) == b""
