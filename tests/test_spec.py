"""Every fault of a spec is named, with its line and path, and all at once; nothing but SpecInvalid is ever raised."""

import copy
import json
from datetime import date
from pathlib import Path

import pytest
import yaml
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.errors import SpecInvalid
from pipeline.spec import Spec, export_schema, load_spec, spec_digest
from pipeline.spec.rules import architecture_of
from pipeline.spec.yaml_source import parse_yaml
from tests.harden.signing_key import SIGNING_KEY
from tests.test_public_keys import VAGRANT, blob, line_of

ROOT = Path(__file__).parents[1]
SPECS = sorted(path for path in (ROOT / "specs").glob("*.yaml") if not path.name.endswith(".lock.yaml"))
KEYS = [f"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAI{body} test" for body in ("J" + "A" * 41 + "B", "K" + "A" * 41 + "C")]

VALID = {
    "name": "web",
    "region": "eu-central-1",
    "base_image": {"filter": {"name": "debian-12-amd64-*", "owner": "136693071363"}},
}
USER = {"name": "alice", "full_name": "Alice Example", "keys": KEYS[:1]}
UNIT = "arn:aws:organizations::123456789012:ou/o-abcdefghij/ou-ab12-abcdefgh"
ORGANIZATION = "arn:aws:organizations::123456789012:organization/o-abcdefghij"
CODE = "25lw28f80gy0n9oyp7zqr8d4l"

DSA = f"ssh-dss {blob(b'ssh-dss', b'x')} alice@example.com"
SHORT_RSA = line_of(rsa.generate_private_key(65537, 2048).public_key())
SYNC = {"source": "s3://keys/teams/web"}
REPOSITORY = {"name": "vendor", "url": "https://vendor.example/apt", "key": SIGNING_KEY}

BASTION = {"host": "bastion.example", "user": "ana", "key_file": "~/.ssh/bastion", "host_keys": KEYS[:1]}

Change = dict[str, object]


def merged(base: Change, change: Change) -> Change:
    """Lay one mapping over another, deeply; None at the top of a change removes the key."""
    result = copy.deepcopy(base)
    for key, value in change.items():
        inner = result.get(key)
        if value is REMOVED:
            result.pop(key, None)
        else:
            result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


REMOVED = object()


def problems_of(folder: Path, content: Change | str | bytes) -> tuple[str, ...]:
    """Return the problems of a spec with this content."""
    path = folder / "spec.yaml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content, indent=1))
    try:
        load_spec(path)
    except SpecInvalid as error:
        assert error.problems
        assert all(str(path) in problem for problem in error.problems)
        return error.problems
    return ()


def user(**change: object) -> Change:
    return {"users": [{**USER, **change}]}


def device(**change: object) -> Change:
    return {"device_name": "/dev/xvda", "size_gib": 8, **change}


