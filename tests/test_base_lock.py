"""The lock keeps a spec on the base image that it was proved with; another owner's image is never taken (A01)."""

from pathlib import Path

import pytest

from pipeline.base_lock import LockedBase, choose_base, compare, lock_path, read_lock, write_lock
from pipeline.errors import BaseImageRefused, FileUnwritable, SpecInvalid

DEBIAN = "136693071363"
LOCKED = LockedBase(
    id="ami-0aaaaaaaaaaaaaaaa",
    owner=DEBIAN,
    name="debian-12-amd64-20250101-1",
    creation_date="2025-01-01T00:00:00.000Z",
)
NEWER = LockedBase(
    id="ami-0bbbbbbbbbbbbbbbb",
    owner=DEBIAN,
    name="debian-12-amd64-20250601-1",
    creation_date="2025-06-01T00:00:00.000Z",
)
OLDER = NEWER.model_copy(update={"id": "ami-0cccccccccccccccc", "creation_date": "2024-06-01T00:00:00.000Z"})
COPIED = NEWER.model_copy(update={"id": "ami-0eeeeeeeeeeeeeeee", "owner": "666666666666", "name": LOCKED.name})


def test_lock_survives_being_written_and_read(tmp_path: Path) -> None:
    zeros = LOCKED.model_copy(update={"owner": "012345678901"})
    path = tmp_path / "locks" / "web.lock.yaml"
    assert read_lock(path) is None
    write_lock(path, zeros)
    assert read_lock(path) == zeros
    assert path.read_text().startswith("# ")
    assert [entry.name for entry in path.parent.iterdir()] == ["web.lock.yaml"]


def test_damaged_lock_is_explained_with_its_lines(tmp_path: Path) -> None:
    path = tmp_path / "web.lock.yaml"
    path.write_text("id: ami-1\nowner: 136693071363\nname: x\ndate: y\n")
    with pytest.raises(SpecInvalid) as caught:
        read_lock(path)
    text = "\n".join(caught.value.problems)
    for part in (
        ":1: id: ",
        ':2: owner: YAML reads this as a number or a truth value: put it in quotes: "136',
        ":4: date: ",
    ):
        assert part in text
    assert "creation_date: is required" in text


def test_lock_that_cannot_be_written_is_explained(tmp_path: Path) -> None:
    (tmp_path / "locks").touch()
    with pytest.raises(FileUnwritable, match=r"web\.lock\.yaml"):
        write_lock(tmp_path / "locks" / "web.lock.yaml", LOCKED)


def test_lock_stands_beside_the_spec_on_aws_and_with_the_builds_on_the_local_cloud() -> None:
    spec = Path("specs/web-1.2.yaml")
    assert lock_path(spec, "aws", Path("builds")) == Path("specs/web-1.2.lock.yaml")
    assert lock_path(spec, "local", Path("builds")) == Path("builds/locks/web-1.2.lock.yaml")


@pytest.mark.parametrize(
    ("locked", "found", "words"),
    [
        (LOCKED, LOCKED, None),
        (None, NEWER, "nothing is locked yet"),
        (LOCKED, NEWER, "newer than the lock: ami-0bbbbbbbbbbbbbbbb"),
        (LOCKED, OLDER, "older than the lock: ami-0cccccccccccccccc"),
    ],
)
def test_change_is_described(locked: LockedBase | None, found: LockedBase, words: str | None) -> None:
    change = compare(locked, found)
    assert change == words if words is None else words in (change or "")


@pytest.mark.parametrize(
    "found",
    [
        COPIED,
        LOCKED.model_copy(update={"owner": "666666666666"}),
        LOCKED.model_copy(update={"name": "another"}),
        LOCKED.model_copy(update={"creation_date": "2025-01-02T00:00:00.000Z"}),
    ],
    ids=["same name, other owner", "same id, other owner", "same id, other name", "same id, other date"],
)
def test_image_that_contradicts_the_lock_is_refused(found: LockedBase) -> None:
    with pytest.raises(BaseImageRefused, match=found.id):
        compare(LOCKED, found)
    with pytest.raises(BaseImageRefused, match=found.id):
        choose_base(LOCKED, NEWER, found, owner=DEBIAN)


def test_first_build_takes_the_newest_and_locks_it() -> None:
    choice = choose_base(None, NEWER, None, owner=DEBIAN)
    assert (choice.base, choice.moves_lock) == (NEWER, True)


def test_locked_image_is_used_though_a_newer_one_exists() -> None:
    choice = choose_base(LOCKED, NEWER, LOCKED, owner=DEBIAN)
    assert (choice.base, choice.moves_lock) == (LOCKED, False)
    assert "newer than the lock" in (choice.change or "")


def test_nothing_changes_when_the_newest_is_locked() -> None:
    for update in (False, True):
        choice = choose_base(LOCKED, LOCKED, LOCKED, owner=DEBIAN, update=update)
        assert (choice.base, choice.change, choice.moves_lock) == (LOCKED, None, False)


def test_update_moves_the_lock_even_when_the_locked_image_is_gone() -> None:
    for still_there in (LOCKED, None):
        choice = choose_base(LOCKED, NEWER, still_there, owner=DEBIAN, update=True)
        assert (choice.base, choice.moves_lock) == (NEWER, True)


def test_image_of_another_owner_than_the_specs_is_refused_even_on_update() -> None:
    for update in (False, True):
        for locked in (None, LOCKED):
            with pytest.raises(BaseImageRefused, match="belongs to 666666666666, not to 136693071363"):
                choose_base(locked, COPIED, LOCKED, owner=DEBIAN, update=update)


def test_new_owner_in_the_spec_needs_an_update() -> None:
    with pytest.raises(BaseImageRefused, match="the lock names 136693071363") as caught:
        choose_base(LOCKED, COPIED, LOCKED, owner=COPIED.owner)
    assert "--update-base" in caught.value.describe()
    choice = choose_base(LOCKED, COPIED, LOCKED, owner=COPIED.owner, update=True)
    assert choice.base == COPIED
    assert "another owner than the lock" in (choice.change or "")


def test_locked_image_that_is_gone_ends_the_build_with_a_remedy() -> None:
    with pytest.raises(BaseImageRefused, match="is gone") as caught:
        choose_base(LOCKED, NEWER, None, owner=DEBIAN)
    assert "--update-base" in caught.value.describe()


def test_local_cloud_that_was_reset_gets_its_new_image() -> None:
    choice = choose_base(LOCKED, NEWER, None, owner=DEBIAN, cloud="local")
    assert (choice.base, choice.moves_lock) == (NEWER, True)
    with pytest.raises(BaseImageRefused):
        choose_base(LOCKED, COPIED, None, owner=DEBIAN, cloud="local")
