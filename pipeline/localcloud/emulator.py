"""What runs the guests: KVM where it works, else an emulator that is fast enough.

Without KVM each instruction is translated. Linux lays a library at another address in each process, and an old QEMU
translates it again for each: measured with 7.2, a guest takes 19-22 ms to start `/bin/true`, and 5-7 ms with 10.0.
Debian 12 has 7.2, and a newer one among its backports. That is taken by apt, which verifies it, and unpacked into the
cache: nothing of the host is changed, and nobody needs to be root.
"""

import contextlib
import functools
import logging
import os
import platform
import re
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.localcloud.base_image import (
    KEYRING,
    BaseImageFailed,
    default_cache,
    host_sources,
    one_at_a_time,
    run,
)

Accelerator = Literal["kvm", "tcg"]

QEMU = "qemu-system-x86_64"
PROBE_FIRMWARE = Path("/usr/share/ovmf/OVMF.fd")
PROBE_SECONDS = 20.0
SLOW_BEFORE = 8
"""The first version that is left as it is. Of 7.2 it was measured that it is slow, and of 10.0 that it is not."""
BACKPORTS = "bookworm-backports"
PACKAGES = ("qemu-system-x86", "qemu-system-common", "qemu-system-data", "seabios")
"""All else that these need is needed by Debian 12's own as well, and there with it."""

log = logging.getLogger("localcloud")


@dataclass(frozen=True)
class Emulator:
    """A QEMU, its version, and where it finds the firmware that belongs to it, unless that is built in."""

    program: str
    version: tuple[int, ...]
    data: tuple[Path, ...] = ()

    @property
    def command(self) -> list[str]:
        """The beginning of each command line."""
        return [self.program, *(word for folder in self.data for word in ("-L", str(folder)))]


@functools.cache
def choose_emulator() -> Emulator:
    """Return the QEMU that runs the guests of this process: the host's own, or a newer one where that is slow.

    The first call on such a host fetches it (14 MB). Where that fails the host's own does it, which is said in the log.
    Raises OSError where there is none at all.
    """
    own = Emulator(QEMU, read_version(QEMU))
    if own.version >= (SLOW_BEFORE,) or accelerator() == "kvm" or not runs_debian_12():
        return own
    try:
        return fetch_emulator(default_cache())
    except (BaseImageFailed, OSError) as error:
        log.warning("no newer QEMU could be had, and guests are slower with this one: %s", error)
        return own


def read_version(program: str) -> tuple[int, ...]:
    """Return what a QEMU says of itself. Raises OSError when it does not run, or says nothing that is known."""
    answer = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)
    found = re.search(r"version (\d+)\.(\d+)\.(\d+)", answer.stdout)
    if answer.returncode or not found:
        raise OSError(f"{program} does not run: {answer.stderr.strip()[-300:]}")
    return tuple(int(part) for part in found.groups())


def runs_debian_12() -> bool:
    """Return whether this host is a Debian 12."""
    with contextlib.suppress(OSError):
        release = platform.freedesktop_os_release()
        return (release.get("ID"), release.get("VERSION_ID")) == ("debian", "12")
    return False


def fetch_emulator(cache: Path) -> Emulator:
    """Return the QEMU of Debian's backports, unpacked at the first call. Raises BaseImageFailed, OSError."""
    folder = cache / f"qemu-{BACKPORTS}"
    if not folder.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making-", dir=cache) as making, one_at_a_time(cache):
            if not folder.exists():
                log.info("a newer QEMU from Debian's backports: fetching it, for guests that start processes faster")
                unpack_emulator(Path(making)).rename(folder)
    return describe_emulator(folder)


def describe_emulator(folder: Path) -> Emulator:
    """Return the QEMU that was unpacked there. Raises OSError when it does not run here."""
    program = str(folder / "usr" / "bin" / QEMU)
    data = tuple(folder / "usr" / "share" / name for name in ("seabios", "qemu"))
    return Emulator(program, read_version(program), data)


def unpack_emulator(folder: Path) -> Path:
    """Fetch and unpack the packages in the folder, and return where. Raises BaseImageFailed, OSError."""
    sources, lists, packages, unpacked = (folder / name for name in ("sources.list", "lists", "packages", "unpacked"))
    for made in (lists / "partial", packages / "archives" / "partial", unpacked):
        made.mkdir(parents=True)
    sources.write_text(f"deb [signed-by={KEYRING}] {host_sources().mirror} {BACKPORTS} main\n")
    settings = {
        "Dir::Etc::SourceList": sources,
        "Dir::Etc::SourceParts": "-",
        "Dir::State::Lists": lists,
        "Dir::Cache": packages,
        "APT::Sandbox::User": "root",  # whose folder this is, where root asks
        "Acquire::http::Timeout": 20,
        "Acquire::Retries": 0,
    }
    apt = ["apt-get", "-qq", *(f"-o{name}={value}" for name, value in settings.items())]
    run([*apt, "update"])
    run([*apt, "--target-release", BACKPORTS, "download", *PACKAGES], folder=packages)
    for package in packages.glob("*.deb"):
        run(["dpkg-deb", "--extract", str(package), str(unpacked)])
    describe_emulator(unpacked)
    return unpacked


def accelerator() -> Accelerator:
    """Return "kvm" where a probe showed that a guest boots with it, and "tcg" otherwise.

    /dev/kvm may exist, open, and still break every guest. The probe's answer is remembered until the host boots again.
    """
    if not os.access("/dev/kvm", os.R_OK | os.W_OK) or not PROBE_FIRMWARE.exists():
        return "tcg"
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "assay"
    remembered = cache / f"accelerator-{boot_id}"
    with contextlib.suppress(FileNotFoundError):
        return "kvm" if remembered.read_text() == "kvm" else "tcg"
    found: Accelerator = "kvm" if probe_kvm() else "tcg"
    cache.mkdir(parents=True, exist_ok=True)
    for old in cache.glob("accelerator-*"):
        old.unlink(missing_ok=True)
    remembered.write_text(found)
    return found


def probe_kvm() -> bool:
    """Boot UEFI firmware with KVM: it runs in long mode, with timers and PCI, and says so on the serial port."""
    with tempfile.TemporaryDirectory(prefix="assay-kvm-") as folder:
        log = Path(folder) / "serial.log"
        machine = ["-machine", "pc", "-m", "128", "-nodefaults", "-display", "none"]
        firmware = ["-bios", str(PROBE_FIRMWARE), "-serial", f"file:{log}"]
        command = [QEMU, "-accel", "kvm", "-cpu", "host", *machine, *firmware]
        try:
            process = subprocess.Popen(
                command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
            )
        except OSError:
            return False
        try:
            deadline = time.monotonic() + PROBE_SECONDS
            while time.monotonic() < deadline and process.poll() is None:
                if log.exists() and re.search(rb"UEFI|BdsDxe", log.read_bytes()):
                    return True
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(0.1)
            return False
        finally:
            process.kill()
            process.wait()
