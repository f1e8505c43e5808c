"""What goes before an image is made: one file for each subject, each a pure function to steps."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.scrub import (
    agents,
    build_user,
    cloud_init,
    credentials,
    forbidden,
    free_space,
    history,
    identity,
    keys,
    leftovers,
    logs,
    swap,
    writers,
)
from pipeline.scrub.power_off import power_off_command
from pipeline.spec import Spec

__all__ = ["power_off_command", "scrub_steps"]


def scrub_steps(facts: Facts, spec: Spec) -> tuple[Step, ...]:
    """Return every step of the scrub. The writers stop first; keys and history go last; then free space is overwritten.

    The session that runs them stays usable: sshd and sudo work until `power_off_command`.
    """
    return (
        *writers.steps(),
        *build_user.steps(facts, spec),
        *cloud_init.steps(spec),
        *credentials.steps(spec),
        *agents.steps(spec),
        *leftovers.steps(spec),
        *forbidden.steps(spec),
        *identity.steps(spec),
        *logs.steps(spec),
        *swap.steps(),
        *keys.steps(spec),
        *history.steps(spec),
        writers.held_inodes(),
        *free_space.steps(facts, free_space.choose_method(facts, spec)),
    )
