"""Credentials of clouds and services: none of anybody's may ship."""

import re

import pytest

from checks.fixtures import Ask, File
from pipeline.spec import Spec

CLOUD = re.compile(
    r"""/\.(aws|azure|gcloud|oci|boto|s3cfg|s3ql|passwd-s3fs)(/|$)
    |/\.config/(gcloud|doctl|hcloud|linode-cli)(/|$)
    |^/etc/(passwd-s3fs|boto\.cfg)$
    |/\.hcloud\.toml$
    |/application_default_credentials\.json$""",
    re.VERBOSE,
)
SERVICES = re.compile(
    r"""/(\.netrc|_netrc|\.pgpass|\.my\.cnf|\.mylogin\.cnf|\.git-credentials|\.smbcredentials|\.htpasswd|\.env
    |\.npmrc|\.yarnrc|\.yarnrc\.yml|\.pypirc|\.gem/credentials|\.cargo/credentials(\.toml)?
    |\.pip/pip\.conf|\.config/pip/pip\.conf|\.config/gh/hosts\.yml|\.config/hub
    |\.docker/config\.json|\.dockercfg|\.config/containers/auth\.json|containers/auth\.json
    |\.kube/config|\.helm/repository|\.vault-token
    |\.terraformrc|\.terraform\.d/credentials\.tfrc\.json|terraform\.tfstate(\.backup)?
    |\.gnupg/private-keys-v1\.d/.+|\.gnupg/secring\.gpg|\.gnupg/pubring\.kbx
    |\.rclone\.conf|\.config/rclone/rclone\.conf)$""",
    re.VERBOSE,
)
CERTIFICATES = re.compile(r"/(pk|cert)-[A-Z0-9]{20,40}\.pem$|/\.ec2(/|$)")
PUBLIC_SOFTWARE = ("/usr/lib", "/usr/share", "/usr/include", "/usr/src", "/var/lib/dpkg")
URLS = r"""
grep -rlsE -e '[a-z][a-z0-9+.-]*://[^/@:[:space:]]+:[^/@[:space:]]+@' \
  /etc/apt /etc/dnf /etc/yum.conf /etc/yum.repos.d /etc/environment /etc/environment.d /etc/systemd /etc/profile \
  /etc/profile.d /etc/pip.conf /etc/npmrc /etc/wgetrc /etc/gitconfig /etc/default; true
"""
VARIABLES = r"""
grep -rlsE -e '(AWS_SECRET_ACCESS_KEY|AWS_SESSION_TOKEN|EC2_PRIVATE_KEY|EC2_CERT|AZURE_CLIENT_SECRET)[[:space:]]*=' \
  /etc/environment /etc/environment.d /etc/profile /etc/profile.d /etc/default /etc/systemd /etc/bash.bashrc \
  /etc/security /root/.profile /root/.bashrc /root/.bash_profile \
  /home/*/.profile /home/*/.bashrc /home/*/.bash_profile; true
"""


def kept(spec: Spec, path: str) -> bool:
    """Return whether the spec says that this file stays."""
    return any(path == keep or path.startswith(keep.rstrip("/") + "/") for keep in spec.scrub.keep_files)


def named(spec: Spec, files: tuple[File, ...], pattern: re.Pattern[str]) -> list[str]:
    """Return the files with such a name, outside of the distribution's own folders."""
    found = [
        file for file in files if pattern.search(str(file)) and file.kind != "d" and not file.under(*PUBLIC_SOFTWARE)
    ]
    return [str(file) for file in found if not kept(spec, str(file))]


@pytest.mark.controls("S05", layers="LB")
def test_no_signing_certificates(spec: Spec, files: tuple[File, ...]) -> None:
    """No X.509 signing certificate or key of an AWS account."""
    assert named(spec, files, CERTIFICATES) == []


@pytest.mark.controls("S05", "S06", "S08", layers="LB")
def test_no_credentials_in_the_environment(ask: Ask) -> None:
    """No profile, unit or environment file sets credentials."""
    assert ask(VARIABLES).splitlines() == []


@pytest.mark.controls("S06", layers="LB")
def test_no_cloud_credentials(spec: Spec, files: tuple[File, ...]) -> None:
    """No configuration or cache of a cloud's command line tools."""
    assert named(spec, files, CLOUD) == []


@pytest.mark.controls("S06", layers="LB")
def test_no_access_key(spec: Spec, holders: dict[str, list[str]]) -> None:
    """No file holds the id of an AWS access key."""
    assert [path for path in holders["access"] if not kept(spec, path)] == []


@pytest.mark.controls("S07", layers="LB")
def test_no_service_credentials(spec: Spec, files: tuple[File, ...]) -> None:
    """No password file, token or login of a database, registry, cluster or package index."""
    assert named(spec, files, SERVICES) == []


@pytest.mark.controls("S08", layers="LB")
def test_no_login_in_an_address(spec: Spec, ask: Ask) -> None:
    """No user name and password inside the address of a proxy or repository."""
    assert [path for path in ask(URLS).splitlines() if not kept(spec, path)] == []


@pytest.mark.controls("S08", layers="LB")
def test_no_package_manager_login(spec: Spec, files: tuple[File, ...]) -> None:
    """No login for a package repository."""
    logins = [file for file in files if str(file) == "/etc/apt/auth.conf" or file.under("/etc/apt/auth.conf.d")]
    assert [str(file) for file in logins if file.size and file.kind == "f" and not kept(spec, str(file))] == []
