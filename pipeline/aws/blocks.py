"""The blocks of snapshots through the EBS direct APIs: listed, read with many in flight, compared, written.

Every block's checksum is verified: one that arrives broken is asked for again, and never searched. EBS direct has no
paginators in botocore, and may give empty pages that have a next one.
"""

import hashlib
import random
from base64 import b64encode
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

from pipeline.aws.instances import client_token
from pipeline.aws.session import CONNECTIONS, Session, answer_lost, cloud_errors, is_throttled
from pipeline.aws.tags import Tags
from pipeline.aws.wait import CLOCK, SHORTEST_SECONDS, Clock
from pipeline.errors import AssayError, CloudFailed

BLOCK_SIZE = 512 * 1024
"""Of EBS direct, in bytes; it says so itself in every listing."""
GIB = 1024**3
READERS = CONNECTIONS
"""Requests in flight: each takes tens of milliseconds, and 1,000 a second are allowed for one account."""
ATTEMPTS = 3
"""Of one block that arrives broken."""
THROTTLED_SECONDS = 600.0
"""How long one block waits for its turn beyond what botocore waits itself, before it counts as unreadable."""
LONGEST_PAUSE_SECONDS = 30.0
PAGE = 10_000
"""Blocks in one page of a listing: the most that the API gives."""

Asked = TypeVar("Asked")
Answered = TypeVar("Answered")


@dataclass(frozen=True)
class Listing:
    """Which blocks a snapshot has, and the token with which each is read."""

    size_bytes: int
    block_size: int
    tokens: dict[int, str] = field(repr=False)


class ListCall(Protocol):
    """ListSnapshotBlocks or ListChangedBlocks, bound to its snapshots."""

    def __call__(self, **page: Any) -> Any:  # noqa: ANN401
        """Return one page."""


class SnapshotBlocks:
    """The written blocks of a snapshot, or only those in which it differs from an earlier one of the same lineage."""

    def __init__(
        self,
        session: Session,
        snapshot_id: str,
        *,
        since: str | None = None,
        readers: int = READERS,
        clock: Clock = CLOCK,
    ) -> None:
        """Prepare to read; nothing is asked yet. `since` is the id of the earlier snapshot."""
        self.session = session
        self.snapshot_id = snapshot_id
        self.since = since
        self.readers = readers
        self.clock = clock
        self.identity = f"{snapshot_id} since {since or 'its beginning'}"

    @cached_property
    def listing(self) -> Listing:
        """The blocks, asked once. Raises CloudFailed."""
        if self.since:
            return list_changed_blocks(self.session, self.since, self.snapshot_id)
        return list_blocks(self.session, self.snapshot_id)

    @property
    def size_bytes(self) -> int:
        """The size of the whole disk."""
        return self.listing.size_bytes

    @property
    def block_size(self) -> int:
        """The size of a block in bytes."""
        return self.listing.block_size

    def indices(self) -> list[int]:
        """Return the numbers of the written blocks, in rising order."""
        return sorted(self.listing.tokens)

    def read(self, index: int) -> bytes:
        """Return one block, when it is its turn. Raises CloudFailed when it cannot be read, or is broken each time."""
        broken, pause, deadline = 0, SHORTEST_SECONDS, self.clock.now() + THROTTLED_SECONDS
        while True:
            try:
                return get_block(self.session, self.snapshot_id, index, self.listing.tokens[index])
            except CloudFailed as error:
                if is_throttled(error) and self.clock.now() < deadline:
                    self.clock.rest(pause * random.uniform(0.5, 1))  # noqa: S311 - so that readers do not come at once
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
                    continue
                broken += 1
                if broken == ATTEMPTS or not (isinstance(error, BlockBroken) or answer_lost(error)):
                    raise

    def read_many(self, indices: Iterable[int]) -> Iterator[tuple[int, bytes | AssayError]]:
        """Yield blocks in the order asked, many in flight. A block that cannot be read comes as its error."""
        _ = self.listing  # asked here once, not by every reader at the same time
        yield from in_order(self.try_to_read, indices, self.readers)

    def try_to_read(self, index: int) -> bytes | AssayError:
        """Return one block, or the reason why it cannot be read."""
        try:
            return self.read(index)
        except AssayError as error:
            return error


class BlockBroken(CloudFailed):
    """A block arrived with another checksum or length than it was sent with."""


def list_blocks(session: Session, snapshot_id: str) -> Listing:
    """Return the written blocks of a snapshot. Raises CloudFailed."""
    ebs = session.client("ebs")
    with cloud_errors(snapshot_id, session.region):
        return collect(
            lambda **page: ebs.list_snapshot_blocks(SnapshotId=snapshot_id, **page),
            lambda answer: {block["BlockIndex"]: block["BlockToken"] for block in answer.get("Blocks", [])},
        )


