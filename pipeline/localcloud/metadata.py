"""The instance metadata service: what a guest reads at http://169.254.169.254/.

Each instance has a unix socket of its own, which QEMU connects its guest to; so the socket says who asks. Paths, status
codes and the token protocol are those of the EC2 User Guide ("Use the Instance Metadata Service", "Instance identity
documents"). The hop limit is not to be seen here: the wire enforces it (routing.py), by the TTL of the guest's packets.
"""

import atexit
import http.server
import json
import os
import secrets
import shutil
import socketserver
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.localcloud.authority import Authority

VERSIONS = (
    *("1.0", "2007-01-19", "2007-03-01", "2007-08-29", "2007-10-10", "2007-12-15", "2008-02-01", "2008-09-01"),
    *("2009-04-04", "2011-01-01", "2011-05-01", "2012-01-12", "2014-02-25", "2014-11-05", "2015-10-20", "2016-04-19"),
    *("2016-06-30", "2016-09-02", "2018-03-28", "2018-08-17", "2018-09-24", "2019-10-01", "2020-10-27", "2021-01-03"),
    *("2021-03-23", "2021-07-15", "2022-09-24", "latest"),
)
LONGEST_TOKEN_SECONDS = 21600
LONGEST_SOCKET_PATH = 100
IDLE_SECONDS = 60.0

Tree = dict[str, Any]
Role = Callable[[], dict[str, str] | None]


def no_role() -> None:
    """Stand for an instance without an instance profile."""
    return


@dataclass(frozen=True)
class InstanceView:
    """Everything that the metadata service answers for one instance, at the moment of the request.

    `public_keys` maps key names to OpenSSH lines. `role_credentials` returns AccessKeyId, SecretAccessKey, Token and
    Expiration (ISO 8601) or None. `tags` is None unless the instance's InstanceMetadataTags option is enabled.
    `block_devices` maps EC2's virtual names (ami, root, ebs1 …) to device names. `launch_time` is ISO 8601, in UTC.
    """

    instance_id: str
    image_id: str
    account_id: str
    region: str
    zone: str
    instance_type: str
    private_address: str
    mac: str
    public_address: str | None = None
    hostname: str = ""
    public_hostname: str = ""
    public_keys: dict[str, str] = field(default_factory=dict)
    user_data: bytes | None = None
    product_codes: tuple[str, ...] = ()
    tokens_required: bool = False
    hop_limit: int = 1
    endpoint_enabled: bool = True
    role_name: str | None = None
    role_profile_arn: str | None = None
    role_credentials: Role = no_role
    launch_time: str = "1970-01-01T00:00:00Z"
    launch_index: int = 0
    architecture: str = "x86_64"
    kernel_id: str | None = None
    ramdisk_id: str | None = None
    reservation_id: str = ""
    security_groups: tuple[str, ...] = ()
    security_group_ids: tuple[str, ...] = ()
    interface_id: str = ""
    subnet_id: str = ""
    subnet_cidr: str = ""
    vpc_id: str = ""
    vpc_cidr: str = ""
    zone_id: str = ""
    tags: dict[str, str] | None = None
    block_devices: dict[str, str] = field(default_factory=lambda: {"ami": "/dev/xvda", "root": "/dev/xvda"})


View = InstanceView | Callable[[], InstanceView]


