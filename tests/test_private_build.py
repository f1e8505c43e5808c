"""A build behind a bastion that is its NAT too, on real guests: in a network of its own, with no public address."""

import contextlib
import json
import re
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml

from pipeline.aws.session import open_session
from pipeline.aws.tags import RETIRED, Tags, mark_kept
from pipeline.aws.traffic import Flow, read_traffic
from pipeline.errors import CloudFailed
from tests.end_to_end import ROOT
from tests.fake_cloud import make_image
from tests.workshop import REGION, Workshop

pytestmark = pytest.mark.end_to_end

CIDR = "172.30.0.0/24"
NETWORK = {"create": {"cidr": CIDR, "nat": "instance"}, "address": "private", "connect": "bastion"}
LOOK_SECONDS = 0.5
RETIRE = {"keep": 1, "grace_days": 1}
OLDER = Tags("20250101-000000-000001", "sha256:00", "tests", datetime(2025, 1, 2, tzinfo=UTC))


@dataclass
class Seen:
    """What was seen of one instance while it ran."""

    private_address: str
    public_addresses: set[str] = field(default_factory=set)
    flows: set[Flow] = field(default_factory=set)


class Lookout:
    """Looks at every running instance of the cloud again and again, until it is told to stop."""

    def __init__(self, workshop: Workshop) -> None:
        self.ec2, self.seen = workshop.ec2, dict[str, Seen]()
        self.session = open_session(
            REGION,
            endpoint_url=workshop.cloud["AWS_ENDPOINT_URL"],
            access_key=workshop.cloud["AWS_ACCESS_KEY_ID"],
            secret_key=workshop.cloud["AWS_SECRET_ACCESS_KEY"],
        )
        self.over = threading.Event()
        self.thread = threading.Thread(target=self.look, daemon=True)

    def __enter__(self) -> "Lookout":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()

    def look(self) -> None:
        running = [{"Name": "instance-state-name", "Values": ["pending", "running", "stopping"]}]
        while not self.over.wait(LOOK_SECONDS):
            for reservation in self.ec2.describe_instances(Filters=running)["Reservations"]:
                for instance in reservation["Instances"]:
                    self.note(instance)

    def note(self, instance: dict[str, Any]) -> None:
        tags = {tag["Key"]: tag["Value"] for tag in instance.get("Tags", [])}
        seen = self.seen.setdefault(tags.get("Name", "").rsplit("-", 1)[-1], Seen(instance["PrivateIpAddress"]))
        seen.public_addresses |= {address} if (address := instance.get("PublicIpAddress")) else set()
        with contextlib.suppress(CloudFailed):  # it has just ended
            seen.flows |= set(read_traffic(self.session, instance["InstanceId"]) or ())


@pytest.fixture(scope="module")
def private(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, Any], Lookout]]:
    """The evidence of a build in a network of its own, and what was seen of its instances."""
    spec = yaml.safe_load((ROOT / "specs" / "debian-12-local.yaml").read_text())
    path = tmp_path_factory.mktemp("private") / "private.yaml"
    path.write_text(yaml.safe_dump(spec | {"name": "private", "network": NETWORK, "release": {"retire": RETIRE}}))
    with Lookout(workshop) as lookout:
        run = workshop.invoke("build", f"--spec={path}", "--json")
    assert run.status == 0, run.errors + run.output[-8000:]
    yield json.loads(run.output) | {"spec_path": str(path)}, lookout


def test_it_is_proved_like_any_other_and_its_network_too(private: tuple[dict[str, Any], Lookout]) -> None:
    evidence, _ = private
    assert {result["status"] for result in evidence["results"]} <= {"pass", "not-applicable"}
    assert {result["layer"] for result in evidence["results"]} == set("GSLBRA")
    passed = {one for result in evidence["results"] if result["status"] == "pass" for one in result["controls"]}
    assert {"A02", "A03", "A04", "A05", "A06", "A07"} <= passed
    assert (evidence["leaks"], evidence["findings"]) == ([], [])


