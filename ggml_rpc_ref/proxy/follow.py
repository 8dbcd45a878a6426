"""Follow a conversation from between its two ends: bytes of both directions in, exchanges out. No I/O.

Requests are read by a server's Connection and replies by a client's, both by one Order. Only fields pass through them; data are
counted. Most messages have a fixed size and come whole and alone: such a one is recognised by its head and its length, and its
fields are read only where somebody wants to be told of them. Nothing here changes a byte, and nothing that the two ends send
can raise: what breaks a rule is kept in `violation`, and from there on nothing is followed.

The version is the one that the server announces. The layouts of versions other than 3.6.1 are known from their sources only.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import numpy as np

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.files.recording import Direction, Recorder
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, DataBegins, DataEnds, Event, Reply, Request, Role
from ggml_rpc_ref.protocol.graph import Graph, request_class
from ggml_rpc_ref.protocol.negotiation import readable
from ggml_rpc_ref.protocol.order import Order
from ggml_rpc_ref.spec import caps
from ggml_rpc_ref.spec.dialects import recognised
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import Hello, HelloReply, Message, RpcTensor, by_number, command_name, fields
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from ggml_rpc_ref.spec.wire import Tail

MAX_AWAITED = 4096
"""Requests that may await replies at the same time: a client that only asks must not fill the proxy's memory."""
ADDRESSES = frozenset({"remote_ptr", "base_ptr", "data", "buffer", "hash"})
"""Fields that are printed in hexadecimal."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request that has passed, and its reply.

    Attributes:
        connection: number of the connection.
        request: the message, without data; a GRAPH_COMPUTE's is a `Graph`.
        request_size: bytes of its payload, data included.
        reply: the message; None where it is data, or where the request has no reply.
        reply_size: bytes of its payload; None where the request has no reply.
        seconds: from the end of the request to the end of the reply; 0 where it has none.
        version: the version by whose layouts they were read.
    """

    connection: int
    request: Message
    request_size: int
    reply: Message | None = None
    reply_size: int | None = None
    seconds: float = 0.0
    version: Version = DEFAULT


@dataclass(frozen=True, slots=True)
class _Asked:
    """What is kept of a request until its reply has passed.

    Attributes:
        cls: its class.
        size: bytes of its payload, data included.
        time_ns: when its last byte came.
        content: the message, without data; or its payload, not yet read.
    """

    cls: type
    size: int
    time_ns: int
    content: Message | bytes

    def value(self, version: Version, name: str) -> int:
        """Return a number of the message, without reading the rest of it."""
        if isinstance(self.content, bytes):
            # GET_TENSOR's size, which is that of the reply: one number, without decoding the tensor before it
            return int(np.frombuffer(self.content, codec.layout(self.cls, version))[name][0])
        return int(getattr(self.content, name))

    def read(self, version: Version) -> Message:
        """Return the message."""
        if not isinstance(self.content, bytes):
            return self.content
        message: Message = codec.decode(self.cls, self.content, version)
        return message


class _Listening(Connection):
    """A server's end that hears the requests and answers none."""

    def note_request(self, cls: type, message: Message) -> None:
        """Do nothing: the follower notes a request once it has passed, with its size and time."""


