"""Keys that a build makes, keys that an operator brings, and host keys from a console."""

import os
import random
import subprocess
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, Encoding, NoEncryption, PrivateFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import SpecInvalid
from pipeline.guest.keys import load_key_file, make_key_pair, pair_of, read_host_keys
from pipeline.spec.public_keys import PUBLISHED_KEYS

HOST_KEYS = (
    make_key_pair("").public_openssh,
    pair_of(ec.generate_private_key(ec.SECP256R1()), "").public_openssh,
    pair_of(rsa.generate_private_key(65537, 2048), "").public_openssh,
)
BEGIN, END = "-----BEGIN SSH HOST KEY KEYS-----", "-----END SSH HOST KEY KEYS-----"


def console(keys: tuple[str, ...], end: str = "\n") -> str:
    lines = [
        "cloud-init v. 22.4.2 running",
        "-----BEGIN SSH HOST KEY FINGERPRINTS-----",
        "256 SHA256:x root@host (ED25519)",
    ]
    lines += ["-----END SSH HOST KEY FINGERPRINTS-----", BEGIN, *(f"{key} root@host" for key in keys), END, "login: "]
    return end.join(lines)


def write(path: Path, data: bytes, mode: int = 0o600) -> Path:
    path.write_bytes(data)
    path.chmod(mode)
    return path


@pytest.mark.subprocess
def test_ssh_keygen_agrees_with_a_made_key(tmp_path: Path) -> None:
    pair = make_key_pair("assay b-1")
    path = write(tmp_path / "key", pair.private_openssh.reveal.encode())
    shown = subprocess.run(["ssh-keygen", "-y", "-f", path], capture_output=True, text=True, check=True).stdout
    assert shown.split()[:2] == pair.public_openssh.split()[:2]
    listed = subprocess.run(["ssh-keygen", "-l", "-f", path], capture_output=True, text=True, check=True).stdout
    assert listed.split()[1] == pair.fingerprint
    assert pair.public_openssh.endswith(" assay b-1")
    assert "PRIVATE" not in repr(pair)


@pytest.mark.parametrize("form", [PrivateFormat.OpenSSH, PrivateFormat.PKCS8])
@pytest.mark.parametrize(
    "key",
    [
        ed25519.Ed25519PrivateKey.generate(),
        ec.generate_private_key(ec.SECP256R1()),
        rsa.generate_private_key(65537, 2048),
    ],
)
def test_key_files_plain_and_encrypted(tmp_path: Path, key: ed25519.Ed25519PrivateKey, form: PrivateFormat) -> None:
    plain = write(tmp_path / "plain", key.private_bytes(Encoding.PEM, form, NoEncryption()))
    locked = write(tmp_path / "locked", key.private_bytes(Encoding.PEM, form, BestAvailableEncryption(b"open sesame")))
    pair = load_key_file(plain, lambda: pytest.fail("there is no passphrase to ask for"))
    assert load_key_file(locked, lambda: "open sesame").private_openssh.reveal.splitlines()[0] == (
        "-----BEGIN OPENSSH PRIVATE KEY-----"
    )
    assert load_key_file(locked, lambda: "open sesame").fingerprint == pair.fingerprint
    with pytest.raises(SpecInvalid, match="passphrase is wrong"):
        load_key_file(locked, lambda: "guess")
    with pytest.raises(SpecInvalid, match="nobody to ask"):
        load_key_file(locked)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622, 0o777])
