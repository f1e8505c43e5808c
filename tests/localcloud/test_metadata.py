"""The metadata service, asked over its unix socket as the relay asks it."""

import base64
import http.client
import json
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.serialization import pkcs7

from pipeline.localcloud.authority import Authority
from pipeline.localcloud.metadata import InstanceView, MetadataServer
from tests.end_to_end import ROOT

TOKEN, TTL = "X-aws-ec2-metadata-token", "X-aws-ec2-metadata-token-ttl-seconds"
VIEW = InstanceView(
    instance_id="i-0123456789abcdef0",
    image_id="ami-0123456789abcdef0",
    account_id="123456789012",
    region="eu-west-1",
    zone="eu-west-1a",
    instance_type="t3.small",
    private_address="172.31.0.10",
    public_address="127.1.2.3",
    mac="02:00:00:00:00:10",
    public_keys={"builder": "ssh-ed25519 AAAA builder"},
    product_codes=("abc123", "def456"),
    user_data=b"#!/bin/sh\nexit 0\n",
)


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("169.254.169.254", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Service:
    """A served instance whose view a test may change."""

    def __init__(self, folder: Path, authority: Authority) -> None:
        self.view, self.authority = VIEW, authority
        self.server = MetadataServer(folder / "m", self.authority)
        self.path = self.server.serve(VIEW.instance_id, lambda: self.view)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str]:
        connection = UnixConnection(self.path)
        try:
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def read(self, path: str) -> str:
        status, body = self.ask(f"/latest/{path}")
        assert status == 200, (path, status)
        return body


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture
def service(tmp_path: Path, authority: Authority) -> Iterator[Service]:
    made = Service(tmp_path, authority)
    yield made
    made.server.close_all()


@pytest.mark.parametrize(
    ("path", "answer"),
    [
        ("meta-data/instance-id", "i-0123456789abcdef0"),
        ("meta-data/ami-id", "ami-0123456789abcdef0"),
        ("meta-data/local-ipv4", "172.31.0.10"),
        ("meta-data/public-ipv4", "127.1.2.3"),
        ("meta-data/local-hostname", "ip-172-31-0-10.eu-west-1.compute.internal"),
        ("meta-data/product-codes", "abc123\ndef456"),
        ("meta-data/placement/region", "eu-west-1"),
        ("meta-data/public-keys/", "0=builder"),
        ("meta-data/public-keys/0/", "openssh-key"),
        ("meta-data/public-keys/0/openssh-key", "ssh-ed25519 AAAA builder"),
        ("meta-data/network/interfaces/macs/", "02:00:00:00:00:10/"),
        ("meta-data/network/interfaces/macs/02:00:00:00:00:10/owner-id", "123456789012"),
        ("user-data", "#!/bin/sh\nexit 0\n"),
        ("", "dynamic/\nmeta-data/\nuser-data"),
    ],
)
def test_what_a_path_answers(service: Service, path: str, answer: str) -> None:
    assert service.read(path) == answer


@pytest.mark.parametrize(
    "path",
    ["/latest/meta-data/iam/", "/latest/meta-data/tags/instance/", "/latest/meta-data/none", "/1999-01-01/meta-data/"],
)
def test_what_is_not_there_answers_404(service: Service, path: str) -> None:
    assert service.ask(path)[0] == 404


def test_user_data_is_404_without_any(service: Service) -> None:
    service.view = replace(VIEW, user_data=None)
    assert service.ask("/latest/user-data")[0] == 404


def test_every_folder_of_a_listing_can_be_opened(service: Service) -> None:
    def walk(path: str) -> int:
        leaves = 0
        for name in service.read(path).splitlines():
            if name.endswith("/"):
                leaves += walk(path + name)
            elif "=" not in name:
                service.read(path + name)
                leaves += 1
        return leaves

    service.view = replace(VIEW, tags={"Name": "web"}, role_name="web", role_credentials=lambda: {"AccessKeyId": "A"})
    assert walk("meta-data/") > 25