def metadata_tree(view: InstanceView) -> Tree:
    """Return `meta-data/` as nested dictionaries; a leaf is text, bytes, or a callable for what is dear to make."""
    hostname = view.hostname or f"ip-{view.private_address.replace('.', '-')}.{internal_domain(view.region)}"
    tree: Tree = {
        "ami-id": view.image_id,
        "ami-launch-index": str(view.launch_index),
        "ami-manifest-path": "(unknown)",
        "block-device-mapping": dict(view.block_devices),
        "hostname": hostname,
        "instance-action": "none",
        "instance-id": view.instance_id,
        "instance-life-cycle": "on-demand",
        "instance-type": view.instance_type,
        "local-hostname": hostname,
        "local-ipv4": view.private_address,
        "mac": view.mac,
        "network": {"interfaces": {"macs": {view.mac: interface_tree(view, hostname)}}},
        "placement": {"availability-zone": view.zone, "availability-zone-id": view.zone_id, "region": view.region},
        "profile": "default-hvm",
        "reservation-id": view.reservation_id,
        "security-groups": "\n".join(view.security_groups),
        "services": {"domain": "amazonaws.com", "partition": "aws"},
        "system": "nitro",
    }
    optional: Tree = {
        "product-codes": "\n".join(view.product_codes),
        "public-ipv4": view.public_address,
        "public-hostname": view.public_hostname,
        "public-keys": key_tree(view.public_keys),
        "iam": role_tree(view),
        "tags": {"instance": dict(view.tags)} if view.tags is not None else None,
    }
    return tree | {name: value for name, value in optional.items() if value}


def internal_domain(region: str) -> str:
    """Return the domain of private host names (VPC User Guide, "DNS attributes for your VPC")."""
    return "ec2.internal" if region == "us-east-1" else f"{region}.compute.internal"


def interface_tree(view: InstanceView, hostname: str) -> Tree:
    """Return what `network/interfaces/macs/MAC/` has for the first interface."""
    tree: Tree = {
        "device-number": "0",
        "interface-id": view.interface_id,
        "local-hostname": hostname,
        "local-ipv4s": view.private_address,
        "mac": view.mac,
        "owner-id": view.account_id,
        "public-hostname": view.public_hostname,
        "public-ipv4s": view.public_address,
        "security-group-ids": "\n".join(view.security_group_ids),
        "security-groups": "\n".join(view.security_groups),
        "subnet-id": view.subnet_id,
        "subnet-ipv4-cidr-block": view.subnet_cidr,
        "vpc-id": view.vpc_id,
        "vpc-ipv4-cidr-block": view.vpc_cidr,
        "vpc-ipv4-cidr-blocks": view.vpc_cidr,
    }
    return {name: value for name, value in tree.items() if value}


def key_tree(public_keys: dict[str, str]) -> Tree:
    """Return `public-keys/`: listed as INDEX=NAME, opened by the index."""
    return {f"{index}={name}": {"openssh-key": key} for index, (name, key) in enumerate(public_keys.items())}


def role_tree(view: InstanceView) -> Tree | None:
    """Return `iam/` with the role's credentials, or None where the instance has no role."""
    if view.role_name is None:
        return None

    def credentials() -> str | None:
        found = view.role_credentials()
        if found is None:
            return None
        now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        return render_json({"Code": "Success", "LastUpdated": now, "Type": "AWS-HMAC", **found})

    info = {
        "Code": "Success",
        "LastUpdated": view.launch_time,
        "InstanceProfileArn": view.role_profile_arn
        or f"arn:aws:iam::{view.account_id}:instance-profile/{view.role_name}",
        "InstanceProfileId": "AIPALOCALCLOUD0000000",
    }
    return {"info": render_json(info), "security-credentials": {view.role_name: credentials}}


def identity_document(view: InstanceView) -> bytes:
    """Return the instance identity document, byte for byte what is signed (EC2 User Guide)."""
    document = {
        "accountId": view.account_id,
        "architecture": view.architecture,
        "availabilityZone": view.zone,
        "billingProducts": None,
        "devpayProductCodes": None,
        "marketplaceProductCodes": list(view.product_codes) or None,
        "imageId": view.image_id,
        "instanceId": view.instance_id,
        "instanceType": view.instance_type,
        "kernelId": view.kernel_id,
        "pendingTime": view.launch_time,
        "privateIp": view.private_address,
        "ramdiskId": view.ramdisk_id,
        "region": view.region,
        "version": "2017-09-30",
    }
    return render_json(document).encode()


