"""The local cloud: an EC2 of one's own, on loopback, with real guests. A process of its own; see `__main__`."""
