"""The local cloud's disks: volumes that are written, over chains of layers that are not, shared and counted.

A volume is one qcow2 file. To snapshot it, its file is frozen into a layer and an empty file on top becomes the volume:
that takes no time and no space, of a running guest too. A copied snapshot is one more name for the same layer. A file
goes when nothing refers to it. `index.json` says what refers to what; it is replaced atomically, so a restart, or a
crash, finds the state before or after a change and never between.

EBS direct reads a snapshot through one flat sparse file, made at the first read; a block exists where that has data. A
snapshot that is written as another one's child begins with that one's flat file, which is made again when it is needed.
"""

import errno
import functools
import json
import os
import secrets
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

BLOCK_SIZE = 524288
GIB = 2**30
FLAT_FILES_KEPT = 4
DEADLINE_SECONDS = 900.0

Rest = ParamSpec("Rest")
Returned = TypeVar("Returned")
Index = dict[str, dict[str, dict[str, Any]]]


class DiskFailed(OSError):
    """qemu-img failed; errno is ENOSPC when the host's disk is full."""


class LiveGuest(Protocol):
    """What a live snapshot needs of a running guest."""

    def switch_overlay(self, volume_id: str, overlay: Path) -> None:
        """Write to the overlay from now on; the file until now is its backing file and is not written any more."""


def locked(
    method: Callable[Concatenate["DiskStore", Rest], Returned],
) -> Callable[Concatenate["DiskStore", Rest], Returned]:
    """Let one thread at a time into the methods that change or read the index."""

    @functools.wraps(method)
    def enter(self: "DiskStore", /, *arguments: Rest.args, **options: Rest.kwargs) -> Returned:
        with self._lock:
            return method(self, *arguments, **options)

    return enter


