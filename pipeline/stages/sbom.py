"""A part of the proofs: the bill of materials of the guest that is at hand, over the session that is open."""

from collections.abc import Callable

from pipeline.errors import GuestFailed
from pipeline.guest.packages import QUESTION, parse_packages
from pipeline.guest.root_shell import Output
from pipeline.report import sbom
from pipeline.stages.context import Context


def write_sbom(context: Context, run: Callable[[str], Output]) -> None:
    """Ask the guest for its packages, with one command as root, and write them into the build's folder.

    Raises GuestFailed when the guest has no package database: what is in the image would not be known.
    """
    with context.recorder.stage("packages"):
        output = run(QUESTION)
        if output.exit_status:
            raise GuestFailed(f"the package database cannot be read: {output.stderr.strip()[:500]}")
        evidence = context.recorder.evidence()
        bill = sbom.render_sbom(
            parse_packages(output.stdout),
            build_id=context.build_id,
            spec_name=context.spec.name,
            made=evidence.started,
        )
        context.recorder.save(sbom.FILE, bill)
