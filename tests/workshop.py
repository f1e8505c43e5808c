"""Where end-to-end tests run Assay's own commands: on the local cloud, with a folder of builds of their own."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.end_to_end import ROOT, cloud_client

REGION = "eu-central-1"
DEADLINE_SECONDS = 1500


@dataclass(frozen=True)
class Run:
    """One `invoke` command that ended."""

    status: int
    output: str
    errors: str


@dataclass(frozen=True)
class Workshop:
    """Where the commands of these tests run: the local cloud, and a folder of builds of their own."""

    cloud: dict[str, str]
    builds: Path

    def invoke(self, *arguments: str, within: tuple[str, ...] = (), **environment: str) -> Run:
        """Run one task, `within` another command that takes it as its last arguments."""
        ran = subprocess.run(
            [*within, sys.executable, "-m", "invoke", *arguments],
            cwd=ROOT,
            env=os.environ | self.cloud | {"ASSAY_BUILDS": str(self.builds)} | environment,
            capture_output=True,
            text=True,
            timeout=DEADLINE_SECONDS,
            check=False,
        )
        return Run(ran.returncode, ran.stdout, ran.stderr)

    def report(self, build: str = "latest") -> dict[str, Any]:
        """Return the report of a build."""
        found: dict[str, Any] = json.loads((self.builds / build / "report.json").read_text())
        return found

    @property
    def ec2(self) -> Any:
        """A client of the builder's account."""
        return cloud_client(self.cloud, "ec2", REGION)