class DiskStore:
    """Volumes and snapshots below one directory. Thread safe; survives a restart; one process at a time.

    Unknown ids raise KeyError, sizes that do not fit ValueError, and a full disk OSError with ENOSPC.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self._files, self._flat = root / "files", root / "flat"
        for directory in (self._files, self._flat):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._index_path = root / "index.json"
        self._lock = threading.RLock()
        self._flatten_lock = threading.Lock()
        self._reading = threading.RLock()
        """Held while a flat file is read, is dropped, or becomes a child's; taken after the other locks."""
        self._index: Index = {"files": {}, "volumes": {}, "snapshots": {}}
        if self._index_path.exists():
            self._index = json.loads(self._index_path.read_text())
        self.collect()

    @locked
    def create_volume(self, volume_id: str, size_gib: int, snapshot_id: str | None) -> None:
        """Make a volume of so many GiB, empty or with a snapshot's content."""
        backing = None
        if snapshot_id is not None:
            backing = self._completed(snapshot_id)["file"]
            if size_gib < self.snapshot_size_gib(snapshot_id):
                raise ValueError(f"{size_gib} GiB is smaller than snapshot {snapshot_id}")
        name = self._make_overlay(backing, size_gib)
        self._index["volumes"][volume_id] = {"file": name, "size_gib": size_gib}
        self._save()

    @locked
    def delete_volume(self, volume_id: str) -> None:
        """Forget the volume and free what only it held."""
        del self._index["volumes"][volume_id]
        self._save()
        self.collect()

    @locked
    def volume_path(self, volume_id: str) -> Path:
        """Return the file that QEMU opens. Every snapshot changes it: ask again before each start."""
        return self._files / str(self._index["volumes"][volume_id]["file"])

    @locked
    def volume_ids(self) -> set[str]:
        """Return the ids of all volumes."""
        return set(self._index["volumes"])

    @locked
    def snapshot_ids(self) -> set[str]:
        """Return the ids of all snapshots, pending ones too."""
        return set(self._index["snapshots"])

    @locked
    def snapshot_volume(self, volume_id: str, snapshot_id: str, guest: LiveGuest | None) -> None:
        """Freeze the volume's content as a snapshot: through the running guest that has it open, or cold with None."""
        volume = self._index["volumes"][volume_id]
        frozen, size_gib = volume["file"], volume["size_gib"]
        overlay = self._make_overlay(frozen, size_gib)
        if guest is not None:
            guest.switch_overlay(volume_id, self._files / overlay)
        (self._files / frozen).chmod(0o400)
        volume["file"] = overlay
        self._index["snapshots"][snapshot_id] = {"file": frozen, "size_gib": size_gib, "completed": True}
        self._save()

    @locked
    def import_snapshot(self, snapshot_id: str, raw: Path, size_gib: int) -> None:
        """Make a snapshot of a raw image. The file may be shared with the snapshot: it must not be written any more."""
        if raw.stat().st_size > size_gib * GIB:
            raise ValueError(f"{raw} is larger than {size_gib} GiB")
        name = f"{secrets.token_hex(8)}.raw"
        link_or_copy(raw, self._files / name, size_gib * GIB)
        self._index["files"][name] = {"backing": None}
        self._index["snapshots"][snapshot_id] = {"file": name, "size_gib": size_gib, "completed": True}
        self._save()

    @locked
    def copy_snapshot(self, source_id: str, target_id: str) -> None:
        """Give the source's content a second name. Takes no space."""
        self._index["snapshots"][target_id] = dict(self._completed(source_id))
        self._save()

    @locked
    def delete_snapshot(self, snapshot_id: str) -> None:
        """Forget the snapshot, pending or complete, and free what only it held."""
        del self._index["snapshots"][snapshot_id]
        self._save()
        self.collect()

    @locked
    def snapshot_size_gib(self, snapshot_id: str) -> int:
        """Return the size in GiB of a volume that is made from the snapshot without a size."""
        return int(self._index["snapshots"][snapshot_id]["size_gib"])

    def list_blocks(self, snapshot_id: str) -> list[int]:
        """Return the indices of the 512 KiB blocks that hold data, ascending."""
        with self._flat_file(snapshot_id) as flat:
            return list(blocks_with_data(flat))

    def read_block(self, snapshot_id: str, index: int) -> bytes:
        """Return one block of 512 KiB; zeros where nothing was written. Raises ValueError beyond the end."""
        if not 0 <= index * BLOCK_SIZE < self.snapshot_size_gib(snapshot_id) * GIB:
            raise ValueError(f"{snapshot_id} has no block {index}")
        return self._content(snapshot_id, index)

    def _content(self, snapshot_id: str, index: int) -> bytes:
        """Return 512 KiB of a snapshot; zeros beyond its end too."""
        with self._flat_file(snapshot_id) as flat:
            return read_blocks(flat, index)

    def changed_blocks(self, first_id: str, second_id: str) -> list[int]:
        """Return the indices of the blocks that differ, those that only one of the two has among them."""
        candidates = sorted({*self.list_blocks(first_id), *self.list_blocks(second_id)})
        return [index for index in candidates if self._content(first_id, index) != self._content(second_id, index)]

    def start_snapshot(self, snapshot_id: str, size_gib: int, parent_id: str | None) -> None:
        """Begin a snapshot that is written block by block, empty or with a parent's content."""
        name = f"{secrets.token_hex(8)}.raw"
        if parent_id is not None:
            if self.snapshot_size_gib(parent_id) > size_gib:
                raise ValueError(f"{size_gib} GiB is smaller than snapshot {parent_id}")
            self._flatten(parent_id)  # here, as it may take long, and the index is locked below
        with self._lock:
            if parent_id is None:
                (self._files / name).touch(mode=0o600)
                os.truncate(self._files / name, size_gib * GIB)
            else:
                self._inherit(parent_id, self._files / name, size_gib * GIB)
            self._index["files"][name] = {"backing": None}
            self._index["snapshots"][snapshot_id] = {"file": name, "size_gib": size_gib, "completed": False}
            self._save()

    def _inherit(self, parent_id: str, target: Path, size: int) -> None:
        """Make a raw file with a snapshot's content, to be written: its flat file where that is no layer itself."""
        with self._flat_file(parent_id) as flat:
            if flat.parent == self._flat:
                flat.rename(target)
                os.truncate(target, size)
            else:
                copy_sparse(flat, target, size)

    def put_block(self, snapshot_id: str, index: int, data: bytes) -> None:
        """Write one block of a snapshot that is not complete. Raises ValueError for a wrong size, index or state."""
        with self._lock:
            snapshot = self._index["snapshots"][snapshot_id]
        if snapshot["completed"]:
            raise ValueError(f"{snapshot_id} is complete")
        if len(data) != BLOCK_SIZE or not 0 <= index * BLOCK_SIZE < snapshot["size_gib"] * GIB:
            raise ValueError(f"block {index} of {len(data)} bytes does not fit {snapshot_id}")
        with (self._files / snapshot["file"]).open("r+b", buffering=0) as file:
            os.pwrite(file.fileno(), data, index * BLOCK_SIZE)

    @locked
    def complete_snapshot(self, snapshot_id: str) -> None:
        """End the writing: from now on the snapshot can be read, copied and made into volumes."""
        snapshot = self._index["snapshots"][snapshot_id]
        (self._files / snapshot["file"]).chmod(0o400)
        snapshot["completed"] = True
        self._save()

    @locked
    def collect(self) -> int:
        """Delete every file that no volume and no snapshot needs; return the bytes that this freed."""
        needed: set[str | None] = set()
        for holder in (*self._index["volumes"].values(), *self._index["snapshots"].values()):
            name: str | None = holder["file"]
            while name is not None and name not in needed:
                needed.add(name)
                name = self._index["files"][name]["backing"]
        freed = 0
        for path in self._files.iterdir():
            if path.name not in needed:
                freed += path.stat().st_blocks * 512
                path.unlink()
        flat_of_needed = {Path(name).stem for name in needed if name}
        with self._reading:
            for path in self._flat.iterdir():
                if path.stem not in flat_of_needed:
                    freed += path.stat().st_blocks * 512
                    path.unlink()
        self._index["files"] = {name: file for name, file in self._index["files"].items() if name in needed}
        self._save()
        return freed

    def _completed(self, snapshot_id: str) -> dict[str, Any]:
        snapshot = self._index["snapshots"][snapshot_id]
        if not snapshot["completed"]:
            raise ValueError(f"{snapshot_id} is not complete")
        return snapshot

    def _make_overlay(self, backing: str | None, size_gib: int) -> str:
        """Make an empty qcow2 file over another one; names are relative, so that the directory can be moved."""
        name = f"{secrets.token_hex(8)}.qcow2"
        chain = ["-u", "-b", backing, "-F", Path(backing).suffix[1:]] if backing else []
        run_qemu_img("create", "-q", "-f", "qcow2", *chain, str(self._files / name), f"{size_gib}G")
        self._index["files"][name] = {"backing": backing}
        return name

    @contextmanager
    def _flat_file(self, snapshot_id: str) -> Iterator[Path]:
        """Give a raw file with the snapshot's whole content, which stays as it is until it is given back."""
        while True:
            flat = self._flatten(snapshot_id)
            with self._reading:
                if flat.exists():
                    yield flat
                    return

    def _flatten(self, snapshot_id: str) -> Path:
        """Return a raw file with the snapshot's whole content; raw layers are their own."""
        with self._lock:
            snapshot = self._completed(snapshot_id)
        name = str(snapshot["file"])
        if name.endswith(".raw"):
            return self._files / name
        flat = self._flat / f"{Path(name).stem}.raw"
        with self._flatten_lock:
            if not flat.exists():
                temporary = flat.with_suffix(".new")
                try:
                    # qemu-img would write the first sector of a file that it makes itself, zeros or not.
                    temporary.touch(mode=0o600)
                    os.truncate(temporary, snapshot["size_gib"] * GIB)
                    options = ("-q", "-U", "-n", "--target-is-zero", "-O", "raw")
                    run_qemu_img("convert", *options, str(self._files / name), str(temporary))
                    temporary.rename(flat)
                finally:
                    temporary.unlink(missing_ok=True)
                self._drop_old_flat_files(flat)
        return flat

    def _drop_old_flat_files(self, newest: Path) -> None:
        """Keep the few that were made last; the others are made again when somebody reads them."""
        with self._reading:
            made = sorted(self._flat.glob("*.raw"), key=lambda path: path.stat().st_mtime_ns)
            for path in made[:-FLAT_FILES_KEPT]:
                if path != newest:
                    path.unlink(missing_ok=True)

    def _save(self) -> None:
        temporary = self._index_path.with_suffix(".new")
        with temporary.open("w") as file:
            json.dump(self._index, file, indent=1)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(self._index_path)


