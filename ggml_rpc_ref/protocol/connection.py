"""One end of a conversation, without a socket: bytes in, events out; messages in, bytes out.

    connection = Connection(Role.SERVER)
    connection.receive(bytes_from_somewhere)
    while (event := connection.next_event()) is not NEED_DATA:
        ...                                     # Request(message), or DataBegins, Data …, DataEnds
    bytes_to_somewhere = connection.send(reply)

`order.Order` knows whose turn it is; this module cuts the stream of bytes into messages. A message is refused as early as possible:
its command by the first byte, its size before waiting for any byte of the payload, the counts of a graph as soon as they have come.

Data (the last field of a message that carries some, such as SET_TENSOR or GET_TENSOR's reply) may be gigabytes, so they need not
pass through a buffer of ours. After `DataBegins` the owner of the socket may receive them straight into their destination and
report it with `data_placed`; bytes that have already come are handed over by `take_data`. An owner that feeds them through
`receive` instead gets them as `Data` events.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Any, Final, NamedTuple

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph, decode_request, graph_size
from ggml_rpc_ref.protocol.order import Order
from ggml_rpc_ref.spec.messages import GraphCompute, Hello, Message, by_number, carries_data
from ggml_rpc_ref.spec.versions import DEFAULT, Version

MAX_GRAPH_SIZE: Final = 512 * 2**20
"""Bytes of the largest GRAPH_COMPUTE received unless said otherwise: about 1.7 million tensors. A peer must not fill our memory."""


class Role(Enum):
    """Which end of the conversation this is."""

    CLIENT = "client"
    SERVER = "server"


class NeedData(Enum):
    """The type of NEED_DATA."""

    NEED_DATA = "need data"


HANDED_OVER: Final = 2**16
"""Bytes from which on a payload is not copied: a copy of a graph of 100,000 tensors, 29 MB, would stop all other threads."""
NEED_DATA: Final = NeedData.NEED_DATA
"""No event is complete yet: receive more."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request has arrived (server side). A GRAPH_COMPUTE's message is a `graph.Graph`."""

    message: Message


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply has arrived (client side), and the request that it answers."""

    message: Any
    request: Any


@dataclass(frozen=True, slots=True)
class DataBegins:
    """The fixed part of a message with data has arrived; `size` bytes of data follow.

    Attributes:
        message: server side the request without its data, client side the request that is being answered, as
            the order keeps it.
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
    """All data announced by DataBegins have arrived."""

    message: Any


Event = Request | Reply | DataBegins | Data | DataEnds


_HEAD: Final = codec.REQUEST_HEAD.size


class _Form(NamedTuple):
    """What is known of a request without counts before it comes.

    Attributes:
        cls: its class.
        size: bytes of its payload; of one with data, those before the data.
        has_data: whether data follow.
        read: reads that payload.
    """

    cls: type
    size: int
    has_data: bool
    read: Callable[[codec.Readable], Message]


@cache
def _forms(version: Version) -> dict[int, _Form]:
    """Return by command number what requests look like, but for HELLO, whose size says which version is spoken."""
    return {
        number: _Form(row.cls, codec.minimum_size(row.cls, version), carries_data(row.cls), codec.reader(row.cls, version))
        for number, row in by_number(version).items()
        if row.cls is not Hello and not codec.has_counts(row.cls, version)
    }


class _State(Enum):
    HEAD = "head"
    PAYLOAD = "payload"
    DATA = "data"


