"""Stage 5: power the guest off, snapshot its volume, register the image with all of its attributes."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from pipeline.aws import images, instances, snapshots
from pipeline.aws.images import ExtraVolume, Image, Registration
from pipeline.errors import DeadlinePassed
from pipeline.report import evidence
from pipeline.report.evidence import Result
from pipeline.scrub import power_off_command
from pipeline.spec import Spec
from pipeline.stages.attributes import compare
from pipeline.stages.context import Context
from pipeline.stages.launch import Launched
from pipeline.stages.rewrite import is_rewritten, rewrite_snapshot
from pipeline.stages.scrub import Scrubbed

POWER_OFF_SECONDS = 120.0


@dataclass(frozen=True)
class Sealed:
    """The image, not yet proved, private to the account."""

    launched: Launched
    image: Image

    @property
    def root_snapshot_id(self) -> str:
        """The snapshot of the root disk."""
        return self.image.snapshot_ids[0]


def seal(context: Context, scrubbed: Scrubbed) -> Sealed:
    """Stop the guest, wait until it is stopped (A08), and make the image. Raises CloudFailed, DeadlinePassed."""
    launched = scrubbed.launched
    with context.recorder.stage("stop"):
        stop_guest(context, launched)
    with context.recorder.stage("image"):
        image = make_image(context, launched)
    context.recorder.set_image(
        evidence.Image(image_id=image.image_id, name=image.name, region=context.region, snapshot_ids=image.snapshot_ids)
    )
    context.recorder.add(*attribute_results(image, launched.base, context.spec))
    return Sealed(launched, image)


def stop_guest(context: Context, launched: Launched) -> None:
    """Let the guest power itself off as its last act; ask the cloud to stop it when it does not."""
    instance_id = launched.guest.instance.instance_id
    launched.guest.shell.start_and_leave(power_off_command(launched.facts))
    launched.guest.shell.close()
    try:
        instances.wait_stopped(
            context.session,
            instance_id,
            deadline_seconds=POWER_OFF_SECONDS,
            progress=context.recorder.progress,
        )
    except DeadlinePassed:
        context.recorder.notice("the guest does not power itself off: stopping it")
        instances.stop_instance(context.session, instance_id, progress=context.recorder.progress)


def make_image(context: Context, launched: Launched) -> Image:
    """Return the available image. One with product codes is made from the instance: only that keeps them."""
    image_name = context.spec.image_name(context.build_id, datetime.now(UTC).date())
    inherit = images.must_inherit(launched.base)
    image_id = create_image(context, launched, image_name) if inherit else register_image(context, launched, image_name)
    image = images.wait_for_image(context.session, image_id, progress=context.recorder.progress)
    if inherit and context.spec.image.imds == "v2.0":
        images.require_imds_v2(context.session, image_id)
        image = images.describe_image(context.session, image_id)
    return image


def create_image(context: Context, launched: Launched, image_name: str) -> str:
    """Make the image of the stopped instance, with its snapshots, and return its id."""
    name = context.name("image")
    return context.journal.create(
        "image",
        name,
        context.region,
        make=lambda: images.create_image(
            context.session,
            context.tags,
            name,
            instance_id=launched.guest.instance.instance_id,
            image_name=image_name,
            description=context.spec.image.description,
        ),
        undo=lambda identity: images.deregister_image(context.session, identity),
    )


def register_image(context: Context, launched: Launched, image_name: str) -> str:
    """Snapshot the root volume, register an image over it, and return the image's id."""
    snapshot_name, name = context.name("root"), context.name("image")
    volume_id = launched.guest.instance.root_volume_id or ""
    snapshot_id = context.journal.create(
        "snapshot",
        snapshot_name,
        context.region,
        make=lambda: snapshots.create_snapshot(context.session, context.tags, snapshot_name, volume_id, image_name),
        undo=lambda identity: snapshots.delete_snapshot(context.session, identity),
    )
    snapshots.wait_for_snapshot(context.session, snapshot_id, progress=context.recorder.progress)
    if is_rewritten(context.spec, launched):
        with context.recorder.stage("rewrite"):
            snapshot_id = rewrite_snapshot(context, snapshot_id, image_name)
    registration = register_as(context.spec, launched.base, image_name, snapshot_id)
    return context.journal.create(
        "image",
        name,
        context.region,
        make=lambda: images.register_image(context.session, context.tags, name, registration),
        undo=lambda identity: images.deregister_image(context.session, identity),
    )


def register_as(spec: Spec, base: Image, image_name: str, snapshot_id: str) -> Registration:
    """Return what RegisterImage is told: as the base image, but for what the spec says."""
    like_base = images.registration_like(
        base, name=image_name, description=spec.image.description, root_snapshot_id=snapshot_id
    )
    root = next((disk for disk in spec.image.block_devices if disk.device_name == base.root_device_name), None)
    extra = (disk for disk in spec.image.block_devices if disk.device_name != base.root_device_name)
    return replace(
        like_base,
        root_size_gib=root.size_gib if root else like_base.root_size_gib,
        root_type=root.type if root else like_base.root_type,
        extra_volumes=tuple(ExtraVolume(disk.device_name, disk.size_gib, disk.type) for disk in extra),
        boot_mode=spec.image.boot_mode or like_base.boot_mode,
        imds=spec.image.imds,
    )


def attribute_results(image: Image, base: Image, spec: Spec) -> Iterator[Result]:
    """Compare what the image says of itself with what was asked for (A08, A12, H31)."""
    wanted_imds = "v2.0" if spec.image.imds == "v2.0" else ""
    wanted_disks = {base.root_device_name, *(disk.device_name for disk in spec.image.block_devices)}
    found_disks = {disk.device_name for disk in image.block_devices}
    codes, carried = sorted(spec.share.product_codes), sorted(image.product_codes)
    unencrypted = [disk.device_name for disk in image.block_devices if not disk.encrypted]
    comparisons = (
        ("A12", "every launch requires IMDSv2", wanted_imds, image.imds),
        ("A12", "the boot mode is as asked", spec.image.boot_mode or base.boot_mode, image.boot_mode),
        ("A12", "the architecture is as asked", spec.image.architecture, image.architecture),
        ("A12", "ENA support is as in the base image", base.ena, image.ena),
        ("A12", "no disk but those of the spec", sorted(wanted_disks), sorted(found_disks)),
        ("A12", "no instance store is mapped", [], [d.device_name for d in image.block_devices if d.virtual_name]),
        ("A12", "every disk ends with its instance", True, all(d.delete_on_termination for d in image.block_devices)),
        ("A08", "the description is set", spec.image.description, image.description),
        ("A10", "nobody else may launch it yet", False, image.public),
        *([("A12", "every disk is encrypted", [], unencrypted)] if spec.image.encryption else []),
        *(
            [("H31", "it carries the codes that its guard asks for", codes, carried)]
            if spec.harden.product_guard
            else []
        ),
    )
    return compare(comparisons, "stages/seal")