def list_changed_blocks(session: Session, first_id: str, second_id: str) -> Listing:
    """Return the blocks of the second snapshot that differ from the first; both must be of one lineage.

    Blocks that only the first one has are gone in the second, and not listed. Raises CloudFailed.
    """
    ebs = session.client("ebs")
    with cloud_errors(f"{first_id} and {second_id}", session.region):
        return collect(
            lambda **page: ebs.list_changed_blocks(FirstSnapshotId=first_id, SecondSnapshotId=second_id, **page),
            lambda answer: {
                block["BlockIndex"]: block["SecondBlockToken"]
                for block in answer.get("ChangedBlocks", [])
                if block.get("SecondBlockToken")
            },
        )


def collect(ask: ListCall, tokens_of: Callable[[Any], dict[int, str]]) -> Listing:
    """Return all pages of a listing as one. An empty page that has a next one is not the end."""
    answer = ask(MaxResults=PAGE)
    tokens = tokens_of(answer)
    while answer.get("NextToken"):
        answer = ask(MaxResults=PAGE, NextToken=answer["NextToken"])
        tokens |= tokens_of(answer)
    return Listing(size_bytes=answer["VolumeSize"] * GIB, block_size=answer["BlockSize"], tokens=tokens)


def get_block(session: Session, snapshot_id: str, index: int, token: str) -> bytes:
    """Return a block whose length and SHA-256 are as the service says. Raises BlockBroken, CloudFailed."""
    resource = f"block {index} of {snapshot_id}"
    with cloud_errors(resource, session.region):
        answer = session.client("ebs").get_snapshot_block(SnapshotId=snapshot_id, BlockIndex=index, BlockToken=token)
        data = answer["BlockData"].read()
    if answer["ChecksumAlgorithm"] != "SHA256" or answer["Checksum"] != checksum(hashlib.sha256(data).digest()):
        raise BlockBroken("the checksum is wrong", resource=resource, region=session.region)
    if len(data) != answer["DataLength"]:
        raise BlockBroken(f"{len(data)} bytes, not {answer['DataLength']}", resource=resource, region=session.region)
    return data


def write_snapshot(
    session: Session,
    tags: Tags,
    name: str,
    size_gib: int,
    blocks: Iterable[tuple[int, bytes]],
    *,
    description: str = "",
    parent_id: str | None = None,
    writers: int = READERS,
) -> str:
    """Write a snapshot from blocks and return its id; `wait_for_snapshot` waits for it.

    A block that is shorter than 512 KiB is filled up with zeros. The checksum of the whole is the SHA-256 over the
    blocks' own checksums in rising order (LINEAR). With a parent, what is not written is as in that one, and the
    snapshot is encrypted as that one is, with the same key. Raises CloudFailed.
    """
    parent: Any = {"ParentSnapshotId": parent_id} if parent_id else {}
    with cloud_errors(name, session.region):
        started = session.client("ebs").start_snapshot(
            VolumeSize=size_gib,
            Description=description,
            Tags=tags.as_list(name),
            ClientToken=client_token(name),
            **parent,
        )
    snapshot_id = started["SnapshotId"]

    def put(block: tuple[int, bytes]) -> tuple[int, bytes]:
        index, data = block
        return index, put_block(session, snapshot_id, index, data.ljust(BLOCK_SIZE, b"\0"))

    digests = dict(written for _, written in in_order(put, blocks, writers))
    linear = hashlib.sha256(b"".join(digests[index] for index in sorted(digests)))
    with cloud_errors(snapshot_id, session.region):
        session.client("ebs").complete_snapshot(
            SnapshotId=snapshot_id,
            ChangedBlocksCount=len(digests),
            Checksum=checksum(linear.digest()),
            ChecksumAlgorithm="SHA256",
            ChecksumAggregationMethod="LINEAR",
        )
    return snapshot_id


def put_block(session: Session, snapshot_id: str, index: int, data: bytes) -> bytes:
    """Write one block and return its SHA-256. Raises CloudFailed."""
    digest = hashlib.sha256(data).digest()
    with cloud_errors(f"block {index} of {snapshot_id}", session.region):
        session.client("ebs").put_snapshot_block(
            SnapshotId=snapshot_id,
            BlockIndex=index,
            BlockData=data,
            DataLength=len(data),
            Checksum=checksum(digest),
            ChecksumAlgorithm="SHA256",
        )
    return digest


def checksum(digest: bytes) -> str:
    """Return a digest as EBS direct writes it."""
    return b64encode(digest).decode()


def in_order(
    work: Callable[[Asked], Answered], questions: Iterable[Asked], workers: int
) -> Iterator[tuple[Asked, Answered]]:
    """Yield each question with its answer in the order of the questions, `workers` at work and as many waiting."""
    pending: deque[tuple[Asked, Future[Answered]]] = deque()
    with pool(workers) as executor:
        for question in questions:
            pending.append((question, executor.submit(work, question)))
            if len(pending) >= 2 * workers:
                asked, answer = pending.popleft()
                yield asked, answer.result()
        while pending:
            asked, answer = pending.popleft()
            yield asked, answer.result()


@contextmanager
def pool(workers: int) -> Iterator[ThreadPoolExecutor]:
    """Give a pool of threads whose waiting work is dropped when the block is left: Ctrl-C is prompt."""
    executor = ThreadPoolExecutor(workers)
    try:
        yield executor
    finally:
        executor.shutdown(wait=True, cancel_futures=True)