def test_an_exposed_key_is_refused(tmp_path: Path, mode: int) -> None:
    path = write(tmp_path / "key", make_key_pair("").private_openssh.reveal.encode(), mode)
    with pytest.raises(SpecInvalid, match=f"mode 0{mode:o}") as error:
        load_key_file(path)
    assert f"chmod 600 {path}" in error.value.describe()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_somebody_elses_key_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "key", make_key_pair("").private_openssh.reveal.encode())
    os.chown(path, 65534, 65534)
    with pytest.raises(SpecInvalid, match="belongs to another user"):
        load_key_file(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "no private key"),
        (make_key_pair("").public_openssh.encode(), "no private key"),
        (b"-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n-----END OPENSSH PRIVATE KEY-----\n", "no private key"),
        (
            dsa.generate_private_key(1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "DSA",
        ),
        (
            rsa.generate_private_key(65537, 1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()),
            "RSA key of 1024 bits",
        ),
    ],
    ids=["empty", "public", "damaged", "dsa", "short rsa"],
)
def test_what_is_no_good_key_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(SpecInvalid, match=message):
        load_key_file(write(tmp_path / "key", data))


def test_a_published_key_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its file may be as private as it wants: anybody has it (A14)."""
    pair = make_key_pair("everybody's")
    monkeypatch.setitem(PUBLISHED_KEYS, pair.fingerprint, "a manual")
    with pytest.raises(SpecInvalid, match="was published by a manual"):
        load_key_file(write(tmp_path / "key", pair.private_openssh.reveal.encode()))


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(SpecInvalid, match="No such file"):
        load_key_file(tmp_path / "none")
    with pytest.raises(SpecInvalid, match="directory"):
        load_key_file(tmp_path)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r\r\n"])
def test_host_keys_are_read_from_a_console(end: str) -> None:
    assert read_host_keys(console(HOST_KEYS, end)) == HOST_KEYS


def test_a_key_of_another_line_is_left_alone() -> None:
    text = console(HOST_KEYS[:1]) + "\n" + HOST_KEYS[1]
    assert read_host_keys(text) == HOST_KEYS[:1]


def test_the_last_complete_boot_counts() -> None:
    newer = (make_key_pair("").public_openssh,)
    assert read_host_keys(console(HOST_KEYS) + console(newer)) == newer
    assert read_host_keys(console(HOST_KEYS) + console(newer).split(END)[0]) == HOST_KEYS
    assert read_host_keys(console(HOST_KEYS).split(END)[0]) == ()


def test_prefixes_and_colours_do_not_hide_keys() -> None:
    text = console(HOST_KEYS).replace("\n", "\x1b[0m\r\n[   12.345678] cloud-init[512]: \x1b[32m")
    assert read_host_keys(text) == HOST_KEYS
    assert read_host_keys(console(HOST_KEYS).replace(" root@host", "\x1bM")) == HOST_KEYS


def test_a_key_cut_in_two_by_the_kernel_is_left_out() -> None:
    cut = HOST_KEYS[0][:40] + "[   13.0] random: crng init done\n" + HOST_KEYS[0][40:]
    assert read_host_keys(console((cut, *HOST_KEYS[1:]))) == HOST_KEYS[1:]


@settings(deadline=None)
@given(st.text(), st.text())
def test_nothing_is_read_from_anything_else(before: str, after: str) -> None:
    assert read_host_keys(before + after) == ()
    assert read_host_keys(f"{before}\n{BEGIN}\n{after}\n{END}\n") == ()


KERNEL = st.sampled_from(["[    9.1] EXT4-fs (vda1): re-mounted", "\x1b[K", "systemd[1]: Started x.", ""])


@settings(deadline=None)
@given(st.lists(KERNEL, max_size=12), st.randoms(use_true_random=False))
def test_lines_of_others_in_between_do_no_harm(noise: list[str], dice: random.Random) -> None:
    lines = console(HOST_KEYS).split("\n")
    for line in noise:
        lines.insert(dice.randint(0, len(lines)), line)
    assert read_host_keys("\r\n".join(lines)) == HOST_KEYS


@settings(deadline=None)
@given(st.integers(0, 600), st.sampled_from(["\n", "\x00", "~", "[ 1.0] x\n"]))
def test_only_whole_keys_are_ever_returned(position: int, noise: str) -> None:
    text = console(HOST_KEYS)
    assert set(read_host_keys(text[:position] + noise + text[position:])) <= set(HOST_KEYS)
