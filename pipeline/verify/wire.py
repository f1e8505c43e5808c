"""How a proof and the process that runs its checks talk: one JSON object on each line, over one socket."""

import json
import socket
from typing import Any

Message = dict[str, Any]


class Wire:
    """One end of the socket. Bytes that are not UTF-8 travel as surrogates, so that nothing is lost."""

    def __init__(self, end: socket.socket) -> None:
        self.socket = end
        self.unread = bytearray()

    def send(self, message: Message) -> None:
        """Send one message. Raises OSError when nobody is at the other end."""
        self.socket.sendall(json.dumps(message).encode() + b"\n")

    def receive(self, deadline_seconds: float | None = None) -> Message | None:
        """Return the next message, or None when the other end has closed. Raises TimeoutError after the deadline."""
        self.socket.settimeout(deadline_seconds)
        while (end := self.unread.find(b"\n")) < 0:
            piece = self.socket.recv(1 << 16)
            if not piece:
                return None
            self.unread += piece
        line = bytes(self.unread[:end])
        del self.unread[: end + 1]
        message: Message = json.loads(line)
        return message
