"""EBS direct: snapshots read and written block by block, over the real disks.

Paths, headers, limits and refusals are those of the EBS direct APIs reference: blocks of 512 KiB, SHA-256 in base64 for
each, tokens for blocks and pages, no public snapshots, only snapshots of one lineage compared.
"""

import base64
import datetime
import hashlib
import json
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote

from pipeline.localcloud.control_plane import LocalBackend, of_account
from pipeline.localcloud.disks import BLOCK_SIZE
from pipeline.localcloud.refusals import Refused
from pipeline.localcloud.volumes import Snapshot

TOKEN_SECONDS = 7 * 24 * 3600
MOST_RESULTS = 10000
LEAST_RESULTS = 100

ROUTES = {
    "StartSnapshot": ("POST", re.compile(r"/snapshots/?")),
    "CompleteSnapshot": ("POST", re.compile(r"/snapshots/completion/(?P<snapshot>[^/]+)")),
    "ListChangedBlocks": ("GET", re.compile(r"/snapshots/(?P<snapshot>[^/]+)/changedblocks")),
    "ListSnapshotBlocks": ("GET", re.compile(r"/snapshots/(?P<snapshot>[^/]+)/blocks")),
    "GetSnapshotBlock": ("GET", re.compile(r"/snapshots/(?P<snapshot>[^/]+)/blocks/(?P<index>\d+)")),
    "PutSnapshotBlock": ("PUT", re.compile(r"/snapshots/(?P<snapshot>[^/]+)/blocks/(?P<index>\d+)")),
}


class BlockRefused(Exception):
    """A call is refused with an exception of EBS direct."""

    def __init__(self, kind: str, message: str, reason: str | None = None, status: int = 400) -> None:
        super().__init__(message)
        self.kind, self.message, self.reason, self.status = kind, message, reason, status


