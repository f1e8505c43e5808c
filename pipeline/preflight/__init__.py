"""Asked before anything is spent: would a build and its release go through? All at once, and all problems at once.

The answers are lines like those of an audit. What may not be asked is `unknown` and stops nothing: the build itself
will say. What fails, and a region that does not answer, stops a build before its first resource.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import partial

from pipeline.audit.findings import Bad, Check, Facts, Line, Readers, Verdict, gather, judge, of_region
from pipeline.aws import (
    encryption_keys,
    images,
    instances,
    keys,
    network,
    offers,
    region_settings,
    roles,
    security_groups,
    vpcs,
)
from pipeline.aws.encryption_keys import EncryptionKey
from pipeline.aws.identities import Document
from pipeline.aws.images import Image
from pipeline.aws.key_policy import missing_rights
from pipeline.aws.network import Subnet
from pipeline.aws.region_settings import AllowedImages
from pipeline.aws.session import Session, is_transient
from pipeline.aws.tags import Tags, resource_name
from pipeline.errors import AssayError, CapacityMissing, CloudFailed, CredentialsRefused, PreflightFailed
from pipeline.guest.keys import make_key_pair
from pipeline.guest.proxy_command import PROGRAMS, missing_programs
from pipeline.preflight.headroom import headroom_checks, headroom_readers, public_image_check, public_image_reader
from pipeline.spec import Spec

BLOCKING = frozenset({Verdict.FAIL, Verdict.UNREACHABLE})
ATTEMPTS = 3
"""Of a dry run whose answer is lost: it makes nothing, and may be repeated."""


def look_ahead(session: Session, spec: Spec, base: Image, tags: Tags, image_name: str) -> tuple[Line, ...]:
    """Return what would stand in the way of building on `base` and of releasing an image of this name.

    Nothing is made, and what could not be read is in the lines. Raises CredentialsRefused when the build's own region
    does not take the credentials.
    """
    there = regions_of(session, spec)
    readers = build_readers(session, spec, base, tags) | region_readers(there, spec, image_name, new=True)
    facts = gather(readers) | {"base": base}
    for fact in facts.values():
        if isinstance(fact, CredentialsRefused) and fact.region == session.region:
            raise fact
    built = judge(build_checks(spec, quotas=not session.loopback), facts, session.region)
    return (*built, *region_lines(facts, there, spec, new=True))


def look_at_regions(session: Session, spec: Spec, image_name: str) -> tuple[Line, ...]:
    """Return what would stand in the way of releasing an image that is there, in every region of the release."""
    there = regions_of(session, spec)
    return tuple(region_lines(gather(region_readers(there, spec, image_name, new=False)), there, spec, new=False))


def regions_of(session: Session, spec: Spec) -> dict[str, Session]:
    """Return the regions of a release, the one that the image is built in first."""
    return {region: session.in_region(region) for region in (session.region, *spec.release.regions)}


def region_readers(there: dict[str, Session], spec: Spec, image_name: str, *, new: bool) -> Readers:
    """Return the questions that are asked in every region; whether the image's name is free only of a new one."""
    readers: Readers = {"regions": partial(region_settings.read_regions, next(iter(there.values())))}
    for region, abroad in there.items():
        for name, reader in target_readers(abroad, spec, image_name, new=new).items():
            readers[f"{region} {name}"] = reader
    return readers


def region_lines(facts: Facts, there: dict[str, Session], spec: Spec, *, new: bool) -> Iterator[Line]:
    """Yield the lines of every region."""
    for region, abroad in there.items():
        local = of_region(facts, region) | {"regions": facts["regions"]}
        yield from judge(target_checks(spec, region, new=new, quotas=not abroad.loopback), local, region)


