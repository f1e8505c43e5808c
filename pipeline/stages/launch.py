"""Stage 1: find the base image, open the door, launch the build guest, log in."""

import hashlib
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from pipeline.aws import base_images, images, snapshots
from pipeline.aws.instances import Instance, Launch, RootVolume
from pipeline.aws.session import Session
from pipeline.base_lock import Choice, LockedBase, choose_base, lock_path, read_lock, write_lock
from pipeline.errors import BaseImageRefused
from pipeline.guest.facts import Facts, gather_facts
from pipeline.guest.shell import Shell
from pipeline.preflight import look_ahead, require_ready
from pipeline.report.evidence import BaseImage
from pipeline.residue.secrets import AwsSession, build_secrets
from pipeline.spec import Spec
from pipeline.spec.public_keys import fingerprint
from pipeline.stages.context import Context
from pipeline.stages.gate import open_gate
from pipeline.stages.guests import Guest, boot_guest, make_key
from pipeline.stages.launch_proof import prove_host_key, prove_own_key, prove_what_it_was_given
from pipeline.stages.network import Door, open_door, prove_network

IDENTITY = "cat /etc/machine-id /proc/sys/kernel/random/boot_id"


@dataclass(frozen=True)
class Launched:
    """The build guest, ready to be hardened."""

    guest: Guest
    base: images.Image
    door: Door
    fresh_snapshot_id: str
    """S0: the volume as it was when the instance began to run, to tell later what the build changed."""
    facts: Facts
    machine_id: str
    boot_id: str


def launch(context: Context) -> Launched:
    """Return the build guest with a session open on it, under a pinned host key.

    Raises BaseImageRefused, PreflightFailed, CredentialsRefused, CapacityMissing, GuestUnreachable, HostKeyMismatch,
    GuestFailed.
    """
    base = choose_base_image(context)
    ask_ahead(context, base)
    door = open_door(context)
    key_pair = make_key(context, "key", context.spec.ssh.key_file)
    door = open_gate(context, door, base.image_id, key_pair, context.name("key"), context.spec.ssh.user)
    taken: list[str] = []
    guest = boot_guest(
        context,
        "instance",
        Launch(
            image_id=base.image_id,
            type=context.spec.instance.type,
            other_types=context.spec.instance.types,
            key_name=context.name("key"),
            security_group_ids=door.security_group_ids,
            subnet_ids=door.subnet_ids,
            public_address=context.spec.network.address == "public",
            user_data=marked_user_data(context.build_id),
            root_volume=root_volume(context.spec, base),
            profile=context.spec.instance.profile,
            protected=context.spec.instance.termination_protection,
            spot=context.spec.instance.spot,
        ),
        key_pair,
        context.spec.ssh.user,
        door,
        once_running=lambda instance: taken.append(snapshot_fresh_volume(context, instance)),
    )
    prove_network(context, door, guest.instance)
    record_launch(context, guest)
    machine_id, boot_id = read_identity(guest.shell)
    return Launched(guest, base, door, taken[0], gather_facts(guest.shell), machine_id, boot_id)


def record_launch(context: Context, guest: Guest) -> None:
    """Record what the launch proves: the keys on both sides, and that the guest was given no secret (A21, H22)."""
    key_file = context.spec.ssh.key_file
    context.recorder.add(prove_own_key(key_file), prove_host_key(guest))
    secrets = build_secrets(
        private_keys=guest.key_pair.private_half("the build's key"),
        aws_sessions=[AwsSession(*context.session.credentials)] if context.session.credentials else [],
    )
    context.recorder.add(*prove_what_it_was_given(context, guest, secrets))


def ask_ahead(context: Context, base: images.Image) -> None:
    """Ask whether the build and its release would go through (A20). Raises PreflightFailed before anything is made."""
    with context.recorder.stage("preflight"):
        image_name = context.spec.image_name(context.build_id, datetime.now(UTC).date())
        ahead = look_ahead(context.session, context.spec, base, context.tags, image_name)
        for unknown in require_ready(ahead):
            context.recorder.notice(f"not known before the build: {unknown}")


