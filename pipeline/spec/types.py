"""The single values of a spec: what each must look like, in a pattern for editors and in words for people."""

import base64
import ipaddress
import re
import string
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Any

from pydantic import AfterValidator, Field, GetCoreSchemaHandler, GetJsonSchemaHandler
from pydantic_core import CoreSchema, core_schema

from pipeline.spec.public_keys import check_public_key

LONGEST_IMAGE_NAME = 128
IMAGE_NAME_FIELDS = ("name", "build_id", "date")
LONGEST_BUILD_ID = len("20250131-235959-1a2b3c")
SMALLEST_CERTIFICATE_BITS = 2048
WIDEST_NETWORK = {4: 8, 6: 32}
"""The shortest prefix from which ssh may come, by version of IP (A02)."""

SYSTEM_ACCOUNTS = re.compile(
    r"root|daemon|bin|sys|sync|games|man|lp|mail|news|uucp|proxy|www-data|backup|list|irc|_apt|nobody"
    r"|messagebus|sshd|halt|shutdown|operator|adm|ftp|dbus|polkitd|chrony|tcpdump|rpc|tss"
    r"|systemd-network|systemd-resolve|systemd-timesync"
)


@dataclass(frozen=True)
class Form:
    """A text of a certain form. `meaning` says in words what `pattern` says to a machine."""

    pattern: str
    meaning: str

    def check(self, text: str) -> str:
        """Return the text; ValueError where it does not have this form."""
        if not re.fullmatch(self.pattern, text):
            raise ValueError(f"{shorten(text)} is not {self.meaning}")
        return text

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.no_info_after_validator_function(self.check, handler(source))

    def __get_pydantic_json_schema__(self, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        return {**handler(schema), "pattern": f"^(?:{self.pattern})$"}


def shorten(text: str) -> str:
    """Return a text in quotes, for a message. One of several lines is not repeated: it may be a key."""
    if not text.isprintable():
        return "this text"
    return repr(text if len(text) <= 60 else text[:57] + "…")


def _check_account(text: str) -> str:
    if text in {"amazon", "self", "aws-marketplace", "aws-backup-vault"}:
        raise ValueError(f"{text!r} is an alias, which pins nobody: give the account's 12 digits (A01)")
    if re.fullmatch(r"\d{4}-\d{4}-\d{4}", text):
        raise ValueError(f"an account is written without dashes: {text.replace('-', '')!r}")
    if not re.fullmatch(r"[0-9]{12}", text):
        raise ValueError(f"{shorten(text)} is not an AWS account: 12 digits, in quotes")
    return text


def _check_region(text: str) -> str:
    zone = re.fullmatch(r"([a-z]+(?:-[a-z]+)+-[0-9]+)[a-z]", text)
    if zone:
        raise ValueError(f"{text!r} is a zone: its region is {zone[1]!r}")
    if not re.fullmatch(r"[a-z]{2,4}(-[a-z]+){1,3}-[0-9]{1,2}", text):
        raise ValueError(f"{shorten(text)} is not a region, for example eu-central-1")
    return text


def _parse_network(text: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network:
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{shorten(text)} is not a network, for example 203.0.113.7/32") from None
    return network


def _check_any_network(text: str) -> str:
    network = _parse_network(text)
    if text != str(network):
        raise ValueError(f"{text!r} must be written as {str(network)!r}")
    return text


def _check_network(text: str) -> str:
    network = _parse_network(text)
    if network.prefixlen == 0:
        raise ValueError(f"{text!r} is the whole internet: name the networks that you come from, or `caller` (A02)")
    if network.prefixlen < WIDEST_NETWORK[network.version]:
        raise ValueError(
            f"{text!r} is too wide: /{WIDEST_NETWORK[network.version]} is the widest that is opened for ssh (A02)"
        )
    return _check_any_network(text)


def _check_small_network(text: str) -> str:
    network = _parse_network(_check_any_network(text))
    if network.version != 4 or not network.is_private or not 16 <= network.prefixlen <= 27:
        raise ValueError(f"{text!r} is no network of a VPC: private, IPv4, /16 to /27, for example 172.30.0.0/24")
    return text


def _check_host_key(text: str) -> str:
    try:
        name, encoded = text.split()[:2]
        named = base64.b64decode(encoded, validate=True)[4 : 4 + len(name)].decode()
    except ValueError:
        named = ""
    if not named or named != name or not re.fullmatch(r"ssh-ed25519|ecdsa-sha2-nistp(256|384|521)|ssh-rsa", name):
        raise ValueError(f"{shorten(text)} is not a host key: `ssh-keyscan HOST` shows it, without the name before it")
    return f"{name} {encoded}"


def _check_certificate(text: str) -> str:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.x509 import load_pem_x509_certificate

    try:
        key = load_pem_x509_certificate(text.encode()).public_key()
    except ValueError:
        raise ValueError("this is not a certificate in PEM form: -----BEGIN CERTIFICATE----- …") from None
    if not isinstance(key, RSAPublicKey) or key.key_size < SMALLEST_CERTIFICATE_BITS:
        raise ValueError("this certificate has no RSA key of 2048 bits: AWS publishes three a region, take RSA-2048")
    return text.strip() + "\n"


def _check_login_name(text: str) -> str:
    if SYSTEM_ACCOUNTS.fullmatch(text):
        why = "nobody logs in as root: give a user sudo" if text == "root" else "choose another name"
        raise ValueError(f"{text!r} is a system account: {why} (H03)")
    return text


def _check_signing_key(text: str) -> str:
    if "PRIVATE KEY" in text:
        raise ValueError("is a private key: the spec takes the public one, and this one must be replaced")
    block = re.fullmatch(
        r"-----BEGIN PGP PUBLIC KEY BLOCK-----\n(?:[A-Za-z]+: .*\n)*\n?"
        r"((?:[A-Za-z0-9+/=]{1,76}\n)+)-----END PGP PUBLIC KEY BLOCK-----",
        text.strip(),
    )
    if not block:
        raise ValueError("is not an armoured OpenPGP public key (-----BEGIN PGP PUBLIC KEY BLOCK-----)")
    return text.strip() + "\n"


def _check_absolute(text: str) -> str:
    if not text.startswith("/") or ".." in text.split("/") or not text.isprintable():
        raise ValueError(f"{shorten(text)} is not an absolute path")
    return text


def _check_one_line(text: str) -> str:
    if not text.strip():
        raise ValueError("is empty")
    if not text.isprintable():
        raise ValueError("must be one line of printable characters")
    return text


def _check_full_name(text: str) -> str:
    if set(text) & set(":,\\"):
        raise ValueError("may not hold any of : , \\ because the password file cannot")
    return _check_one_line(text)


def _check_shareable_arn(text: str, kind: str, pattern: str) -> str:
    if not re.fullmatch(rf"arn:aws[a-z-]*:organizations::[0-9]{{12}}:{pattern}", text):
        raise ValueError(
            f"{shorten(text)} is not the whole ARN of an {kind}: arn:aws:organizations::<12 digits>:"
            + ("organization/o-…" if kind == "organization" else "ou/o-…/ou-…-…")
        )
    return text


def _check_organization(text: str) -> str:
    return _check_shareable_arn(text, "organization", r"organization/o-[a-z0-9]{10,32}")


def _check_organizational_unit(text: str) -> str:
    return _check_shareable_arn(text, "organizational unit", r"ou/o-[a-z0-9]{10,32}/ou-[0-9a-z]{4,32}-[0-9a-z]{8,32}")


def render_image_name(template: str, name: str, build_id: str, day: date) -> str:
    """Return an image name from a template that was checked."""
    return template.format(name=name, build_id=build_id, date=day.strftime("%Y%m%d"))


def _check_image_name(template: str) -> str:
    """Refuse what EC2 would refuse after everything is built (RegisterImage: 3-128 of certain characters)."""
    try:
        parts = list(string.Formatter().parse(template))
    except ValueError:
        raise ValueError(f"{shorten(template)} has a brace without its other half") from None
    for problem in _find_template_problems(parts):
        raise ValueError(problem)
    literal = "".join(part[0] for part in parts)
    wrong = sorted(set(re.sub(r"[A-Za-z0-9()\[\] ./\-'@_]", "", literal)))
    if wrong:
        raise ValueError(f"image names may not hold {' '.join(map(repr, wrong))}: letters, digits and ()[] ./-'@_ only")
    if not parts or len(literal) > LONGEST_IMAGE_NAME:
        raise ValueError(f"image names have 3 to {LONGEST_IMAGE_NAME} characters")
    return template


def _find_template_problems(parts: list[tuple[str, str | None, str | None, str | None]]) -> Iterator[str]:
    known = ", ".join(f"{{{field}}}" for field in IMAGE_NAME_FIELDS)
    for _, field, specification, conversion in parts:
        if field is not None and field not in IMAGE_NAME_FIELDS:
            yield f"{{{field}}} is no field of an image name: {known}"
        elif specification or conversion:
            yield f"{{{field}}} takes no format or conversion: write it alone"


ImageId = Annotated[str, Form(r"ami-([0-9a-f]{8}|[0-9a-f]{17})", "an image id, for example ami-0123456789abcdef0")]
Parameter = Annotated[
    str, Form(r"resolve:ssm:[A-Za-z0-9/_.-]+(:[A-Za-z0-9_.-]+)?", "a parameter: resolve:ssm:/path/of/parameter")
]
ParameterName = Annotated[
    str,
    Field(max_length=900),
    Form(r"(?!/(aws|ssm)(/|$))(/[A-Za-z0-9_.-]+){1,15}", "the path of a parameter of your own, as /images/web"),
]
AccountId = Annotated[str, AfterValidator(_check_account), Field(json_schema_extra={"pattern": "^[0-9]{12}$"})]
Region = Annotated[
    str, AfterValidator(_check_region), Field(json_schema_extra={"pattern": "^[a-z]+(-[a-z]+)+-[0-9]+$"})
]
UserName = Annotated[
    str, Form(r"[a-z_][a-z0-9_-]{0,31}", "a user name: lower case letters, digits, _ and -, at most 32, no digit first")
]
LoginName = Annotated[UserName, AfterValidator(_check_login_name)]
Cidr = Annotated[str, AfterValidator(_check_network)]
AnyCidr = Annotated[str, AfterValidator(_check_any_network)]
"""A network of any size: for ports that are meant for many."""
SmallCidr = Annotated[str, AfterValidator(_check_small_network)]
HostKey = Annotated[str, AfterValidator(_check_host_key)]
HostName = Annotated[str, Form(r"[A-Za-z0-9]([A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?", "the name or the address of a host")]
ProfileName = Annotated[str, Form(r"[A-Za-z0-9+=,.@_-]{1,128}", "the name of an instance profile")]
PublicKey = Annotated[str, AfterValidator(check_public_key)]
AbsolutePath = Annotated[str, AfterValidator(_check_absolute)]
OneLine = Annotated[str, AfterValidator(_check_one_line)]
FullName = Annotated[str, AfterValidator(_check_full_name)]
Certificate = Annotated[str, AfterValidator(_check_certificate)]
ServiceName = Annotated[
    str, Form(r"[A-Za-z0-9_][A-Za-z0-9:_.-]*\.service", "a unit of a service, for example nginx.service")
]
PackageName = Annotated[
    str, Form(r"[A-Za-z0-9][A-Za-z0-9+._-]{0,99}", "a package's name: without a version, and no address")
]
RepositoryName = Annotated[
    str, Form(r"[a-z0-9][a-z0-9-]{0,40}", "a repository's name: small letters, digits and -, at most 41")
]
RepositoryUrl = Annotated[
    str, Form(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?(/[A-Za-z0-9._~%+$/-]*)?", "an http address without a login")
]
KeySource = Annotated[
    str,
    Form(
        r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[A-Za-z0-9._/-]{1,500}|ssm:(/[A-Za-z0-9_.-]+){1,15}",
        "an S3 object or an SSM parameter, as s3://bucket/keys or ssm:/images/keys",
    ),
]
Endpoint = Annotated[str, Form(r"https?://[A-Za-z0-9.-]+(:[0-9]+)?", "the address of a service, without a path")]
Word = Annotated[str, Form(r"[A-Za-z0-9][A-Za-z0-9._/-]{0,99}", "a word of letters, digits and . _ / -")]
SigningKey = Annotated[str, AfterValidator(_check_signing_key)]
UnitName = Annotated[
    str, Form(r"[A-Za-z0-9_][A-Za-z0-9:_.@-]*\.(service|socket|timer|target)", "a unit, for example nginx.service")
]
InstanceType = Annotated[
    str, Form(r"[a-z][a-z0-9-]*[0-9][a-z0-9-]*\.[a-z0-9-]+", "an instance type, for example t3.small")
]
SubnetId = Annotated[
    str, Form(r"subnet-([0-9a-f]{8}|[0-9a-f]{17})", "a subnet id, for example subnet-0123456789abcdef0")
]
SecurityGroupId = Annotated[
    str, Form(r"sg-([0-9a-f]{8}|[0-9a-f]{17})", "a security group id, for example sg-0123456789abcdef0")
]
DeviceName = Annotated[
    str, Form(r"/dev/(sd[a-z][0-9]{0,2}|xvd[a-z]{1,2}[0-9]{0,2})", "a device name, for example /dev/xvda or /dev/sda1")
]
KmsKeyId = Annotated[
    str,
    Form(
        r"arn:aws[a-z-]*:kms:[a-z0-9-]+:[0-9]{12}:(key|alias)/[A-Za-z0-9/_-]+|alias/[A-Za-z0-9/_-]+"
        r"|mrk-[0-9a-f]{32}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        "a KMS key: its ARN, its id, or alias/…",
    ),
]
OrganizationArn = Annotated[str, AfterValidator(_check_organization)]
OrganizationalUnitArn = Annotated[str, AfterValidator(_check_organizational_unit)]
ProductCode = Annotated[
    str,
    Form(
        r"[a-z0-9]{20,28}|[0-9A-F]{8}", "a product code: as AWS Marketplace shows it, about 25 small letters and digits"
    ),
]
ProductId = Annotated[
    str, Form(r"(prod-[a-z0-9]{10,20}|[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12})", "the id of a product: prod-…")
]
RoleArn = Annotated[
    str,
    Form(r"arn:aws[a-z-]*:iam::[0-9]{12}:role/[\w+=,.@/-]{1,512}", "the whole ARN of a role: arn:aws:iam::…:role/…"),
]
ImageName = Annotated[str, AfterValidator(_check_image_name)]
Description = Annotated[str, Form(r"[ -~]{0,255}", "a description: at most 255 ASCII characters on one line")]
TagKey = Annotated[
    str, Form(r"(?!aws:|assay:)[^\x00-\x1f]{1,128}", "a tag key: 1 to 128 characters, and not aws:… or assay:…")
]
TagValue = Annotated[str, Form(r"[^\x00-\x1f]{0,256}", "a tag value: at most 256 characters")]