@dataclass(frozen=True)
class BlockRequest:
    """One request of EBS direct. Header names are lower case."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    body: bytes
    account_id: str
    region: str

    def argument(self, name: str) -> str | None:
        """Return a parameter of the query, or None."""
        return parse_qs(self.query)[name][0] if name in parse_qs(self.query) else None


@dataclass(frozen=True)
class BlockAnswer:
    """One answer of EBS direct."""

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)


def action_of(method: str, path: str) -> tuple[str, dict[str, str]]:
    """Return the name of the action that a method and a path ask for, with what the path says; "" for none."""
    for action, (wanted, pattern) in ROUTES.items():
        found = pattern.fullmatch(path)
        if found and method == wanted:
            return action, {name: unquote(value) for name, value in found.groupdict().items()}
    return "", {}


class BlockService:
    """Answers EBS direct. Blocks are read and written without the cloud's lock."""

    def __init__(self) -> None:
        self._digests: dict[str, dict[int, bytes]] = {}
        self._actions: dict[str, Callable[[LocalBackend, BlockRequest, dict[str, str]], BlockAnswer]] = {
            "StartSnapshot": self.start_snapshot,
            "CompleteSnapshot": self.complete_snapshot,
            "ListChangedBlocks": self.list_changed_blocks,
            "ListSnapshotBlocks": self.list_snapshot_blocks,
            "GetSnapshotBlock": self.get_snapshot_block,
            "PutSnapshotBlock": self.put_snapshot_block,
        }

    def answer(self, request: BlockRequest) -> BlockAnswer:
        """Answer one request; refusals become the JSON errors of EBS direct."""
        action, names = action_of(request.method, request.path)
        try:
            if not action:
                raise BlockRefused("ValidationException", f"There is no {request.method} {request.path}")
            return self._actions[action](of_account(request.account_id, request.region), request, names)
        except BlockRefused as refused:
            return refuse(refused)
        except Refused as refused:
            kind = "AccessDeniedException" if refused.code == "AuthFailure" else "ResourceNotFoundException"
            return refuse(BlockRefused(kind, refused.message, "SNAPSHOT_NOT_FOUND", 404))
        except OSError as error:
            return refuse(BlockRefused("ServiceQuotaExceededException", str(error), "DEPENDENCY_SERVICE_QUOTA", 402))

    def list_snapshot_blocks(self, backend: LocalBackend, request: BlockRequest, names: dict[str, str]) -> BlockAnswer:
        """ListSnapshotBlocks."""
        snapshot = readable(backend, names["snapshot"])
        indices, token = page_of(backend.machines.disks.list_blocks(snapshot.id), request)
        blocks = [{"BlockIndex": index, "BlockToken": block_token(snapshot.id, index)} for index in indices]
        return listing(snapshot, "Blocks", blocks, token)

    def list_changed_blocks(self, backend: LocalBackend, request: BlockRequest, names: dict[str, str]) -> BlockAnswer:
        """ListChangedBlocks; without a first snapshot all blocks are changed."""
        second = readable(backend, names["snapshot"])
        disks = backend.machines.disks
        first_id = request.argument("firstSnapshotId")
        if first_id is None:
            changed, before = disks.list_blocks(second.id), set()
        else:
            first = readable(backend, first_id)
            if first.lineage != second.lineage:
                message = "The snapshots are not of the same lineage"
                raise BlockRefused("ValidationException", message, "UNRELATED_SNAPSHOTS")
            changed, before = disks.changed_blocks(first.id, second.id), set(disks.list_blocks(first.id))
        after = set(disks.list_blocks(second.id))
        indices, token = page_of(changed, request)
        blocks = []
        for index in indices:
            block: dict[str, Any] = {"BlockIndex": index}
            if index in before:
                block["FirstBlockToken"] = block_token(str(first_id), index)
            if index in after:
                block["SecondBlockToken"] = block_token(second.id, index)
            blocks.append(block)
        return listing(second, "ChangedBlocks", blocks, token)

    def get_snapshot_block(self, backend: LocalBackend, request: BlockRequest, names: dict[str, str]) -> BlockAnswer:
        """GetSnapshotBlock."""
        snapshot, index = readable(backend, names["snapshot"]), int(names["index"])
        if request.argument("blockToken") != block_token(snapshot.id, index):
            raise BlockRefused("ValidationException", "The block token is invalid", "INVALID_BLOCK_TOKEN")
        try:
            data = backend.machines.disks.read_block(snapshot.id, index)
        except ValueError as error:
            raise BlockRefused("ValidationException", str(error), "INVALID_BLOCK") from error
        headers = {
            "x-amz-Data-Length": str(len(data)),
            "x-amz-Checksum": digest_of(data),
            "x-amz-Checksum-Algorithm": "SHA256",
            "Content-Type": "application/octet-stream",
        }
        return BlockAnswer(200, data, headers)

    def start_snapshot(self, backend: LocalBackend, request: BlockRequest, names: dict[str, str]) -> BlockAnswer:
        """StartSnapshot, once for a client token."""
        asked = json.loads(request.body or b"{}")
        token = asked.get("ClientToken")
        key = f"StartSnapshot {token}"
        with backend.cloud.changing():
            if token and key in backend.client_tokens:
                first, snapshot_id = backend.client_tokens[key]
                if first != request.body.decode():
                    raise BlockRefused("ConflictException", "The client token was used for another request", status=503)
                return started(backend, backend.own_snapshot(snapshot_id), asked)
            snapshot = self.make_snapshot(backend, asked)
            if token:
                backend.client_tokens[key] = (request.body.decode(), snapshot.id)
        return started(backend, snapshot, asked)

    def make_snapshot(self, backend: LocalBackend, asked: dict[str, Any]) -> Snapshot:
        """Make the snapshot that blocks are to be written to."""
        size = asked.get("VolumeSize")
        if not isinstance(size, int) or not 1 <= size <= 65536:
            raise BlockRefused("ValidationException", "VolumeSize is 1 to 65536 GiB", "INVALID_VOLUME_SIZE")
        backend.cloud.check_room()
        parent = readable(backend, asked["ParentSnapshotId"]) if asked.get("ParentSnapshotId") else None
        if parent is not None and ("Encrypted" in asked or "KmsKeyArn" in asked):
            message = "A snapshot is encrypted as its parent is: leave Encrypted and KmsKeyArn out"
            raise BlockRefused("ValidationException", message, "INVALID_PARAMETER_VALUE")
        if parent is not None and size < parent.volume_size:
            raise BlockRefused("ValidationException", "VolumeSize is less than the parent's", "INVALID_VOLUME_SIZE")
        encrypted = parent.encrypted if parent else bool(asked.get("Encrypted"))
        key = parent.kms_key_id if parent else asked.get("KmsKeyArn")
        attributes: dict[str, Any] = {"lineage": parent.lineage} if parent else {}
        snapshot = backend.new_snapshot(
            volume_id="vol-ffffffff",
            volume_size=size,
            description=asked.get("Description") or "",
            encrypted=encrypted,
            kms_key_id=key or (backend.default_kms_key() if encrypted else None),
            product_codes=list(parent.product_codes) if parent else [],
            **attributes,
        )
        try:
            backend.machines.disks.start_snapshot(snapshot.id, size, parent.id if parent else None)
        except Exception:
            del backend.own_snapshots[snapshot.id]
            raise
        backend.create_tags([snapshot.id], {tag["Key"]: tag.get("Value", "") for tag in asked.get("Tags") or []})
        backend.uploads[snapshot.id] = 0
        return snapshot

    def put_snapshot_block(self, backend: LocalBackend, request: BlockRequest, names: dict[str, str]) -> BlockAnswer:
        """PutSnapshotBlock; a checksum that does not fit is refused, and nothing is written."""
        backend.cloud.check_room()
        snapshot, index = written(backend, names["snapshot"]), int(names["index"])
        if request.headers.get("x-amz-checksum-algorithm") != "SHA256":
            raise BlockRefused("ValidationException", "The checksum algorithm is SHA256", "INVALID_PARAMETER_VALUE")
        if request.headers.get("x-amz-data-length") != str(BLOCK_SIZE) or len(request.body) != BLOCK_SIZE:
            raise BlockRefused("ValidationException", f"A block has {BLOCK_SIZE} bytes", "INVALID_PARAMETER_VALUE")
        checksum = digest_of(request.body)
        if request.headers.get("x-amz-checksum") != checksum:
            raise BlockRefused("ValidationException", "The checksum does not fit the block", "INVALID_CONTENT_ENCODING")
        try:
            backend.machines.disks.put_block(snapshot.id, index, request.body)
        except ValueError as error:
            raise BlockRefused("ValidationException", str(error), "INVALID_BLOCK") from error
        self._digests.setdefault(snapshot.id, {})[index] = base64.b64decode(checksum)
        return BlockAnswer(201, b"", {"x-amz-Checksum": checksum, "x-amz-Checksum-Algorithm": "SHA256"})

    def complete_snapshot(self, backend: LocalBackend, request: BlockRequest, names: dict[str, str]) -> BlockAnswer:
        """CompleteSnapshot: the number of blocks must be right, and the checksum over them where one is given."""
        with backend.cloud.changing():
            snapshot = written(backend, names["snapshot"])
            digests = self._digests.get(snapshot.id, {})
            if request.headers.get("x-amz-changedblockscount") != str(len(digests)):
                message = f"{len(digests)} blocks were written"
                raise BlockRefused("ValidationException", message, "INVALID_PARAMETER_VALUE")
            wanted = request.headers.get("x-amz-checksum")
            together = hashlib.sha256(b"".join(digests[index] for index in sorted(digests))).digest()
            if wanted is not None and wanted != base64.b64encode(together).decode():
                message = "The checksum does not fit the blocks"
                raise BlockRefused("ValidationException", message, "INVALID_PARAMETER_VALUE")
            backend.machines.disks.complete_snapshot(snapshot.id)
            del backend.uploads[snapshot.id]
            self._digests.pop(snapshot.id, None)
            backend.cloud.later(lambda: backend.settle_snapshots([snapshot.id]))
        return BlockAnswer(202, json.dumps({"Status": "pending"}).encode())


