"""A paid image on real guests: hardened as `strict` says, booted three times, shared without root for its customer.

The application is cron. What else the guard holds back is tested in tests/harden/test_product_guard.py.
"""

import json
import re
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.guest.keys import KeyPair, make_key_pair, read_host_keys
from pipeline.guest.shell import DirectConnector, Shell, can_log_in, connect
from pipeline.harden.product_guard import DROP_IN, FOLDER, SCRIPT, UNIT
from pipeline.report.evidence import Layer, Status
from pipeline.spec import load_spec
from pipeline.verify.live import CHECKS
from tests.end_to_end import DIRECT, ROOT, cloud_status, remove_home, running_cloud
from tests.guest.sshd import write_private
from tests.verify.proving import prove
from tests.workshop import Workshop

pytestmark = pytest.mark.end_to_end

CODE = "abcdefghijklmnopqrstuvwxy"
SUBJECTS = ("boot", "launch_user", "logs", "metadata", "product_guard", "updates")
BOOT_SECONDS = 600.0
STRANGER = make_key_pair("stranger")
GET_IN = {("vendor", "vendor"), ("clerk", "clerk"), ("customer", "admin")}

PLANTED = {
    "usermod -aG adm admin": "launch_user::the_launch_user_is_in_no_privileged_group",
    "echo 'admin ALL=(ALL) ALL' >/etc/sudoers.d/zz-later": "launch_user::the_launch_user_may_run_nothing_as_root",
    "echo 'allow_userdata: true' >/etc/cloud/cloud.cfg.d/zz-later.cfg": "launch_user::user_data_is_not_read",
    f"echo another >{FOLDER}/eu-west-1.pem": "product_guard::the_certificates_are_the_spec_s",
    f"chmod 777 {SCRIPT}": "product_guard::only_root_changes_the_guard",
    f"rm /etc/systemd/system/cron.service.d/{DROP_IN}; systemctl daemon-reload": (
        "product_guard::the_application_waits_for_it"
    ),
    f"systemctl stop {UNIT}": "product_guard::the_guard_passed",
    "touch /boot/vmlinuz-999.0.0-1-cloud-amd64": "updates::the_newest_kernel_runs",
}
"""What breaks H16, H30 and H31 on a running instance, and the check that finds it."""
FAILED_UNIT = "systemd-run --quiet --wait --unit=planted false || true"
FORGERIES = {
    f"cp {FOLDER}/*.pem /root/region.pem; openssl req -x509 -newkey rsa:2048 -nodes -keyout /dev/null -subj /CN=forger "
    f"-days 9 -out $(ls {FOLDER}/*.pem)": "the signature of the identity document is wrong",
    f"mv /root/region.pem $(ls {FOLDER}/*.pem); echo i-0123456789abcdef0 >/run/board; "
    "mount --bind /run/board /sys/class/dmi/id/board_asset_tag": "this machine is another instance",
}
"""What makes an instance another one than was paid for, in this order, and what the guard says."""
NOT_PLANTED_THERE = {
    "metadata::product_codes",  # its spec sells another one too
    "metadata::a_token_is_required",  # the instance is told to answer without
    "logs::the_journal_is_of_this_boot",  # the boot before is said to be that of the build
    "boot::no_unit_failed",  # a unit that fails is started
    "boot::the_system_is_up",
}
"""What else finds something wrong with that instance."""


