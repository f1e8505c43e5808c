"""What the command line says, turned into what the recipes take."""

from collections.abc import Callable
from enum import StrEnum
from typing import TYPE_CHECKING

from pipeline.errors import SpecInvalid

if TYPE_CHECKING:
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


def open_cloud(spec: "Spec", start_local_cloud: Callable[[], dict[str, str]]) -> "Session":
    """Return a session with the cloud that the spec names; the local one is started first.

    `start_local_cloud` returns the environment of the local cloud's clients. Raises CredentialsRefused when AWS does
    not accept the caller's credentials, LocalCloudFailed when the local cloud does not start.
    """
    from pipeline.aws.session import open_session

    if spec.cloud == "aws":
        return open_session(spec.region)
    environment = start_local_cloud()
    return open_session(
        spec.region,
        endpoint_url=environment["AWS_ENDPOINT_URL"],
        access_key=environment["AWS_ACCESS_KEY_ID"],
        secret_key=environment["AWS_SECRET_ACCESS_KEY"],
    )