def test_only_the_gate_ever_has_a_public_address(private: tuple[dict[str, Any], Lookout]) -> None:
    _, lookout = private
    assert set(lookout.seen) == {"gate", "instance", "consumer"}
    assert {name: bool(seen.public_addresses) for name, seen in lookout.seen.items()} == {
        "gate": True,
        "instance": False,
        "consumer": False,
    }


def test_the_guests_are_entered_through_the_gate(private: tuple[dict[str, Any], Lookout]) -> None:
    _, lookout = private
    through = {(flow.address, flow.port) for flow in lookout.seen["gate"].flows if flow.protocol == "tcp"}
    assert {(lookout.seen[name].private_address, 22) for name in ("instance", "consumer")} <= through


def test_the_guests_go_out_through_the_gate(private: tuple[dict[str, Any], Lookout]) -> None:
    _, lookout = private
    mirrors = {flow for flow in lookout.seen["instance"].flows if flow.protocol == "tcp" and flow.port in (80, 443)}
    outside = {(flow.address, flow.port) for flow in mirrors if not flow.address.startswith("169.254.")}
    assert outside, "updates were read"
    through = {(flow.address, flow.port) for flow in lookout.seen["gate"].flows}
    assert outside <= through


def test_nothing_of_the_network_is_left(private: tuple[dict[str, Any], Lookout], workshop: Workshop) -> None:
    ec2 = workshop.ec2
    assert [vpc for vpc in ec2.describe_vpcs()["Vpcs"] if vpc["CidrBlock"] == CIDR] == []
    of_builds = [{"Name": "tag-key", "Values": ["assay:build-id"]}]
    for ask, key in (
        (ec2.describe_subnets, "Subnets"),
        (ec2.describe_route_tables, "RouteTables"),
        (ec2.describe_internet_gateways, "InternetGateways"),
        (ec2.describe_network_acls, "NetworkAcls"),
        (ec2.describe_security_groups, "SecurityGroups"),
        (ec2.describe_addresses, "Addresses"),
        (ec2.describe_volumes, "Volumes"),
    ):
        assert ask(Filters=of_builds)[key] == [], key


def test_an_older_image_is_retired_step_by_step(private: tuple[dict[str, Any], Lookout], workshop: Workshop) -> None:
    evidence, lookout = private
    older = make_image(lookout.session, OLDER, f"private-{OLDER.build_id}")
    mark_kept(lookout.session, (older.image_id, *older.snapshot_ids))
    spec = f"--spec={evidence['spec_path']}"

    shown = workshop.invoke("retire", spec)
    assert shown.status == 0, shown.errors
    assert re.search(rf"^would deprecate +{REGION} {older.image_id} ", shown.output, re.MULTILINE), shown.output
    for step, state in (("deprecate", "available"), ("disable", "disabled"), ("deregister", None)):
        taken = workshop.invoke("retire", spec, "--yes")
        assert taken.status == 0, taken.errors
        assert re.search(rf"^{step} +{REGION} {older.image_id} ", taken.output, re.MULTILINE), taken.output
        assert state_of(workshop, older.image_id) == state
        if state:
            long_ago = {"Key": RETIRED, "Value": "2025-01-01T00:00:00Z"}
            workshop.ec2.create_tags(Resources=[older.image_id], Tags=[long_ago])
    assert state_of(workshop, evidence["image"]["image_id"]) == "available"
    assert (
        workshop.ec2.describe_snapshots(Filters=[{"Name": "snapshot-id", "Values": [*older.snapshot_ids]}])["Snapshots"]
        == []
    )


def state_of(workshop: Workshop, image_id: str) -> str | None:
    """Return the state of an image; None where there is none."""
    found = workshop.ec2.describe_images(Filters=[{"Name": "image-id", "Values": [image_id]}], IncludeDisabled=True)
    return next((image["State"] for image in found["Images"]), None)
