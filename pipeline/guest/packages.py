"""What a guest has installed: its package database, asked with one command, dpkg or rpm."""

import re
from collections.abc import Iterator
from typing import Literal

from pipeline.errors import GuestFailed
from pipeline.report.sbom import Inventory, Package

MARK = "assay-packages"
DPKG = (
    r"${db:Status-Abbrev}\t${Package}\t${Version}\t${Architecture}\t${source:Package}\t${source:Version}"
    r"\t${Installed-Size}\t${Maintainer}\n"
)
RPM = r"%{NAME}\t%{EPOCH}\t%{VERSION}-%{RELEASE}\t%{ARCH}\t%{SOURCERPM}\t%{SIZE}\t%{VENDOR}\t%{LICENSE}\n"

QUESTION = rf"""
printf '{MARK} system\n'
cat /etc/os-release
if command -v dpkg-query >/dev/null; then
    printf '\n{MARK} dpkg\n'
    dpkg-query -W -f '{DPKG}'
    printf '{MARK} licences\n'
    grep -asH '^License: *[^ ]' /usr/share/doc/*/copyright | sort -u
elif command -v rpm >/dev/null; then
    printf '\n{MARK} rpm\n'
    rpm -qa --qf '{RPM}'
else
    echo 'there is neither dpkg-query nor rpm' >&2
    exit 1
fi
"""
"""For root, who may read it all. Licences come from copyright files in the form that programs can read (DEP-5)."""

COPYRIGHT = re.compile(r"/usr/share/doc/([^/]+)/copyright:License: *(\S.*)")
PLAIN = re.compile(r"[!-~]+")
"""What the name, version, architecture and distribution of a package are made of: printable ASCII, no spaces."""
NUMBER = re.compile(r"[0-9]{1,15}")
SETTING = re.compile(r"([A-Z_]+)=(.*)")


def parse_packages(text: str) -> Inventory:
    """Return what the guest answered to `QUESTION`. Raises GuestFailed when there is no package, or an odd one."""
    sections = dict(_split(text))
    system = dict(_settings(sections.get("system", [])))
    kind: Literal["deb", "rpm"] = "deb" if "dpkg" in sections else "rpm"
    packages = _debian(sections) if kind == "deb" else _redhat(sections)
    found = tuple(sorted(packages, key=lambda one: (one.name, one.architecture, one.version)))
    if not found:
        raise GuestFailed(
            "the package database has no package", hint="the image must have dpkg or rpm, with its database"
        )
    for package in found:
        if not all(map(PLAIN.fullmatch, (package.name, package.version, package.architecture))):
            raise GuestFailed(f"the package database has a package that cannot be: {package.name!r}")
    return Inventory(
        kind=kind,
        distribution=system.get("ID", "linux"),
        version=system.get("VERSION_ID", ""),
        title=system.get("PRETTY_NAME", ""),
        packages=found,
    )


def _split(text: str) -> Iterator[tuple[str, list[str]]]:
    for section in text.split(f"{MARK} ")[1:]:
        name, *lines = section.split("\n")
        yield name, [line for line in lines if line]


def _settings(lines: list[str]) -> Iterator[tuple[str, str]]:
    for line in lines:
        setting = SETTING.fullmatch(line)
        if setting and (setting[1] == "PRETTY_NAME" or PLAIN.fullmatch(setting[2])):
            yield setting[1], setting[2].strip("\"'")


def _debian(sections: dict[str, list[str]]) -> Iterator[Package]:
    licences: dict[str, set[str]] = {}
    for line in sections.get("licences", []):
        named = COPYRIGHT.fullmatch(line)
        if named:
            licences.setdefault(named[1], set()).add(named[2].strip())
    for line in sections["dpkg"]:
        fields = line.split("\t")
        if len(fields) != 8 or fields[0][1:2] != "i" or not fields[1]:
            continue  # it was removed, and only its configuration is left
        _, name, version, architecture, source, source_version, kibibytes, maintainer = fields
        other_version = f"@{source_version}" if source_version != version else ""
        yield Package(
            name=name,
            version=version,
            architecture=architecture,
            source=source + other_version if source != name or other_version else "",
            supplier=maintainer,
            licences=tuple(sorted(licences.get(name, ()))),
            installed_bytes=int(kibibytes) * 1024 if NUMBER.fullmatch(kibibytes) else 0,
        )


def _redhat(sections: dict[str, list[str]]) -> Iterator[Package]:
    for line in sections.get("rpm", []):
        fields = ["" if field == "(none)" else field for field in line.split("\t")]
        if len(fields) != 8 or not fields[0] or fields[0] == "gpg-pubkey":
            continue  # rpm keeps the keys that it trusts as packages
        name, epoch, version, architecture, source, size, vendor, licence = fields
        yield Package(
            name=name,
            version=version,
            architecture=architecture,
            epoch="" if epoch == "0" else epoch,
            source=source,
            supplier=vendor,
            licences=(licence,) if licence else (),
            installed_bytes=int(size) if NUMBER.fullmatch(size) else 0,
        )
