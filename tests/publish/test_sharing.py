"""Sharing over random states and faults: exactly as declared, or as it was before; and the public strictly last."""

from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.aws.launch_permissions import LaunchPermissions
from pipeline.errors import AssayError, CloudFailed, ReleaseFailed
from pipeline.publish import sharing
from pipeline.publish.sharing import Sharing, describe_changes, share_image, wanted_sharing
from pipeline.spec import Share
from tests.aws.conftest import FakeClock

IMAGE = "ami-0123456789abcdef0"
ROOT = "snap-0123456789abcdef0"
ACCOUNTS = ("111111111111", "222222222222", "333333333333")
ORGANIZATION = "arn:aws:organizations::111111111111:organization/o-abcdefghij"


class Region:
    region = "eu-central-1"


@dataclass
class Ledger:
    """The permissions of one image and its snapshot, and a fault at one of the calls."""

    launch: LaunchPermissions = field(default_factory=LaunchPermissions)
    snapshot: frozenset[str] = frozenset()
    fault_at: int = -1
    deaf: bool = False
    """Accepts every change, and changes nothing."""
    calls: list[str] = field(default_factory=list)

    def called(self, what: str) -> None:
        self.calls.append(what)
        if len(self.calls) == self.fault_at:
            raise CloudFailed("RequestLimitExceeded")

    def read_launch_permissions(self, _, image_id):
        assert image_id == IMAGE
        return self.launch

    def read_snapshot_permissions(self, _, snapshot_id):
        assert snapshot_id == ROOT
        return tuple(sorted(self.snapshot))

    def grant_launch(self, _, __, permissions):
        for granted in (replace(permissions, public=False), LaunchPermissions(public=permissions.public)):
            if granted:
                self.called(f"grant {' '.join(granted.describe())}")
                self.add(granted)

    def add(self, granted):
        if not self.deaf:
            self.launch = LaunchPermissions(
                self.launch.accounts | granted.accounts,
                self.launch.organizations | granted.organizations,
                self.launch.organizational_units | granted.organizational_units,
                self.launch.public or granted.public,
            )

    def take_back_launch(self, _, __, permissions):
        if permissions:
            self.called(f"revoke {' '.join(permissions.describe())}")
            self.launch = self.launch.without(permissions)

    def change_snapshot_permissions(self, _, __, add=(), remove=()):
        if add or remove:
            self.called(f"snapshot +{len(add)} -{len(remove)}")
            if not self.deaf:
                self.snapshot = (self.snapshot | set(add)) - set(remove)


def share(ledger: Ledger, declared: Share):
    with pytest.MonkeyPatch.context() as patch:
        for name in ("read_launch_permissions", "grant_launch", "take_back_launch"):
            patch.setattr(sharing.launch_permissions, name, getattr(ledger, name))
        for name in ("read_snapshot_permissions", "change_snapshot_permissions"):
            patch.setattr(sharing.snapshots, name, getattr(ledger, name))
        before, wanted = sharing.read_sharing(Region(), IMAGE, (ROOT,)), wanted_sharing(declared, (ROOT,))
        try:
            found = share_image(Region(), IMAGE, before, wanted, FakeClock().as_clock())
        except AssayError:
            sharing.revoke_launch(Region(), IMAGE, before)
            sharing.revoke_snapshot(Region(), ROOT, before)
            raise
        return tuple(sharing.permission_results(found, wanted))


def held_by(ledger: Ledger) -> set[str]:
    return {*ledger.launch.describe(), *(f"{who} {ROOT}" for who in ledger.snapshot)}


def declared_in(declared: Share) -> set[str]:
    wanted = wanted_sharing(declared, (ROOT,))
    return {*wanted.launch.describe(), *(f"{who} {ROOT}" for who in wanted.snapshots[ROOT])}


some_accounts = st.frozensets(st.sampled_from(ACCOUNTS))
some_ledgers = st.builds(
    Ledger,
    launch=st.builds(LaunchPermissions, accounts=some_accounts, public=st.booleans()),
    snapshot=some_accounts,
)
some_shares = st.builds(
    Share,
    accounts=some_accounts.map(lambda accounts: tuple(sorted(accounts))),
    organizations=st.sampled_from([(), (ORGANIZATION,)]),
    public=st.booleans(),
)


@given(some_ledgers, some_shares)
def test_the_permissions_are_exactly_as_declared_revocations_included(ledger, declared):
    results = share(ledger, declared)

    assert held_by(ledger) == declared_in(declared)
    assert {result.status for result in results} == {"pass"}


@given(some_ledgers, some_shares)
def test_public_is_granted_alone_and_after_every_other_change(ledger, declared):
    share(ledger, declared)

    grants = [number for number, call in enumerate(ledger.calls) if call.startswith("grant") and "all" in call.split()]
    assert grants in ([], [len(ledger.calls) - 1])
    assert all(ledger.calls[number] == "grant all" for number in grants)


@given(some_ledgers, some_shares, st.integers(1, 5))
def test_after_a_fault_nobody_has_what_they_had_not_before(ledger, declared, fault_at):
    ledger.fault_at = fault_at
    before = held_by(ledger)
    try:
        share(ledger, declared)
    except AssayError:
        assert held_by(ledger) <= before
    else:
        assert held_by(ledger) == declared_in(declared)


@given(some_ledgers, some_shares, st.integers(1, 5))
def test_a_second_run_completes_what_a_fault_broke_off(ledger, declared, fault_at):
    ledger.fault_at = fault_at
    try:
        share(ledger, declared)
    except AssayError:
        share(ledger, declared)
    assert held_by(ledger) == declared_in(declared)


def test_a_second_run_changes_nothing():
    ledger, declared = Ledger(), Share(accounts=ACCOUNTS[:2], public=True)
    share(ledger, declared)
    ledger.calls.clear()

    share(ledger, declared)

    assert ledger.calls == []


def test_a_grant_that_is_accepted_and_not_made_fails_the_release():
    with pytest.raises(ReleaseFailed, match="111111111111"):
        share(Ledger(deaf=True), Share(accounts=ACCOUNTS[:1]))


def test_changes_are_described_for_the_image_and_each_snapshot():
    current = Sharing(LaunchPermissions(accounts=frozenset(ACCOUNTS[:1])), {ROOT: frozenset(ACCOUNTS[:1])})
    wanted = wanted_sharing(Share(accounts=ACCOUNTS[1:2]), (ROOT,))

    assert describe_changes(current, wanted) == (
        "revoke launch: 111111111111",
        "grant launch: 222222222222",
        f"revoke {ROOT}: 111111111111",
        f"grant {ROOT}: 222222222222",
    )