def require_ready(lines: Iterable[Line]) -> tuple[str, ...]:
    """Raise PreflightFailed with every problem; return what could not be asked, a line each."""
    found = [(line, f"{line.region}: {line.title}: {line.subject} {line.detail}".rstrip()) for line in lines]
    if problems := tuple(text for line, text in found if line.verdict in BLOCKING):
        raise PreflightFailed("nothing was made, because the build or its release would fail", problems)
    return tuple(text for line, text in found if line.verdict is Verdict.UNKNOWN)


def build_readers(session: Session, spec: Spec, base: Image, tags: Tags) -> Readers:
    """Return the questions that are asked once, where the image is built."""
    readers: Readers = {
        "subnets": partial(find_own_subnets, session, spec),
        "offers": partial(zones_by_type, session, spec),
        "allowed": partial(region_settings.read_allowed_images, session),
        "rights": partial(refused_rights, session, spec, base, tags),
    }
    if spec.instance.profile:
        readers["role"] = partial(roles.read_role_policies, session, spec.instance.profile)
    if spec.network.connect in PROGRAMS:
        readers["programs"] = partial(missing_programs, spec.network.connect)
    if not session.loopback:
        readers |= headroom_readers(session, spec)
    return readers


def build_checks(spec: Spec, *, quotas: bool) -> tuple[Check, ...]:
    """Return the checks of the build itself. A cloud of this machine has no quotas."""
    types = " or ".join((spec.instance.type, *spec.instance.types))
    offered = "ec2:DescribeInstanceTypeOfferings ec2:DescribeSubnets"
    dry_runs = "ec2:RunInstances ec2:CreateSecurityGroup ec2:ImportKeyPair (DryRun)"
    codes = partial(wrong_codes, wanted=spec.share.product_codes, public=spec.share.public)
    return (
        Check("A20", f"{types} is offered", offered, ("offers", "subnets"), not_offered),
        Check("A20", "the caller may make what a build makes", dry_runs, ("rights",), lambda found: found),
        Check(
            "A01", "the base image may be launched", "ec2:GetAllowedImagesSettings", ("allowed", "base"), not_allowed
        ),
        Check("A11", "the product codes fit", "ec2:DescribeImages", ("base",), codes),
        *(headroom_checks(spec) if quotas else ()),
        *((minimal_role(spec.instance.profile),) if spec.instance.profile else ()),
        *((way_in(spec),) if spec.network.connect in PROGRAMS else ()),
    )


def minimal_role(profile: str) -> Check:
    """Return the check of what the role of the build instance may do."""
    asked = "iam:GetInstanceProfile iam:ListAttachedRolePolicies iam:ListRolePolicies"
    return Check("A21", f"the role of {profile} is minimal", asked, ("role",), too_wide)


def way_in(spec: Spec) -> Check:
    """Return the check of the programs through which guests are reached."""
    return Check("A20", f"{spec.network.connect} can be used", "this machine", ("programs",), not_installed)


def target_readers(session: Session, spec: Spec, image_name: str, *, new: bool) -> Readers:
    """Return the questions that are asked in each region of the release; only those whose answer matters."""
    share, encryption = spec.share, spec.image.encryption
    readers: Readers = {"named": partial(images.images_called, session, image_name)} if new else {}
    if share.public:
        readers["block"] = partial(region_settings.read_image_block, session)
        if not session.loopback:
            readers |= public_image_reader(session, image_name)
    if not encryption and is_shared(spec):
        readers["default key"] = partial(region_settings.read_default_key, session)
    if encryption:
        readers["key"] = partial(encryption_keys.read_encryption_key, session, encryption.kms_key_id)
    return readers


