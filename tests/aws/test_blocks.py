import hashlib
import threading
from base64 import b64encode
from io import BytesIO

import pytest
from botocore.response import StreamingBody
from botocore.stub import ANY

from pipeline.aws.blocks import (
    ATTEMPTS,
    BLOCK_SIZE,
    GIB,
    LONGEST_PAUSE_SECONDS,
    THROTTLED_SECONDS,
    BlockBroken,
    SnapshotBlocks,
    in_order,
    write_snapshot,
)
from pipeline.aws.tags import resource_name
from pipeline.errors import CloudFailed

DATA = b"x" * BLOCK_SIZE


def sha256(data):
    return b64encode(hashlib.sha256(data).digest()).decode()


def page(*indices, following=None):
    answer = {
        "Blocks": [{"BlockIndex": index, "BlockToken": f"token-{index}"} for index in indices],
        "VolumeSize": 2,
        "BlockSize": BLOCK_SIZE,
    }
    return answer | ({"NextToken": following} if following else {})


def block(data=DATA, checksum=None, length=None):
    return {
        "DataLength": len(data) if length is None else length,
        "BlockData": StreamingBody(BytesIO(data), len(data)),
        "Checksum": checksum or sha256(data),
        "ChecksumAlgorithm": "SHA256",
    }


def listed(session, stub, *indices):
    stub("ebs").add_response("list_snapshot_blocks", page(*indices))
    return SnapshotBlocks(session, "snap-1", readers=1)


def test_an_empty_page_is_not_the_end(session, stub):
    ebs = stub("ebs")
    ebs.add_response("list_snapshot_blocks", page(following="more"), {"SnapshotId": "snap-1", "MaxResults": 10000})
    ebs.add_response("list_snapshot_blocks", page(7, following="more still"))
    ebs.add_response("list_snapshot_blocks", page(3))
    blocks = SnapshotBlocks(session, "snap-1")
    assert blocks.indices() == [3, 7]
    assert (blocks.size_bytes, blocks.block_size) == (2 * GIB, BLOCK_SIZE)


def test_a_block_is_read_with_its_token_and_verified(session, stub):
    blocks = listed(session, stub, 3)
    stub("ebs").add_response(
        "get_snapshot_block", block(), {"SnapshotId": "snap-1", "BlockIndex": 3, "BlockToken": "token-3"}
    )
    assert blocks.read(3) == DATA


@pytest.mark.parametrize("broken", [{"checksum": sha256(b"another")}, {"length": 5}])
def test_a_broken_block_is_asked_for_again(session, stub, broken):
    blocks = listed(session, stub, 3)
    stub("ebs").add_response("get_snapshot_block", block(**broken))
    stub("ebs").add_response("get_snapshot_block", block())
    assert blocks.read(3) == DATA


def test_a_block_that_stays_broken_is_never_given_out(session, stub):
    blocks = listed(session, stub, 3)
    for _ in range(ATTEMPTS):
        stub("ebs").add_response("get_snapshot_block", block(checksum=sha256(b"another")))
    with pytest.raises(BlockBroken, match="block 3 of snap-1"):
        blocks.read(3)


def throttle(stub, times):
    for _ in range(times):
        stub("ebs").add_client_error("get_snapshot_block", "RequestThrottledException", http_status_code=400)


@pytest.fixture
def asked_once(session, monkeypatch):
    """botocore's own repetitions take real time: only ours are looked at."""
    monkeypatch.setattr("pipeline.aws.session.ATTEMPTS", 1)


def test_a_throttled_block_waits_for_its_turn_longer_each_time(session, asked_once, stub, fake_clock):
    stub("ebs").add_response("list_snapshot_blocks", page(3))
    throttle(stub, 12)
    stub("ebs").add_response("get_snapshot_block", block())
    blocks = SnapshotBlocks(session, "snap-1", readers=1, clock=fake_clock.as_clock())
    assert blocks.read(3) == DATA
    assert len(fake_clock.rests) == 12
    assert fake_clock.rests[8] > 4 * fake_clock.rests[0]
    assert max(fake_clock.rests) <= LONGEST_PAUSE_SECONDS


