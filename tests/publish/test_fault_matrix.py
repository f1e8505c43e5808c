"""Whatever call of a release over two regions goes wrong, and however: nothing is half shared, and nothing is left.

Each call is refused, throttled, answered by nobody, and the last before and after which the process is killed. The
public comes only after all else is there, in every region; a release that was not killed has either succeeded or taken
everything back; running it again completes it; a sweep finds no orphan. Where nothing can be changed any more, and so
nothing be taken back, everything that stays is named, and the other region is taken back all the same.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.aws.session import Session
from pipeline.aws.tags import BUILD_ID, EXPIRES, NEVER, read_tags
from pipeline.errors import ReleaseFailed
from pipeline.sweep import sweep_builds
from tests.fake_cloud import CONSUMER, ROOT, FakeCloud, fake_cloud
from tests.publish.faulty import KINDS, READING, STUCK
from tests.publish.scripted_release import HOME, REGIONS, parameter

__all__ = ["fake_cloud"]
pytestmark = pytest.mark.end_to_end

WHOLE = "20250131-235959-ffffff"
POLLED = ("DescribeImages", "GetParameter")
LOOKS = 1
"""Of each call that only waits for something, so many are struck: how often it is asked depends on the machine."""
KEPT = ("error", "throttle", "kill-after", STUCK)
"""In these rows the spec keeps the copies of a failed release; in the others it removes them."""
EVERYTHING = {
    f"{region} {what}" for region in REGIONS for what in ("parameter", "image", "consumer", "snapshot", "public")
}
PRIVATE = {one for one in EVERYTHING if not one.endswith("public")}
HARMLESS = {f"{region} image" for region in REGIONS}
"""An image that nobody else sees."""
WORDS = {
    "consumer": "launch permissions",
    "public": "launch permissions",
    "snapshot": "permissions of snap-",
    "parameter": "parameter",
}
"""How the error names what could not be taken back."""


def run_releases(cloud: FakeCloud, folder: Path, lines: list[str]) -> dict[str, str]:
    """Run a release for each line, and return by its build id how it ended."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.publish.scripted_release", cloud.endpoint, str(folder)],
        input="\n".join(lines),
        env=os.environ | cloud.environment,
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=2400,
    )
    return dict(line.split() for line in done.stdout.splitlines())


def worth_striking(call: str) -> bool:
    """Return whether a call comes in every run."""
    _, action, number = call.split()
    return action not in POLLED or int(number) <= LOOKS


def read_holders(session: Session, builds: list[str]) -> dict[str, set[str]]:
    """Return who holds what of each build: images, launches, volumes, parameters, the public."""
    held: dict[str, set[str]] = {build_id: set() for build_id in builds}
    for region in REGIONS:
        there = session.in_region(region)
        ec2 = there.client("ec2")
        own = ec2.describe_images(Owners=["self"], IncludeDeprecated=True)["Images"]
        named = {image["ImageId"]: image["Name"] for image in own if image["Name"] in held}
        shared = ec2.describe_images(ExecutableUsers=[CONSUMER])["Images"]
        snapshots = ec2.describe_snapshots(RestorableByUserIds=[CONSUMER])["Snapshots"]
        public = [image["ImageId"] for image in own if image["Public"]]
        for kind, images in (("image", named), ("consumer", [one["ImageId"] for one in shared]), ("public", public)):
            for image_id in images:
                if image_id in named:
                    held[named[image_id]].add(f"{region} {kind}")
        for snapshot in snapshots:
            build_id = read_tags(snapshot.get("Tags")).get(BUILD_ID, "")
            if build_id in held:
                held[build_id].add(f"{region} snapshot")
        names = [parameter(build_id) for build_id in builds]
        for start in range(0, len(names), 10):
            for found in there.client("ssm").get_parameters(Names=names[start : start + 10])["Parameters"]:
                build_id = found["Name"].rpartition("/")[2]
                assert named.get(found["Value"]) == build_id
                held[build_id].add(f"{region} parameter")
    return held