def choose_base_image(context: Context) -> images.Image:
    """Return the image to build on: the locked one, or the newest where there is no lock yet (A01).

    Raises BaseImageRefused when the image is another owner's, changed, or gone.
    """
    with context.recorder.stage("base image"):
        spec, path = context.spec, lock_path(context.spec_path, context.spec.cloud, context.builds)
        base, choice = find_base(context.session, spec, read_lock(path), update=context.update_base)
        if choice.change:
            context.recorder.notice(f"base image: {choice.change}")
        if choice.moves_lock:
            write_lock(path, choice.base)
        context.recorder.set_base_image(
            BaseImage(image_id=base.image_id, owner_id=base.owner_id, name=base.name, creation_date=base.creation_date)
        )
        return base


def find_base(
    session: Session, spec: Spec, locked: LockedBase | None, *, update: bool = False
) -> tuple[images.Image, Choice]:
    """Return the base image to build on, and how it relates to the lock. Raises BaseImageRefused."""
    newest = base_images.find_base_image(session, spec.base_image)
    still_there = newest if locked and locked.id == newest.image_id else locked_image(session, locked)
    choice = choose_base(
        locked,
        as_locked(newest),
        as_locked(still_there) if still_there else None,
        owner=base_owner(spec),
        update=update,
        cloud=spec.cloud,
    )
    chosen = newest if choice.base.id == newest.image_id or still_there is None else still_there
    base_images.check_base_image(session, chosen, base_owner(spec))
    return chosen, choice


def locked_image(session: Session, locked: LockedBase | None) -> images.Image | None:
    """Return the image that is locked, as the cloud knows it now; None when it is gone."""
    if locked is None:
        return None
    try:
        return base_images.image_by_id(session, locked.id)
    except BaseImageRefused:
        return None


def base_owner(spec: Spec) -> str:
    """Return whose image the base must be."""
    return spec.base_image.filter.owner if spec.base_image.filter else spec.base_image.owner or ""


def as_locked(image: images.Image) -> LockedBase:
    """Return an image as the lock describes it."""
    return LockedBase(id=image.image_id, owner=image.owner_id, name=image.name, creation_date=image.creation_date)


def root_volume(spec: Spec, base: images.Image) -> RootVolume | None:
    """Return what the spec says of the root disk; None leaves it as the base image has it."""
    wanted = next((disk for disk in spec.image.block_devices if disk.device_name == base.root_device_name), None)
    key = spec.image.encryption.kms_key_id if spec.image.encryption else None
    if not wanted and not key:
        return None
    return RootVolume(
        device_name=base.root_device_name,
        size_gib=wanted.size_gib if wanted else None,
        type=wanted.type if wanted else None,
        kms_key_id=key,
    )


def marked_user_data(build_id: str) -> str:
    """Return user-data without a secret (A21), with a mark that no later block of the image may show (S11)."""
    return f"#cloud-config\n# assay build {build_id} mark {secrets.token_urlsafe(24)}\npackage_update: false\n"


def snapshot_fresh_volume(context: Context, instance: Instance) -> str:
    """Start the snapshot S0 of the volume before the build changes it; nobody waits for it here."""
    name = context.name("fresh")
    volume_id = instance.root_volume_id or ""
    return context.journal.create(
        "snapshot",
        name,
        context.region,
        make=lambda: snapshots.create_snapshot(context.session, context.tags, name, volume_id, "before the build"),
        undo=lambda identity: snapshots.delete_snapshot(context.session, identity),
    )


def read_identity(shell: Shell) -> tuple[str, str]:
    """Return the machine id and the boot id of a guest."""
    lines = shell.run(IDENTITY).stdout.split()
    return (lines[0], lines[-1]) if len(lines) == 2 else ("", "")


def facts_of_build(launched: Launched | None) -> Mapping[str, str]:
    """Return what the checks compare a guest with; nothing for an image of somebody else."""
    if launched is None:
        return {}
    guest = launched.guest
    return {
        "build_public_key": guest.key_pair.public_openssh,
        "host_key_fingerprints": " ".join(fingerprint(line) for line in guest.host_keys),
        "machine_id": launched.machine_id,
        "user_data_sha256": hashlib.sha256(guest.user_data.encode()).hexdigest(),
        "boot_id": launched.boot_id,
        "instance_id": guest.instance.instance_id,
    }
