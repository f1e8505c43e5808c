"""Stage 7: prove the image as a consumer would launch it: with another key, from nothing but the image; then again.

Each boot is proved whole: the checks, the console, who may log in, what answers from outside. The results of a later
boot say in their titles after what it came.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, TypeVar

from pipeline.aws.images import Image
from pipeline.aws.instances import Launch
from pipeline.aws.traffic import read_traffic
from pipeline.errors import AssayError, SpecInvalid
from pipeline.guest.keys import KeyPair
from pipeline.guest.shell import Answer, try_credentials
from pipeline.guest.step import Secret
from pipeline.report.catalogue import controls_at
from pipeline.report.evidence import Layer, Result, Status
from pipeline.spec import Spec
from pipeline.spec.public_keys import fingerprint
from pipeline.stages.booted_state import write_state
from pipeline.stages.consumer import as_consumer
from pipeline.stages.context import Context
from pipeline.stages.gate import open_gate
from pipeline.stages.guests import (
    Guest,
    boot_again,
    boot_guest,
    load_own_key,
    make_key,
    open_root_shells,
    save_console,
)
from pipeline.stages.launch import Launched, facts_of_build, marked_user_data
from pipeline.stages.network import Door
from pipeline.stages.openings import prove_openings
from pipeline.stages.sbom import write_sbom
from pipeline.verify.fresh_boot import prove_console, read_what_stays
from pipeline.verify.live import Checks
from pipeline.verify.logins import ACCOUNTS, FORGIVE, PENALTIES, Attempts, prove_logins
from pipeline.verify.outbound import prove_outbound
from pipeline.verify.waivers import waive

LAST_LINES = 5
LONGEST_LINE = 200
T = TypeVar("T")
How = Literal["reboot", "stop-start"]

AGAIN: Mapping[How, str] = {"reboot": "after a reboot", "stop-start": "after a stop and a start"}


@dataclass(frozen=True)
class Consumer:
    """Who launched the image, and what the checks compare the instance with."""

    launch_key: KeyPair
    build_key: KeyPair | None
    """None for an image of somebody else."""
    facts: Mapping[str, str]


def prove_boot(context: Context, image: Image, door: Door | None, launched: Launched | None) -> None:
    """Launch the image as a consumer would, with another key and other user-data, and record what its boots prove.

    `door` and `launched` are of the build that made it, None for an image of somebody else. Raises what keeps an
    instance from coming up; what it would have shown is recorded as unreachable.
    """
    if not context.spec.image.launch_user:
        context.recorder.add(no_way_in())
        return
    with as_consumer(context, image, door) as (theirs, their_door):
        prove_boots(theirs, image, their_door, launched)
    context.recorder.add(*not_booted_again(context.spec))


def prove_boots(context: Context, image: Image, door: Door, launched: Launched | None) -> None:
    """Prove the first boot of a fresh instance, and the later ones that the spec names."""
    with context.recorder.stage("fresh boot"), context.start_checks(Layer.FRESH_BOOT) as checks:
        launch_key = make_key(context, "consumer-key")
        guest = reach(context, "", lambda: launch_image(context, image, door, launch_key))
        facts = {**facts_of_build(launched), "launch_public_key": launch_key.public_openssh}
        consumer = Consumer(launch_key, launched.guest.key_pair if launched else None, facts)
        console = save_console(context, "consumer", guest.instance.instance_id)
        prove_this_boot(context, guest, consumer, checks, console)
        if launched is None:
            write_sbom(context, guest.shell.run)
        write_state(context, guest.shell.run)
    for how in context.spec.prove.boot_again:
        with context.recorder.stage(AGAIN[how]), context.start_checks(Layer.FRESH_BOOT, after=how) as checks:
            stays = read_what_stays(guest.shell.run)
            guest = reach(context, AGAIN[how], lambda: boot_again(context, guest, how))  # noqa: B023 -- called at once
            said = save_console(context, f"consumer-{how}", guest.instance.instance_id)
            again = Consumer(launch_key, consumer.build_key, {**facts, **stays})
            prove_this_boot(context, guest, again, checks, said.removeprefix(console), how)
            console = said
    guest.shell.close()


def launch_image(context: Context, image: Image, door: Door, launch_key: KeyPair) -> Guest:
    """Return a fresh instance of the image, with a session of whoever is to ask it. Raises as `boot_guest` does."""
    prover, prover_key = choose_prover(context.spec, context.spec.image.launch_user or "", launch_key)
    launch = Launch(
        image_id=image.image_id,
        type=context.spec.instance.type,
        other_types=context.spec.instance.types,
        key_name=context.name("consumer-key"),
        security_group_ids=door.security_group_ids,
        subnet_ids=door.subnet_ids,
        public_address=context.spec.network.address == "public",
        user_data=marked_user_data(context.build_id),
        profile=context.spec.instance.profile if context.spec.network.connect == "session-manager" else None,
    )
    door = open_gate(context, door, image.image_id, prover_key, launch.key_name, prover)
    return boot_guest(context, "consumer", launch, prover_key, prover, door)


def reach(context: Context, after: str, boot: Callable[[], T]) -> T:
    """Return what boots, and record how long that took: from the call until it can be asked (H29).

    When it does not come up, every control of the layer is unreachable, and the error is raised.
    """
    started = time.monotonic()
    try:
        booted = boot()
    except AssayError as error:
        said = f"{error}{last_words(context.recorder.folder)}"
        missed = coming_up(Status.UNREACHABLE, controls_at(Layer.FRESH_BOOT), started, said)
        context.recorder.add(name_boot(missed, after))
        raise
    context.recorder.add(name_boot(coming_up(Status.PASS, ("H29",), started), after))
    return booted


def last_words(folder: Path) -> str:
    """Return how the console log that was saved last ends, for whoever wonders why an instance did not come up."""
    logs = sorted(folder.glob("console-consumer*.log"), key=lambda path: path.stat().st_mtime)
    lines = [line.strip() for line in logs[-1].read_text().splitlines() if line.strip()] if logs else []
    shown = "".join(f"\n{line[:LONGEST_LINE]}" for line in lines[-LAST_LINES:])
    return f"; the console ends with:{shown}" if shown else "; the console is empty" if logs else ""


def coming_up(status: Status, controls: tuple[str, ...], started: float, detail: str = "") -> Result:
    """Return the result of a boot; `started` is of `time.monotonic()`."""
    return Result(
        controls=controls,
        layer=Layer.FRESH_BOOT,
        status=status,
        title="an instance of the image comes up and can be asked",
        source="stages/boots",
        detail=detail,
        seconds=round(time.monotonic() - started, 3),
    )


def prove_this_boot(
    context: Context, guest: Guest, consumer: Consumer, checks: Checks, console: str, how: How | None = None
) -> None:
    """Record everything that one boot of an instance proves; `how` says which later one it is."""
    after = AGAIN[how] if how else ""

    def record(*results: Result) -> None:
        context.recorder.add(*(name_boot(result, after) for result in waive(results, context.spec.waivers)))

    shells = open_root_shells(guest.shell)
    with ThreadPoolExecutor(2, "outside") as pool:
        scanned, tried = pool.submit(prove_openings, context, guest), pool.submit(try_logins, context, guest, consumer)
        with context.recorder.stage("checks"):
            record(*checks.prove(shells, consumer.facts, progress=context.check_progress))
        record(*prove_console(console, first=how is None))
        with context.recorder.stage("logins"):
            record(*tried.result())
        record(*scanned.result())
    record(prove_outbound(read_traffic(context.session, guest.instance.instance_id), context.spec))


def try_logins(context: Context, guest: Guest, consumer: Consumer) -> tuple[Result, ...]:
    """Return who may log in, of every account that the instance has and those that people guess."""

    def try_all(user: str, keys: Sequence[KeyPair | None], passwords: Sequence[str]) -> Answer:
        credentials = (*keys, *(Secret(password, "password") for password in passwords))
        return try_credentials(guest.connector, user, credentials, guest.host_keys, resource=guest.instance.instance_id)

    spec, run = context.spec, guest.shell.run
    penalties = run(PENALTIES).exit_status == 0
    accounts = {spec.ssh.user, *(user.name for user in spec.users), *run(ACCOUNTS).stdout.splitlines()}
    attempts = Attempts(spec.image.launch_user or "", consumer.launch_key, consumer.build_key)
    return prove_logins(attempts, accounts, try_all, (lambda: run(FORGIVE)) if penalties else (lambda: None))


def name_boot(result: Result, after: str) -> Result:
    """Return a result that says of which boot it is; that of the first one is as it was."""
    if not after:
        return result
    return replace(result, title=f"{result.title} ({after})", source=f"{result.source} ({after})")


def not_booted_again(spec: Spec) -> tuple[Result, ...]:
    """Return a result for each boot that the spec leaves out: what it would have shown is not known (H29)."""
    return tuple(
        Result(
            controls=("H29",),
            layer=Layer.FRESH_BOOT,
            status=Status.NOT_APPLICABLE,
            title=f"the instance is as it should be {after}",
            source="stages/boots",
            detail=f"prove.boot_again of the spec does not name {how}",
        )
        for how, after in AGAIN.items()
        if how not in spec.prove.boot_again
    )


def choose_prover(spec: Spec, launch_user: str, launch_key: KeyPair) -> tuple[str, KeyPair]:
    """Return who asks a fresh boot, and with which key: the launch user, or an administrator where that is not root.

    Raises SpecInvalid where `ssh.administrator_key_file` is no key of a user with sudo (H30).
    """
    if spec.harden.launch_user_sudo:
        return launch_user, launch_key
    key = load_own_key(spec.ssh.administrator_key_file or "")
    for user in spec.users:
        if user.sudo and any(fingerprint(line) == key.fingerprint for line in user.keys):
            return user.name, key
    raise SpecInvalid(
        "ssh.administrator_key_file is the key of no user with sudo",
        hint="name the private half of a key that stands under a user with sudo",
    )


def no_way_in() -> Result:
    """Return the result for an image without a launch user: its boot cannot be proved from inside."""
    return Result(
        controls=("H15",),
        layer=Layer.FRESH_BOOT,
        status=Status.UNREACHABLE,
        title="the image can be entered on a fresh boot",
        source="stages/boots",
        detail="image.launch_user is null, and the private keys of its users are not ours",
    )
