"""Guests that boot nothing: for tests of what is around them. `serve --guests=fake` uses them.

They "run" at once, say on the console what cloud-init says (a host key block, always the same), stop when asked, and
answer at no port. A file `console` beside their folders has what they say instead, for tests of guests that fail.
"""

import socket
import threading
from collections.abc import Callable
from pathlib import Path

from pipeline.localcloud.guests import Guest, GuestFailed, GuestSettings
from pipeline.localcloud.metadata import InstanceView, MetadataServer
from pipeline.localcloud.wire import Plug

HOST_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f root@fake"
CONSOLE = f"""Linux version 0.0-fake
ci-info: no authorized SSH keys fingerprints found for user admin.
-----BEGIN SSH HOST KEY FINGERPRINTS-----
256 SHA256:fake root@fake (ED25519)
-----END SSH HOST KEY FINGERPRINTS-----
-----BEGIN SSH HOST KEY KEYS-----
{HOST_KEY}
-----END SSH HOST KEY KEYS-----
Cloud-init finished at Thu, 01 Jan 1970 00:00:00 +0000. Datasource DataSourceEc2Local.
""".replace("\n", "\r\n")


class FakeGuest(Guest):
    """A guest without a machine. `power_off` is what its user would do inside."""

    def __init__(
        self,
        settings: GuestSettings,
        directory: Path,
        instance_view: Callable[[], InstanceView],
        on_exit: Callable[[], None],
        metadata: MetadataServer,
        plug: Plug,
    ) -> None:
        super().__init__(settings, directory, instance_view, on_exit, metadata, plug)
        self._on = False

    @property
    def running(self) -> bool:
        """Whether it was started and not stopped."""
        return self._on

    def start(self) -> None:
        """Be on. Raises GuestFailed when it is on already."""
        if self._on:
            raise GuestFailed(f"{self.settings.instance_id} runs already")
        self.directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._say()
        self._on = True

    def _say(self) -> None:
        """Print what a boot prints."""
        other = self.directory.parent / "console"
        with (self.directory / "console.log").open("ab") as file:
            file.write(other.read_bytes() if other.exists() else CONSOLE.encode())

    def power_off(self) -> None:
        """End, as a guest does that powers itself off."""
        if self._on:
            self._on = False
            threading.Thread(target=self.on_exit, daemon=True).start()

    def shut_down(self, deadline_seconds: float) -> None:
        """End."""
        self.power_off()

    def destroy(self) -> None:
        """End."""
        self.power_off()

    def reboot(self) -> None:
        """Say the console's words again."""
        self._say()

    def screenshot(self) -> bytes | None:
        """Return a PNG's first bytes, and None when it is off."""
        return b"\x89PNG\r\n\x1a\n" if self._on else None

    def dial(self, port: int) -> socket.socket:
        """Refuse: nothing listens."""
        raise ConnectionRefusedError(f"{self.settings.instance_id} is not a real guest")

    def forward(self, port: int) -> tuple[str, int]:
        """Refuse: nothing listens."""
        raise ConnectionRefusedError(f"{self.settings.instance_id} is not a real guest")

    def switch_overlay(self, volume_id: str, overlay: Path) -> None:
        """Have nothing open that would have to be switched."""
