"""The Marketplace Catalog, held against botocore's model of it."""

import pytest

from pipeline.aws import change_sets
from pipeline.aws.change_sets import CATALOG, REGION
from pipeline.aws.session import Session
from pipeline.errors import CloudFailed, DeadlinePassed

CHANGE = {
    "ChangeType": "AddDeliveryOptions",
    "Entity": {"Type": "AmiProduct@1.0", "Identifier": "prod-abcdefghij123"},
    "DetailsDocument": {"Version": {"VersionTitle": "1", "ReleaseNotes": "1"}},
}
LISTED = {
    "Catalog": CATALOG,
    "FilterList": [{"Name": "ChangeSetName", "ValueList": ["assay 1"]}],
}
FOUND = {"Catalog": CATALOG, "ChangeSetId": "cs-1"}


@pytest.fixture
def session(source) -> Session:
    return Session(source, REGION)


@pytest.mark.parametrize("known", [[], [{"ChangeSetId": "cs-0", "Status": "FAILED"}]])
def test_a_change_set_is_begun_where_none_is_alive(session, stub, known):
    catalog = stub("marketplace-catalog")
    catalog.add_response("list_change_sets", {"ChangeSetSummaryList": known}, LISTED)
    asked = {"Catalog": CATALOG, "ChangeSet": [CHANGE], "ChangeSetName": "assay 1"}
    catalog.add_response("start_change_set", {"ChangeSetId": "cs-1"}, asked)
    assert change_sets.start_change_set(session, "assay 1", CHANGE) == "cs-1"


def test_one_that_was_begun_before_is_followed_on(session, stub):
    alive = {"ChangeSetSummaryList": [{"ChangeSetId": "cs-1", "Status": "APPLYING"}]}
    stub("marketplace-catalog").add_response("list_change_sets", alive, LISTED)
    assert change_sets.start_change_set(session, "assay 1", CHANGE) == "cs-1"


def test_a_product_at_work_refuses(session, stub):
    catalog = stub("marketplace-catalog")
    catalog.add_response("list_change_sets", {"ChangeSetSummaryList": []}, LISTED)
    catalog.add_client_error("start_change_set", "ResourceInUseException", "prod-1 is in change set cs-9")
    with pytest.raises(CloudFailed, match="ResourceInUseException: prod-1 is in change set cs-9"):
        change_sets.start_change_set(session, "assay 1", CHANGE)


def test_it_is_followed_to_its_end_with_all_that_went_wrong(session, stub, fake_clock):
    catalog = stub("marketplace-catalog")
    for status in ("PREPARING", "APPLYING"):
        catalog.add_response("describe_change_set", {"Status": status, "ChangeSet": []}, FOUND)
    errors = [
        {"ErrorCode": "SCAN_ERROR", "ErrorMessage": "password logins"},
        {"ErrorCode": "SCAN_ERROR", "ErrorMessage": "an old kernel"},
    ]
    failed = {"Status": "FAILED", "ChangeSet": [{"ErrorDetailList": errors}]}
    catalog.add_response("describe_change_set", failed, FOUND)
    seen = []
    ended = change_sets.follow_change_set(session, "cs-1", seen.append, fake_clock.as_clock())
    assert (ended.status, ended.problems) == ("FAILED", ("SCAN_ERROR: password logins", "SCAN_ERROR: an old kernel"))
    assert seen == ["PREPARING", "APPLYING", "FAILED"]


def test_one_that_fails_without_details_says_why(session, stub):
    failed = {"Status": "FAILED", "ChangeSet": [], "FailureDescription": "the role cannot be assumed"}
    stub("marketplace-catalog").add_response("describe_change_set", failed, FOUND)
    assert change_sets.read_change_set(session, "cs-1").problems == ("the role cannot be assumed",)


def test_one_that_never_ends_is_no_success(session, monkeypatch, fake_clock):
    monkeypatch.setattr(change_sets, "read_change_set", lambda *_: change_sets.ChangeSet("cs-1", "APPLYING", ()))
    with pytest.raises(DeadlinePassed, match="APPLYING"):
        change_sets.follow_change_set(session, "cs-1", lambda _: None, fake_clock.as_clock())