def test_a_block_whose_turn_never_comes_is_unreadable(session, asked_once, stub, fake_clock):
    stub("ebs").add_response("list_snapshot_blocks", page(3))
    fake_clock.rest = lambda _: setattr(fake_clock, "seconds", fake_clock.seconds + THROTTLED_SECONDS)
    throttle(stub, 2)
    blocks = SnapshotBlocks(session, "snap-1", readers=1, clock=fake_clock.as_clock())
    with pytest.raises(CloudFailed, match="hrottled"):
        blocks.read(3)


def test_many_come_in_order_and_a_failure_is_one_of_them(session, stub):
    blocks = listed(session, stub, 1, 2, 3)
    stub("ebs").add_response("get_snapshot_block", block(b"a" * BLOCK_SIZE))
    stub("ebs").add_client_error("get_snapshot_block", "ValidationException")
    stub("ebs").add_response("get_snapshot_block", block(b"c" * BLOCK_SIZE))
    first, second, third = blocks.read_many([1, 2, 3])
    assert first == (1, b"a" * BLOCK_SIZE)
    assert second[0] == 2 and isinstance(second[1], CloudFailed)
    assert third == (3, b"c" * BLOCK_SIZE)


def test_only_what_the_second_snapshot_has_is_a_change(session, stub):
    changed = [
        {"BlockIndex": 1, "FirstBlockToken": "old-1", "SecondBlockToken": "new-1"},
        {"BlockIndex": 2, "SecondBlockToken": "new-2"},
        {"BlockIndex": 3, "FirstBlockToken": "old-3"},
    ]
    stub("ebs").add_response(
        "list_changed_blocks",
        {"ChangedBlocks": changed, "VolumeSize": 1, "BlockSize": BLOCK_SIZE},
        {"FirstSnapshotId": "snap-0", "SecondSnapshotId": "snap-1", "MaxResults": 10000},
    )
    assert SnapshotBlocks(session, "snap-1", since="snap-0").listing.tokens == {1: "new-1", 2: "new-2"}


def test_a_written_snapshot_has_a_linear_checksum_over_its_blocks(session, stub, tags):
    ebs = stub("ebs")
    padded = b"short".ljust(BLOCK_SIZE, b"\0")
    ebs.add_response("start_snapshot", {"SnapshotId": "snap-9"})
    for index, data in ((5, DATA), (2, padded)):
        ebs.add_response(
            "put_snapshot_block",
            {},
            {
                "SnapshotId": "snap-9",
                "BlockIndex": index,
                "BlockData": data,
                "DataLength": BLOCK_SIZE,
                "Checksum": sha256(data),
                "ChecksumAlgorithm": "SHA256",
            },
        )
    digests = hashlib.sha256(padded).digest() + hashlib.sha256(DATA).digest()
    ebs.add_response(
        "complete_snapshot",
        {"Status": "pending"},
        {
            "SnapshotId": "snap-9",
            "ChangedBlocksCount": 2,
            "Checksum": sha256(digests),
            "ChecksumAlgorithm": "SHA256",
            "ChecksumAggregationMethod": "LINEAR",
        },
    )
    name = resource_name(tags.build_id, "written")
    assert write_snapshot(session, tags, name, 1, [(5, DATA), (2, b"short")], writers=1) == "snap-9"


def test_a_child_gets_the_blocks_that_differ_and_no_encryption_of_its_own(session, stub, tags):
    ebs, name = stub("ebs"), resource_name(tags.build_id, "written")
    asked = {"VolumeSize": 1, "Description": "", "Tags": ANY, "ClientToken": ANY, "ParentSnapshotId": "snap-1"}
    ebs.add_response("start_snapshot", {"SnapshotId": "snap-9"}, asked)
    ebs.add_response("complete_snapshot", {"Status": "pending"})
    assert write_snapshot(session, tags, name, 1, [], parent_id="snap-1") == "snap-9"


def test_work_runs_side_by_side_and_answers_come_in_order():
    both = threading.Barrier(2, timeout=20)

    def work(question):
        both.wait()
        return question * 2

    assert list(in_order(work, range(6), 2)) == [(n, n * 2) for n in range(6)]


def test_leaving_early_drops_the_work_that_waits():
    started = []
    answers = in_order(lambda n: started.append(n), range(1000), 2)
    next(answers)
    answers.close()
    assert len(started) <= 10
