"""Ctrl-C and SIGTERM: they interrupt a build once, and never its clean-up."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import Interrupted

SIGNALS = (signal.SIGINT, signal.SIGTERM)
EXPLANATION = b"\nstill cleaning up: what was made is being removed; if this process dies, run `invoke sweep`\n"

Handler = Callable[[int, FrameType | None], None]


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn the first Ctrl-C or SIGTERM into Interrupted, in the main thread; explain every later one.

    An interruption that something on the way swallowed (a test framework takes it for a failed test) is raised again
    at the end. Outside of the main thread, where signals do not arrive, this does nothing.
    """
    raised: list[Interrupted] = []

    def interrupt(number: int, _: FrameType | None) -> None:
        if raised:
            explain(number, None)
            return
        raised.append(Interrupted(f"interrupted by {signal.Signals(number).name}"))
        raise raised[0]

    with handled_by(interrupt):
        yield
    if raised:
        raise raised[0]


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Explain Ctrl-C and SIGTERM instead of obeying them, while something is undone."""
    with handled_by(explain):
        yield


def explain(_: int, __: FrameType | None) -> None:
    """Say why the process goes on. The text is written past Python's buffers: a signal may arrive within a print."""
    os.write(2, EXPLANATION)


@contextmanager
def handled_by(handler: Handler) -> Iterator[None]:
    """Handle both signals in this way for a while; the earlier handlers come back at the end."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {number: signal.signal(number, handler) for number in SIGNALS}
    try:
        yield
    finally:
        for number, previous in earlier.items():
            signal.signal(number, previous)
