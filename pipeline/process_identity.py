"""Which process this is, so that another one can tell later, beyond doubt, that it is dead."""

import os
import socket
from dataclasses import asdict, dataclass
from pathlib import Path

PROC = Path("/proc")
START_TIME_FIELD = 19
"""Of /proc/PID/stat, counted behind the command's closing parenthesis: starttime, the 22nd field (proc(5))."""


@dataclass(frozen=True)
class ProcessIdentity:
    """A process on a host. A pid alone is used again; with the boot and the start time it is not."""

    pid: int
    started: str
    """In clock ticks since the boot."""
    boot_id: str
    namespace: str
    """Of the pid: two containers on one kernel count their own processes."""
    host: str
    machine_id: str

    def as_record(self) -> dict[str, str | int]:
        """Return it as a value for JSON."""
        return asdict(self)


def this_process() -> ProcessIdentity:
    """Return the identity of the running process."""
    return ProcessIdentity(
        pid=os.getpid(),
        started=start_time(os.getpid()) or "",
        boot_id=read_line(PROC / "sys/kernel/random/boot_id"),
        namespace=pid_namespace(),
        host=socket.gethostname(),
        machine_id=read_line(Path("/etc/machine-id")),
    )


def is_dead(process: ProcessIdentity) -> bool:
    """Return whether a process is certainly dead: it ran on this host, and runs no more. In doubt it is alive."""
    here = this_process()
    if not process.boot_id or process.host != here.host or process.machine_id != here.machine_id:
        return False
    if process.boot_id != here.boot_id:
        return bool(here.boot_id)  # the host was started again since
    if process.namespace != here.namespace:
        return False
    return start_time(process.pid) != process.started


def start_time(pid: int) -> str | None:
    """Return when a process was started, in clock ticks since the boot; None when there is none, or only a zombie."""
    stat = read_line(PROC / str(pid) / "stat")
    fields = stat.rpartition(")")[2].split()
    if len(fields) <= START_TIME_FIELD or fields[0] in {"Z", "X"}:
        return None
    return fields[START_TIME_FIELD]


def pid_namespace() -> str:
    """Return the name of the process's pid namespace; empty where the kernel does not tell."""
    try:
        return str((PROC / "self/ns/pid").readlink())
    except OSError:
        return ""


def read_line(path: Path) -> str:
    """Return the first line of a file; empty when it cannot be read."""
    try:
        return path.read_text(errors="replace").partition("\n")[0]
    except OSError:
        return ""