def test_a_token_is_issued_and_accepted(service: Service) -> None:
    service.view = replace(VIEW, tokens_required=True)
    status, token = service.ask("/latest/api/token", "PUT", **{TTL: "60"})
    assert status == 200
    assert service.ask("/latest/meta-data/instance-id", **{TOKEN: token}) == (200, VIEW.instance_id)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({TTL: "60", "X-Forwarded-For": "10.0.0.1"}, 403),
        ({}, 400),
        ({TTL: "0"}, 400),
        ({TTL: "21601"}, 400),
        ({TTL: "x"}, 400),
    ],
)
def test_a_token_is_refused(service: Service, headers: dict[str, str], status: int) -> None:
    assert service.ask("/latest/api/token", "PUT", **headers)[0] == status


def test_without_a_token_where_one_is_required_and_with_a_false_one_it_answers_401(service: Service) -> None:
    assert service.ask("/latest/meta-data/", **{TOKEN: "made-up"})[0] == 401
    service.view = replace(VIEW, tokens_required=True)
    assert service.ask("/latest/meta-data/")[0] == 401


def test_a_token_ends(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    import time

    _, token = service.ask("/latest/api/token", "PUT", **{TTL: "60"})
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert service.ask("/latest/meta-data/", **{TOKEN: token})[0] == 401


def test_a_disabled_endpoint_answers_403_to_everything(service: Service) -> None:
    service.view = replace(VIEW, endpoint_enabled=False)
    assert service.ask("/latest/meta-data/")[0] == 403
    assert service.ask("/latest/api/token", "PUT", **{TTL: "60"})[0] == 403


def test_the_roles_credentials(service: Service) -> None:
    service.view = replace(VIEW, role_name="web", role_credentials=lambda: {"AccessKeyId": "ASIA1", "Token": "t"})
    assert service.read("meta-data/iam/security-credentials/") == "web"
    credentials = json.loads(service.read("meta-data/iam/security-credentials/web"))
    assert credentials["Code"] == "Success" and credentials["AccessKeyId"] == "ASIA1"


def test_the_identity_document_is_signed_by_the_authority(service: Service) -> None:
    document = service.read("dynamic/instance-identity/document")
    assert json.loads(document)["marketplaceProductCodes"] == ["abc123", "def456"]
    certificate = x509.load_pem_x509_certificate(service.authority.certificate_path.read_bytes())
    signature = base64.b64decode(service.read("dynamic/instance-identity/signature"))
    key = certificate.public_key()
    assert isinstance(key, rsa.RSAPublicKey)
    key.verify(signature, document.encode(), padding.PKCS1v15(), hashes.SHA256())
    message = base64.b64decode(service.read("dynamic/instance-identity/rsa2048"))
    assert pkcs7.load_der_pkcs7_certificates(message) == [certificate]
    assert document.encode() in message


def test_the_authority_is_kept_and_its_key_is_private(tmp_path: Path) -> None:
    first, second = Authority(tmp_path), Authority(tmp_path)
    assert first.certificate_path.read_bytes() == second.certificate_path.read_bytes()
    assert first.key_path.stat().st_mode & 0o777 == 0o600


def test_many_at_once_are_all_answered(service: Service) -> None:
    answers: list[tuple[int, str]] = []

    def ask() -> None:
        answers.extend(service.ask("/latest/meta-data/instance-id") for _ in range(10))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert answers == [(200, VIEW.instance_id)] * 160


def test_a_closed_instance_is_not_served_any_more(service: Service) -> None:
    service.server.close(VIEW.instance_id)
    assert not service.path.exists()
    with pytest.raises(FileNotFoundError):
        service.ask("/latest/")


def test_a_deep_directory_still_gets_a_socket(tmp_path: Path, authority: Authority) -> None:
    server = MetadataServer(tmp_path / ("deep" * 30), authority)
    assert len(str(server.serve("i-0123456789abcdef0", VIEW))) < 108
    server.close_all()


DEEP = """
import sys
from pathlib import Path
from pipeline.localcloud.authority import Authority
from pipeline.localcloud.metadata import MetadataServer
folder = Path(sys.argv[1])
print(MetadataServer(folder / ("deep" * 30), Authority(folder)).directory)
"""


@pytest.mark.subprocess
def test_the_socket_s_own_directory_goes_with_its_process(tmp_path: Path) -> None:
    ran = subprocess.run([sys.executable, "-c", DEEP, tmp_path], capture_output=True, text=True, check=True, cwd=ROOT)
    assert not Path(ran.stdout.strip()).exists()
    assert "assay-metadata-" in ran.stdout
