"""One local cloud: its machines, its lock, its faults, its background work. The control plane acts on it."""

import contextlib
import logging
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.localcloud.faults import Faults, Strike
from pipeline.localcloud.machines import Machines

log = logging.getLogger("localcloud")


def save_nothing() -> None:
    """Stand for the control plane until it is installed."""


@dataclass
class Cloud:
    """What the whole control plane shares. `changing` is the only way to change state outside of a call."""

    home: Path
    machines: Machines
    faults: Faults = field(default_factory=Faults)
    save: Callable[[], None] = save_nothing
    seed: Callable[[str], None] = lambda region: None
    lock: threading.RLock = field(default_factory=threading.RLock)
    _call: threading.local = field(default_factory=threading.local)
    _workers: set[threading.Thread] = field(default_factory=set)
    _starting: threading.Lock = field(default_factory=threading.Lock)
    """Held until a worker can be waited for."""

    @property
    def strike(self) -> Strike:
        """What is to go wrong with the call that this thread serves."""
        return getattr(self._call, "strike", Strike())

    @strike.setter
    def strike(self, strike: Strike) -> None:
        self._call.strike = strike

    @contextlib.contextmanager
    def changing(self) -> Iterator[None]:
        """Hold the lock, and save the state at the end."""
        with self.lock:
            yield
            self.save()

    def check_room(self) -> None:
        """Fail as a full disk does when a fault says so. Raises OSError."""
        if self.strike.volume_full:
            raise OSError(28, "No space left on device")

    def later(self, work: Callable[[], None]) -> None:
        """Do the work in a thread of its own, after the pending time that a fault may ask for."""
        seconds = self.strike.pending_seconds

        def run() -> None:
            try:
                if seconds:
                    threading.Event().wait(seconds)
                work()
            except Exception:
                log.exception("background work failed")
            finally:
                self._workers.discard(threading.current_thread())

        worker = threading.Thread(target=run, name=f"later {getattr(work, '__name__', '')}", daemon=True)
        with self._starting:
            self._workers.add(worker)
            worker.start()

    def wait_idle(self, deadline_seconds: float) -> None:
        """Wait until the background work is done."""
        with self._starting:
            workers = list(self._workers)
        for worker in workers:
            worker.join(deadline_seconds)
