"""The lock: which base image a spec was built on, so that the next build starts from the same one (A01).

- No lock: the first build takes the newest image of the spec's owner, and writes the lock.
- The locked image is there: it is used, even when a newer one exists. `plan` shows that one, `--update-base` takes it.
- The locked image is gone, or is another's: the build is refused, and says what to do.

On AWS the lock stands beside its spec and belongs into version control. On the local cloud each machine makes its own
base image, so the lock stands with the builds of that machine: a fresh clone could not have another machine's image.
There a missing image is replaced by the newest of the same owner, because nobody else can publish there.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import yaml

from pipeline.errors import BaseImageRefused
from pipeline.files import write_atomically
from pipeline.spec import AccountId, ImageId, Part, load_part

HEADER = """\
# The base image that this spec is built on. `invoke build` writes this file, `invoke build --update-base` moves it.
"""
UPDATE = "run `invoke plan --update-base` to see the change, then `invoke build --update-base` to take it"


class LockedBase(Part):
    """One base image: its id, and what must not change about it."""

    id: ImageId
    owner: AccountId
    name: str
    creation_date: str

    def describe(self) -> str:
        """Return the image as a plan shows it."""
        return f"{self.id} {self.name} of {self.owner}, created {self.creation_date}"


@dataclass(frozen=True)
class Choice:
    """The base image to build on; `change`: how it differs from the lock; `moves_lock`: the lock is to follow."""

    base: LockedBase
    change: str | None
    moves_lock: bool


def lock_path(spec_path: Path, cloud: Literal["local", "aws"], builds: Path) -> Path:
    """Return where the lock of a spec stands: beside it for AWS, among this machine's builds for the local cloud."""
    name = f"{spec_path.stem}.lock.yaml"
    return builds / "locks" / name if cloud == "local" else spec_path.parent / name


def read_lock(path: Path) -> LockedBase | None:
    """Return what is locked, or None where nothing is yet. Raises SpecInvalid for a damaged lock."""
    return load_part(path, LockedBase) if path.exists() else None


def write_lock(path: Path, base: LockedBase) -> None:
    """Write the lock, as a whole or not at all. Raises FileUnwritable."""
    text = yaml.safe_dump(base.model_dump(), sort_keys=False, default_style='"')
    write_atomically(path, HEADER + text)


def compare(locked: LockedBase | None, found: LockedBase) -> str | None:
    """Return how an image that was found differs from the locked one, in words, or None where it is the same.

    Raises BaseImageRefused for an image of another owner, and for one that changed under its id (whoAMI, A01).
    """
    if locked is None:
        return f"nothing is locked yet: takes {found.describe()}"
    if found.owner != locked.owner:
        raise BaseImageRefused(
            f"it belongs to {found.owner}, but the lock names {locked.owner}", resource=found.id, hint=UPDATE
        )
    if found.id != locked.id:
        age = "newer" if found.creation_date > locked.creation_date else "older"
        return f"{age} than the lock: {found.describe()}; locked is {locked.describe()}"
    if found != locked:
        raise BaseImageRefused(
            f"the lock says {locked.describe()}, the cloud says {found.describe()}",
            resource=found.id,
            hint="an image never changes its name or date: see who changed the lock file",
        )
    return None


def choose_base(
    locked: LockedBase | None,
    newest: LockedBase,
    still_there: LockedBase | None,
    *,
    owner: str,
    update: bool = False,
    cloud: Literal["local", "aws"] = "aws",
) -> Choice:
    """Return the base image to build on.

    `newest` is what the spec finds now, `still_there` what the cloud says of the locked id (None: it is gone), `owner`
    who must own it by the spec. Raises BaseImageRefused: another owner's image, or a locked image that is gone.
    """
    if newest.owner != owner:
        raise BaseImageRefused(f"it belongs to {newest.owner}, not to {owner}", resource=newest.id)
    if locked is None or update:
        return Choice(newest, _describe_move(locked, newest), moves_lock=newest != locked)
    change = compare(locked, newest)
    if still_there is not None:
        compare(locked, still_there)
        return Choice(still_there, change, moves_lock=False)
    if cloud == "local":
        return Choice(
            newest, f"the locked image is gone from the local cloud: takes {newest.describe()}", moves_lock=True
        )
    raise BaseImageRefused(
        "the locked base image is gone, not shared with you, or in another region than the spec's",
        resource=locked.id,
        hint=UPDATE,
    )


def _describe_move(locked: LockedBase | None, newest: LockedBase) -> str | None:
    if locked is None or locked.owner == newest.owner:
        return compare(locked, newest)
    return f"another owner than the lock, as the spec now says: {newest.describe()}; locked is {locked.describe()}"
