"""A relay that makes a guest seem far away."""

import contextlib
import socket
import threading
import time
from collections import deque


class Distance:
    """Listens on loopback and passes bytes on, each way later by half of the round-trip time."""

    def __init__(self, address: tuple[str, int], round_trip_seconds: float) -> None:
        self.address = address
        self.delay = round_trip_seconds / 2
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.server.getsockname()[1]
        self.connections = 0
        self.sockets: list[socket.socket] = []
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self) -> None:
        """Accept connections until closed."""
        while True:
            try:
                near, _ = self.server.accept()
            except OSError:
                return
            try:
                far = socket.create_connection(self.address)
            except ConnectionRefusedError:
                near.close()
                continue
            self.connections += 1
            self.sockets += near, far
            for one, other in ((near, far), (far, near)):
                one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self.carry, args=(one, other), daemon=True).start()

    def carry(self, source: socket.socket, target: socket.socket) -> None:
        """Read now, write later."""
        waiting: deque[tuple[float, bytes]] = deque()
        arrived = threading.Condition()

        def deliver() -> None:
            while True:
                with arrived:
                    arrived.wait_for(lambda: waiting)
                    due, data = waiting.popleft()
                time.sleep(max(0.0, due - time.monotonic()))
                try:
                    if not data:
                        return target.shutdown(socket.SHUT_WR)
                    target.sendall(data)
                except OSError:
                    return None

        threading.Thread(target=deliver, daemon=True).start()
        data = b"-"
        while data:
            try:
                data = source.recv(1 << 16)
            except OSError:
                data = b""
            with arrived:
                waiting.append((time.monotonic() + self.delay, data))
                arrived.notify()

    def close(self) -> None:
        """Listen no more, and break what is open."""
        for one in (self.server, *self.sockets):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
