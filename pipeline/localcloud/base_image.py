"""Makes the base images of the local cloud: Debian and Ubuntu as they are published for EC2, from their own packages.

`mmdebstrap` installs the packages, `mke2fs -d` makes the file system, and GRUB's core image is laid into the
BIOS-boot partition by hand, so nothing is mounted and no loop device is needed. It works as root and as a user with
subordinate ids (/etc/subuid). `recipe/` beside this file holds what goes into the image.
"""

import contextlib
import fcntl
import hashlib
import io
import os
import shlex
import shutil
import struct
import subprocess
import tarfile
import tempfile
import time
import urllib.parse
import urllib.request
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.localcloud.distributions import DISTRIBUTIONS, Distribution, Suite

RECIPE = Path(__file__).parent / "recipe"
KEYRING = DISTRIBUTIONS["bookworm"].keyring
PACKAGES = (
    "apt",
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "cron",
    "curl",
    "dbus",
    "e2fsprogs",
    "grub-efi-amd64-bin",
    "grub-pc-bin",
    "grub2-common",
    "ifupdown-",
    "initramfs-tools",
    "iproute2",
    "iputils-ping",
    "kmod",
    "less",
    "libnss-myhostname",
    "netbase",
    "nano",
    "openssh-server",
    "procps",
    "sudo",
    "systemd-sysv",
    "tzdata",
    "udev",
    "unattended-upgrades",
    "zstd",
)

# Raise it when a change of the functions below changes the image; it is part of the cache's key.
FORMAT = 1
SECTOR = 512
SIZE_GIB = 2
BIOS_BOOT_SECTOR = 2048
ESP_SECTOR = 8192
ROOT_SECTOR = 73728
# The guest's way to the host in the default VPC: gateway_address() of network.py.
GATEWAY = "172.31.0.1"
END_SECTOR = SIZE_GIB * 2**30 // SECTOR - 2048
DEADLINE_SECONDS = 1800.0


class BaseImageFailed(RuntimeError):
    """A tool that makes the image failed; the message ends with what it said."""


@dataclass(frozen=True)
class BaseImage:
    """A raw disk image, and what RegisterImage says of it."""

    path: Path
    name: str
    description: str
    size_gib: int
    architecture: str
    boot_mode: str
    distribution: Distribution


@dataclass(frozen=True)
class Sources:
    """Where the packages of a distribution come from, as this host's own apt has it."""

    mirror: str
    security_mirror: str
    proxy: str | None


def make_base_image(suite: Suite, cache: Path, report: Callable[[str], None]) -> BaseImage:
    """Return the base image of the suite, made at the first call and taken from the cache afterwards.

    The cache's key is the content of the recipe, so a changed recipe makes a new image. `report` gets a line for each
    step. Raises BaseImageFailed, and OSError for a full disk.
    """
    distribution = DISTRIBUTIONS[suite]
    sources = host_sources(distribution)
    path = cached_path(suite, sources, cache)
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=cache) as folder, one_at_a_time(cache):
            if not path.exists():
                identity = uuid.uuid5(uuid.NAMESPACE_OID, recipe_digest(suite, sources))
                made = build_image(distribution, sources, identity, Path(folder), report)
                made.rename(path)
    return describe_image(distribution, path)


def cached_path(suite: Suite, sources: Sources, cache: Path) -> Path:
    """Return where the base image of a suite is, or will be, as the recipe is now."""
    distribution = DISTRIBUTIONS[suite]
    name = f"{distribution.vendor.lower()}-{distribution.version}"
    return cache / f"{name}-{recipe_digest(suite, sources)[:16]}.raw"


