"""Base images in the cloud: owned by their publisher's account, in every used region, with their SSM parameters.

An image's id comes from its content and the region, so it is the same after a reset.
"""

import datetime
import hashlib
from pathlib import Path

from moto.ec2.models import ec2_backends

from pipeline.localcloud.backend import public_parameters
from pipeline.localcloud.base_image import BaseImage
from pipeline.localcloud.cloud import Cloud
from pipeline.localcloud.control_plane import LocalBackend, of_account
from pipeline.localcloud.distributions import DISTRIBUTIONS
from pipeline.localcloud.images import Image
from pipeline.localcloud.volumes import Snapshot

FAKE_SIZE_GIB = 1
FAKE_BLOCKS = {0: b"boot", 3: b"one", 4: b"two", 100: b"far away"}


def make_fake_base(directory: Path) -> BaseImage:
    """Make a disk that boots nothing and has a few blocks, for fake guests."""
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "fake-debian-12.raw"
    if not path.exists():
        with path.open("wb") as file:
            for index, content in FAKE_BLOCKS.items():
                file.seek(index * 524288)
                file.write(content * 1000)
            file.truncate(FAKE_SIZE_GIB << 30)
    name, bookworm = "debian-12-amd64-20260101-1", DISTRIBUTIONS["bookworm"]
    return BaseImage(path, name, "Debian 12 (fake)", FAKE_SIZE_GIB, "x86_64", "uefi-preferred", bookworm)


def seed_images(cloud: Cloud, bases: list[BaseImage]) -> None:
    """Register the base images in a region when it is used for the first time, now and later."""
    seeded: set[str] = set()

    def seed(region: str) -> None:
        if region in seeded or region not in ec2_backends[bases[0].distribution.owner_id]:
            return
        seeded.add(region)
        for base in bases:
            register_base(of_account(base.distribution.owner_id, region), base)
        cloud.save()

    cloud.seed = seed


def stable_id(prefix: str, base: BaseImage, region: str) -> str:
    """Return an id that depends on the image's content and the region only."""
    return f"{prefix}-{hashlib.sha256(f'{base.path.name} {region}'.encode()).hexdigest()[:17]}"


def register_base(backend: LocalBackend, base: BaseImage) -> None:
    """Register one base image in one region, and publish its parameters."""
    region, cloud = backend.region_name, backend.cloud
    image_id, snapshot_id = stable_id("ami", base, region), stable_id("snap", base, region)
    with cloud.lock:
        if image_id not in backend.images:
            withdraw(backend, base.name)
            if snapshot_id not in cloud.machines.disks.snapshot_ids():
                cloud.machines.disks.import_snapshot(snapshot_id, base.path, base.size_gib)
            made = datetime.datetime.fromtimestamp(int(base.path.stat().st_mtime), datetime.UTC).replace(tzinfo=None)
            backend.own_snapshots[snapshot_id] = Snapshot(
                id=snapshot_id,
                owner_id=base.distribution.owner_id,
                volume_id="vol-ffffffff",
                volume_size=base.size_gib,
                lineage=snapshot_id,
                description=base.description,
                status="completed",
                start_time=made,
            )
            backend.images[image_id] = base_record(base, image_id, snapshot_id, region, made)
        for parameter in base.distribution.parameters:
            public_parameters.setdefault(region, {})[parameter] = image_id


def withdraw(backend: LocalBackend, name: str) -> None:
    """Take away an image of the same name with another content: made of another recipe on the same day."""
    for image in [image for image in backend.images.values() if image.name == name]:
        del backend.images[image.id]
        for snapshot_id in image.snapshot_ids:
            backend.remove_snapshot(snapshot_id)


def base_record(base: BaseImage, image_id: str, snapshot_id: str, region: str, made: datetime.datetime) -> Image:
    """Return the image as its publisher registers it: public, and usable by everybody, its snapshot too."""
    ebs = {
        "SnapshotId": snapshot_id,
        "VolumeSize": base.size_gib,
        "VolumeType": "gp3",
        "DeleteOnTermination": True,
        "Encrypted": False,
    }
    return Image(
        id=image_id,
        name=base.name,
        owner_id=base.distribution.owner_id,
        region=region,
        description=base.description,
        state="available",
        architecture=base.architecture,
        boot_mode=base.boot_mode,
        root_device_name=base.distribution.root_device_name,
        mappings=[{"DeviceName": base.distribution.root_device_name, "Ebs": ebs}],
        permissions=[{"Group": "all"}],
        creation_date=made,
    )