def blocks_with_data(path: Path) -> Iterator[int]:
    """Yield the indices of the 512 KiB blocks in which a sparse file has data, ascending."""
    with path.open("rb") as file:
        size, position = file.seek(0, os.SEEK_END), 0
        while position < size:
            try:
                start = os.lseek(file.fileno(), position, os.SEEK_DATA)
            except OSError as error:
                if error.errno == errno.ENXIO:
                    return
                raise
            end = os.lseek(file.fileno(), start, os.SEEK_HOLE)
            last = (end - 1) // BLOCK_SIZE
            yield from range(max(start, position) // BLOCK_SIZE, last + 1)
            position = (last + 1) * BLOCK_SIZE


def read_blocks(path: Path, index: int) -> bytes:
    """Return the 512 KiB at the index, filled up with zeros beyond the file's end."""
    with path.open("rb", buffering=0) as file:
        return os.pread(file.fileno(), BLOCK_SIZE, index * BLOCK_SIZE).ljust(BLOCK_SIZE, b"\0")


def link_or_copy(source: Path, target: Path, size: int) -> None:
    """Share the file where that is possible (same size, same file system), and copy its data otherwise."""
    if source.stat().st_size == size:
        try:
            os.link(source, target)
            return
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP):
                raise
    copy_sparse(source, target, size)


def copy_sparse(source: Path, target: Path, size: int) -> None:
    """Copy a file's data and leave its holes; the copy is so many bytes long. A failed copy leaves nothing."""
    try:
        with source.open("rb", buffering=0) as reader, target.open("wb", buffering=0) as writer:
            os.truncate(writer.fileno(), size)
            for index in blocks_with_data(source):
                os.pwrite(
                    writer.fileno(), os.pread(reader.fileno(), BLOCK_SIZE, index * BLOCK_SIZE), index * BLOCK_SIZE
                )
    except OSError:
        target.unlink(missing_ok=True)
        raise


def run_qemu_img(*arguments: str) -> None:
    """Run qemu-img. Raises DiskFailed with what it said, with ENOSPC where the disk is full."""
    try:
        subprocess.run(["qemu-img", *arguments], check=True, capture_output=True, text=True, timeout=DEADLINE_SECONDS)
    except FileNotFoundError as error:
        raise DiskFailed(errno.ENOENT, "qemu-img is not installed (Debian: qemu-utils)") from error
    except subprocess.CalledProcessError as error:
        said = error.stderr.strip()
        full = "No space left" in said or "Disk quota exceeded" in said
        raise DiskFailed(errno.ENOSPC if full else errno.EIO, said or f"qemu-img {arguments[0]} failed") from error
