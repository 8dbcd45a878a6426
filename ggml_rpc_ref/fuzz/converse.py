"""Have a session with a server, fast: everything that can be sent at once is, and the replies are read in one go.

Three round trips open a connection (HELLO and allocations, addresses, all the rest with a sentinel at its end). What is sent at
once is limited by the size of the replies to it: a server that can't write its replies stops reading.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from itertools import pairwise
from typing import Final, TypeVar

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.fuzz.other import Other
from ggml_rpc_ref.fuzz.plan import Due, Plan, plan_from_start, plan_of, sentinel
from ggml_rpc_ref.fuzz.session import Buffer, Session
from ggml_rpc_ref.net.stream import SLOWEST, DeadlineMissed, Ending, Endpoint, PeerClosed, Stream, open_stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferGetBase,
    BufferGetBaseReply,
    CommAllreduce,
    CommInit,
    Hello,
    HelloReply,
    Message,
    has_field,
)
from ggml_rpc_ref.spec.versions import Version

M = TypeVar("M", bound=Message)
AT_ONCE: Final = 2**16
"""Bytes of replies that are left unread while more is sent."""
PIECES: Final = 60
"""Pieces of a session that is cut up; the rest comes at once."""
PAUSES: Final = 3
"""How many of these are waited after: what is sent without a pause may arrive as one piece, and a server that reads a head in one
go never shows it."""
PAUSE: Final = 0.002
"""Seconds of each of these pauses."""
MOST: Final = 2**26
"""Bytes of replies of one connection that are kept."""
AT_LEAST: Final = 0.5
"""Seconds within which a server ends a connection on which it must refuse a message that has not come to its end, where nothing
else keeps it busy."""
LOOK: Final = 0.25
"""Seconds between two looks at what a server's process has used, once its answer is late."""
COMPUTING: Final = 0.02
"""Seconds of processor between two looks that show it to be computing: with a load of 10 on two processors it still gets more."""
TOO_SLOW: Final = 1.5
"""Seconds of processor that a session may take, beyond what its bytes may (`stream.SLOWEST`)."""


class NoRoom(Exception):  # noqa: N818
    """A server answered an allocation with (0, 0).

    Attributes:
        size: the bytes that were asked for.
    """

    def __init__(self, size: int) -> None:
        super().__init__(f"it had no room for {size} bytes")
        self.size = size


class End(StrEnum):
    """How a connection ended."""

    DONE = "done"
    """The server ended it after our end, having answered all that it should."""
    CLOSED = "closed"
    """The server ended it before."""
    LEFT = "left"
    """We reset it without waiting for anything."""
    SILENT = "silent"
    """Neither an answer nor an end came in time."""
    WAITED = "waited"
    """It waited for another server, as it may; we reset the connection."""
    NO_ROOM = "no room"
    """The server had no memory for a buffer of the session, which breaks no rule: with one buffer less it is another session."""
    LOST = "lost"
    """No connection could be opened, or HELLO and the allocations at the start were not answered."""


@dataclass(slots=True)
class Heard:
    """What a server said on one connection.

    Attributes:
        sent: the bytes that it was sent after the opening, the sentinel included.
        plan: how a right server reads these.
        replies: what came.
        end: how it ended.
        detail: more on that, in words.
        rule: the rule that the answers to the opening break; "" where they break none.
        waits: whether it waited for the rest of a message that a right server refuses by its beginning.
        seconds: how long it took.
    """

    sent: bytes = b""
    plan: Plan = field(default_factory=lambda: Plan(()))
    replies: bytes = b""
    end: End = End.LOST
    detail: str = ""
    rule: str = ""
    waits: bool = False
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """How to reach a server.

    Attributes:
        endpoint: where it listens.
        timeout: seconds that an answer may take, and more the more was sent before it (`stream.SLOWEST`).
        one_client: whether it serves one connection after the other only.
        early: seconds within which it is to end a connection on which it must refuse a message that has not come to its end.
        worked: returns the seconds of processor that the server's process has used; None where it can't be seen. A server whose
            answer is late is waited for while it goes on computing, for TOO_SLOW of these: a busy machine may have given it few.
    """

    endpoint: Endpoint
    timeout: float = 2.0
    one_client: bool = True
    early: float = AT_LEAST
    worked: Callable[[], float] | None = None

    def have(self, session: Session, refused: Sequence[bool] = ()) -> list[Heard]:
        """Have a session; return what was heard on each of its connections.

        Args:
            session: any.
            refused: for each connection whether a right server refuses a message that is cut off at its end; empty: not known.
        """
        lines: list[_Line] = []
        numbers: dict[int, tuple[int, int]] = {}
        others = [Other(peer, self.endpoint.host, self.timeout) for peer in session.peers]
        try:
            for connection in range(session.connections):
                line = _Line(self, session, connection, any(refused[connection : connection + 1]))
                lines.append(line)
                numbers |= line.open()
                line.talk(numbers)
                if self.one_client or session.apart:
                    line.finish()
            for line in lines:
                line.finish()
        finally:
            for line in lines:
                line.close()
            for other in others:
                other.close()
        return [line.heard for line in lines]


