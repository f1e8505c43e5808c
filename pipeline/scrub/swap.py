"""Swap, which is memory on disk (S21)."""

from pipeline.guest.step import Step

FIND = r"""
areas() {
    tail -n +2 /proc/swaps | while read -r area rest; do
        case $area in /dev/zram*) ;; *) printf '%s\n' "$area" ;; esac
    done
}
files() { for file in /swapfile /swap.img /hiberfile /hibfile.sys; do if [ -f "$file" ]; then echo "$file"; fi; done; }
"""

IS_GONE = (
    FIND
    + r"""
[ -z "$(areas)" ]
[ -z "$(files)" ]
! grep -qE '^[^#]+[[:space:]]swap[[:space:]]' /etc/fstab
"""
)

WIPE = (
    FIND
    + r"""
for area in $(areas); do
    swapoff "$area"
    if [ -f "$area" ]; then
        rm -f "$area"
    else
        # It ends with an error, where the partition ends.
        dd if=/dev/zero of="$area" bs=1M conv=fsync 2>/dev/null || :
    fi
    echo "wiped $area"
done
rm -f $(files)
sed -i -E 's/^[^#]+[[:space:]]swap[[:space:]].*/# & (swap is not part of an image)/' /etc/fstab
"""
)
"""What a file left in free blocks is overwritten with those."""


def steps() -> tuple[Step, ...]:
    """Return the step that removes swap files, overwrites swap partitions, and takes them out of fstab."""
    return (Step("swap", ("S21",), "wipe swap files and partitions", WIPE, IS_GONE),)
