"""Our server without sockets: what a session should get, message by message, and a target for fuzzing ourselves.

It is the product's own `Connection` and `Session`, fed with the bytes that another server is sent. What it answers is what the
specification says, with the oracle's numbers; what it refuses, it refuses by the id of a rule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.backends import Backend
from ggml_rpc_ref.backends.memory import HostMemory
from ggml_rpc_ref.backends.oracle import Oracle
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.fuzz.converse import hello
from ggml_rpc_ref.fuzz.packet import Numbers
from ggml_rpc_ref.fuzz.plan import sentinel
from ggml_rpc_ref.fuzz.session import Buffer, Peer, Session
from ggml_rpc_ref.net.meeting import Met
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, DataBegins, Request, Role
from ggml_rpc_ref.protocol.fnv import fnv1a
from ggml_rpc_ref.protocol.order import Order
from ggml_rpc_ref.server import handlers
from ggml_rpc_ref.server.communicator import Meeting
from ggml_rpc_ref.server.plan import make_plan
from ggml_rpc_ref.server.tensor_cache import THRESHOLD
from ggml_rpc_ref.spec.messages import CAPS_SIZE, NO_REPLY, CommInit, Hello, Message, carries_data
from ggml_rpc_ref.spec.versions import DEFAULT, Version

MEMORY: Final = 2**27
"""Bytes of each device."""
STEPS: Final = 2**25
"""Elementary steps that a graph may take: a model must not compute for minutes what a mutation made large."""


def _zeros(size: int) -> npt.NDArray[np.uint8]:
    return np.zeros(size, np.uint8)


class Kept:
    """What a session has uploaded and may ask for by its hash, as a server's cache has it."""

    def __init__(self) -> None:
        self._data: dict[int, bytes] = {}

    def load(self, digest: int, room: memoryview) -> int | None:
        """Write data of this hash to the beginning of a room; return how many bytes, None where there are none that fit."""
        data = self._data.get(digest)
        if data is None or len(data) > len(room):
            return None
        room[: len(data)] = data
        return len(data)

    def save(self, data: memoryview) -> None:
        """Keep data, if they are as many as a server keeps."""
        if len(data) > THRESHOLD:
            self._data[fnv1a(data)] = bytes(data)


class Scripted:
    """The channel to a peer that says what it is to say; one that says no more leaves, as all that a server can do then is give up.

    Args:
        says: the bytes.
    """

    def __init__(self, says: bytes) -> None:
        self._left = memoryview(says)

    def set_up(self, *_: float) -> None:
        """Do nothing: there are no time-outs."""

    def receive(self, room: memoryview) -> int:
        """Receive into `room`; 0 once all is said."""
        count = min(len(room), len(self._left))
        room[:count], self._left = self._left[:count], self._left[count:]
        return count

    def send_some(self, data: memoryview) -> int:
        """Take all of it."""
        return len(data)

    def hang_up(self) -> None:
        """Do nothing."""

    close = hang_up


class Meetings(Meeting):
    """Where a server in this process meets the peers of a session, without sockets.

    Args:
        peers: of the session.
    """

    def __init__(self, peers: Sequence[Peer]) -> None:
        super().__init__()
        object.__setattr__(self, "peers", {peer.port: peer for peer in peers})

    def find(self, request: CommInit, _: object) -> Met | None:
        """Return the channel to the peer with this port, where it has the other rank."""
        peer: Peer | None = getattr(self, "peers").get(request.port)  # noqa: B009
        is_there = request.rank == 0 or request.host.split(b"\0")[0] in (b"127.0.0.1", b"localhost")
        if peer is None or peer.rank != request.rank or not is_there or len(peer.says) < CAPS_SIZE:
            return None
        first = CAPS_SIZE if request.rank == 0 else 0  # what rank 0 has received when it has met the other
        channel: Any = Scripted(peer.says[first:])
        return Met(channel, peer.says[:first])


After = Callable[[handlers.Session, bytes], None]
"""Does something more with a connection's share of a server."""


def nothing_more(session: handlers.Session, sent: bytes) -> None:
    """Do nothing."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What a message got.

    Attributes:
        request: the message; a GRAPH_COMPUTE as `Graph`.
        end: where the message ends in the bytes that were sent.
        reply: the reply's bytes, size field included; empty where there is none.
    """

    request: Message
    end: int
    reply: bytes


@dataclass(slots=True)
class Handled:
    """How our server handled a connection.

    Attributes:
        answers: of the messages that were accepted, in order.
        violation: why it was ended; None where it was not.
        crash: an exception that is not a Violation: a defect of ours.
        left: bytes that were no whole message.
        lacked: whether it had no memory for a buffer of the session: what it said then of messages that name it says nothing.
    """

    answers: list[Answer] = field(default_factory=list)
    violation: Violation | None = None
    crash: Exception | None = None
    left: int = 0
    lacked: bool = False