def target_checks(spec: Spec, region: str, *, new: bool, quotas: bool) -> tuple[Check, ...]:
    """Return the checks of one region of the release."""
    share, encryption = spec.share, spec.image.encryption
    block = "ec2:GetImageBlockPublicAccessState"
    default = "ec2:GetEbsEncryptionByDefault ec2:GetEbsDefaultKmsKeyId"
    checks = [
        Check(
            "A20", "the region may be used", "ec2:DescribeRegions", ("regions",), partial(not_enabled, region=region)
        ),
    ]
    if new:
        checks.append(Check("A20", "the image's name is free", "ec2:DescribeImages", ("named",), name_taken))
    if share.public:
        checks.append(Check("A10", "the image may become public", block, ("block",), blocked))
        if quotas:
            checks.append(public_image_check())
    if not encryption and is_shared(spec):
        unshareable = partial(default_encrypted, public=share.public)
        checks.append(
            Check("A10", "what is shared is not encrypted by default", default, ("default key",), unshareable)
        )
    if encryption:
        targets = (*share.accounts, *share.organizations, *share.organizational_units)
        asked = "kms:DescribeKey kms:GetKeyPolicy kms:ListGrants"
        checks.append(Check("A10", "the key can be used", asked, ("key",), partial(unusable_key, targets=targets)))
    return tuple(checks)


def find_own_subnets(session: Session, spec: Spec) -> tuple[Subnet, ...]:
    """Return the subnets that exist for the build; none where it makes a network of its own."""
    return () if spec.network.create else network.find_subnets(session, spec.network.subnet_id)


def zones_by_type(session: Session, spec: Spec) -> frozenset[str]:
    """Return the zones that offer an instance type of the spec."""
    types = (spec.instance.type, *spec.instance.types)
    return frozenset().union(*(offers.zones_offering(session, one) for one in types))


def is_shared(spec: Spec) -> bool:
    """Return whether anybody but the owner gets the image."""
    share = spec.share
    return bool(share.public or share.accounts or share.organizations or share.organizational_units)


def refused_rights(session: Session, spec: Spec, base: Image, tags: Tags) -> tuple[Bad, ...]:
    """Return the calls that the cloud would refuse, asked by dry runs with the tags of a build.

    Only what makes things can be asked: calls that change them are limited to tagged things, and none is there yet.
    """
    subnet = next(iter(find_own_subnets(session, spec)), None)
    name = resource_name(tags.build_id, "preflight")
    public_key = make_key_pair("preflight").public_openssh
    rights = {
        "RunInstances": partial(
            instances.may_launch,
            session,
            tags,
            name,
            base.image_id,
            spec.instance.type,
            subnet.subnet_id if subnet else None,
            spec.instance.profile,
        ),
        "ImportKeyPair": partial(keys.may_import_key_pair, session, tags, name, public_key),
    }
    if subnet and not spec.network.security_group_ids:
        rights["CreateSecurityGroup"] = partial(
            security_groups.may_create_security_group, session, tags, name, subnet.vpc_id
        )
    if spec.network.create:
        rights["CreateVpc"] = partial(vpcs.may_create_vpc, session, tags, name, spec.network.create.cidr)
        rights["CreateInternetGateway"] = partial(vpcs.may_create_internet_gateway, session, tags, name)
        if spec.network.address == "private":
            rights["AllocateAddress"] = partial(vpcs.may_allocate_address, session, tags, name)
    asked = gather({action: partial(refusal_of, ask) for action, ask in rights.items()})
    errors = [answer for answer in asked.values() if isinstance(answer, AssayError)]
    if errors:
        raise errors[0]
    return tuple(Bad(action, str(reason)) for action, reason in asked.items() if reason)


