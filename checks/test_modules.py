"""The kernel, its modules, and the first root file system: what runs before anything else is the distribution's."""

import re
from collections.abc import Callable

import pytest

from checks.fixtures import Ask, File, Kind, is_boot_script

STRANGERS = r"""
{
  case %s in
    debian) cat /var/lib/dpkg/info/*.list ;;
    rpm) rpm -qal ;;
  esac | grep '[.]ko' | sed 's|^/usr||; s|^|package |'
  find /lib/modules/ /usr/lib/modules/ -type f -name '*.ko*' 2>/dev/null | sed 's|^/usr||; s|^|found |'
} | awk '$1 == "package" { known[$2] = 1; next } { count++ } !($2 in known) { print $2 } END { print "# " count + 0 }'
"""
VERIFIED = r"dpkg-query -W -f '${db:Status-Status} ${binary:Package}\n' | sed -nE 's/^installed ((%s)(:.*)?)$/\1/p'"
KERNELS = "linux-(image|modules)-.*|initramfs-tools.*|dracut.*|klibc-utils|libklibc|busybox.*|kmod|libkmod2|udev"
CHANGED = {
    "debian": f"dpkg --verify $({VERIFIED % KERNELS}) 2>/dev/null; true",
    "rpm": "rpm -V --nomtime $(rpm -qf /boot/vmlinuz-* --qf '%{NAME}\\n' | sort -u) dracut kmod; true",
}
LEFT_OUT = re.compile(r"^missing .* /usr/share/(doc|info|locale|man)(/|$)")
"""What small images leave out of packages."""
LOADED = r"""
PATH=$PATH:/usr/sbin:/sbin
grep -q . /proc/modules 2>/dev/null || exit 0
{
  cut -d ' ' -f 1 /proc/modules | sed 's/^/loaded /'
  grep -s '' /sys/module/*/srcversion | sed -n 's|^/sys/module/\([^/]*\)/srcversion:|runs \1 |p'
  modinfo $(cut -d ' ' -f 1 /proc/modules) 2>/dev/null | sed -n 's/^name: */file /p; s/^srcversion: */source /p'
} | awk '
  $1 == "loaded" { loaded[++count] = $2 }
  $1 == "runs" { runs[$2] = $3 }
  $1 == "source" { source = $2 }
  $1 == "file" { known[$2] = 1; sources[$2] = source; source = "" }
  END { for (number = 1; number <= count; number++) {
    module = loaded[number]
    if (!(module in known)) print module " has no file"
    else if (sources[module] != runs[module]) print module " is another one than its file"
  } }'
"""
INITRAMFS = r"""
command -v unmkinitramfs >/dev/null || { echo none; exit 0; }
unshare --mount sh -c '
mount -t tmpfs -o mode=700 tmpfs /mnt || exit 1
for image in /boot/initrd.img-*; do
  folder=/mnt/${image##*/}
  if [ "$(head -c 4 "$image" | od -An -tx1 | tr -d " \n")" = 28b52ffd ]; then
    mkdir "$folder" && zstd -qdc "$image" >/mnt/archive &&
      (cd "$folder" && cpio -i --quiet --no-absolute-filenames </mnt/archive)
  else
    unmkinitramfs "$image" "$folder"
  fi 2>/dev/null || { echo "$image cannot be read"; continue; }
  cd "$folder" || exit 1
  [ -d main ] && parts="early* main" || parts=.
  for part in $parts; do (cd "$part" && find . -type f); done | sed "s/^..//" | sort >/mnt/names
  for part in $parts; do (cd "$part" && find . -type f -print0 | xargs -0 -r md5sum); done >/mnt/inside
  {
    sed "s|^|/|; p; s|^/|/usr/|" /mnt/names
    sed "s|^|/etc/initramfs-tools/|; p; s|/conf/|/|" /mnt/names
    sed -nE "s,^(usr/)?bin/,/usr/lib/klibc/bin/,p" /mnt/names
    find /usr/share/initramfs-tools /usr/lib/initramfs-tools/bin -type f 2>/dev/null
  } | xargs -d "\n" md5sum 2>/dev/null >/mnt/outside
  awk "NR == FNR { known[\$1] = 1; next } !(\$1 in known) { print substr(\$0, 37) }" /mnt/outside /mnt/inside
  find . -path "*/scripts/*/ORDER" -exec cat {} + -o -path "*/conf/arch.conf" -exec cat {} + | sed "s/^/runs: /"
  cd /
done'
"""
"""Each file of it must be on the system too, byte by byte. Archives before the last one are unpacked by the kernel too.
It is opened in memory of its own, which ends with the question. unmkinitramfs would unpack zstd twice."""
MADE = re.compile(
    r"(usr/)?lib/modules/[^/]+/modules\.[a-z.]+|scripts/[a-z-]+/ORDER|conf/(arch\.conf|modules)"
    r"|etc/(fstab|ld\.so\.cache|passwd|dhcpcd\.conf|mdadm/mdadm\.conf(\.tmp)?|initiatorname\.iscsi)|\.random-seed"
    r"|kernel/x86/microcode/[\w.]+"
)
"""What update-initramfs writes itself."""
ORDERED = re.compile(
    r'runs: (/scripts/[\w./-]+ "\$@"|\[ -e /conf/param\.conf \] && \. /conf/param\.conf|DPKG_ARCH=\w+|)'
)
"""The lines of what it writes that the first process runs."""


@pytest.mark.controls("V09", layers="LB")
def test_modules_belong_to_packages(ask: Ask, family: str) -> None:
    """Each module of a kernel came with a package."""
    *strange, count = ask(STRANGERS % family).splitlines()
    assert strange == []
    if count == "# 0":
        pytest.skip("there is no module: the kernel is of one piece, or another machine's")


@pytest.mark.controls("V09", layers="LB")
def test_kernels_are_unchanged(ask: Ask, family: str) -> None:
    """Kernels, their modules and what makes the initramfs are byte for byte as the packages brought them."""
    lines = ask(CHANGED[family]).splitlines()
    assert [line for line in lines if " c /" not in line and not LEFT_OUT.search(line)] == []


@pytest.mark.controls("V09", layers="LB")
def test_loaded_modules_are_those_of_the_kernel(ask: Ask) -> None:
    """Each module that is loaded is the one in the folder of the running kernel."""
    assert ask(LOADED).splitlines() == []


@pytest.mark.controls("V09", layers="LB")
def test_the_initramfs_holds_what_the_system_has(ask: Ask) -> None:
    """What runs first is what packages brought: the initramfs holds nothing that the system does not have as well."""
    found = ask(INITRAMFS).splitlines()
    if found == ["none"]:
        pytest.skip("the initramfs is not one of initramfs-tools, or there is none: it is not opened")
    assert [line for line in found if not MADE.fullmatch(line) and not ORDERED.fullmatch(line)] == []


@pytest.mark.controls("V09", "V04", layers="LB")
def test_scripts_of_the_initramfs_belong_to_packages(
    files: tuple[File, ...], unpackaged: Callable[[Kind], list[str]]
) -> None:
    """Each script that goes into the initramfs came with a package."""
    if not any(is_boot_script(file) for file in files):
        pytest.skip("nothing here makes an initramfs")
    assert unpackaged(is_boot_script) == []
