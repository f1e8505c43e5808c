"""What the command line says, turned into what the recipes take."""

import math
import re
from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.errors import SpecInvalid

if TYPE_CHECKING:
    from pipeline.audit.network import Kind
    from pipeline.aws.alarms import WantedAlarm
    from pipeline.aws.session import Session
    from pipeline.spec import Spec


class OnError(StrEnum):
    """What becomes of the things that a failed build made."""

    CLEANUP = "cleanup"
    KEEP = "keep"
    ASK = "ask"


def parse_on_error(text: str) -> OnError:
    """Return the choice that `--on-error` names; SpecInvalid for any other word."""
    try:
        return OnError(text)
    except ValueError:
        choices = ", ".join(OnError)
        raise SpecInvalid(f"--on-error={text} is not known", hint=f"one of: {choices}") from None


def choose_regions(session: "Session", text: str) -> tuple[str, ...]:
    """Return the regions that `--regions` names: a list with commas, `all` that are enabled, or the session's own.

    Raises SpecInvalid with every region that does not exist or is not enabled for the account.
    """
    from pipeline.aws.region_settings import enabled_regions

    if not text:
        return (session.region,)
    enabled = enabled_regions(session)
    if text == "all":
        return enabled
    named = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    if wrong := tuple(f"{name}: not a region that this account may use" for name in named if name not in enabled):
        raise SpecInvalid("--regions is refused", wrong, hint=f"one of: {', '.join(enabled)}, or all")
    return named


def parse_ports(text: str) -> frozenset[int]:
    """Return the ports of a list with commas. Raises SpecInvalid with every one that is none."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if wrong := tuple(part for part in parts if not (part.isdecimal() and 0 < int(part) < 65536)):
        raise SpecInvalid("these are no ports", wrong, hint="numbers from 1 to 65535, with commas")
    return frozenset(map(int, parts))


def parse_alarm(address: str, above: str) -> "WantedAlarm | None":
    """Return the alarm on the bill that is asked for, if any. Raises SpecInvalid with all that is wrong with it."""
    from pipeline.aws.alarms import WantedAlarm

    if not address:
        return None
    try:
        amount = float(above)
    except ValueError:
        amount = 0.0
    wrong = (
        *([] if re.fullmatch(r"[^@\s]+@[^@\s]+\.[^@\s]+", address) else [f"{address!r} is no e-mail address"]),
        *([] if 0 < amount < math.inf else [f"{above!r} is no amount of US dollars"]),
    )
    if wrong:
        raise SpecInvalid("the alarm on the bill cannot be made", wrong)
    return WantedAlarm(address, amount)


def parse_kinds(text: str) -> "frozenset[Kind]":
    """Return the kinds of rules that `--revoke` names. Raises SpecInvalid with every one that is not known."""
    from pipeline.audit.network import Kind

    parts = [part.strip() for part in text.split(",") if part.strip()]
    if wrong := tuple(part for part in parts if part not in set(Kind)):
        raise SpecInvalid("--revoke does not know", wrong, hint=f"any of: {', '.join(Kind)}")
    return frozenset(map(Kind, parts))


def parse_tasks(text: str) -> tuple[str, ...]:
    """Return the tasks that `--task` names. Raises SpecInvalid with every one that has no policy."""
    from pipeline.policy.statements import tasks

    parts = tuple(part.strip() for part in text.split(",") if part.strip())
    wrong = tuple(part for part in parts if part not in tasks())
    if wrong or not parts:
        raise SpecInvalid("--task does not know", wrong or ("nothing",), hint=f"any of: {', '.join(tasks())}")
    return parts


def fit_to_image(spec: "Spec", user: str, region: str) -> "Spec":
    """Return the spec for an image in a region, whose launch key gets to a user; either may be empty: the spec's own.

    Raises SpecInvalid with everything that is no such name.
    """
    from pydantic import TypeAdapter, ValidationError

    from pipeline.spec.types import LoginName

    wrong = [] if re.fullmatch(r"([a-z]{2,}(-[a-z]+)+-\d+)?", region) else [f"--region={region} is no region"]
    if user:
        try:
            TypeAdapter(LoginName).validate_python(user)
        except ValidationError as error:
            wrong += [f"--user={user}: {problem['msg'].removeprefix('Value error, ')}" for problem in error.errors()]
        if user in {one.name for one in spec.users}:
            wrong.append(f"--user={user} is one of the spec's users, who have keys of their own")
    if wrong:
        raise SpecInvalid("the image cannot be proved so", tuple(wrong), hint="ubuntu, ec2-user, admin … by the image")
    fitted: dict[str, object] = {"region": region} if region else {}
    if user:
        fitted["ssh"] = spec.ssh.model_copy(update={"user": user})
        fitted["image"] = spec.image.model_copy(update={"launch_user": user})
    return spec.model_copy(update=fitted)


def open_cloud(spec: "Spec", start_local_cloud: Callable[[str], dict[str, str]]) -> "Session":
    """Return a session with the cloud that the spec names; the local one is started first.

    `start_local_cloud` takes the name of the base image and returns the environment of the local cloud's clients.
    Raises CredentialsRefused when AWS does not accept the caller's credentials, LocalCloudFailed when the local cloud
    does not start.
    """
    from pipeline.aws.session import open_session

    if spec.cloud == "aws":
        return open_session(spec.region)
    wanted = spec.base_image.filter
    environment = start_local_cloud(wanted.name if wanted else "")
    return open_session(
        spec.region,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
        low_port_shift=int(environment["ASSAY_LOW_PORT_SHIFT"]),
    )
