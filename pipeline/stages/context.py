"""What every stage is given: what was asked for, where to do it, and where to write down what happened."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from pipeline.aws.session import Session
from pipeline.journal import Journal
from pipeline.recorder import Recorder
from pipeline.spec import Spec


@dataclass(frozen=True)
class Context:
    """One build."""

    spec: Spec
    spec_path: Path
    spec_digest: str
    build_id: str
    session: Session
    journal: Journal
    recorder: Recorder
    folder: Path
    """`builds/<build-id>`: everything that stays of a build."""
    started: datetime
    update_base: bool = False
    """Take the newest base image and move the lock."""