def digest_of(data: bytes) -> str:
    """Return a block's checksum: SHA-256 in base64."""
    return base64.b64encode(hashlib.sha256(data).digest()).decode()


def block_token(snapshot_id: str, index: int) -> str:
    """Return the token with which one block can be read."""
    return base64.b64encode(hashlib.sha256(f"{snapshot_id}/{index}".encode()).digest()).decode()


def readable(backend: LocalBackend, snapshot_id: str) -> Snapshot:
    """Return a complete snapshot whose blocks this account may read."""
    with backend.cloud.lock:
        snapshot = backend.find_snapshot(snapshot_id)
    if "all" in snapshot.groups:
        raise BlockRefused("AccessDeniedException", "EBS direct does not read public snapshots", status=403)
    if snapshot.status != "completed":
        raise BlockRefused("ValidationException", f"{snapshot_id} is {snapshot.status}", "INVALID_SNAPSHOT_STATE")
    return snapshot


def written(backend: LocalBackend, snapshot_id: str) -> Snapshot:
    """Return a snapshot that StartSnapshot made and CompleteSnapshot has not completed."""
    with backend.cloud.lock:
        snapshot = backend.own_snapshot(snapshot_id)
    if snapshot_id not in backend.uploads:
        raise BlockRefused("ValidationException", f"{snapshot_id} is not being written", "INVALID_SNAPSHOT_STATE")
    return snapshot


