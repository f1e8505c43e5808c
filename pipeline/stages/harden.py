"""Stage 2: apply the hardening subjects to the build guest, in one program."""

from dataclasses import dataclass

from pipeline.errors import GuestUnreachable, StepFailed
from pipeline.guest.shell import can_log_in
from pipeline.harden import harden_steps, rollback_command
from pipeline.harden.sshd import commit_command
from pipeline.report.evidence import Layer
from pipeline.stages.context import Context
from pipeline.stages.launch import Launched
from pipeline.stages.programs import run_steps
from pipeline.verify.waivers import list_waivers


@dataclass(frozen=True)
class Hardened:
    """The build guest after hardening."""

    launched: Launched
    changed: int
    """How many steps changed something."""


def harden(context: Context, launched: Launched) -> Hardened:
    """Apply every subject that the spec asks for. Raises StepFailed, GuestUnreachable."""
    context.recorder.add(*list_waivers(context.spec.waivers))
    steps = harden_steps(launched.facts, context.spec)
    results = run_steps(context, launched.guest.shell, steps, Layer.HARDENED, "harden")
    if context.spec.harden.sshd or context.spec.harden.firewall:
        prove_second_login(context, launched)
    return Hardened(launched, sum(result.outcome == "changed" for result in results))


def prove_second_login(context: Context, launched: Launched) -> None:
    """Log in a second time while the first session is held; take back what shut it out otherwise (H07).

    That is the daemon's configuration, and the host firewall. Raises StepFailed when the second login is refused, or
    when nothing answers any more.
    """
    guest = launched.guest
    with context.recorder.stage("second login"):
        problem = "is refused"
        try:
            if can_log_in(guest.connector, context.spec.ssh.user, guest.key_pair, guest.host_keys):
                guest.shell.run(commit_command())
                return
        except GuestUnreachable as error:
            problem = f"gets no answer ({error.message})"
        guest.shell.run(rollback_command())
        raise StepFailed(
            f"harden: a second login {problem} after the change of sshd and firewall, which has been rolled back",
            resource=guest.instance.instance_id,
            region=context.region,
            hint="compare ssh.user with users and image.launch_user in the spec",
        )