def orphans(session: Session) -> set[str]:
    """Return the images that are not kept, those that are twice there, and the snapshots that no image has."""
    found = set()
    for region in REGIONS:
        ec2 = session.in_region(region).client("ec2")
        own = ec2.describe_images(Owners=["self"], IncludeDeprecated=True)["Images"]
        found |= {one["ImageId"] for one in own if read_tags(one.get("Tags"))[EXPIRES] != NEVER}
        names = [one["Name"] for one in own]
        found |= {name for name in names if names.count(name) > 1}
        used = {mapping["Ebs"]["SnapshotId"] for one in own for mapping in one["BlockDeviceMappings"]}
        found |= {one["SnapshotId"] for one in ec2.describe_snapshots(OwnerIds=["self"])["Snapshots"]} - used
    return found


def test_a_release_that_goes_wrong_at_any_call_is_taken_back_or_completed(
    fake_cloud: FakeCloud, tmp_path: Path
) -> None:
    session = fake_cloud.open(HOME)
    for region in REGIONS:
        session.in_region(region).client("ec2").disable_image_block_public_access()
    folders = {what: tmp_path / what for what in ("keep", "remove")}
    for folder in folders.values():
        folder.mkdir()
    assert run_releases(fake_cloud, folders["keep"], [f"{WHOLE} none"]) == {WHOLE: "0"}
    assert read_holders(session, [WHOLE])[WHOLE] == EVERYTHING
    calls = list(filter(worth_striking, (folders["keep"] / WHOLE / "calls").read_text().splitlines()))
    assert len(calls) >= 25

    matrix = [f"{kind} {call}" for call in calls for kind in KINDS]
    matrix += [f"{STUCK} {call}" for call in calls if not call.split()[1].startswith(READING)]
    strikes = {f"20250131-235959-{number:06x}": strike for number, strike in enumerate(matrix)}
    builds = {
        "keep": [build_id for build_id, strike in strikes.items() if strike.split()[0] in KEPT],
        "remove": [build_id for build_id, strike in strikes.items() if strike.split()[0] not in KEPT],
    }
    ends: dict[str, str] = {}
    for what, folder in folders.items():
        ends |= run_releases(fake_cloud, folder, [f"{build_id} {strikes[build_id]}" for build_id in builds[what]])
    held = read_holders(session, list(strikes))
    errors = {
        build_id: (folders[what] / build_id / "error").read_text() if ends[build_id] not in ("0", "killed") else ""
        for what in folders
        for build_id in builds[what]
    }
    assert any("not everything could be taken back" in error for error in errors.values())
    wrong = {
        strikes[build_id]: (end, sorted(held[build_id]))
        for build_id, end in ends.items()
        if not is_sound(strikes[build_id], end, held[build_id], errors[build_id])
    }
    assert wrong == {}

    assert sweep_builds(session, folders["remove"]).exit_status == 0
    for what, folder in folders.items():
        lines = [f"{build_id} none" for build_id in builds[what] if ends[build_id] != "0"]
        assert set(run_releases(fake_cloud, folder, lines).values()) == {"0"}
        assert sweep_builds(session, folder).exit_status == 0
    held = read_holders(session, list(strikes))
    assert {strikes[build_id]: held[build_id] for build_id in strikes if held[build_id] != EVERYTHING} == {}
    assert orphans(session) == set()


def is_sound(strike: str, end: str, held: set[str], error: str) -> bool:
    """Return whether a release ended as it may: complete, taken back, or killed with the public not before the rest.

    What could not be taken back is in its error, by region and kind.
    """
    if end == "killed":
        return strike.startswith("kill") and (held <= PRIVATE or held >= PRIVATE)
    if end == "0":
        return held == EVERYTHING
    stays = held - HARMLESS
    listed = all(f"{one.split()[0]}: {WORDS[one.split()[1]]}" in error for one in stays)
    return end == str(ReleaseFailed.exit_status) and listed and (not stays or strike.startswith(STUCK))
