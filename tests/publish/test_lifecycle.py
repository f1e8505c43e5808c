"""The end of older images: in steps, after a grace time, and never of what is in use."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from pipeline.aws import images, usage
from pipeline.aws.session import Session, open_session
from pipeline.aws.tags import BUILD_ID, EXPIRES, NAME, NEVER, OWNER, RETIRED, Tags, format_time, mark_kept
from pipeline.errors import CloudFailed, ReleaseIncomplete, RetireFailed, SpecInvalid
from pipeline.journal import Journal
from pipeline.localcloud.accounts import BUILDER_ACCOUNT, SECRET, access_key
from pipeline.publish.copies import Proved
from pipeline.publish.lifecycle import Retirement, Step, decide, images_of, require_retired, retire_images
from pipeline.publish.release import Release
from pipeline.spec import Release as Options
from pipeline.spec import Retire, Share
from tests.fake_cloud import CONSUMER, make_image
from tests.localcloud.clouds import LocalCloud, launch, running
from tests.publish.scripted_release import BLOCK, DIGEST, SPEC

HOME, ABROAD = "eu-central-1", "us-east-1"
RETIRE = Retire(keep=1, grace_days=10)
NAMED = SPEC.model_copy(
    update={
        "share": Share(accounts=(CONSUMER,)),
        "release": Options(regions=(ABROAD,), parameter="/images/line", protect=True, retire=RETIRE),
    }
)
NOW = datetime.now(UTC).replace(microsecond=0)
LONG_AGO = NOW - timedelta(days=11)
LINE = ("20250101-000000-000001", "20250201-000000-000002", "20250301-000000-000003")


def image(**changes: object) -> images.Image:
    tags = {
        OWNER: "me",
        EXPIRES: NEVER,
        BUILD_ID: LINE[0],
        NAME: f"assay-{LINE[0]}-image",
        **changes.pop("tags", {}),  # type: ignore[arg-type]
    }
    made = images.read_image({"ImageId": "ami-1", "Name": f"{SPEC.name}-{LINE[0]}", "State": "available"})
    return replace(made, tags=tags, **changes)  # type: ignore[arg-type]


def retired_at(moment: datetime) -> dict[str, str]:
    return {RETIRED: format_time(moment)}


def broken(_: images.Image) -> list[str]:
    raise CloudFailed("AccessDenied")


@pytest.mark.parametrize(
    ("one", "kept", "uses", "step"),
    [
        (image(), True, broken, Step.KEEP),
        (image(), False, lambda _: [], Step.DEPRECATE),
        (image(), False, lambda _: ["i-1"], Step.IN_USE),
        (image(), False, broken, Step.UNKNOWN),
        (image(tags=retired_at(NOW - timedelta(days=9))), False, broken, Step.WAIT),
        (image(tags=retired_at(LONG_AGO)), False, lambda _: [], Step.DISABLE),
        (image(tags=retired_at(LONG_AGO)), False, lambda _: ["i-1"], Step.IN_USE),
        (image(tags=retired_at(LONG_AGO), state="disabled"), False, lambda _: [], Step.DEREGISTER),
        (image(tags=retired_at(LONG_AGO), state="disabled"), False, lambda _: ["i-1"], Step.IN_USE),
        (image(tags=retired_at(NOW - timedelta(days=9)), state="disabled"), False, lambda _: [], Step.WAIT),
        (image(tags={RETIRED: "nonsense"}), False, lambda _: [], Step.DEPRECATE),
    ],
)
def test_an_image_takes_one_step_after_the_grace_time_and_none_while_it_is_used(one, kept, uses, step):
    assert decide(HOME, one, kept, RETIRE, uses, NOW).step is step


def test_what_could_not_be_asked_or_done_is_no_success():
    line = Retirement(HOME, "ami-1", "web", Step.UNKNOWN, "whether it is in use could not be asked", "AccessDenied")
    with pytest.raises(RetireFailed, match="ami-1 in eu-central-1: AccessDenied"):
        require_retired([line])
    require_retired([replace(line, step=Step.IN_USE, problem="")])


def test_a_dry_run_says_so_and_every_step_names_the_way_back():
    line = Retirement(HOME, "ami-1", "web", Step.DISABLE, "nobody has used it since 2025-01-31")
    assert line.describe(dry_run=True).startswith("would disable")
    assert "enable-image" in line.describe(dry_run=False)


def test_a_spec_that_says_nothing_retires_nothing():
    with pytest.raises(SpecInvalid, match="does not say what becomes of older images"):
        retire_images(None, SPEC, dry_run=True)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCloud]:
    with running(Path(tmp_path_factory.mktemp("cloud"))) as started:
        yield started


@pytest.fixture
def session(cloud: LocalCloud) -> Session:
    return open_session(HOME, cloud.server.url, access_key=access_key(BUILDER_ACCOUNT), secret_key=SECRET)


def release_build(session: Session, build_id: str, folder: Path) -> images.Image:
    """Make the image of a build and release it."""
    tags = Tags(build_id, "sha256:00", "tests", NOW + timedelta(hours=6))
    made = make_image(session, tags, NAMED.image_name(build_id, NOW.date()), BLOCK)
    mark_kept(session, (made.image_id, *made.snapshot_ids))
    with Journal(folder / f"{build_id}.jsonl", build_id) as journal:
        proved = Proved(made, HOME, (DIGEST,))
        Release(session, NAMED, proved, tags, journal, lambda *_: None, lambda _: None).perform()
    return made


def steps(session: Session, now: datetime, *, dry_run: bool = False) -> dict[tuple[str, str], Step]:
    found = retire_images(session, NAMED, dry_run=dry_run, now=now)
    require_retired(found)
    return {(one.region, one.name.removeprefix(f"{NAMED.name}-")): one.step for one in found}


@pytest.mark.end_to_end
def test_older_images_are_deprecated_disabled_and_removed_in_every_region(session, cloud, tmp_path) -> None:
    old, _, newest = [release_build(session, build_id, tmp_path) for build_id in LINE]
    users = cloud.client("ec2", region=HOME)
    in_use = launch(users, old.image_id)
    foreign = launch(cloud.client("ec2", CONSUMER, ABROAD), images_of(session.in_region(ABROAD), NAMED)[1].image_id)
    session.client("autoscaling").create_launch_configuration(
        LaunchConfigurationName="web", ImageId=newest.image_id, InstanceType="t3.small"
    )
    assert usage.read_launch_configurations(session) == {newest.image_id: ["launch configuration web"]}
    session.client("ec2").create_launch_template(
        LaunchTemplateName="web", LaunchTemplateData={"ImageId": newest.image_id}
    )
    referring = usage.read_references(session, [newest.image_id])[newest.image_id]
    assert [arn.split(":")[5].split("/")[0] for arn in referring] == ["launch-template", "parameter"]

    first, second, third = LINE
    everywhere = {(region, third): Step.KEEP for region in (HOME, ABROAD)}
    expected = everywhere | {
        (HOME, first): Step.IN_USE,
        (ABROAD, first): Step.DEPRECATE,
        (HOME, second): Step.DEPRECATE,
        (ABROAD, second): Step.IN_USE,
    }
    later = datetime.now(UTC) + timedelta(minutes=1)
    assert steps(session, later, dry_run=True) == expected
    assert steps(session, later, dry_run=True) == expected, "a dry run changes nothing"
    assert steps(session, later) == expected
    users.terminate_instances(InstanceIds=[in_use])
    cloud.client("ec2", CONSUMER, ABROAD).terminate_instances(InstanceIds=[foreign])
    gone, waiting = (ABROAD, first), (HOME, second)
    assert steps(session, later)[gone] is Step.WAIT

    after = later + timedelta(days=11)
    assert steps(session, after)[gone] is Step.DISABLE
    there = session.in_region(ABROAD).client("ec2")
    disabled = next(one for one in images_of(session.in_region(ABROAD), NAMED) if one.tags[BUILD_ID] == first)
    assert disabled.state == "disabled" and disabled.protection.startswith("enabled")
    assert steps(session, after + timedelta(days=11))[waiting] is Step.DEREGISTER
    assert {one.tags[BUILD_ID] for one in images_of(session.in_region(ABROAD), NAMED)} == {second, third}
    held = {snapshot["SnapshotId"] for snapshot in there.describe_snapshots(OwnerIds=["self"])["Snapshots"]}
    assert not set(disabled.snapshot_ids) & held

    session.in_region(ABROAD).client("ssm").delete_parameter(Name="/images/line")
    with pytest.raises(ReleaseIncomplete, match=f"{ABROAD} Incorrect"):
        steps(session, after)
