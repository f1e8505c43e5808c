"""What is assumed of a guest that nobody can ask: a plan has none yet, and a disk does not run."""

from pipeline.guest.facts import COMMANDS, Account, Facts
from pipeline.spec import Spec

KNOWN = {
    "debian-12": ("debian", "debian", "12", "bookworm", (9, 2)),
    "debian-13": ("debian", "debian", "13", "trixie", (10, 0)),
    "ubuntu": ("debian", "ubuntu", "24.04", "noble", (9, 6)),
    "al2023": ("redhat", "amzn", "2023", "", (8, 7)),
    "amazon": ("redhat", "amzn", "2023", "", (8, 7)),
}
"""By a word in the base image's name."""


def assume_facts(spec: Spec) -> Facts:
    """Return what a guest of the spec's base image is probably like."""
    base = spec.base_image
    hint = f"{base.filter.name if base.filter else base.parameter or ''} {spec.name}"
    known = next((facts for word, facts in KNOWN.items() if word in hint), KNOWN["debian-12"])
    family, distribution, version, codename, sshd_version = known
    return Facts(
        family="redhat" if family == "redhat" else "debian",
        distribution=distribution,
        version=version,
        codename=codename,
        pretty_name=f"{distribution} {version}, OpenSSH {sshd_version[0]}.{sshd_version[1]}",
        architecture="aarch64" if spec.image.architecture == "arm64" else "x86_64",
        kernel="",
        kernels=(),
        sshd_path="/usr/sbin/sshd",
        sshd_version=sshd_version,
        users=(
            Account("root", 0, 0, "root", "/root", "/bin/bash"),
            Account(spec.ssh.user, 1000, 1000, "", f"/home/{spec.ssh.user}", "/bin/bash"),
        ),
        groups=(),
        has_systemd=True,
        cloud_init="assumed",
        default_user=spec.ssh.user,
        package_manager="dnf" if family == "redhat" else "apt",
        file_systems=(),
        swaps=(),
        commands=frozenset(COMMANDS.split()) - {"dnf" if family == "debian" else "apt-get"},
    )
