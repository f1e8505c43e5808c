"""What a step, a check or a search says: the parts of the evidence that are made in numbers, and without pydantic.

A search of a disk loads no more than it needs: pydantic takes twice the memory of all else that it imports.
"""

from dataclasses import dataclass
from enum import StrEnum
from typing import Literal, TypedDict


class Strict(TypedDict):
    """How pydantic is to read what of the evidence is no model of its own."""

    extra: Literal["forbid"]


NOTHING_ELSE: Strict = {"extra": "forbid"}


class Layer(StrEnum):
    """Where a control is served or proved; the letters are those of the control catalogue."""

    HARDENED = "G"
    SCRUBBED = "S"
    LIVE = "L"
    FRESH_BOOT = "B"
    RAW = "R"
    AWS = "A"

    @property
    def words(self) -> str:
        """Return the layer as people read it: `fresh boot`."""
        return "AWS" if self is Layer.AWS else self.name.lower().replace("_", " ")


class Status(StrEnum):
    """What is known of a control at a layer. `UNREACHABLE` means that it could not be asked: it counts as a failure."""

    PASS = "pass"  # noqa: S105
    FAIL = "fail"
    NOT_APPLICABLE = "not-applicable"
    UNREACHABLE = "unreachable"

    @property
    def is_failure(self) -> bool:
        """Whether it counts as a failure."""
        return self in (Status.FAIL, Status.UNREACHABLE)


@dataclass(frozen=True)
class Result:
    """One step that ran or one check that was made, for the controls that it serves."""

    __pydantic_config__ = NOTHING_ELSE

    controls: tuple[str, ...]
    layer: Layer
    status: Status
    title: str
    source: str
    """What ran: `harden/sshd`, `checks/test_sshd.py::test_root_login`, `residue/build_keys` …"""
    detail: str = ""
    """The reason for anything but a pass; never a secret."""
    changed: bool = False
    """For a step: it changed the guest."""
    seconds: float = 0.0


@dataclass(frozen=True)
class Finding:
    """Something that must not be there. It shows place, kind and fingerprint, never the secret itself."""

    __pydantic_config__ = NOTHING_ELSE

    control: str
    layer: Layer
    kind: str
    place: str
    fingerprint: str
    detail: str = ""
