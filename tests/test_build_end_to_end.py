"""The whole recipe on a real guest of the local cloud: one build, looked at from every side; then one that fails."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipeline.stages.consumer import JOURNAL
from tests.end_to_end import ROOT
from tests.workshop import Run, Workshop

pytestmark = pytest.mark.end_to_end

CONSUMER = "210987654321"
STAGES = ["launch", "harden", "scrub", "prove live", "seal", "prove raw and fresh boot", "keep", "release", "clean up"]


def left_in(workshop: Workshop) -> dict[str, list[str]]:
    """Return everything in the account that costs money or opens a door; of images and snapshots, those of builds."""
    ec2 = workshop.ec2
    of_builds = [{"Name": "tag-key", "Values": ["assay:build-id"]}]
    reservations = ec2.describe_instances()["Reservations"]
    return {
        "instances": [
            instance["InstanceId"]
            for reservation in reservations
            for instance in reservation["Instances"]
            if instance["State"]["Name"] != "terminated"
        ],
        "volumes": [volume["VolumeId"] for volume in ec2.describe_volumes()["Volumes"]],
        "snapshots": [one["SnapshotId"] for one in ec2.describe_snapshots(Filters=of_builds)["Snapshots"]],
        "images": [image["ImageId"] for image in ec2.describe_images(Filters=of_builds)["Images"]],
        "keys": [key["KeyName"] for key in ec2.describe_key_pairs()["KeyPairs"]],
        "groups": [
            group["GroupName"]
            for group in ec2.describe_security_groups()["SecurityGroups"]
            if group["GroupName"] != "default"
        ],
    }


def test_a_build_passes_every_stage_and_every_layer(built):
    assert [stage["name"] for stage in built["stages"]] == STAGES
    assert {stage["status"] for stage in built["stages"]} == {"pass"}
    assert {result["layer"] for result in built["results"]} == set("GSLBRA")
    assert {result["status"] for result in built["results"]} <= {"pass", "not-applicable"}
    assert (built["findings"], built["leaks"], built["error"]) == ([], [], None)
    assert list(built["block_digests"]) == built["image"]["snapshot_ids"]


def test_what_does_not_apply_says_why(built):
    assert all(result["detail"] for result in built["results"] if result["status"] == "not-applicable")


def test_nothing_but_the_image_and_its_snapshot_is_left(built, workshop):
    left = left_in(workshop)

    assert built["image"]["image_id"] in left["images"]
    assert set(built["image"]["snapshot_ids"]) <= set(left["snapshots"])
    assert (left["instances"], left["volumes"], left["keys"], left["groups"]) == ([], [], [], [])
    assert {resource["identity"] for resource in built["resources"] if not resource["removed"]} == {
        built["image"]["image_id"],
        *built["image"]["snapshot_ids"],
    }


def test_the_image_is_shared_with_the_spec_s_account_and_nobody_else(built, workshop):
    image_id, (snapshot_id,) = built["image"]["image_id"], built["image"]["snapshot_ids"]
    launch = workshop.ec2.describe_image_attribute(ImageId=image_id, Attribute="launchPermission")
    copy = workshop.ec2.describe_snapshot_attribute(SnapshotId=snapshot_id, Attribute="createVolumePermission")

    assert [grant for grant in launch["LaunchPermissions"]] == [{"UserId": CONSUMER}]
    assert [grant for grant in copy["CreateVolumePermissions"]] == [{"UserId": CONSUMER}]


def test_every_launch_of_the_image_requires_imdsv2(built, workshop):
    (image,) = workshop.ec2.describe_images(ImageIds=[built["image"]["image_id"]])["Images"]

    assert image["ImdsSupport"] == "v2.0"
    assert {tag["Key"] for tag in image["Tags"]} >= {"assay:build-id", "assay:spec-digest", "assay:owner"}


def test_the_build_s_folder_has_the_evidence_and_no_secret(built, workshop):
    folder = workshop.builds / built["build_id"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    names = {path.name for path in files}

    assert (workshop.builds / "latest").resolve() == folder.resolve()
    assert names >= {"report.json", "report.html", "junit.xml", "report.sarif", "sbom.cdx.json"}
    assert "attestation.intoto.jsonl" in names
    assert names >= {"journal.jsonl", "program-harden.sh", "program-scrub.sh"}
    assert names >= {"console-instance.log", "console-consumer.log"}
    for path in files:
        content = path.read_bytes()
        assert b"PRIVATE KEY-----\n" not in content, path
        assert workshop.cloud["AWS_SECRET_ACCESS_KEY"].encode() not in content, path


def test_every_creation_was_on_disk_before_it_was_made(built, workshop):
    lines = (workshop.builds / built["build_id"] / "journal.jsonl").read_text().splitlines()
    events = [json.loads(line) for line in lines]
    created = [event["number"] for event in events if event["event"] == "created"]

    assert len(created) >= 7  # two keys, a group, two instances, two snapshots, an image
    for number in created:
        of_number = [event["event"] for event in events if event.get("number") == number]
        assert of_number[:2] == ["intent", "created"]


def test_sharing_again_changes_nothing_and_a_shorter_list_revokes(built, workshop, tmp_path):
    again = workshop.invoke("share")
    assert (again.status, "nothing to change" in again.output) == (0, True), again.errors

    spec = write_spec(tmp_path, share={"accounts": []})
    dry = workshop.invoke("share", f"--spec={spec}", "--dry-run")
    assert f"would revoke launch: {CONSUMER}" in dry.output
    assert permissions(workshop, built) == [{"UserId": CONSUMER}]

    assert workshop.invoke("share", f"--spec={spec}").status == 0
    assert permissions(workshop, built) == []
    assert workshop.invoke("share").status == 0
    assert permissions(workshop, built) == [{"UserId": CONSUMER}]


def permissions(workshop: Workshop, built: dict[str, Any]) -> list[dict[str, str]]:
    """Return who may launch the image."""
    image_id = built["image"]["image_id"]
    grants: list[dict[str, str]] = workshop.ec2.describe_image_attribute(
        ImageId=image_id, Attribute="launchPermission"
    )["LaunchPermissions"]
    return grants


def write_spec(folder: Path, **changes: Any) -> Path:
    """Write the default spec with some keys changed, and return its path."""
    spec = yaml.safe_load((ROOT / "specs" / "debian-12-local.yaml").read_text()) | changes
    path = folder / "changed.yaml"
    path.write_text(yaml.safe_dump(spec))
    return path


@pytest.fixture(scope="module")
def failed(built, workshop, tmp_path_factory) -> Run:
    """A build that a check of the user's own stops; what it made is kept."""
    folder = tmp_path_factory.mktemp("own")
    (folder / "test_own.py").write_text(
        "import pytest\n\n\n"
        '@pytest.mark.controls("H18", layers="L")\n'
        "def test_that_fails(host):\n"
        '    """The web server runs."""\n'
        '    assert host.run("systemctl is-active nginx").stdout.strip() == "active"\n'
    )
    spec = write_spec(folder, name="failing", checks=["test_own.py"], users=[a_user()])
    return workshop.invoke("build", f"--spec={spec}", "--on-error=keep")


