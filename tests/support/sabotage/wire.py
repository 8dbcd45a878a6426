"""Connections that change the bytes of requests before our own code reads them."""

from __future__ import annotations

from typing import Any

from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import Connection

HEAD = 9
"""Bytes of a command and a size field."""
HELLO, SET_TENSOR, GRAPH_COMPUTE, DEVICE_COUNT = 14, 6, 10, 15


def frame(command: int, payload: bytes = b"") -> bytes:
    """Return a request's bytes."""
    return bytes([command]) + len(payload).to_bytes(8, "little") + payload


class Rewriting(Connection):
    """A connection that cuts the incoming bytes into requests, and may replace some before our own code reads them.

    Requests that a subclass does not hold are passed on at once, byte by byte as it comes: our server judges a command by its
    first byte.

    Attributes:
        begun: requests whose head has been passed on or that were held.
        command: of the request that is being passed on, or was last.
        head: bytes of its head that have been passed on; empty between requests.
        left: bytes of its payload still to pass on.
        held: bytes that wait here.
    """

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.begun, self.command, self.left = 0, 0, 0
        self.head, self.held = bytearray(), bytearray()

    def receive(self, data: codec.Readable) -> None:
        """Take bytes, and pass on or replace what can be."""
        self.held += data
        while self.held and self._step():
            pass

    @property
    def idle(self) -> bool:
        """Whether the peer may leave here."""
        return not self.held and super().idle

    def data_placed(self, count: int) -> None:
        """Take note of data that did not come this way."""
        super().data_placed(count)
        self.left -= count

    def _step(self) -> bool:
        """Pass on a piece, or replace a request; return False where more bytes must come first."""
        if self.left:
            self.left -= self._pass_on(self.left)
            return True
        if not self.head and self.may_hold(self.held[0]):
            if len(self.held) < HEAD:
                return False
            size = int.from_bytes(self.held[1:HEAD], "little")
            if self.holds(self.held[0], size):
                return self._replace(HEAD + size)
        self._pass_on_head()
        return True

    def _pass_on_head(self) -> None:
        if not self.head:
            self.command = self.held[0] = self.read_command(self.held[0])
        piece = self.held[: HEAD - len(self.head)]
        self.head += piece
        self._pass_on(len(piece))
        if len(self.head) == HEAD:
            self.left = int.from_bytes(self.head[1:], "little")
            self.head.clear()
            self.begun += 1

    def _pass_on(self, count: int) -> int:
        piece = bytes(self.held[:count])
        del self.held[:count]
        super().receive(piece)
        return len(piece)

    def _replace(self, end: int) -> bool:
        if len(self.held) < end:
            return False
        command, payload = self.held[0], bytes(self.held[HEAD:end])
        del self.held[:end]
        self.begun += 1
        super().receive(self.replaced(command, payload))
        return True

    # ------------------------------------------------------------------------------------------------- what subclasses say

    def read_command(self, number: int) -> int:
        """Return the command to read in place of the one that came."""
        return number

    def may_hold(self, command: int) -> bool:
        """Whether `holds` must be asked once the head of such a request is there."""
        return False

    def holds(self, command: int, size: int) -> bool:
        """Whether a request is kept until all `size` bytes of its payload are there, and then replaced."""
        return True

    def replaced(self, command: int, payload: bytes) -> bytes:
        """Return what is read in place of a request that was held."""
        return frame(command, payload)
