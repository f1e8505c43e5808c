"""The way to the cloud: clients, who calls, and what a refusal means. The only importer of boto3 and botocore."""

import threading
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from functools import cached_property
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any, Literal, overload
from urllib.parse import urlsplit

from pipeline.errors import CapacityMissing, CloudFailed, CredentialsRefused, SubscriptionMissing

if TYPE_CHECKING:
    import boto3
    from botocore.config import Config
    from botocore.exceptions import BotoCoreError, ClientError
    from mypy_boto3_ebs.client import EBSClient
    from mypy_boto3_ec2.client import EC2Client
    from mypy_boto3_iam.client import IAMClient
    from mypy_boto3_kms.client import KMSClient
    from mypy_boto3_ssm.client import SSMClient
    from mypy_boto3_sts.client import STSClient
    from mypy_boto3_sts.type_defs import AssumeRoleRequestTypeDef

ServiceName = Literal[
    "ec2",
    "ebs",
    "sts",
    "ssm",
    "iam",
    "kms",
    "cloudwatch",
    "sns",
    "service-quotas",
    "autoscaling",
    "marketplace-catalog",
]

ATTEMPTS = 8
"""Of one call, in botocore's standard mode: throttling, 5xx and broken connections are tried again, with jitter."""

CONNECT_SECONDS = 10
READ_SECONDS = 60
CONNECTIONS = 64
"""EBS direct is read with dozens of requests in flight; botocore's own default of 10 would queue them."""

CREDENTIAL_CODES = frozenset(
    {
        "AuthFailure",
        "ExpiredToken",
        "ExpiredTokenException",
        "RequestExpired",
        "IncompleteSignature",
        "InvalidAccessKeyId",
        "InvalidClientTokenId",
        "MissingAuthenticationToken",
        "SignatureDoesNotMatch",
        "UnrecognizedClientException",
        "OptInRequired",
    }
)
CAPACITY_CODES = frozenset(
    {"InsufficientInstanceCapacity", "InsufficientHostCapacity", "InsufficientReservedInstanceCapacity"}
)
THROTTLING_CODES = frozenset(
    {
        "RequestLimitExceeded",
        "RequestThrottled",
        "RequestThrottledException",
        "SlowDown",
        "Throttling",
        "ThrottlingException",
        "ThrottledException",
        "TooManyRequestsException",
    }
)
DENIED_CODES = frozenset(
    {"UnauthorizedOperation", "AccessDenied", "AccessDeniedException", "AuthorizationError", "InvalidAction"}
)
"""The caller lacks the permission, or this cloud lacks the call."""
HINTS = {
    "UnauthorizedOperation": "grant the caller the permission for this call",
    "AccessDenied": "grant the caller the permission for this call",
    "AccessDeniedException": "grant the caller the permission for this call",
    "VcpuLimitExceeded": "ask for a higher quota of vCPUs in this region, or name a smaller instance type",
    "InstanceLimitExceeded": "ask for a higher quota of instances in this region, or sweep old ones",
    "PendingVerification": "the account is being verified in this region: wait for the mail that says it is done",
    "VPCIdNotSpecified": "the account has no default VPC: name network.subnet_id in the spec",
    "Unsupported": "the instance type or an option does not exist in this zone: name another one in the spec",
    "InvalidAMIName.Duplicate": "another image has this name: change image.name in the spec",
    "OperationNotPermitted": "an account setting or a protection forbids this: see the message",
}
FIRST_HIGH_PORT = 1024
CONNECTION_CODE = "NoConnection"
"""Our own code for a call that got no answer at all: it may or may not have happened."""