@contextlib.contextmanager
def one_at_a_time(cache: Path) -> Iterator[None]:
    """Let other processes wait that would make the same image at the same time."""
    with (cache / ".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def default_cache() -> Path:
    """Return where base images are kept: $ASSAY_IMAGE_CACHE, or assay/images in the user's cache directory."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(os.environ.get("ASSAY_IMAGE_CACHE") or caches / "assay" / "images")


def describe_image(distribution: Distribution, path: Path) -> BaseImage:
    """Return the image with a name as its publisher gives it; the date is the day on which it was made."""
    date = time.strftime("%Y%m%d", time.gmtime(path.stat().st_mtime))
    return BaseImage(
        path=path,
        name=distribution.image_name.format(date=date),
        description=f"{distribution.title} ({date})",
        size_gib=SIZE_GIB,
        architecture="x86_64",
        boot_mode="uefi-preferred",
        distribution=distribution,
    )


def recipe_digest(suite: Suite, sources: Sources) -> str:
    """Return the sha256 of all that decides what is in the image: suite, sources, packages, layout and recipe."""
    layout = (FORMAT, SIZE_GIB, BIOS_BOOT_SECTOR, ESP_SECTOR, ROOT_SECTOR)
    digest = hashlib.sha256(repr((DISTRIBUTIONS[suite], sources, PACKAGES, layout)).encode())
    for path in recipe_files(DISTRIBUTIONS[suite]):
        digest.update(str(path.relative_to(RECIPE)).encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def recipe_files(distribution: Distribution) -> list[Path]:
    """Return the files of the recipe that go into the images of a distribution, in order."""
    folders = ("overlay", distribution.vendor.lower())
    files = [path for folder in folders for path in (RECIPE / folder).rglob("*") if path.is_file()]
    return sorted([*RECIPE.glob("*.sh"), *files])


def host_sources(distribution: Distribution = DISTRIBUTIONS["bookworm"]) -> Sources:
    """Return the mirrors of a distribution and the proxy that this host's apt uses, or its own where it has none."""
    mirror, security_mirror, proxy = distribution.mirror, distribution.security_mirror, None
    if shutil.which("apt-get"):
        layout = "$(ORIGIN)|$(LABEL)|$(REPO_URI)"
        command = ["apt-get", "indextargets", "--format", layout, "Created-By: Packages"]
        for line in subprocess.run(command, capture_output=True, text=True, check=False).stdout.splitlines():
            origin, label, address = line.split("|", 2)
            if origin == label == distribution.vendor and mirror == distribution.mirror:
                mirror = address.rstrip("/")
            elif origin == distribution.vendor and label == f"{origin}-Security":
                security_mirror = address.rstrip("/")
        command = ["apt-config", "shell", "proxy", "Acquire::http::Proxy"]
        answer = subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
        proxy = shlex.split(answer)[0].partition("=")[2] if answer else None
    return Sources(mirror, security_mirror, proxy or os.environ.get("http_proxy") or None)


def build_image(
    distribution: Distribution, sources: Sources, identity: uuid.UUID, folder: Path, report: Callable[[str], None]
) -> Path:
    """Make the image in the folder and return its path. The steps are literal, in the order in which they run."""
    overlay, root_archive, image = folder / "overlay.tar", folder / "root.tar", folder / "image.raw"
    esp_serial = identity.hex[:8].upper()
    report(f"{distribution.title}: installing packages (mmdebstrap, about a minute)")
    pack_overlay(overlay, sources, distribution)
    keyring = find_keyring(distribution, sources, folder)
    serial = f"{esp_serial[:4]}-{esp_serial[4:]}"
    install_packages(distribution, sources, keyring, overlay, root_archive, identity, serial)
    report(f"{distribution.title}: making the disk image")
    boot_image, core_image, efi_image = take_boot_files(root_archive, folder)
    lay_partitions(image, identity)
    make_root_file_system(root_archive, image, identity, folder)
    make_esp(efi_image, image, esp_serial, folder)
    embed_grub(image, boot_image, core_image)
    return image


def pack_overlay(archive: Path, sources: Sources, distribution: Distribution) -> None:
    """Write recipe/overlay and apt's sources as a tar archive owned by root, whatever the checkout's modes are.

    What a folder with the distribution's name holds comes on top.
    """
    suite = distribution.suite
    security_uris = f"Types: deb\nURIs: {sources.security_mirror}\nSuites: {suite}-security\n"
    rest = f"Components: {distribution.components}\nSigned-By: {distribution.keyring}\n"
    apt_sources = f"Types: deb\nURIs: {sources.mirror}\nSuites: {suite} {suite}-updates\n{rest}\n{security_uris}{rest}"
    files = {
        Path(*path.relative_to(RECIPE).parts[1:]): path.read_bytes()
        for path in recipe_files(distribution)
        if path.parent != RECIPE
    }
    files[Path(f"etc/apt/sources.list.d/{distribution.vendor.lower()}.sources")] = apt_sources.encode()
    files |= proxy_files(sources.proxy)
    with tarfile.open(archive, "w") as tar:
        for path, content in sorted(files.items()):
            entry = tarfile.TarInfo(str(path))
            entry.size, entry.mode = len(content), 0o755 if content.startswith(b"#!") else 0o644
            tar.addfile(entry, io.BytesIO(content))


def proxy_files(proxy: str | None) -> dict[Path, bytes]:
    """Return what tells the guest of this host's proxy; a proxy on the host's loopback is the gateway to the guest.

    Nothing is handed on of a proxy that wants a password: an image is no place for one.
    """
    parts = urllib.parse.urlsplit(proxy or "")
    if not parts.hostname or parts.username or parts.password:
        return {}
    host = GATEWAY if parts.hostname == "localhost" or parts.hostname.startswith("127.") else parts.hostname
    address = f"http://{host}:{parts.port or 80}"
    names = ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY")
    environment = [f"{name}={address}" for name in names] + ["no_proxy=localhost,127.0.0.1,169.254.169.254"]
    return {
        Path("etc/apt/apt.conf.d/01proxy"): f'Acquire::http::Proxy "{address}";\n'.encode(),
        Path("etc/environment"): ("\n".join(environment) + "\n").encode(),
    }


def find_keyring(distribution: Distribution, sources: Sources, folder: Path) -> Path:
    """Return the keys of a distribution: this host's, or those of its package, which is known by its hash.

    Raises BaseImageFailed for a host without keys, or a package that is another, and OSError where there is none.
    """
    if distribution.keyring.exists():
        return distribution.keyring
    place, expected = distribution.package_of_keys
    if not place:
        raise BaseImageFailed(f"this host has no keys of {distribution.title}: `ci/invoke` installs all that is needed")
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({"http": sources.proxy} if sources.proxy else None)
    )
    with opener.open(f"{sources.mirror}/{place}", timeout=DEADLINE_SECONDS) as answer:
        content = answer.read()
    if hashlib.sha256(content).hexdigest() != expected:
        raise BaseImageFailed(f"the package of the keys of {distribution.title} at {sources.mirror} is another one")
    package, unpacked = folder / "keys.deb", folder / "keys"
    package.write_bytes(content)
    run(["dpkg-deb", "--extract", str(package), str(unpacked)])
    return unpacked / distribution.keyring.relative_to("/")