def a_user() -> dict[str, Any]:
    """Return a user of the spec, with a key that nobody has the private half of."""
    from pipeline.guest.keys import make_key_pair

    public = make_key_pair("alice@example.com").public_openssh
    return {
        "name": "alice",
        "full_name": "Alice Example",
        "keys": [public],
        "sudo": {"who": "the platform team", "why": "on call"},
    }


def test_a_check_of_the_user_s_own_stops_the_image(failed, workshop):
    report = workshop.report()

    assert failed.status == 40, failed.output + failed.errors
    assert report["exit_status"] == 40
    assert report["image"] is None
    bad = [result["title"] for result in report["results"] if result["status"] in {"fail", "unreachable"}]
    assert bad == ["The web server runs"]
    assert [stage["status"] for stage in report["stages"]] == ["pass", "pass", "pass", "fail"]
    assert "Traceback" not in failed.output + failed.errors


def test_the_users_of_a_spec_are_proved_too(failed, workshop):
    proved = {
        control
        for result in workshop.report()["results"]
        if result["layer"] == "L" and result["status"] == "pass"
        for control in result["controls"]
    }
    assert {"H09", "H10", "H12"} <= proved


def test_a_build_that_is_not_proved_is_not_shared(failed, workshop):
    shared = workshop.invoke("share")

    assert shared.status == 50
    assert "not proved" in shared.errors


def test_what_was_kept_is_swept_and_the_good_image_stays(failed, built, workshop):
    assert left_in(workshop)["instances"]

    dry = workshop.invoke("sweep", "--dry-run")
    assert (dry.status, dry.output.count("would remove") >= 3) == (0, True), dry.output + dry.errors
    assert left_in(workshop)["instances"]

    swept = workshop.invoke("sweep")
    left = left_in(workshop)
    assert swept.status == 0, swept.output + swept.errors
    assert (left["instances"], left["volumes"], left["keys"], left["groups"]) == ([], [], [], [])
    assert left["images"] == [built["image"]["image_id"]]
    assert left["snapshots"] == built["image"]["snapshot_ids"]