class Session:
    """One caller in one region. Clients are made once for each service and shared between threads."""

    def __init__(
        self, source: "boto3.Session", region: str, endpoint_url: str | None = None, low_port_shift: int = 0
    ) -> None:
        self.region = region
        self.endpoint_url = endpoint_url
        self.low_port_shift = low_port_shift
        self._source = source
        self._clients: dict[tuple[str, bool], Any] = {}
        self._lock = threading.Lock()

    @overload
    def client(self, name: Literal["ec2"], *, once: bool = False) -> "EC2Client": ...
    @overload
    def client(self, name: Literal["ebs"], *, once: bool = False) -> "EBSClient": ...
    @overload
    def client(self, name: Literal["ssm"], *, once: bool = False) -> "SSMClient": ...
    @overload
    def client(self, name: Literal["sts"], *, once: bool = False) -> "STSClient": ...
    @overload
    def client(self, name: Literal["iam"], *, once: bool = False) -> "IAMClient": ...
    @overload
    def client(self, name: Literal["kms"], *, once: bool = False) -> "KMSClient": ...
    @overload
    def client(
        self,
        name: Literal["cloudwatch", "sns", "service-quotas", "autoscaling", "marketplace-catalog"],
        *,
        once: bool = False,
    ) -> Any: ...  # noqa: ANN401 -- no stubs

    def client(self, name: ServiceName, *, once: bool = False) -> Any:
        """Return the client of a service. With `once` it never repeats a call: for calls that make a thing twice."""
        with self._lock:
            if (name, once) not in self._clients:
                self._clients[name, once] = self._source.client(
                    name,
                    region_name=self.region,
                    endpoint_url=self.endpoint_url,
                    config=client_config(
                        1 if once else ATTEMPTS,
                        loopback=is_loopback(self.endpoint_url),
                        mode="adaptive" if name == "ebs" else "standard",
                    ),
                )
            return self._clients[name, once]

    @cached_property
    def caller(self) -> tuple[str, str]:
        """The account's id and the caller's ARN, asked once. Raises CredentialsRefused."""
        with cloud_errors("the caller's identity", self.region):
            identity = self.client("sts").get_caller_identity()
        return identity["Account"], identity["Arn"]

    @property
    def account_id(self) -> str:
        """The account that is billed: 12 digits."""
        return self.caller[0]

    @property
    def caller_arn(self) -> str:
        """The user or role that calls."""
        return self.caller[1]

    @property
    def credentials(self) -> tuple[str, str, str | None] | None:
        """The caller's access key id, secret access key and session token, to search for them; never to print."""
        found = self._source.get_credentials()
        frozen = found.get_frozen_credentials() if found else None
        if not frozen or not frozen.access_key or not frozen.secret_key:
            return None
        return frozen.access_key, frozen.secret_key, frozen.token

    @property
    def loopback(self) -> bool:
        """True when the cloud is on this machine, whether the spec or the environment says so."""
        return is_loopback(self.client("ec2").meta.endpoint_url)

    @property
    def cloud(self) -> str:
        """Which cloud and whose account this is, so that a journal is never swept in another one."""
        return f"{'local' if self.loopback else 'aws'}/{self.account_id}"

    def in_region(self, region: str) -> "Session":
        """Return the same caller in another region."""
        if region == self.region:
            return self
        return Session(self._source, region, self.endpoint_url, self.low_port_shift)

    def port_outside(self, port: int) -> int:
        """Return at which port of its public address an instance's port answers.

        It is the same one, but on a local cloud that may not bind low ports: there, 22 is 10022.
        """
        return port + self.low_port_shift if port < FIRST_HIGH_PORT else port

    def as_role(self, arn: str, external_id: str | None = None) -> "Session":
        """Return a session of a role (one hour); CredentialsRefused or CloudFailed when it may not be assumed."""
        request: AssumeRoleRequestTypeDef = {"RoleArn": arn, "RoleSessionName": "assay"}
        if external_id:
            request["ExternalId"] = external_id
        with cloud_errors(arn, self.region):
            granted = self.client("sts").assume_role(**request)["Credentials"]
        return open_session(
            self.region,
            endpoint_url=self.endpoint_url,
            access_key=granted["AccessKeyId"],
            secret_key=granted["SecretAccessKey"],
            session_token=granted["SessionToken"],
            low_port_shift=self.low_port_shift,
        )


def open_session(
    region: str,
    endpoint_url: str | None = None,
    profile: str | None = None,
    access_key: str | None = None,
    secret_key: str | None = None,
    session_token: str | None = None,
    low_port_shift: int = 0,
) -> Session:
    """Return a session after asking the cloud who calls.

    Credentials that are not given come from where every AWS tool looks for them. `low_port_shift` is how far the cloud
    moves the ports of instances below 1024 (see `Session.port_outside`). Raises CredentialsRefused when there
    are none, when they are not accepted, or when no cloud answers for the region.
    """
    import boto3
    from botocore.exceptions import BotoCoreError

    try:
        source = boto3.Session(
            aws_access_key_id=access_key,
            aws_secret_access_key=secret_key,
            aws_session_token=session_token,
            profile_name=profile,
            region_name=region,
        )
        session = Session(source, region, endpoint_url, low_port_shift)
        _ = session.caller
    except BotoCoreError as error:
        raise CredentialsRefused(first_line(str(error)), region=region) from error
    except CloudFailed as error:
        if not is_unanswered(error):
            raise
        where = endpoint_url or f"the region {region}"
        raise CredentialsRefused(
            f"no cloud answers at {where}", region=region, hint="check the region's name, the endpoint and the network"
        ) from error
    return session


def client_config(attempts: int, *, loopback: bool, mode: Literal["standard", "adaptive"] = "standard") -> "Config":
    """Return how every client calls: timeouts, retries, connections; never through a proxy to this machine itself.

    In the adaptive mode a client that was throttled sends fewer requests a second, and then more again: for dozens of
    readers at once.
    """
    from botocore.config import Config

    return Config(
        retries={"mode": mode, "total_max_attempts": attempts},
        max_pool_connections=CONNECTIONS,
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        user_agent_extra="assay",
        proxies={} if loopback else None,
    )


def is_loopback(endpoint_url: str | None) -> bool:
    """Return whether an endpoint is on this machine."""
    host = urlsplit(endpoint_url or "").hostname or ""
    try:
        return host == "localhost" or ip_address(host).is_loopback
    except ValueError:
        return False


