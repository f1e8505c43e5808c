"""Repositories of packages: those of the spec, signed by the keys of the spec, and no other that nobody explains."""

import re

import pytest

from checks.fixtures import Ask, File
from pipeline.spec import Repository, Spec

OF_THE_DISTRIBUTION = re.compile(r"(debian|ubuntu|ubuntu-[a-z-]+|amazonlinux|kernel-livepatch|redhat.*|rocky.*|alma.*)")
SOURCES = ("/etc/apt/sources.list.d", "/etc/yum.repos.d")
KEYS = ("/etc/apt/keyrings", "/etc/pki/rpm-gpg")


def kept(spec: Spec) -> dict[str, Repository]:
    """Return the repositories that instances of the image have, by the names of their files."""
    return {f"assay-{one.name}": one for one in spec.harden.repositories if not one.only_for_build}


@pytest.mark.controls("H17", layers="LB")
def test_only_the_repositories_of_the_spec_are_open(spec: Spec, files: tuple[File, ...]) -> None:
    """Beside the distribution's own sources of packages there are those of the spec; those of the build are closed."""
    sources = [one.name for one in files if one.under(*SOURCES) and one.name.endswith((".list", ".sources", ".repo"))]
    names = {name.rpartition(".")[0] for name in sources}
    assert sorted(name for name in names if not OF_THE_DISTRIBUTION.fullmatch(name)) == sorted(kept(spec))
    keys = {one.name.rpartition(".")[0] for one in files if one.under(*KEYS) and one.name.startswith("assay-")}
    assert keys == kept(spec).keys()


@pytest.mark.controls("H17", layers="LB")
def test_each_repository_is_bound_to_its_key(spec: Spec, family: str, ask: Ask) -> None:
    """A repository of the spec is where the spec says, and the spec's key alone counts for it."""
    if not kept(spec):
        pytest.skip("the spec keeps no repositories (harden.repositories)")
    for name, repository in kept(spec).items():
        key = f"{KEYS[family == 'rpm']}/{name}.asc"
        source = f"{SOURCES[family == 'rpm']}/{name}.{'repo' if family == 'rpm' else 'sources'}"
        text = ask(f"cat {source}")
        assert re.findall(r"^(?:URIs: *|baseurl=)(.*)", text, re.MULTILINE) == [repository.url]
        bound = r"^gpgkey=file://(.*)" if family == "rpm" else r"^Signed-By: *(.*)"
        assert re.findall(bound, text, re.MULTILINE) == [key]
        assert ask(f"cat {key}").split() == repository.key.split()
