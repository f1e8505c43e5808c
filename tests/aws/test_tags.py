from datetime import UTC, datetime, timedelta, timezone

import pytest

from pipeline.aws import tags as tags_module
from pipeline.aws.tags import is_expired, is_kept, is_ours, is_resource_name, mark_kept, new_build_id, resource_name

BUILD_ID = "20250131-235959-1a2b3c"
NOW = datetime(2025, 2, 1, 4, tzinfo=UTC)


def test_build_ids_sort_by_time_and_fit_names():
    east = timezone(timedelta(hours=2))
    first = new_build_id(datetime(2025, 1, 31, 23, 59, 59, tzinfo=UTC))
    second = new_build_id(datetime(2025, 2, 1, 2, 0, 0, tzinfo=east))
    assert first.startswith("20250131-235959-") and second.startswith("20250201-000000-")
    assert is_resource_name(resource_name(first, "key"))


@pytest.mark.parametrize("role", ["", "Key", "a b", "key;"])
def test_a_name_that_could_not_be_found_again_is_refused(role):
    with pytest.raises(ValueError, match="found again"):
        resource_name(BUILD_ID, role)


def test_the_spec_s_tags_never_replace_ours(tags):
    forged = tags_module.Tags(
        tags.build_id, tags.spec_digest, tags.owner, tags.expires, {"assay:expires": "never", "Name": "web"}
    )
    made = forged.of(resource_name(BUILD_ID, "image"))
    assert made["assay:expires"] == "2025-02-01T04:00:00+00:00"
    assert made["Name"] == "web"
    assert made["assay:name"] == resource_name(BUILD_ID, "image")


def ours(**changes):
    made = {
        "assay:build-id": BUILD_ID,
        "assay:owner": "arn:aws:iam::111122223333:user/ana",
        "assay:name": resource_name(BUILD_ID, "key"),
        "assay:expires": "2025-02-01T03:59:59+00:00",
    }
    return {key: value for key, value in (made | changes).items() if value is not None}


@pytest.mark.parametrize(
    "changes",
    [
        {"assay:build-id": "mine"},
        {"assay:build-id": None},
        {"assay:owner": None},
        {"assay:owner": ""},
        {"assay:name": None},
        {"assay:name": "assay-20250131-235959-ffffff-key"},
    ],
)
def test_a_tag_that_is_missing_or_of_another_form_makes_it_not_ours(changes):
    assert is_ours(ours())
    assert not is_ours(ours(**changes))


def test_expiry():
    assert is_expired(ours(), NOW)
    assert not is_expired(ours(), NOW - timedelta(seconds=1))
    assert not is_expired(ours(**{"assay:expires": "never"}), NOW)
    assert is_kept(ours(**{"assay:expires": "never"})) and not is_kept(ours())


def test_image_and_snapshots_are_marked_in_one_call(session, stub):
    stub("ec2").add_response(
        "create_tags", {}, {"Resources": ["ami-1", "snap-1"], "Tags": [{"Key": "assay:expires", "Value": "never"}]}
    )
    mark_kept(session, ["ami-1", "snap-1"])
