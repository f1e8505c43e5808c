"""Which QEMU runs the guests. That its guests boot is test_guests.py's to show."""

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from pipeline.localcloud import emulator
from pipeline.localcloud.base_image import BaseImageFailed
from pipeline.localcloud.emulator import Emulator, choose_emulator, fetch_emulator, read_version

NEWER = Emulator("/cache/qemu", (10, 0, 2), (Path("/cache/seabios"), Path("/cache/share")))


@pytest.fixture(autouse=True)
def _anew() -> Iterator[None]:
    """Forget what was chosen for the guests of other tests, and here."""
    choose_emulator.cache_clear()
    yield
    choose_emulator.cache_clear()


@pytest.mark.parametrize(
    ("own", "accelerated", "on_debian_12", "fetched"),
    [
        ((7, 2, 22), "tcg", True, True),
        ((7, 2, 22), "kvm", True, False),
        ((7, 2, 22), "tcg", False, False),
        ((8, 0, 0), "tcg", True, False),
        ((10, 0, 2), "tcg", False, False),
    ],
)
def test_a_newer_one_is_fetched_where_the_own_one_is_slow(
    own: tuple[int, ...], accelerated: str, on_debian_12: bool, fetched: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(emulator, "read_version", lambda program: own)
    monkeypatch.setattr(emulator, "accelerator", lambda: accelerated)
    monkeypatch.setattr(emulator, "runs_debian_12", lambda: on_debian_12)
    monkeypatch.setattr(emulator, "fetch_emulator", lambda cache: NEWER)
    assert choose_emulator() == (NEWER if fetched else Emulator("qemu-system-x86_64", own))


def test_its_firmware_is_its_own() -> None:
    assert NEWER.command == ["/cache/qemu", "-L", "/cache/seabios", "-L", "/cache/share"]
    assert Emulator("qemu-system-x86_64", (8, 2, 2)).command == ["qemu-system-x86_64"]


def test_the_own_one_does_it_where_no_newer_one_can_be_had(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(cache: Path) -> Emulator:
        raise BaseImageFailed("apt-get failed with status 100")

    monkeypatch.setattr(emulator, "read_version", lambda program: (7, 2, 22))
    monkeypatch.setattr(emulator, "accelerator", lambda: "tcg")
    monkeypatch.setattr(emulator, "runs_debian_12", lambda: True)
    monkeypatch.setattr(emulator, "fetch_emulator", fail)
    with caplog.at_level(logging.WARNING, "localcloud"):
        assert choose_emulator() == Emulator("qemu-system-x86_64", (7, 2, 22))
    assert "apt-get failed with status 100" in caplog.text


def test_what_cannot_be_unpacked_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unpack(folder: Path) -> Path:
        (folder / "half").write_bytes(b"of it")
        raise BaseImageFailed("dpkg-deb failed")

    monkeypatch.setattr(emulator, "unpack_emulator", unpack)
    with pytest.raises(BaseImageFailed):
        fetch_emulator(tmp_path)
    assert not list(tmp_path.glob("[!.]*")) and not list(tmp_path.glob(".making-*"))


@pytest.mark.subprocess
@pytest.mark.parametrize("says", ["exit 3", "echo QEMU", "echo QEMU emulator version 10.0"])
def test_one_that_does_not_run_is_none(says: str, tmp_path: Path) -> None:
    program = tmp_path / "qemu"
    program.write_text(f"#!/bin/sh\n{says}\n")
    program.chmod(0o755)
    with pytest.raises(OSError, match="qemu does not run"):
        read_version(str(program))
    with pytest.raises(OSError):
        read_version(str(tmp_path / "missing"))


@pytest.mark.end_to_end
@pytest.mark.skipif(not emulator.runs_debian_12(), reason="only Debian 12 has a newer QEMU among its backports")
def test_debians_newer_one_is_fetched_once_and_verified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run: Callable[..., None] = emulator.run
    commands: list[str] = []

    def watched(command: list[str], **options: Path) -> None:
        commands.append(" ".join(command))
        run(command, **options)

    monkeypatch.setattr(emulator, "run", watched)
    found = fetch_emulator(tmp_path)
    assert found.version >= (emulator.SLOW_BEFORE,) and Path(found.program).is_relative_to(tmp_path)
    assert all((folder / "vgabios-stdvga.bin").exists() or (folder / "keymaps").exists() for folder in found.data)
    assert not list(tmp_path.rglob("*.deb")), "what it was unpacked from is not kept"
    many = len(commands)
    assert fetch_emulator(tmp_path) == found and len(commands) == many
    (tmp_path / "keys-of-nobody.gpg").touch()
    monkeypatch.setattr(emulator, "KEYRING", tmp_path / "keys-of-nobody.gpg")
    with pytest.raises(BaseImageFailed, match="NO_PUBKEY"):
        fetch_emulator(tmp_path / "another")
