"""Few examples, as many compile a database each, and no deadlines for them: the machine may be busy with guests."""

from hypothesis import settings

settings.register_profile("residue", deadline=None, max_examples=30)
settings.load_profile("residue")
