"""A build beside the bare boots that it contains, and beside Packer making the same AMI with the same steps.

    python -m tests.bench.build [RUNS]

Packer proves nothing: it boots once where a build boots twice. So its time stands beside that of the stages up to the
image, and beside the whole command.
"""

import json
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from rich.console import Console

from pipeline.errors import AssayError
from pipeline.guest.environment import PRELUDE
from pipeline.guest.step import Step, reveal
from pipeline.harden import harden_steps
from pipeline.harden.assumed_guest import assume_facts
from pipeline.report.render import failed_results, parse_json
from pipeline.scrub import scrub_steps
from pipeline.spec import load_spec
from tests.bench import draw_table, packer
from tests.bench.rows import Row
from tests.end_to_end import ROOT, cloud_client, cloud_status
from tests.workshop import Run, Workshop

SPEC = ROOT / "specs" / "debian-12-local.yaml"
RUNS = 3
DEADLINE_SECONDS = 1800
BOUND = "20"
IMAGE_STAGES = ("launch", "harden", "scrub", "seal")
"""What Packer does too."""


def measure(start_local_cloud: Callable[[], dict[str, str]], runs: int = RUNS) -> list[Row]:
    """Build with Assay and with Packer in turn, and return the rows. The base image is cached before the first run."""
    cloud = start_local_cloud()
    ours, theirs = [], []
    with TemporaryDirectory() as folder:
        for number in range(runs):
            ours.append(build_with_assay(Workshop(cloud, Path(folder))))
            if shutil.which("packer"):
                theirs.append(build_with_packer(cloud, ours[-1], Path(folder) / f"packer-{number}"))
    return rows(ours, theirs)


def build_with_assay(workshop: Workshop) -> dict[str, Any]:
    """Run `invoke build`, remove the image, and return the evidence with the seconds of the whole command."""
    started = time.monotonic()
    made = workshop.invoke("build", "--json")
    seconds = time.monotonic() - started
    if made.status:
        raise AssayError(f"the build under measurement ended with {made.status}: {reason(made)}")
    evidence: dict[str, Any] = json.loads(made.output)
    remove_image(workshop.cloud, evidence["region"], evidence["image"]["name"])
    return {**evidence, "seconds": seconds}


def reason(made: Run) -> str:
    """Return why a build failed: its error, or what it could not prove."""
    if not made.output.startswith("{"):
        return made.errors[-2000:]
    evidence = parse_json(made.output)
    failed = (f"{one.layer} {one.source}: {one.detail}" for one in failed_results(evidence))
    found = (f"{one.layer} {one.kind}: {one.place}" for one in evidence.findings)
    return "\n".join([evidence.error or "", *failed, *found])


def build_with_packer(cloud: dict[str, str], ours: dict[str, Any], folder: Path) -> float:
    """Let Packer make an AMI of the same base image with the same steps, remove it, and return the seconds."""
    folder.mkdir()
    spec = load_spec(SPEC)
    facts = assume_facts(spec)
    name = f"packer-{time.time_ns()}"
    template = packer.write_template(
        folder,
        endpoint=cloud["AWS_ENDPOINT_URL"],
        region=spec.region,
        name=name,
        source_ami=ours["base_image"]["image_id"],
        scripts=[
            write_script(folder / "harden.sh", harden_steps(facts, spec)),
            write_script(folder / "scrub.sh", scrub_steps(facts, spec)),
        ],
        ssh_port=cloud_status(cloud)["ssh_port"],
        ami_users=list(spec.share.accounts),
        snapshot_users=list(spec.share.accounts),
    )
    log = folder / "log"
    started = time.monotonic()
    made = packer.run(template, cloud, log, DEADLINE_SECONDS)
    seconds = time.monotonic() - started
    if made.returncode:
        raise AssayError(f"packer ended with {made.returncode}: {log.read_text()[-4000:]}")
    remove_image(cloud, spec.region, name)
    return seconds


def remove_image(cloud: dict[str, str], region: str, name: str) -> None:
    """Remove an image of ours and its snapshots."""
    ec2 = cloud_client(cloud, "ec2", region)
    (image,) = ec2.describe_images(Owners=["self"], Filters=[{"Name": "name", "Values": [name]}])["Images"]
    ec2.deregister_image(ImageId=image["ImageId"])
    for mapping in image["BlockDeviceMappings"]:
        ec2.delete_snapshot(SnapshotId=mapping["Ebs"]["SnapshotId"])


def write_script(path: Path, steps: tuple[Step, ...]) -> Path:
    """Write steps as a plain script, as somebody would for Packer: each test, and the action where it says no."""
    parts = [PRELUDE, "umask 022", "cd /"]
    for step in steps:
        # Never `if ( … )`: a condition switches `set -e` off inside of it.
        action = [f"( set -eu\n{reveal(step.action)}\n) </dev/null"]
        if not step.optional:
            action.append(f'[ $? -eq 0 ] || {{ echo "failed: {step.subject}" >&2; exit 1; }}')
        if step.test is not None:
            test = f"( set -eu\n{reveal(step.test)}\n) </dev/null >/dev/null 2>&1"
            action = [test, "if [ $? -ne 0 ]; then", *action, "fi"]
        parts += action
    path.write_text("\n".join(parts) + "\nexit 0\n")
    return path


def rows(ours: list[dict[str, Any]], theirs: list[float]) -> list[Row]:
    """Return the figures: the whole, its parts, and what the recipe adds to the boots."""
    peer, versions = ("packer build", f"packer {packer.version()}") if theirs else ("", "")
    packer_seconds = statistics.median(theirs) if theirs else None
    totals = [run["seconds"] for run in ours]
    images = [sum(stage["seconds"] for stage in run["stages"] if stage["name"] in IMAGE_STAGES) for run in ours]
    boots = [bare_seconds(run) for run in ours]
    shares = [100 * (total - boot) / total for total, boot in zip(totals, boots, strict=True)]
    median, runs = statistics.median, len(ours)
    return [
        Row("whole command", "s", median(totals), peer, packer_seconds, "", runs, versions),
        Row("the image without the proofs", "s", median(images), peer, packer_seconds, "", runs, versions),
        Row("boot + stop + boot", "s", median(boots), runs=runs),
        Row("own time, beyond boot + stop + boot", "%", median(shares), bound=BOUND, runs=runs),
        *(Row(name, "s", median(seconds), runs=runs) for name, seconds in stage_seconds(ours).items()),
    ]


def bare_seconds(evidence: dict[str, Any]) -> float:
    """Return the seconds of the two boots and the stop between them: what no recipe can do without."""
    return sum(float(part["seconds"]) for _, part in every_part(evidence["stages"]) if part["name"] in {"boot", "stop"})


def stage_seconds(runs: list[dict[str, Any]]) -> dict[str, list[float]]:
    """Return the seconds of each stage and each named part, over all runs."""
    seconds: dict[str, list[float]] = {}
    for run in runs:
        for path, stage in every_part(run["stages"]):
            seconds.setdefault(path, []).append(stage["seconds"])
    return seconds


def every_part(stages: list[dict[str, Any]], above: str = "stage: ") -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield stages and all of their parts, each with the names on the way to it."""
    for stage in stages:
        path = above + stage["name"]
        yield path, stage
        yield from every_part(stage["parts"], f"{path} > ")


def main(arguments: list[str]) -> None:
    """Measure, with as many runs as the command line says, and print the table."""
    from tasks import start_local_cloud

    found = measure(start_local_cloud, int(arguments[0]) if arguments else RUNS)
    Console(width=200).print(draw_table("build", found))


if __name__ == "__main__":
    main(sys.argv[1:])
