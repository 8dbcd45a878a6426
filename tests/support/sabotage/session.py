"""Servers that break a rule of the section "session"."""

from __future__ import annotations

import time
from collections import deque
from threading import Lock
from typing import Any, ClassVar, Self

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import Connection
from ggml_rpc_ref.server.handlers import Session
from ggml_rpc_ref.spec.messages import BufferGetBase, BufferGetBaseReply, DeviceCountReply, FreeBuffer, Hello, HelloReply, Message
from tests.support.sabotage.sessions import Lenient, handles_of
from tests.support.sabotage.table import break_connection, break_session
from tests.support.sabotage.wire import DEVICE_COUNT, HELLO, Rewriting, frame


@break_connection("session.hello-first")
class NeedsNoHello(Rewriting):
    """Any command may come first."""

    def read_command(self, number: int) -> int:
        if not self.begun and number != HELLO:
            self._say_hello()
        return number

    def _say_hello(self) -> None:
        Connection.receive(self, frame(HELLO))
        assert self.next_event()
        self.send(HelloReply(major=3, minor=6, patch=1))  # these bytes go nowhere: the client did not ask


@break_connection("session.hello-once")
class AnswersHelloAgain(Rewriting):
    """HELLO is answered every time: our connection is given DEVICE_COUNT in place of the later ones."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.was_hello: deque[bool] = deque()

    def read_command(self, number: int) -> int:
        again = number == HELLO and self.begun > 0
        if again or number == DEVICE_COUNT:
            self.was_hello.append(again)
        return DEVICE_COUNT if again else number

    def send(self, message: Message) -> bytes:
        data = super().send(message)
        if isinstance(message, DeviceCountReply) and self.was_hello.popleft():
            return codec.encode_reply(HelloReply(major=3, minor=6, patch=1))
        return data


@break_session("session.hello-version")
class ChangesVersion(Session):
    """Every fourth connection is told another version."""

    count = 0

    def handle(self, message: object) -> object:
        if isinstance(message, Hello):
            ChangesVersion.count += 1
            return HelloReply(major=3, minor=6, patch=1 if ChangesVersion.count % 4 else 2)
        return super().handle(message)


@break_connection("session.survives", timeout=0.5)
class DiesOfTruncation(Connection):
    """A message that is cut off ends the whole server: from then on no connection is answered."""

    dead = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.asked = False

    def receive(self, data: codec.Readable) -> None:
        self.asked = False
        if not type(self).dead:
            super().receive(data)

    @property
    def idle(self) -> bool:
        # the server asks before it receives, and again where nothing came: then the peer has ended its sending
        type(self).dead |= self.asked and not super().idle
        self.asked = True
        return super().idle


class AcceptsForeignHandles(Lenient):
    """A session that answers requests on other connections' handles, and tells the base of those buffers."""

    known: ClassVar[dict[int, int]]
    """Handle to base."""

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        if isinstance(message, BufferGetBase) and message.remote_ptr in self.known:
            return BufferGetBaseReply(base_ptr=self.known[message.remote_ptr])
        return reply

    def lets_pass(self, broken: Violation, message: object) -> bool:
        return any(handle in self.known and self.is_foreign(handle) for handle in handles_of(message))


@break_session("session.frees")
class KeepsLeftBuffers(AcceptsForeignHandles):
    """The handles of a connection that has ended still work on others."""

    known: ClassVar[dict[int, int]] = {}

    def lets_pass(self, broken: Violation, message: object) -> bool:
        # the connection that has just ended may not be done with its end yet
        deadline = time.monotonic() + 0.2
        while not (known := super().lets_pass(broken, message)) and time.monotonic() < deadline:
            time.sleep(0.01)
        return known

    def close(self) -> None:
        self.known.update((handle, buffer.data) for handle, buffer in self.buffers.items())
        super().close()


@break_session("session.isolated")
class SharesHandles(AcceptsForeignHandles):
    """A handle that one connection was given works on all of them."""

    known: ClassVar[dict[int, int]] = {}

    def lets_pass(self, broken: Violation, message: object) -> bool:
        time.sleep(0.05)  # a connection that has just ended may not be done with its end yet: its handles are session.frees's
        return super().lets_pass(broken, message)

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        self.known.update((handle, buffer.data) for handle, buffer in self.buffers.items())
        if isinstance(message, FreeBuffer):
            self.known.pop(message.remote_ptr, None)
        return reply

    def close(self) -> None:
        for handle in self.buffers:
            self.known.pop(handle, None)
        super().close()


@break_session("session.concurrent", timeout=1.0)
class OneAtATime(Session):
    """A connection is answered only when the one before it has ended."""

    turn: ClassVar[Lock] = Lock()

    def __enter__(self) -> Self:
        self.turn.acquire()
        return self

    def close(self) -> None:
        super().close()
        self.turn.release()


@break_session("session.caps")
class WaitsForRdma(Session):
    """After a HELLO that offers another transport nothing more is heard over TCP."""

    is_elsewhere = False

    def handle(self, message: object) -> object:
        if self.is_elsewhere:
            raise Violation("session.caps", "conn_caps", "offered")
        self.is_elsewhere = isinstance(message, Hello) and any(message.conn_caps)
        return super().handle(message)