def page_of(indices: list[int], request: BlockRequest) -> tuple[list[int], str | None]:
    """Return a page of block indices and the token of the next one: a token is the first index of its page."""
    token = request.argument("pageToken")
    start = int(request.argument("startingBlockIndex") or 0)
    if token is not None:
        try:
            start = int(base64.b64decode(token, validate=True))
        except ValueError as error:
            raise BlockRefused("ValidationException", "The page token is invalid", "INVALID_PAGE_TOKEN") from error
    most = int(request.argument("maxResults") or MOST_RESULTS)
    if not LEAST_RESULTS <= most <= MOST_RESULTS:
        message = f"maxResults is {LEAST_RESULTS} to {MOST_RESULTS}"
        raise BlockRefused("ValidationException", message, "INVALID_PARAMETER_VALUE")
    rest = [index for index in indices if index >= start]
    following = base64.b64encode(str(rest[most]).encode()).decode() if len(rest) > most else None
    return rest[:most], following


def listing(snapshot: Snapshot, name: str, blocks: list[dict[str, Any]], token: str | None) -> BlockAnswer:
    """Return a page of blocks."""
    answer = {
        name: blocks,
        "ExpiryTime": int(time.time()) + TOKEN_SECONDS,
        "VolumeSize": snapshot.volume_size,
        "BlockSize": BLOCK_SIZE,
    }
    if token is not None:
        answer["NextToken"] = token
    return BlockAnswer(200, json.dumps(answer).encode())


def started(backend: LocalBackend, snapshot: Snapshot, asked: dict[str, Any]) -> BlockAnswer:
    """Return the answer of StartSnapshot."""
    answer = {
        "SnapshotId": snapshot.id,
        "OwnerId": snapshot.owner_id,
        "Status": snapshot.status,
        "StartTime": snapshot.start_time.replace(tzinfo=datetime.UTC).timestamp(),
        "VolumeSize": snapshot.volume_size,
        "BlockSize": BLOCK_SIZE,
        "Description": snapshot.description,
        "Tags": asked.get("Tags") or [],
        "ParentSnapshotId": asked.get("ParentSnapshotId"),
    }
    return BlockAnswer(201, json.dumps({key: value for key, value in answer.items() if value is not None}).encode())


def refuse(refused: BlockRefused) -> BlockAnswer:
    """Return a refusal as JSON."""
    body = {"message": refused.message, "Message": refused.message}
    if refused.reason:
        body["Reason"] = refused.reason
    return BlockAnswer(refused.status, json.dumps(body).encode(), {"x-amzn-ErrorType": refused.kind})
