"""A port on which one connection is awaited, for a test that plays the other side of something that connects.

with Door("127.0.0.1") as door:
    ask_somebody_to_connect(door.port)
    with door.accept(5.0) as stream:
        stream.send(b"hello")
"""

from __future__ import annotations

import select
import time
from typing import Self

from ggml_rpc_ref.net.sockets import listen
from ggml_rpc_ref.net.stream import DeadlineMissed, Endpoint, Stream


class Door:
    """A listening port.

    Args:
        host: the address to listen on.
        port: its number; 0: one of the kernel's choice.

    Attributes:
        port: its number.

    Raises:
        Misuse: where the address can't be bound.
    """

    def __init__(self, host: str, port: int = 0) -> None:
        self._host, self._listeners = host, listen(host, port)
        self.port: int = self._listeners[0].getsockname()[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.close()

    def accept(self, timeout: float) -> Stream:
        """Return the next connection.

        Raises:
            DeadlineMissed: where none comes in time.
        """
        ready, _, _ = select.select(self._listeners, [], [], timeout)
        deadline = time.monotonic() + timeout
        while ready:
            try:
                sock, _ = ready[0].accept()
            except BlockingIOError:  # it came and went
                ready, _, _ = select.select(self._listeners, [], [], max(0.0, deadline - time.monotonic()))
                continue
            return Stream(sock, Endpoint(self._host, self.port), timeout)
        raise DeadlineMissed(f"nobody connected to port {self.port} within {timeout:g} s")