FAULTS: dict[str, tuple[Change, str, str]] = {
    # title: (what is laid over the valid spec, the path that must be named, words of the reason)
    "no name": ({"name": REMOVED}, "name", "is required"),
    "bad name": ({"name": "Web Server"}, "name", "small letters"),
    "unknown key": ({"regoin": "eu-central-1"}, "regoin", "did you mean region?"),
    "unknown key, other case": ({"Users": []}, "Users", "did you mean users?"),
    "unknown inner key": ({"network": {"adress": "public"}}, "network.adress", "did you mean address?"),
    "unknown key in a list": (user(fullname="x"), "users[0].fullname", "did you mean full_name?"),
    "zone": ({"region": "eu-central-1a"}, "region", "its region is 'eu-central-1'"),
    "no region": ({"region": "frankfurt"}, "region", "is not a region"),
    "no base": ({"base_image": {"filter": REMOVED}}, "base_image", "exactly one of"),
    "two bases": ({"base_image": {"id": "ami-01234567"}}, "base_image", "here are id and filter"),
    "two signing keys": ({"attest": {"key_file": "k", "kms_key_id": "alias/k"}}, "attest", "names two keys"),
    "no owner": ({"base_image": {"filter": {"owner": REMOVED}}}, "base_image.filter.owner", "is required"),
    "id without owner": ({"base_image": {"filter": REMOVED, "id": "ami-01234567"}}, "base_image.owner", "(A01)"),
    "parameter without owner": (
        {"base_image": {"filter": REMOVED, "parameter": "resolve:ssm:/a/b"}},
        "base_image.owner",
        "is required beside parameter",
    ),
    "owner beside filter": ({"base_image": {"owner": "136693071363"}}, "base_image.owner", "belongs inside filter"),
    "owner alias": ({"base_image": {"filter": {"owner": "amazon"}}}, "base_image.filter.owner", "pins nobody"),
    "bad image id": ({"base_image": {"id": "ami-1"}}, "base_image.id", "is not an image id"),
    "bad parameter": ({"base_image": {"parameter": "/aws/x"}}, "base_image.parameter", "resolve:ssm:"),
    "bad instance type": ({"instance": {"type": "small"}}, "instance.type", "is not an instance type"),
    "arm instance": ({"instance": {"type": "t4g.small"}}, "instance.type", "is arm64"),
    "ssh from everywhere": ({"network": {"ssh_from": ["0.0.0.0/0"]}}, "network.ssh_from[0]", "whole internet"),
    "ssh from everywhere, IPv6": ({"network": {"ssh_from": ["::/0"]}}, "network.ssh_from[0]", "(A02)"),
    "ssh from half of everywhere": ({"network": {"ssh_from": ["128.0.0.0/1"]}}, "network.ssh_from[0]", "too wide"),
    "no prefix": ({"network": {"ssh_from": ["203.0.113.7"]}}, "network.ssh_from[0]", "'203.0.113.7/32'"),
    "host bits": ({"network": {"ssh_from": ["203.0.113.7/24"]}}, "network.ssh_from[0]", "'203.0.113.0/24'"),
    "no network": ({"network": {"ssh_from": ["home"]}}, "network.ssh_from[0]", "is not a network"),
    "ssh from nowhere": ({"network": {"ssh_from": []}}, "network.ssh_from", "must not be empty"),
    "ssh from a word": ({"network": {"ssh_from": "caler"}}, "network.ssh_from", "'caller'"),
    "nobody": ({"image": {"launch_user": None}}, "users", "nobody could log in"),
    "root": (user(name="root"), "users[0].name", "nobody logs in as root"),
    "system account": (user(name="www-data"), "users[0].name", "is a system account"),
    "launch user root": ({"image": {"launch_user": "root"}}, "image.launch_user", "nobody logs in as root"),
    "bad user name": (user(name="Alice"), "users[0].name", "is not a user name"),
    "field separator": (user(full_name="a:b"), "users[0].full_name", "password file"),
    "two lines": (user(full_name="a\nb"), "users[0].full_name", "one line"),
    "relative shell": (user(shell="bash"), "users[0].shell", "absolute path"),
    "no keys": (user(keys=[]), "users[0].keys", "must not be empty"),
    "a DSA key": (user(keys=[DSA]), "users[0].keys[0]", "DSA keys are refused (H09)"),
    "a short RSA key": (user(keys=[SHORT_RSA]), "users[0].keys[0]", "RSA of 2048 bits is refused"),
    "a published key": (user(keys=[VAGRANT]), "users[0].keys[0]", "anybody could log in (A14)"),
    "a private key": (
        user(keys=["-----BEGIN OPENSSH PRIVATE KEY-----"]),
        "users[0].keys[0]",
        "a private key stands here",
    ),
    "a shell that lets nobody in": (user(shell="/usr/sbin/nologin"), "users[0].shell", "lets nobody in"),
    "ssh where nobody asks": (
        {"harden": {"sshd": {"port": 2222}}},
        "harden.sshd.port",
        "asked at ssh.port, which is 22",
    ),
    "root by ssh, who is not root": (
        {"harden": {"launch_user_sudo": False, "sshd": {"permit_root_login": "prohibit-password"}}},
        "harden.sshd.permit_root_login",
        "(H30)",
    ),
    "keys of nobody refreshed": ({"harden": {"key_sync": SYNC}}, "harden.key_sync", "refreshes the keys of nobody"),
    "launch key refreshed away": (
        {**user(name="admin"), "harden": {"key_sync": SYNC}},
        "harden.key_sync",
        "would take the launch key from 'admin'",
    ),
    "refresh without credentials": (
        {**user(), "harden": {"key_sync": SYNC, "metadata": {"reachable": "while-booting"}}},
        "harden.key_sync",
        "gets no credentials",
    ),
    "keys over a plain line": (
        {**user(), "harden": {"key_sync": {**SYNC, "endpoint": "http://10.0.0.1:9000"}}},
        "harden.key_sync.endpoint",
        "is not encrypted",
    ),
    "keys from somewhere": (
        {**user(), "harden": {"key_sync": {"source": "https://example.com/keys"}}},
        "harden.key_sync.source",
        "as s3://bucket/keys or ssm:/images/keys",
    ),
    "no certificate where a copy goes": (
        {
            "harden": {"product_guard": {"services": ["web.service"], "certificates": {}}},
            "share": {"product_codes": [CODE]},
            "release": {"regions": ["us-east-1"]},
        },
        "harden.product_guard.certificates",
        "has none for us-east-1",
    ),
    "updates at boot without a reason": (
        {"harden": {"tool_updates": {"packages": ["amazon-ssm-agent"]}}},
        "harden.tool_updates.reason",
        "is required",
    ),
    "same name twice": ({"users": [USER, {**USER, "keys": KEYS[1:]}]}, "users[1].name", "stands at users[0].name"),
    "same key twice": ({"users": [USER, {**USER, "name": "bob"}]}, "users[1].keys[0]", "stands at users[0].keys[0]"),
    "grant without a reason": (user(sudo={"who": "ops"}), "users[0].sudo.why", "is required"),
    "grant of the past": (
        user(sudo={"who": "ops", "why": "on call", "until": "2020-02-29"}),
        "users[0].sudo.until",
        "was 2020-02-29",
    ),
    "grant until some day": (
        user(sudo={"who": "ops", "why": "on call", "until": "soon"}),
        "users[0].sudo.until",
        "date",
    ),
    "grant with an empty reason": (user(sudo={"who": "ops", "why": " "}), "users[0].sudo.why", "is empty"),
    "too many tries": ({"harden": {"sshd": {"max_auth_tries": 9}}}, "harden.sshd.max_auth_tries", "6"),
    "unknown word": ({"harden": {"updates": {"at_build": "al"}}}, "harden.updates.at_build", "did you mean all?"),
    "telnet": ({"harden": {"listen": [{"port": 23}]}}, "harden.listen[0].port", "is telnet"),
    "ssh among the ports": ({"harden": {"listen": [{"port": 22}]}}, "harden.listen[0].port", "is ssh's"),
    "a port twice": (
        {"harden": {"listen": [{"port": 443}, {"port": 443, "protocol": "udp"}, {"port": 443}]}},
        "harden.listen[2].port",
        "stands at harden.listen[0].port",
    ),
    "no port": ({"harden": {"listen": [{"port": 70000}]}}, "harden.listen[0].port", "65535"),
    "source with host bits": (
        {"harden": {"listen": [{"port": 443, "sources": ["10.1.2.3/8"]}]}},
        "harden.listen[0].sources[0]",
        "'10.0.0.0/8'",
    ),
    "firewall before a caller anywhere": (
        {"harden": {"firewall": {"ssh_sources": ["10.0.0.0/8"]}}},
        "harden.firewall.ssh_sources",
        "would shut out the build",
    ),
    "firewall before the build's network": (
        {"harden": {"firewall": {"ssh_sources": ["10.0.0.0/8"]}}, "network": {"ssh_from": ["192.0.2.0/24"]}},
        "harden.firewall.ssh_sources",
        "192.0.2.0/24 of network.ssh_from",
    ),
    "a network made and given": (
        {"network": {"create": {}, "subnet_id": "subnet-0123456789abcdef0"}},
        "network.subnet_id",
        "of another network",
    ),
    "a network of public addresses": (
        {"network": {"create": {"cidr": "8.8.8.0/24"}}},
        "network.create.cidr",
        "no network of a VPC",
    ),
    "a network too large": ({"network": {"create": {"cidr": "10.0.0.0/8"}}}, "network.create.cidr", "/16 to /27"),
    "rules for a group of somebody": (
        {"network": {"egress": [{"port": 443}], "security_group_ids": ["sg-0123456789abcdef0"]}},
        "network.egress",
        "the build's own security group",
    ),
    "no updates through": ({"network": {"egress": [{"port": 22}]}}, "network.egress", "lets no updates through"),
    "no repository through": (
        {"network": {"egress": [{"port": 80}]}, "harden": {"repositories": [REPOSITORY]}},
        "network.egress",
        "port 443 of harden.repositories[0]",
    ),
    "a bastion of nobody": ({"network": {"connect": "bastion"}}, "network.bastion", "is required"),
    "a bastion for nothing": ({"network": {"bastion": BASTION}}, "network.bastion", "without `connect: bastion`"),
    "a bastion outside of a made network": (
        {"network": {"create": {}, "address": "private", "connect": "bastion", "bastion": BASTION}},
        "network.bastion",
        "outside of the network",
    ),
    "a bastion of any host key": (
        {"network": {"connect": "bastion", "ssh_from": ["10.0.0.0/24"], "bastion": {**BASTION, "host_keys": []}}},
        "network.bastion.host_keys",
        "must not be empty",
    ),
    "a bastion of a wrong host key": (
        {
            "network": {
                "connect": "bastion",
                "ssh_from": ["10.0.0.0/24"],
                "bastion": {**BASTION, "host_keys": ["bastion.example ssh-ed25519 AAAA"]},
            }
        },
        "network.bastion.host_keys[0]",
        "is not a host key",
    ),
    "ssh from a bastion and a group for the caller": (
        {"network": {"connect": "bastion", "bastion": BASTION}},
        "network.ssh_from",
        "ssh comes from the bastion",
    ),
    "a private address that nobody reaches": (
        {"network": {"create": {}, "address": "private"}},
        "network.connect",
        "nobody could reach",
    ),
    "a bastion before a public address": (
        {"network": {"create": {}, "connect": "bastion"}},
        "network.address",
        "must be private",
    ),
    "a session without a role": ({"network": {"connect": "session-manager"}}, "instance.profile", "is required"),
    "an endpoint of a network to be made": (
        {"network": {"create": {}, "connect": "instance-connect", "ssh_from": ["172.30.0.0/24"]}},
        "network.connect",
        "an endpoint that exists",
    ),
    "a session on the local cloud": (
        {"cloud": "local", "network": {"connect": "session-manager"}, "instance": {"profile": "build"}},
        "network.connect",
        "a bastion that is made",
    ),
    "somebody's bastion before the local cloud": (
        {"cloud": "local", "network": {"connect": "bastion", "bastion": BASTION, "ssh_from": ["172.31.0.0/24"]}},
        "network.connect",
        "a bastion that is made",
    ),
    "a network that the local cloud does not serve": (
        {"cloud": "local", "network": {"create": {"cidr": "10.9.0.0/24"}}},
        "network.create.cidr",
        "128.0.0.0/1",
    ),
    "a scan through a tunnel": (
        {"network": {"connect": "session-manager", "scan_ports": True}, "instance": {"profile": "build"}},
        "network.scan_ports",
        "needs `connect: direct`",
    ),
    "another architecture to fall back to": (
        {"instance": {"types": ["t3a.small", "t4g.small"]}},
        "instance.types[1]",
        "t4g.small is arm64",
    ),
    "a scan of a group of somebody": (
        {"network": {"scan_ports": True, "security_group_ids": ["sg-0123456789abcdef0"]}},
        "network.scan_ports",
        "the build's own security group",
    ),
    "a service as root": (
        {"harden": {"services": [{"unit": "web.service", "account": "root"}]}},
        "harden.services[0].account",
        "without rights",
    ),
    "a service as somebody": (
        {"harden": {"services": [{"unit": "web.service", "account": "admin"}]}},
        "harden.services[0].account",
        "who logs in",
    ),
    "two services of one account": (
        {"harden": {"services": [{"unit": f"{one}.service", "account": "web"} for one in "ab"]}},
        "harden.services[1].account",
        "stands at harden.services[0].account",
    ),
    "no unit of a service": (
        {"harden": {"services": [{"unit": "web", "account": "web"}]}},
        "harden.services[0].unit",
        "nginx.service",
    ),
    "a package by its address": ({"harden": {"packages": ["http://x/y.deb"]}}, "harden.packages[0]", "no address"),
    "a repository without a key": (
        {"harden": {"repositories": [{"name": "vendor", "url": "https://vendor.example/apt"}]}},
        "harden.repositories[0].key",
        "is required",
    ),
    "a repository with a login": (
        {"harden": {"repositories": [{**REPOSITORY, "url": "https://me:secret@vendor.example/apt"}]}},
        "harden.repositories[0].url",
        "without a login",
    ),
    "a repository by another key": (
        {"harden": {"repositories": [{**REPOSITORY, "key": "0x1234ABCD"}]}},
        "harden.repositories[0].key",
        "OpenPGP public key",
    ),
    "a repository of nothing": (
        {"harden": {"repositories": [{**REPOSITORY, "only_for_build": True}]}},
        "harden.repositories[0].only_for_build",
        "harden.packages names nothing",
    ),
    "a repository twice": (
        {"harden": {"repositories": [REPOSITORY, REPOSITORY]}},
        "harden.repositories[1].name",
        "stands at harden.repositories[0].name",
    ),
    "users of a closed service": (
        {"harden": {"metadata": {"reachable": "while-booting", "users": ["web"]}}},
        "harden.metadata.users",
        "nobody does",
    ),
    "keeps a relative file": ({"scrub": {"keep_files": ["etc/x"]}}, "scrub.keep_files[0]", "absolute path"),
    "keeps its way up": ({"scrub": {"keep_files": ["/etc/../x"]}}, "scrub.keep_files[0]", "absolute path"),
    "unknown field": ({"image": {"name": "{nme}"}}, "image.name", "{nme} is no field"),
    "field with an attribute": ({"image": {"name": "{name.__class__}"}}, "image.name", "is no field"),
    "formatted field": ({"image": {"name": "{name:>200}"}}, "image.name", "no format"),
    "half a brace": ({"image": {"name": "{name"}}, "image.name", "brace"),
    "character of no image name": ({"image": {"name": "{name}:{date}"}}, "image.name", "':'"),
    "long image name": ({"image": {"name": "x" * 120 + "{build_id}"}}, "image.name", "142 characters"),
    "empty image name": ({"image": {"name": ""}}, "image.name", "3 to 128"),
    "long description": ({"image": {"description": "x" * 256}}, "image.description", "255"),
    "reserved tag": ({"image": {"tags": {"aws:x": "y"}}}, "image.tags.aws:x", "is not a tag key"),
    "number as a tag": ({"image": {"tags": {"a": 7}}}, "image.tags.a", 'put it in quotes: "7"'),
    "default key, shared": (
        {"image": {"encryption": {"kms_key_id": "alias/aws/ebs"}}, "share": {"accounts": ["210987654321"]}},
        "image.encryption.kms_key_id",
        "default key cannot be shared",
    ),
    "bad key id": (
        {"image": {"encryption": {"kms_key_id": "mine"}}},
        "image.encryption.kms_key_id",
        "is not a KMS key",
    ),
    "public with codes": ({"share": {"public": True, "product_codes": [CODE]}}, "share.public", "product codes"),
    "public and encrypted": (
        {"image": {"encryption": {"kms_key_id": "alias/mine"}}, "share": {"public": True}},
        "share.public",
        "encrypted image can never be public",
    ),
    "own region again": ({"release": {"regions": ["eu-central-1"]}}, "release.regions[0]", "stands at region already"),
    "region twice": (
        {"release": {"regions": ["us-east-1", "us-east-1"]}},
        "release.regions[1]",
        "stands at release.regions[0] already",
    ),
    "key of one region": (
        {
            "image": {"encryption": {"kms_key_id": "arn:aws:kms:eu-central-1:111122223333:alias/mine"}},
            "release": {"regions": ["us-east-1"]},
        },
        "image.encryption.kms_key_id",
        "of one region",
    ),
    "parameter of AWS": ({"release": {"parameter": "/aws/service/mine"}}, "release.parameter", "of your own"),
    "deprecated at once": ({"release": {"deprecate_after_days": 0}}, "release.deprecate_after_days", "1"),
    "bad product code": ({"share": {"product_codes": ["my code"]}}, "share.product_codes[0]", "is not a product code"),
    "account as a number": ({"share": {"accounts": [210987654321]}}, "share.accounts[0]", '"210987654321"'),
    "short account": ({"share": {"accounts": ["21098765432"]}}, "share.accounts[0]", "12 digits"),
    "account with dashes": ({"share": {"accounts": ["2109-8765-4321"]}}, "share.accounts[0]", "'210987654321'"),
    "account in other digits": (
        {"share": {"accounts": ["\u0662" * 12]}},
        "share.accounts[0]",
        "12 digits",
    ),
    "accounts that are no list": ({"share": {"accounts": "210987654321"}}, "share.accounts", "must be a list"),
    "short organization": ({"share": {"organizations": [ORGANIZATION[:-12]]}}, "share.organizations[0]", "whole ARN"),
    "short unit": ({"share": {"organizational_units": [UNIT[:60]]}}, "share.organizational_units[0]", "whole ARN"),
    "same disk twice": (
        {"image": {"block_devices": [device(), device()]}},
        "image.block_devices[1].device_name",
        "stands at",
    ),
    "provisioned disk": ({"image": {"block_devices": [device(type="io2")]}}, "image.block_devices[0].type", "'gp3'"),
    "bad device": (
        {"image": {"block_devices": [device(device_name="sda")]}},
        "image.block_devices[0].device_name",
        "/dev/",
    ),
    "arm image": ({"image": {"architecture": "arm64"}}, "instance.type", "is x86_64"),
    "arm on the local cloud": ({"cloud": "local", "image": {"architecture": "arm64"}}, "image.architecture", "x86_64"),
    "arm by BIOS": ({"image": {"architecture": "arm64", "boot_mode": "legacy-bios"}}, "image.boot_mode", "uefi"),
    "missing check": ({"checks": ["nowhere.py"]}, "checks[0]", "is not there"),
    "list for a mapping": ({"image": []}, "image", "must be a mapping"),
    "nothing for a mapping": ({"harden": None}, "harden", "is empty"),
}


