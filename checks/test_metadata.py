"""What the metadata service tells this instance, asked as root with a session token (IMDSv2)."""

import pytest

from checks.fixtures import Ask
from pipeline.spec import Spec

METADATA = r"""
set -f
at=http://169.254.169.254/latest
said=$(curl -s -m 10 -o /dev/null -w 'status %{http_code} ' $at/meta-data/ \
  --next -sf -m 10 -X PUT -H 'X-aws-ec2-metadata-token-ttl-seconds: 60' $at/api/token) || exit 7
set -- $said
echo "$2"
curl -s -m 10 -w '\n%{http_code}\n' -H "X-aws-ec2-metadata-token: $3" $at/meta-data/product-codes
"""
"""Prints the status without a token, the product codes, and the status that they came with. Two programs, not five."""


@pytest.fixture(autouse=True)
def curl(programs: frozenset[str]) -> None:
    """Only where the question can be asked."""
    if "curl" not in programs:
        pytest.skip("curl is not installed")


@pytest.fixture
def answers(ask: Ask) -> list[str]:
    """What the metadata service said, in words."""
    return ask(METADATA).split()


@pytest.mark.controls("A11", "H31", layers="B")
def test_product_codes(spec: Spec, answers: list[str]) -> None:
    """The product codes are those of the spec."""
    _, *codes, status = answers
    assert status in ("200", "404")
    assert sorted(codes if status == "200" else []) == sorted(spec.share.product_codes)


@pytest.mark.controls("A12", "H15", layers="B")
def test_a_token_is_required(spec: Spec, answers: list[str]) -> None:
    """Without a token the metadata service refuses: IMDSv1 is off."""
    if spec.image.imds != "v2.0":
        pytest.skip("the spec leaves IMDSv1 on (image.imds: optional)")
    assert answers[0] == "401"
