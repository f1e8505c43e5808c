"""Keys: none of the build's may ship, and only declared people's may open the door."""

import re
from collections.abc import Callable

import pytest

from checks.fixtures import Account, Ask, File
from pipeline.spec import Spec

AUTHORIZED = r"""
getent passwd | while IFS=: read -r user _ _ _ _ home _; do
  for file in "$home"/.ssh/authorized_keys "$home"/.ssh/authorized_keys2; do
    [ -f "$file" ] && sed -e '/^[[:space:]]*#/d' -e '/^[[:space:]]*$/d' -e "s|^|$user	$file	|" "$file"
  done
done | sort -u
"""
KEY = re.compile(r"(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-nistp\d+|sk-\S+@openssh\.com)\S* +(\S+)")
STRENGTH = r"""
for file in /etc/ssh/ssh_host_*_key.pub; do [ -f "$file" ] && ssh-keygen -l -f "$file"; done; true
"""
LEAST_BITS = {"RSA": 3072, "ECDSA": 256, "ED25519": 256}
PRIVATE_NAMES = re.compile(r"^id_(rsa|dsa|ecdsa|ed25519|ecdsa_sk|ed25519_sk|xmss)(\.pub)?$|\.ppk$|^agent\.\d+$")


def key_of(line: str) -> str:
    """Return the key itself of a line of authorized_keys, without options and comment."""
    match = KEY.search(line)
    return match[1] if match else line


@pytest.fixture
def authorized(ask: Ask) -> list[tuple[str, str, str]]:
    """Every line of every authorized_keys file of every account: user, file, line."""
    return [(user, file, line) for user, file, line in (row.split("\t", 2) for row in ask(AUTHORIZED).splitlines())]


@pytest.mark.controls("S02", "H11", "V01", layers="LB")
def test_only_declared_keys_open_the_door(
    spec: Spec, layer: str, authorized: list[tuple[str, str, str]], expectations: dict[str, str]
) -> None:
    """authorized_keys hold the keys of the spec, and on a fresh boot the launch key; in every home of every account."""
    declared = {(user.name, key_of(key)) for user in spec.users for key in user.keys}
    launch_key = key_of(expectations["launch_public_key"]) if expectations.get("launch_public_key") else None
    strangers = []
    for user, file, line in authorized:
        launched = layer == "B" and key_of(line) == launch_key
        if (user, key_of(line)) in declared or (launched and user == spec.image.launch_user):
            continue
        if launched and "command=" in line.split(key_of(line))[0]:
            continue  # cloud-init's way to tell people that they should log in as somebody else
        strangers.append(f"{file}: {line.split()[-1] if len(line.split()) > 2 else 'a key without a comment'}")
    assert strangers == []


@pytest.mark.controls("S02", layers="LB")
def test_the_key_of_the_build_is_gone(authorized: list[tuple[str, str, str]], fact: Callable[[str], str]) -> None:
    """The key that the build logged in with opens nothing any more."""
    build_key = key_of(fact("build_public_key"))
    assert [file for _, file, line in authorized if build_key in line] == []


@pytest.mark.controls("H15", layers="B")
def test_the_launch_key_has_arrived(
    spec: Spec, authorized: list[tuple[str, str, str]], fact: Callable[[str], str]
) -> None:
    """The key that this instance was launched with is the launch user's."""
    if spec.image.launch_user is None:
        pytest.skip("the spec has no launch user")
    launch_key = key_of(fact("launch_public_key"))
    assert launch_key in {key_of(line) for user, _, line in authorized if user == spec.image.launch_user}


@pytest.mark.controls("S01", "H08", layers="L")
def test_no_host_key_ships(files: tuple[File, ...]) -> None:
    """No host key and no host certificate, of any type, anywhere."""
    assert [str(file) for file in files if file.name.startswith("ssh_host_") and file.kind != "d"] == []


@pytest.mark.controls("S01", layers="B")
def test_host_keys_are_new(ask: Ask, fact: Callable[[str], str]) -> None:
    """This instance has host keys, and none of them is the build's."""
    old = set(fact("host_key_fingerprints").split())
    now = {line.split()[1] for line in ask(STRENGTH).splitlines()}
    assert now, "there is no host key"
    assert now & old == set()


@pytest.mark.controls("H08", layers="B")
def test_host_keys_are_strong(ask: Ask) -> None:
    """Each host key is of a type and a size that is strong; there is no DSA key."""
    keys = [line.split() for line in ask(STRENGTH).splitlines()]
    assert keys, "there is no host key"
    weak = [" ".join(key) for key in keys if int(key[0]) < LEAST_BITS.get(key[-1].strip("()"), 1 << 20)]
    assert weak == []


@pytest.mark.controls("H08", "H27", layers="B")
def test_host_keys_are_private(files: tuple[File, ...]) -> None:
    """Only root can read the host keys."""
    keys = [file for file in files if re.fullmatch(r"/etc/ssh/ssh_host_\w+_key", str(file))]
    assert keys, "there is no host key"
    assert [str(key) for key in keys if key.owner != "root" or key.mode & 0o177] == []


@pytest.mark.controls("S03", "H27", "S18", layers="LB")
def test_no_private_key(spec: Spec, layer: str, holders: dict[str, list[str]]) -> None:
    """No file holds a private key; on a fresh boot the host keys do."""
    kept = tuple(path.rstrip("/") for path in spec.scrub.keep_files)
    found = []
    for path in holders["private"]:
        host_key = layer == "B" and re.fullmatch(r"/etc/ssh/ssh_host_\w+_key", path)
        if not host_key and not any(path == keep or path.startswith(f"{keep}/") for keep in kept):
            found.append(path)
    assert found == []


@pytest.mark.controls("S03", layers="LB")
def test_no_ssh_client_files(files: tuple[File, ...], accounts: dict[str, Account]) -> None:
    """No user has keys, known hosts, a client configuration or an agent's socket."""
    homes = {account.home.rstrip("/") for account in accounts.values()} - {"", "/"}
    named = [file for file in files if PRIVATE_NAMES.search(file.name) and not file.under("/usr")]
    client = [
        file
        for file in files
        if file.folder.rpartition("/")[0] in homes
        and file.folder.endswith("/.ssh")
        and not file.name.startswith("authorized_keys")
    ]
    assert sorted({str(file) for file in named + client}) == []
