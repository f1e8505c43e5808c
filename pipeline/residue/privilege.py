"""Programs that run with more rights than who starts them, against the package database (V03; seed [2])."""

from collections.abc import Iterator

from pipeline.residue.filesystems import Entry
from pipeline.residue.origin import Doubt, Origin
from pipeline.residue.vouch import in_usr

SET_ID = 0o6000
KNOWN = frozenset(
    """
    at atd batch chage chfn chsh crontab dbus-daemon-launch-helper dotlockfile doas exim4 expiry fusermount fusermount3
    gpasswd grub2-set-bootflag lockfile locate mlocate plocate mount mount.cifs mount.ecryptfs_private mount.nfs
    newgidmap newgrp newuidmap ntfs-3g pam_extrausers_chkpwd pam_timestamp_check passwd ping ping6 pkexec
    polkit-agent-helper-1 postdrop postqueue pppd procmail screen sg snap-confine ssh-agent ssh-keysign staprun su sudo
    sudoedit suexec umount unix_chkpwd userhelper utempter vmware-user-suid-wrapper wall write write.ul Xorg.wrap
    """.split()  # noqa: SIM905 - a list of so many words is read as a text
)
"""Set-user-id and set-group-id programs that distributions ship so. dpkg keeps no modes: only names tell."""
WITH_CAPABILITIES = frozenset(
    """
    arping clockdiff dumpcap fping gst-ptp-helper mtr-packet newgidmap newuidmap ping snap-confine suexec
    """.split()  # noqa: SIM905
)


def doubts(origin: Origin) -> Iterator[Doubt]:
    """Yield programs with set-user-id, set-group-id or capabilities that no package ships so."""
    for entry in origin.system.files:
        if entry.is_program and entry.mode & SET_ID and not is_shipped(origin, entry, KNOWN):
            yield Doubt("V03", "set-user-id program", entry.path, f"mode {entry.mode & 0o7777:o}")
        if entry.capabilities and not is_shipped(origin, entry, WITH_CAPABILITIES):
            yield Doubt("V03", "program with capabilities", entry.path, entry.capabilities.hex())


def is_shipped(origin: Origin, entry: Entry, known: frozenset[str]) -> bool:
    """Say whether a package ships a program with these rights: by its mode where that is known, else by its name."""
    if not origin.packages.vouches_for(entry):
        return False
    mode = origin.packages.modes.get(in_usr(entry.path[1:]))
    if mode is not None and entry.mode & SET_ID:
        return entry.mode & SET_ID & ~mode == 0
    return entry.path.rpartition("/")[2] in known