class Inside:
    """A server of ours in this process, of which any number of sessions may be had.

    Args:
        version: the protocol version that it speaks.
        devices: how many devices it has.
        max_steps: elementary steps that a graph may take.
        make: makes the backend of a device, given its memory; the oracle by default.
    """

    def __init__(
        self,
        version: Version = DEFAULT,
        devices: int = 1,
        max_steps: int = STEPS,
        make: Callable[[HostMemory], Backend] = Oracle,
    ) -> None:
        # plain zeros: asking the machine what it can spare, as a server must, takes most of the time of a small session
        backends = [make(HostMemory(MEMORY, make=_zeros, spare=lambda: MEMORY)) for _ in range(devices)]
        self.devices = [handlers.Device(f"{backend.name} {n}", "fuzzed", backend) for n, backend in enumerate(backends)]
        self.host = handlers.Host(self.devices, version=version, make_plan=partial(make_plan, max_steps=max_steps))
        self.version = version

    def have(self, session: Session, after: After = nothing_more) -> list[Handled]:
        """Have a session; return what each of its connections got.

        Args:
            session: any.
            after: told of each connection's share of the server before it is closed, and of what the connection was sent.
        """
        numbers: dict[int, tuple[int, int]] = {}
        said: list[Handled] = []
        kept: Any = Kept()
        with ExitStack() as stack:
            for index in range(session.connections):
                ours = stack.enter_context(handlers.Session(self.host))
                ours.meeting, ours.tensors = Meetings(session.peers), kept
                line, sent = Line(ours, self.version), list[bytes]()
                if not session.headless:
                    line.hello(session.caps)
                    line.allocate([buffer for buffer in session.buffers if buffer.connection == index], numbers)
                for data, buffer in pieces_of(session, index, numbers):
                    line.receive(data)
                    sent.append(data)
                    if buffer is not None and not (line.is_over or line.said.left):
                        line.allocate([buffer], numbers)
                    elif buffer is not None:
                        break
                said.append(line.said)
                after(ours, b"".join(sent))
                if session.apart:
                    ours.close()
        return said

    @property
    def is_clean(self) -> bool:
        """Whether all memory has been given back."""
        graphs = self.host.graph_memory
        return graphs.used == 0 and all(device.memory.free == device.memory.total for device in self.devices)


def pieces_of(session: Session, connection: int, numbers: Numbers) -> Iterator[tuple[bytes, Buffer | None]]:
    """Yield all that a connection is sent after its opening, and after each piece the buffer that is allocated then.

    Numbers of buffers that are added meanwhile are put in their places.
    """
    parts: list[bytes] = []
    for step in session.of(connection):
        if isinstance(step.message, Buffer):
            yield b"".join(parts), step.message
            parts = []
        else:
            parts.append(step.packet(session.version).rendered(numbers))
    if session.short and connection == 0:
        yield b"".join(parts)[: -session.short], None
    else:
        yield b"".join([*parts, codec.encode_request(sentinel(session.version), session.version)]), None


def bytes_of(session: Session, connection: int, numbers: Numbers) -> bytes:
    """Return all that a connection is sent after its opening, the sentinel included."""
    return b"".join(data for data, _ in pieces_of(session, connection, numbers))


class Line:
    """One connection of it: bytes in, answers out. Never raises.

    Args:
        session: its share of the server.
        version: the protocol version.
        is_open: whether HELLO has been said.
    """

    def __init__(self, session: handlers.Session, version: Version, *, is_open: bool = False) -> None:
        self.said, self._session, self._version = Handled(), session, version
        order: Order[Any] = Order(version)
        if is_open:
            order.ask(Hello, hello(version))
            order.answer()
        self._connection = Connection(Role.SERVER, version, order=order)
        self._fed = 0

    def hello(self, caps: bytes = b"") -> None:
        """Say HELLO, which is not part of the answers."""
        self.receive(codec.encode_request(hello(self._version, caps), self._version))
        self.said.answers.clear()
        self._fed = 0

    def allocate(self, buffers: Iterable[Buffer], numbers: dict[int, tuple[int, int]]) -> None:
        """Allocate buffers between two messages, and add their numbers; a buffer that is not given gets none, and is noted."""
        for buffer in buffers:
            made: Any = self._session.handle(buffer.request(self._version))
            if made.remote_ptr:
                numbers[buffer.number] = made.remote_ptr, self._session.memory.buffer(made.remote_ptr).base
            else:
                self.said.lacked = True

    @property
    def is_over(self) -> bool:
        """Whether nothing more is taken."""
        return self.said.violation is not None or self.said.crash is not None

    def receive(self, data: bytes) -> None:
        """Take bytes and answer what is whole."""
        if self.is_over:
            return
        self._fed += len(data)
        try:
            self._connection.receive(data)
            while (event := self._connection.next_event()) is not NEED_DATA:
                self._take(event)
        except Violation as violation:
            self.said.violation = violation
        except Exception as error:
            self.said.crash = error
        self.said.left = 0 if self._connection.idle else max(1, self._connection.buffered)

    def _take(self, event: object) -> None:
        match event:
            case Request(message):
                self._note(message, self._answer(message))
            case DataBegins(message, size):
                self._note(message, self._place(message, size))

    def _note(self, message: Message, reply: bytes) -> None:
        self.said.answers.append(Answer(message, self._fed - self._connection.buffered, reply))

    def _answer(self, message: Any) -> bytes:
        due = self._connection.order.oldest
        if due is not None and due.request is message and carries_data(due.reply):
            region = self._session.source(message)
            data = b"".join(bytes(piece) for piece in region.pieces())
            return self._connection.send_with_data(due.reply(data=b""), len(data)) + data
        return self._reply(self._session.handle(message))

    def _place(self, message: Any, size: int) -> bytes:
        """Store the data of a SET_TENSOR; data that have not all come are not stored."""
        region = self._session.destination(message, size)
        if self._connection.buffered < size:
            return b""  # cut off: the bytes end here
        for room in region.receive():
            self._connection.take_data(room)
        return self._reply(self._session.placed(message, region))

    def _reply(self, reply: Any) -> bytes:
        return b"" if reply is NO_REPLY else self._connection.send(reply)
