"""The local cloud: an EC2 of one's own, on loopback, with real guests. A process of its own; see `__main__`."""

DEFAULT_PORT = 4966
"""On loopback, where it is free."""
SSH_PORT = 22
