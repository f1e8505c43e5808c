"""The people who may log in: those of the spec, as the spec describes them, and nobody else."""

import json
import re

import pytest

from checks.fixtures import PASSWD, Account, Ask, File
from pipeline.spec import Spec, Sudo, User

PASSWORDS = r"""
getent shadow | awk -F: '{
  state = "hash"
  if ($2 == "") state = "empty"; else if ($2 ~ /^[!*]+$/ || $2 == "!*" || $2 == "!!") state = "locked"
  else if ($2 ~ /^[!*]/) state = "locked-hash"
  print $1, state }'
"""
SUDOERS = "cvtsudoers -e -f json /etc/sudoers"
RIGHTS = 'for user in %s; do echo "## $user"; LC_ALL=C sudo -l -U $user 2>&1; done; true'
KEY = re.compile(r"(?:ssh-(?:rsa|ed25519|dss)|ecdsa-sha2-nistp\d+|sk-\S+@openssh\.com)\S* +(\S+)")
FIRST_USER_ID, LAST_USER_ID = 1000, 60000


@pytest.fixture
def people(spec: Spec) -> tuple[User, ...]:
    """The users of the spec."""
    if not spec.users:
        pytest.skip("the spec names no users")
    return spec.users


@pytest.fixture
def passwords(ask: Ask) -> dict[str, str]:
    """For each account: `locked`, `locked-hash`, `empty` or `hash`. The hashes stay on the guest."""
    return {name: state for name, state in (line.split(" ") for line in ask(PASSWORDS).splitlines())}


@pytest.fixture
def rights(
    ask: Ask, programs: frozenset[str], accounts: dict[str, Account], login_users: frozenset[str]
) -> dict[str, str]:
    """What sudo says about root and each login user."""
    people = sorted((login_users | {"root"}) & accounts.keys())
    if "sudo" not in programs:
        pytest.skip("sudo is not installed")
    parts = ask(RIGHTS.replace("%s", " ".join(people))).split("## ")[1:]
    return {name: said for name, _, said in (part.partition("\n") for part in parts)}


@pytest.fixture
def privileged(ask: Ask, programs: frozenset[str], groups: dict[str, set[str]]) -> set[str]:
    """Everybody to whom a rule of sudo grants anything. Aliases and groups are resolved."""
    if "sudo" not in programs:
        pytest.skip("sudo is not installed")
    if "cvtsudoers" not in programs:
        pytest.skip("this sudo has no cvtsudoers")
    people: set[str] = set()
    for rule in json.loads(ask(SUDOERS)).get("User_Specs", []):
        for who in rule["User_List"]:
            if "usergroup" in who:
                people |= groups.get(who["usergroup"], set())
            else:
                people.add(" ".join(str(value) for value in who.values()))
    return people


def grants(said: str) -> list[str]:
    """Return what somebody may run, as sudo prints it."""
    return re.findall(r"^\s+(\(.*)$", said, re.MULTILINE)


def grant_of(sudo: Sudo) -> str:
    """Return what the spec grants, as sudo prints it."""
    until = f"NOTAFTER={sudo.until:%Y%m%d}235959Z " if sudo.until else ""
    return f"{until}{'' if sudo.password else 'NOPASSWD: '}{sudo.commands}"


@pytest.mark.controls("H10", layers="LB")
def test_users_are_as_the_spec_says(people: tuple[User, ...], accounts: dict[str, Account]) -> None:
    """Each user has the full name and the shell of the spec, and a home."""
    wanted = {user.name: (user.full_name, user.shell) for user in people}
    found = {name: (accounts[name].full_name, accounts[name].shell) for name in wanted if name in accounts}
    assert found == wanted


@pytest.mark.controls("H10", layers="LB")
def test_groups_are_as_the_spec_says(spec: Spec, people: tuple[User, ...], groups: dict[str, set[str]]) -> None:
    """Each user is in a group of their own name and in the groups of the spec, and in no other.

    The user that gets the launch key may be in more: cloud-init sees to that at each boot.
    """
    wrong = {}
    for user in people:
        wanted, found = {user.name, *user.groups}, {name for name, members in groups.items() if user.name in members}
        if not wanted <= found or (found != wanted and user.name != spec.image.launch_user):
            wrong[user.name] = sorted(found)
    assert wrong == {}


@pytest.mark.controls("H10", layers="LB")
def test_homes_are_private(people: tuple[User, ...], accounts: dict[str, Account], files: tuple[File, ...]) -> None:
    """.ssh is 700, authorized_keys is 600, and both are their user's."""
    entries = {str(file): file for file in files}
    wrong = []
    for user in people:
        home = accounts[user.name].home
        for path, mode in ((f"{home}/.ssh", 0o700), (f"{home}/.ssh/authorized_keys", 0o600)):
            entry = entries.get(path)
            if entry is None or entry.mode != mode or entry.owner != user.name:
                wrong.append(f"{path}: {f'{entry.mode:o} {entry.owner}' if entry else 'missing'}")
    assert wrong == []


