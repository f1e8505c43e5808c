"""The build's own way in (S10). It is used until the end, so most of it goes with the power-off."""

from pipeline.guest.step import Step
from pipeline.guest.variables import assign
from pipeline.spec import Spec

BUILD_DROP_IN = "/etc/ssh/sshd_config.d/01-assay-build.conf"
LEAVING = "/run/assay-leaving"
"""Names the account that the power-off removes. On a tmpfs."""


def steps(spec: Spec) -> tuple[Step, ...]:
    """Return the steps that keep the build's user out of the image, where the image is not to have it."""
    kept = {user.name for user in spec.users} | {spec.image.launch_user}
    variables = assign(drop_in=BUILD_DROP_IN, leaving=LEAVING, name="" if spec.ssh.user in kept else spec.ssh.user)
    test = variables + '[ ! -e "$drop_in" ]\n[ "$(cat "$leaving" 2>/dev/null)" = "$name" ]'
    action = variables + 'rm -f "$drop_in"\n(umask 077 && printf \'%s\\n\' "$name" >"$leaving")'
    return (Step("build_user", ("S10", "H03"), "let the build's own user in no longer", action, test),)
