"""Stage 2: apply the hardening subjects to the build guest, in one program; boot again where the kernel changed."""

from dataclasses import dataclass, replace

from pipeline.errors import GuestUnreachable, StepFailed
from pipeline.guest.facts import gather_facts
from pipeline.guest.program import StepResult
from pipeline.guest.shell import can_log_in
from pipeline.harden import harden_steps, rollback_command
from pipeline.harden.restart import reboot_question
from pipeline.harden.sshd import commit_command
from pipeline.report.evidence import Layer, Result, Status
from pipeline.stages.context import Context
from pipeline.stages.guests import boot_again
from pipeline.stages.launch import Launched, read_identity
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
    results = apply_steps(context, launched)
    if context.spec.harden.sshd or context.spec.harden.firewall:
        prove_second_login(context, launched)
    if context.spec.harden.updates and context.spec.harden.updates.at_build != "none":
        launched = run_newest_kernel(context, launched)
    return Hardened(launched, sum(result.outcome == "changed" for result in results))


def apply_steps(context: Context, launched: Launched) -> tuple[StepResult, ...]:
    """Run every step that the spec asks of this guest. Raises StepFailed, GuestUnreachable."""
    steps = harden_steps(launched.facts, context.spec)
    return run_steps(context, launched.guest.shell, steps, Layer.HARDENED, "harden")


def run_newest_kernel(context: Context, launched: Launched) -> Launched:
    """Boot the guest again where the updates brought another kernel, and carry on from there (H16).

    It is the same guest under the same pinned host key. All steps run once more: what the new kernel forgot is set
    again, and recorded as changed. Raises CloudFailed, StepFailed, GuestUnreachable, HostKeyMismatch, GuestFailed.
    """
    guest = launched.guest
    reason = guest.shell.run(reboot_question()).stdout.strip()
    if reason:
        with context.recorder.stage("reboot"):
            context.recorder.progress(reason)
            guest = boot_again(context, guest, "reboot", "instance")
            boot_id = read_identity(guest.shell)[1]
            launched = replace(launched, guest=guest, facts=gather_facts(guest.shell), boot_id=boot_id)
            apply_steps(context, launched)
            reason = guest.shell.run(reboot_question()).stdout.strip()
    context.recorder.add(kernel_result(reason))
    return launched


def kernel_result(reason: str) -> Result:
    """Return the result for the kernel that runs; `reason` says why it is not the one that it should be."""
    return Result(
        controls=("H16",),
        layer=Layer.HARDENED,
        status=Status.FAIL if reason else Status.PASS,
        title="the newest kernel runs",
        source="stages/harden",
        detail=reason,
    )


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
