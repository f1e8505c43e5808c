"""What differs between two builds or two disks is said by subject, and what is the same is not."""

import json
from pathlib import Path
from typing import NoReturn

import pytest

from pipeline.diff import compare, compare_builds, fold
from pipeline.errors import BlockUnreadable, SpecInvalid
from pipeline.report.evidence import Change, Evidence, Finding, Layer, Status
from pipeline.report.evidence_folder import write_report
from pipeline.report.sbom import Inventory, Package, render_sbom
from pipeline.stages.booted_state import FILE as STATE
from pipeline.stages.differences import find_changes
from tests.report.evidence_examples import CLEAN, START, result
from tests.residue.test_back_doors import Plant, Small

OPENSSH = Package("openssh-server", "9.2-1", "amd64", installed_bytes=2**20)
CURL = Package("curl", "7.88", "amd64", installed_bytes=3 * 2**20)
FINDING = Finding(control="R03", layer=Layer.RAW, kind="key", place="block 7", fingerprint="00ff")


def write_build(folder: Path, evidence: Evidence, *packages: Package) -> Path:
    write_report(folder, evidence)
    inventory = Inventory("deb", "debian", "12", "Debian", packages)
    bill = render_sbom(inventory, build_id=evidence.build_id, spec_name=evidence.spec_name, made=START)
    (folder / "sbom.cdx.json").write_text(bill)
    return folder


@pytest.fixture
def before(tmp_path: Path) -> Path:
    return write_build(tmp_path / "b1", CLEAN, OPENSSH, CURL)


def change(name: str, before: str, after: str) -> Change:
    return Change(name=name, before=before, after=after)


def test_equal_builds_do_not_differ(before: Path) -> None:
    difference = compare_builds(before, before)
    assert not any(difference.subjects.values())
    assert list(difference.lines()) == [
        "from b1 to b1",
        *(f"{subject}: nothing changed" for subject in difference.subjects),
        "not compared: users, units, privileged programs, kernel settings, files"
        " (name the images as ami-…: it is read from their blocks)",
        "not compared: ports, kernel settings in effect (not known of both)",
    ]


def test_every_subject_says_what_changed(before: Path, tmp_path: Path) -> None:
    newer = CLEAN.model_copy(
        update={
            "build_id": "b2",
            "spec_digest": "1" * 64,
            "results": (result("H01", Layer.LIVE, Status.FAIL), result("H02", Layer.LIVE, Status.PASS)),
            "findings": (FINDING,),
        }
    )
    newer_openssh = Package("openssh-server", "9.2-2", "amd64", installed_bytes=2 * 2**20)
    after = write_build(tmp_path / "b2", newer, newer_openssh, Package("nginx", "1.22", "amd64"))
    difference = compare_builds(before, after)
    lines = {subject: [change.line() for change in changes] for subject, changes in difference.subjects.items()}
    assert lines == {
        "identity": [f"~ spec digest {'0' * 64} → {'1' * 64}"],
        "packages": ["- curl amd64 7.88", "+ nginx amd64 1.22", "~ openssh-server amd64 9.2-1 → 9.2-2"],
        "sizes": ["~ installed 4.0 MiB → 2.0 MiB"],
        "controls": ["- H01 fresh boot pass", "~ H01 live pass → fail", "+ H02 live pass", "+ R03 raw fail"],
        "results": [
            "- fresh boot: checks/test_sshd.py::test_it H01 holds pass",
            "~ live: checks/test_sshd.py::test_it H01 holds pass → fail",
            "+ live: checks/test_sshd.py::test_it H02 holds pass",
        ],
        "findings": ["+ R03 key 00ff block 7"],
    }
    shown = list(difference.lines())
    assert shown[0] == "from b1 to b2"
    assert "packages: 3 changed" in shown
    document = json.loads(difference.as_json())
    assert document["subjects"]["sizes"] == [{"name": "installed", "from": "4.0 MiB", "to": "2.0 MiB"}]


def test_order_of_names_is_the_alphabet_s() -> None:
    changes = list(find_changes({"b": "1", "a": "1"}, {"c": "1"}))
    assert changes == [change("a", "1", ""), change("b", "1", ""), change("c", "", "1")]


