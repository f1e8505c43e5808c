"""Is the account sound: who may do what with which means, who hears of the bill, what the regions allow (A15-A20)."""

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from pipeline.audit.findings import Bad, Check, Line, Readers, gather, in_each, judge, of_region
from pipeline.aws import alarms, identities, region_settings
from pipeline.aws.alarms import BillingAlarm, WantedAlarm
from pipeline.aws.identities import AccessKey, PasswordPolicy, User
from pipeline.aws.region_settings import AllowedImages
from pipeline.aws.session import Session

SHORTEST_PASSWORD = 14
UNUSED = timedelta(days=90)
OLDEST_KEY = timedelta(days=90)
GLOBAL = "global"


def audit_account(
    session: Session, regions: Sequence[str], *, shares_publicly: bool = False, now: datetime | None = None
) -> tuple[Line, ...]:
    """Return what is wrong with the account, and with its settings in each of these regions.

    With `shares_publicly` the account publishes images to everybody, and must not block that. What cannot be read is
    in the lines. Raises CredentialsRefused only if nobody answers at all.
    """
    moment = now or datetime.now(UTC)
    there = {region: session.in_region(region) for region in regions}
    readers: Readers = {
        "summary": partial(identities.read_account_summary, session),
        "users": partial(identities.read_users, session),
        "launchers": partial(identities.read_launchers, session),
        "policy": partial(identities.read_password_policy, session),
        "aliases": partial(identities.read_aliases, session),
        "alarms": partial(alarms.read_billing_alarms, session),
        **in_each(there, SETTINGS),
    }
    facts = gather(readers)
    lines = list(judge(account_checks(moment), facts, GLOBAL))
    for region in there:
        lines += judge(region_checks(shares_publicly), of_region(facts, region), region)
    return tuple(lines)


def open_alarm(session: Session, wanted: WantedAlarm, *, dry_run: bool) -> str:
    """Make the alarm on the bill that was asked for, and say so; a dry run only says it. Raises CloudFailed."""
    what = f"an alarm on the bill above {wanted.above:g} USD, heard by {wanted.address}"
    if dry_run:
        return f"would make {what}; --yes does, with sns:CreateTopic, sns:Subscribe and cloudwatch:PutMetricAlarm"
    alarms.create_billing_alarm(session, wanted)
    return f"made {what}, once the mail that AWS sends there is confirmed"


SETTINGS = {
    "zones": region_settings.read_zones,
    "encryption": region_settings.read_default_encryption,
    "image block": region_settings.read_image_block,
    "snapshot block": region_settings.read_snapshot_block,
    "allowed images": region_settings.read_allowed_images,
}


def account_checks(now: datetime) -> tuple[Check, ...]:
    """Return the checks of the account as a whole; ages count back from `now`."""
    summary, report = "iam:GetAccountSummary", "iam:GetCredentialReport"
    policies = f"{report} iam:GetAccountAuthorizationDetails"
    alarm = "cloudwatch:DescribeAlarms sns:ListSubscriptionsByTopic"
    return (
        Check("A15", "the root user has MFA", summary, ("summary",), without_root_mfa),
        Check("A15", "the root user has no access keys", summary, ("summary",), root_keys),
        Check("A16", "everyone who may launch instances has MFA", policies, ("users", "launchers"), without_mfa),
        Check("A17", "the password policy is strong", "iam:GetAccountPasswordPolicy", ("policy",), weak_passwords),
        Check("A18", "every access key is in use", report, ("users",), partial(unused_keys, now=now)),
        Check("A18", "every access key is young", report, ("users",), partial(old_keys, now=now)),
        Check("A18", "a user has at most one signing certificate", report, ("users",), many_certificates),
        Check("A18", "the root user has no signing certificate", summary, ("summary",), root_certificates),
        Check("A18", "the account has an alias", "iam:ListAccountAliases", ("aliases",), no_alias),
        Check("A19", "somebody hears of the bill", alarm, ("alarms",), unheard_bill),
    )


def region_checks(shares_publicly: bool) -> tuple[Check, ...]:
    """Return the checks of one region."""
    image_block = partial(wrong_block, shares_publicly=shares_publicly)
    snapshot_block = partial(wrong_block, shares_publicly=False)
    return (
        Check("A20", "the region answers", "ec2:DescribeAvailabilityZones", ("zones",), impaired_zones),
        Check("A09", "new volumes are encrypted", "ec2:GetEbsEncryptionByDefault", ("encryption",), unencrypted),
        Check(
            "A10",
            "public images are blocked, or meant",
            "ec2:GetImageBlockPublicAccessState",
            ("image block",),
            image_block,
        ),
        Check(
            "A09",
            "public snapshots are blocked",
            "ec2:GetSnapshotBlockPublicAccessState",
            ("snapshot block",),
            snapshot_block,
        ),
        Check(
            "A01",
            "only images of known owners are launched",
            "ec2:GetAllowedImagesSettings",
            ("allowed images",),
            any_image,
        ),
    )


def without_root_mfa(summary: dict[str, int]) -> Iterator[Bad]:
    """A15: whoever has the root user's password has everything."""
    if not summary.get("AccountMFAEnabled"):
        yield Bad("root", "sign in as the root user and add an MFA device")


