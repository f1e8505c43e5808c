"""What the metadata service tells this instance, asked as root with a session token (IMDSv2)."""

import pytest

from checks.fixtures import Ask
from pipeline.spec import Spec

TOKEN = r"""
at=http://169.254.169.254/latest
token=$(curl -sf -m 10 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $at/api/token) || exit 7
"""
CODES = (
    TOKEN
    + r"""
status=$(curl -s -m 10 -o /dev/null -w '%{http_code}' -H "X-aws-ec2-metadata-token: $token" $at/meta-data/product-codes)
case $status in
  200) curl -sf -m 10 -H "X-aws-ec2-metadata-token: $token" $at/meta-data/product-codes ;;
  404) ;;
  *) echo "status $status" ;;
esac
"""
)
WITHOUT_TOKEN = "curl -s -m 10 -o /dev/null -w '%{http_code}' http://169.254.169.254/latest/meta-data/; true"


@pytest.fixture(autouse=True)
def curl(ask: Ask) -> None:
    """Only where the question can be asked."""
    if ask("command -v curl || true") == "":
        pytest.skip("curl is not installed")


@pytest.mark.controls("A11", "H31", layers="B")
def test_product_codes(spec: Spec, ask: Ask) -> None:
    """The product codes are those of the spec."""
    assert sorted(ask(CODES).split()) == sorted(spec.share.product_codes)


@pytest.mark.controls("A12", "H15", layers="B")
def test_a_token_is_required(spec: Spec, ask: Ask) -> None:
    """Without a token the metadata service refuses: IMDSv1 is off."""
    if spec.image.imds != "v2.0":
        pytest.skip("the spec leaves IMDSv1 on (image.imds: optional)")
    assert ask(WITHOUT_TOKEN) == "401"