class Follower:
    """Follows one connection. Not thread-safe: one call at a time.

    Args:
        number: of the connection, from 1.
        recorder: gets every byte, whether followed or not.
        tell: called with each exchange once it is complete.
        version: the protocol version whose layouts are expected until the server announces its own.

    Attributes:
        violation: what ended the following; None while it goes on.
        order: which requests await their replies, in which version.
    """

    def __init__(
        self,
        number: int,
        recorder: Recorder | None = None,
        tell: Callable[[Exchange], None] | None = None,
        version: Version = DEFAULT,
    ) -> None:
        self.number, self.recorder = number, recorder
        self.violation: Violation | None = None
        self.order: Order[_Asked] = Order(version, by_hello=PROFILES)
        self._tell = tell
        self._ends = (_Listening(Role.SERVER, order=self.order), Connection(Role.CLIENT, order=self.order))
        self._seen = [0, 0]  # bytes of the message that is under way, by direction
        self._begun: list[type] = []
        self._now = 0
        self._recorded = 0  # bytes of the view being followed that are in the recording

    @property
    def version(self) -> Version:
        """The version by whose layouts messages are read."""
        return self.order.version

    def feed(self, direction: Direction, view: memoryview, time_ns: int | None = None) -> list[type]:
        """Take bytes that pass; return the requests, by class, all of whose fields have come with them.

        Args:
            direction: which way they go.
            view: the bytes.
            time_ns: the `time.monotonic_ns` at which they came; None: now.

        Raises:
            OSError: where the recording can't be written.
        """
        self._begun, self._now, self._recorded = [], time_ns or time.monotonic_ns(), 0
        if self.violation is None:
            try:
                if not self._follow_whole(direction, view):
                    self._follow(direction, view)
            except Violation as violation:
                self.violation = violation
                # no reply is matched any more; what was kept of the requests is freed
                self.order.forget()
        if self.recorder is not None:
            # after it was followed: only that says where data begin, which may be left out
            self.recorder.write(direction, self.number, view[self._recorded :], self._now)
        return self._begun

    def end(self, direction: Direction, time_ns: int | None = None) -> None:
        """Record that this side has ended its sending."""
        if self.recorder is not None:
            self.recorder.end(direction, self.number, time_ns)

    def _follow(self, direction: Direction, view: memoryview) -> None:
        """Read the fields and count the data; where data begin, record what came before them."""
        end, at = self._ends[direction], 0
        while at < len(view):
            if end.data_left:
                count = min(end.data_left, len(view) - at)
                end.data_placed(count)
            else:
                count = min(end.wanted, len(view) - at)  # never a byte of data: a Connection would copy them
                end.receive(view[at : at + count])
            at += count
            self._seen[direction] += count
            while (event := end.next_event()) is not NEED_DATA:
                if isinstance(event, DataBegins) and self.recorder is not None:
                    self.recorder.write(direction, self.number, view[self._recorded : at], self._now)
                    self.recorder.begin_data(direction, self.number, event.size)
                    self._recorded = at
                self._take(direction, event)

    def _take(self, direction: Direction, event: Event) -> None:
        match event:
            case Request(message) if direction is Direction.TO_SERVER:
                self._begun.append(request_class(message))
                self._request(message)
            case DataBegins(message) if direction is Direction.TO_SERVER:
                self._begun.append(type(message))
            case DataEnds(message) if direction is Direction.TO_SERVER:
                self._request(message)
            case Reply(message, asked):
                self._reply(asked, message)
            case DataEnds(asked):
                self._done(asked, None, self._size(direction))

    def _request(self, message: Message) -> None:
        self._ask(_Asked(request_class(message), self._size(Direction.TO_SERVER), self._now, message))

    def _ask(self, asked: _Asked) -> None:
        if self.order.ask(asked.cls, asked, partial(asked.value, self.version)) is None:
            self._done(asked)
        elif self.order.waiting > MAX_AWAITED:
            detail = "that many await replies; no more are remembered"
            raise Violation("frame.reply-presence", "requests", MAX_AWAITED, detail)

    def _reply(self, asked: _Asked, message: Message) -> None:
        # before the version changes: it was read by the layouts until now
        self._done(asked, message, self._size(Direction.TO_CLIENT))
        if isinstance(message, HelloReply):
            self._agree(message)

    def _agree(self, hello: HelloReply) -> None:
        """Go on by the layouts of the version that the server has announced."""
        announced = Version(hello.major, hello.minor, hello.patch)
        version = readable(announced)
        if version is None:
            fork = recognised(announced)
            detail = f"{fork.name} says so, which {fork.differs}; " if fork else ""
            raise Violation("session.version-accepted", "version", announced, f"{detail}its messages can't be followed")
        if codec.minimum_size(Hello, version) != codec.minimum_size(Hello, self.version):
            raise Violation("session.hello-version", "version", announced, "its HELLO has another form than the one it answered")
        if version == self.version:
            return
        if self.order.waiting or self._seen[Direction.TO_SERVER]:
            # the client did not wait for the version, so what it sent was read by layouts that may be another version's
            raise Violation("session.hello-version", "version", announced, "requests came before it was known")
        self.order.agree(version)

    def _size(self, direction: Direction) -> int:
        """Return the size of the payload that has come to its end, and begin to count the next."""
        head = codec.REQUEST_HEAD if direction is Direction.TO_SERVER else codec.REPLY_HEAD
        size, self._seen[direction] = self._seen[direction] - head.size, 0
        return size

    def _done(self, asked: _Asked, reply: Message | None = None, reply_size: int | None = None) -> None:
        if self._tell is not None:
            seconds = 0.0 if reply_size is None else (self._now - asked.time_ns) / 1e9
            request = asked.read(self.version)
            self._tell(Exchange(self.number, request, asked.size, reply, reply_size, seconds, self.version))

    # ------------------------------------------------------------------------------------------------- whole messages

    def _follow_whole(self, direction: Direction, view: memoryview) -> bool:
        """Take these bytes as one whole message of fixed size; False where they are anything else.

        It saves both Connections: a small message costs the proxy a few microseconds only where nobody reads its fields.
        """
        # only between two messages, where the Connection has nothing begun and need not know of this one; and not HELLO, from
        # whose size the Order takes the version
        if self._seen[direction] or not self.order.opened:
            return False
        return self._whole_request(view) if direction is Direction.TO_SERVER else self._whole_reply(view)

    def _whole_request(self, view: memoryview) -> bool:
        head = codec.REQUEST_HEAD.size
        cls = _fixed_requests(self.version).get((bytes(view[:head]), len(view)))
        if cls is None:
            return False
        self._begun.append(cls)
        self._ask(_Asked(cls, len(view) - head, self._now, bytes(view[head:])))
        return True

    def _whole_reply(self, view: memoryview) -> bool:
        due = self.order.oldest
        if due is None or due.reply is HelloReply:  # HELLO's reply has to be read: it announces the version
            return False
        head = codec.REPLY_HEAD.size
        if (bytes(view[:head]), len(view)) != _fixed_reply(due.reply, self.version):
            return False
        message = codec.decode(due.reply, view[head:], self.version) if self._tell is not None else None
        self._done(self.order.answer().request, message, len(view) - head)
        return True


