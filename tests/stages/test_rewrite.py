"""How free space is cleaned is decided once, and the rewritten snapshot takes the place of the sealed one."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from pipeline.aws import snapshots
from pipeline.aws.blocks import BLOCK_SIZE, GIB, SnapshotBlocks, write_snapshot
from pipeline.build import open_context
from pipeline.errors import DiskNotRewritable
from pipeline.guest.facts import FileSystem
from pipeline.report.console import Console
from pipeline.residue.blocks import RawFile, Spool
from pipeline.residue.rewrite import plan_rewrite, rewritten_blocks
from pipeline.scrub.free_space import choose_method, steps
from pipeline.spec import load_spec
from pipeline.stages.rewrite import is_rewritten, prove_free_space, rewrite_snapshot, settle_free_space
from tests.fake_cloud import ROOT, FakeCloud, fake_cloud
from tests.harden.samples import DEBIAN, spec, text_of
from tests.residue.test_rewrite import START, Disk, held_by, run

__all__ = ["fake_cloud"]

EXT4 = FileSystem("/dev/nvme0n1p1", "/", "ext4", ())
EFI = FileSystem("/dev/nvme0n1p15", "/boot/efi", "vfat", ())
XFS = FileSystem("/dev/nvme0n1p1", "/", "xfs", ())
SNAP = FileSystem("/dev/loop0", "/snap/core", "squashfs", ())
VOLUME = FileSystem("/dev/mapper/system-root", "/", "ext4", ())
BTRFS = FileSystem("/dev/nvme0n1p1", "/", "btrfs", ())


def wanting(free_space: object):
    return spec(scrub={"free_space": free_space})


def launched(*codes: str, systems: tuple[FileSystem, ...] = (EXT4, EFI)):
    return SimpleNamespace(
        facts=replace(DEBIAN, file_systems=systems), base=SimpleNamespace(product_codes=codes, image_id="ami-1")
    )


@pytest.mark.parametrize(
    ("wanted", "systems", "method"),
    [
        ("auto", (EXT4, EFI), "rewrite"),
        ("auto", (XFS, EFI, SNAP), "rewrite"),
        ("auto", (VOLUME, EFI), "rewrite"),
        ("auto", (BTRFS,), "in-place"),
        ("auto", (), "in-place"),
        ("in-place", (EXT4,), "in-place"),
        ("rewrite", (BTRFS,), "rewrite"),
        (False, (EXT4,), False),
    ],
)
def test_auto_rewrites_what_it_can(wanted: object, systems: tuple[FileSystem, ...], method: object) -> None:
    assert choose_method(replace(DEBIAN, file_systems=systems), wanting(wanted)) == method


def test_product_codes_are_not_lost_by_a_rewrite() -> None:
    assert is_rewritten(wanting("auto"), launched())
    assert not is_rewritten(wanting("auto"), launched("abc"))
    assert settle_free_space(wanting("auto"), launched("abc")).scrub.free_space == "in-place"
    with pytest.raises(DiskNotRewritable, match="product codes"):
        settle_free_space(wanting("rewrite"), launched("abc"))


def test_the_guest_overwrites_only_where_nothing_is_rewritten() -> None:
    assert "\nkinds='ext[234]|xfs|vfat'\n" in text_of(steps(DEBIAN, "in-place"))
    assert steps(DEBIAN, "rewrite") == steps(DEBIAN, False) == ()


def test_free_space_that_is_not_understood_is_no_pass(tmp_path: Path) -> None:
    path = tmp_path / "disk"
    path.write_bytes(b"LABELONE".rjust(520, b"\0"))
    with Spool(RawFile(path)) as spool:
        assert prove_free_space(spool, "rewrite").status == "unreachable"


@pytest.mark.end_to_end
@pytest.mark.skipif(not shutil.which("debugfs", path="/sbin:/usr/sbin"), reason="debugfs is not installed")
def test_a_rewritten_snapshot_takes_the_place_of_the_sealed_one(fake_cloud: FakeCloud, tmp_path: Path) -> None:
    path = ROOT / "specs" / "debian-12-local.yaml"
    session = fake_cloud.open("us-east-1")
    context = open_context(load_spec(path), path, session, tmp_path / "builds", Console(quiet=True))
    disk = Disk(tmp_path, "ext4", "-b 4096")
    os.truncate(disk.path, GIB)
    run("/sbin/sfdisk", "--relocate", "gpt-bak-std", disk.path)
    with RawFile(disk.path) as source:
        blocks = [(index, source.read(index)) for index in source.indices()]
    sealed = context.journal.create(
        "snapshot",
        context.name("root"),
        context.region,
        make=lambda: write_snapshot(session, context.tags, context.name("root"), 1, blocks),
        undo=lambda identity: snapshots.delete_snapshot(session, identity),
    )
    snapshots.wait_for_snapshot(session, sealed)
    with context.journal:
        fake_cloud.ask("DELETE", "calls", {})
        with fake_cloud.faults({"kind": "lost-response", "action": "PutSnapshotBlock"}):
            made = rewrite_snapshot(context, sealed, "web")
        with RawFile(disk.path) as source:
            different = len(list(rewritten_blocks(source, plan_rewrite(source))))
        asked = fake_cloud.ask("GET", "calls", {})["count"]
        assert asked["PutSnapshotBlock"] == different + 1, "only what changes is written, and one answer was lost"
        assert different < len(blocks)
        after = tmp_path / "after.raw"
        with after.open("wb") as file:
            file.truncate(GIB)
            for index, data in SnapshotBlocks(session, made).read_many(SnapshotBlocks(session, made).indices()):
                assert isinstance(data, bytes)
                file.seek(index * BLOCK_SIZE)
                file.write(data)
        assert held_by(after, disk.dead) == set()
        assert START and disk.check(after)
        assert [entry.identity for entry in context.journal.entries if entry.open] == [made]
        assert snapshots.snapshot_ids(session, context.name("root")) == []
        assert context.journal.undo_all() == ()
    with Spool(RawFile(after)) as spool, Spool(RawFile(disk.path)) as before:
        assert prove_free_space(spool, "rewrite").status == "pass"
        assert prove_free_space(before, "rewrite").status == "fail"
        assert prove_free_space(spool, "in-place").status == "pass"
        in_place = prove_free_space(before, "in-place")
        assert (in_place.status, in_place.controls) == ("fail", ("S22",))
        assert "of free blocks were not overwritten: free space of partition 1, offset" in in_place.detail
        assert prove_free_space(before, False).status == "not-applicable"
    (result,) = context.recorder.evidence().results
    assert (result.controls, result.status) == (("S22",), "pass")
