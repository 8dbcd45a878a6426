"""Our server without sockets: what a session should get, message by message, and a target for fuzzing ourselves.

It is the product's own `Connection` and `Session`, fed with the bytes that another server is sent. What it answers is what the
specification says, with the oracle's numbers; what it refuses, it refuses by the id of a rule.
"""

from __future__ import annotations

from collections.abc import Callable
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
from ggml_rpc_ref.fuzz.packet import Numbers
from ggml_rpc_ref.fuzz.plan import sentinel
from ggml_rpc_ref.fuzz.session import Session
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import NEED_DATA, Connection, DataBegins, Request, Role
from ggml_rpc_ref.server import handlers
from ggml_rpc_ref.server.plan import make_plan
from ggml_rpc_ref.spec.messages import NO_REPLY, AllocBuffer, CommInit, CommInitReply, Hello, Message, carries_data, has_field
from ggml_rpc_ref.spec.versions import DEFAULT, Version

MEMORY: Final = 2**27
"""Bytes of each device."""
STEPS: Final = 2**25
"""Elementary steps that a graph may take: a model must not compute for minutes what a mutation made large."""


def _zeros(size: int) -> npt.NDArray[np.uint8]:
    return np.zeros(size, np.uint8)


class Alone(handlers.Session):
    """A session of the product's that opens no connection to other servers: COMM_INIT finds nobody."""

    def __init__(self, host: handlers.Host) -> None:
        super().__init__(host)
        self.handlers = {**self.handlers, CommInit: lambda *_: CommInitReply(ok=0)}


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
class Said:
    """What a connection got.

    Attributes:
        answers: of the messages that were accepted, in order.
        violation: why it was ended; None where it was not.
        crash: an exception that is no Violation: a defect of ours.
        left: bytes that were no whole message.
    """

    answers: list[Answer] = field(default_factory=list)
    violation: Violation | None = None
    crash: Exception | None = None
    left: int = 0


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

    def have(self, session: Session) -> list[Said]:
        """Have a session; return what each of its connections got."""
        numbers: dict[int, tuple[int, int]] = {}
        said: list[Said] = []
        with ExitStack() as stack:
            for index in range(session.connections):
                ours = stack.enter_context(Alone(self.host))
                numbers |= {} if session.headless else _allocated(ours, session, index)
                said.append(self._talk(ours, bytes_of(session, index, numbers), session.headless))
        return said

    def _talk(self, ours: handlers.Session, data: bytes, headless: bool) -> Said:
        line = Line(ours, self.version)
        if not headless:
            line.hello()
        line.receive(data)
        return line.said

    @property
    def is_clean(self) -> bool:
        """Whether all memory has been given back."""
        graphs = self.host.graph_memory
        return graphs.used == 0 and all(device.memory.free == device.memory.total for device in self.devices)


def bytes_of(session: Session, connection: int, numbers: Numbers) -> bytes:
    """Return all that a connection is sent after its opening, the sentinel included."""
    parts = [step.packet(session.version).rendered(numbers) for step in session.of(connection)]
    return b"".join([*parts, codec.encode_request(sentinel(session.version), session.version)])


class Line:
    """One connection of it: bytes in, answers out. Never raises."""

    def __init__(self, session: handlers.Session, version: Version) -> None:
        self.said, self._session, self._version = Said(), session, version
        self._connection = Connection(Role.SERVER, version)
        self._fed = 0

    def hello(self) -> None:
        """Say HELLO, which is no part of the answers."""
        self.receive(codec.encode_request(Hello(), self._version))
        self.said.answers.clear()
        self._fed = 0

    def receive(self, data: bytes) -> None:
        """Take bytes and answer what is whole."""
        if self.said.violation or self.said.crash:
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
        self.said.left = self._connection.buffered

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


def _allocated(ours: handlers.Session, session: Session, connection: int) -> dict[int, tuple[int, int]]:
    """Allocate the buffers that a connection has from its start."""
    numbers = {}
    for buffer in session.buffers:
        if buffer.connection == connection:
            device = buffer.device if has_field(AllocBuffer, "device", session.version) else 0
            made: Any = ours.handle(AllocBuffer(device=device, size=buffer.size))
            found = ours.memory.buffer(made.remote_ptr)
            numbers[buffer.number] = found.remote_ptr, found.base
    return numbers
