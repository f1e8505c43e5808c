"""The least-privilege policy of each task: from the calls that it makes, limited to what bears a build's tag."""
