"""A paid image on real guests: built, proved and shared without root for its customer.

The application is cron. That it is held back elsewhere is tested in tests/harden/test_product_guard.py.
"""

import json
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.guest.keys import KeyPair, make_key_pair, read_host_keys
from pipeline.guest.shell import DirectConnector, Shell, connect
from tests.end_to_end import DIRECT, ROOT, cloud_status, remove_home, running_cloud
from tests.guest.sshd import write_private
from tests.workshop import Workshop

pytestmark = pytest.mark.end_to_end

CODE = "abcdefghijklmnopqrstuvwxy"
GUARD = "assay-product-guard.service"
BOOT_SECONDS = 600.0


class Vendor:
    """Who sells the image: a cloud of their own, and the key of the one administrator."""

    def __init__(self, cloud: dict[str, str], folder: Path) -> None:
        self.workshop = Workshop(cloud, folder / "builds")
        self.cloud, self.folder, self.ec2 = cloud, folder, self.workshop.ec2
        self.key = make_key_pair("vendor@example.com")
        write_private(folder / "vendor", self.key.private_openssh.reveal)
        self.port = cloud_status(cloud)["ssh_port"]

    def set_codes(self, identity: str, codes: list[str]) -> None:
        """Do what only AWS Marketplace can."""
        data = json.dumps({"id": identity, "codes": codes}).encode()
        request = urllib.request.Request(f"{self.cloud['AWS_ENDPOINT_URL']}/_cloud/product-codes", data, method="PUT")
        DIRECT.open(request, timeout=60).close()

    def write_spec(self) -> Path:
        """Write the spec of the paid image."""
        spec: dict[str, Any] = yaml.safe_load((ROOT / "specs" / "debian-12-local.yaml").read_text())
        certificate = Path(cloud_status(self.cloud)["identity_certificate"]).read_text()
        spec |= {
            "name": "paid",
            "ssh": {"user": "admin", "administrator_key_file": str(self.folder / "vendor")},
            "users": [
                {
                    "name": "vendor",
                    "full_name": "The Vendor",
                    "keys": [self.key.public_openssh],
                    "sudo": {"who": "the vendor", "why": "support"},
                }
            ],
            "share": {"accounts": ["210987654321"], "product_codes": [CODE]},
        }
        spec["harden"] |= {
            "profile": "paid",
            "product_guard": {"services": ["cron.service"], "certificates": {spec["region"]: certificate}},
        }
        path = self.folder / "paid.yaml"
        path.write_text(yaml.safe_dump(spec))
        return path

    @contextmanager
    def customer(self, image_id: str) -> Iterator["Customer"]:
        """Launch an instance with the customer's key, and terminate it afterwards."""
        key = make_key_pair("customer")
        self.ec2.import_key_pair(KeyName=image_id, PublicKeyMaterial=key.public_openssh.encode())
        (group,) = self.ec2.describe_security_groups(GroupNames=["default"])["SecurityGroups"]
        rule = {
            "IpProtocol": "tcp",
            "FromPort": self.port,
            "ToPort": self.port,
            "IpRanges": [{"CidrIp": "127.0.0.0/8"}],
        }
        if not any(one.get("ToPort") == self.port for one in group["IpPermissions"]):
            self.ec2.authorize_security_group_ingress(GroupId=group["GroupId"], IpPermissions=[rule])
        (made,) = self.ec2.run_instances(
            ImageId=image_id,
            InstanceType="t3.small",
            MinCount=1,
            MaxCount=1,
            KeyName=image_id,
        )["Instances"]
        try:
            yield Customer(self, made["InstanceId"])
        finally:
            self.ec2.terminate_instances(InstanceIds=[made["InstanceId"]])


class Customer:
    """One instance of the image, and the ways into it."""

    def __init__(self, vendor: Vendor, instance_id: str) -> None:
        self.vendor, self.instance_id = vendor, instance_id
        vendor.ec2.get_waiter("instance_running").wait(InstanceIds=[instance_id])
        (reservation,) = vendor.ec2.describe_instances(InstanceIds=[instance_id])["Reservations"]
        self.address = reservation["Instances"][0]["PublicIpAddress"]
        self.host_keys = wait_for(lambda: read_host_keys(self.console()))

    def console(self) -> str:
        """What the instance has printed."""
        answer = self.vendor.ec2.get_console_output(InstanceId=self.instance_id, Latest=True)
        return str(answer.get("Output", ""))

    @contextmanager
    def shell(self, user: str, key: KeyPair) -> Iterator[Shell]:
        """Log in."""
        opened = connect(DirectConnector(self.address, self.vendor.port), user, key, self.host_keys, BOOT_SECONDS)
        try:
            yield opened
        finally:
            opened.close()

    def states(self) -> tuple[str, str]:
        """Return the states of guard and application once the boot is over."""
        with self.shell("vendor", self.vendor.key) as shell:
            shell.run("systemctl is-system-running --wait >/dev/null 2>&1", deadline_seconds=BOOT_SECONDS)
            guard, application = shell.run(f"systemctl is-active {GUARD} cron.service").stdout.split()
        return guard, application


def wait_for(ask: Callable[[], Any]) -> Any:
    """Return what is asked for once there is something."""
    ends = time.monotonic() + BOOT_SECONDS
    while not (found := ask()):
        assert time.monotonic() < ends, "it did not come in time"
        time.sleep(0.5)
    return found


@pytest.fixture(scope="module")
def vendor(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vendor]:
    """A cloud of its own: the base image there has a product code, which would be in the way of other tests."""
    home = tmp_path_factory.mktemp("paid-cloud")
    failed_before = request.session.testsfailed
    with running_cloud(home) as cloud:
        yield Vendor(cloud, tmp_path_factory.mktemp("vendor"))
    remove_home(home, keep_logs=request.session.testsfailed > failed_before)


@pytest.fixture(scope="module")
def paid(vendor: Vendor) -> dict[str, Any]:
    """The evidence of the build of a paid image."""
    filters = [{"Name": "name", "Values": ["debian-12-amd64-*"]}]
    (base,) = vendor.ec2.describe_images(Owners=["136693071363"], Filters=filters)["Images"]
    vendor.set_codes(base["ImageId"], [CODE])
    run = vendor.workshop.invoke("build", f"--spec={vendor.write_spec()}", "--json")
    assert run.status == 0, run.errors + run.output[-8000:]
    evidence: dict[str, Any] = json.loads(run.output)
    return evidence


def test_a_paid_image_is_proved_at_every_layer(paid: dict[str, Any]) -> None:
    passed = {
        (control, result["layer"])
        for result in paid["results"]
        if result["status"] == "pass"
        for control in result["controls"]
    }
    assert {("H30", "G"), ("H30", "L"), ("H30", "B"), ("H31", "G"), ("H31", "B"), ("A11", "A")} <= passed


def test_the_application_runs_where_it_was_paid_for(vendor: Vendor, paid: dict[str, Any]) -> None:
    with vendor.customer(paid["image"]["image_id"]) as customer:
        assert customer.states() == ("active", "active")
        assert f"product code guard: passed: {customer.instance_id} carries {CODE}" in customer.console()