def install_packages(
    distribution: Distribution,
    sources: Sources,
    keyring: Path,
    overlay: Path,
    root_archive: Path,
    identity: uuid.UUID,
    esp_serial: str,
) -> None:
    """Run mmdebstrap; the result is a tar archive of the whole root file system."""
    settings = f"export ROOT_UUID={identity} ESP_SERIAL={esp_serial}\n"
    suite, components = distribution.suite, distribution.components
    command = [
        "mmdebstrap",
        f"--mode={'root' if os.geteuid() == 0 else 'unshare'}",
        "--variant=minbase",
        f"--include={','.join((*PACKAGES, distribution.kernel))}",
        f"--keyring={keyring}",
        "--dpkgopt=path-exclude=/usr/share/man/*",
        "--dpkgopt=path-exclude=/usr/share/doc/*",
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        f"--customize-hook=tar-in {shlex.quote(str(overlay))} /",
        f"--customize-hook={settings}{(RECIPE / 'customize.sh').read_text()}",
        *([f'--aptopt=Acquire::http::Proxy "{sources.proxy}"'] if sources.proxy else []),
        *([] if keyring == distribution.keyring else ['--aptopt=APT::Sandbox::User "root"']),  # whose folder it is in
        suite,
        str(root_archive),
        f"deb [signed-by={keyring}] {sources.mirror} {suite} {components}",
        f"deb [signed-by={keyring}] {sources.mirror} {suite}-updates {components}",
        f"deb [signed-by={keyring}] {sources.security_mirror} {suite}-security {components}",
    ]
    run(command)


def take_boot_files(root_archive: Path, folder: Path) -> tuple[bytes, bytes, bytes]:
    """Return GRUB's boot.img, core.img and EFI program, which customize.sh left in /boot/assay."""
    run(["tar", "--extract", "--file", str(root_archive), "--directory", str(folder), "./boot/assay"])
    found = folder / "boot" / "assay"
    return tuple((found / name).read_bytes() for name in ("boot.img", "core.img", "bootx64.efi"))  # type: ignore[return-value]


def lay_partitions(image: Path, identity: uuid.UUID) -> None:
    """Write the partition table: numbers 14 and 15 first, as on Debian's images, so that number 1 can grow."""
    with image.open("wb") as file:
        file.truncate(SIZE_GIB * 2**30)
    table = (
        f"label: gpt\nlabel-id: {identity}\n"
        f"14: start={BIOS_BOOT_SECTOR} size={ESP_SECTOR - BIOS_BOOT_SECTOR} type=21686148-6449-6E6F-744E-656564454649\n"
        f"15: start={ESP_SECTOR} size={ROOT_SECTOR - ESP_SECTOR} type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B\n"
        f"1: start={ROOT_SECTOR} size={END_SECTOR - ROOT_SECTOR} type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709\n"
    )
    run(["sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", str(image)], text=table)


