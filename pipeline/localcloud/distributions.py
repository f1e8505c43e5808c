"""The distributions whose images the local cloud makes: what differs, as their publishers have it on EC2."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Suite = Literal["bookworm", "trixie", "noble"]
KEYRINGS = Path("/usr/share/keyrings")


@dataclass(frozen=True)
class Distribution:
    """One release of a distribution."""

    suite: Suite
    vendor: Literal["Debian", "Ubuntu"]
    version: str
    owner_id: str
    """The publisher's own account on EC2."""
    image_name: str
    """With `{date}`."""
    root_device_name: str
    parameters: tuple[str, ...]
    """The public parameters of Systems Manager that name the newest image."""
    kernel: str
    components: str
    mirror: str
    security_mirror: str
    package_of_keys: tuple[str, str] = ("", "")
    """Where on the mirror the package of its keys is, and its SHA-256, for hosts whose distribution has none."""

    @property
    def title(self) -> str:
        """Its name, as people say it."""
        return f"{self.vendor} {self.version}"

    @property
    def keyring(self) -> Path:
        """Where its keys lie: on the images, and on hosts that have its package of keys."""
        return KEYRINGS / f"{self.vendor.lower()}-archive-keyring.gpg"

    @property
    def fixed_name(self) -> str:
        """What the names of all of its images begin with."""
        return self.image_name.partition("{date}")[0]


def debian(suite: Suite, version: str) -> Distribution:
    """Return a release of Debian, as its cloud team publishes it."""
    return Distribution(
        suite=suite,
        vendor="Debian",
        version=version,
        owner_id="136693071363",
        image_name=f"debian-{version}-amd64-{{date}}-1",
        root_device_name="/dev/xvda",
        parameters=tuple(f"/aws/service/debian/release/{name}/latest/amd64" for name in (version, suite)),
        kernel="linux-image-cloud-amd64",
        components="main",
        mirror="http://deb.debian.org/debian",
        security_mirror="http://deb.debian.org/debian-security",
    )


DISTRIBUTIONS: dict[Suite, Distribution] = {
    "bookworm": debian("bookworm", "12"),
    "trixie": debian("trixie", "13"),
    "noble": Distribution(
        suite="noble",
        vendor="Ubuntu",
        version="24.04",
        owner_id="099720109477",
        image_name="ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-{date}",
        root_device_name="/dev/sda1",
        parameters=("/aws/service/canonical/ubuntu/server/24.04/stable/current/amd64/hvm/ebs-gp3/ami-id",),
        kernel="linux-image-aws",
        components="main universe",
        mirror="http://archive.ubuntu.com/ubuntu",
        security_mirror="http://archive.ubuntu.com/ubuntu",
        package_of_keys=(
            "pool/main/u/ubuntu-keyring/ubuntu-keyring_2023.11.28.1_all.deb",  # the release's own, which stays
            "36de43b15853ccae0028e9a767613770c704833f82586f28eb262f0311adb8a8",
        ),
    ),
}


def suite_of(name: str) -> Suite | None:
    """Return the release whose images bear such a name, which may end in a pattern (`*`); None where none does."""
    fixed = name.partition("*")[0]
    return next((suite for suite, one in DISTRIBUTIONS.items() if fixed.startswith(one.fixed_name)), None)