@pytest.mark.parametrize("title", FAULTS)
def test_fault_is_named_with_line_and_path(title: str, tmp_path: Path) -> None:
    change, place, reason = FAULTS[title]
    problems = problems_of(tmp_path, merged(VALID, change))
    matching = [problem for problem in problems if f": {place}: " in problem and reason in problem]
    assert matching, problems
    assert f"{tmp_path / 'spec.yaml'}:" in matching[0]


@pytest.mark.parametrize(
    "change",
    [
        {},
        user(),
        user(sudo={"who": "ops", "why": "on call"}),
        {"image": {"launch_user": None}, "users": [USER]},
        {"network": {"ssh_from": ["203.0.113.7/32", "2001:db8::/48"]}},
        {"cloud": "local", "network": {"create": {"nat": "instance"}, "address": "private", "connect": "bastion"}},
        {"network": {"create": {"cidr": "10.9.0.0/24"}, "address": "private", "connect": "bastion"}},
        {"base_image": {"filter": REMOVED, "id": "ami-0123456789abcdef0", "owner": "136693071363"}},
        {"share": {"accounts": ["012345678901"], "organizations": [ORGANIZATION], "organizational_units": [UNIT]}},
        {"share": {"product_codes": [CODE, "774F4FF8"]}},
        {"share": {"public": True}},
        {"release": {"regions": ["us-east-1", "eu-west-1"], "parameter": "/images/web", "deprecate_after_days": 90}},
        {"image": {"encryption": {"kms_key_id": "alias/mine"}}, "release": {"regions": ["us-east-1"]}},
        {"image": {"encryption": {"kms_key_id": "alias/mine"}}, "share": {"accounts": ["210987654321"]}},
        {"image": {"encryption": {"kms_key_id": "alias/aws/ebs"}}},
        {"image": {"block_devices": [device(type="gp2")]}},
        {"image": {"name": "{name} ({date})/x_[1]@'-"}},
        {
            "image": {"architecture": "arm64"},
            "instance": {"type": "t4g.small"},
            "base_image": {"filter": {"architecture": "arm64"}},
        },
        {"harden": {"sshd": None}},
        {"harden": {"listen": [{"port": 443, "sources": ["0.0.0.0/0"]}, {"port": 443, "protocol": "udp"}]}},
        {
            "harden": {"firewall": {"ssh_sources": ["10.0.0.0/8", "2001:db8::/32"]}},
            "network": {"ssh_from": ["10.1.0.0/16", "2001:db8:1::/48"]},
        },
        {"harden": {"metadata": {"users": ["web"]}}},
        {"harden": {"repositories": [{**REPOSITORY, "only_for_build": True}], "packages": ["libstdc++6", "nginx"]}},
        {"harden": {"services": [{"unit": "web.service", "account": "web", "writes_to": ["/srv/web"]}]}},
    ],
)
def test_valid_spec_is_taken(change: Change, tmp_path: Path) -> None:
    assert problems_of(tmp_path, merged(VALID, change)) == ()


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    text = "name: web\nregion: mars\nbase_image:\n  filter:\n    name: x\n    owner: 136693071363\n"
    text += "users:\n  - name: root\n"
    problems = [problem.removeprefix(str(tmp_path / "spec.yaml")) for problem in problems_of(tmp_path, text)]
    assert [problem.split(":")[1:3] for problem in problems] == [
        ["2", " region"],
        ["6", " base_image.filter.owner"],
        ["8", " users[0].full_name"],
        ["8", " users[0].keys"],
        ["8", " users[0].name"],
    ]