def test_verify_proves_an_image_as_another_account_and_leaves_nothing(built, workshop, tmp_path):
    role = f"arn:aws:iam::{CONSUMER}:role/prover"
    prove = {"boot_again": [], "consumer": {"role_arn": role}}
    spec = write_spec(tmp_path, network={"scan_ports": True}, prove=prove)
    run = workshop.invoke("verify", f"--ami={built['image']['image_id']}", f"--spec={spec}", "--user=admin")
    left = left_in(workshop)
    results = workshop.report()["results"]

    assert run.status == 0, run.output[-8000:] + run.errors
    assert {result["layer"] for result in results} == {"A", "B", "R"}
    assert {result["status"] for result in results} <= {"pass", "not-applicable"}
    assert (left["instances"], left["keys"], left["groups"]) == ([], [], [])
    assert f"for its proof, the image is shared with {CONSUMER} and nobody else" in {one["title"] for one in results}
    theirs = [json.loads(line) for line in (workshop.builds / "latest" / JOURNAL).read_text().splitlines()]
    assert [one["kind"] for one in theirs if one["event"] == "intent"].count("instance") == 1
    assert permissions(workshop, built) == [{"UserId": CONSUMER}], "what was shared before stays so"


def test_a_scan_alone_finds_nothing_and_the_same_blocks(built, workshop):
    run = workshop.invoke("scan", f"--ami={built['image']['image_id']}", "--json")
    (report,) = json.loads(run.output).values()

    assert run.status == 0, run.output[-3000:] + run.errors
    assert report["findings"] == []
    assert report["digest"] == built["block_digests"][built["image"]["snapshot_ids"][0]]


def test_an_image_is_compared_by_its_blocks_and_its_evidence(built, workshop):
    image_id = built["image"]["image_id"]
    run = workshop.invoke("diff", f"--from={image_id}", f"--to={image_id}", "--json")
    assert run.status == 0, run.output[-3000:] + run.errors
    document = json.loads(run.output)

    assert set(document["subjects"]) >= {"packages", "users", "ports", "units", "controls", "files"}
    assert not any(document["subjects"].values())
    assert document["unknown"] == {}
    state = json.loads((workshop.builds / built["build_id"] / "booted-state.json").read_text())
    assert "22/tcp" in state["ports"]
    assert state["kernel_settings"]["kernel.kptr_restrict"] == "2"


FAULTS = {
    "a missing base image": (
        {"base_image": {"filter": {"name": "nothing-*", "owner": "136693071363"}}},
        11,
        ["nothing-*", "136693071363"],
    ),
    "another owner's image of that name": (
        {"base_image": {"filter": {"name": "debian-12-amd64-*", "owner": "111111111111"}}},
        11,
        ["111111111111", "136693071363"],
    ),
    "an id that nobody has": (
        {"base_image": {"id": "ami-0123456789abcdef0", "owner": "136693071363"}},
        11,
        ["ami-0123456789abcdef0"],
    ),
    "a region that does not exist": ({"region": "eu-nowhere-9"}, 12, ["eu-nowhere-9"]),
    "a subnet that does not exist": ({"network": {"subnet_id": "subnet-0123456789abcdef0"}}, 16, ["subnet-0123"]),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_one_clear_error_for_what_the_cloud_does_not_have(fault, workshop, tmp_path):
    changes, status, words = FAULTS[fault]
    run = workshop.invoke("build", f"--spec={write_spec(tmp_path, **changes)}")

    assert run.status == status, run.output + run.errors
    assert all(word in run.output + run.errors for word in words)
    assert "Traceback" not in run.output + run.errors
    assert left_in(workshop)["instances"] == []


FULL_DISK = 'mount -t tmpfs -o "size=$0" none "$ASSAY_BUILDS" && exec "$@"'


@pytest.mark.parametrize("size", ["16k", "96k"])
def test_a_disk_that_is_full_is_named_and_nothing_is_left(size, workshop, tmp_path):
    within = ("unshare", "--map-root-user", "--mount")
    if subprocess.run([*within, "true"], capture_output=True, check=False).returncode:
        pytest.skip("no disk of a chosen size without a mount namespace")
    run = workshop.invoke("build", within=(*within, "sh", "-c", FULL_DISK, size), ASSAY_BUILDS=str(tmp_path))

    assert run.status == 71, run.output + run.errors
    assert f"No space left on device ({tmp_path}/" in run.errors
    assert "free some space" in run.errors
    assert "Traceback" not in run.output + run.errors
    assert left_in(workshop)["instances"] == []


def test_five_faults_in_a_spec_are_five_lines(workshop, tmp_path):
    spec = write_spec(
        tmp_path,
        nmae="typo",
        region="nowhere",
        ssh={"port": 99999},
        network={"ssh_from": ["0.0.0.0/0"]},
        share={"accounts": ["12345"]},
    )
    run = workshop.invoke("plan", f"--spec={spec}", "--offline")

    assert run.status == 10
    assert run.errors.count(f"{spec}:") == 5, run.errors


def test_a_spec_for_aws_without_credentials_is_refused(workshop, tmp_path):
    unset = {
        "AWS_ACCESS_KEY_ID": "",
        "AWS_SECRET_ACCESS_KEY": "",
        "AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "none"),
        "AWS_CONFIG_FILE": str(tmp_path / "none"),
    }
    run = workshop.invoke("build", "--spec=specs/debian-12.yaml", **unset)

    assert run.status == 12, run.output + run.errors
    assert "credentials" in run.errors
