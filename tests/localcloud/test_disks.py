"""Disks, with the real qemu-img and qemu-io."""

import errno
import json
import subprocess
from pathlib import Path

import pytest

from pipeline.localcloud import disks
from pipeline.localcloud.disks import BLOCK_SIZE, DiskStore

GIB = 2**30


def write(store: DiskStore, volume_id: str, index: int, pattern: int) -> None:
    command = f"write -q -P {pattern} {index * BLOCK_SIZE} {BLOCK_SIZE}"
    subprocess.run(["qemu-io", "-f", "qcow2", "-c", command, str(store.volume_path(volume_id))], check=True)


@pytest.fixture
def store(tmp_path: Path) -> DiskStore:
    raw = tmp_path / "base.raw"
    with raw.open("wb") as file:
        file.truncate(GIB)
        file.seek(3 * BLOCK_SIZE + 5)
        file.write(b"base")
    made = DiskStore(tmp_path / "store")
    made.import_snapshot("snap-base", raw, 1)
    return made


@pytest.mark.subprocess
def test_a_volume_has_its_snapshots_content_and_keeps_its_own(store: DiskStore) -> None:
    store.create_volume("vol-1", 2, "snap-base")
    write(store, "vol-1", 10, 0xAB)
    store.snapshot_volume("vol-1", "snap-1", None)
    write(store, "vol-1", 10, 0xCD)
    store.snapshot_volume("vol-1", "snap-2", None)
    assert store.list_blocks("snap-base") == [3]
    assert store.list_blocks("snap-1") == store.list_blocks("snap-2") == [3, 10]
    assert store.read_block("snap-1", 3)[:12] == b"\0\0\0\0\0base\0\0\0"
    assert store.read_block("snap-1", 10) == b"\xab" * BLOCK_SIZE
    assert store.read_block("snap-2", 10) == b"\xcd" * BLOCK_SIZE
    assert store.read_block("snap-1", 4000) == bytes(BLOCK_SIZE)
    assert store.changed_blocks("snap-base", "snap-1") == [10]
    assert store.changed_blocks("snap-1", "snap-2") == [10]
    assert store.snapshot_size_gib("snap-2") == 2
    write(store, "vol-1", 3000, 0xEF)
    store.snapshot_volume("vol-1", "snap-3", None)
    assert store.changed_blocks("snap-base", "snap-3") == [10, 3000], "one lies beyond the end of the first"


@pytest.mark.subprocess
def test_everything_survives_a_restart(store: DiskStore) -> None:
    store.create_volume("vol-1", 1, "snap-base")
    write(store, "vol-1", 0, 1)
    store.snapshot_volume("vol-1", "snap-1", None)
    again = DiskStore(store.root)
    assert again.list_blocks("snap-1") == [0, 3]
    assert again.volume_path("vol-1") == store.volume_path("vol-1")


@pytest.mark.subprocess
def test_layers_go_when_nothing_needs_them_and_not_before(store: DiskStore) -> None:
    store.create_volume("vol-1", 1, "snap-base")
    write(store, "vol-1", 7, 7)
    store.snapshot_volume("vol-1", "snap-1", None)
    store.copy_snapshot("snap-1", "snap-copy")
    for snapshot_id in ("snap-base", "snap-1"):
        store.delete_snapshot(snapshot_id)
    store.delete_volume("vol-1")
    assert store.list_blocks("snap-copy") == [3, 7]
    store.delete_snapshot("snap-copy")
    assert not list((store.root / "files").iterdir()) and not list((store.root / "flat").iterdir())


@pytest.mark.subprocess
def test_a_file_that_a_crash_left_is_collected(store: DiskStore) -> None:
    (store.root / "files" / "lost.qcow2").write_bytes(b"x" * 8192)
    assert store.collect() >= 8192


