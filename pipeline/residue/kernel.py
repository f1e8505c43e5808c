"""What runs before everything else: kernels, their modules, the initial RAM disk, the boot loader (V09; seed [2])."""

import hashlib
import lzma
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from pipeline.residue.containers import Bounded, Damaged, Decompressor, Deflate, Zstandard
from pipeline.residue.filesystems import Entry
from pipeline.residue.origin import Doubt, Origin

MODULES = re.compile(r"/(?:usr/)?lib/modules/[^/]+/.+")
MADE_BY_DEPMOD = re.compile(
    r"modules\.(?:alias|builtin\.alias|builtin|dep|devname|order|softdep|symbols|weakdep|builtin\.modinfo)(?:\.bin)?"
)
EFI = "(?:/boot/efi|/efi|/boot)/EFI"
"""Where the EFI system partition is mounted."""
KERNELS = re.compile(rf"/boot/(?:vmlinu[xz].*|xen.*)|/(?:usr/)?lib/modules/[^/]+/vmlinuz|{EFI}/.+/vmlinu[xz][^/]*")
RAM_DISKS = re.compile(rf"/boot/(?:initrd|initramfs).*|{EFI}/.+/(?:initrd|initramfs)[^/]*")
BOOT_LOADER = re.compile(r"/boot/grub2?/.+\.(?:mod|img|efi)")
MADE_BY_GRUB = re.compile(r"/boot/grub2?/[^/]+/(?:core\.(?:img|efi)|load\.cfg)|/boot/grub2?/.+\.efi")
COMMAND_LINES = re.compile(
    r"/boot/grub2?/.+\.cfg|(?:/boot|/efi|/boot/efi)/loader/entries/.+\.conf|/boot/extlinux/.+\.conf"
    rf"|/etc/default/grub(?:\.d/.+)?|/etc/kernel/cmdline|{EFI}/.+\.cfg"
)
OTHER_FIRST_PROCESS = re.compile(r"(?m)^[^#\n]*\b(?:rd)?init=(?!/(?:usr/)?(?:s?bin/init|lib/systemd/systemd)\b)(/\S+)")
NO_CHECKS = re.compile(
    r"(?m)^[^#\n]*\b(module\.sig_enforce=0|selinux=0|apparmor=0|systemd\.debug[_-]shell\b(?!=0)|audit=0|single\b|lsm=(?=[\s\"'])|rd\.break\b|systemd\.unit=(?:rescue|emergency)\S*)"
)
RECOVERY = re.compile(r"(?ms)^\tmenuentry '[^'\n]*\(recovery mode\)' [^\n]*\{\n.*?^\t\}$")
"""An entry that update-grub puts into its second menu: nothing boots it unless somebody at the console chooses it."""
OTHER_DEFAULT = re.compile(r"""(?m)^\s*set default=(?!"0"$|"\$\{next_entry\}"$|"\$\{saved_entry\}"$)""")
MADE_FOR_RAM_DISK = re.compile(
    r"(?:usr/)?lib/modules/.+/modules\.[^/]+|conf/(?:arch\.conf|initramfs\.conf|conf\.d/[^/]+|modules|uuid|param\.conf)"
    r"|scripts/(?:.+/)?ORDER|etc/(?:ld\.so\.cache|ld\.so\.conf(?:\.d/.+)?|fstab|mtab|passwd|group|shadow|machine-id|hostname|initrd-release"
    r"|os-release|localtime|motd|dhcpcd\.conf|mdadm/mdadm\.conf(?:\.tmp)?|initiatorname\.iscsi|modprobe\.d/.+|nsswitch\.conf|conf\.d/.+|vconsole\.conf|default/.+|console-setup/.+|udev/.+|cmdline\.d/.+)"
    r"|(?:usr/)?lib/(?:initrd-release|dracut/.+\.txt|dracut/build-parameter\.txt|udev/hwdb\.bin)|var/.+|run/.+|dev/.+"
    r"|kernel/x86/microcode/[^/]+|cryptroot/.+|early_cpio|\.random-seed|.+/\.keep"
)
"""What update-initramfs and dracut write themselves, and run none of."""
LARGEST_RAM_DISK = 1 << 30
ARCHIVES = (b"070701", b"070702")
"""How a cpio archive begins."""
PORTION = 64 * 1024


@dataclass(frozen=True)
class ArchivedFile:
    """A regular file in an initial RAM disk. Its content can be read once, before the next file is asked for."""

    path: str
    size: int
    content: Iterator[bytes]


def doubts(origin: Origin) -> Iterator[Doubt]:
    """Yield modules, kernels, members of RAM disks and boot loaders' modules that no package brought."""
    for entry in origin.system.files:
        if MODULES.fullmatch(entry.path) and not MADE_BY_DEPMOD.fullmatch(entry.path.rpartition("/")[2]):
            if not origin.packages.vouches_for(entry):
                yield Doubt("V09", "kernel module that is no package's", entry.path)
        elif KERNELS.fullmatch(entry.path) and not origin.explains(entry):
            yield Doubt("V09", "kernel that is no package's", entry.path)
        elif BOOT_LOADER.fullmatch(entry.path) and not MADE_BY_GRUB.fullmatch(entry.path):
            if not origin.explains(entry):
                yield Doubt("V09", "boot loader that is no package's", entry.path)
        elif RAM_DISKS.fullmatch(entry.path):
            yield from in_ram_disk(origin, entry)
        elif COMMAND_LINES.fullmatch(entry.path):
            yield from in_command_line(origin, entry)