def test_account_with_a_leading_zero_keeps_it_in_the_advice(tmp_path: Path) -> None:
    text = yaml.safe_dump(VALID) + "share:\n  accounts:\n    - 012345678901\n"
    assert '"012345678901"' in problems_of(tmp_path, text)[0]


def test_words_that_old_yaml_takes_for_truth_are_words(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(yaml.safe_dump(VALID) + "harden:\n  sshd:\n    permit_root_login: no\n    use_dns: yes\n")
    sshd = load_spec(path).harden.sshd
    assert sshd is not None
    assert (sshd.permit_root_login, sshd.use_dns) == ("no", True)


def test_private_key_is_refused_and_not_repeated(tmp_path: Path) -> None:
    secret = "-----BEGIN OPENSSH PRIVATE KEY-----\nc2VjcmV0c2VjcmV0\n-----END OPENSSH PRIVATE KEY-----\n"
    for content in (
        merged(VALID, user(keys=[secret])),
        merged(VALID, {"image": {"description": secret}}),
        yaml.safe_dump(VALID) + "key: |\n" + secret,
    ):
        text = "\n".join(problems_of(tmp_path, content))
        assert "a private key stands here" in text
        assert "c2VjcmV0" not in text


def test_checks_are_looked_up_beside_the_spec(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "web.txt").touch()
    (tmp_path / "test_web.py").touch()
    given_checks = {"checks": ["mine", "web.txt", "test_wb.py", "test_web.py"]}
    problems = "\n".join(problems_of(tmp_path, merged(VALID, given_checks)))
    assert "checks[0]: the folder mine holds no test_*.py" in problems
    assert "checks[1]: web.txt is no Python file" in problems
    assert "checks[2]: test_wb.py is not there: checks are looked up beside the spec; there is test_web.py" in problems
    assert "checks[3]" not in problems


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "is empty"),
        (b"- a\n", "is not a mapping"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"name: web\nname: web\n", "stands twice: first in line 1"),
        (b"name: [a\n", "is not YAML"),
        (b"a: &x [1]\nb: *x\n", "aliases"),
        (b"a: 1\n---\nb: 2\n", "is not YAML"),
        (b"name: !!python/object/apply:os.system [ls]\n", "must be a valid string"),
        (b"name: !secret x\n", "tags (!secret) are not read"),
        (b"a:\n  <<: {b: 1}\n", "merge keys"),
        (b"? [a, b]\n: 1\n", "a key must be a word"),
        (b"a: " + b"[" * 100 + b"]" * 100, "nested deeper"),
        (b"a: " + b"[" * 100_000, "nested deeper"),
        (b"# x\n" * 100_000, "is larger than 256 KiB"),
        (b"name: \x07\n", "character that YAML does not allow"),
        (b"name: " + b"9" * 10_000, "name"),
    ],
)
def test_file_that_is_no_spec_is_explained(content: bytes, reason: str, tmp_path: Path) -> None:
    assert any(reason in problem for problem in problems_of(tmp_path, content))


