"""Have a session with a server, fast: everything that can be sent at once is, and the replies are read in one go.

Three round trips open a connection (HELLO and allocations, addresses, all the rest with a sentinel at its end). What is sent at
once is limited by the size of the replies to it: a server that can't write its replies stops reading.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Final, TypeVar

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.fuzz.packet import Numbers
from ggml_rpc_ref.fuzz.plan import Plan, plan_of, sentinel
from ggml_rpc_ref.fuzz.session import Buffer, Session
from ggml_rpc_ref.net.stream import DeadlineMissed, Endpoint, PeerClosed, Stream, open_stream
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferGetBase,
    BufferGetBaseReply,
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
MOST: Final = 2**26
"""Bytes of replies of one connection that are kept."""


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
    LOST = "lost"
    """No connection could be opened, or HELLO and the allocations at the start were not answered."""


@dataclass(slots=True)
class Heard:
    """What a server said on one connection.

    Attributes:
        sent: the bytes that it was sent after the opening, the sentinel included.
        plan: how a right server reads these.
        starts: where each step begins in them.
        replies: what came.
        end: how it ended.
        detail: more on that, in words.
        rule: the rule that the answers to the opening break; "" where they break none.
        seconds: how long it took.
    """

    sent: bytes = b""
    plan: Plan = field(default_factory=lambda: Plan(()))
    starts: tuple[int, ...] = ()
    replies: bytes = b""
    end: End = End.LOST
    detail: str = ""
    rule: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Speaker:
    """How to reach a server.

    Attributes:
        endpoint: where it listens.
        timeout: seconds that an answer may take.
        one_client: whether it serves one connection after the other only.
    """

    endpoint: Endpoint
    timeout: float = 2.0
    one_client: bool = True

    def have(self, session: Session) -> list[Heard]:
        """Have a session; return what was heard on each of its connections."""
        lines: list[_Line] = []
        heard: list[Heard] = []
        numbers: dict[int, tuple[int, int]] = {}
        try:
            for connection in range(session.connections):
                line = _Line(self, session, connection)
                lines.append(line)
                numbers |= line.open()
                heard.append(line.talk(numbers))
                if self.one_client:
                    line.finish()
            for line in lines:
                line.finish()
        finally:
            for line in lines:
                line.close()
        return heard


class _Line:
    """One connection of a session."""

    def __init__(self, speaker: Speaker, session: Session, connection: int) -> None:
        self.speaker, self.session, self.connection = speaker, session, connection
        self.buffers = [buffer for buffer in session.buffers if buffer.connection == connection]
        self.heard = Heard()
        self.stream: Stream | None = None
        self.begun = time.monotonic()
        self.received = bytearray()
        self.is_finished = False

    def open(self) -> dict[int, tuple[int, int]]:
        """Say HELLO and allocate the buffers; return their numbers."""
        try:
            self.stream = open_stream(*self.speaker.endpoint, timeout=self.speaker.timeout)
            return {} if self.session.headless else opened(self.stream, self.buffers, self.session.version)
        except Violation as violation:
            self.heard.rule, self.heard.detail = violation.rule, str(violation)
        except (PeerClosed, DeadlineMissed, ConnectionError) as error:
            self.heard.detail = str(error)
        self.close()
        return {}

    def talk(self, numbers: Numbers) -> Heard:
        """Send all steps and a sentinel, and read what comes."""
        if self.stream is None:
            return self.heard
        version = self.session.version
        packets = [step.packet(version) for step in self.session.of(self.connection)]
        parts = [packet.rendered(numbers) for packet in packets] + [codec.encode_request(sentinel(version), version)]
        self.heard.starts = starts(parts)
        self.heard.sent = b"".join(parts)
        self.heard.plan = Plan((), "session.hello-first") if self.session.headless else plan_of(self.heard.sent, version)
        if self.session.leaves:
            return self._leave(self.stream)
        try:
            self._exchange(self.stream)
        except PeerClosed:
            self._drain()
            self.heard.end = End.CLOSED
        except DeadlineMissed as missed:
            self.heard.end, self.heard.detail = End.SILENT, str(missed)
        else:
            self.heard.end = End.DONE
        self.heard.replies = bytes(self.received)
        self.heard.seconds = time.monotonic() - self.begun
        return self.heard

    def _leave(self, stream: Stream) -> Heard:
        """Send everything and reset the connection."""
        with contextlib.suppress(PeerClosed, DeadlineMissed):
            stream.send(self.heard.sent)
        stream.reset()
        self.stream, self.heard.end = None, End.LEFT
        return self.heard

    def _exchange(self, stream: Stream) -> None:
        """Send in windows: no more at once than what draws AT_ONCE bytes of replies."""
        sent, wanted, left = 0, 0, memoryview(self.heard.sent)
        for due in self.heard.plan.dues:
            wanted += due.reply
            if wanted - len(self.received) > AT_ONCE and due.start > sent:
                self._send(stream, left[sent : due.start])
                sent = due.start
                self._read(stream, min(wanted - due.reply, MOST))
        self._send(stream, left[sent:])
        self._read(stream, min(wanted, MOST))

    def _send(self, stream: Stream, data: memoryview) -> None:
        """Send bytes, the first of them in pieces where the session is to be cut up."""
        at, size = 0, self.session.cut
        for _ in range(PIECES if size else 0):
            if at < len(data):
                stream.send(data[at : at + size])
                at += size
        stream.send(data[at:])

    def _read(self, stream: Stream, until: int) -> None:
        while len(self.received) < until:
            self.received += stream.receive(AT_ONCE)

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
        self.stream.finish_sending()
        ending = self.stream.wait_closed(self.speaker.timeout)
        self.heard.replies += ending.leftover
        if not ending.closed and self.heard.end is End.DONE:
            self.heard.end, self.heard.detail = End.SILENT, "it did not end the connection after our end"
        self.heard.seconds = time.monotonic() - self.begun

    def close(self) -> None:
        """Drop the connection."""
        if self.stream is not None:
            self.stream.close()
            self.stream = None


def starts(parts: Sequence[bytes]) -> tuple[int, ...]:
    """Return where each part begins in their sum."""
    found, at = [], 0
    for part in parts:
        found.append(at)
        at += len(part)
    return tuple(found)


def opened(stream: Stream, buffers: Sequence[Buffer], version: Version) -> dict[int, tuple[int, int]]:
    """Say HELLO and allocate buffers on a new connection; return buffer number to (remote_ptr, base_ptr).

    Raises:
        Violation: for an answer of another shape, another version, or a buffer that is not given.
        PeerClosed, DeadlineMissed: where no answer comes.
    """
    requests = [codec.encode_request(Hello(), version)]
    requests += [codec.encode_request(allocation(buffer, version), version) for buffer in buffers]
    stream.send(b"".join(requests))
    said = _reply(stream, HelloReply, version)
    if (said.major, said.minor, said.patch) != tuple(version):
        raise Violation("session.hello-version", "version", f"{said.major}.{said.minor}.{said.patch}", f"it spoke {version}")
    handles = [_allocated(_reply(stream, AllocBufferReply, version), buffer) for buffer in buffers]
    if buffers:
        stream.send(b"".join(codec.encode_request(BufferGetBase(remote_ptr=h), version) for h in handles))
    bases = [_reply(stream, BufferGetBaseReply, version).base_ptr for _ in buffers]
    _check_disjoint(buffers, bases)
    return {b.number: (h, base) for b, h, base in zip(buffers, handles, bases, strict=True)}


def _allocated(reply: AllocBufferReply, buffer: Buffer) -> int:
    """Return the handle of a buffer that was given."""
    if not reply.remote_ptr or reply.remote_size < buffer.size:
        raise Violation("buffer.alloc-size", "remote_size", reply.remote_size, f"{buffer.size} bytes were asked for")
    return reply.remote_ptr


def _check_disjoint(buffers: Sequence[Buffer], bases: Sequence[int]) -> None:
    ranges = sorted((base, base + buffer.size) for base, buffer in zip(bases, buffers, strict=True))
    for (_, end), (start, _) in pairwise(ranges):
        if start < end:
            raise Violation("buffer.disjoint", "base_ptr", hex(start), f"another buffer reaches to {end:#x}")


def allocation(buffer: Buffer, version: Version) -> AllocBuffer:
    """Return the request that allocates a buffer."""
    return AllocBuffer(device=buffer.device if has_field(AllocBuffer, "device", version) else 0, size=buffer.size)


def _reply(stream: Stream, cls: type[M], version: Version) -> M:
    size = codec.minimum_size(cls, version)
    data = stream.receive_exactly(codec.REPLY_HEAD.size + size)
    if data[: codec.REPLY_HEAD.size] != codec.REPLY_HEAD.pack(size):
        raise Violation("frame.reply-presence", f"{cls.__name__} size", data[:8].hex(), f"it has {size} bytes")
    return codec.decode(cls, data[codec.REPLY_HEAD.size :], version)
