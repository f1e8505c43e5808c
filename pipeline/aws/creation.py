"""Make a thing exactly once, although the answer to the call that made it may be lost."""

from collections.abc import Callable, Collection, Sequence

from pipeline.aws.session import answer_lost, error_code, is_throttled
from pipeline.aws.wait import CLOCK, Clock
from pipeline.errors import CloudFailed

ATTEMPTS = 4
VISIBLE_SECONDS = 10.0
"""How long a thing that was made may stay unseen in a list (EC2's eventual consistency)."""


def find_or_create(
    look_up: Callable[[], Sequence[str]],
    create: Callable[[], str],
    *,
    what: str,
    region: str,
    taken_codes: Collection[str] = (),
    clock: Clock = CLOCK,
) -> str:
    """Create, and return the identity. When the answer is lost, look the thing up before trying again.

    `create` may use a client that never repeats a call: throttling is waited out here.

    `look_up` lists the identities of what bears the thing's own name or tag. `taken_codes` are the refusals that say
    that the name exists already: the answer to an earlier attempt was lost. Raises CloudFailed when the creation is
    refused, and when several things bear the name.
    """
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return create()
        except CloudFailed as error:
            throttled, taken = is_throttled(error), error_code(error) in taken_codes
            if not (throttled or taken or answer_lost(error)):
                raise
            if not throttled and (found := search(look_up, clock)):
                return the_only(found, what, region)
            if taken or attempt == ATTEMPTS:
                raise
            clock.rest(2.0**attempt)
    raise AssertionError("unreachable")


def search(look_up: Callable[[], Sequence[str]], clock: Clock) -> Sequence[str]:
    """Look up until something is seen or enough time has passed; return what was seen."""
    started = clock.now()
    while True:
        found = look_up()
        if found or clock.now() - started >= VISIBLE_SECONDS:
            return found
        clock.rest(1.0)


def the_only(found: Sequence[str], what: str, region: str) -> str:
    """Return the only identity of a list that has at least one; raise CloudFailed when there are more."""
    if len(found) > 1:
        raise CloudFailed(
            f"several things bear this name: {', '.join(found)}",
            resource=what,
            region=region,
            hint="a name of a build is unique: run `invoke sweep`, and build again",
        )
    return found[0]
