"""Logical volumes of LVM2: where each lies on the disk, from the metadata that its physical volumes carry.

Linear volumes are understood, in any number of segments and physical volumes of the same disk. The form is LVM2's own
(lib/format_text and libdm/libdm-config of its source; `pvck --dump headers` prints it).
"""

import re
import struct
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.residue.dead import Range, joined, without
from pipeline.residue.filesystems import SECTOR, Extent, Partition, SourceFile, content_of, read_partitions

LABEL_SECTORS = 4
"""A label lies in one of the first sectors."""
AREA_MAGIC = b" LVM2 x[5A%r0N*>"
LARGEST_TEXT = 16 << 20
DEEPEST = 8
"""Sections in sections: LVM has five."""
WORD = re.compile(r'#[^\n]*|"(?:[^"\\]|\\.)*"|[{}\[\]=,]|[^\s{}\[\]=,"#]+')


@dataclass(frozen=True)
class PhysicalVolume:
    """A partition that belongs to a group, or to nobody when there is no text."""

    partition: Partition
    identity: str
    text: str


def volumes_in(file: SourceFile, partitions: Sequence[Partition]) -> list[Partition]:
    """Return the ranges of a disk with logical volumes, and what no volume owns, in place of what holds them.

    What is not understood stays what it is: a partition with `lvm` in it.
    """
    physical = {}
    for partition in partitions:
        if partition.content == "lvm":
            try:
                volume = read_physical_volume(file, partition)
            except (ValueError, struct.error):
                continue
            physical[volume.identity] = volume
    try:
        logical = [part for group in groups_of(physical) for part in logical_volumes(file, group, physical)]
    except (ValueError, KeyError, TypeError, IndexError, AttributeError):
        return list(partitions)
    owned = sorted((run.physical, run.physical + run.size) for part in logical for run in part.extents)
    found: list[Partition] = []
    for partition in partitions:
        if any(volume.partition is partition for volume in physical.values()):
            found += free_ranges(partition, owned)
        else:
            found.append(partition)
    return found + logical


def free_ranges(partition: Partition, owned: list[tuple[int, int]]) -> Iterator[Partition]:
    """Yield what no logical volume owns of a physical one: its metadata, and extents that are or were nobody's."""
    whole = [(partition.start, partition.start + partition.size)]
    for start, end in without(whole, owned):
        yield Partition(f"{partition.name}, outside the logical volumes", start, end - start, "unowned")


def read_physical_volume(file: SourceFile, partition: Partition) -> PhysicalVolume:
    """Return what a partition says of the group that it belongs to. Raises ValueError, struct.error."""
    part = file.part(partition.start, partition.size)
    head = part.read_at(0, LABEL_SECTORS * SECTOR)
    start = next((at for at in range(0, len(head), SECTOR) if head[at : at + 8] == b"LABELONE"), None)
    if start is None or checksum(head[start + 20 : start + SECTOR]) != struct.unpack_from("<I", head, start + 16)[0]:
        raise ValueError("the label is damaged")
    header = start + struct.unpack_from("<I", head, start + 20)[0]
    identity = head[header : header + 32].decode("ascii")
    areas = areas_after(head, header + 40)
    data = list(areas)
    texts = [read_text(part, offset) for offset, _ in areas_after(head, header + 40 + 16 * (len(data) + 1))]
    return PhysicalVolume(partition, identity, max(texts, key=sequence_of, default=""))


def areas_after(head: bytes, place: int) -> Iterator[tuple[int, int]]:
    """Yield (offset, size) until the pair of zeros that ends the list. Raises struct.error where there is none."""
    while (area := struct.unpack_from("<QQ", head, place)) != (0, 0):
        yield area
        place += 16


def read_text(part: SourceFile, offset: int) -> str:
    """Return the newest text of a metadata area, which is written in a circle; empty when there is none yet."""
    header = part.read_at(offset, SECTOR)
    if (
        len(header) < SECTOR
        or header[4:20] != AREA_MAGIC
        or checksum(header[4:]) != int.from_bytes(header[:4], "little")
    ):
        raise ValueError("the header of the metadata is damaged")
    (area_size,) = struct.unpack_from("<Q", header, 32)
    place, size, expected = struct.unpack_from("<QQI", header, 40)
    if not place:
        return ""
    if not SECTOR <= place < area_size or not 0 < size <= min(area_size - SECTOR, LARGEST_TEXT):
        raise ValueError("the metadata lies outside of its area")
    text = part.read_at(offset + place, min(size, area_size - place))
    text += part.read_at(offset + SECTOR, size - len(text))
    if checksum(text) != expected:
        raise ValueError("the metadata is damaged")
    return text.rstrip(b"\0").decode("utf-8", "replace")


def metadata_ranges(file: SourceFile) -> list[Range]:
    """Return what all physical volumes of a disk keep for themselves, in order: labels, boot loaders, current metadata.

    What else is in their metadata areas is of earlier times. Raises ValueError, struct.error.
    """
    ranges = [
        (partition.start + start, partition.start + end)
        for partition in read_partitions(file)
        if partition.content == "lvm"
        for start, end in kept_ranges(file.part(partition.start, partition.size))
    ]
    return joined(ranges)


