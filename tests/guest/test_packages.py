"""The package database of a guest, as dpkg or rpm tell it."""

import shutil
import subprocess
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import GuestFailed
from pipeline.guest.packages import MARK, QUESTION, parse_packages
from pipeline.report.sbom import Package

DEBIAN = f"""{MARK} system
PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"
VERSION_ID="12"
ID=debian

{MARK} dpkg
ii \topenssh-server\t1:9.2p1-2+deb12u7\tamd64\topenssh\t1:9.2p1-2+deb12u7\t1234\tDebian OpenSSH <ssh@example.org>
ii \tadduser\t3.134\tall\tadduser\t3.134\t5\tAdduser <a@example.org>
hi \tlinux-image-amd64\t6.1.1-1\tamd64\tlinux-signed-amd64\t6.1.1+1\t\tKernel <k@example.org>
rc \tgone\t1.0\tall\tgone\t1.0\t1\tNobody <n@example.org>
{MARK} licences
/usr/share/doc/adduser/copyright:License: GPL-2+
/usr/share/doc/adduser/copyright:License: GPL-2+
/usr/share/doc/adduser/copyright:License: Expat
/usr/share/doc/not a licence
"""
AMAZON = f"""{MARK} system
NAME="Amazon Linux"
VERSION_ID="2023"
ID="amzn"

{MARK} rpm
openssh\t(none)\t8.7p1-8.amzn2023\tx86_64\topenssh-8.7p1-8.amzn2023.src.rpm\t2048\tAmazon Linux\tBSD
dbus\t1\t1.12.28-1.amzn2023\tx86_64\tdbus-1.12.28-1.amzn2023.src.rpm\t2048\tAmazon Linux\t(GPLv2+ or AFL)
gpg-pubkey\t(none)\td832c631-6515c85e\t(none)\t(none)\t0\t(none)\tpubkey
"""


def test_debian_is_read() -> None:
    inventory = parse_packages(DEBIAN)
    assert (inventory.kind, inventory.distribution, inventory.version) == ("deb", "debian", "12")
    assert inventory.title == "Debian GNU/Linux 12 (bookworm)"
    assert inventory.packages == (
        Package(
            "adduser",
            "3.134",
            "all",
            supplier="Adduser <a@example.org>",
            licences=("Expat", "GPL-2+"),
            installed_bytes=5120,
        ),
        Package(
            "linux-image-amd64",
            "6.1.1-1",
            "amd64",
            source="linux-signed-amd64@6.1.1+1",
            supplier="Kernel <k@example.org>",
        ),
        Package(
            "openssh-server",
            "1:9.2p1-2+deb12u7",
            "amd64",
            source="openssh",
            supplier="Debian OpenSSH <ssh@example.org>",
            installed_bytes=1234 * 1024,
        ),
    )


def test_amazon_linux_is_read() -> None:
    inventory = parse_packages(AMAZON)
    assert (inventory.kind, inventory.distribution, inventory.version) == ("rpm", "amzn", "2023")
    dbus, openssh = inventory.packages
    assert (dbus.epoch, dbus.version, dbus.licences) == ("1", "1.12.28-1.amzn2023", ("(GPLv2+ or AFL)",))
    assert (openssh.installed_bytes, dbus.installed_bytes) == (2048, 2048)
    assert (openssh.epoch, openssh.source) == ("", "openssh-8.7p1-8.amzn2023.src.rpm")


@pytest.mark.parametrize("text", ["", f"{MARK} dpkg\n", f"{MARK} rpm\n(none)\n", "rpm: no database"])
def test_guest_without_packages_is_refused(text: str) -> None:
    with pytest.raises(GuestFailed, match="no package"):
        parse_packages(text)


@pytest.mark.parametrize("name", [" ", "a b", "\x1b[31m", "ä"])
def test_odd_name_of_a_package_is_refused(name: str) -> None:
    with pytest.raises(GuestFailed, match="cannot be"):
        parse_packages(DEBIAN.replace("\tadduser\t3", f"\t{name}\t3"))


words = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.lists(st.one_of(words, st.sampled_from([f"{MARK} dpkg\n", f"{MARK} rpm\n", "\t", "\n", "ii "])), max_size=30))
def test_any_answer_is_read_or_refused(parts: list[str]) -> None:
    with suppress(GuestFailed):
        assert parse_packages("".join(parts)).packages


@pytest.mark.subprocess
@pytest.mark.skipif(not shutil.which("dpkg-query"), reason="asks this machine's own dpkg")
def test_question_is_answered_by_a_debian() -> None:
    asked = subprocess.run(["sh", "-c", QUESTION], capture_output=True, text=True, check=True)
    names = {package.name for package in parse_packages(asked.stdout).packages}
    assert {"dpkg", "libc6", "base-files"} <= names
    assert asked.stderr == ""