@pytest.mark.controls("H09", "H10", layers="LB")
def test_users_have_their_keys(people: tuple[User, ...], accounts: dict[str, Account], ask: Ask) -> None:
    """Each key of the spec is in its user's authorized_keys."""
    missing = []
    for user in people:
        found = ask(f"cat {accounts[user.name].home}/.ssh/authorized_keys")
        missing += [f"{user.name}: {key.split()[-1]}" for key in user.keys if KEY.search(key)[1] not in found]  # type: ignore[index]
    assert missing == []


@pytest.mark.controls("H11", layers="LB")
def test_nobody_else_has_an_account(
    spec: Spec, layer: str, accounts: dict[str, Account], login_users: frozenset[str]
) -> None:
    """No login user that the spec does not name: leavers are gone. The build's own user leaves with the power-off."""
    if not spec.harden.remove_other_users:
        pytest.skip("the spec keeps users that it does not name (remove_other_users)")
    users = {one.name for one in accounts.values() if FIRST_USER_ID <= one.uid <= LAST_USER_ID}
    leaving = {spec.ssh.user} if layer == "L" else set()
    assert sorted(users - login_users - leaving) == []


@pytest.mark.controls("H11", "V02", layers="LB")
def test_no_system_account_has_a_shell(accounts: dict[str, Account], login_users: frozenset[str]) -> None:
    """Only root and the login users have a login shell."""
    others = {one.name for one in accounts.values() if one.may_log_in} - login_users - {"root"}
    assert sorted(name for name in others if accounts[name].uid < FIRST_USER_ID) == []


@pytest.mark.controls("H11", layers="LB")
def test_no_file_is_orphaned(files: tuple[File, ...]) -> None:
    """Every file belongs to an account and a group that exist."""
    assert [str(file) for file in files if file.owner.isdigit() or file.group.isdigit()][:20] == []


@pytest.mark.controls("H12", "H30", "V02", layers="LB")
def test_only_administrators_have_sudo(spec: Spec, layer: str, privileged: set[str]) -> None:
    """sudo is for the spec's administrators, and the launch user where the spec lets it. The build's user leaves."""
    allowed = {user.name for user in spec.users if user.sudo} | {"root"}
    allowed |= {spec.image.launch_user} if spec.image.launch_user and spec.harden.launch_user_sudo else set()
    allowed |= {spec.ssh.user} if layer == "L" else set()
    assert sorted(privileged - allowed) == []


@pytest.mark.controls("H12", layers="LB")
def test_grants_are_as_the_spec_says(people: tuple[User, ...], rights: dict[str, str]) -> None:
    """Each administrator may run what the spec grants, for as long and with a password or without as it says."""
    wrong = {}
    for user in people:
        given = {grant.partition(") ")[2] for grant in grants(rights.get(user.name, ""))}
        if given != ({grant_of(user.sudo)} if user.sudo else set()):
            wrong[user.name] = sorted(given)
    assert wrong == {}


@pytest.mark.controls("H12", layers="LB")
def test_sudo_is_logged(rights: dict[str, str]) -> None:
    """Each use of sudo is written down."""
    assert [name for name, said in rights.items() if "!syslog" in said and "logfile=" not in said] == []


@pytest.mark.controls("H13", layers="LB")
def test_root_has_no_known_password(passwords: dict[str, str]) -> None:
    """The root password is locked."""
    assert passwords["root"] in ("locked", "locked-hash")


@pytest.mark.controls("H14", layers="LB")
def test_no_account_has_a_password(passwords: dict[str, str]) -> None:
    """No account has an empty or a set password, nor a hash that somebody could unlock."""
    assert {name: state for name, state in passwords.items() if state != "locked" and name != "root"} == {}


@pytest.mark.controls("H14", layers="L")
def test_no_password_hash_ships(passwords: dict[str, str]) -> None:
    """The image holds no password hash, not even a locked one."""
    assert [name for name, state in passwords.items() if "hash" in state] == []


@pytest.mark.controls("H14", layers="LB")
def test_accounts_have_shadow_entries(passwords: dict[str, str], ask: Ask) -> None:
    """Passwords are nowhere but in the shadow file, and every account is there."""
    fields = [line.split(":") for line in ask(PASSWD).splitlines()]
    in_the_open = [name for name, password, *_ in fields if not re.fullmatch(r"x|\*|!.*", password)]
    assert in_the_open == []
    assert sorted({name for name, *_ in fields} - passwords.keys()) == []


@pytest.mark.controls("V02", layers="LB")
def test_root_has_no_twin(accounts: dict[str, Account]) -> None:
    """Only root has the user id 0, and only root's group has the group id 0."""
    assert [one.name for one in accounts.values() if one.uid == 0] == ["root"]
    assert [one.name for one in accounts.values() if one.gid == 0 and one.may_log_in] == ["root"]
