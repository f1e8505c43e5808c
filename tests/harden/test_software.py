"""Packages, repositories and services as tables: facts and options in, steps out."""

from typing import Any

import pytest

from pipeline.guest.facts import Facts
from pipeline.harden import harden_steps, packages, repositories, services
from pipeline.spec import Repository, Service
from tests.harden.samples import AMAZON, DEBIAN, spec, text_of
from tests.harden.signing_key import SIGNING_KEY


def repository(**changes: Any) -> Repository:
    plain = {"name": "vendor", "url": "https://vendor.example/apt", "key": SIGNING_KEY}
    return Repository.model_validate({**plain, **changes})


@pytest.mark.parametrize(
    ("facts", "changes", "paths", "lines"),
    [
        (
            DEBIAN,
            {"suite": "bookworm", "components": ["main", "extra"]},
            ["/etc/apt/keyrings/assay-vendor.asc", "/etc/apt/sources.list.d/assay-vendor.sources"],
            ["Suites: bookworm", "Components: main extra", "Signed-By: /etc/apt/keyrings/assay-vendor.asc"],
        ),
        (
            AMAZON,
            {},
            ["/etc/pki/rpm-gpg/assay-vendor.asc", "/etc/yum.repos.d/assay-vendor.repo"],
            ["baseurl=https://vendor.example/apt", "gpgcheck=1", "gpgkey=file:///etc/pki/rpm-gpg/assay-vendor.asc"],
        ),
    ],
)
def test_a_repository_is_bound_to_its_key(
    facts: Facts, changes: dict[str, Any], paths: list[str], lines: list[str]
) -> None:
    key, source = repositories.files(facts, repository(**changes))
    assert [key.path, source.path] == paths
    assert key.content == SIGNING_KEY
    assert [line for line in lines if line not in source.content.splitlines()] == []


def test_a_repository_of_the_build_is_closed_by_the_step_that_opened_it() -> None:
    (step,) = packages.steps(DEBIAN, ["web"], ("H17",), (repository(), repository(name="tools", only_for_build=True)))
    assert step.title == "install web; repositories vendor (kept), tools (closed again)"
    assert isinstance(step.test, str) and isinstance(step.action, str)
    closed = "/etc/apt/keyrings/assay-tools.asc /etc/apt/sources.list.d/assay-tools.sources"
    assert f"closed='{closed}'" in step.test and f"closed='{closed}'" in step.action
    assert "URIs: https://vendor.example/apt" in step.test
    assert step.action.index("trap 'rm -f $closed $policy' EXIT") < step.action.index("assay-tools.sources\ncontent=")
    assert "rm -f /run/assay-package-lists" in step.action


@pytest.mark.parametrize(("facts", "tool"), [(DEBIAN, "apt install"), (AMAZON, "dnf -y -q install $wanted")])
def test_each_family_installs_by_its_own_tool(facts: Facts, tool: str) -> None:
    (step,) = packages.steps(facts, ["b", "a", "b"], ("H17",))
    assert (step.title, step.controls) == ("install a b", ("H17",))
    assert tool in text_of([step])


def test_nothing_is_installed_when_nothing_is_wanted() -> None:
    assert packages.steps(DEBIAN, [], ()) == ()


def test_a_kept_repository_needs_no_package() -> None:
    (step,) = packages.steps(DEBIAN, [], ("H17",), (repository(),))
    assert step.title == "repositories vendor (kept)"
    assert "apt install" not in text_of([step])


def test_packages_come_before_the_services_that_they_bring() -> None:
    wanted = spec(harden={"packages": ["web"], "services": [{"unit": "web.service", "account": "web"}]})
    subjects = [step.subject for step in harden_steps(DEBIAN, wanted)]
    assert subjects.index("updates") < subjects.index("packages") < subjects.index("services")


@pytest.mark.parametrize(
    ("changes", "present", "absent"),
    [
        (
            {},
            ["User=web", "Group=web", "NoNewPrivileges=yes", "CapabilityBoundingSet=", "AmbientCapabilities="],
            ["ReadWritePaths=/srv/web"],
        ),
        ({"low_ports": True}, ["AmbientCapabilities=CAP_NET_BIND_SERVICE"], ["AmbientCapabilities="]),
        ({"writes_to": ["/srv/web"]}, ["ReadWritePaths=/srv/web"], []),
    ],
)
def test_a_service_has_no_rights(changes: dict[str, Any], present: list[str], absent: list[str]) -> None:
    service = Service.model_validate({"unit": "web.service", "account": "web", **changes})
    lines = services.drop_in_text(service).splitlines()
    assert [line for line in present if line not in lines] == []
    assert [line for line in absent if line in lines] == []
