"""The ssh daemon, as `sshd -T` says it behaves towards each user."""

import re

import pytest

from checks.fixtures import Ask, Settings
from pipeline.spec import Spec, SshdOptions

WEAK = re.compile(
    r"cbc|3des|arcfour|blowfish|cast128|rc4|md5|sha1(?!\d)|-96|umac-64|ripemd|^none$|group1-|group14-"
    r"|^ssh-rsa(-cert-v01@openssh\.com)?$|^ssh-dss"
)
TEMPLATE = {
    "syslogfacility": ("AUTHPRIV",),
    "hostbasedauthentication": ("no",),
    "kerberosauthentication": ("no",),
    "gssapiauthentication": ("no",),
    "ignorerhosts": ("yes",),
    "ignoreuserknownhosts": ("yes",),
    "usepam": ("yes",),
    "x11forwarding": ("no",),
    "printlastlog": ("yes",),
    "permituserenvironment": ("no",),
    "permituserrc": ("no",),
    "protocol": ("2",),
    "rhostsrsaauthentication": ("no",),
    "useprivilegeseparation": ("yes", "sandbox"),
}
LIMITS = {
    "allowagentforwarding": "no",
    "allowstreamlocalforwarding": "no",
    "gatewayports": "no",
    "permittunnel": "no",
    "strictmodes": "yes",
    "loglevel": "VERBOSE",
}


@pytest.fixture
def wanted(spec: Spec) -> SshdOptions:
    """What the spec says of sshd."""
    if spec.harden.sshd is None:
        pytest.skip("the spec leaves sshd as the base image has it")
    return spec.harden.sshd


def differing(sshd: dict[str, Settings], keyword: str, *allowed: str) -> dict[str, list[str]]:
    """Return, for each connection that gets another value than the allowed ones, what it gets."""
    return {
        connection: settings[keyword]
        for connection, settings in sshd.items()
        if keyword in settings and not set(settings[keyword]) <= set(allowed)
    }


@pytest.mark.controls("H01", layers="LB")
@pytest.mark.parametrize("keyword", ["passwordauthentication", "permitemptypasswords"])
def test_no_password_opens_the_door(wanted: SshdOptions, sshd: dict[str, Settings], keyword: str) -> None:
    """Nobody can log in with a password."""
    assert all(keyword in settings for settings in sshd.values())
    assert not differing(sshd, keyword, "no")


