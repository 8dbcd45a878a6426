"""Follow a conversation from between its two ends: bytes of both directions in, exchanges out. No I/O.

Requests are read by a server's Connection and replies by a client's, which is told of every request that has been seen. Only
fields pass through them; data parts are counted. A message of fixed size that comes whole and alone, as most do, is known by its
first bytes and passes them by: its fields are read where somebody wants to be told, and otherwise never. Nothing here changes a
byte, and nothing that the two ends do can raise: what breaks a rule is kept in `violation`, and from there on nothing is followed.

The version is the one that the server announces; of those other than 3.6.1 only layouts are known, from their sources.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.files.recording import Direction, Recorder
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, DataBegins, DataEnds, Event, NeedData, Reply, Request, Role
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    GetTensor,
    GraphCompute,
    Hello,
    HelloReply,
    RpcTensor,
    SetTensor2d,
    by_number,
    command_name,
    fields,
    layouts,
)
from ggml_rpc_ref.spec.versions import DEFAULT, PROFILES, Version
from ggml_rpc_ref.spec.wire import Tail

CAPS_SINCE = layouts(Hello)[-1]
"""The first version whose HELLO carries capabilities."""
HELLO_WITH_CAPS = codec.minimum_size(Hello, CAPS_SINCE)
"""Bytes of its payload."""
LAST_FOLLOWED = max(version for version in PROFILES if version < REQUESTS[SetTensor2d].since)
"""The newest version that is followed: later ones upload in ways that are not counted here."""
MOST_ASKED = 4096
"""Requests that await replies at the same time; more are not remembered: a peer that only asks must not fill memory."""
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
        version: by whose layouts they were read.
    """

    connection: int
    request: Any
    request_size: int
    reply: Any = None
    reply_size: int | None = None
    seconds: float = 0.0
    version: Version = DEFAULT


class Follower:
    """Follows one connection. Not thread-safe: one call at a time.

    Args:
        number: of the connection, from 1.
        recorder: gets every byte, whether followed or not.
        tell: called with each exchange once it is complete.
        version: the protocol version whose layouts are expected until the server says its own.

    Attributes:
        violation: what ended the following; None while it goes on.
        version: whose layouts are read.
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
        self._opened = False
        self._seen = [0, 0]  # bytes of the message that is under way, by direction
        self._asked: deque[_Asked] = deque()
        self._begun: list[type] = []
        self._now = 0
        self._recorded = 0  # bytes of the view being followed that are in the recording

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
                self._asked.clear()
        if self.recorder is not None:
            self.recorder.write(direction, self.number, view[self._recorded :], self._now)
        return self._begun

    def end(self, direction: Direction, time_ns: int | None = None) -> None:
        """Take note that this side has ended its sending."""
        if self.recorder is not None:
            self.recorder.end(direction, self.number, time_ns)

    def _follow(self, direction: Direction, view: memoryview) -> None:
        """Read the fields, count the data; up to where data begin the bytes go into the recording already."""
        at = 0
        while at < len(view):
            end = self._ends[direction]  # another one, once the version is known
            if direction is Direction.TO_CLIENT and self._asked and not self._seen[direction]:
                end.expected.append(self._asked[0].stub(self.version))
            if end.data_left:
                count = min(end.data_left, len(view) - at)
                end.data_placed(count)
            else:
                count = min(end.wanted, len(view) - at)  # never a byte of data
                end.receive(view[at : at + count])
            at += count
            self._seen[direction] += count
            while (event := self._next_event(direction)) is not NEED_DATA:
                if isinstance(event, DataBegins) and self.recorder is not None:
                    self.recorder.write(direction, self.number, view[self._recorded : at], self._now)
                    self.recorder.begin_data(direction, self.number, event.size)
                    self._recorded = at
                self._take(direction, event)

    def _next_event(self, direction: Direction) -> Event | NeedData:
        try:
            return self._ends[direction].next_event()
        except Violation as violation:
            if self._opened or (violation.rule, violation.value) != ("frame.size-fixed", HELLO_WITH_CAPS):
                raise
        self._speak(CAPS_SINCE)  # its HELLO is that of all versions since
        self._ends[direction].receive(codec.request_head(Hello, HELLO_WITH_CAPS, CAPS_SINCE))
        return self._ends[direction].next_event()

    def _speak(self, version: Version) -> None:
        """Read by another version's layouts from here on."""
        self.version = version
        self._ends = (Connection(Role.SERVER, version), Connection(Role.CLIENT, version))

    def _agree(self, hello: HelloReply) -> None:
        """Go on by the layouts of the version that the server has announced."""
        said = Version(hello.major, hello.minor, hello.patch)
        if said == self.version:
            return
        if said not in PROFILES or said > LAST_FOLLOWED:
            raise Violation("session.version-accepted", "version", said, "its messages can't be followed")
        if self._asked or self._seen[Direction.TO_SERVER]:
            raise Violation("session.hello-version", "version", said, "requests came before it was known")
        self._speak(said)
        requests = self._ends[Direction.TO_SERVER]
        requests.receive(codec.encode_request(Hello(), said))  # has passed: HELLO comes no more
        requests.next_event()
        requests.expected.clear()

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
        self._opened = True
        self._ends[Direction.TO_SERVER].expected.clear()  # nothing is sent through this end
        self._ask(_Asked(cls, size, self._now, message))

    def _ask(self, asked: _Asked) -> None:
        if REQUESTS[asked.cls].reply(self.version) is NO_REPLY:
            self._done(asked)
            return
        if len(self._asked) == MOST_ASKED:
            raise Violation("frame.reply-presence", "requests", MOST_ASKED, "that many await replies; no more are remembered")
        self._asked.append(asked)

    def _reply(self, message: Any) -> None:
        self._done(self._asked.popleft(), message, self._size(Direction.TO_CLIENT))
        if isinstance(message, HelloReply):
            self._agree(message)

    def _size(self, direction: Direction) -> int:
        """Return the size of the payload that has come to its end, and begin to count the next."""
        head = codec.REQUEST_HEAD if direction is Direction.TO_SERVER else codec.REPLY_HEAD
        size, self._seen[direction] = self._seen[direction] - head.size, 0
        return size

    def _done(self, asked: _Asked, reply: Any = None, reply_size: int | None = None) -> None:
        if self._tell is not None:
            seconds = 0.0 if reply_size is None else (self._now - asked.time_ns) / 1e9
            request = asked.read(self.version)
            self._tell(Exchange(self.number, request, asked.size, reply, reply_size, seconds, self.version))

    # ------------------------------------------------------------------------------------------------- whole messages

    def _follow_whole(self, direction: Direction, view: memoryview) -> bool:
        """Take a message of fixed size that these bytes are, no more and no less; False where they are anything else."""
        if self._seen[direction] or not self._opened:
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
        if not self._asked:
            return False
        head, cls = codec.REPLY_HEAD.size, REQUESTS[self._asked[0].cls].reply(self.version)
        assert isinstance(cls, type)  # one without a reply is not awaited
        if cls is HelloReply:
            return False  # it has to be read
        if (bytes(view[:head]), len(view)) != _fixed_reply(cls, self.version):
            return False
        message = codec.decode(cls, view[head:], self.version) if self._tell is not None else None
        self._done(self._asked.popleft(), message, len(view) - head)
        return True


