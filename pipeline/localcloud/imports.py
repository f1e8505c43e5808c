"""ImportSnapshot: a disk image in an S3 bucket of this cloud becomes a snapshot."""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

import json
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from moto.core.responses import ActionResult
from moto.moto_api._internal import mock_random
from moto.s3.models import s3_backends

from pipeline.localcloud.backend import LocalHandlers
from pipeline.localcloud.listing import passes
from pipeline.localcloud.refusals import Refused
from pipeline.localcloud.volumes import VolumeBackend

FORMATS = {"raw": "raw", "vhd": "vpc", "vhdx": "vhdx", "vmdk": "vmdk"}
CHUNK = 1 << 20
GIB = 1 << 30


class ImportBackend(VolumeBackend):
    """The import tasks of one account in one region."""

    def __init__(self, region_name: str, account_id: str) -> None:
        self.import_tasks: dict[str, dict[str, Any]] = {}
        super().__init__(region_name, account_id)

    def start_import(self, params: Any, tags: dict[str, str]) -> dict[str, Any]:
        """Begin to import a disk and return the task."""
        self.cloud.check_room()
        container = params.get("DiskContainer") or {}
        bucket, key = source_of(container)
        disk_format = str(container.get("Format") or "raw").lower()
        if disk_format not in FORMATS:
            raise Refused("InvalidParameter", f"The disk format {disk_format} is unknown")
        content = self.read_object(bucket, key)
        task_id = f"import-snap-{mock_random.get_random_hex(17)}"
        detail = {
            "Description": params.get("Description") or "",
            "Format": disk_format.upper(),
            "DiskImageSize": float(content.tell()),
            "Progress": "3",
            "Status": "active",
            "StatusMessage": "pending",
            "UserBucket": {"S3Bucket": bucket, "S3Key": key},
        }
        task = {"ImportTaskId": task_id, "Description": detail["Description"], "SnapshotTaskDetail": detail}
        self.import_tasks[task_id] = task
        self.create_tags([task_id], tags)
        self.cloud.later(lambda: self.finish_import(task_id, content, disk_format))
        return task

    def read_object(self, bucket: str, key: str) -> Any:
        """Return a file with the content of an S3 object, at its end."""
        try:
            found = s3_backends[self.account_id][self.partition].get_object(bucket, key)
        except Exception as error:
            raise Refused("InvalidParameter", f"The bucket {bucket} can't be read: {error}") from error
        if found is None:
            raise Refused("InvalidParameter", f"There is no object {key} in the bucket {bucket}")
        copy = tempfile.TemporaryFile(dir=self.cloud.home)  # noqa: SIM115 -- read later, by the import
        copy.write(found.value)
        return copy

    def finish_import(self, task_id: str, content: Any, disk_format: str) -> None:
        """Make the snapshot; what the disk says of itself decides its size."""
        detail = self.import_tasks[task_id]["SnapshotTaskDetail"]
        try:
            with content, tempfile.TemporaryDirectory(dir=self.cloud.home) as folder:
                raw = write_raw(content, disk_format, Path(folder))
                size_gib = max(1, -(-raw.stat().st_size // GIB))
                with self.cloud.changing():
                    comment = f"Created by AWS-VMImport service for {task_id}"
                    snapshot = self.new_snapshot(volume_id="vol-ffffffff", volume_size=size_gib, description=comment)
                self.machines.disks.import_snapshot(snapshot.id, raw, size_gib)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            with self.cloud.changing():
                detail.update(Status="deleted", StatusMessage=f"ClientError: {error}")
            return
        with self.cloud.changing():
            snapshot.status = "completed"
            detail.update(Status="completed", SnapshotId=snapshot.id, Progress="100")
            detail.pop("StatusMessage", None)


def source_of(container: dict[str, Any]) -> tuple[str, str]:
    """Return the bucket and the key of a disk container."""
    bucket = container.get("UserBucket") or {}
    if bucket.get("S3Bucket") and bucket.get("S3Key"):
        return bucket["S3Bucket"], bucket["S3Key"]
    url = urlsplit(container.get("Url") or "")
    if url.scheme == "s3":
        return url.netloc, url.path.lstrip("/")
    raise Refused("MissingParameter", "The request must contain a UserBucket, or a Url that begins with s3://")


def write_raw(content: Any, disk_format: str, folder: Path) -> Path:
    """Write the disk as a raw, sparse file and return its path."""
    content.seek(0)
    given = folder / f"disk.{disk_format}"
    with given.open("wb") as file:
        while chunk := content.read(CHUNK):
            if chunk.strip(b"\0"):
                file.write(chunk)
            else:
                file.seek(len(chunk), 1)
        file.truncate()
    if disk_format == "raw":
        return given
    raw = folder / "disk.img"
    kind = FORMATS[disk_format]
    information = subprocess.run(
        ["qemu-img", "info", "-f", kind, "--output=json", given], check=True, capture_output=True, text=True
    )
    if "backing-filename" in json.loads(information.stdout):
        raise ValueError("a disk with a backing file can't be imported")
    command = ["qemu-img", "convert", "-f", kind, "-O", "raw", str(given), str(raw)]
    subprocess.run(command, check=True, capture_output=True)
    return raw


class ImportHandlers(LocalHandlers):
    """Answers ImportSnapshot and its tasks."""

    @property
    def backend(self) -> ImportBackend:
        """The caller's account in the request's region."""
        return self.ec2_backend  # type: ignore[no-any-return]

    def import_snapshot(self) -> ActionResult:
        """ImportSnapshot."""
        return ActionResult(self.backend.start_import(self.params, self.tags_for("import-snapshot-task")))

    def describe_import_snapshot_tasks(self) -> ActionResult:
        """DescribeImportSnapshotTasks."""
        wanted = self.params.get("ImportTaskIds") or list(self.backend.import_tasks)
        unknown = [task_id for task_id in wanted if task_id not in self.backend.import_tasks]
        if unknown:
            raise Refused("InvalidConversionTaskId.Malformed", f"The import task {unknown[0]} does not exist")
        tags = {task_id: self.backend.tags.get(task_id, {}) for task_id in wanted}
        tasks = [
            {
                **self.backend.import_tasks[task_id],
                "Tags": [{"Key": key, "Value": value} for key, value in tags[task_id].items()],
            }
            for task_id in wanted
            if passes(self.filters(), task_id, {}, tags[task_id])
        ]
        return ActionResult({"ImportSnapshotTasks": tasks})
