"""The base image: what goes in and where it lies. That it boots is test_guests.py's to show."""

import hashlib
import re
import struct
import subprocess
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pipeline.localcloud import base_image, distributions, network
from pipeline.localcloud.base_image import SECTOR, BaseImageFailed, Sources
from pipeline.localcloud.distributions import DISTRIBUTIONS, Distribution

SOURCES = Sources("http://mirror.example/debian", "http://mirror.example/security", None)


def test_the_gateway_is_the_networks() -> None:
    assert network.gateway_address("172.31.9.9") == base_image.GATEWAY


def test_the_digest_follows_suite_sources_and_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = base_image.recipe_digest("bookworm", SOURCES)
    assert first == base_image.recipe_digest("bookworm", SOURCES)
    others = {
        base_image.recipe_digest("trixie", SOURCES),
        base_image.recipe_digest("bookworm", replace(SOURCES, proxy="p")),
    }
    monkeypatch.setattr(base_image, "RECIPE", tmp_path)
    others.add(base_image.recipe_digest("bookworm", SOURCES))
    (tmp_path / "customize.sh").write_text("true")
    others.add(base_image.recipe_digest("bookworm", SOURCES))
    assert len(others | {first}) == 5


def test_the_overlay_is_roots_whatever_the_checkout_says(tmp_path: Path) -> None:
    base_image.pack_overlay(tmp_path / "overlay.tar", SOURCES, DISTRIBUTIONS["trixie"])
    with tarfile.open(tmp_path / "overlay.tar") as tar:
        entries = {entry.name: entry for entry in tar}
        apt_sources = tar.extractfile("etc/apt/sources.list.d/debian.sources")
        assert apt_sources is not None
        text = apt_sources.read().decode()
    assert {(entry.uid, entry.gid) for entry in entries.values()} == {(0, 0)}
    assert entries["etc/initramfs-tools/scripts/init-bottom/udev"].mode == 0o755
    assert entries["etc/hosts"].mode == 0o644
    assert "URIs: http://mirror.example/security\nSuites: trixie-security\n" in text
    assert "etc/apt/apt.conf.d/01proxy" not in entries


@pytest.mark.parametrize(
    ("proxy", "handed_on"),
    [
        (None, None),
        ("http://127.0.0.1:3142", "http://172.31.0.1:3142"),
        ("http://localhost:3128/", "http://172.31.0.1:3128"),
        ("http://proxy.example:8080", "http://proxy.example:8080"),
        ("http://me:secret@proxy.example:8080", None),
    ],
)
def test_the_hosts_proxy_is_handed_on_without_passwords(proxy: str | None, handed_on: str | None) -> None:
    files = base_image.proxy_files(proxy)
    if handed_on is None:
        assert files == {}
    else:
        assert files[Path("etc/apt/apt.conf.d/01proxy")].decode() == f'Acquire::http::Proxy "{handed_on}";\n'
        assert f"https_proxy={handed_on}\n" in files[Path("etc/environment")].decode()


def test_the_hosts_mirrors_and_proxy_are_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {
        "apt-get": "Debian|Debian|http://near/debian/\nOther|Other|http://other/\nDebian|Debian-Security|http://near/security/\n",
        "apt-config": "proxy='http://near:3142'\n",
    }

    def run(command: list[str], **options: object) -> subprocess.CompletedProcess[str]:
        return subprocess.CompletedProcess(command, 0, answers[command[0]], "")

    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(base_image.shutil, "which", lambda name: name)
    assert base_image.host_sources() == Sources("http://near/debian", "http://near/security", "http://near:3142")


def test_grub_is_embedded_where_its_own_fields_say(tmp_path: Path) -> None:
    image = tmp_path / "image.raw"
    with image.open("wb") as file:
        file.truncate(16 * 2**20)
        file.seek(440)
        file.write(b"partition table")
    base_image.embed_grub(image, b"\x01" * 512, b"\x02" * (3 * SECTOR - 7))
    content = image.read_bytes()
    assert content[440:455] == b"partition table"
    assert struct.unpack_from("<Q", content, 0x5C) == (2048,)
    assert content[0x66:0x68] == b"\x90\x90"
    core = content[2048 * SECTOR :]
    assert struct.unpack_from("<QHH", core, 500) == (2049, 2, 0x820)
    assert core[SECTOR : 3 * SECTOR - 7] == b"\x02" * (2 * SECTOR - 7) and not any(core[3 * SECTOR - 7 :])


def test_a_core_image_that_is_too_large_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BaseImageFailed, match="larger than its partition"):
        base_image.embed_grub(tmp_path / "none", b"\0" * 512, b"\0" * (4 * 2**20))


