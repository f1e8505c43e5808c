"""Profiles: named sets of hardening options, each with the control that it serves and the source that asks for it.

`harden: {profile: strict}` takes the options of a profile; `profile: [strict, paid]` takes several, the later one wins.
What the spec itself says always wins, `null` included. `baseline` is what the model's own defaults are.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Setting:
    """One option that a profile sets."""

    option: str
    """Its place below `harden`: `sshd.max_auth_tries`."""
    value: object
    control: str
    source: str
    """Who asks for it, as in the control catalogue: [0] to [4], DS, CIS, MP."""


BASELINE: tuple[Setting, ...] = ()

STRICT = (
    Setting("sshd.permit_root_login", "no", "H02", "[0] [1] [3] DS CIS"),
    Setting("sshd.max_auth_tries", 3, "H06", "DS CIS"),
    Setting("sshd.login_grace_seconds", 30, "H06", "DS CIS"),
    Setting("sshd.allow_tcp_forwarding", False, "H06", "DS CIS"),
    Setting("updates.at_build", "all", "H16", "[0] [1] [2] [3] CIS"),
    Setting("updates.periodic", True, "H16", "[0] [1] [2] [3]"),
    Setting("kernel.deny_modules", True, "H25", "DS CIS"),
    Setting("login.umask", "027", "H25", "DS CIS"),
    Setting("login.idle_minutes", 15, "H25", "DS CIS"),
    Setting("mandatory_access", True, "H25", "CIS"),
    Setting("permissions", True, "H25", "CIS"),
    Setting("audit", {}, "H25", "DS CIS"),
    Setting("mounts", {}, "H25", "DS CIS"),
    Setting("firewall", {}, "H20", "[1] CIS"),
    Setting("metadata", {}, "H21", "[4]"),
)
"""What the dev-sec baselines and level 1 of the CIS benchmarks ask of a server, as far as there are options for it."""

PAID = (
    Setting("sshd.permit_root_login", "no", "H30", "[3]"),
    Setting("launch_user_sudo", False, "H30", "[3]"),
    Setting("first_boot", True, "H30", "[3]"),
    Setting("product_guard", {}, "H31", "[3] MP"),
)
"""An image that is sold. The channel decides on H30: AWS Marketplace wants `launch_user_sudo: true`."""

PROFILES: Mapping[str, tuple[Setting, ...]] = {"baseline": BASELINE, "strict": STRICT, "paid": PAID}


def with_profiles(harden: object) -> object:
    """Return the mapping of `harden` with what its profiles add. Anything but a mapping is returned as it is."""
    if not isinstance(harden, dict):
        return harden
    added: dict[str, Any] = {}
    for setting in settings_of(harden.get("profile")):
        added = overlay(added, nest(setting))
    return overlay(added, harden)


def settings_of(profile: object) -> Iterator[Setting]:
    """Yield the settings of one profile, or of a list of them, by their names; what is no profile has none."""
    for name in profile if isinstance(profile, list | tuple) else [profile]:
        yield from PROFILES.get(name, ()) if isinstance(name, str) else ()


def nest(setting: Setting) -> dict[str, Any]:
    """Return a setting as the mapping that a spec would have."""
    value: Any = setting.value
    for key in reversed(setting.option.split(".")):
        value = {key: value}
    nested: dict[str, Any] = value
    return nested


def overlay(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """Return two mappings as one, mappings inside of them too; where both say something, `above` wins."""
    merged = {**below, **above}
    for key in below.keys() & above.keys():
        if isinstance(below[key], dict) and isinstance(above[key], dict):
            merged[key] = overlay(below[key], above[key])
    return merged