def test_missing_file_and_folder_are_explained(tmp_path: Path) -> None:
    for path, reason in ((tmp_path / "none.yaml", "No such file"), (tmp_path, "directory")):
        with pytest.raises(SpecInvalid, match=reason):
            load_spec(path)


# Faults that do not hide each other: each stands in a part of the spec of its own.
INDEPENDENT = (
    "bad name",
    "unknown key",
    "zone",
    "no owner",
    "arm instance",
    "ssh from everywhere",
    "root",
    "too many tries",
    "keeps a relative file",
    "unknown field",
    "reserved tag",
    "public with codes",
    "short account",
    "missing check",
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(titles=st.sets(st.sampled_from(INDEPENDENT), min_size=1))
def test_each_of_many_faults_is_named_at_once(titles: set[str], tmp_path: Path) -> None:
    content = VALID
    for title in titles:
        content = merged(content, FAULTS[title][0])
    problems = problems_of(tmp_path, content)
    assert len(problems) >= len(titles)
    for _, place, reason in (FAULTS[title] for title in titles):
        assert any(f": {place}: " in problem and reason in problem for problem in problems)


words = st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=12)
accounts = st.text("0123456789", min_size=12, max_size=12)
plain_text = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
valid_specs = st.builds(
    lambda name, owner, description, tags, accounts, sshd, network: {
        "name": name,
        "region": "eu-central-1",
        "base_image": {"filter": {"name": f"{name}-*", "owner": owner}},
        "network": {"ssh_from": [network]},
        "harden": {"sshd": sshd},
        "image": {"description": description, "tags": tags},
        "share": {"accounts": accounts},
    },
    words,
    accounts,
    plain_text,
    st.dictionaries(words, plain_text, max_size=3),
    st.lists(accounts, max_size=3),
    st.fixed_dictionaries(
        {
            "permit_root_login": st.sampled_from(["no", "prohibit-password"]),
            "use_dns": st.booleans(),
            "max_auth_tries": st.integers(1, 6),
        }
    ),
    st.ip_addresses(v=4).map(lambda address: f"{address}/32"),
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=valid_specs)
def test_valid_spec_survives_being_written_and_read(content: Change, tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text(json.dumps(content))
    spec = load_spec(path)
    path.write_text(spec.model_dump_json(exclude_none=True))
    again = load_spec(path)
    assert again == spec
    assert spec_digest(again) == spec_digest(spec)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(content=st.one_of(st.text(), st.text("&*![]{}:,-|>?#'\"\n a1~<%@`")))
def test_any_text_is_refused_without_a_traceback(content: str, tmp_path: Path) -> None:
    assert problems_of(tmp_path, content.encode("utf-8", "surrogatepass"))


any_value = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=8)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=5,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    key=st.sampled_from(sorted(Spec.model_fields)),
    inner=st.sampled_from(["", "name", "keys", "filter"]),
    value=any_value,
)
def test_any_value_anywhere_raises_nothing_but_problems(key: str, inner: str, value: object, tmp_path: Path) -> None:
    problems_of(tmp_path, {**VALID, key: {inner: value} if inner else value})
    problems_of(tmp_path, {**VALID, key: [{inner: value} if inner else value]})


