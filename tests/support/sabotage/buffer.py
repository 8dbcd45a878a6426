"""Servers that break a rule of the section "buffer"."""

from __future__ import annotations

from typing import Any

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.server.handlers import Host, Session
from ggml_rpc_ref.server.session import Area, Download, Upload
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    BufferGetBase,
    BufferGetBaseReply,
    FreeBuffer,
)
from tests.support.sabotage.sessions import Lenient, Remembers, bytes_at, read, with_handles, write
from tests.support.sabotage.table import answering, break_session


@break_session("buffer.known")
class TakesAnyHandle(Lenient):
    """A request on a handle that was never given is answered, but no second FREE_BUFFER."""

    rule = "buffer.known"

    def lets_pass(self, broken: Violation, message: object) -> bool:
        return not frees_again(self, message) and super().lets_pass(broken, message)


@break_session("buffer.freed-once")
class FreesTwice(Lenient):
    """A second FREE_BUFFER is answered as the first was."""

    rule = "buffer.known"

    def lets_pass(self, broken: Violation, message: object) -> bool:
        return frees_again(self, message) and super().lets_pass(broken, message)


def frees_again(session: Remembers, message: object) -> bool:
    """Whether a request is a FREE_BUFFER of what has been freed."""
    return isinstance(message, FreeBuffer) and message.remote_ptr in session.freed


def close_where_null(session: Session, message: AllocBuffer, right: AllocBufferReply) -> AllocBufferReply:
    """Refuse an allocation that fails, in place of answering (0, 0)."""
    if right.remote_ptr == 0:
        raise Violation("buffer.alloc-fails", "size", message.size)
    return right


def one_byte_short(session: Session, message: AllocBuffer, right: AllocBufferReply) -> AllocBufferReply:
    """Say that a buffer of 1,000 bytes has 999."""
    return AllocBufferReply(remote_ptr=right.remote_ptr, remote_size=right.remote_size - (right.remote_size == 1000))


answering("buffer.alloc-fails", AllocBuffer, close_where_null)
answering("buffer.alloc-size", AllocBuffer, one_byte_short)
answering("buffer.empty", AllocBuffer, lambda s, m, r: r if m.size else AllocBufferReply(remote_ptr=0, remote_size=0))


@break_session("buffer.disjoint")
class StacksBuffers(Remembers):
    """From the ninth on buffers are said to begin where the first does."""

    def handle(self, message: object) -> object:
        reply = super().handle(message)
        handles = list(self.buffers)
        if isinstance(message, BufferGetBase) and message.remote_ptr in handles[8:]:
            return BufferGetBaseReply(base_ptr=self.buffers[handles[0]].data)
        return reply


@break_session("buffer.opaque")
class ShowsPointers(Session):
    """A handle is the address of an object in the server's memory."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.shown: dict[int, tuple[int, object]] = {}
        """Handle that the client knows to the session's own, and the object at that address."""

    def handle(self, message: object) -> object:
        reply = super().handle(self.inward(message))
        if not isinstance(reply, AllocBufferReply) or not reply.remote_ptr:
            return reply
        there = object()
        self.shown[id(there)] = (reply.remote_ptr, there)
        return AllocBufferReply(remote_ptr=id(there), remote_size=reply.remote_size)

    def destination(self, message: Upload, size: int) -> Area:
        return super().destination(self.inward(message), size)

    def source(self, message: Download) -> Area:
        return super().source(self.inward(message))

    def inward(self, message: Any) -> Any:
        return with_handles(message, lambda handle: self.shown.get(handle, (handle,))[0])


@break_session("buffer.clean")
class ReusesBytes(Remembers):
    """A buffer gets the bytes that the last freed one of its size had, unchanged."""

    def __init__(self, host: Host) -> None:
        super().__init__(host)
        self.left: dict[int, bytes] = {}

    def handle(self, message: object) -> object:
        if isinstance(message, FreeBuffer) and message.remote_ptr in self.buffers:
            data = read(self, self.buffers[message.remote_ptr])
            self.left[len(data)] = data
        reply = super().handle(message)
        if isinstance(message, AllocBuffer) and isinstance(reply, AllocBufferReply) and message.size in self.left:
            write(self, self.buffers[reply.remote_ptr], self.left[message.size])
        return reply


@break_session("buffer.clear")
class ClearsMost(Remembers):
    """BUFFER_CLEAR clears the first 9,000 bytes only."""

    def handle(self, message: object) -> object:
        whole = self.buffers.get(message.remote_ptr) if isinstance(message, BufferClear) else None
        if whole is None or whole.ne[0] <= 9000:
            return super().handle(message)
        rest = bytes_at(whole.data + 9000, whole.buffer, whole.ne[0] - 9000)
        kept = read(self, rest)
        reply = super().handle(message)
        write(self, rest, kept)
        return reply