@pytest.mark.subprocess
def test_a_snapshot_is_written_block_by_block_over_a_parent(store: DiskStore) -> None:
    store.start_snapshot("snap-new", 1, "snap-base")
    with pytest.raises(ValueError, match="not complete"):
        store.create_volume("vol-1", 1, "snap-new")
    store.put_block("snap-new", 9, b"\x09" * BLOCK_SIZE)
    store.complete_snapshot("snap-new")
    assert store.list_blocks("snap-new") == [3, 9]
    assert store.list_blocks("snap-base") == [3]
    assert store.changed_blocks("snap-base", "snap-new") == [9]
    store.create_volume("vol-1", 1, "snap-new")
    with pytest.raises(ValueError, match="is complete"):
        store.put_block("snap-new", 9, bytes(BLOCK_SIZE))


@pytest.mark.subprocess
def test_a_child_of_a_volumes_snapshot_is_not_copied_and_its_parent_stays_as_it_was(store: DiskStore) -> None:
    store.create_volume("vol-1", 1, "snap-base")
    write(store, "vol-1", 7, 7)
    store.snapshot_volume("vol-1", "snap-1", None)
    assert store.list_blocks("snap-1") == [3, 7]
    (flat,) = (store.root / "flat").iterdir()
    made_once = flat.stat().st_ino
    store.start_snapshot("snap-child", 2, "snap-1")
    assert made_once in {path.stat().st_ino for path in (store.root / "files").iterdir()}
    store.put_block("snap-child", 7, bytes(BLOCK_SIZE))
    assert store.read_block("snap-1", 7) == b"\x07" * BLOCK_SIZE
    store.delete_snapshot("snap-1")
    store.complete_snapshot("snap-child")
    assert store.snapshot_size_gib("snap-child") == 2
    assert [store.read_block("snap-child", index)[5:9] for index in (3, 7)] == [b"base", bytes(4)]


@pytest.mark.subprocess
def test_a_child_smaller_than_its_parent_is_refused(store: DiskStore) -> None:
    store.start_snapshot("snap-2", 2, None)
    store.complete_snapshot("snap-2")
    with pytest.raises(ValueError, match="1 GiB is smaller than snapshot snap-2"):
        store.start_snapshot("snap-1", 1, "snap-2")


def test_a_block_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    store.start_snapshot("snap-1", 1, None)
    for index, data in ((0, b"short"), (2048, bytes(BLOCK_SIZE)), (-1, bytes(BLOCK_SIZE))):
        with pytest.raises(ValueError, match="does not fit"):
            store.put_block("snap-1", index, data)


def test_unknown_ids_raise_key_error(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    for call in (
        store.volume_path,
        store.list_blocks,
        store.snapshot_size_gib,
        store.delete_snapshot,
        store.delete_volume,
    ):
        with pytest.raises(KeyError):
            call("none-1")


@pytest.mark.subprocess
def test_a_volume_smaller_than_its_snapshot_is_refused(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    store.start_snapshot("snap-1", 3, None)
    store.complete_snapshot("snap-1")
    with pytest.raises(ValueError, match="smaller"):
        store.create_volume("vol-1", 2, "snap-1")


@pytest.mark.subprocess
def test_a_live_snapshot_goes_through_the_guest(store: DiskStore) -> None:
    switched: list[tuple[str, Path]] = []

    class Live:
        def switch_overlay(self, volume_id: str, overlay: Path) -> None:
            switched.append((volume_id, overlay))

    store.create_volume("vol-1", 1, "snap-base")
    before = store.volume_path("vol-1")
    store.snapshot_volume("vol-1", "snap-1", Live())
    assert switched == [("vol-1", store.volume_path("vol-1"))]
    assert store.volume_path("vol-1") != before and not before.stat().st_mode & 0o200


def test_a_full_disk_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: object) -> None:
        raise subprocess.CalledProcessError(1, command, stderr="qemu-img: error while writing: No space left on device")

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(OSError, match="No space left") as caught:
        disks.run_qemu_img("convert")
    assert caught.value.errno == errno.ENOSPC


def test_the_index_is_never_half_written(tmp_path: Path) -> None:
    store = DiskStore(tmp_path)
    store.start_snapshot("snap-1", 1, None)
    assert json.loads((tmp_path / "index.json").read_text())["snapshots"]["snap-1"]["completed"] is False
    assert not list(tmp_path.glob("*.new"))