@cache
def _fixed_requests(version: Version) -> dict[tuple[bytes, int], type]:
    """Return head and length to class, for every request of fixed size but HELLO."""
    sizes = {row.cls: codec.minimum_size(row.cls, version) for row in by_number(version).values() if row.cls is not Hello}
    return {
        (codec.request_head(cls, size, version), codec.REQUEST_HEAD.size + size): cls
        for cls, size in sizes.items()
        if codec.is_fixed(cls, version)
    }


@cache
def _fixed_reply(cls: type, version: Version) -> tuple[bytes, int] | None:
    """Return head and length of a reply; None where its size is not fixed."""
    size = codec.minimum_size(cls, version)
    return (codec.REPLY_HEAD.pack(size), codec.REPLY_HEAD.size + size) if codec.is_fixed(cls, version) else None


# ------------------------------------------------------------------------------------------------------------ in words


def describe(exchange: Exchange) -> str:
    """Return an exchange on one line: command, fields, size; reply, its size, and how long it took."""
    version = exchange.version
    line = f"#{exchange.connection} {command_name(request_class(exchange.request))}{_fields(exchange.request, version)}"
    line += f" ({exchange.request_size} B)"
    if exchange.reply_size is None:
        return f"{line}, no reply"
    return f"{line} →{_fields(exchange.reply, version)} ({exchange.reply_size} B) in {exchange.seconds * 1e6:.0f} µs"


def _fields(message: Message | None, version: Version) -> str:
    if message is None:
        return " data"
    if isinstance(message, Graph):
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
        case bytes() if name == "conn_caps" and any(value):
            return f"{value.hex()} ({caps.describe(value)})"
        case bytes():
            return value.rstrip(b"\0").hex() or "0"
        case _:
            return hex(value) if name in ADDRESSES else str(value)


def _tensor(tensor: RpcTensor) -> str:
    # a name is any 64 bytes of a peer's: nothing in it may steer the terminal
    text = tensor.name.split(b"\0")[0].decode("utf-8", "backslashreplace")
    name = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text) or hex(tensor.id)
    row = BY_NUMBER.get(tensor.type)
    return f"{name}:{row.name if row else tensor.type}{list(tensor.ne)}"