@contextmanager
def cloud_errors(resource: str | None = None, region: str | None = None) -> Iterator[None]:
    """Turn what botocore raises into the error tree, naming the resource and the region.

    Credentials that are refused become CredentialsRefused, missing capacity CapacityMissing, an image that is sold
    SubscriptionMissing, all else CloudFailed.
    """
    from botocore.exceptions import BotoCoreError, ClientError

    try:
        yield
    except ClientError as error:
        raise refusal(error, resource, region) from error
    except BotoCoreError as error:
        raise breakdown(error, resource, region) from error


@contextmanager
def tolerating(codes: Collection[str], resource: str, region: str) -> Iterator[None]:
    """As `cloud_errors`, but a refusal with one of these codes is as good as success: it is so already."""
    try:
        with cloud_errors(resource, region):
            yield
    except CloudFailed as error:
        if error_code(error) not in codes:
            raise


@contextmanager
def dry_run(resource: str, region: str) -> Iterator[None]:
    """Ask with DryRun whether a call would be allowed: EC2 says so by an error. Raises CloudFailed if it would not."""
    with tolerating({"DryRunOperation"}, resource, region):
        yield


def refusal(error: "ClientError", resource: str | None, region: str | None) -> CloudFailed | CredentialsRefused:
    """Return the error of the tree for an answer that says no.

    The message of a refused signature quotes the request's headers, the session token among them: it is left out.
    """
    code = error_code(error)
    sold = code == "OptInRequired" and error.operation_name == "RunInstances"
    if code in CREDENTIAL_CODES and not sold:
        return CredentialsRefused(
            f"{error.operation_name}: the cloud refuses the credentials: {code}", resource=resource, region=region
        )
    text = first_line(str(error.response.get("Error", {}).get("Message") or ""))
    text = text.partition("Encoded authorization failure message")[0].strip() or "no reason given"
    kind = SubscriptionMissing if sold else CapacityMissing if code in CAPACITY_CODES else CloudFailed
    return kind(f"{error.operation_name}: {code}: {text}", resource=resource, region=region, hint=HINTS.get(code))


def breakdown(error: "BotoCoreError", resource: str | None, region: str | None) -> CloudFailed | CredentialsRefused:
    """Return the error of the tree for a call that got no answer, or was never made."""
    from botocore import exceptions

    refused = (
        exceptions.NoCredentialsError,
        exceptions.PartialCredentialsError,
        exceptions.CredentialRetrievalError,
        exceptions.TokenRetrievalError,
        exceptions.UnauthorizedSSOTokenError,
        exceptions.InvalidRegionError,
        exceptions.NoRegionError,
    )
    if isinstance(error, refused):
        return CredentialsRefused(first_line(str(error)), resource=resource, region=region)
    if isinstance(error, exceptions.ParamValidationError):
        text = first_line(str(error.kwargs.get("report", ""))).partition(", value:")[0]
        return CloudFailed(f"the request is malformed: {text}", resource=resource, region=region)
    return CloudFailed(
        f"no answer: {first_line(str(error))}",
        resource=resource,
        region=region,
        hint="check the network, and try again",
    )


def error_code(error: BaseException | None) -> str:
    """Return the cloud's code for an error, or for the error that it was translated from; empty when there is none."""
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            return str(response.get("Error", {}).get("Code") or "")
        if is_connection_error(error):
            return CONNECTION_CODE
        error = error.__cause__
    return ""


def is_connection_error(error: BaseException) -> bool:
    """Return whether a call broke on the wire: nobody answered, or the answer was lost."""
    if not type(error).__module__.startswith("botocore"):
        return False
    from botocore.exceptions import ConnectionError, HTTPClientError

    return isinstance(error, (ConnectionError, HTTPClientError))


def is_unanswered(error: BaseException | None) -> bool:
    """Return whether nobody answered at all: the next call will hardly fare better."""
    return error_code(error) == CONNECTION_CODE


def is_denied(error: BaseException | None) -> bool:
    """Return whether the caller may not ask: what was asked about is then not known."""
    return error_code(error) in DENIED_CODES


def answer_lost(error: BaseException | None) -> bool:
    """Return whether the call may have happened although it failed: no answer, or the cloud's own fault (5xx).

    Throttling (503) and missing capacity (500) come with such a status too, and are refusals all the same.
    """
    while error is not None:
        response = getattr(error, "response", None)
        if isinstance(response, dict):
            status = int(response.get("ResponseMetadata", {}).get("HTTPStatusCode") or 0)
            return status >= 500 and error_code(error) not in THROTTLING_CODES | CAPACITY_CODES
        if is_connection_error(error):
            return True
        error = error.__cause__
    return False


def is_transient(error: BaseException | None) -> bool:
    """Return whether asking again later may help: throttling, the cloud's own fault, or a broken connection."""
    return is_throttled(error) or answer_lost(error)


def is_throttled(error: BaseException | None) -> bool:
    """Return whether the cloud asks to be asked less often: the call did not happen."""
    return error_code(error) in THROTTLING_CODES


def first_line(text: str) -> str:
    """Return the first line of a message, at most 300 characters: an error is one line on the terminal."""
    return text.strip().partition("\n")[0][:300]
