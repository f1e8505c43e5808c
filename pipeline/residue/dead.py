"""The bytes of a disk that nothing on it refers to: what a rewritten image has zeros for."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

Range = tuple[int, int]
"""From and up to, in bytes."""


@dataclass
class Dead:
    """What is to be zeros, and the few bytes that must change with that, such as checksums."""

    ranges: list[Range] = field(default_factory=list)
    patches: dict[int, bytes] = field(default_factory=dict)
    free_bytes: int = 0
    names: int = 0
    """Removed names that are still in folders."""

    def zero(self, start: int, end: int) -> int:
        """Mark a range, and return its bytes."""
        if end > start:
            self.ranges.append((start, end))
        return max(0, end - start)

    def clean(self, place: int, gaps: Iterable[Range]) -> int:
        """Mark ranges that are given from a place, and return how many."""
        return sum(bool(self.zero(place + start, place + end)) for start, end in gaps)

    def add(self, other: "Dead", on_disk: Callable[[int, int], Iterator[Range]]) -> None:
        """Take over what is dead in a partition, with what says where on the disk a range of it lies."""
        self.ranges += [found for start, end in other.ranges for found in on_disk(start, end)]
        for place, data in other.patches.items():
            ((start, _),) = on_disk(place, place + len(data))
            self.patches[start] = data
        self.free_bytes += other.free_bytes
        self.names += other.names


def joined(ranges: Iterable[Range]) -> list[Range]:
    """Return ranges in order, those that touch as one."""
    found: list[Range] = []
    for start, end in sorted(ranges):
        if found and start <= found[-1][1]:
            found[-1] = (found[-1][0], max(end, found[-1][1]))
        else:
            found.append((start, end))
    return found


def overlapping(first: Iterable[Range], second: Iterable[Range]) -> Iterator[Range]:
    """Yield what two lists of ranges have in common; each list is in order, and its ranges are apart."""
    one, other = iter(first), iter(second)
    left, right = next(one, None), next(other, None)
    while left and right:
        start, end = max(left[0], right[0]), min(left[1], right[1])
        if start < end:
            yield start, end
        if left[1] < right[1]:
            left = next(one, None)
        else:
            right = next(other, None)


def without(first: Iterable[Range], second: Iterable[Range]) -> Iterator[Range]:
    """Yield what is left of ranges when others are taken out; each list is in order, and its ranges are apart."""
    holes = iter(second)
    hole = next(holes, None)
    for start, end in first:
        while hole and hole[0] < end:
            if start < hole[0]:
                yield start, hole[0]
            start = max(start, hole[1])
            if hole[1] > end:
                break
            hole = next(holes, None)
        if start < end:
            yield start, end
