"""Mount options (H25; CIS, dev-sec): nothing runs from the folders that all may write to, and no device is there."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.harden.managed_file import ManagedFile
from pipeline.spec import MountsOptions

# debconf runs scripts out of the folder that this names.
APT_FOLDER = ManagedFile(
    "/etc/apt/apt.conf.d/52assay-mounts",
    '// Written by Assay: nothing runs from /tmp.\nAPT::ExtractTemplates::TempDir "/var/cache/debconf";\n',
)


def steps(facts: Facts, options: MountsOptions) -> tuple[Step, ...]:
    """Return the steps that write /etc/fstab. It counts from the next boot: the build's own /tmp is scrubbed."""
    lines = assign(lines="\n".join(fstab_lines(options)))
    mounts = Step("mounts", ("H25",), "mount options of /tmp, /var/tmp and /dev/shm", lines + WRITE, lines + IS_WRITTEN)
    if facts.family == "debian" and options.noexec:
        apt = Step("mounts", ("H25",), "apt unpacks no script into /tmp", APT_FOLDER.action, APT_FOLDER.test)
        return (mounts, apt)
    return (mounts,)


def fstab_lines(options: MountsOptions) -> tuple[str, ...]:
    """Return the lines of /etc/fstab."""
    limits = "nosuid,nodev,noexec" if options.noexec else "nosuid,nodev"
    return (
        f"tmpfs /tmp tmpfs mode=1777,size={options.tmp_percent}%,{limits} 0 0",
        f"/var/tmp /var/tmp none bind,{limits} 0 0",  # noqa: S108 - it is what is made safe here
        f"tmpfs /dev/shm tmpfs mode=1777,{limits} 0 0",
    )


OURS = r"""
ours() { awk '$1 !~ /^#/ && ($2 == "/tmp" || $2 == "/var/tmp" || $2 == "/dev/shm")' /etc/fstab; }
"""
IS_WRITTEN = OURS + '[ "$(ours)" = "$lines" ]\n'
WRITE = r"""
new=/etc/.fstab.assay-new
awk '$1 ~ /^#/ || ($2 != "/tmp" && $2 != "/var/tmp" && $2 != "/dev/shm")' /etc/fstab >"$new"
printf '%s\n' "$lines" >>"$new"
chmod 644 "$new"
mv -f "$new" /etc/fstab
"""
