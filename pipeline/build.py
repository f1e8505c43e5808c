"""The recipe: how a base image becomes a proved, registered, shared image. Read `run_recipe` first."""

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from pipeline.attest import sign_build
from pipeline.attest_keys import open_signer
from pipeline.aws.session import Session
from pipeline.aws.tags import LIFETIME, Tags, new_build_id
from pipeline.errors import AssayError
from pipeline.interruption import interruptible
from pipeline.journal import Journal
from pipeline.options import OnError
from pipeline.recorder import Recorder
from pipeline.report.console import Console
from pipeline.report.evidence import Evidence, Layer
from pipeline.report.evidence_folder import reasons_unproved
from pipeline.spec import Spec, spec_digest
from pipeline.stages.clean_up import clean_up
from pipeline.stages.context import Context
from pipeline.stages.differences import record_differences
from pipeline.stages.harden import harden
from pipeline.stages.launch import launch
from pipeline.stages.prove import prove_live, prove_sealed
from pipeline.stages.release import keep, release
from pipeline.stages.scrub import scrub
from pipeline.stages.seal import seal


def run_recipe(context: Context) -> None:
    """Perform the stages in order. Each gets what the one before returned; the first error ends the build."""
    stage = context.recorder.stage
    with stage("launch"):
        launched = launch(context)
    with stage("harden"):
        hardened = harden(context, launched)
    with context.start_checks(Layer.LIVE) as checks:
        with stage("scrub"):
            scrubbed = scrub(context, hardened)
        with stage("prove live"):
            scrubbed = prove_live(context, checks, scrubbed)
    with stage("seal"):
        sealed = seal(context, scrubbed)
    with stage("prove raw and fresh boot"):
        proved = prove_sealed(context, sealed)
    with stage("keep"):
        proved = keep(context, proved)
    with stage("release"):
        release(context, proved)


def build_image(
    spec: Spec,
    *,
    spec_path: Path,
    session: Session,
    builds: Path,
    console: Console,
    on_error: OnError = OnError.CLEANUP,
    update_base: bool = False,
) -> Evidence:
    """Build an image and return the evidence, which is also in `builds/<build-id>/`, after a failure too.

    Everything that was made and is not the image is removed at the end; after a failure, as `on_error` says. An error
    of the tree is in the evidence, with its exit status; only a defect of Assay itself is raised, and what is wrong
    with the signing key: before anything is made, or, as AttestationFailed, when the image is proved and kept already.
    """
    signer = open_signer(spec.attest, lambda: session)
    context = open_context(spec, spec_path, session, builds, console, update_base)
    evidence = conclude(context, console, lambda: run_recipe(context), on_error)
    if not reasons_unproved(evidence):
        sign_build(context.recorder.folder, signer)
    return evidence


def open_context(
    spec: Spec, spec_path: Path, session: Session, builds: Path, console: Console, update_base: bool = False
) -> Context:
    """Return the context of a new build: its id, its tags, its folder with a journal and a report."""
    started = datetime.now(UTC)
    build_id = new_build_id(started)
    tags = Tags(build_id, spec_digest(spec), session.caller_arn, started + LIFETIME, spec.image.own_tags)
    recorder = Recorder(
        builds / build_id,
        console,
        build_id=build_id,
        spec_name=spec.name,
        spec_digest=tags.spec_digest,
        region=session.region,
        started=started,
    )
    journal = Journal(builds / build_id / "journal.jsonl", build_id, session.cloud)
    recorder.take_resources(journal.resources)
    return Context(spec, spec_path, builds, session, tags, journal, recorder, update_base)


def conclude(
    context: Context, console: Console, recipe: Callable[[], None], on_error: OnError = OnError.CLEANUP
) -> Evidence:
    """Run a recipe, remove what it made and did not keep, and return the evidence. Raises only a defect of Assay."""
    with context.journal:
        problem = attempt(recipe)
        if problem and not wants_cleanup(console, on_error):
            console.notice("kept: everything that was made; `invoke sweep` removes it")
        else:
            clean_up(context)
        record_differences(context)
        evidence = context.recorder.finish(problem)
    if problem and not isinstance(problem, AssayError | KeyboardInterrupt):
        raise problem
    return evidence


def attempt(recipe: Callable[[], None]) -> BaseException | None:
    """Run a recipe and return what ended it, if anything did."""
    try:
        with interruptible():
            recipe()
    except BaseException as error:
        return error
    return None


def wants_cleanup(console: Console, on_error: OnError) -> bool:
    """Return whether a failed build is to be removed; ask when the user wants to be asked."""
    if on_error is OnError.ASK:
        choices = (OnError.CLEANUP.value, OnError.KEEP.value)
        return console.ask("the build failed; what becomes of what it made?", choices, "cleanup") == OnError.CLEANUP
    return on_error is OnError.CLEANUP
