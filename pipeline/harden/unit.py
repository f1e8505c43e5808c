"""Units of systemd that start at each boot, without asking systemd, which takes its time on a small guest."""


def is_enabled(unit: str) -> str:
    """Return lines of a test: some target wants the unit."""
    return f'set -- /etc/systemd/system/*.wants/{unit}\n[ -L "$1" ]\n'


def enable(unit: str) -> str:
    """Return lines of an action that enables the unit where it is not.

    Even where nothing changes, `systemctl enable` takes many seconds for a unit that also has a script in /etc/init.d.
    """
    return f'set -- /etc/systemd/system/*.wants/{unit}\n[ -L "$1" ] || systemctl --no-reload enable {unit}\n'
