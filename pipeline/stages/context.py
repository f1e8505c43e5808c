"""What every stage is given: what was asked for, where to do it, and where to write down what happened."""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from pipeline.aws.session import Session
from pipeline.aws.tags import Tags, resource_name
from pipeline.journal import Journal
from pipeline.recorder import Recorder
from pipeline.report.evidence import Layer, Result
from pipeline.spec import Spec
from pipeline.verify.live import Checks, start_checks


@dataclass(frozen=True)
class Context:
    """One build, or one proof of an image that exists."""

    spec: Spec
    spec_path: Path
    builds: Path
    """The folder of all builds of this machine; each has one of its own in it."""
    session: Session
    tags: Tags
    journal: Journal
    recorder: Recorder
    update_base: bool = False
    """Take the newest base image and move the lock to it."""

    @property
    def build_id(self) -> str:
        """The build's id: everything that it makes is named after it."""
        return self.tags.build_id

    @property
    def region(self) -> str:
        """The region that the build works in."""
        return self.session.region

    def name(self, role: str) -> str:
        """Return the name of the one thing of this build that has this role."""
        return resource_name(self.build_id, role)

    def start_checks(self, layer: Layer, after: str = "") -> AbstractContextManager[Checks]:
        """Start to collect the checks of a layer: that takes seconds, which a guest that boots or is scrubbed leaves.

        `after` names a later boot, whose checks print into a folder of their own.
        """
        folder = self.recorder.folder / f"after-{after}" if after else self.recorder.folder
        return start_checks(layer, self.spec, folder, spec_folder=self.spec_path.parent)

    def check_progress(self, result: Result, done: int, total: int) -> None:
        """Show each check as it ends."""
        self.recorder.progress(result.title, done, total)
