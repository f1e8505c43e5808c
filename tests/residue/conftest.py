"""No deadlines for single examples: the machine may be busy with guests."""

from hypothesis import settings

settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")
