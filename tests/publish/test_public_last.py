"""Over random specs and faults: when the public is let in anywhere, all else is done everywhere."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from pipeline.aws.images import Image
from pipeline.aws.tags import Tags, new_build_id
from pipeline.errors import ReleaseFailed
from pipeline.journal import Journal
from pipeline.localcloud.accounts import BUILDER_ACCOUNT
from pipeline.localcloud.control_plane import of_account
from pipeline.publish.copies import Proved
from pipeline.publish.release import Release
from pipeline.spec import Release as Options
from pipeline.spec import Share, Spec
from tests.fake_cloud import make_image
from tests.publish.conftest import HOME, WiredSession
from tests.publish.faulty import Call, Strike
from tests.publish.scripted_release import BLOCK, DIGEST, SPEC

pytestmark = pytest.mark.end_to_end
EXAMPLES = 20
"""Each is two releases on a cloud."""
PUBLIC = {"Group": "all"}
ACCOUNTS = ("210987654321", "123456789012")

some_options = st.builds(
    Options,
    regions=st.sampled_from([(), ("us-east-1",), ("us-east-1", "eu-west-1")]),
    parameter=st.sampled_from([None, "/images/last"]),
    deprecate_after_days=st.sampled_from([None, 30]),
    protect=st.booleans(),
    copies_on_failure=st.sampled_from(["keep", "remove"]),
)
some_strikes = st.builds(Strike, call=st.integers(1, 60), kind=st.sampled_from(["error", "throttle", "lost-response"]))


class Watch:
    """Looks into the cloud whenever a call lets the public in."""

    def __init__(self, spec: Spec, image_name: str) -> None:
        self.spec, self.image_name = spec, image_name
        self.grants = 0
        self.early: list[str] = []

    def __call__(self, call: Call, asked: str) -> None:
        if "LaunchPermission.Add.1.Group=all" in asked:
            self.grants += 1
            self.early += [problem for region in self.regions for problem in self.missing_in(region)]

    @property
    def regions(self) -> tuple[str, ...]:
        return (HOME, *self.spec.release.regions)

    def images_in(self, region: str) -> list[Any]:
        return [one for one in of_account(BUILDER_ACCOUNT, region).images.values() if one.name == self.image_name]

    def missing_in(self, region: str) -> list[str]:
        """Return what is not yet as declared, the public left out."""
        found = self.images_in(region)
        if len(found) != 1 or found[0].state != "available":
            return [f"{region}: {len(found)} images"]
        (image,), options = found, self.spec.release
        there = of_account(BUILDER_ACCOUNT, region)
        accounts = set(self.spec.share.accounts)
        holds = {
            "launch": {one["UserId"] for one in image.permissions if one != PUBLIC} == accounts,
            "snapshot": all(there.own_snapshots[one].users == accounts for one in image.snapshot_ids),
            "parameter": not options.parameter or there.read_parameter(options.parameter) == image.id,
            "protection": not options.protect or image.protection.startswith("enabled"),
            "deprecation": not options.deprecate_after_days or image.deprecation_time is not None,
            "kept": there.tags[image.id]["assay:expires"] == "never" or region == HOME,
        }
        return [f"{region}: {what}" for what, held in holds.items() if not held]

    def public_in(self) -> list[str]:
        return [region for region in self.regions for image in self.images_in(region) if image.public]


@settings(max_examples=EXAMPLES, phases=[Phase.generate], suppress_health_check=list(HealthCheck))
@given(
    options=some_options,
    accounts=st.sampled_from([(), ACCOUNTS[:1], ACCOUNTS]),
    public=st.sampled_from([True, True, False]),
    strike=some_strikes,
)
def test_the_public_comes_last(home, virtual_time, options, accounts, public, strike) -> None:
    spec = SPEC.model_copy(update={"share": Share(accounts=accounts, public=public), "release": options})
    now = datetime.now(UTC)
    tags = Tags(new_build_id(now), "sha256:00", "tests", now + timedelta(hours=6))
    image = make_image(home, tags, f"last-{tags.build_id}", BLOCK)
    watch = Watch(spec, image.name)
    home.wire.before = watch
    try:
        with TemporaryDirectory() as folder:
            home.wire.arm(strike)
            try:
                release(home, spec, image, tags, Path(folder))
            except ReleaseFailed:
                assert watch.public_in() == []
                home.wire.arm(None)
                release(home, spec, image, tags, Path(folder))
    finally:
        home.wire.arm(None)
        home.wire.before = lambda *_: None
    assert watch.early == []
    assert bool(watch.grants) == public
    assert watch.public_in() == (list(watch.regions) if public else [])
    assert [problem for region in watch.regions for problem in watch.missing_in(region)] == []


def release(home: WiredSession, spec: Spec, image: Image, tags: Tags, folder: Path) -> None:
    """Release as `invoke share` does."""
    with Journal(folder / "journal.jsonl", tags.build_id) as journal:
        try:
            Release(
                home, spec, Proved(image, HOME, (DIGEST,)), tags, journal, lambda *_: None, lambda _: None
            ).perform()
        except BaseException:
            journal.undo_all()
            raise