def test_digest_is_of_the_content_and_not_of_the_file(tmp_path: Path) -> None:
    one, two = tmp_path / "one.yaml", tmp_path / "two.yaml"
    one.write_text(yaml.safe_dump(VALID))
    two.write_text("# the same\n" + yaml.safe_dump({**VALID, "cloud": "aws", "users": []}, sort_keys=False))
    assert spec_digest(load_spec(one)) == spec_digest(load_spec(two))
    two.write_text(yaml.safe_dump({**VALID, "name": "other"}))
    assert spec_digest(load_spec(one)) != spec_digest(load_spec(two))


@pytest.mark.parametrize(
    ("release", "further"),
    [({}, False), ({"protect": True}, True), ({"regions": ["us-east-1"]}, True), ({"parameter": "/images/web"}, True)],
)
def test_a_release_goes_further_than_sharing_where_it_names_anything(release: dict[str, object], further: bool) -> None:
    assert Spec.model_validate({**VALID, "release": release}).release.goes_further is further


def test_image_name_is_rendered() -> None:
    spec = Spec.model_validate({**VALID, "image": {"name": "{name} {build_id} {date}"}})
    assert spec.image_name("b1", date(2025, 11, 2)) == "web b1 20251102"


@pytest.mark.parametrize(
    ("instance_type", "architecture"),
    [
        ("t3.small", "x86_64"),
        ("g4dn.xlarge", "x86_64"),
        ("g5g.xlarge", "arm64"),
        ("c7gn.large", "arm64"),
        ("im4gn.large", "arm64"),
        ("m7i-flex.large", "x86_64"),
        ("u7in-16tb.224xlarge", "x86_64"),
        ("a1.medium", "arm64"),
        ("hpc7g.4xlarge", "arm64"),
        ("x2iedn.xlarge", "x86_64"),
    ],
)
def test_architecture_of_instance_types(instance_type: str, architecture: str) -> None:
    assert architecture_of(instance_type) == architecture