class Vendor:
    """Who sells the image: a cloud of their own, and the keys of its users, of whom one is an administrator."""

    def __init__(self, cloud: dict[str, str], folder: Path) -> None:
        self.workshop = Workshop(cloud, folder / "builds")
        self.cloud, self.folder, self.ec2 = cloud, folder, self.workshop.ec2
        self.key, self.clerk_key = make_key_pair("vendor@example.com"), make_key_pair("clerk@example.com")
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
                },
                {"name": "clerk", "full_name": "The Clerk", "keys": [self.clerk_key.public_openssh]},
            ],
            "prove": {"boot_again": ["reboot", "stop-start"]},
            "share": {"accounts": ["210987654321"], "product_codes": [CODE]},
        }
        spec["harden"] |= {
            "profile": ["strict", "paid"],
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
            yield Customer(self, made["InstanceId"], key)
        finally:
            self.ec2.terminate_instances(InstanceIds=[made["InstanceId"]])


class Customer:
    """One instance of the image, and the ways into it."""

    def __init__(self, vendor: Vendor, instance_id: str, key: KeyPair) -> None:
        self.vendor, self.instance_id, self.key = vendor, instance_id, key
        vendor.ec2.get_waiter("instance_running").wait(InstanceIds=[instance_id])
        self.host_keys = wait_for(lambda: read_host_keys(self.console()))

    def console(self) -> str:
        """What the instance has printed."""
        answer = self.vendor.ec2.get_console_output(InstanceId=self.instance_id, Latest=True)
        return str(answer.get("Output", ""))

    def way(self) -> DirectConnector:
        """Where the instance answers: a stop and a start move it."""
        (reservation,) = self.vendor.ec2.describe_instances(InstanceIds=[self.instance_id])["Reservations"]
        return DirectConnector(reservation["Instances"][0]["PublicIpAddress"], self.vendor.port)

    @contextmanager
    def shell(self, user: str, key: KeyPair) -> Iterator[Shell]:
        """Log in, once it answers."""
        opened = connect(self.way(), user, key, self.host_keys, BOOT_SECONDS)
        try:
            yield opened
        finally:
            opened.close()

    def states(self) -> tuple[str, str]:
        """Return the states of guard and application once the boot is over."""
        with self.shell("vendor", self.vendor.key) as shell:
            shell.run("systemctl is-system-running --wait >/dev/null 2>&1", deadline_seconds=BOOT_SECONDS)
            guard, application = shell.run(f"systemctl is-active {UNIT} cron.service").stdout.split()
        return guard, application

    def who_gets_in(self) -> set[tuple[str, str]]:
        """Return who opens which account with a key, of everybody who is named anywhere, and a stranger."""
        keys = {"vendor": self.vendor.key, "clerk": self.vendor.clerk_key, "customer": self.key, "stranger": STRANGER}
        accounts = ("vendor", "clerk", "admin", "root")
        way = self.way()
        return {
            (owner, account)
            for account in accounts
            for owner, key in keys.items()
            if can_log_in(way, account, key, self.host_keys)
        }

    def start_again(self, script: str = ":") -> tuple[str, str]:
        """Run a script as root and start the guard again; return the states of guard and application then."""
        with self.shell("vendor", self.vendor.key) as shell:
            ran = shell.run(script)
            assert ran.exit_status == 0, ran.stderr
            shell.run(f"systemctl restart {UNIT}; systemctl start cron.service")
        return self.states()

    def boot_id(self) -> str:
        """Return what names this boot."""
        with self.shell("vendor", self.vendor.key) as shell:
            return shell.run("cat /proc/sys/kernel/random/boot_id").stdout.strip()

    def broken(self, boot_id: str, folder: Path) -> set[str]:
        """Plant all violations; return which checks fail against a spec that sells one product more.

        `boot_id` is said to be that of the build.
        """
        wanted = load_spec(self.vendor.folder / "paid.yaml")
        share = wanted.share.model_copy(update={"product_codes": (CODE, CODE[::-1])})
        wanted = wanted.model_copy(update={"share": share})
        folder.mkdir()
        for subject in SUBJECTS:
            (folder / f"test_{subject}.py").symlink_to(CHECKS / f"test_{subject}.py")
        with self.shell("vendor", self.vendor.key) as shell:
            for script in (*PLANTED, FAILED_UNIT):
                planted = shell.run(script)
                assert planted.exit_status == 0, planted.stderr
            results = prove(
                [shell.open_root_shell()], Layer.FRESH_BOOT, wanted, folder / "out", {"boot_id": boot_id}, checks=folder
            )
        bad = [one for one in results if one.status not in (Status.PASS, Status.NOT_APPLICABLE)]
        return {"::".join(re.findall(r"test_(.+?)(?:[.]py|$)", one.source)) for one in bad}

    def stop_and_start(self) -> None:
        """Stop the instance and start it again."""
        for change, state in (("stop_instances", "instance_stopped"), ("start_instances", "instance_running")):
            getattr(self.vendor.ec2, change)(InstanceIds=[self.instance_id])
            self.vendor.ec2.get_waiter(state).wait(InstanceIds=[self.instance_id])


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
    assert {("H20", "B"), ("H21", "B"), ("H25", "B")} <= passed, "the profile strict"


def test_what_a_fresh_boot_proves_holds_after_a_reboot_and_a_stop_and_a_start(paid: dict[str, Any]) -> None:
    at_boot = [result for result in paid["results"] if result["layer"] == "B"]
    first = {result["source"] for result in at_boot if not result["source"].endswith(")")}
    for after in (" (after a reboot)", " (after a stop and a start)"):
        again = {one["source"].removesuffix(after): one for one in at_boot if one["source"].endswith(after)}
        assert first - again.keys() == {"verify/fresh_boot::console[host_keys]"}
        stays = [result["status"] for source, result in again.items() if "test_boot_again.py" in source]
        assert stays == ["pass"] * 5


def test_the_application_runs_where_it_was_paid_for_and_each_user_gets_in(
    vendor: Vendor, paid: dict[str, Any], tmp_path: Path
) -> None:
    with vendor.customer(paid["image"]["image_id"]) as customer:
        assert customer.states() == ("active", "active")
        assert f"product code guard: passed: {customer.instance_id} carries {CODE}" in customer.console()
        assert customer.who_gets_in() == GET_IN
        first_boot = customer.boot_id()
        vendor.set_codes(customer.instance_id, [])
        customer.stop_and_start()
        assert customer.states() == ("failed", "inactive")
        assert "product code guard: held back: this instance has no product code" in customer.console()
        assert customer.who_gets_in() == GET_IN, "the application is held back, not its user"
        vendor.set_codes(customer.instance_id, [CODE])
        assert customer.start_again() == ("active", "active")
        for forgery, reason in FORGERIES.items():
            assert customer.start_again(forgery) == ("failed", "inactive")
            assert f"product code guard: held back: {reason}" in customer.console()
        assert customer.start_again("umount /sys/class/dmi/id/board_asset_tag") == ("active", "active")
        vendor.ec2.modify_instance_metadata_options(InstanceId=customer.instance_id, HttpTokens="optional")
        assert customer.broken(first_boot, tmp_path / "checks") == {*PLANTED.values(), *NOT_PLANTED_THERE}
