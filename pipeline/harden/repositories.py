"""Repositories of packages besides the distribution's own (H17; seed [1]): each is bound to the key that signs it."""

from pipeline.guest.facts import Facts
from pipeline.harden.managed_file import ManagedFile
from pipeline.spec import Repository


def files(facts: Facts, repository: Repository) -> tuple[ManagedFile, ...]:
    """Return the files that open a repository: its key, and where it is."""
    return apt_files(repository) if facts.package_manager == "apt" else dnf_files(repository)


def apt_files(repository: Repository) -> tuple[ManagedFile, ...]:
    """Return them for apt: a source of its own (sources.list(5), deb822), for which no other key counts."""
    key = ManagedFile(f"/etc/apt/keyrings/assay-{repository.name}.asc", repository.key)
    text = (
        f"# Written by Assay (H17).\nTypes: deb\nURIs: {repository.url}\nSuites: {repository.suite}\n"
        f"Components: {' '.join(repository.components)}\nSigned-By: {key.path}\n"
    )
    return (key, ManagedFile(f"/etc/apt/sources.list.d/assay-{repository.name}.sources", text))


def dnf_files(repository: Repository) -> tuple[ManagedFile, ...]:
    """Return them for dnf and yum (dnf.conf(5)), which check every package against the key."""
    key = ManagedFile(f"/etc/pki/rpm-gpg/assay-{repository.name}.asc", repository.key)
    text = (
        f"# Written by Assay (H17).\n[assay-{repository.name}]\nname={repository.name}\nbaseurl={repository.url}\n"
        f"enabled=1\ngpgcheck=1\ngpgkey=file://{key.path}\n"
    )
    return (key, ManagedFile(f"/etc/yum.repos.d/assay-{repository.name}.repo", text))
