"""What runs before everything else: kernels, their modules, the initial RAM disk, the boot loader (V09; seed [2])."""

import hashlib
import lzma
import re
import zlib
from collections.abc import Generator, Iterator
from dataclasses import dataclass

import zstandard

from pipeline.residue.filesystems import Entry
from pipeline.residue.origin import Doubt, Origin
from pipeline.residue.vouch import ALGORITHMS

MODULES = re.compile(r"/(?:usr/)?lib/modules/[^/]+/.+")
MADE_BY_DEPMOD = re.compile(
    r"modules\.(?:alias|builtin\.alias|builtin|dep|devname|order|softdep|symbols|weakdep|builtin\.modinfo)(?:\.bin)?"
)
KERNELS = re.compile(r"/boot/(?:vmlinu[xz].*|xen.*)|/(?:usr/)?lib/modules/[^/]+/vmlinuz")
RAM_DISKS = re.compile(r"/boot/(?:initrd|initramfs).*")
BOOT_LOADER = re.compile(r"/boot/grub2?/.+\.(?:mod|img|efi)")
MADE_BY_GRUB = re.compile(r"/boot/grub2?/[^/]+/(?:core\.(?:img|efi)|load\.cfg)|/boot/grub2?/.+\.efi")
COMMAND_LINES = re.compile(
    r"/boot/grub2?/.+\.cfg|/boot/loader/entries/.+\.conf|/boot/extlinux/.+\.conf|/etc/default/grub(?:\.d/.+)?|/etc/kernel/cmdline"
)
OTHER_FIRST_PROCESS = re.compile(r"(?m)^[^#\n]*\b(?:rd)?init=(?!/(?:usr/)?(?:s?bin/init|lib/systemd/systemd)\b)(/\S+)")
NO_CHECKS = re.compile(
    r"(?m)^[^#\n]*\b(module\.sig_enforce=0|selinux=0|apparmor=0|systemd\.debug[_-]shell\b(?!=0)|audit=0|single\b|lsm=(?=[\s\"'])|rd\.break\b|systemd\.unit=(?:rescue|emergency)\S*)"
)
MADE_FOR_RAM_DISK = re.compile(
    r"(?:usr/)?lib/modules/.+/modules\.[^/]+|conf/(?:arch\.conf|initramfs\.conf|conf\.d/[^/]+|modules|uuid|param\.conf)"
    r"|scripts/(?:.+/)?ORDER|etc/(?:ld\.so\.cache|ld\.so\.conf(?:\.d/.+)?|fstab|mtab|passwd|group|shadow|machine-id|hostname|initrd-release"
    r"|os-release|localtime|motd|modprobe\.d/.+|nsswitch\.conf|conf\.d/.+|vconsole\.conf|default/.+|console-setup/.+|udev/.+|cmdline\.d/.+)"
    r"|(?:usr/)?lib/(?:initrd-release|dracut/.+\.txt|dracut/build-parameter\.txt|udev/hwdb\.bin)|var/.+|run/.+|dev/.+"
    r"|kernel/x86/microcode/[^/]+|cryptroot/.+|early_cpio|.+/\.keep"
)
"""What update-initramfs and dracut write themselves, and run none of."""
LARGEST_RAM_DISK = 1 << 30


@dataclass(frozen=True)
class ArchivedFile:
    """A regular file in an initial RAM disk."""

    path: str
    content: bytes


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
    for found in (*OTHER_FIRST_PROCESS.finditer(text), *NO_CHECKS.finditer(text)):
        yield Doubt("V09", "command line of the kernel", entry.path, found[1])


def in_ram_disk(origin: Origin, entry: Entry) -> Iterator[Doubt]:
    """Yield the files of a RAM disk that are neither a package's nor made by the tool that packs it."""
    contents = {(len(digest), digest) for digest in origin.packages.contents}
    algorithms = {ALGORITHMS[length] for length, _ in contents}
    try:
        for file in read_ram_disk(b"".join(origin.system.read(entry))):
            digests = (hashlib.new(name, file.content, usedforsecurity=False).hexdigest() for name in algorithms)
            known = any((len(digest), digest) in contents for digest in digests)
            if file.content and not known and not MADE_FOR_RAM_DISK.fullmatch(file.path):
                yield Doubt("V09", "file of the RAM disk that is no package's", entry.path, file.path)
    except (ValueError, zlib.error, lzma.LZMAError, zstandard.ZstdError) as problem:
        yield Doubt("V09", "RAM disk that cannot be read", entry.path, type(problem).__name__)


def read_ram_disk(data: bytes) -> Iterator[ArchivedFile]:
    """Yield the regular files of an initial RAM disk: cpio archives one after the other, each packed or not.

    Raises ValueError, or what a decompressor raises, for what is none (kernel documentation, early-userspace).
    """
    place = 0
    while place < len(data):
        if data[place : place + 1] == b"\0":
            place += 1
        elif data.startswith((b"070701", b"070702"), place):
            place = yield from read_archive(data, place)
        else:
            yield from read_ram_disk(unpack(data[place:]))
            return


def unpack(data: bytes) -> bytes:
    """Return what a compressed archive holds."""
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        with zstandard.ZstdDecompressor(max_window_size=1 << 31).stream_reader(data) as reader:
            content = reader.read(LARGEST_RAM_DISK)
    elif data.startswith(b"\x1f\x8b"):
        content = zlib.decompressobj(31).decompress(data, LARGEST_RAM_DISK)
    elif data.startswith((b"\xfd7zXZ\0", b"\x5d\0\0")):
        content = lzma.LZMADecompressor().decompress(data, LARGEST_RAM_DISK)
    else:
        raise ValueError("a compression that is not known")
    if not content.startswith((b"070701", b"070702")):
        raise ValueError("there is no archive in it")
    return content


def read_archive(data: bytes, place: int) -> Generator[ArchivedFile, None, int]:
    """Yield the regular files of one cpio archive, and return where it ends (cpio(5), new ASCII format)."""
    while True:
        header = data[place : place + 110]
        if len(header) < 110 or not header.startswith(b"07070"):
            raise ValueError("an archive is cut short")
        fields = [int(header[at : at + 8], 16) for at in range(6, 110, 8)]
        mode, size, name_size = fields[1], fields[6], fields[11]
        name = data[place + 110 : place + 110 + name_size - 1].decode("utf-8", "replace")
        begin = place + (110 + name_size + 3) // 4 * 4
        place = begin + (size + 3) // 4 * 4
        if place > len(data) + 3:
            raise ValueError("an archive is cut short")
        if name == "TRAILER!!!":
            return place
        if mode >> 12 == 0o10:
            yield ArchivedFile(name.removeprefix("./").lstrip("/"), data[begin : begin + size])
