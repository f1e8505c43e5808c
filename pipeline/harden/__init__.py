"""What is set on the guest: one file for each subject, each a pure function of facts and options to steps."""

from pipeline.guest.facts import Facts
from pipeline.guest.step import Step
from pipeline.harden import (
    audit,
    clock,
    firewall,
    first_boot,
    kernel,
    key_sync,
    login,
    mandatory_access,
    metadata,
    mounts,
    nftables,
    packages,
    permissions,
    product_guard,
    services,
    sshd,
    tool_updates,
    updates,
    users,
)
from pipeline.spec import Spec

__all__ = ["harden_steps", "rollback_command"]


def harden_steps(facts: Facts, spec: Spec) -> tuple[Step, ...]:
    """Return every step that hardens this guest as the spec says.

    sshd comes late: its users exist by then. The firewall comes last: it sees which port sshd has.
    """
    options = spec.harden
    return (
        *(updates.steps(facts, options.updates) if options.updates else ()),
        *needed_packages(facts, spec),
        *(clock.steps(options.clock) if options.clock else ()),
        *(kernel.steps(options.kernel) if options.kernel else ()),
        *(login.steps(options.login) if options.login else ()),
        *(permissions.steps() if options.permissions else ()),
        *(mounts.steps(facts, options.mounts) if options.mounts else ()),
        *(mandatory_access.steps(facts) if options.mandatory_access else ()),
        *(audit.steps(facts, options.audit) if options.audit else ()),
        *services.steps(options.services),
        *users.steps(spec),
        *(first_boot.steps(facts, spec) if options.first_boot else ()),
        *(tool_updates.steps(facts, options.tool_updates) if options.tool_updates else ()),
        *(key_sync.steps(facts, spec, options.key_sync) if options.key_sync else ()),
        *(product_guard.steps(facts, spec, options.product_guard) if options.product_guard else ()),
        *(metadata.steps(facts, options.metadata) if options.metadata else ()),
        *(sshd.steps(facts, spec, options.sshd) if options.sshd else ()),
        *(firewall.steps(facts, spec, options.firewall) if options.firewall else ()),
    )


def needed_packages(facts: Facts, spec: Spec) -> tuple[Step, ...]:
    """Return the step that installs all packages of the spec and of the subjects at once: a tool's start costs seconds.

    It carries the controls of the subjects that need one.
    """
    options = spec.harden
    by_root = options.metadata and options.metadata.reachable == "by-root"
    asks_alone = options.first_boot and not facts.cloud_init and facts.family == "debian"
    needed = (
        *((name, "H17", True) for name in options.packages),
        *((name, "H32", True) for name in (options.tool_updates.packages if options.tool_updates else ())),
        *((name, "H31", options.product_guard) for name in product_guard.PACKAGES[facts.family]),
        *((name, "H11", options.key_sync) for name in key_sync.PACKAGES[facts.family]),
        ("curl", "H15", asks_alone),
        (nftables.PACKAGE, "H20", options.firewall),
        (nftables.PACKAGE, "H21", by_root),
        (audit.PACKAGES[facts.family], "H25", options.audit),
        (mandatory_access.PACKAGES[facts.family], "H25", options.mandatory_access),
    )
    wanted = [(name, control) for name, control, is_needed in needed if is_needed]
    controls = dict.fromkeys([*(control for _, control in wanted), *(["H17"] if options.repositories else [])])
    return packages.steps(facts, (name for name, _ in wanted), tuple(controls), options.repositories)


def rollback_command() -> str:
    """Return the command that opens the guest again, should a second login have been refused (H07)."""
    return f"{firewall.rollback_command()}\n{sshd.rollback_command()}"
