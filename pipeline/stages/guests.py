"""A guest: launched, reached by ssh under a pinned host key, waited for. The build and the fresh boot share this."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from getpass import getpass
from pathlib import Path
from typing import Literal

from pipeline.aws import instances, keys, spot_requests
from pipeline.aws.instances import Instance, Launch
from pipeline.aws.wait import wait_until
from pipeline.errors import (
    CloudFailed,
    DeadlinePassed,
    GuestFailed,
    GuestUnreachable,
    HostKeyMismatch,
    SpecInvalid,
)
from pipeline.guest.keys import KeyPair, load_key_file, make_key_pair, read_host_keys
from pipeline.guest.proxy_command import ProxyCommandConnector, proxy_command
from pipeline.guest.root_shell import RootShell
from pipeline.guest.shell import BastionConnector, Connector, DirectConnector, Shell, agent_holds, connect
from pipeline.report.text import make_visible
from pipeline.stages.context import Context
from pipeline.stages.network import Door

BOOT_SECONDS = 600.0
CLOUD_INIT_SECONDS = 600.0
REFUSALS_SECONDS = 5.0
"""A guest that goes down or comes up lets nobody in (pam_nologin): it is looked at again after so long."""
ANSWER_SECONDS = 15.0
"""A guest that goes down while it is asked never answers, and nothing closes its connection."""
ROOT_SHELLS = 3
BOOT_ID = "cat /proc/sys/kernel/random/boot_id"
GATE = "gate"
"""The role of the bastion and NAT instance of the build's own: it is always reached by its public address."""
CONSOLE_PATIENCE = 30
"""A guest is let in at most a thirtieth later than it could be: a second, of a boot of half a minute."""
BOOT_IS_OVER = """systemctl is-system-running --wait >/dev/null 2>&1
command -v cloud-init >/dev/null || exit 0
[ -e /run/cloud-init/result.json ] || cloud-init status --wait >/dev/null 2>&1
cat /run/cloud-init/result.json"""
"""systemd says when the last unit of the boot has started, those of cloud-init among them. `cloud-init status --wait`
costs an emulated guest seconds: it is asked only where there is no result then."""


@dataclass(frozen=True)
class Guest:
    """A running instance with a session open on it."""

    instance: Instance
    key_pair: KeyPair
    connector: Connector
    host_keys: tuple[str, ...]
    user_data: str
    user: str
    """Who is logged in."""
    door: Door
    shell: Shell


def make_key(context: Context, role: str, key_file: str | None = None) -> KeyPair:
    """Make an ed25519 key pair, or take the operator's own, and import its public half (A14, H26).

    The private half never leaves this process, or their agent. Raises SpecInvalid for a key file that others may read.
    """
    name = context.name(role)
    key_pair = load_own_key(key_file) if key_file else make_key_pair(name)
    context.journal.create(
        "key-pair",
        name,
        context.region,
        make=lambda: keys.import_key_pair(context.session, context.tags, name, key_pair.public_openssh),
        undo=lambda identity: keys.delete_key_pair(context.session, identity),
    )
    return key_pair


def load_own_key(key_file: str) -> KeyPair:
    """Return the operator's own key (H26). Raises SpecInvalid, also where their agent does not hold it."""
    key_pair = load_key_file(Path(key_file), ask_passphrase)
    if key_pair.private_openssh is None and not agent_holds(key_pair.public_openssh):
        raise SpecInvalid(f"the ssh agent does not hold the private half of {key_file}", hint="ssh-add it")
    return key_pair


def ask_passphrase() -> str:
    """Ask the user for the passphrase of an encrypted key; nothing of it is shown."""
    return getpass("passphrase of ssh.key_file: ")


