# Runs inside mmdebstrap with the new root directory as $1, after the packages and the overlay are in.
# ROOT_UUID and ESP_SERIAL come from the environment.
set -eu
root=$1

cat > "$root/etc/fstab" <<FSTAB
UUID=$ROOT_UUID / ext4 rw,discard,errors=remount-ro 0 1
UUID=$ESP_SERIAL /boot/efi vfat defaults,noauto 0 0
FSTAB
echo localhost > "$root/etc/hostname"
mkdir -p "$root/boot/efi"

# What the overlay adds to the initial RAM disk is code: as a package's, it is in the database of packages.
package=$root/tmp/assay-initramfs
mkdir -p "$package/DEBIAN"
(cd "$root" && cp -p --parents etc/initramfs-tools/scripts/*/udev "$package")
(cd "$package" && md5sum etc/initramfs-tools/scripts/*/udev > DEBIAN/md5sums)
cat > "$package/DEBIAN/control" <<CONTROL
Package: assay-initramfs
Version: 1
Architecture: all
Maintainer: Assay <assay@localhost>
Description: initial RAM disk without udev
 The scripts with which the local cloud's images find their root file system.
CONTROL
chroot "$root" dpkg-deb --build /tmp/assay-initramfs /tmp/assay-initramfs.deb > /dev/null
chroot "$root" dpkg --install /tmp/assay-initramfs.deb
rm -r "$package" "$root/tmp/assay-initramfs.deb"

# The initramfs of the kernel's package was made before the overlay came.
chroot "$root" update-initramfs -u -k all

# What grub-install does, less the devices that it would look for.
mkdir -p "$root/boot/grub/i386-pc" "$root/boot/grub/x86_64-efi" "$root/boot/assay"
cp "$root"/usr/lib/grub/i386-pc/*.mod "$root"/usr/lib/grub/i386-pc/*.lst "$root"/usr/lib/grub/i386-pc/boot.img "$root/boot/grub/i386-pc/"
cp "$root"/usr/lib/grub/x86_64-efi/*.mod "$root"/usr/lib/grub/x86_64-efi/*.lst "$root/boot/grub/x86_64-efi/"
cat > "$root/boot/grub/early.cfg" <<EARLY
search.fs_uuid $ROOT_UUID root
set prefix=(\$root)/boot/grub
EARLY
modules="part_gpt ext2 search_fs_uuid normal configfile linux echo test"
chroot "$root" grub-mkimage -O i386-pc -o /boot/grub/i386-pc/core.img -p /boot/grub -c /boot/grub/early.cfg biosdisk $modules
chroot "$root" grub-mkimage -O x86_64-efi -o /boot/assay/bootx64.efi -p /boot/grub -c /boot/grub/early.cfg fat $modules
rm "$root/boot/grub/early.cfg"
cp "$root/boot/grub/i386-pc/core.img" "$root/boot/grub/i386-pc/boot.img" "$root/boot/assay/"

# update-grub writes the long form of this at the next kernel; it cannot here, for want of the device.
kernel=$(cd "$root/boot" && ls vmlinuz-* | sort -V | tail -n 1)
cat > "$root/boot/grub/grub.cfg" <<GRUB
set timeout=0
menuentry '$(. "$root/etc/os-release"; echo "$NAME")' {
  search.fs_uuid $ROOT_UUID root
  linux /boot/$kernel root=UUID=$ROOT_UUID ro $(. "$root/etc/default/grub"; echo "$GRUB_CMDLINE_LINUX")
  initrd /boot/initrd.img-${kernel#vmlinuz-}
}
GRUB

chroot "$root" systemctl enable --quiet systemd-networkd.service
chroot "$root" systemctl disable --quiet systemd-networkd-wait-online.service || true
# Generators and units that find nothing on such a disk.
mkdir -p "$root/etc/systemd/system-generators"
for generator in bless-boot cryptsetup debug gpt-auto hibernate-resume integritysetup rc-local system-update veritysetup; do
  ln -sf /dev/null "$root/etc/systemd/system-generators/systemd-$generator-generator"
done
for unit in cloud-init-hotplugd.socket dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  sys-fs-fuse-connections.mount modprobe@drm.service modprobe@fuse.service modprobe@efi_pstore.service systemd-pstore.service \
  proc-sys-fs-binfmt_misc.automount systemd-binfmt.service; do
  ln -sf /dev/null "$root/etc/systemd/system/$unit"
done
# A stage of cloud-init that has nothing left to do. Since 24.3 one process runs all stages, and waits for each.
if [ ! -e "$root/usr/lib/systemd/system/cloud-init-main.service" ] && [ ! -e "$root/lib/systemd/system/cloud-init-main.service" ]; then
  ln -sf /dev/null "$root/etc/systemd/system/cloud-config.service"
fi
# The timers of apt do the upgrades; the service only waits for a shutdown, with a Python of its own at each boot.
for unit in e2scrub_all.timer e2scrub_reap.service man-db.timer unattended-upgrades.service; do
  chroot "$root" systemctl disable --quiet $unit 2>/dev/null || true
done

# The overlay brought the sources in their newer form.
rm -f "$root/etc/apt/sources.list"

# Nothing of this build stays: identity, keys, logs, lists, and mmdebstrap's own settings.
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root"/etc/apt/apt.conf.d/99mmdebstrap "$root/var/lib/systemd/random-seed"
rm -f "$root"/var/cache/ldconfig/aux-cache "$root"/var/cache/apt/*.bin "$root"/var/lib/dpkg/*-old "$root"/etc/*-
: > "$root/etc/machine-id"
rm -rf "$root"/var/lib/cloud "$root"/var/cache/debconf/*-old "$root"/var/cache/man
find "$root/var/log" -type f -delete