def render_json(value: dict[str, Any]) -> str:
    """Return JSON as the metadata service prints it."""
    return json.dumps(value, indent=2, separators=(",", " : "))


def whole_tree(view: InstanceView, authority: Authority) -> Tree:
    """Return what is below a version: meta-data, dynamic, and user-data where there is some."""

    def document() -> bytes:
        return identity_document(view)

    dynamic: Tree = {
        "instance-identity": {
            "document": document,
            "pkcs7": lambda: authority.sign_pkcs7(document()),
            "rsa2048": lambda: authority.sign_pkcs7(document()),
            "signature": lambda: authority.sign(document()),
        }
    }
    tree: Tree = {"dynamic": dynamic, "meta-data": metadata_tree(view)}
    return tree | ({"user-data": view.user_data} if view.user_data else {})


def look_up(tree: Tree, path: str) -> bytes | None:
    """Return the leaf or the listing at the path, or None where there is nothing."""
    here: Any = tree
    for part in (part for part in path.split("/") if part):
        if not isinstance(here, dict):
            return None
        indexed = next((value for name, value in here.items() if name.startswith(f"{part}=")), None)
        here = here.get(part, indexed)
    if callable(here):
        here = here()
    if isinstance(here, dict):
        here = "\n".join(listed(name, value) for name, value in here.items())
    return here.encode() if isinstance(here, str) else here


def listed(name: str, value: object) -> str:
    """Return a name as a listing shows it: a folder ends in a slash, except public keys, which are INDEX=NAME."""
    return f"{name}/" if isinstance(value, dict) and "=" not in name else name


class Tokens:
    """The session tokens of one instance; they end with their time to live, and when the instance stops."""

    def __init__(self) -> None:
        self._ends: dict[str, float] = {}
        self._lock = threading.Lock()

    def issue(self, seconds: int) -> str:
        """Return a new token that lives for so many seconds."""
        token = secrets.token_urlsafe(42)
        now = time.monotonic()
        with self._lock:
            self._ends = {known: end for known, end in self._ends.items() if end > now}
            self._ends[token] = now + seconds
        return token

    def seconds_left(self, token: str) -> int:
        """Return how many seconds the token has left; 0 when it is unknown or over."""
        with self._lock:
            return max(0, int(self._ends.get(token, 0.0) - time.monotonic() + 0.999))


