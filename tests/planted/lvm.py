"""Writes what LVM2 writes at the beginning of a physical volume: label, header, and the metadata of its group."""

import struct
import uuid
import zlib
from collections.abc import Iterator, Mapping, Sequence

SECTOR = 512
DATA_START = 1 << 20
"""Where the first extent begins, in bytes: LVM's default."""
EXTENT = 4 << 20
"""Bytes of an extent: LVM's default."""
METADATA_START = 4096
MAGIC = b" LVM2 x[5A%r0N*>"

Segments = Sequence[tuple[int, int]]
"""The first extent of the physical volume and the number of extents of each segment, in the order of the volume."""


def checksum(data: bytes) -> int:
    """Return LVM's CRC: the usual one with a start of its own, and not inverted."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def physical_volume(size: int, group: str, volumes: Mapping[str, Segments]) -> bytes:
    """Return the first mebibyte of a physical volume of `size` bytes, the only one of a group with linear volumes."""
    identity = uuid.uuid4().hex
    text = "\n".join(metadata(identity, size, group, volumes)).encode() + b"\n\0"
    head = bytearray(DATA_START)
    areas = struct.pack("<4Q4Q", DATA_START, 0, 0, 0, METADATA_START, DATA_START - METADATA_START, 0, 0)
    label = struct.pack("<I8s", 32, b"LVM2 001") + identity.encode() + struct.pack("<Q", size) + areas
    head[SECTOR : 2 * SECTOR] = labelled(label.ljust(SECTOR - 20, b"\0"))
    place = struct.pack("<QQII", SECTOR, len(text), checksum(text), 0)
    area = MAGIC + struct.pack("<IQQ", 1, METADATA_START, DATA_START - METADATA_START) + place
    area = area.ljust(SECTOR - 4, b"\0")
    head[METADATA_START : METADATA_START + SECTOR] = struct.pack("<I", checksum(area)) + area
    head[METADATA_START + SECTOR : METADATA_START + SECTOR + len(text)] = text
    return bytes(head)


def labelled(rest: bytes) -> bytes:
    """Return the sector of a label."""
    return b"LABELONE" + struct.pack("<QI", 1, checksum(rest)) + rest


def metadata(identity: str, size: int, group: str, volumes: Mapping[str, Segments]) -> Iterator[str]:
    """Yield the lines that describe a group."""
    yield from (f"{group} {{", f'id = "{dashed(uuid.uuid4().hex)}"', "seqno = 2", 'format = "lvm2"')
    yield from ('status = ["RESIZEABLE", "READ", "WRITE"]', "flags = []", f"extent_size = {EXTENT // SECTOR}")
    yield from ("max_lv = 0", "max_pv = 0", "metadata_copies = 0", "", "physical_volumes {", "", "pv0 {")
    yield from (f'id = "{dashed(identity)}"', 'device = "/dev/sda1"', "", 'status = ["ALLOCATABLE"]', "flags = []")
    yield from (f"dev_size = {size // SECTOR}", f"pe_start = {DATA_START // SECTOR}")
    yield from (f"pe_count = {(size - DATA_START) // EXTENT}", "}", "}", "")
    if volumes:
        yield "logical_volumes {"
        for name, segments in volumes.items():
            yield from logical_volume(name, segments)
        yield "}"
    yield from ("}", 'contents = "Text Format Volume Group"', "version = 1", "", 'description = ""', "")
    yield from ('creation_host = "planter"', "creation_time = 1790000000")


def logical_volume(name: str, segments: Segments) -> Iterator[str]:
    """Yield the lines that describe a linear volume."""
    yield from ("", f"{name} {{", f'id = "{dashed(uuid.uuid4().hex)}"', 'status = ["READ", "WRITE", "VISIBLE"]')
    yield from ("flags = []", f"segment_count = {len(segments)}")
    start = 0
    for number, (first, count) in enumerate(segments, 1):
        yield from ("", f"segment{number} {{", f"start_extent = {start}", f"extent_count = {count}", "")
        yield from ('type = "striped"', "stripe_count = 1", "", f'stripes = [\n"pv0", {first}\n]', "}")
        start += count
    yield "}"


def dashed(identity: str) -> str:
    """Return 32 digits as LVM prints an id: six, five times four, six."""
    return "-".join(
        identity[start:end] for start, end in ((0, 6), (6, 10), (10, 14), (14, 18), (18, 22), (22, 26), (26, 32))
    )
