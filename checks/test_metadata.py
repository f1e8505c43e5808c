"""What the metadata service tells this instance, asked as root with a session token (IMDSv2), and who reaches it."""

import pytest

from checks.fixtures import Ask
from pipeline.spec import MetadataOptions, Spec

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


REACHED = r"""
at=http://169.254.169.254/latest/meta-data/
answer() { "$@" curl -s -m 5 -o /dev/null -w '%%{http_code}\n' $at; }
for user in %s; do
  case $user in
  root) answer ;;
  nobody) answer setpriv --reuid=65534 --regid=65534 --clear-groups ;;
  *) answer setpriv --reuid=$user --regid=65534 --clear-groups ;;
  esac
done
"""
"""Prints a status for each user; 000 for those who are not let through. Nobody becomes a user by way of PAM, which
would write it down."""


@pytest.fixture
def curl(programs: frozenset[str]) -> None:
    """Only where the question can be asked."""
    if "curl" not in programs:
        pytest.skip("curl is not installed")


@pytest.fixture
def wanted(spec: Spec) -> MetadataOptions:
    """What the spec says of who reaches the metadata service."""
    if spec.harden.metadata is None:
        pytest.skip("the spec leaves the metadata service open to all (harden.metadata)")
    return spec.harden.metadata


@pytest.fixture
def answers(ask: Ask, spec: Spec, curl: None) -> list[str]:
    """What the metadata service said, in words."""
    if is_closed_after_boot(spec):
        pytest.skip("nobody reaches the metadata service once an instance is up (harden.metadata)")
    return ask(METADATA).split()


def is_closed_after_boot(spec: Spec) -> bool:
    """Return whether the metadata service is out of reach even for root."""
    return spec.harden.metadata is not None and spec.harden.metadata.reachable == "while-booting"


@pytest.mark.controls("H21", layers="LB")
def test_only_root_reaches_the_metadata_service(wanted: MetadataOptions, layer: str, ask: Ask, curl: None) -> None:
    """A user without rights is refused; root and the users of the spec are answered, while the spec lets them."""
    if layer == "L" and wanted.reachable == "while-booting":
        pytest.skip("the metadata service is closed from the next boot on")
    users = ["nobody", "root", *wanted.users]
    said = dict(zip(users, ask(REACHED % " ".join(users)).split(), strict=True))
    reached = {user for user, status in said.items() if status != "000"}
    assert reached == ({"root", *wanted.users} if wanted.reachable == "by-root" else set())


@pytest.mark.controls("H21", layers="L")
def test_the_metadata_service_is_closed_at_boot(wanted: MetadataOptions, ask: Ask) -> None:
    """What closes the metadata service starts at each boot."""
    unit = "nftables" if wanted.reachable == "by-root" else "assay-metadata"
    assert ask(f"ls -L /etc/systemd/system/*.wants/{unit}.service 2>/dev/null; true").split()


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