@pytest.mark.parametrize("path", SPECS, ids=lambda path: path.name)
def test_shipped_spec_is_valid_and_names_its_schema(path: Path) -> None:
    import jsonschema

    spec = load_spec(path)
    assert spec.name == path.stem
    text = path.read_text()
    assert text.startswith("# yaml-language-server: $schema=spec.schema.json\n")
    jsonschema.validate(parse_yaml(text).value, json.loads(export_schema()))


def test_default_spec_and_owners_are_as_promised() -> None:
    by_name = {path.stem: load_spec(path) for path in SPECS}
    locals_ = {"debian-12-local", "debian-13-local", "ubuntu-24.04-local"}
    assert set(by_name) == {*locals_, "debian-12", "debian-13", "ubuntu-24.04", "amazon-linux-2023"}
    local = by_name["debian-12-local"]
    assert (local.cloud, local.region, local.ssh.user) == ("local", "eu-central-1", "admin")
    assert local.share.accounts == ("210987654321",)
    assert {name for name, spec in by_name.items() if spec.cloud == "local"} == locals_


def test_exported_schema_is_up_to_date() -> None:
    import jsonschema

    exported = (ROOT / "specs" / "spec.schema.json").read_text()
    assert exported == export_schema(), "run: python -m pipeline.spec > specs/spec.schema.json"
    jsonschema.Draft202012Validator.check_schema(json.loads(exported))


@pytest.mark.parametrize("title", ["unknown key", "no owner", "bad image id", "short account", "too many tries"])
def test_schema_tells_an_editor_too(title: str) -> None:
    import jsonschema

    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(merged(VALID, FAULTS[title][0]), json.loads(export_schema()))
