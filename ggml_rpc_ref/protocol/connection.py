"""One end of a conversation, without a socket: bytes in, events out; messages in, bytes out.

    connection = Connection(Role.SERVER)
    connection.receive(bytes_from_somewhere)
    while (event := connection.next_event()) is not NEED_DATA:
        ...                                     # Request(message), or DataBegins, Data …, DataEnds
    bytes_to_somewhere = connection.send(reply)

Rules of order that live here: HELLO first and once; size fields checked before any payload byte is waited for; replies in the order
of the requests, each of the kind that its request has in this version. Replies carry no id, so which one comes next is the queue of
requests that still await theirs (`expected`).

The bytes of SET_TENSOR and of GET_TENSOR's reply are data, not fields: they may be gigabytes, so they need not pass through a
buffer of ours. After `DataBegins` the owner of the socket may receive them straight to where they belong and report it with
`data_placed`; bytes that have already come are handed over by `take_data`. Who feeds them through `receive` instead gets them as
`Data` events.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    Empty,
    GetTensor,
    GetTensorReply,
    GraphCompute,
    Hello,
    SetTensor,
    by_number,
    command_name,
)
from ggml_rpc_ref.spec.versions import DEFAULT, Version

MAX_GRAPH_SIZE: Final = 512 * 2**20
"""Bytes of the largest GRAPH_COMPUTE received unless said otherwise: some 1.7 million tensors. A peer must not fill our memory."""


class Role(Enum):
    """Which end of the conversation this is."""

    CLIENT = "client"
    SERVER = "server"


class NeedData(Enum):
    """The type of NEED_DATA."""

    NEED_DATA = "need data"


NEED_DATA: Final = NeedData.NEED_DATA
"""No event is complete yet: receive more."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request has arrived (server side). A GRAPH_COMPUTE's message is a `codec.Graph`."""

    message: Any


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply has arrived (client side), and the request that it answers."""

    message: Any
    request: Any


@dataclass(frozen=True, slots=True)
class DataBegins:
    """The fixed part of a message with data has arrived; `size` bytes of data follow.

    Attributes:
        message: server side the SetTensor without its data, client side the GetTensor that is being answered.
        size: bytes of data that follow.
    """

    message: Any
    size: int


@dataclass(frozen=True, slots=True)
class Data:
    """Some of the data announced by DataBegins."""

    chunk: bytes


@dataclass(frozen=True, slots=True)
class DataEnds:
    """All data announced by DataBegins has arrived."""

    message: Any


Event = Request | Reply | DataBegins | Data | DataEnds


class _State(Enum):
    HEAD = "head"
    PAYLOAD = "payload"
    DATA = "data"


class Connection:
    """The protocol's order, for one connection.

    Args:
        role: which end this is.
        version: the protocol version whose layouts are spoken.
        max_graph_size: bytes; a larger GRAPH_COMPUTE is refused by its size field.

    After a Violation the connection is over: every later call raises the same one.
    """

    def __init__(self, role: Role, version: Version = DEFAULT, max_graph_size: int = MAX_GRAPH_SIZE) -> None:
        self.role, self.version, self.max_graph_size = role, version, max_graph_size
        self.expected: deque[Any] = deque()
        """Requests that still await their reply, oldest first: sent ones of a client, received ones of a server."""
        self.data_left = 0
        """Bytes of data still to come for the message announced by DataBegins."""
        self._buffer = bytearray()
        self._state = _State.HEAD
        self._cls: Any = None
        self._size = 0
        self._message: Any = None
        self._opened = False
        self._failed: Violation | None = None

    # -------------------------------------------------------------------------------------------------------- receiving

    def receive(self, data: codec.Readable) -> None:
        """Take bytes that have come from the peer, cut up anyhow."""
        self._buffer += data

    @property
    def wanted(self) -> int:
        """Bytes that must still come before the next event can; at least 1. A hint for the size of a read."""
        need = {_State.HEAD: self._head_size, _State.PAYLOAD: self._payload_wanted, _State.DATA: 1}[self._state]
        return max(1, need - len(self._buffer))

    @property
    def idle(self) -> bool:
        """Whether the peer may end the conversation here: no message has begun and no reply is awaited."""
        return self._state is _State.HEAD and not self._buffer and not self.expected

    @property
    def pending(self) -> bytes:
        """The first bytes, at most 64, that have been received and not yet become an event; for messages."""
        return bytes(self._buffer[:64])

    def next_event(self) -> Event | NeedData:
        """Return the next event, or NEED_DATA.

        Raises:
            Violation: for bytes that no peer of this version sends; the connection is over.
        """
        if self._failed is not None:
            raise self._failed
        try:
            if self._state is _State.HEAD and not self._read_head():
                return NEED_DATA
            return self._read_payload() if self._state is _State.PAYLOAD else self._read_data()
        except Violation as violation:
            self._failed = violation
            raise

    @property
    def _head_size(self) -> int:
        return codec.REQUEST_HEAD.size if self.role is Role.SERVER else codec.REPLY_HEAD.size

    def _read_head(self) -> bool:
        """Read command and size; True once both are there and acceptable."""
        if self.role is Role.SERVER and self._buffer:
            # the command is judged by its first byte: a peer that speaks another protocol is turned away at once
            self._cls = self._request_class(self._buffer[0])
        if len(self._buffer) < self._head_size:
            return False
        if self.role is Role.SERVER:
            _, self._size = codec.REQUEST_HEAD.unpack_from(self._buffer)
        else:
            self._cls = self._reply_class()
            (self._size,) = codec.REPLY_HEAD.unpack_from(self._buffer)
        self._check_size()
        del self._buffer[: self._head_size]
        self._state = _State.PAYLOAD
        return True

    def _request_class(self, number: int) -> type:
        row = by_number(self.version).get(number)
        if not self._opened and (row is None or row.cls is not Hello):
            raise Violation("session.hello-first", "command", number, "the first command is HELLO (14)")
        if row is None:
            raise Violation("frame.command-known", "command", number, f"protocol {self.version} defines none of this number")
        if self._opened and row.cls is Hello:
            raise Violation("session.hello-once", "command", number, "HELLO has been said on this connection")
        return row.cls

    def _reply_class(self) -> type:
        if not self.expected:
            raise Violation("frame.reply-presence", "reply", f"{len(self._buffer)} bytes", "no request awaits one")
        reply = REQUESTS[type(self.expected[0])].reply(self.version)
        assert isinstance(reply, type)
        return reply

    def _check_size(self) -> None:
        if self._cls is GetTensorReply:
            wanted = self.expected[0].size
            if self._size != wanted:
                raise Violation("frame.reply-presence", "GetTensorReply size", self._size, f"{wanted} bytes were asked for")
        elif self._cls is GraphCompute and self._size > self.max_graph_size:
            raise Violation(
                "frame.size-bounded", "GraphCompute size", self._size, f"this server takes up to {self.max_graph_size} bytes"
            )
        codec.check_size(self._cls, self._size, self.version)

    @property
    def _payload_wanted(self) -> int:
        """Bytes of payload to collect before the message can be read; the data of a bulk message not among them."""
        return codec.minimum_size(self._cls, self.version) if self._is_bulk else self._size

    @property
    def _is_bulk(self) -> bool:
        return self._cls in (SetTensor, GetTensorReply)

    def _read_payload(self) -> Event | NeedData:
        wanted = self._payload_wanted
        if self._cls is GraphCompute:
            codec.graph_size(self._buffer, self._size, self.version)
        if len(self._buffer) < wanted:
            return NEED_DATA
        payload = bytes(memoryview(self._buffer)[:wanted])
        del self._buffer[:wanted]
        if self._is_bulk:
            return self._begin_data(payload)
        self._state = _State.HEAD
        if self.role is Role.CLIENT:
            return Reply(codec.decode(self._cls, payload, self.version), self.expected.popleft())
        return self._request(
            codec.Graph.decode(payload, self.version)
            if self._cls is GraphCompute
            else codec.decode(self._cls, payload, self.version)
        )

    def _request(self, message: Any) -> Event:
        self._opened = True
        if REQUESTS[self._cls].reply(self.version) is not NO_REPLY:
            self.expected.append(message)
        return Request(message)

    # ------------------------------------------------------------------------------------------------------------- data

    def _begin_data(self, payload: bytes) -> Event:
        if self._cls is SetTensor:
            self._message = codec.decode(SetTensor, payload, self.version)
            if REQUESTS[SetTensor].reply(self.version) is not NO_REPLY:
                self.expected.append(self._message)
        else:
            self._message = self.expected.popleft()
        self.data_left = self._size - len(payload)
        self._state = _State.DATA
        return DataBegins(self._message, self.data_left)

    def _read_data(self) -> Event | NeedData:
        if self.data_left == 0:
            self._state = _State.HEAD
            return DataEnds(self._message)
        if not self._buffer:
            return NEED_DATA
        chunk = bytes(memoryview(self._buffer)[: self.data_left])
        del self._buffer[: len(chunk)]
        self.data_left -= len(chunk)
        return Data(chunk)

    def take_data(self, destination: memoryview) -> int:
        """Move data that has already been received to where it belongs; return how many bytes.

        Args:
            destination: room for the data; at most this many bytes are moved.
        """
        count = min(len(self._buffer), self.data_left, len(destination))
        destination[:count] = memoryview(self._buffer)[:count]
        del self._buffer[:count]
        self.data_left -= count
        return count

    def data_placed(self, count: int) -> None:
        """Say that this many bytes of data were received straight to where they belong.

        Raises:
            Misuse: where they are more than the message has, or earlier bytes still wait in the buffer.
        """
        if self._state is not _State.DATA or count > self.data_left or self._buffer:
            raise Misuse(f"data_placed({count}) with {self.data_left} bytes of data to come and {len(self._buffer)} waiting")
        self.data_left -= count

    # ---------------------------------------------------------------------------------------------------------- sending

    def send(self, message: Any) -> bytes:
        """Return the bytes of a request (client) or of the reply that is due (server).

        Raises:
            Misuse: for a message out of order, or one whose fields don't fit.
        """
        if self.role is Role.CLIENT:
            return self._begin_request(message, codec.encode(message, self.version))
        payload = codec.encode(message, self.version)
        return self._head_of_reply(type(message), len(payload)) + payload

    def send_with_data(self, message: Any, size: int) -> bytes:
        """Return the bytes of a message up to its data; the caller sends `size` bytes of data after them.

        Args:
            message: client side a SetTensor without data; server side GetTensorReply without data.
            size: bytes of data.
        """
        if self.role is Role.CLIENT:
            return self._begin_request(message, codec.encode(message, self.version), size)
        return self._head_of_reply(type(message), size)

    def send_graph(self, graph: codec.Graph) -> bytes:
        """Return the bytes of a GRAPH_COMPUTE given as arrays (client)."""
        if self.role is not Role.CLIENT:
            raise Misuse("only a client sends graphs")
        return self._begin_request(GraphCompute(nodes=(), tensors=()), graph.encode(self.version))

    def _begin_request(self, message: Any, payload: bytes, more: int = 0) -> bytes:
        cls = type(message)
        head = codec.request_head(cls, len(payload) + more, self.version)
        if (cls is Hello) is self._opened:
            raise Misuse(f"{command_name(cls)}: HELLO is the first request of a connection, and only the first")
        self._opened = True
        if REQUESTS[cls].reply(self.version) is not NO_REPLY:
            self.expected.append(message)
        return head + payload

    def _head_of_reply(self, cls: type, size: int) -> bytes:
        due = REQUESTS[self._request_type(self.expected[0])].reply(self.version) if self.expected else NO_REPLY
        if due is not cls:
            raise Misuse(f"{cls.__name__} is not the reply that is due")
        self.expected.popleft()
        return codec.REPLY_HEAD.pack(size)

    @staticmethod
    def _request_type(message: Any) -> type:
        return GraphCompute if isinstance(message, codec.Graph) else type(message)


__all__ = [
    "MAX_GRAPH_SIZE",
    "NEED_DATA",
    "Connection",
    "Data",
    "DataBegins",
    "DataEnds",
    "Empty",
    "Event",
    "GetTensor",
    "NeedData",
    "Reply",
    "Request",
    "Role",
]
