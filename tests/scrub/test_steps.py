"""The scrub as a table: spec in, steps out, in an order that matters."""

import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.scrub import power_off_command, scrub_steps
from pipeline.scrub.power_off import LAST_WORDS
from tests.harden.samples import DEBIAN, KEY, spec, text_of

FREE = {"free_space": "in-place"}


def test_every_row_of_the_catalogue_is_served() -> None:
    steps = scrub_steps(DEBIAN, spec(scrub=FREE))
    assert all(step.controls and step.title for step in steps)
    served = {control for step in steps for control in step.controls}
    assert served >= {f"S{number:02}" for number in range(1, 23)}


def test_writers_stop_first_and_free_space_comes_after_everything() -> None:
    subjects = [step.subject for step in scrub_steps(DEBIAN, spec(scrub=FREE))]
    assert subjects[:2] == ["writers", "writers"]
    assert subjects[-3:] == ["writers", "free_space", "free_space"]
    first = {subject: subjects.index(subject) for subject in set(subjects)}
    last = max(first[name] for name in ("credentials", "cloud_init", "logs", "identity", "backups", "temporary"))
    assert last < first["keys"] < first["history"] < first["free_space"]


@pytest.mark.parametrize(
    ("changes", "commands", "titles"),
    [
        ({"scrub": {"free_space": False}}, {"perl"}, []),
        ({"scrub": FREE}, {"perl"}, ["overwrite free blocks", "zero the file system's journal"]),
        ({"scrub": FREE}, set(), ["overwrite free blocks"]),
    ],
)
def test_free_space(changes: dict[str, object], commands: set[str], titles: list[str]) -> None:
    steps = scrub_steps(replace(DEBIAN, commands=frozenset(commands)), spec(**changes))
    assert [step.title for step in steps if step.subject == "free_space"] == titles


@pytest.mark.parametrize(
    ("changes", "leaves"),
    [({}, "name=''"), ({"ssh": {"user": "builder"}}, "name=builder"), ({"image": {"launch_user": None}}, "name=admin")],
)
def test_the_builds_user_leaves_unless_the_image_has_it(changes: dict[str, object], leaves: str) -> None:
    steps = [step for step in scrub_steps(DEBIAN, spec(**changes)) if step.subject == "build_user"]
    assert f"\n{leaves}\n" in text_of(steps)


def test_declared_keys_are_written_and_nothing_else_is_said_of_them() -> None:
    steps = [step for step in scrub_steps(DEBIAN, spec()) if step.title == "leave only the declared keys of john"]
    assert f"keys='{KEY}'" in text_of(steps)


def test_the_power_off_freezes_before_it_cleans_and_cleans_before_it_is_read_only() -> None:
    command = power_off_command(DEBIAN)
    marks = ["kill -s STOP -- -1", 'wipe "$build_sudo"', "sync", "find /var/log", "sync", "echo u >", "echo o >"]
    place = 0
    for mark in marks:
        place = command.index(mark, place) + len(mark)
    assert command.startswith("trap '' HUP")
    assert command.endswith("&")


@pytest.mark.subprocess
def test_what_the_power_off_removes_is_zeros_before(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "a log").write_bytes(b"secret" * 1000)
    (tmp_path / "sudo").write_bytes(b"admin ALL")
    (tmp_path / "other name").write_bytes(b"it has another name")
    (tmp_path / "folder" / "still in use").hardlink_to(tmp_path / "other name")
    (tmp_path / "link").symlink_to("sudo")
    defined = LAST_WORDS[LAST_WORDS.index("wipe() {") : LAST_WORDS.index("# Everybody else stops")]
    subprocess.run(["sh", "-c", f'{defined}wipe "$@"', "sh", tmp_path / "folder", tmp_path / "gone"], check=True)
    assert set((tmp_path / "folder" / "a log").read_bytes()) == {0}
    assert (tmp_path / "folder" / "still in use").read_bytes() == b"it has another name"
    assert (tmp_path / "sudo").read_bytes() == b"admin ALL"


FORBID = {
    "forbid": [{"reason": "the vendor's licence", "paths": ["/opt/it's/*"], "packages": ["vendor-tool", "other"]}],
}


def test_what_the_spec_forbids_is_removed_or_stops_the_build() -> None:
    assert [step for step in scrub_steps(DEBIAN, spec()) if step.subject == "forbidden"] == []
    files, packages = (step for step in scrub_steps(DEBIAN, spec(scrub=FORBID)) if step.subject == "forbidden")
    assert files.controls == packages.controls == ("S23",)
    assert "under '/opt/it'\"'\"'s/*'" in text_of([files])
    assert "packages='vendor-tool other'" in text_of([packages])
    assert text_of([packages]).rstrip().endswith("exit 1")
