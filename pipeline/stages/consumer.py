"""Part of stage 7: who launches the image. Another account, where the spec names one, with only what was shared."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from pipeline.aws.images import Image
from pipeline.aws.launch_permissions import (
    LaunchPermissions,
    grant_launch,
    read_launch_permissions,
    take_back_launch,
)
from pipeline.errors import AssayError
from pipeline.journal import Journal
from pipeline.report.evidence import Layer, Leak, Result, Status
from pipeline.stages.context import Context
from pipeline.stages.network import Door, open_door

JOURNAL = "journal-consumer.jsonl"


@contextmanager
def as_consumer(context: Context, image: Image, door: Door | None) -> Iterator[tuple[Context, Door]]:
    """Yield the context and the door of who launches the image: the builder, or another account that the spec names.

    `door` is the builder's, None where there is none yet. An image of the builder's is shared with the other account
    for as long as this lasts; the release grants anew what the spec declares. All that is made there is removed at the
    end. Raises CredentialsRefused and CloudFailed.
    """
    wanted = context.spec.prove.consumer
    if wanted is None:
        yield context, door or open_door(context)
        return
    session = context.session.as_role(wanted.role_arn, wanted.external_id)
    network = {"subnet_id": wanted.subnet_id, "security_group_ids": ()}
    spec = context.spec.model_copy(update={"network": context.spec.network.model_copy(update=network)})
    path = context.recorder.folder / JOURNAL
    with shared(context, image, session.account_id), Journal(path, context.build_id, session.cloud) as journal:
        context.recorder.take_resources(lambda: (*context.journal.resources(), *journal.resources()))
        theirs = replace(context, session=session, spec=spec, journal=journal)
        try:
            yield theirs, open_door(theirs)
        finally:
            context.recorder.leak(*journal.undo_all())


@contextmanager
def shared(context: Context, image: Image, account_id: str) -> Iterator[None]:
    """Let an account launch an image of the builder's, see that nobody else may, and take it back at the end (A10).

    What cannot be taken back is a leak: nothing is shared that was not proved.
    """
    if image.owner_id != context.session.account_id:
        yield
        return
    before = read_launch_permissions(context.session, image.image_id)
    granted = LaunchPermissions(accounts=frozenset({account_id})).without(before)
    try:
        grant_launch(context.session, image.image_id, granted)
        found = read_launch_permissions(context.session, image.image_id)
        context.recorder.add(shared_alone(account_id, found.without(before) == granted))
        yield
    finally:
        try:
            take_back_launch(context.session, image.image_id, granted)
        except AssayError as error:
            context.recorder.leak(
                Leak(kind="launch-permission", identity=image.image_id, region=context.region, reason=str(error))
            )


def shared_alone(account_id: str, alone: bool) -> Result:
    """Return the result for the account that launches the image: it was shared with nobody else."""
    return Result(
        controls=("A10",),
        layer=Layer.AWS,
        status=Status.PASS if alone else Status.FAIL,
        title=f"for its proof, the image is shared with {account_id} and nobody else",
        source="stages/consumer",
        detail="" if alone else "other permissions were read back",
    )