@dataclass(frozen=True, slots=True)
class _Asked:
    """A request that awaits its reply.

    Attributes:
        cls: its class.
        size: bytes of its payload, data included.
        time_ns: when it came to its end.
        content: the message, without data, or the payload, not yet read.
    """

    cls: type
    size: int
    time_ns: int
    content: Any

    def read(self, version: Version) -> Any:
        """Return the message."""
        return codec.decode(self.cls, self.content, version) if isinstance(self.content, bytes) else self.content

    def stub(self, version: Version) -> Any:
        """Return what a client's Connection must know to read the reply: the class, and how much a GET_TENSOR asks for."""
        if self.cls is GetTensor and isinstance(self.content, bytes):
            (record,) = np.frombuffer(self.content, codec.layout(GetTensor, version))
            return GetTensor(tensor=codec.ABSENT_TENSOR, offset=0, size=int(record["size"]))
        return GraphCompute(nodes=(), tensors=()) if self.cls is GraphCompute else self.read(version)


@cache
def _fixed_requests(version: Version) -> dict[tuple[bytes, int], type]:
    """Return the first nine bytes and the length to the class, of every request of fixed size but HELLO."""
    sizes = {row.cls: codec.minimum_size(row.cls, version) for row in by_number(version).values() if row.cls is not Hello}
    return {
        (codec.request_head(cls, size, version), codec.REQUEST_HEAD.size + size): cls
        for cls, size in sizes.items()
        if codec.is_fixed(cls, version)
    }


@cache
def _fixed_reply(cls: type, version: Version) -> tuple[bytes, int] | None:
    """Return the first eight bytes and the length of a reply; None where its size is not fixed."""
    size = codec.minimum_size(cls, version)
    return (codec.REPLY_HEAD.pack(size), codec.REPLY_HEAD.size + size) if codec.is_fixed(cls, version) else None


def _request_type(message: Any) -> type:
    return GraphCompute if isinstance(message, codec.Graph) else type(message)


# ------------------------------------------------------------------------------------------------------------ in words


def describe(exchange: Exchange) -> str:
    """Return an exchange on one line: command, fields, size; reply, its size, and how long it took."""
    version = exchange.version
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
