"""Units of systemd that start at each boot, without asking systemd, which takes its time on a small guest."""

from pipeline.guest.step import Step
from pipeline.harden.managed_file import ManagedFile


def unit_file(unit: str, text: str) -> ManagedFile:
    """Return the file of a unit of ours."""
    return ManagedFile(f"/etc/systemd/system/{unit}", text)


def enable_unit(subject: str, controls: tuple[str, ...], title: str, unit: str, files: tuple[ManagedFile, ...]) -> Step:
    """Return the step that writes files, the unit's own among them if it is ours, and enables it from the next boot."""
    return Step(
        subject,
        controls,
        title,
        "".join(file.action for file in files) + enable(unit),
        "".join(file.test for file in files) + is_enabled(unit),
    )


def is_enabled(unit: str) -> str:
    """Return lines of a test: some target wants the unit."""
    return f'set -- /etc/systemd/system/*.wants/{unit}\n[ -L "$1" ]\n'


def enable(unit: str) -> str:
    """Return lines of an action that enables the unit where it is not.

    Even where nothing changes, `systemctl enable` takes many seconds for a unit that also has a script in /etc/init.d.
    """
    return f'set -- /etc/systemd/system/*.wants/{unit}\n[ -L "$1" ] || systemctl --no-reload enable {unit}\n'
