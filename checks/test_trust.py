"""Trust: the authorities, package signers and names that this machine believes are the distribution's."""

from collections.abc import Callable

import pytest

from checks.fixtures import Ask, File, Kind, is_signer
from pipeline.spec import Spec

LOCAL = (
    "/usr/local/share/ca-certificates",
    "/etc/ca-certificates/trust-source/anchors",
    "/etc/pki/ca-trust/source/anchors",
    "/usr/share/pki/ca-trust-source/anchors",
)
BUNDLE = r"""
bundle=/etc/ssl/certs/ca-certificates.crt
[ -f $bundle ] && [ -f /etc/ca-certificates.conf ] || { echo none; exit 0; }
certificates() { sed -n 's|^[^#!]|/usr/share/ca-certificates/&|p' /etc/ca-certificates.conf | xargs cat 2>/dev/null; }
certificates | cmp -s - $bundle && { echo 0; exit 0; }
certificates | grep -v -e '^-' | sort -u >/run/known.$$
grep -v -e '^-' -e '^$' $bundle | sort -u | comm -23 - /run/known.$$ | wc -l
rm /run/known.$$
"""


@pytest.mark.controls("V06", layers="LB")
def test_no_local_authority(files: tuple[File, ...]) -> None:
    """No certificate authority was added by hand."""
    assert [str(one) for one in files if one.under(*LOCAL) and one.kind in "fl"] == []


@pytest.mark.controls("V06", layers="LB")
def test_authorities_are_the_distributions(ask: Ask) -> None:
    """The bundle of authorities holds what the distribution's package brought, and nothing more."""
    more = ask(BUNDLE).strip()
    if more == "none":
        pytest.skip("there is no bundle of Debian's kind")
    assert more == "0", f"{more} lines of the bundle are of no certificate of the package"


@pytest.mark.controls("V06", "V01", layers="LB")
def test_package_signers_belong_to_packages(spec: Spec, unpackaged: Callable[[Kind], list[str]]) -> None:
    """Each key that packages may be signed with came with a package, or signs a repository of the spec."""
    declared = {f"/etc/apt/keyrings/assay-{one.name}.asc" for one in spec.harden.repositories if not one.only_for_build}
    assert [path for path in unpackaged(is_signer) if path not in declared] == []


@pytest.mark.controls("V07", layers="LB")
def test_names_are_not_redirected(ask: Ask) -> None:
    """/etc/hosts names this machine only: no mirror or service is sent elsewhere."""
    lines = [line.split() for line in ask("cat /etc/hosts 2>/dev/null || true").splitlines()]
    names = sorted({line[0] for line in lines if line and not line[0].startswith("#")})
    elsewhere = [name for name in names if not name.startswith(("127.", "::1", "fe00::", "ff00::", "ff02::"))]
    assert elsewhere == []


@pytest.mark.controls("V07", layers="LB")
def test_no_log_leaves_the_machine(ask: Ask) -> None:
    """No log is sent to another machine."""
    sent = "grep -rhsE '^[^#]*(@@?[a-zA-Z0-9\\[]|omfwd|omrelp)|^[[:space:]]*(ForwardToSyslogHost|URL)=' "
    places = "/etc/rsyslog.conf /etc/rsyslog.d /etc/systemd/journal-upload.conf /etc/systemd/journal-upload.conf.d"
    assert ask(f"{sent} {places}; true").splitlines() == []


@pytest.mark.controls("V01", "S03", layers="LB")
def test_no_host_is_trusted(files: tuple[File, ...]) -> None:
    """No .rhosts, .shosts or hosts.equiv lets another machine in."""
    names = (".rhosts", ".shosts", "hosts.equiv", "shosts.equiv")
    assert [str(one) for one in files if one.name in names and not one.under("/usr/share")] == []