class Connection:
    """One end of one connection.

    Args:
        role: which end this is.
        version: the protocol version whose layouts are spoken.
        max_graph_size: bytes; a larger GRAPH_COMPUTE is refused by its size field.
        order: the order of the conversation; None: one of its own. The proxy reads both directions by one order.

    After a Violation the connection is over: every later call raises the same one.
    """

    def __init__(
        self,
        role: Role,
        version: Version = DEFAULT,
        max_graph_size: int = MAX_GRAPH_SIZE,
        order: Order[Any] | None = None,
    ) -> None:
        self.role, self.max_graph_size = role, max_graph_size
        self.order: Order[Any] = Order(version) if order is None else order
        self.data_left = 0
        """Bytes of data still to come for the message announced by DataBegins."""
        self._buffer, self._serves = bytearray(), role is Role.SERVER
        self._formed: Version | None = None  # the version of these forms
        self._forms: dict[int, _Form] = {}
        self._state = _State.HEAD
        self._cls: Any = None
        self._size = 0
        self._message: Any = None
        self._failed: Violation | None = None

    @property
    def version(self) -> Version:
        """The protocol version whose layouts are spoken."""
        return self.order.version

    def agree(self, version: Version) -> None:
        """Go on in the version that HELLO's reply has announced.

        Raises:
            Misuse: while a reply is awaited.
        """
        self.order.agree(version)

    # -------------------------------------------------------------------------------------------------------- receiving

    def receive(self, data: codec.Readable) -> None:
        """Take bytes that have come from the peer, in pieces of any size."""
        self._buffer += data

    @property
    def wanted(self) -> int:
        """Bytes still missing before the next event; at least 1. A hint for the size of a read: never more than the message has."""
        if self._state is _State.DATA:
            return 1
        # a message's head or fields, never a byte past them: what follows may be data, which need not be copied into this buffer
        need = self._head_size if self._state is _State.HEAD else self._payload_wanted
        return max(1, need - len(self._buffer))

    @property
    def buffered(self) -> int:
        """Bytes that have come and wait here for the rest of their message; what `take_data` has taken is not among them."""
        return len(self._buffer)

    @property
    def idle(self) -> bool:
        """Whether the peer may end the conversation here: no message has begun and no reply is awaited."""
        return self._state is _State.HEAD and not self._buffer and self.order.oldest is None

    @property
    def pending(self) -> bytes:
        """The first bytes, at most 64, that have been received but are not part of an event yet; for error messages."""
        return bytes(self._buffer[:64])

    def next_event(self) -> Event | NeedData:
        """Return the next event, or NEED_DATA.

        Raises:
            Violation: for bytes that no peer of this version sends; the connection is over.
        """
        if self._failed is not None:
            raise self._failed
        try:
            if self._state is _State.HEAD:
                if not self._buffer:
                    return NEED_DATA
                if (event := self._whole_request()) is not None:
                    return event
                if not self._read_head():
                    return NEED_DATA
            return self._read_payload() if self._state is _State.PAYLOAD else self._read_data()
        except Violation as violation:
            self._failed = violation
            raise

    def _whole_request(self) -> Event | None:
        """Return a request of which all but its data has come, as small ones do; None: it is read, or refused, step by step.

        What is right is read here with one look at its head; whatever is not right in any way is left to the steps.
        """
        buffer = self._buffer
        if len(buffer) < _HEAD or not self._serves or not self.order.opened:
            return None
        if (version := self.order.version) is not self._formed:
            self._formed, self._forms = version, _forms(version)
        number, size = codec.REQUEST_HEAD.unpack_from(buffer)
        form = self._forms.get(number)
        if form is None or size < form.size or len(buffer) < (end := _HEAD + form.size):
            return None
        if size > form.size and not form.has_data:
            return None
        message = form.read(buffer[_HEAD:end])
        del buffer[:end]
        self.note_request(form.cls, message)
        if not form.has_data:
            return Request(message)
        self._message, self.data_left, self._state = message, size - form.size, _State.DATA
        return DataBegins(message, self.data_left)

    @property
    def _head_size(self) -> int:
        return codec.REQUEST_HEAD.size if self.role is Role.SERVER else codec.REPLY_HEAD.size

    def _read_head(self) -> bool:
        """Read command and size; True once both have come and are acceptable."""
        if self.role is Role.SERVER and self._buffer:
            # judged by the first byte: a peer that speaks another protocol may never send the other eight
            self._cls = self._request_class(self._buffer[0])
        if len(self._buffer) < self._head_size:
            return False
        if self.role is Role.SERVER:
            _, self._size = codec.REQUEST_HEAD.unpack_from(self._buffer)
        else:
            self._cls = self.order.due().reply
            (self._size,) = codec.REPLY_HEAD.unpack_from(self._buffer)
        self._check_size()
        del self._buffer[: self._head_size]
        self._state = _State.PAYLOAD
        return True

    def _request_class(self, number: int) -> type:
        return self.order.command(number).cls

    def _check_size(self) -> None:
        if self.role is Role.CLIENT:
            self.order.due().check_size(self._size)
            return
        # before its size is compared: to one that only listens the size says which version is spoken
        if self._cls is Hello:
            self.order.hear_hello(self._size)
        if self._cls is GraphCompute and self._size > self.max_graph_size:
            detail = f"this server takes up to {self.max_graph_size} bytes"
            raise Violation("frame.size-bounded", "GraphCompute size", self._size, detail)
        codec.check_size(self._cls, self._size, self.version)

    @property
    def _payload_wanted(self) -> int:
        """Bytes of payload to collect before the message can be read; data are not among them."""
        return codec.minimum_size(self._cls, self.version) if carries_data(self._cls) else self._size

    def _read_payload(self) -> Event | NeedData:
        wanted = self._payload_wanted
        if self._cls is GraphCompute:
            graph_size(self._buffer, self._size, self.version)  # refuses claimed counts before waiting for what they claim
        if len(self._buffer) < wanted:
            return NEED_DATA
        payload = self._take(wanted)
        if carries_data(self._cls):
            return self._begin_data(payload)
        self._state = _State.HEAD
        if self.role is Role.CLIENT:
            return Reply(codec.decode(self._cls, payload, self.version), self.order.answer().request)
        return self._request(decode_request(self._cls, payload, self.version))

    def _take(self, count: int) -> bytes | bytearray:
        """Return the first bytes that have been received, and forget them; many of them are handed over, not copied."""
        if count >= HANDED_OVER:
            taken, self._buffer = self._buffer, self._buffer[count:]
            del taken[count:]
            return taken
        # through a view, since a slice of the bytearray would copy twice; the view is gone before `del`, which can't shorten an
        # array that one looks at (BufferError)
        payload = bytes(memoryview(self._buffer)[:count])
        del self._buffer[:count]
        return payload

    def _request(self, message: Message) -> Event:
        self.note_request(self._cls, message)
        return Request(message)

    def note_request(self, cls: type, message: Message) -> None:
        """Tell the order of a request that has come, or whose data begin to come; one that only listens notes it itself."""
        self.order.ask(cls, message)

    # ------------------------------------------------------------------------------------------------------------- data

    def _begin_data(self, payload: bytes | bytearray) -> Event:
        if self.role is Role.SERVER:
            self._message = codec.decode(self._cls, payload, self.version)
            self.note_request(self._cls, self._message)
        else:
            self._message = self.order.answer().request
        self.data_left = self._size - len(payload)
        self._state = _State.DATA
        return DataBegins(self._message, self.data_left)

    def _read_data(self) -> Event | NeedData:
        # before more is asked for: data of no bytes end at once
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
        """Move data that have already been received to their destination; return how many bytes.

        Args:
            destination: room for the data; at most this many bytes are moved.
        """
        count = min(len(self._buffer), self.data_left, len(destination))
        destination[:count] = memoryview(self._buffer)[:count]
        del self._buffer[:count]
        self.data_left -= count
        return count

    def data_placed(self, count: int) -> None:
        """Report that this many bytes of data were received straight into their destination.

        Raises:
            Misuse: where they are more than the message has, or earlier bytes still wait in the buffer.
        """
        if self._state is not _State.DATA or count > self.data_left or self._buffer:
            raise Misuse(f"data_placed({count}) with {self.data_left} bytes of data to come and {len(self._buffer)} waiting")
        self.data_left -= count

    # ---------------------------------------------------------------------------------------------------------- sending

    def send(self, message: Message) -> bytes:
        """Return the bytes of a request (client) or of the reply that is due (server).

        Raises:
            Misuse: for a message out of order, or one whose fields don't fit.
        """
        # encoded before the order notes it: a message with a field that does not fit has not been sent
        payload = codec.encode(message, self.version)
        return self._head(message, len(payload)) + payload

    def send_with_data(self, message: Message, size: int) -> bytes:
        """Return the bytes of a message up to its data; the caller sends `size` bytes of data after them.

        Args:
            message: a request (client) or the reply that is due (server), its data left empty.
            size: bytes of data.

        Raises:
            Misuse: as `send`.
        """
        payload = codec.encode(message, self.version)
        return self._head(message, len(payload) + size) + payload

    def send_graph(self, graph: Graph) -> bytes:
        """Return the bytes of a GRAPH_COMPUTE given as arrays (client).

        Raises:
            Misuse: as `send`.
        """
        if self.role is not Role.CLIENT:
            raise Misuse("only a client sends graphs")
        payload = graph.encode(self.version)
        # an empty message stands for the graph in the order, which needs its class alone: no reply's size depends on it
        return self._head(GraphCompute(nodes=(), tensors=()), len(payload)) + payload

    def _head(self, message: Message, size: int) -> bytes:
        """Return what comes before a payload of `size` bytes, and note that the message is sent."""
        cls = type(message)
        if self._serves:
            self.order.answer_with(cls)
            return codec.REPLY_HEAD.pack(size)
        # first: it refuses a request that the version lacks, and one that is refused must not be in the order
        head = codec.request_head(cls, size, self.version)
        self.order.check(cls)
        self.order.ask(cls, message)
        return head
