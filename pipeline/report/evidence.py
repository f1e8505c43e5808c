"""The evidence of a build: the one model behind every report. Renderings live in `render.py`."""

from datetime import datetime

from pydantic import BaseModel, ConfigDict

from pipeline.report.results import Finding, Layer, Result, Status

__all__ = ["BaseImage", "Evidence", "Finding", "Image", "Layer", "Leak", "Resource", "Result", "Stage", "Status"]

SCHEMA_VERSION = "1"


class Frozen(BaseModel):
    """A value of the evidence: it never changes after it was recorded."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Stage(Frozen):
    """One stage of the recipe, or a part of one, with its time in seconds."""

    name: str
    started: datetime
    seconds: float
    status: Status
    detail: str = ""
    parts: tuple["Stage", ...] = ()


class Resource(Frozen):
    """One thing that the build made in the cloud, and what became of it."""

    kind: str
    identity: str
    region: str
    created: datetime
    removed: datetime | None = None
    kept: bool = False
    """True for what a build is for: the image and its snapshot."""


class Leak(Frozen):
    """A resource that should have been removed and could not be."""

    kind: str
    identity: str
    region: str
    reason: str


class Image(Frozen):
    """The image that the build made."""

    image_id: str
    name: str
    region: str
    snapshot_ids: tuple[str, ...]


class BaseImage(Frozen):
    """The image that the build started from (A01)."""

    image_id: str
    owner_id: str
    name: str
    creation_date: str


class Change(Frozen):
    """One thing that is not the same in two builds or images. Empty is: not there."""

    name: str
    before: str
    after: str

    def line(self) -> str:
        """Return it as people read it: `+` came, `-` went, `~` changed."""
        if not self.before:
            return f"+ {self.name} {self.after}".rstrip()
        if not self.after:
            return f"- {self.name} {self.before}".rstrip()
        return f"~ {self.name} {self.before} → {self.after}"


class Previous(Frozen):
    """The newest earlier build of the same spec that was proved, and what is not as it was there."""

    build_id: str
    image_id: str
    finished: datetime | None
    changes: dict[str, tuple[Change, ...]]
    """By subject: packages, ports, controls … A subject without changes is in it, and empty."""


class Evidence(Frozen):
    """Everything that a build can show of itself; `report.json` is this model as JSON."""

    schema_version: str = SCHEMA_VERSION
    build_id: str
    spec_name: str
    spec_digest: str
    region: str
    started: datetime
    finished: datetime | None = None
    base_image: BaseImage | None = None
    image: Image | None = None
    stages: tuple[Stage, ...] = ()
    results: tuple[Result, ...] = ()
    findings: tuple[Finding, ...] = ()
    block_digests: dict[str, str] = {}
    """By snapshot: SHA-256 over the blocks that were searched, so that a copy can be held against them (R06)."""
    resources: tuple[Resource, ...] = ()
    leaks: tuple[Leak, ...] = ()
    previous: Previous | None = None
    """None: no such build is on this machine, or this one came to no bill of materials."""
    error: str | None = None
    exit_status: int = 0