def root_keys(summary: dict[str, int]) -> Iterator[Bad]:
    """A15: a key of the root user cannot be limited."""
    if summary.get("AccountAccessKeysPresent"):
        yield Bad("root", "delete the root user's access keys; use a role")


def root_certificates(summary: dict[str, int]) -> Iterator[Bad]:
    """A18: a certificate signs requests as a key does."""
    if summary.get("AccountSigningCertificatesPresent"):
        yield Bad("root", "delete the root user's signing certificates")


def without_mfa(users: Iterable[User], launchers: frozenset[str]) -> Iterator[Bad]:
    """A16: a stolen password launches thousands of machines in a few hours."""
    for user in users:
        if user.name in launchers and user.can_sign_in and not user.mfa:
            yield Bad(user.name, "may launch instances, and has no MFA device")


def weak_passwords(policy: PasswordPolicy | None) -> Iterator[Bad]:
    """A17: every class of characters, at least 14 of them, and users change what they were given."""
    if policy is None:
        yield Bad("", "there is no password policy")
        return
    if policy.shortest < SHORTEST_PASSWORD:
        yield Bad("", f"{policy.shortest} characters are enough, {SHORTEST_PASSWORD} should be")
    if policy.missing_classes:
        yield Bad("", f"not required: {', '.join(policy.missing_classes)}")
    if not policy.changeable:
        yield Bad("", "users may not change their own password")
    if policy.longest_days is None:
        yield Bad("", "a password never has to be changed")


def unused_keys(users: Iterable[User], now: datetime) -> Iterator[Bad]:
    """A18: what nobody uses, nobody misses when it is stolen."""
    for user, key in active_keys(users):
        since = key.last_used or key.changed
        if since is None or now - since > UNUSED:
            when = f"last used {key.last_used:%Y-%m-%d}" if key.last_used else "never used"
            yield Bad(f"{user.name} key {key.place}", f"{when}: deactivate it")


def old_keys(users: Iterable[User], now: datetime) -> Iterator[Bad]:
    """A18: the older a key, the more places it has been in."""
    for user, key in active_keys(users):
        if key.changed is None or now - key.changed > OLDEST_KEY:
            age = f"made {key.changed:%Y-%m-%d}" if key.changed else "of unknown age"
            yield Bad(f"{user.name} key {key.place}", f"{age}: use a role, or rotate it every {OLDEST_KEY.days} days")


def active_keys(users: Iterable[User]) -> Iterator[tuple[User, AccessKey]]:
    """Yield every active access key with its user."""
    yield from ((user, key) for user in users for key in user.keys)


def many_certificates(users: Iterable[User]) -> Iterator[Bad]:
    """A18: signing certificates are for instance-store images; one is the most anybody needs."""
    for user in users:
        if user.certificates > 1:
            yield Bad(user.name, f"{user.certificates} active signing certificates")


def no_alias(aliases: Sequence[str]) -> Iterator[Bad]:
    """A18: without an alias users must know the account's number to sign in."""
    if not aliases:
        yield Bad("", "`aws iam create-account-alias` gives it a name")


def unheard_bill(found: Sequence[BillingAlarm]) -> Iterator[Bad]:
    """A19: an alarm on EstimatedCharges that acts, and a subscriber who confirmed."""
    if not found:
        yield Bad("", "no alarm on EstimatedCharges in us-east-1")
    elif not any(alarm.enabled and alarm.confirmed_subscribers for alarm in found):
        for alarm in found:
            yield Bad(alarm.name, "no confirmed subscriber" if alarm.enabled else "its actions are disabled")


def impaired_zones(zones: dict[str, str]) -> Iterator[Bad]:
    """A20: the region is there, and its zones are well."""
    if not zones:
        yield Bad("", "no zone of this region may be used")
    for name, state in zones.items():
        if state != "available":
            yield Bad(name, f"it is {state}")


def unencrypted(enabled: bool) -> Iterator[Bad]:
    """A09: EBS encryption by default. Who publishes images needs an unencrypted region or a key of their own."""
    if not enabled:
        yield Bad("EBS encryption by default", "off; on, images that are to be shared need a key of your own")


def wrong_block(state: str, shares_publicly: bool) -> Iterator[Bad]:
    """A09, A10: nothing becomes public by accident; a publisher of public images must be able to share them."""
    blocked = state.startswith("block-")
    if not blocked and not shares_publicly:
        yield Bad("block public access", f"it is {state or 'not set'}: one wrong call shares with everybody")
    if blocked and shares_publicly:
        yield Bad("block public access", f"it is {state}, but the spec shares with everybody")


def any_image(setting: AllowedImages) -> Iterator[Bad]:
    """A01: Allowed AMIs keeps everybody in the account from an image that only bears a known name (whoAMI)."""
    if setting.state != "enabled":
        yield Bad("Allowed AMIs", f"it is {setting.state or 'not set'}: an image of anybody may be launched")
    elif not any(setting.providers):
        yield Bad("Allowed AMIs", "it is enabled, but no criterion names an owner")