class _Line:
    """One connection of a session."""

    def __init__(self, speaker: Speaker, session: Session, connection: int, is_refused: bool) -> None:
        self.speaker, self.session, self.connection, self.is_refused = speaker, session, connection, is_refused
        self.buffers = [buffer for buffer in session.buffers if buffer.connection == connection]
        self.heard = Heard()
        self.stream: Stream | None = None
        self.begun = time.monotonic()
        self.received = bytearray()
        self.wanted = self.sent = 0
        self.is_finished = False

    def open(self) -> dict[int, tuple[int, int]]:
        """Say HELLO and allocate the buffers; return their numbers."""
        try:
            self.stream = open_stream(*self.speaker.endpoint, timeout=self.speaker.timeout)
            return {} if self.session.headless else opened(self.stream, self.buffers, self.session.version, self.session.caps)
        except NoRoom as refused:
            self.heard.end, self.heard.detail = End.NO_ROOM, str(refused)
        except Violation as violation:
            self.heard.rule, self.heard.detail = violation.rule, str(violation)
        except (PeerClosed, DeadlineMissed, ConnectionError) as error:
            self.heard.detail = str(error)
        self.close()
        return {}

    def talk(self, numbers: dict[int, tuple[int, int]]) -> None:
        """Send all steps and a sentinel, and read what comes; add the numbers of buffers that are allocated on the way."""
        if self.stream is None:
            return
        try:
            self._say(self.stream, numbers)
        except NoRoom as refused:
            self.heard.end, self.heard.detail = End.NO_ROOM, str(refused)
        except Violation as violation:
            self.heard.rule, self.heard.detail = violation.rule, str(violation)
        except PeerClosed:
            self._drain()
            self.heard.end = End.CLOSED
        except DeadlineMissed as missed:
            self.heard.end, self.heard.detail = self._without_answer(self.stream), str(missed)
        else:
            self.heard.end = End.LEFT if self.stream is None else End.DONE
        self.heard.replies = bytes(self.received)
        self.heard.seconds = time.monotonic() - self.begun

    def _say(self, stream: Stream, numbers: dict[int, tuple[int, int]]) -> None:
        """Send all steps; those before a buffer that is allocated on the way are answered before it is."""
        session, version, parts = self.session, self.session.version, list[bytes]()
        for step in session.of(self.connection):
            if not isinstance(step.message, Buffer):
                parts.append(step.packet(version).rendered(numbers))
                continue
            self._take_in(b"".join(parts))
            parts.clear()
            self._exchange(stream)
            if self.heard.plan.rule or self.heard.plan.is_cut:
                return  # what is sent now would not be what it is meant to be
            try:
                numbers |= allocated(stream, [step.message], version)
            except PeerClosed:
                size = codec.REPLY_HEAD.size + codec.minimum_size(AllocBufferReply, version)
                self.heard.plan = Plan((*self.heard.plan.dues, Due(len(self.heard.sent), AllocBuffer, size)))  # it is not answered
                raise
        data = b"".join(parts)
        if session.short and self.connection == 0:
            self._take_in(data[: -session.short])
        else:
            self._take_in(data + codec.encode_request(sentinel(version), version))
        if session.leaves:
            self._leave(stream)
        else:
            self._exchange(stream)

    def _take_in(self, data: bytes) -> None:
        """Note bytes as sent, and how they are read."""
        at = len(self.heard.sent)
        # a session without our HELLO may still begin with one, of its own making
        plan = (plan_from_start if self.session.headless and not at else plan_of)(data, self.session.version)
        self.heard.sent += data
        dues = tuple(Due(at + due.start, due.cls, due.reply) for due in plan.dues) if at else plan.dues
        self.heard.plan = Plan(self.heard.plan.dues + dues, plan.rule, plan.is_cut)

    def _leave(self, stream: Stream) -> None:
        """Send what is left and reset the connection."""
        with contextlib.suppress(PeerClosed, DeadlineMissed):
            stream.send(self.heard.sent[self.sent :])
        stream.reset()
        self.stream = None

    def _without_answer(self, stream: Stream) -> End:
        """Return how a connection ends on which no answer comes."""
        if not self._meets():
            return End.SILENT
        stream.reset()  # a server need not stop waiting where a client has only ended its sending: it may still read
        self.stream = None
        return End.WAITED

    def _meets(self) -> bool:
        """Whether the server may be waiting for another one, as it may for a minute (comm.init-fails, comm.peer-lost)."""
        left, found = len(self.received), False
        for due in self.heard.plan.dues:
            found |= due.cls in (CommInit, CommAllreduce)
            left -= due.reply
            if left < 0:
                return found
            found &= not due.reply
        return False

    def _exchange(self, stream: Stream) -> None:
        """Send what has not been sent, in windows: no more at once than what draws AT_ONCE bytes of replies; read all replies."""
        left = memoryview(self.heard.sent)
        for due in self.heard.plan.dues:
            if due.start < self.sent or not due.reply:
                continue
            self.wanted += due.reply
            if self.wanted - len(self.received) > AT_ONCE and due.start > self.sent:
                self._send(stream, left[self.sent : due.start])
                self.sent = due.start
                self._read(stream, min(self.wanted - due.reply, MOST))
        self._send(stream, left[self.sent :])
        self.sent = len(left)
        self._read(stream, min(self.wanted, MOST))

    def _send(self, stream: Stream, data: memoryview) -> None:
        """Send bytes, the first of them in pieces where the session is to be cut up."""
        at, size = 0, self.session.cut
        for number in range(PIECES if size else 0):
            if at < len(data):
                stream.send(data[at : at + size])
                at += size
                if number < PAUSES:
                    time.sleep(PAUSE)
        stream.send(data[at:])

    def _read(self, stream: Stream, until: int) -> None:
        while len(self.received) < until:
            self.received += self._receive(stream)

    def _receive(self, stream: Stream) -> bytes:
        try:
            return stream.receive(AT_ONCE, timeout=self._patience())
        except DeadlineMissed:
            for _ in self._computing():
                with contextlib.suppress(DeadlineMissed):
                    return stream.receive(AT_ONCE, timeout=LOOK)
            raise

    def _computing(self) -> Iterator[None]:
        """Yield, once for LOOK seconds each, while a server that is late may be waited for; never where it can't be seen."""
        worked = self.speaker.worked
        if worked is None:
            return
        begun = before = worked()
        yield
        while (now := worked()) >= before + COMPUTING and now < begun + TOO_SLOW:
            before = now
            yield

    def _wait_closed(self, stream: Stream) -> Ending:
        ending = stream.wait_closed(self._patience())
        if not ending.closed:
            for _ in self._computing():
                later = stream.wait_closed(LOOK)
                ending = Ending(later.closed, ending.leftover + later.leftover)
                if ending.closed:
                    break
        return ending

    def _patience(self) -> float:
        """Return the seconds that an answer may take: more after a graph of 100,000 nodes than after one of three."""
        return self.speaker.timeout + self.sent / SLOWEST

    def _drain(self) -> None:
        """Take what had come before the connection ended."""
        with contextlib.suppress(PeerClosed, DeadlineMissed):
            while self.stream is not None and len(self.received) < MOST:
                self.received += self.stream.receive(AT_ONCE, timeout=0.05)

    def finish(self) -> None:
        """End sending and wait for the server's end: it comes once everything is answered."""
        if self.stream is None or self.is_finished:
            return
        self.is_finished = True
        if self.is_refused and self.heard.plan.is_cut and self.heard.end is End.DONE:
            early = self.stream.wait_closed(self.speaker.early)
            self.heard.waits, self.heard.replies = not early.closed, self.heard.replies + early.leftover
        self.stream.finish_sending()
        ending = self._wait_closed(self.stream)
        self.heard.replies += ending.leftover
        if not ending.closed and self.heard.end is End.DONE:
            self.heard.end, self.heard.detail = End.SILENT, "it did not end the connection after our end"
        self.heard.seconds = time.monotonic() - self.begun

    def close(self) -> None:
        """Drop the connection."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None


def opened(stream: Stream, buffers: Sequence[Buffer], version: Version, caps: bytes = b"") -> dict[int, tuple[int, int]]:
    """Say HELLO and allocate buffers on a new connection; return buffer number to (remote_ptr, base_ptr).

    Raises:
        NoRoom: where a buffer is not given.
        Violation: for an answer of another shape, or another version.
        PeerClosed, DeadlineMissed: where no answer comes.
    """
    requests = [codec.encode_request(hello(version, caps), version)]
    requests += [codec.encode_request(buffer.request(version), version) for buffer in buffers]
    stream.send(b"".join(requests))
    said = _reply(stream, HelloReply, version)
    if (said.major, said.minor, said.patch) != tuple(version):
        raise Violation("session.hello-version", "version", f"{said.major}.{said.minor}.{said.patch}", f"it spoke {version}")
    return _numbers(stream, buffers, version)


@cache
def hello(version: Version, caps: bytes = b"") -> Hello:
    """Return the HELLO that a session begins with."""
    return Hello(conn_caps=caps) if caps and has_field(Hello, "conn_caps", version) else Hello()


def allocated(stream: Stream, buffers: Sequence[Buffer], version: Version) -> dict[int, tuple[int, int]]:
    """Allocate buffers where no reply is awaited; return buffer number to (remote_ptr, base_ptr).

    Raises:
        NoRoom, Violation, PeerClosed, DeadlineMissed: as `opened`.
    """
    stream.send(b"".join(codec.encode_request(buffer.request(version), version) for buffer in buffers))
    return _numbers(stream, buffers, version)


def _numbers(stream: Stream, buffers: Sequence[Buffer], version: Version) -> dict[int, tuple[int, int]]:
    """Read the replies to allocations, and ask for the addresses."""
    handles = [_allocated(_reply(stream, AllocBufferReply, version), buffer) for buffer in buffers]
    if buffers:
        stream.send(b"".join(codec.encode_request(BufferGetBase(remote_ptr=h), version) for h in handles))
    bases = [_reply(stream, BufferGetBaseReply, version).base_ptr for _ in buffers]
    _check_disjoint(buffers, bases)
    return {b.number: (h, base) for b, h, base in zip(buffers, handles, bases, strict=True)}


def _allocated(reply: AllocBufferReply, buffer: Buffer) -> int:
    """Return the handle of a buffer that was given."""
    if not reply.remote_ptr and not reply.remote_size:
        raise NoRoom(buffer.size)
    if not reply.remote_ptr or reply.remote_size < buffer.size:
        raise Violation("buffer.alloc-size", "remote_size", reply.remote_size, f"{buffer.size} bytes were asked for")
    return reply.remote_ptr


def _check_disjoint(buffers: Sequence[Buffer], bases: Sequence[int]) -> None:
    ranges = sorted((base, base + buffer.size) for base, buffer in zip(bases, buffers, strict=True))
    for (_, end), (start, _) in pairwise(ranges):
        if start < end:
            raise Violation("buffer.disjoint", "base_ptr", hex(start), f"another buffer reaches to {end:#x}")


def _reply(stream: Stream, cls: type[M], version: Version) -> M:
    size = codec.minimum_size(cls, version)
    data = stream.receive_exactly(codec.REPLY_HEAD.size + size)
    if data[: codec.REPLY_HEAD.size] != codec.REPLY_HEAD.pack(size):
        raise Violation("frame.reply-presence", f"{cls.__name__} size", data[:8].hex(), f"it has {size} bytes")
    return codec.decode(cls, data[codec.REPLY_HEAD.size :], version)