def in_command_line(origin: Origin, entry: Entry) -> Iterator[Doubt]:
    """Yield what a boot loader hands to the kernel that starts something else, or switches its guards off."""
    if origin.explains_or_empty(entry):
        return
    text = "\n".join(origin.lines(entry))
    if not OTHER_DEFAULT.search(text):
        text = RECOVERY.sub(lambda entry: entry[0].replace(" single ", " "), text)
    for found in (*OTHER_FIRST_PROCESS.finditer(text), *NO_CHECKS.finditer(text)):
        yield Doubt("V09", "command line of the kernel", entry.path, found[1])


def in_ram_disk(origin: Origin, entry: Entry) -> Iterator[Doubt]:
    """Yield the files of a RAM disk that are neither a package's nor made by the tool that packs it."""
    try:
        for file in read_ram_disk(origin.system.read(entry)):
            digests = {name: hashlib.new(name, usedforsecurity=False) for name in origin.packages.algorithms}
            for piece in file.content:
                for digest in digests.values():
                    digest.update(piece)
            known = any(digest.hexdigest() in origin.packages.contents for digest in digests.values())
            if file.size and not known and not MADE_FOR_RAM_DISK.fullmatch(file.path):
                yield Doubt("V09", "file of the RAM disk that is no package's", entry.path, file.path)
    except (ValueError, Damaged) as problem:
        yield Doubt("V09", "RAM disk that cannot be read", entry.path, type(problem).__name__)


class Reader:
    """Bytes that come in pieces, taken in the portions that are asked for: no more than a piece or two is held."""

    def __init__(self, pieces: Iterable[bytes]) -> None:
        self._pieces = iter(pieces)
        self._held = b""
        self._at = 0

    def peek(self, size: int) -> bytes:
        """Return the next bytes, and leave them; fewer at the end."""
        while len(self._held) - self._at < size:
            piece = next(self._pieces, None)
            if piece is None:
                break
            self._held, self._at = self._held[self._at :] + piece, 0
        return self._held[self._at : self._at + size]

    def take(self, size: int) -> bytes:
        """Return the next bytes; fewer at the end."""
        taken = self.peek(size)
        self._at += len(taken)
        return taken

    def portions(self, size: int) -> Iterator[bytes]:
        """Yield so many of the next bytes, in portions. Raises ValueError where there are not so many."""
        while size:
            portion = self.take(min(size, PORTION))
            if not portion:
                raise ValueError("an archive is cut short")
            size -= len(portion)
            yield portion

    def rest(self) -> Iterator[bytes]:
        """Yield all that is left."""
        yield self._held[self._at :]
        yield from self._pieces


def read_ram_disk(pieces: Iterable[bytes]) -> Iterator[ArchivedFile]:
    """Yield the regular files of an initial RAM disk: cpio archives one after the other, each packed or not.

    Raises ValueError or Damaged for what is none (kernel documentation, early-userspace).
    """
    reader = Reader(pieces)
    while head := reader.peek(6):
        if head.startswith(b"\0"):
            reader.take(1)
        elif head in ARCHIVES:
            yield from read_archive(reader)
        else:
            inside = Reader(unpack(reader))
            if inside.peek(6) not in ARCHIVES:
                raise ValueError("there is no archive in it")
            yield from read_ram_disk(inside.rest())
            return


def unpack(reader: Reader) -> Iterator[bytes]:
    """Yield what is compressed. Raises Damaged, or ValueError for what is not known or has no end."""
    decompressor = decompressor_for(reader.peek(6))
    left = LARGEST_RAM_DISK
    for piece in (piece for packed in reader.rest() for piece in decompressor.feed(packed)):
        left -= len(piece)
        if left < 0:
            raise ValueError("it holds more than any RAM disk does")
        yield piece
        if decompressor.finished:
            return


def decompressor_for(magic: bytes) -> Decompressor:
    """Return what unpacks a RAM disk that begins so. Raises ValueError for a compression that is not known."""
    if magic.startswith(b"\x28\xb5\x2f\xfd"):
        return Zstandard()
    if magic.startswith(b"\x1f\x8b"):
        return Deflate(31)
    if magic.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        return Bounded(lzma.LZMADecompressor())
    raise ValueError("a compression that is not known")


def read_archive(reader: Reader) -> Iterator[ArchivedFile]:
    """Yield the regular files of one cpio archive (cpio(5), new ASCII format). Raises ValueError where it is cut."""
    while True:
        header = reader.take(110)
        if len(header) < 110 or header[:6] not in ARCHIVES:
            raise ValueError("an archive is cut short")
        fields = [int(header[at : at + 8], 16) for at in range(6, 110, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = reader.take(name_size)[:-1].decode("utf-8", "replace")
        reader.take(-(110 + name_size) % 4)
        content = reader.portions(size)
        if name != "TRAILER!!!" and mode >> 12 == 0o10:
            yield ArchivedFile(name.removeprefix("./").lstrip("/"), size, content)
        for _ in content:
            pass
        reader.take(-size % 4)
        if name == "TRAILER!!!":
            return
