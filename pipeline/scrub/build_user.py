"""The build's own way in (S10). It is used until the end, so most of it goes with the power-off."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.spec import Spec

BUILD_DROP_IN = "/etc/ssh/sshd_config.d/01-assay-build.conf"
BUILD_SUDO = "/etc/sudoers.d/zz-assay-build"
CLOUD_INIT_SUDO = "/etc/sudoers.d/90-cloud-init-users"
LEAVING = "/run/assay-leaving"
"""Names the account that the power-off removes. On a tmpfs."""


def steps(facts: Facts, spec: Spec) -> tuple[Step, ...]:
    """Return the step that leaves the build's user nothing but sudo, which the power-off takes.

    cloud-init's own grant goes now; it comes back at the first boot, for the launch user. Where the image is not to
    have the build's user, the account goes with the power-off, too.
    """
    kept = {user.name for user in spec.users} | {spec.image.launch_user}
    variables = assign(
        drop_in=BUILD_DROP_IN,
        cloud_init_sudo=CLOUD_INIT_SUDO,
        build_sudo=BUILD_SUDO,
        no_flag=f"Defaults:{spec.ssh.user} !admin_flag\n" if facts.family == "debian" else "",
        user=spec.ssh.user,
        leaving=LEAVING,
        name="" if spec.ssh.user in kept else spec.ssh.user,
    )
    title = "take the build's own user out of sshd and cloud-init's sudo"
    return (Step("build_user", ("S10", "H03"), title, variables + LEAVE_SUDO_ONLY, variables + HAS_SUDO_ONLY),)


# Debian's sudo leaves .sudo_as_admin_successful in a home at each use, which counts as a history (S04): not this one.
HAS_SUDO_ONLY = r"""
[ ! -e "$drop_in" ]
[ ! -e "$cloud_init_sudo" ]
[ "$(cat "$leaving" 2>/dev/null)" = "$name" ]
[ "$user" = root ] || [ -e "$build_sudo" ]
"""

LEAVE_SUDO_ONLY = r"""
if [ "$user" != root ]; then
    (umask 337 && printf '%s%s ALL=(ALL:ALL) NOPASSWD: ALL\n' "$no_flag" "$user" >"$build_sudo.assay-new")
    mv -f "$build_sudo.assay-new" "$build_sudo"
fi
rm -f "$drop_in" "$cloud_init_sudo"
(umask 077 && printf '%s\n' "$name" >"$leaving")
"""