@dataclass(frozen=True)
class Answer:
    """One HTTP answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[str, str], ...] = ()


def answer_request(
    method: str, path: str, headers: dict[str, str], view: InstanceView, tokens: Tokens, authority: Authority
) -> Answer:
    """Answer one request. Header names are lower case. A disabled endpoint answers 403 to everything."""
    if not view.endpoint_enabled:
        return Answer(403)
    if path.partition("?")[0].rstrip("/") == "/latest/api/token":
        return answer_token(method, headers, tokens)
    if method not in ("GET", "HEAD"):
        return Answer(405, headers=(("Allow", "OPTIONS, GET, HEAD"),))
    token = headers.get("x-aws-ec2-metadata-token")
    extra: tuple[tuple[str, str], ...] = ()
    if token is not None:
        left = tokens.seconds_left(token)
        if not left:
            return Answer(401)
        extra = (("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", str(left)),)
    elif view.tokens_required:
        return Answer(401)
    return answer_path(path.partition("?")[0], view, authority, extra)


def answer_token(method: str, headers: dict[str, str], tokens: Tokens) -> Answer:
    """Issue a token: PUT only, a TTL from 1 to 21600 seconds, and never through a proxy (X-Forwarded-For)."""
    if method != "PUT":
        return Answer(405, headers=(("Allow", "OPTIONS, PUT"),))
    if "x-forwarded-for" in headers:
        return Answer(403)
    wanted = headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
    if not (wanted.isascii() and wanted.isdigit() and 1 <= int(wanted) <= LONGEST_TOKEN_SECONDS):
        return Answer(400)
    header = ("X-Aws-Ec2-Metadata-Token-Ttl-Seconds", wanted)
    return Answer(200, tokens.issue(int(wanted)).encode(), (header,))


def answer_path(path: str, view: InstanceView, authority: Authority, extra: tuple[tuple[str, str], ...]) -> Answer:
    """Answer a GET that is allowed."""
    version, _, rest = path.lstrip("/").partition("/")
    if not version:
        return Answer(200, "\n".join(VERSIONS).encode(), extra)
    found = look_up(whole_tree(view, authority), rest) if version in VERSIONS else None
    return Answer(404, b"404 - Not Found", extra) if found is None else Answer(200, found, extra)


class RequestHandler(http.server.BaseHTTPRequestHandler):
    """Reads requests of one connection and answers them from its server's instance."""

    protocol_version = "HTTP/1.1"
    server_version = "EC2ws"
    sys_version = ""
    timeout = IDLE_SECONDS
    server: "InstanceServer"

    def respond(self) -> None:
        """Answer any method."""
        length = self.headers.get("Content-Length", "0")
        self.rfile.read(int(length) if length.isdigit() else 0)
        headers = {name.lower(): value for name, value in self.headers.items()}
        answer = answer_request(
            self.command, self.path, headers, self.server.current_view(), self.server.tokens, self.server.authority
        )
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Content-Length", str(len(answer.body)))
        for name, value in answer.headers:
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(answer.body)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = do_OPTIONS = respond

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing: paths may name roles, and answers hold credentials."""

    def address_string(self) -> str:
        """Return a name for the peer; a unix socket has no address."""
        return self.server.instance_id


class InstanceServer(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    """The metadata service of one instance."""

    daemon_threads = True
    block_on_close = False
    request_queue_size = 128

    def __init__(self, path: Path, instance_id: str, view: View, authority: Authority) -> None:
        self.instance_id, self.view, self.authority, self.tokens = instance_id, view, authority, Tokens()
        super().__init__(str(path), RequestHandler)

    def current_view(self) -> InstanceView:
        """Return the view as it is now."""
        return self.view() if callable(self.view) else self.view

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ANN401 -- socketserver's signature
        """Let a connection that broke be: the guest asks again."""


def remove_directory(directory: Path, process: int) -> None:
    """Remove the directory of a process, in that process: a copy of it that ends takes nothing away."""
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)


class MetadataServer:
    """The metadata services of all instances of one cloud: a unix socket for each, in the directory.

    Paths of unix sockets are short (108 bytes): for a deeper directory the sockets are made in a temporary one, which
    goes when this process does.
    """

    def __init__(self, directory: Path, authority: Authority) -> None:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self.directory = directory
        if len(str(directory)) + 24 > LONGEST_SOCKET_PATH:
            self.directory = Path(tempfile.mkdtemp(prefix="assay-metadata-"))
            atexit.register(remove_directory, self.directory, os.getpid())
        self.authority = authority
        self._servers: dict[str, tuple[InstanceServer, Path]] = {}
        self._lock = threading.Lock()

    def serve(self, instance_id: str, view: View) -> Path:
        """Start to answer for the instance and return the path of its socket. Serving again replaces the view."""
        self.close(instance_id)
        path = self.directory / f"{instance_id}.imds"
        path.unlink(missing_ok=True)
        server = InstanceServer(path, instance_id, view, self.authority)
        path.chmod(0o600)
        threading.Thread(target=server.serve_forever, args=(0.1,), name=f"metadata {instance_id}", daemon=True).start()
        with self._lock:
            self._servers[instance_id] = (server, path)
        return path

    def close(self, instance_id: str) -> None:
        """Stop answering for the instance, if it is served; its tokens are void from then on."""
        with self._lock:
            found = self._servers.pop(instance_id, None)
        if found is not None:
            server, path = found
            server.shutdown()
            server.server_close()
            path.unlink(missing_ok=True)

    def close_all(self) -> None:
        """Stop answering for every instance."""
        for instance_id in list(self._servers):
            self.close(instance_id)
