"""What a refusal means: each error of botocore becomes one error of the tree."""

import subprocess
import sys

import pytest
from botocore.exceptions import (
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ParamValidationError,
    ReadTimeoutError,
)

from pipeline.aws.session import answer_lost, cloud_errors, error_code, is_loopback, is_transient, open_session
from pipeline.errors import AssayError, CapacityMissing, CloudFailed, CredentialsRefused, SubscriptionMissing

TOKEN = "FwoGZXIvYXdzEXAMPLETOKEN"


def client_error(code, message="because", status=400, operation="RunInstances"):
    answer = {"Error": {"Code": code, "Message": message}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(answer, operation)


def translated(error) -> AssayError:
    with pytest.raises(AssayError) as caught, cloud_errors("i-1", "eu-central-1"):
        raise error
    return caught.value


@pytest.mark.parametrize(
    "error, kind",
    [
        (client_error("ExpiredToken"), CredentialsRefused),
        (client_error("RequestExpired"), CredentialsRefused),
        (client_error("AuthFailure"), CredentialsRefused),
        (client_error("UnrecognizedClientException"), CredentialsRefused),
        (client_error("InvalidClientTokenId"), CredentialsRefused),
        (client_error("OptInRequired", operation="DescribeImages"), CredentialsRefused),
        (client_error("OptInRequired"), SubscriptionMissing),
        (NoCredentialsError(), CredentialsRefused),
        (client_error("InsufficientInstanceCapacity", status=500), CapacityMissing),
        (client_error("UnauthorizedOperation", status=403), CloudFailed),
        (client_error("InvalidAMIID.NotFound"), CloudFailed),
        (EndpointConnectionError(endpoint_url="https://ec2.nowhere.amazonaws.com"), CloudFailed),
        (ReadTimeoutError(endpoint_url="https://ec2.eu-central-1.amazonaws.com"), CloudFailed),
    ],
)
def test_each_error_has_its_place_in_the_tree(error, kind):
    told = translated(error)
    assert type(told) is kind
    assert (told.resource, told.region) == ("i-1", "eu-central-1")


def test_a_refusal_names_the_call_the_code_and_the_remedy():
    told = translated(client_error("UnauthorizedOperation", "You may not. Encoded authorization failure message: abc"))
    assert str(told) == "RunInstances: UnauthorizedOperation: You may not. (i-1 in eu-central-1)"
    assert "permission" in told.describe()


def test_a_refused_signature_does_not_show_the_session_token():
    error = client_error("SignatureDoesNotMatch", f"canonical string: x-amz-security-token:{TOKEN}")
    assert TOKEN not in translated(error).describe()


def test_a_malformed_request_does_not_show_its_values():
    error = ParamValidationError(report=f"Invalid type for parameter UserData, value: {TOKEN}, type: int")
    assert TOKEN not in translated(error).describe()


def test_the_code_is_found_beneath_the_error_of_the_tree():
    assert error_code(translated(client_error("InvalidGroup.InUse"))) == "InvalidGroup.InUse"
    assert error_code(ValueError()) == ""


@pytest.mark.parametrize(
    "error, lost",
    [
        (client_error("InternalError", status=500), True),
        (client_error("InvalidParameterValue"), False),
        (client_error("RequestLimitExceeded", status=503), False),
        (client_error("InsufficientInstanceCapacity", status=500), False),
        (ReadTimeoutError(endpoint_url="https://x"), True),
        (NoCredentialsError(), False),
    ],
)
def test_a_lost_answer_is_known_from_a_refusal(error, lost):
    assert answer_lost(translated(error)) is lost


def test_throttling_is_transient_even_as_a_400():
    assert is_transient(client_error("Throttling", status=400))


@pytest.mark.parametrize(
    "endpoint, expected",
    [
        ("http://127.0.0.1:5000", True),
        ("http://127.8.9.1:5000", True),
        ("http://[::1]:5000", True),
        ("http://localhost:5000", True),
        ("https://ec2.eu-central-1.amazonaws.com", False),
        ("http://127.0.0.1.example.com", False),
        (None, False),
    ],
)
def test_loopback(endpoint, expected):
    assert is_loopback(endpoint) is expected


def test_the_call_of_a_client_made_once_is_never_repeated(session):
    assert session.client("ec2", once=True).meta.config.retries["total_max_attempts"] == 1
    assert session.client("ec2").meta.config.retries["total_max_attempts"] > 1
    assert session.client("ec2") is session.client("ec2")
    assert session.client("ebs").meta.config.max_pool_connections >= 32


def test_another_region_has_clients_of_its_own(session):
    other = session.in_region("us-east-1")
    assert other.client("ec2").meta.region_name == "us-east-1"
    assert session.in_region(session.region) is session


def test_an_unknown_profile_is_refused(monkeypatch, tmp_path):
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    with pytest.raises(CredentialsRefused, match="nobody"):
        open_session("eu-central-1", profile="nobody")


@pytest.mark.loopback
def test_an_endpoint_where_nobody_listens_is_named(unused_port):
    endpoint = f"http://127.0.0.1:{unused_port}"
    with pytest.raises(CredentialsRefused, match=endpoint):
        open_session("eu-central-1", endpoint_url=endpoint, access_key="a", secret_key="b")


@pytest.mark.subprocess
def test_nothing_imports_boto3_before_a_session_is_opened():
    program = "import sys, pipeline.sweep, pipeline.aws.base_images; print('boto3' in sys.modules)"
    answer = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "False"


def test_the_caller_is_asked_once_and_names_the_cloud(session, stub):
    answer = {"Account": "111122223333", "Arn": "arn:aws:iam::111122223333:user/ana"}
    stub("sts").add_response("get_caller_identity", answer)
    assert session.account_id == "111122223333"
    assert session.caller_arn == "arn:aws:iam::111122223333:user/ana"
    assert session.cloud == "aws/111122223333"


def test_a_refused_caller_is_an_error_of_its_own(session, stub):
    stub("sts").add_client_error("get_caller_identity", "ExpiredToken", "The token AKIDEXAMPLE has expired", 403)
    with pytest.raises(CredentialsRefused, match="ExpiredToken") as caught:
        _ = session.account_id
    assert "AKIDEXAMPLE" not in caught.value.describe()


def test_a_cloud_without_low_ports_serves_them_higher_up(session, monkeypatch):
    assert session.port_outside(22) == 22
    monkeypatch.setattr(session, "low_port_shift", 10_000)
    assert [session.port_outside(port) for port in (22, 1023, 1024, 2222)] == [10_022, 11_023, 1024, 2222]
    assert session.in_region("us-east-1").port_outside(22) == 10_022
