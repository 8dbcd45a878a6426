"""Follow a conversation from between its two ends: bytes of both directions in, exchanges out. No I/O.

Requests are read by a server's Connection and replies by a client's, which is told of every request that has been seen. Only
fields pass through them; data parts are counted. Nothing here changes a byte, and nothing that the two ends do can raise: what
breaks a rule is kept in `violation`, and from there on nothing is followed.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ggml_rpc_ref import codec
from ggml_rpc_ref.connection import NEED_DATA, Connection, DataBegins, DataEnds, Event, Reply, Request, Role
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.recording import Direction, Recorder
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import NO_REPLY, REQUESTS, GraphCompute, RpcTensor, command_name, fields
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.spec.wire import Tail

ADDRESSES = frozenset({"remote_ptr", "base_ptr", "data", "buffer", "hash"})
"""Fields that are printed in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that has passed, and its reply.

    Attributes:
        connection: number of the connection.
        request: the message, without data; a GRAPH_COMPUTE's is a `codec.Graph`.
        request_size: bytes of its payload, data included.
        reply: the message; None where it is data, or where the request has no reply.
        reply_size: bytes of its payload; None where the request has no reply.
        seconds: from the end of the request to the end of the reply; 0 where it has none.
    """

    connection: int
    request: Any
    request_size: int
    reply: Any = None
    reply_size: int | None = None
    seconds: float = 0.0


class Follower:
    """Follows one connection. Not thread-safe: one call at a time.

    Args:
        number: of the connection, from 1.
        recorder: gets every byte, whether followed or not.
        tell: called with each exchange once it is complete.
        version: the protocol version whose layouts are expected.

    Attributes:
        violation: what ended the following; None while it goes on.
    """

    def __init__(
        self,
        number: int,
        recorder: Recorder | None = None,
        tell: Callable[[Exchange], None] | None = None,
        version: Version = DEFAULT,
    ) -> None:
        self.number, self.recorder, self.version = number, recorder, version
        self.violation: Violation | None = None
        self._tell = tell
        self._ends = (Connection(Role.SERVER, version), Connection(Role.CLIENT, version))
        self._seen = [0, 0]  # bytes of the message that is under way, by direction
        self._asked: deque[tuple[Any, int, float]] = deque()
        self._begun: list[type] = []

    def feed(self, direction: Direction, view: memoryview) -> list[type]:
        """Take bytes that pass; return the requests, by class, all of whose fields have come with them.

        Raises:
            OSError: where the recording can't be written.
        """
        self._begun = []
        recorded = 0
        if self.violation is None:
            try:
                recorded = self._follow(direction, view)
            except Violation as violation:
                self.violation = violation
        if self.recorder is not None:
            self.recorder.write(direction, self.number, view[recorded:])
        return self._begun

    def end(self, direction: Direction) -> None:
        """Take note that this side has ended its sending."""
        if self.recorder is not None:
            self.recorder.end(direction, self.number)

    def _follow(self, direction: Direction, view: memoryview) -> int:
        """Read the fields, count the data; return how many of these bytes are already in the recording."""
        end, at, recorded = self._ends[direction], 0, 0
        while at < len(view):
            if end.data_left:
                count = min(end.data_left, len(view) - at)
                end.data_placed(count)
            else:
                count = min(end.wanted, len(view) - at)  # never a byte of data
                end.receive(view[at : at + count])
            at += count
            self._seen[direction] += count
            while (event := end.next_event()) is not NEED_DATA:
                if isinstance(event, DataBegins) and self.recorder is not None:
                    self.recorder.write(direction, self.number, view[recorded:at])
                    self.recorder.begin_data(direction, self.number, event.size)
                    recorded = at
                self._take(direction, event)
        return recorded

    def _take(self, direction: Direction, event: Event) -> None:
        match event:
            case Request(message) if direction is Direction.TO_SERVER:
                self._begun.append(_request_type(message))
                self._request(message)
            case DataBegins(message) if direction is Direction.TO_SERVER:
                self._begun.append(type(message))
            case DataEnds(message) if direction is Direction.TO_SERVER:
                self._request(message)
            case Reply(message):
                self._reply(message)
            case DataEnds():
                self._reply(None)

    def _request(self, message: Any) -> None:
        cls, size = _request_type(message), self._size(Direction.TO_SERVER)
        self._ends[Direction.TO_SERVER].expected.clear()  # nothing is sent through this end
        if REQUESTS[cls].reply(self.version) is NO_REPLY:
            self._done(Exchange(self.number, message, size))
            return
        self._asked.append((message, size, time.monotonic()))
        # the client's end finds the kind of the reply by the type of the request
        self._ends[Direction.TO_CLIENT].expected.append(GraphCompute(nodes=(), tensors=()) if cls is GraphCompute else message)

    def _reply(self, message: Any) -> None:
        request, size, asked = self._asked.popleft()
        reply_size = self._size(Direction.TO_CLIENT)
        self._done(Exchange(self.number, request, size, message, reply_size, time.monotonic() - asked))

    def _size(self, direction: Direction) -> int:
        """Return the size of the payload that has come to its end, and begin to count the next."""
        head = codec.REQUEST_HEAD if direction is Direction.TO_SERVER else codec.REPLY_HEAD
        size, self._seen[direction] = self._seen[direction] - head.size, 0
        return size

    def _done(self, exchange: Exchange) -> None:
        if self._tell is not None:
            self._tell(exchange)


def _request_type(message: Any) -> type:
    return GraphCompute if isinstance(message, codec.Graph) else type(message)


# ------------------------------------------------------------------------------------------------------------ in words


def describe(exchange: Exchange, version: Version = DEFAULT) -> str:
    """Return an exchange on one line: command, fields, size; reply, its size, and how long it took."""
    line = f"#{exchange.connection} {command_name(_request_type(exchange.request))}{_fields(exchange.request, version)}"
    line += f" ({exchange.request_size} B)"
    if exchange.reply_size is None:
        return f"{line}, no reply"
    return f"{line} →{_fields(exchange.reply, version)} ({exchange.reply_size} B) in {exchange.seconds * 1e6:.0f} µs"


def _fields(message: Any, version: Version) -> str:
    if message is None:
        return " data"
    if isinstance(message, codec.Graph):
        return f" device={message.device} {len(message.nodes)} nodes, {len(message.tensors)} tensors"
    cls: type = type(message)
    shown = {row.name: getattr(message, row.name) for row in fields(cls, version) if not isinstance(row.wire, Tail)}
    return "".join(f" {name}={_value(name, value)}" for name, value in shown.items())


def _value(name: str, value: Any) -> str:
    match value:
        case RpcTensor():
            return _tensor(value)
        case tuple():
            return "[" + ", ".join(_tensor(source) for source in value if source.id) + "]"
        case bytes():
            return value.rstrip(b"\0").hex() or "0"
        case _:
            return hex(value) if name in ADDRESSES else str(value)


def _tensor(tensor: RpcTensor) -> str:
    text = tensor.name.split(b"\0")[0].decode("utf-8", "backslashreplace")
    name = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) or hex(tensor.id)
    row = BY_NUMBER.get(tensor.type)
    return f"{name}:{row.name if row else tensor.type}{list(tensor.ne)}"
