"""Parameters of Systems Manager: where vendors publish the ids of their newest images."""

from pipeline.aws.session import Session, cloud_errors, error_code
from pipeline.errors import BaseImageRefused, CloudFailed

PREFIX = "resolve:ssm:"
MISSING = frozenset({"ParameterNotFound", "ParameterVersionNotFound"})


def read_parameter(session: Session, name: str) -> str:
    """Return the value of a parameter; the name may end in `:version` or `:label`. Raises CloudFailed."""
    with cloud_errors(name, session.region):
        return session.client("ssm").get_parameter(Name=name)["Parameter"]["Value"]


def resolve_image_id(session: Session, reference: str) -> str:
    """Return the image id behind `resolve:ssm:NAME`. Raises BaseImageRefused when there is none."""
    name = reference.removeprefix(PREFIX)
    try:
        value = read_parameter(session, name)
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
        raise BaseImageRefused("there is no such parameter", resource=name, region=session.region) from error
    if not value.startswith("ami-"):
        raise BaseImageRefused("the parameter does not hold an image id", resource=name, region=session.region)
    return value


def find_parameter(session: Session, name: str) -> str | None:
    """Return the value of a parameter, None when there is none. Raises CloudFailed."""
    try:
        return read_parameter(session, name)
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
        return None


def write_image_parameter(session: Session, name: str, image_id: str) -> None:
    """Let a parameter of the type aws:ec2:image hold an image's id. The caller reads back: it is validated later.

    Raises CloudFailed.
    """
    with cloud_errors(name, session.region):
        session.client("ssm").put_parameter(
            Name=name, Value=image_id, Type="String", DataType="aws:ec2:image", Overwrite=True
        )


def delete_parameter(session: Session, name: str) -> None:
    """Delete a parameter; one that is gone is as good. Raises CloudFailed."""
    try:
        with cloud_errors(name, session.region):
            session.client("ssm").delete_parameter(Name=name)
    except CloudFailed as error:
        if error_code(error) not in MISSING:
            raise
