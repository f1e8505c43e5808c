"""The local cloud: an EC2 of one's own, on loopback, with real guests. A process of its own; see `__main__`."""

DEFAULT_PORT = 4966
"""On loopback, where it is free."""
SSH_PORT = 22
MOST_PROCESSORS = 2
"""Of one guest. With one each, two emulated guests that boot at once on two cores take a fifth less time, and use a
quarter less of theirs: no virtual processor waits for another one that is not running."""
