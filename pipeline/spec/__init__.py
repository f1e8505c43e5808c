"""The spec: one YAML file says what an image is to be. It is read once, with all of its problems at once."""

from pipeline.spec.load import export_schema, load_spec, spec_digest
from pipeline.spec.model import (
    BaseImage,
    BlockDevice,
    Encryption,
    Harden,
    Image,
    ImageFilter,
    Instance,
    Network,
    Part,
    Scrub,
    Share,
    Spec,
    Ssh,
    SshdOptions,
    Sudo,
    UpdatesOptions,
    User,
)
from pipeline.spec.types import AccountId, Cidr, UserName

__all__ = [
    "AccountId",
    "BaseImage",
    "BlockDevice",
    "Cidr",
    "Encryption",
    "Harden",
    "Image",
    "ImageFilter",
    "Instance",
    "Network",
    "Part",
    "Scrub",
    "Share",
    "Spec",
    "Ssh",
    "SshdOptions",
    "Sudo",
    "UpdatesOptions",
    "User",
    "UserName",
    "export_schema",
    "load_spec",
    "spec_digest",
]
