"""Swap, which is memory on disk (S21)."""

from pipeline.guest.step import Step

WIPE = r"""
tail -n +2 /proc/swaps | while read -r area kind size rest; do
    case $area in /dev/zram*) continue ;; esac
    identity=$(blkid -s UUID -o value "$area" || :)
    swapoff "$area"
    dd if=/dev/zero of="$area" bs=1M conv=notrunc,fsync 2>/dev/null count=$(((size + 1023) / 1024)) || :
    mkswap ${identity:+-U "$identity"} "$area" >/dev/null
    echo "wiped $area"
done
"""
"""The last write of a partition ends at its end, with an error; `mkswap` after it must succeed."""


def steps() -> tuple[Step, ...]:
    """Return the step that takes swap out of use and overwrites it."""
    return (
        Step(
            "swap", ("S21",), "wipe swap files and partitions", WIPE, "! tail -n +2 /proc/swaps | grep -qv '^/dev/zram'"
        ),
    )
