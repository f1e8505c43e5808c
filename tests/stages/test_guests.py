"""A guest that boots again is entered when it is another boot, and never taken for it while it goes down."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from pipeline.errors import AssayError, GuestFailed, GuestUnreachable, HostKeyMismatch
from pipeline.guest.keys import make_key_pair
from pipeline.guest.root_shell import Output
from pipeline.stages import guests
from pipeline.stages.guests import Guest, enter_another_boot
from pipeline.stages.network import Door


@dataclass
class Boot:
    """A session on a boot; one that goes down answers with an error."""

    boot_id: str = ""
    error: AssayError | None = None
    closed: bool = field(default=False)

    def run(self, command: str, deadline_seconds: float) -> Output:
        if self.error:
            raise self.error
        return Output(0, f"{self.boot_id}\n", "")

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def enter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that looks once at a guest whose boot before was `old`, given what a connection brings."""
    guest = Guest(
        instance=type("Instance", (), {"instance_id": "i-1"})(),  # type: ignore[arg-type]
        key_pair=make_key_pair("x"),
        connector=None,  # type: ignore[arg-type]
        host_keys=(),
        user_data="",
        user="admin",
        door=Door((), ()),
        shell=None,  # type: ignore[arg-type]
    )

    def look(brings: Boot | AssayError) -> Any:
        def connect(*_: Any, **__: Any) -> Boot:
            if isinstance(brings, AssayError):
                raise brings
            return brings

        monkeypatch.setattr(guests, "connect", connect)
        return enter_another_boot(guest, "old\n")

    return look


def test_another_boot_is_entered(enter: Any) -> None:
    boot = Boot("new")
    assert enter(boot) is boot
    assert not boot.closed


@pytest.mark.parametrize(
    "boot",
    [
        Boot("old"),
        Boot(""),
        Boot(error=GuestFailed("a command did not end within 15 s")),
        Boot(error=GuestUnreachable("the connection broke")),
    ],
    ids=["the boot before", "no answer", "no end", "broken"],
)
def test_the_boot_before_is_left(enter: Any, boot: Boot) -> None:
    assert enter(boot) is None
    assert boot.closed


def test_who_lets_nobody_in_is_looked_at_again(enter: Any) -> None:
    assert enter(GuestUnreachable("the guest does not let admin in")) is None


def test_other_host_keys_end_the_wait(enter: Any) -> None:
    with pytest.raises(HostKeyMismatch):
        enter(HostKeyMismatch("another key"))