def kept_ranges(part: SourceFile) -> Iterator[Range]:
    """Yield what one physical volume keeps for itself, from its beginning."""
    head = part.read_at(0, LABEL_SECTORS * SECTOR)
    start = next(at for at in range(0, len(head), SECTOR) if head[at : at + 8] == b"LABELONE")
    yield start, start + SECTOR
    place = start + struct.unpack_from("<I", head, start + 20)[0] + 40
    place += 16 * (len(list(areas_after(head, place))) + 1)
    areas = list(areas_after(head, place))
    for offset, area_size in areas:
        text_place, size = struct.unpack("<QQ", part.read_at(offset + 40, 16))
        first = min(size, area_size - text_place)
        yield offset, offset + SECTOR
        yield offset + text_place, offset + text_place + first
        yield offset + SECTOR, offset + SECTOR + size - first
    extension = place + 16 * (len(areas) + 1)
    if struct.unpack_from("<I", head, extension)[0]:
        yield from ((offset, offset + size) for offset, size in areas_after(head, extension + 8))


def checksum(data: bytes) -> int:
    """Return LVM's CRC: the usual one with a start of its own, and not inverted."""
    return zlib.crc32(data, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF


def sequence_of(text: str) -> int:
    """Return how often the metadata had been written when it was."""
    found = re.search(r"\bseqno = (\d+)", text)
    return int(found[1]) if found else 0


def groups_of(physical: dict[str, PhysicalVolume]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the newest description of each group. Raises ValueError."""
    newest: dict[str, tuple[str, dict[str, Any]]] = {}
    for volume in sorted(physical.values(), key=lambda volume: sequence_of(volume.text)):
        for name, section in parse(volume.text).items():
            if isinstance(section, dict):
                newest[section["id"]] = (name, section)
    yield from newest.values()


def logical_volumes(
    file: SourceFile, group: tuple[str, dict[str, Any]], physical: dict[str, PhysicalVolume]
) -> Iterator[Partition]:
    """Yield the logical volumes of a group. Raises ValueError, KeyError where the description makes no sense."""
    name, section = group
    unit = section["extent_size"] * SECTOR
    starts = {}
    for label, described in section["physical_volumes"].items():
        volume = physical.get(described["id"].replace("-", ""))
        if volume:
            starts[label] = volume.partition.start + described["pe_start"] * SECTOR
    for label, described in section.get("logical_volumes", {}).items():
        title = f"logical volume {name}/{label}"
        segments = [described[f"segment{number}"] for number in range(1, described["segment_count"] + 1)]
        problem = next(filter(None, (not_understood(segment, starts) for segment in segments)), "")
        runs = () if problem else tuple(extent_of(segment, starts, unit) for segment in segments)
        size = sum(segment["extent_count"] for segment in segments) * unit
        content = problem or content_of(file.joined(runs), 0)
        yield Partition(title, runs[0].physical if runs else 0, size, content, runs)


def not_understood(segment: dict[str, Any], starts: dict[str, int]) -> str:
    """Return why the place of a segment is not known, or nothing."""
    if segment["type"] != "striped" or segment["stripe_count"] != 1:
        return f"lvm {segment['type']}"
    return "" if segment["stripes"][0] in starts else "lvm on another disk"


def extent_of(segment: dict[str, Any], starts: dict[str, int], unit: int) -> Extent:
    """Return where a linear segment lies on the disk."""
    label, first = segment["stripes"]
    return Extent(segment["start_extent"] * unit, starts[label] + first * unit, segment["extent_count"] * unit)


def parse(text: str) -> dict[str, Any]:
    """Return LVM's text as sections, lists, numbers and strings. Raises ValueError."""
    words = [word for word in WORD.findall(text) if not word.startswith("#")]
    words.reverse()
    section = parse_section(words, 0)
    if words:
        raise ValueError("there is a brace too many")
    return section


def parse_section(words: list[str], depth: int) -> dict[str, Any]:
    """Take the words of a section up to its end. Raises ValueError."""
    section: dict[str, Any] = {}
    while words and (key := words.pop()) != "}":
        sign = words.pop() if words else ""
        if sign == "{" and depth < DEEPEST:
            section[key] = parse_section(words, depth + 1)
        elif sign == "=" and words:
            section[key] = parse_value(words)
        else:
            raise ValueError(f"{key} has no value")
    return section


def parse_value(words: list[str]) -> Any:  # noqa: ANN401 - what the text says
    """Take the words of a value. Raises ValueError."""
    word = words.pop()
    if word != "[":
        return word[1:-1] if word.startswith('"') else int(word) if word.isdigit() else word
    values = []
    while words and words[-1] != "]":
        if words[-1] == "[":
            raise ValueError("a list is in a list")
        values.append(parse_value(words))
        if words and words[-1] == ",":
            words.pop()
    if not words:
        raise ValueError("a list has no end")
    words.pop()
    return values