@pytest.mark.parametrize("text", [None, "x", "{}"])
def test_build_without_a_bill_is_said(before: Path, text: str | None) -> None:
    bill = before / "sbom.cdx.json"
    if text is None:
        bill.unlink()
    else:
        bill.write_text(text)
    with pytest.raises(SpecInvalid, match="no bill of materials"):
        compare_builds(before, before)


def test_no_such_build_is_said(before: Path, tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="no report"):
        compare_builds(before, tmp_path / "b3")


def test_what_two_fresh_boots_showed_is_compared(before: Path, tmp_path: Path) -> None:
    after = write_build(tmp_path / "b2", CLEAN, OPENSSH, CURL)
    for folder, port in ((before, "22/tcp"), (after, "80/tcp")):
        state = {"ports": {port: "0.0.0.0"}, "kernel_settings": {"kernel.sysrq": "0"}}
        (folder / STATE).write_text(json.dumps(state))
    subjects = compare_builds(before, after).subjects
    assert [change.line() for change in subjects["ports"]] == ["- 22/tcp 0.0.0.0", "+ 80/tcp 0.0.0.0"]
    assert subjects["kernel settings in effect"] == ()


def test_files_of_a_package_that_changed_are_one_line() -> None:
    files = (change("/bin/a", "1", "2"), change("/usr/bin/b", "1", "2"), change("/etc/c", "", "1"))
    owners = {"usr/bin/a": "nginx", "usr/bin/b": "nginx", "etc/c": "curl"}
    folded = fold(files, (change("nginx amd64", "1", "2"),), owners)
    assert [change.line() for change in folded] == ["+ /etc/c 1", "+ of the package nginx 2 files"]


def no_session() -> NoReturn:
    raise AssertionError("files need no cloud")


@pytest.mark.subprocess
def test_disks_are_compared_by_their_files(tmp_path: Path) -> None:
    """Each change on the second disk is said by its subject, and nothing else is."""
    passwd = b"root:x:0:0:root:/root:/bin/bash\neve:x:1001:1001::/home/eve:/bin/sh\n"
    plants = (
        Plant("", "etc/passwd", passwd),
        Plant("", "etc/systemd/system/multi-user.target.wants/x.service", b"", link="/srv/x.service"),
        Plant("", "usr/bin/find", b"find", mode=0o4755),
        Plant("", "etc/sysctl.d/10-x.conf", b"kernel.sysrq = 1\n"),
        Plant("", "etc/sysctl.d/90-x.conf", b"kernel/sysrq=0\n"),
        Plant("", "var/lib/dpkg/status", b"Package: good\nStatus: install ok installed\nVersion: 2\n"),
    )
    folders = [tmp_path / name for name in ("one", "other")]
    for folder in folders:
        folder.mkdir()
    one, other = (Small(folder, some).make() for folder, some in zip(folders, ((), plants), strict=True))
    difference = compare(str(one), str(other), builds=tmp_path, open_session=no_session)
    lines = {subject: [change.line() for change in changes] for subject, changes in difference.subjects.items()}
    assert lines["packages"] == ["+ good 2"]
    assert "+ eve 1001 /home/eve /bin/sh" in lines["users"]
    assert lines["units"] == ["+ x.service by multi-user.target enabled"]
    assert [line for line in lines["privileged programs"] if "find" in line] == ["+ /usr/bin/find 4755"]
    assert lines["kernel settings"] == ["+ kernel.sysrq 0"]
    assert any(line.startswith("+ /etc/sysctl.d/90-x.conf 0644 15 bytes ") for line in lines["files"])
    assert set(difference.unknown) >= {"ports", "controls"}
    same = compare(str(one), str(one), builds=tmp_path, open_session=no_session)
    assert not any(same.subjects.values())


@pytest.mark.subprocess
def test_a_disk_without_a_system_is_said(tmp_path: Path) -> None:
    disk = tmp_path / "disk.raw"
    disk.write_bytes(bytes(1 << 20))
    with pytest.raises(BlockUnreadable, match="no operating system"):
        compare(str(disk), str(disk), builds=tmp_path, open_session=no_session)
