"""How a value of ours gets into a script: as a quoted shell variable at its top, and never by gluing text."""

import shlex


def assign(**values: str) -> str:
    """Return one assignment for each value, quoted for the shell; the scripts below it use `"$name"`."""
    return "".join(f"{name}={shlex.quote(value)}\n" for name, value in values.items())