@pytest.mark.controls("H01", layers="LB")
def test_no_keyboard_interactive_login(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """Nobody can log in by answering questions: they would ask for the password."""
    names = ("kbdinteractiveauthentication", "challengeresponseauthentication")
    assert all(any(name in settings for name in names) for settings in sshd.values())
    assert not {name: differing(sshd, name, "no") for name in names if differing(sshd, name, "no")}


@pytest.mark.controls("H01", layers="LB")
def test_keys_are_accepted(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """Login with a key is possible, and no other method stands beside it."""
    assert not differing(sshd, "pubkeyauthentication", "yes")
    assert not differing(sshd, "authenticationmethods", "any", "publickey")


@pytest.mark.controls("H02", layers="LB")
def test_root_login(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """Root logs in as the spec says: not at all, or with a key only."""
    allowed = {"no": ("no",), "prohibit-password": ("without-password", "prohibit-password", "no")}
    assert all("permitrootlogin" in settings for settings in sshd.values())
    assert not differing(sshd, "permitrootlogin", *allowed[wanted.permit_root_login])


@pytest.mark.controls("H03", layers="LB")
def test_only_the_login_users_may_log_in(
    wanted: SshdOptions, sshd: dict[str, Settings], login_users: frozenset[str]
) -> None:
    """AllowUsers names the spec's login users, root where the spec lets root log in, and nobody else."""
    welcome = login_users | ({"root"} if wanted.permit_root_login != "no" else set())
    assert welcome, "the spec lets nobody in"
    allowed = {connection: set(" ".join(one.get("allowusers", [])).split()) for connection, one in sshd.items()}
    assert {connection: names for connection, names in allowed.items() if names != welcome} == {}


@pytest.mark.controls("H04", layers="LB")
@pytest.mark.parametrize("keyword", sorted(TEMPLATE))
def test_hardened_template(wanted: SshdOptions, sshd: dict[str, Settings], sshd_version: str, keyword: str) -> None:
    """A setting of the hardened template applies to everybody."""
    if not any(keyword in settings for settings in sshd.values()):
        pytest.skip(f"{sshd_version} does not know {keyword}")
    assert not differing(sshd, keyword, *TEMPLATE[keyword])


@pytest.mark.controls("H04", layers="LB")
def test_no_environment_is_accepted(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """A client cannot set environment variables."""
    assert not differing(sshd, "acceptenv", "")


@pytest.mark.controls("H04", layers="LB")
def test_sftp_is_there(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """Files are copied with sftp."""
    subsystems = {line.split()[0] for settings in sshd.values() for line in settings.get("subsystem", [])}
    assert subsystems == {"sftp"}


@pytest.mark.controls("H05", layers="L")
def test_use_dns(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """sshd looks up the names of its clients only if the spec says so."""
    assert not differing(sshd, "usedns", "yes" if wanted.use_dns else "no")


@pytest.mark.controls("H06", layers="LB")
@pytest.mark.parametrize(
    "keyword", ["ciphers", "kexalgorithms", "macs", "hostkeyalgorithms", "pubkeyacceptedalgorithms"]
)
def test_algorithms_are_modern(wanted: SshdOptions, sshd: dict[str, Settings], sshd_version: str, keyword: str) -> None:
    """No weak algorithm is offered."""
    offered = {name for settings in sshd.values() for line in settings.get(keyword, []) for name in line.split(",")}
    if not offered:
        pytest.skip(f"{sshd_version} does not know {keyword}")
    assert sorted(name for name in offered if WEAK.search(name)) == []


@pytest.mark.controls("H06", layers="LB")
@pytest.mark.parametrize("keyword", sorted(LIMITS))
def test_limits(wanted: SshdOptions, sshd: dict[str, Settings], sshd_version: str, keyword: str) -> None:
    """What a connection may do is limited."""
    if not any(keyword in settings for settings in sshd.values()):
        pytest.skip(f"{sshd_version} does not know {keyword}")
    assert not differing(sshd, keyword, LIMITS[keyword])


@pytest.mark.controls("H06", layers="LB")
def test_numbers_are_limited(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """Attempts, waiting time, sessions and unauthenticated connections are limited."""
    for connection, settings in sshd.items():
        assert int(settings["maxauthtries"][0]) <= wanted.max_auth_tries, connection
        assert 0 < int(settings["logingracetime"][0]) <= wanted.login_grace_seconds, connection
        assert int(settings["maxsessions"][0]) <= 10, connection
        assert int(settings["maxstartups"][0].split(":")[-1]) <= 100, connection


@pytest.mark.controls("H06", layers="LB")
def test_forwarding(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """TCP forwarding is as the spec says."""
    assert not differing(sshd, "allowtcpforwarding", "yes" if wanted.allow_tcp_forwarding else "no")


@pytest.mark.controls("H06", layers="LB")
def test_moduli_are_large(wanted: SshdOptions, ask: Ask) -> None:
    """No group for the key exchange has fewer than 3071 bits."""
    sizes = ask("awk '/^[0-9]/ && !seen[$5]++ { print $5 }' /etc/ssh/moduli")
    assert [size for size in sizes.split() if int(size) < 3071] == []


@pytest.mark.controls("H02", "H18", layers="LB")
def test_port(wanted: SshdOptions, sshd: dict[str, Settings]) -> None:
    """sshd listens on the port of the spec, and on no other."""
    assert not differing(sshd, "port", str(wanted.port))


@pytest.mark.controls("H03", "V01", layers="LB")
@pytest.mark.parametrize(
    "keyword", ["authorizedkeyscommand", "authorizedprincipalscommand", "trustedusercakeys", "authorizedprincipalsfile"]
)
def test_nobody_else_vouches_for_users(sshd: dict[str, Settings], sshd_version: str, keyword: str) -> None:
    """Neither a command nor a certificate authority lets further people in."""
    if not any(keyword in settings for settings in sshd.values()):
        pytest.skip(f"{sshd_version} does not know {keyword}")
    assert not differing(sshd, keyword, "none")


@pytest.mark.controls("H03", "V01", layers="LB")
def test_keys_are_read_from_the_homes_only(sshd: dict[str, Settings]) -> None:
    """AuthorizedKeysFile names the usual places in a user's home, where the checks of the keys look."""
    usual = {".ssh/authorized_keys", ".ssh/authorized_keys2", "%h/.ssh/authorized_keys", "%h/.ssh/authorized_keys2"}
    places = {place for one in sshd.values() for line in one["authorizedkeysfile"] for place in line.split()}
    assert sorted(places - usual) == []