def make_root_file_system(root_archive: Path, image: Path, identity: uuid.UUID, folder: Path) -> None:
    """Fill the root partition from the archive. Unpacking needs root's view of owners: a user gets it by unshare."""
    root = folder / "root"
    script = (
        'set -e; mkdir -p "$1"; tar --extract --numeric-owner --file "$2" --directory "$1" '
        '--exclude="./dev/*" --exclude="./boot/assay"; '
        'mke2fs -q -t ext4 -L root -U "$4" -E "offset=$5,root_owner=0:0,discard" -d "$1" "$3" "$6"; rm -rf "$1"'
    )
    blocks = (END_SECTOR - ROOT_SECTOR) * SECTOR // 4096
    positions = [str(ROOT_SECTOR * SECTOR), f"{blocks * 4}k"]
    as_root = [] if os.geteuid() == 0 else ["unshare", "--map-auto", "--map-root-user"]
    run([*as_root, "sh", "-c", script, "sh", str(root), str(root_archive), str(image), str(identity), *positions])


def make_esp(efi_image: bytes, image: Path, serial: str, folder: Path) -> None:
    """Make the EFI system partition with GRUB as the removable-media loader, which every firmware starts."""
    esp, program = folder / "esp.fat", folder / "bootx64.efi"
    program.write_bytes(efi_image)
    with esp.open("wb") as file:
        file.truncate((ROOT_SECTOR - ESP_SECTOR) * SECTOR)
    run(["mkfs.vfat", "-i", serial, "-n", "EFI", str(esp)])
    run(["mmd", "-i", str(esp), "::EFI", "::EFI/BOOT"])
    run(["mcopy", "-i", str(esp), str(program), "::EFI/BOOT/BOOTX64.EFI"])
    write_sparse(image, ESP_SECTOR * SECTOR, esp.read_bytes())


def embed_grub(image: Path, boot_image: bytes, core_image: bytes) -> None:
    """Put boot.img into the first sector and core.img into the BIOS-boot partition.

    The fields are GRUB's own (include/grub/i386/pc/boot.h): where core.img starts (0x5c), the check of the boot drive
    switched off (0x66), and in the last entry of core.img's first sector where the rest of it is.
    """
    boot = bytearray(boot_image[:440])
    struct.pack_into("<Q", boot, 0x5C, BIOS_BOOT_SECTOR)
    boot[0x66:0x68] = b"\x90\x90"
    core = bytearray(core_image)
    sectors = -(-len(core) // SECTOR)
    if sectors > ESP_SECTOR - BIOS_BOOT_SECTOR:
        raise BaseImageFailed(f"GRUB's core image ({len(core)} bytes) is larger than its partition")
    struct.pack_into("<QHH", core, SECTOR - 12, BIOS_BOOT_SECTOR + 1, sectors - 1, 0x820)
    with image.open("r+b") as file:
        file.write(boot)
        file.seek(BIOS_BOOT_SECTOR * SECTOR)
        file.write(core)


def write_sparse(image: Path, offset: int, content: bytes) -> None:
    """Write the content at the offset, leaving holes where it is zero."""
    with image.open("r+b") as file:
        for start in range(0, len(content), 4096):
            piece = content[start : start + 4096]
            if any(piece):
                file.seek(offset + start)
                file.write(piece)


def run(command: list[str], text: str | None = None, folder: Path | None = None) -> None:
    """Run a tool, in the folder. Raises BaseImageFailed: the end of what it said, or the package to install."""
    environment = {**os.environ, "LC_ALL": "C", "PATH": os.environ.get("PATH", "") + ":/usr/sbin:/sbin"}
    try:
        subprocess.run(
            command,
            input=text,
            env=environment,
            cwd=folder,
            text=True,
            check=True,
            timeout=DEADLINE_SECONDS,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=None if text is not None else subprocess.DEVNULL,
        )
    except FileNotFoundError as error:
        raise BaseImageFailed(f"{command[0]} is not installed: `ci/invoke` installs all that is needed") from error
    except subprocess.TimeoutExpired as error:
        raise BaseImageFailed(f"{command[0]} did not end within {DEADLINE_SECONDS:.0f} s") from error
    except subprocess.CalledProcessError as error:
        said = "\n".join(error.stdout.splitlines()[-15:])
        raise BaseImageFailed(f"{command[0]} failed with status {error.returncode}:\n{said}") from error
