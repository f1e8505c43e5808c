"""What is set on the guest: one file for each subject, each a pure function of facts and options to steps."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden import clock, first_boot, kernel, sshd, updates, users
from pipeline.spec import Spec

__all__ = ["harden_steps"]


def harden_steps(facts: Facts, spec: Spec) -> tuple[Step, ...]:
    """Return every step that hardens this guest as the spec says. sshd comes last: its users exist by then."""
    options = spec.harden
    return (
        *(updates.steps(facts, options.updates) if options.updates else ()),
        *(clock.steps(options.clock) if options.clock else ()),
        *(kernel.steps(options.kernel) if options.kernel else ()),
        *users.steps(spec),
        *(first_boot.steps(facts, spec) if options.first_boot else ()),
        *(sshd.steps(facts, spec, options.sshd) if options.sshd else ()),
    )
