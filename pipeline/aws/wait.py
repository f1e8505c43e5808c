"""The one poller: wait until the cloud says that something is so, with a deadline and with progress."""

import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TypeVar

from pipeline.aws.session import error_code, is_throttled, is_transient
from pipeline.errors import CloudFailed, DeadlinePassed

T = TypeVar("T")

SHORTEST_SECONDS = 0.25
LONGEST_SECONDS = 15.0
PATIENCE = 6
"""The next look is after a sixth of the time that has passed: a wait is overshot by at most that much."""

CONSISTENT_SECONDS = 60.0
"""How long an accepted change may stay unseen (EC2's eventual consistency)."""


@dataclass(frozen=True)
class Clock:
    """Time, so that tests need none. Both count seconds."""

    now: Callable[[], float] = time.monotonic
    rest: Callable[[float], object] = threading.Event().wait
    """Nobody sets the event: its wait ends at once when a signal's handler raises."""


CLOCK = Clock()


def wait_until(
    describe: Callable[[], T],
    done: Callable[[T], bool],
    *,
    what: str,
    region: str | None,
    deadline_seconds: float,
    progress: Callable[[str], None] | None = None,
    state: Callable[[T], str] = str,
    failed: Callable[[T], str | None] = lambda _: None,
    missing_codes: Collection[str] = (),
    sightings: int = 2,
    patience: int = PATIENCE,
    clock: Clock = CLOCK,
) -> T:
    """Ask until `done` holds in `sightings` consecutive answers, and return the last one.

    One sighting is not enough where answers are eventually consistent. `progress` is told each new `state`. With more
    `patience` it is looked more often, where somebody waits for each second. Raises CloudFailed at once with the reason
    that `failed` gives, and DeadlinePassed with the last state, caused by the error that was met last. Throttling and
    broken connections are waited out, and so are `missing_codes`: a new thing is not seen everywhere at once.
    """
    started = clock.now()
    seen, throttled, last = 0, 0, ""
    trouble: CloudFailed | None = None
    while True:
        try:
            answer = describe()
        except CloudFailed as error:
            if error_code(error) not in missing_codes and not is_transient(error):
                raise
            seen, current, trouble = 0, error.message, error
            throttled = throttled + 1 if is_throttled(error) else 0
        else:
            if reason := failed(answer):
                raise CloudFailed(f"it failed: {reason}", resource=what, region=region)
            seen, throttled, current, trouble = seen + 1 if done(answer) else 0, 0, state(answer), None
        if progress and current != last:
            progress(current)
        last = current
        if seen >= sightings:
            return answer
        elapsed = clock.now() - started
        if elapsed >= deadline_seconds:
            raise DeadlinePassed(
                f"not there after {deadline_seconds:.0f} s; last seen: {last}", resource=what, region=region
            ) from trouble
        pause = pause_seconds(elapsed, throttled, confirming=seen > 0, patience=patience)
        clock.rest(min(pause, deadline_seconds - elapsed))


def pause_seconds(elapsed: float, throttled: int, *, confirming: bool, patience: int = PATIENCE) -> float:
    """Return when to look again: soon at first and to confirm, seldom later, and twice as late at each throttling."""
    pause = SHORTEST_SECONDS if confirming else max(SHORTEST_SECONDS, elapsed / patience)
    return min(LONGEST_SECONDS, pause * 2.0**throttled)