def refusal_of(ask: Callable[[], None]) -> str:
    """Return why a call would be refused; empty when it would not be. Raises CloudFailed when nobody answered.

    Capacity is no right: the launch itself looks for it in every zone.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            ask()
        except CapacityMissing:
            return ""
        except CloudFailed as error:
            if not is_transient(error):
                return str(error)
            if attempt == ATTEMPTS:
                raise
        else:
            return ""
    raise AssertionError("unreachable")


def not_enabled(regions: dict[str, str], region: str) -> Iterator[Bad]:
    """A20: a region must be there, and opted in."""
    if region not in regions:
        yield Bad("", "there is no such region")
    elif regions[region] == "not-opted-in":
        yield Bad("", f"`aws account enable-region --region-name {region}` opts in")


def not_offered(zones: frozenset[str], subnets: tuple[Subnet, ...]) -> Iterator[Bad]:
    """A20: an instance type exists in the zone of a subnet; a network that is made has it in a zone that does."""
    own = sorted(subnet.zone for subnet in subnets)
    if not zones:
        yield Bad("", "no zone of the region offers it")
    elif own and not zones & set(own):
        yield Bad("", f"not in {', '.join(own)}: offered in {', '.join(sorted(zones))}")


def too_wide(policies: tuple[Document, ...]) -> Iterator[Bad]:
    """A21: whoever gets onto the build instance has its role."""
    for right in roles.wide_rights(policies):
        yield Bad("", f"it allows {right} on every resource: name the actions that the build needs")


def not_installed(programs: tuple[str, ...]) -> Iterator[Bad]:
    """A20: without its programs nobody gets in, and that would be seen after the launch."""
    for program in programs:
        yield Bad(program, "is not installed here: the AWS CLI's and Session Manager's guides say how")


def not_allowed(setting: AllowedImages, base: Image) -> Iterator[Bad]:
    """A01: with Allowed AMIs an image of another owner cannot be launched. An alias may stand for any owner."""
    named = {provider for criterion in setting.providers for provider in criterion}
    aliases = {provider for provider in named if not provider.isdecimal()}
    if setting.state == "enabled" and named and not aliases and base.owner_id not in named:
        yield Bad(base.image_id, f"Allowed AMIs does not name its owner {base.owner_id}")


def wrong_codes(base: Image, wanted: tuple[str, ...], public: bool) -> Iterator[Bad]:
    """A11: codes come with the base image and cannot be set; an image with codes can never be public."""
    if set(base.product_codes) != set(wanted):
        found = ", ".join(base.product_codes) or "none"
        yield Bad(base.image_id, f"it has the codes: {found}; share.product_codes: {', '.join(wanted) or 'none'}")
    if base.product_codes and public:
        yield Bad(base.image_id, "an image with product codes can never be public")


def name_taken(found: tuple[Image, ...]) -> Iterator[Bad]:
    """A20: a second image of the same name is refused, after all the work."""
    for image in found:
        yield Bad(image.image_id, f"has the name {image.name}: change image.name, or put {{build_id}} into it")


def blocked(state: str) -> Iterator[Bad]:
    """A10: block public access refuses the last step of a public release."""
    if state != "unblocked":
        yield Bad(
            "block public access", f"it is {state}: `aws ec2 disable-image-block-public-access`, then wait 10 minutes"
        )


def default_encrypted(key: str | None, public: bool) -> Iterator[Bad]:
    """A10: what the default key encrypts cannot be shared, and nothing encrypted can be public."""
    if key is not None and (public or not key or "alias/aws/" in key):
        wanted = "switch it off in this region" if public else "name a key of your own in image.encryption"
        yield Bad("EBS encryption by default", f"every snapshot is encrypted with {key or 'the default key'}: {wanted}")


def unusable_key(key: EncryptionKey, targets: tuple[str, ...]) -> Iterator[Bad]:
    """A10: the key must work, and whoever gets the image must be let to use it, by its policy or by a grant."""
    if key.state != "Enabled" or key.usage != "ENCRYPT_DECRYPT":
        yield Bad(key.key_id, f"it is {key.state or 'in no state'}, for {key.usage or 'nothing'}")
    if targets and key.manager != "CUSTOMER":
        yield Bad(key.key_id, "a key of AWS cannot be shared: name a key of your own")
        return
    for target in targets:
        if missing := missing_rights(key.policy, key.grants, target):
            yield Bad(
                key.key_id, f"{target} could not launch the image: let its policy, or a grant, {', '.join(missing)}"
            )