def test_an_image_is_made_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []

    def build(
        distribution: Distribution, sources: Sources, identity: object, folder: Path, report: Callable[[str], None]
    ) -> Path:
        made.append(identity)
        (folder / "image.raw").write_bytes(b"image")
        return folder / "image.raw"

    monkeypatch.setattr(base_image, "host_sources", lambda _: SOURCES)
    monkeypatch.setattr(base_image, "build_image", build)
    first = base_image.make_base_image("bookworm", tmp_path, print)
    assert base_image.make_base_image("bookworm", tmp_path, print) == first
    assert len(made) == 1 and first.path.read_bytes() == b"image"
    assert first.name.startswith("debian-12-amd64-2") and list(tmp_path.glob("[!.]*")) == [first.path]


def test_a_failed_build_leaves_nothing_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def build(*arguments: object) -> Path:
        raise BaseImageFailed("mmdebstrap failed")

    monkeypatch.setattr(base_image, "host_sources", lambda _: SOURCES)
    monkeypatch.setattr(base_image, "build_image", build)
    with pytest.raises(BaseImageFailed):
        base_image.make_base_image("bookworm", tmp_path, print)
    assert not list(tmp_path.glob("[!.]*")) and not list(tmp_path.glob(".making-*"))


@pytest.mark.subprocess
def test_the_keys_of_another_distribution_are_known_by_the_hash_of_their_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributions, "KEYRINGS", Path("/nowhere/keyrings"))
    keys = tmp_path / "package/nowhere/keyrings/ubuntu-archive-keyring.gpg"
    keys.parent.mkdir(parents=True)
    keys.write_bytes(b"keys")
    control = tmp_path / "package/DEBIAN/control"
    control.parent.mkdir()
    control.write_text(
        "Package: keys\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <n@localhost>\nDescription: keys\n"
    )
    subprocess.run(
        ["dpkg-deb", "--build", tmp_path / "package", tmp_path / "keys.deb"], check=True, capture_output=True
    )
    digest = hashlib.sha256((tmp_path / "keys.deb").read_bytes()).hexdigest()
    sources = Sources(f"file://{tmp_path}", "", None)
    right = replace(DISTRIBUTIONS["noble"], package_of_keys=("keys.deb", digest))
    assert base_image.find_keyring(right, sources, tmp_path).read_bytes() == b"keys"
    other = replace(right, package_of_keys=("keys.deb", "0" * 64))
    with pytest.raises(BaseImageFailed, match=r"package of the keys of Ubuntu 24\.04 .* is another one"):
        base_image.find_keyring(other, sources, tmp_path)
    with pytest.raises(BaseImageFailed, match="this host has no keys of Debian 12"):
        base_image.find_keyring(DISTRIBUTIONS["bookworm"], sources, tmp_path)


def test_each_distribution_has_its_own_user_and_sources(tmp_path: Path) -> None:
    users = {}
    for suite in ("bookworm", "noble"):
        base_image.pack_overlay(tmp_path / "overlay.tar", SOURCES, DISTRIBUTIONS[suite])
        with tarfile.open(tmp_path / "overlay.tar") as tar:
            texts = {entry.name: tar.extractfile(entry).read().decode() for entry in tar}
        users[suite] = re.findall(r"(?m)^    name: (\w+)$", "\n".join(texts.values()))
        vendor = DISTRIBUTIONS[suite].vendor.lower()
        assert (
            f"Signed-By: /usr/share/keyrings/{vendor}-archive-keyring.gpg"
            in texts[f"etc/apt/sources.list.d/{vendor}.sources"]
        )
    assert users == {"bookworm": ["admin"], "noble": ["ubuntu"]}


@pytest.mark.subprocess
def test_a_tool_that_fails_or_is_missing_is_named() -> None:
    with pytest.raises(BaseImageFailed, match=r"sh failed with status 3:\nno space"):
        base_image.run(["sh", "-c", "echo no space >&2; exit 3"])
    with pytest.raises(BaseImageFailed, match="no-such-tool is not installed"):
        base_image.run(["no-such-tool"])


@pytest.mark.parametrize(
    ("name", "suite"),
    [
        ("debian-12-amd64-*", "bookworm"),
        ("debian-13-amd64-20260101-1", "trixie"),
        ("ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*", "noble"),
        ("debian-*", None),
        ("", None),
    ],
)
def test_the_name_of_an_image_says_its_release(name: str, suite: str | None) -> None:
    assert distributions.suite_of(name) == suite