def boot_guest(
    context: Context,
    role: str,
    launch: Launch,
    key_pair: KeyPair,
    user: str,
    door: Door,
    once_running: Callable[[Instance], None] = lambda instance: None,
) -> Guest:
    """Launch an instance, log in as `user` under the host key that its console printed, and wait for cloud-init.

    `once_running` is called while the guest still boots: its volume is as the image has it, or nearly.
    Raises CapacityMissing, GuestUnreachable, HostKeyMismatch, GuestFailed. The console's log is saved in any case.
    """
    name = context.name(role)

    def end(identity: str) -> None:
        if launch.spot:
            spot_requests.cancel_spot_requests(context.session, name)
        instances.terminate_instance(context.session, identity)

    with context.recorder.stage("boot"):
        instance_id = context.journal.create(
            "instance",
            name,
            context.region,
            make=lambda: instances.launch_instance(context.session, context.tags, name, launch),
            undo=end,
        )
        try:
            instance = instances.wait_running(context.session, instance_id, progress=context.recorder.progress)
            once_running(instance)
            return reach_guest(context, role, instance, launch, key_pair, user, door)
        finally:
            save_console(context, role, instance_id)


def reach_guest(
    context: Context, role: str, instance: Instance, launch: Launch, key_pair: KeyPair, user: str, door: Door
) -> Guest:
    """Return the guest once it lets us in and has finished booting."""
    context.recorder.progress("waiting for its host key on the console")
    host_keys = wait_for_host_keys(context, instance)
    connector = connector_to(context, role, instance, door)
    context.recorder.progress(f"waiting for ssh on {connector.address}")
    shell = connect(
        connector,
        user,
        key_pair,
        host_keys,
        deadline_seconds=BOOT_SECONDS,
        resource=instance.instance_id,
        region=context.region,
    )
    try:
        context.recorder.progress("waiting for the end of its boot")
        wait_for_boot(shell, instance.instance_id)
    except BaseException:
        shell.close()
        raise
    return Guest(instance, key_pair, connector, host_keys, launch.user_data, user, door, shell)


def boot_again(context: Context, guest: Guest, how: Literal["reboot", "stop-start"], role: str = "consumer") -> Guest:
    """Reboot a guest, or stop and start it, and return it with a session on the new boot. The old session is closed.

    The host keys are those of before; the public address may be another one. Raises CloudFailed, GuestUnreachable,
    HostKeyMismatch, GuestFailed. The console's log is saved in any case.
    """
    instance_id = guest.instance.instance_id
    boot_id = guest.shell.run(BOOT_ID).stdout
    guest.shell.close()
    with context.recorder.stage("boot"):
        try:
            return enter_next_boot(context, restart(context, guest, how), boot_id)
        finally:
            save_console(context, f"{role}-{how}", instance_id)


def restart(context: Context, guest: Guest, how: Literal["reboot", "stop-start"]) -> Guest:
    """Make the cloud boot a guest again, and return it as the cloud describes it then; its session is of before."""
    instance_id, progress = guest.instance.instance_id, context.recorder.progress
    if how == "reboot":
        instances.reboot_instance(context.session, instance_id)
        return guest
    instances.stop_instance(context.session, instance_id, progress=progress)
    instance = instances.start_instance(context.session, instance_id, progress=progress)
    connector = connector_to(context, "consumer", instance, guest.door)
    return replace(guest, instance=instance, connector=connector)


def enter_next_boot(context: Context, guest: Guest, boot_id: str) -> Guest:
    """Return the guest with a session open on a boot of another id. Raises GuestUnreachable, GuestFailed."""
    instance_id = guest.instance.instance_id
    context.recorder.progress("waiting for ssh on the next boot")
    try:
        shell = wait_until(
            lambda: enter_another_boot(guest, boot_id),
            lambda entered: entered is not None,
            what=instance_id,
            region=context.region,
            deadline_seconds=BOOT_SECONDS,
            state=lambda entered: "up" if entered else "not up again",
            sightings=1,
        )
    except DeadlinePassed as late:
        raise GuestUnreachable(
            f"it did not come up again within {BOOT_SECONDS:.0f} s", resource=instance_id, region=context.region
        ) from late
    assert shell is not None
    wait_for_boot(shell, instance_id)
    return replace(guest, shell=shell)


