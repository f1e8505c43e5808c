"""The rules that hold between values of a spec.

They read the file's plain values, not the model: so they speak even when some other value is wrong, and a user sees all
at once. A rule says nothing about a value that is not there, or not of its kind: the model says that.
"""

import difflib
import ipaddress
import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, date, datetime
from pathlib import Path

from pipeline.spec.public_keys import fingerprint
from pipeline.spec.types import LONGEST_BUILD_ID, LONGEST_IMAGE_NAME
from pipeline.spec.yaml_source import Place, format_place

Rule = Callable[[object, Path], Iterator[tuple[Place, str]]]


def value_at(data: object, *place: str, default: object = None) -> object:
    """Return the value at a place; the default where it, or anything around it, is not there."""
    for key in place:
        if not isinstance(data, dict) or key not in data:
            return default
        data = data[key]
    return data


def items_at(data: object, *place: str) -> list[object]:
    """Return the items of the list at a place; none where there is no list."""
    found = value_at(data, *place)
    return found if isinstance(found, list) else []


def name_one_base_image(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Want exactly one way to find the base image, and its owner pinned (A01)."""
    base = value_at(data, "base_image")
    if not isinstance(base, dict):
        return
    ways = [way for way in ("id", "filter", "parameter") if base.get(way) is not None]
    if len(ways) != 1:
        named = f"here are {' and '.join(ways)}" if ways else "none is there"
        yield ("base_image",), f"needs exactly one of id, filter and parameter; {named}"
    if "filter" in ways and base.get("owner") is not None:
        yield ("base_image", "owner"), "belongs inside filter"
    elif ways and "filter" not in ways and base.get("owner") is None:
        yield ("base_image", "owner"), f"is required beside {ways[0]}: the account that must own the image (A01)"


def name_one_signing_key(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Want one key that signs, not two."""
    if value_at(data, "attest", "key_file") is not None and value_at(data, "attest", "kms_key_id") is not None:
        yield ("attest",), "names two keys: leave key_file or kms_key_id out"


def let_somebody_in(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that somebody can log in to the image."""
    if value_at(data, "image", "launch_user", default="admin") is None and not items_at(data, "users"):
        yield ("users",), "nobody could log in: there are no users, and image.launch_user is null"


def let_users_in_by_a_shell(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse users whose shell ends every login: AllowUsers would name nobody who gets in (H03, H10)."""
    for number, user in enumerate(items_at(data, "users")):
        shell = value_at(user, "shell")
        if isinstance(shell, str) and shell.rpartition("/")[2] in NO_SHELLS:
            yield ("users", number, "shell"), f"{shell} lets nobody in: users are those who log in"


NO_SHELLS = ("nologin", "false", "true", "sync", "shutdown", "halt")


def reach_ssh_where_it_listens(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse a port of sshd at which no fresh boot is asked: it counts from the next boot, and locks the build out."""
    port = value_at(data, "harden", "sshd", "port", default=22)
    hardened = value_at(data, "harden", "sshd", default={}) is not None
    asked = value_at(data, "ssh", "port", default=22)
    if hardened and isinstance(port, int) and port != asked and value_at(data, "cloud") != "local":
        yield ("harden", "sshd", "port"), f"is {port}, but a fresh boot is asked at ssh.port, which is {asked}"


def keep_users_apart(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that user names differ, and that each key is one person's (H09)."""
    names: dict[str, str] = {}
    keys: dict[str, str] = {}
    for number, user in enumerate(items_at(data, "users")):
        name = value_at(user, "name")
        if isinstance(name, str):
            yield from _report_twin(("users", number, "name"), name, f"the name {name!r}", names)
        for index, key in enumerate(items_at(user, "keys")):
            identity = _identify(key)
            if identity:
                yield from _report_twin(("users", number, "keys", index), identity, "the same key", keys)


def _identify(key: object) -> str | None:
    try:
        return fingerprint(key) if isinstance(key, str) else None
    except (ValueError, IndexError):
        return None


def _report_twin(place: Place, identity: str, what: str, seen: dict[str, str]) -> Iterator[tuple[Place, str]]:
    first = seen.setdefault(identity, format_place(place))
    if first != format_place(place):
        yield place, f"{what} stands at {first} already"


def share_what_can_be_shared(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse what EC2 would not share, or not make public, before anything is spent (A10, A11)."""
    encrypted = isinstance(value_at(data, "image", "encryption"), dict)
    if value_at(data, "share", "public") is True:
        if items_at(data, "share", "product_codes"):
            yield ("share", "public"), "an image with product codes can never be public (A11)"
        if encrypted:
            yield ("share", "public"), "an encrypted image can never be public (A11)"
    key = value_at(data, "image", "encryption", "kms_key_id")
    shared = any(items_at(data, "share", to) for to in ("accounts", "organizations", "organizational_units"))
    if shared and isinstance(key, str) and re.search(r"(^|:)alias/aws/", key):
        yield (
            ("image", "encryption", "kms_key_id"),
            "the account's default key cannot be shared: name a key of your own",
        )


def sell_what_can_be_sold(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse what AWS Marketplace does not take: public or encrypted images, and those without an administrator."""
    if not isinstance(value_at(data, "release", "marketplace"), dict):
        return
    if value_at(data, "share", "public") is True:
        yield ("share", "public"), "an image that is sold can never be public (A22)"
    if isinstance(value_at(data, "image", "encryption"), dict):
        yield ("image", "encryption"), "AWS Marketplace takes no encrypted image (A22)"
    if value_at(data, "harden", "launch_user_sudo") is False:
        yield (
            ("harden", "launch_user_sudo"),
            "is false, but AWS Marketplace wants an administrator: whoever launches (H30)",
        )
    regions = [value_at(data, "region"), *items_at(data, "release", "regions")]
    if "us-east-1" not in regions:
        yield ("release", "regions"), "lacks us-east-1, from which AWS Marketplace takes images (A22)"


CLEAR_TEXT = {21: "ftp", 23: "telnet", 512: "rexec", 513: "rlogin", 514: "rsh"}


def serve_safe_ports(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse ports of services that send passwords in the clear, ssh's own, and a port that stands twice (H18)."""
    seen: dict[str, str] = {}
    ssh_ports = [value_at(data, *place, default=22) for place in (("ssh", "port"), ("harden", "sshd", "port"))]
    for number, item in enumerate(items_at(data, "harden", "listen")):
        port, protocol = value_at(item, "port"), value_at(item, "protocol", default="tcp")
        place = ("harden", "listen", number, "port")
        if not isinstance(port, int) or protocol not in ("tcp", "udp"):
            continue
        if protocol == "tcp" and port in CLEAR_TEXT:
            yield place, f"is {CLEAR_TEXT[port]}, which sends passwords in the clear (H18)"
        if protocol == "tcp" and port in ssh_ports:
            yield place, "is ssh's, which always listens; harden.firewall.ssh_sources says who reaches it"
        yield from _report_twin(place, f"{port}/{protocol}", f"the port {port}/{protocol}", seen)


def keep_services_apart(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that each service has an account of its own, which is nobody's login (H23)."""
    people = [value_at(user, "name") for user in items_at(data, "users")]
    people += [value_at(data, *place, default="admin") for place in (("ssh", "user"), ("image", "launch_user"))]
    accounts: dict[str, str] = {}
    units: dict[str, str] = {}
    for number, service in enumerate(items_at(data, "harden", "services")):
        account, unit = value_at(service, "account"), value_at(service, "unit")
        place = ("harden", "services", number, "account")
        if isinstance(account, str):
            if account == "root":
                yield place, "is root: a service runs without rights (H23)"
            if account in people:
                yield place, f"{account!r} is somebody who logs in: a service has an account of its own (H23)"
            yield from _report_twin(place, account, f"the account {account!r}", accounts)
        if isinstance(unit, str):
            yield from _report_twin(("harden", "services", number, "unit"), unit, f"the unit {unit!r}", units)


def tell_repositories_apart(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that each repository has a name of its own, and that one for the build only is used by the build (H17)."""
    seen: dict[str, str] = {}
    for number, repository in enumerate(items_at(data, "harden", "repositories")):
        name = value_at(repository, "name")
        place = ("harden", "repositories", number)
        if isinstance(name, str):
            yield from _report_twin((*place, "name"), name, f"the repository {name!r}", seen)
        if value_at(repository, "only_for_build") is True and not items_at(data, "harden", "packages"):
            yield (*place, "only_for_build"), "is of no use: harden.packages names nothing that the build could install"


def scan_what_is_known(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse a scan of ports where only somebody else knows what the security groups intend (H19)."""
    if value_at(data, "network", "scan_ports") is True and items_at(data, "network", "security_group_ids"):
        yield ("network", "scan_ports"), "needs the build's own security group: what those given intend is not known"


def keep_the_build_inside(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse a host firewall that would shut out the build itself (H20)."""
    sources = [source for source in map(_parse_network, items_at(data, "harden", "firewall", "ssh_sources")) if source]
    if not sources:
        return
    place = ("harden", "firewall", "ssh_sources")
    if value_at(data, "network", "ssh_from", default="caller") == "caller":
        yield place, "would shut out the build: let network.ssh_from name networks inside of these"
    for item in items_at(data, "network", "ssh_from"):
        network = _parse_network(item)
        if network and not any(_is_inside(network, source) for source in sources):
            yield place, f"would shut out the build: {item} of network.ssh_from is in none of these (H20)"


Network = ipaddress.IPv4Network | ipaddress.IPv6Network
LOCAL_NETWORKS = ipaddress.IPv4Network("128.0.0.0/1")
"""What QEMU's user network can serve beside the metadata address."""


def _parse_network(text: object) -> Network | None:
    try:
        return ipaddress.ip_network(text) if isinstance(text, str) else None
    except ValueError:
        return None


def _is_inside(inner: Network, outer: Network) -> bool:
    if isinstance(inner, ipaddress.IPv4Network) and isinstance(outer, ipaddress.IPv4Network):
        return inner.subnet_of(outer)
    if isinstance(inner, ipaddress.IPv6Network) and isinstance(outer, ipaddress.IPv6Network):
        return inner.subnet_of(outer)
    return False


def make_one_network(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse a network that is both made and given, and rules for a security group that is somebody else's (A03)."""
    given = [name for name in ("subnet_id", "security_group_ids") if value_at(data, "network", name)]
    if isinstance(value_at(data, "network", "create"), dict):
        for name in given:
            yield ("network", name), "is of another network than the one that network.create makes: leave one out"
        if value_at(data, "network", "bastion") is not None:
            yield ("network", "bastion"), "is outside of the network that is made: leave it out, one is made in it"
        if value_at(data, "network", "connect") == "instance-connect":
            yield ("network", "connect"), "needs an endpoint that exists: name network.subnet_id instead of create"
        cidr = _parse_network(value_at(data, "network", "create", "cidr"))
        if value_at(data, "cloud") == "local" and cidr and not _is_inside(cidr, LOCAL_NETWORKS):
            yield ("network", "create", "cidr"), f"must be in {LOCAL_NETWORKS} on the local cloud (pipeline/README.md)"
    if "security_group_ids" in given and value_at(data, "network", "egress") is not None:
        yield ("network", "egress"), "is for the build's own security group: those given are yours (A03)"


def reach_the_instance(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that there is a way in, and that the security group admits who comes that way (A02)."""
    connect = value_at(data, "network", "connect", default="direct")
    made = isinstance(value_at(data, "network", "create"), dict)
    bastion = value_at(data, "network", "bastion")
    if connect == "bastion" and bastion is None and not made:
        yield ("network", "bastion"), "is required with `connect: bastion`, unless network.create makes one"
    if connect != "bastion" and bastion is not None:
        yield ("network", "bastion"), "is of no use without `connect: bastion`"
    private = value_at(data, "network", "address") == "private"
    if made and connect == "direct" and private:
        yield ("network", "connect"), "nobody could reach a private address of a new network: bastion, session-manager"
    if made and connect == "bastion" and not private:
        yield ("network", "address"), "must be private where a bastion is made: its instance is behind it"
    if connect == "session-manager" and value_at(data, "instance", "profile") is None:
        yield ("instance", "profile"), "is required by Session Manager: a role with AmazonSSMManagedInstanceCore"
    if connect != "direct" and value_at(data, "network", "scan_ports") is True:
        yield ("network", "scan_ports"), "needs `connect: direct`: ports cannot be tried through anything else"
    from_elsewhere = connect == "instance-connect" or (connect == "bastion" and not made)
    caller = value_at(data, "network", "ssh_from", default="caller") == "caller"
    if from_elsewhere and caller and not items_at(data, "network", "security_group_ids"):
        yield ("network", "ssh_from"), f"is the caller, but ssh comes from the {connect}: name the network it is in"
    if value_at(data, "cloud") == "local" and not (connect == "direct" or (connect == "bastion" and made)):
        yield ("network", "connect"), "on the local cloud must be direct, or lead through a bastion that is made"


def let_updates_through(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse a way out that is closed for what the build itself fetches (A03)."""
    egress = value_at(data, "network", "egress")
    if not isinstance(egress, list):
        return
    ports = {value_at(item, "port") for item in egress if value_at(item, "protocol", default="tcp") == "tcp"}
    updates = value_at(data, "harden", "updates", "at_build", default="all")
    off = isinstance(value_at(data, "harden"), dict) and value_at(data, "harden", "updates", default={}) is None
    if not off and updates != "none" and not ports & {80, 443}:
        yield ("network", "egress"), "lets no updates through: 80 and 443, or `harden.updates.at_build: none`"
    for number, repository in enumerate(items_at(data, "harden", "repositories")):
        url = value_at(repository, "url")
        found = re.match(r"(https?)://[^/:]+(?::([0-9]+))?", url) if isinstance(url, str) else None
        port = int(found[2] or {"http": 80, "https": 443}[found[1]]) if found else None
        if port and port not in ports:
            yield ("network", "egress"), f"does not let the build reach port {port} of harden.repositories[{number}]"


def let_services_reach_metadata(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse users who may reach the metadata service where nobody may (H21)."""
    nobody = value_at(data, "harden", "metadata", "reachable") == "while-booting"
    if nobody and items_at(data, "harden", "metadata", "users"):
        yield ("harden", "metadata", "users"), "reach nothing with `reachable: while-booting`: nobody does after it"


def guard_what_can_be_guarded(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Want all that the product-code guard needs: units, codes, and the certificate of the image's region (H31)."""
    guard = value_at(data, "harden", "product_guard")
    if not isinstance(guard, dict):
        return
    place = ("harden", "product_guard")
    if not items_at(guard, "services"):
        yield (*place, "services"), "names no unit: which services wait for the product-code guard? (H31)"
    if not items_at(data, "share", "product_codes"):
        yield ("share", "product_codes"), "is empty: harden.product_guard would hold everything back (H31)"
    region = value_at(data, "region")
    certificates = value_at(guard, "certificates", default={})
    held = certificates if isinstance(certificates, dict) else {}
    regions = [one for one in (region, *items_at(data, "release", "regions")) if isinstance(one, str)]
    for missing in dict.fromkeys(one for one in regions if one not in held):
        yield (*place, "certificates"), f"has none for {missing}: the guard would hold everything back there (H31)"


def refresh_keys_that_can_be(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that the refresh of keys has users, reaches its credentials, and leaves the launch key alone (H11)."""
    place = ("harden", "key_sync")
    if not isinstance(value_at(data, *place), dict):
        return
    names = [value_at(user, "name") for user in items_at(data, "users")]
    if not names:
        yield place, "refreshes the keys of nobody: there are no users"
    launch_user = value_at(data, "image", "launch_user", default="admin")
    if launch_user in names:
        yield place, f"would take the launch key from {launch_user!r}: let image.launch_user be none of the users"
    if value_at(data, "harden", "metadata", "reachable") == "while-booting":
        yield place, "gets no credentials with `metadata: {reachable: while-booting}`: nobody reaches them after it"
    endpoint = value_at(data, *place, "endpoint", default="")
    if isinstance(endpoint, str) and endpoint.startswith("http:") and value_at(data, "cloud") != "local":
        yield (*place, "endpoint"), "is not encrypted: whoever is between could let anybody in"


def keep_root_from_the_customer(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that nothing makes the customer root after all, where the spec says that they are not (H30)."""
    if value_at(data, "harden", "launch_user_sudo") is not False:
        return
    if value_at(data, "harden", "first_boot") is False:
        yield ("harden", "launch_user_sudo"), "needs harden.first_boot, which tells cloud-init so (H30)"
    if value_at(data, "ssh", "administrator_key_file") is None:
        yield ("ssh", "administrator_key_file"), "is required where the launch user is not root: how else to prove it?"
    granted = [value_at(user, "name") for user in items_at(data, "users") if value_at(user, "sudo") is not None]
    if value_at(data, "image", "launch_user", default="admin") in granted:
        yield ("users",), "grants sudo to the launch user, and harden.launch_user_sudo is false (H30)"
    if value_at(data, "harden", "sshd", "permit_root_login") == "prohibit-password":
        yield ("harden", "sshd", "permit_root_login"), "lets root in, and harden.launch_user_sudo is false (H30)"
    if not granted:
        yield ("users",), "has nobody with sudo, and the launch user is not root: nobody could prove the image (H30)"


def let_grants_end(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse a grant of sudo whose last day has passed: nobody would have it (H12)."""
    for number, user in enumerate(items_at(data, "users")):
        until = value_at(user, "sudo", "until")
        if is_over(until):
            yield ("users", number, "sudo", "until"), f"was {until}: leave the grant out, or decide again (H12)"


def is_over(day: object) -> bool:
    """Return whether a day is one, and has passed."""
    with suppress(ValueError, TypeError):
        return date.fromisoformat(str(day)) < datetime.now(UTC).date()
    return False


def let_waivers_end(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """Refuse waivers that have expired, and two for the same control."""
    seen: dict[str, str] = {}
    for number, waiver in enumerate(items_at(data, "waivers")):
        expires, control = value_at(waiver, "expires"), value_at(waiver, "control")
        if is_over(expires):
            yield ("waivers", number, "expires"), f"expired on {expires}: mend the control, or decide again"
        if isinstance(control, str):
            yield from _report_twin(("waivers", number, "control"), control, f"a waiver of {control}", seen)


def release_where_it_can_go(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that each region is named once, and that the key of a copy exists where the copy is made (A10)."""
    home = value_at(data, "region")
    seen = {home: "region"} if isinstance(home, str) else {}
    for number, region in enumerate(items_at(data, "release", "regions")):
        place = ("release", "regions", number)
        if isinstance(region, str):
            if region in seen:
                yield place, f"{region} stands at {seen[region]} already"
            seen.setdefault(region, format_place(place))
    key = value_at(data, "image", "encryption", "kms_key_id")
    everywhere = isinstance(key, str) and ("alias/" in key or "mrk-" in key) and not key.startswith("arn:")
    if items_at(data, "release", "regions") and isinstance(key, str) and not everywhere:
        yield (
            ("image", "encryption", "kms_key_id"),
            "this key is of one region: name an alias or a multi-Region key (mrk-…) that each region has",
        )


def name_images_shortly(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that the image's name fits when its fields are filled in (RegisterImage: 3-128 characters)."""
    name, template = value_at(data, "name"), value_at(data, "image", "name", default="{name}-{build_id}")
    if not isinstance(name, str) or not isinstance(template, str):
        return
    filled = (
        template.replace("{name}", name).replace("{date}", "20250101").replace("{build_id}", "x" * LONGEST_BUILD_ID)
    )
    if len(filled) > LONGEST_IMAGE_NAME or len(filled) < 3:
        length = f"makes names of {len(filled)} characters"
        yield ("image", "name"), f"{length}: an image name has 3 to {LONGEST_IMAGE_NAME}"


def agree_on_architecture(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that base image, instance and image are of one architecture; the local cloud has one only."""
    wanted = value_at(data, "image", "architecture", default="x86_64")
    base = value_at(data, "base_image", "filter", "architecture", default="x86_64")
    if value_at(data, "base_image", "filter") is not None and base != wanted:
        yield ("base_image", "filter", "architecture"), f"is {base}, but image.architecture is {wanted}"
    instance = value_at(data, "instance", "type", default="t3.small")
    places: list[tuple[Place, object]] = [(("instance", "type"), instance)]
    places += [(("instance", "types", n), one) for n, one in enumerate(items_at(data, "instance", "types"))]
    for place, instance in places:
        offered = architecture_of(instance) if isinstance(instance, str) else wanted
        if wanted in ("x86_64", "arm64") and offered != wanted:
            yield place, f"{instance} is {offered}, but image.architecture is {wanted}"
    if value_at(data, "cloud") == "local" and wanted == "arm64":
        yield ("image", "architecture"), "the local cloud runs x86_64 guests only"
    if wanted == "arm64" and value_at(data, "image", "boot_mode") == "legacy-bios":
        yield ("image", "boot_mode"), "arm64 boots by uefi only"


def architecture_of(instance_type: str) -> str:
    """Return the architecture of an instance type: Graviton families have a g after their number (EC2 naming rules)."""
    family = instance_type.split(".")[0]
    graviton = family == "a1" or re.match(r"[a-z]+[0-9]+[a-f-z]*g", family)
    return "arm64" if graviton else "x86_64"


def describe_disks_once(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that each disk has a name of its own."""
    seen: dict[str, str] = {}
    for number, device in enumerate(items_at(data, "image", "block_devices")):
        name = value_at(device, "device_name")
        if isinstance(name, str):
            place = ("image", "block_devices", number, "device_name")
            yield from _report_twin(place, name, f"the device {name!r}", seen)


def find_checks(data: object, folder: Path) -> Iterator[tuple[Place, str]]:
    """See that the user's own checks are there, and that something would be collected from them."""
    for number, check in enumerate(items_at(data, "checks")):
        if not isinstance(check, str) or not check.strip() or "\0" in check:
            yield ("checks", number), "is not a path"
            continue
        path = folder / check
        if path.is_dir():
            if not any(path.rglob("test_*.py")):
                yield ("checks", number), f"the folder {check} holds no test_*.py"
        elif not path.is_file():
            yield ("checks", number), f"{check} is not there: checks are looked up beside the spec{_similar(path)}"
        elif path.suffix != ".py":
            yield ("checks", number), f"{check} is no Python file"


def _similar(path: Path) -> str:
    if not path.parent.is_dir():
        return ""
    close = difflib.get_close_matches(path.name, [entry.name for entry in path.parent.iterdir()], n=1)
    return f"; there is {close[0]}" if close else ""


RULES: tuple[Rule, ...] = (
    name_one_base_image,
    name_one_signing_key,
    let_somebody_in,
    let_users_in_by_a_shell,
    reach_ssh_where_it_listens,
    keep_users_apart,
    share_what_can_be_shared,
    sell_what_can_be_sold,
    serve_safe_ports,
    keep_services_apart,
    scan_what_is_known,
    tell_repositories_apart,
    keep_the_build_inside,
    make_one_network,
    reach_the_instance,
    let_updates_through,
    let_services_reach_metadata,
    guard_what_can_be_guarded,
    refresh_keys_that_can_be,
    keep_root_from_the_customer,
    let_grants_end,
    let_waivers_end,
    release_where_it_can_go,
    name_images_shortly,
    agree_on_architecture,
    describe_disks_once,
    find_checks,
)
