"""What the cloud answers when it refuses: EC2's own error codes, as moto's serializer wants them."""

# ruff: noqa: ANN401 -- moto's parameters and answers have no types

from typing import Any

from moto.ec2.exceptions import EC2ClientError


class Refused(EC2ClientError):
    """A call is refused with one of EC2's error codes."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(code, message)


def not_found(kind: str, identity: str) -> Refused:
    """Return the refusal for an id that does not exist, or that the caller may not see."""
    codes = {
        "image": ("InvalidAMIID.NotFound", f"The image id '[{identity}]' does not exist"),
        "snapshot": ("InvalidSnapshot.NotFound", f"The snapshot '{identity}' does not exist."),
        "volume": ("InvalidVolume.NotFound", f"The volume '{identity}' does not exist."),
        "instance": ("InvalidInstanceID.NotFound", f"The instance ID '{identity}' does not exist"),
    }
    return Refused(*codes[kind])


def required(params: Any, *names: str) -> None:
    """Refuse a call that lacks a parameter."""
    for name in names:
        if not params.get(name):
            raise Refused("MissingParameter", f"The request must contain the parameter {name}")