def enter_another_boot(guest: Guest, boot_id: str) -> Shell | None:
    """Return a session on the guest unless it is still the boot of this id, or lets nobody in yet."""
    shell = None
    try:
        shell = connect(
            guest.connector,
            guest.user,
            guest.key_pair,
            guest.host_keys,
            BOOT_SECONDS,
            resource=guest.instance.instance_id,
            refusals_seconds=REFUSALS_SECONDS,
        )
        if shell.run(BOOT_ID, deadline_seconds=ANSWER_SECONDS).stdout.strip() not in ("", boot_id.strip()):
            return shell
    except HostKeyMismatch:
        raise
    except (GuestUnreachable, GuestFailed):
        pass
    if shell:
        shell.close()
    return None


def open_root_shells(shell: Shell) -> tuple[RootShell, ...]:
    """Return the root shells that the checks are asked in.

    One more than the smallest instances have processors: these work on while what one has answered is under way.
    """
    return tuple(shell.open_root_shell() for _ in range(ROOT_SHELLS))


def connector_to(context: Context, role: str, instance: Instance, door: Door) -> Connector:
    """Return the way to an instance that the spec chooses. Raises GuestUnreachable where it has no address for it."""
    port, region, wanted = context.spec.ssh.port, context.region, context.spec.network
    if role == GATE:
        return DirectConnector(address_of(instance, "public", region), context.session.port_outside(port))
    match wanted.connect:
        case "bastion":
            assert door.bastion
            return BastionConnector(door.bastion, address_of(instance, "private", region), port)
        case "session-manager" | "instance-connect":
            return ProxyCommandConnector(proxy_command(wanted.connect, instance.instance_id, port, region), port)
    return DirectConnector(address_of(instance, wanted.address, region), context.session.port_outside(port))


def address_of(instance: Instance, kind: Literal["public", "private"], region: str) -> str:
    """Return the address by which an instance is reached. Raises GuestUnreachable without one."""
    address = instance.public_address if kind == "public" else instance.private_address
    if not address:
        raise GuestUnreachable(
            f"the instance has no {kind} address",
            resource=instance.instance_id,
            region=region,
            hint="choose another subnet, or set network.address in the spec",
        )
    return address


def wait_for_host_keys(context: Context, instance: Instance) -> tuple[str, ...]:
    """Return the host keys that the instance printed on its console: the only ones that will be accepted (H28)."""
    try:
        return wait_until(
            lambda: read_host_keys(instances.read_console(context.session, instance.instance_id)),
            bool,
            what=instance.instance_id,
            region=context.region,
            deadline_seconds=BOOT_SECONDS,
            state=lambda found: f"{len(found)} host keys on the console",
            sightings=1,
            patience=CONSOLE_PATIENCE,
        )
    except DeadlinePassed as late:
        raise GuestUnreachable(
            "no host key appeared on the console, so no connection can be trusted",
            resource=instance.instance_id,
            region=context.region,
        ) from late


def wait_for_boot(shell: Shell, instance_id: str) -> None:
    """Wait until the boot is over. Raises GuestFailed with the errors that cloud-init reports, where there is one."""
    output = shell.run(BOOT_IS_OVER, deadline_seconds=CLOUD_INIT_SECONDS)
    if not output.stdout.strip():
        if output.exit_status:
            raise GuestFailed("cloud-init left no result", resource=instance_id)
        return
    try:
        errors = json.loads(output.stdout)["v1"]["errors"]
    except (ValueError, KeyError, TypeError):
        raise GuestFailed("cloud-init left a result that cannot be read", resource=instance_id) from None
    if errors:
        raise GuestFailed(f"cloud-init failed: {'; '.join(map(str, errors))[:1000]}", resource=instance_id)


def save_console(context: Context, role: str, instance_id: str) -> str:
    """Write what the console shows into the build's folder, and return it; nothing when the cloud does not answer.

    In the file, what a terminal would act on is written out.
    """
    try:
        console = instances.read_console(context.session, instance_id)
    except CloudFailed as error:
        console = f"the console could not be read: {error}\n"
    context.recorder.save(f"console-{role}.log", make_visible(console))
    return console
