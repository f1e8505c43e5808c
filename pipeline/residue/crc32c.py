"""CRC-32C (Castagnoli, RFC 3720), which ext4 and XFS protect their metadata with; the standard library has none."""

POLYNOMIAL = 0x82F63B78
START = 0xFFFFFFFF


def crc32c(data: bytes, seed: int = START) -> int:
    """Return the checksum so far, as Linux keeps it: without the inversion at the end."""
    for byte in data:
        seed = TABLE[(seed ^ byte) & 0xFF] ^ seed >> 8
    return seed


def entry_of_table(value: int) -> int:
    """Return what one byte makes of a checksum of zero."""
    for _ in range(8):
        value = value >> 1 ^ (POLYNOMIAL if value & 1 else 0)
    return value


TABLE = tuple(map(entry_of_table, range(256)))
