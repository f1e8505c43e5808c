"""A build beside the bare boots that it contains, and beside Packer making the same AMI with the same steps."""

import json
import shlex
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pipeline.errors import AssayError
from pipeline.guest.step import Step, reveal
from pipeline.harden import harden_steps
from pipeline.plan import assume_facts
from pipeline.scrub import scrub_steps
from pipeline.spec import load_spec
from tests.bench import packer
from tests.bench.rows import Row

ROOT = Path(__file__).parents[2]
SPEC = ROOT / "specs" / "debian-12-local.yaml"
RUNS = 3
DEADLINE_SECONDS = 1800
BOUND = "own time ≤ 20 % of the total"


def measure(start_local_cloud: Callable[[], dict[str, str]]) -> list[Row]:
    """Build with Assay and with Packer in turn, and return the rows. The base image is cached before the first run."""
    cloud = start_local_cloud()
    ours, theirs = [], []
    for _ in range(RUNS):
        ours.append(build_with_assay())
        theirs.append(build_with_packer(cloud, ours[-1]))
    return rows(ours, theirs)


def build_with_assay() -> dict[str, Any]:
    """Run `invoke build` and return its evidence, with the wall-clock seconds of the whole command."""
    started = time.monotonic()
    command = [sys.executable, "-m", "invoke", "build", "--json"]
    made = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=DEADLINE_SECONDS, check=False)
    if made.returncode:
        raise AssayError(f"the build under measurement ended with {made.returncode}: {made.stderr[-500:]}")
    evidence: dict[str, Any] = json.loads(made.stdout)
    return {**evidence, "seconds": time.monotonic() - started}


def build_with_packer(cloud: dict[str, str], ours: dict[str, Any]) -> float:
    """Let Packer make an AMI of the same base image with the same steps, and return the seconds."""
    spec = load_spec(SPEC)
    facts = assume_facts(spec)
    with TemporaryDirectory() as text:
        folder = Path(text)
        scripts = [
            write_script(folder / "harden.sh", harden_steps(facts, spec)),
            write_script(folder / "scrub.sh", scrub_steps(facts, spec)),
        ]
        template = packer.write_template(
            folder,
            endpoint=cloud["AWS_ENDPOINT_URL"],
            region=spec.region,
            name=f"packer-{time.time_ns()}",
            source_ami=ours["base_image"]["image_id"],
            scripts=scripts,
            ami_users=list(spec.share.accounts),
        )
        started = time.monotonic()
        made = packer.run(template, cloud, folder / "log", DEADLINE_SECONDS)
        seconds = time.monotonic() - started
        if made.returncode:
            raise AssayError(f"packer ended with {made.returncode}: {(folder / 'log').read_text()[-1000:]}")
        return seconds


def write_script(path: Path, steps: tuple[Step, ...]) -> Path:
    """Write steps as a plain script, as somebody would for Packer: each test, and the action where it says no."""
    parts = ["set -u"]
    for step in steps:
        action = f"sh -ec {shlex.quote(reveal(step.action))}"
        test = f"sh -c {shlex.quote(reveal(step.test))} >/dev/null 2>&1 || " if step.test else ""
        parts.append(f"{test}{action}" if not step.optional else f"{test}{action} || true")
    path.write_text("\n".join(parts) + "\n")
    return path


def rows(ours: list[dict[str, Any]], theirs: list[float]) -> list[Row]:
    """Return the figures: the whole, its parts, and what the recipe adds to the boots."""
    versions = f"packer {packer.version()}"
    totals = [run["seconds"] for run in ours]
    boots = [bare_seconds(run) for run in ours]
    shares = [100 * (total - boot) / total for total, boot in zip(totals, boots, strict=True)]
    median, runs = statistics.median, len(ours)
    return [
        Row("whole command", "s", median(totals), "packer build", median(theirs), "", runs, versions),
        Row("boot + stop + boot", "s", median(boots), runs=runs),
        Row("own time, beyond boot + stop + boot", "%", median(shares), bound=BOUND, runs=runs),
        *(Row(f"stage: {name}", "s", median(seconds), runs=runs) for name, seconds in stage_seconds(ours).items()),
    ]


def bare_seconds(evidence: dict[str, Any]) -> float:
    """Return the seconds of the two boots and the stop between them: what no recipe can do without."""
    return sum(part["seconds"] for part in every_part(evidence["stages"]) if part["name"] in {"boot", "stop"})


def stage_seconds(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the seconds of each stage and each named part, over all runs."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        for stage in run["stages"]:
            seconds.setdefault(stage["name"], []).append(stage["seconds"])
            for part in stage["parts"]:
                seconds.setdefault(f"{stage['name']} > {part['name']}", []).append(part["seconds"])
    return seconds


def every_part(stages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return stages and all of their parts."""
    return [found for stage in stages for found in (stage, *every_part(stage["parts"]))]
