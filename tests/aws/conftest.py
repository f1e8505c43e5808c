"""A session whose clients answer from a script: botocore's Stubber holds every request against the service's model."""

import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import UTC, datetime

import boto3
import pytest
from botocore.stub import Stubber

from pipeline.aws.session import Session
from pipeline.aws.tags import Tags
from pipeline.aws.wait import Clock

REGION = "eu-central-1"
BUILD_ID = "20250131-235959-1a2b3c"


@dataclass
class FakeClock:
    """Time that passes only by resting."""

    seconds: float = 0.0
    rests: list[float] = field(default_factory=list)

    def rest(self, seconds: float) -> None:
        self.rests.append(seconds)
        self.seconds += seconds

    def as_clock(self) -> Clock:
        return Clock(now=lambda: self.seconds, rest=self.rest)


@pytest.fixture
def fake_clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(scope="session")
def source() -> boto3.Session:
    """Made once: it holds the services' models, which take long to read."""
    return boto3.Session(aws_access_key_id="AKIDEXAMPLE", aws_secret_access_key="very-secret", region_name=REGION)


@pytest.fixture
def session(source: boto3.Session) -> Session:
    return Session(source, REGION)


@pytest.fixture
def stub(session: Session) -> Iterator[Callable[..., Stubber]]:
    """Returns the stubber of a client; at the end every scripted answer must have been asked for."""
    stubbers: dict[tuple[str, bool], Stubber] = {}
    with ExitStack() as stack:

        def start(name: str, *, once: bool = False) -> Stubber:
            if (name, once) not in stubbers:
                stubbers[name, once] = stack.enter_context(Stubber(session.client(name, once=once)))
            return stubbers[name, once]

        yield start
        for stubber in stubbers.values():
            stubber.assert_no_pending_responses()


@pytest.fixture
def tags() -> Tags:
    return Tags(
        build_id=BUILD_ID,
        spec_digest="sha256:0011",
        owner="arn:aws:iam::111122223333:user/ana",
        expires=datetime(2025, 2, 1, 4, tzinfo=UTC),
        extra={"team": "web"},
    )


@pytest.fixture
def unused_port() -> int:
    """A port of loopback on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port
