"""Streams to messages: the protocol's framing and order, on bytes that are all there.

`connection.Connection` follows a conversation as it happens and forgets each byte that it has understood; here every field
keeps its place, and what came before a fault is kept. Both ask the same `Order` and the same checks of `codec`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from ggml_rpc_ref.decode.model import Fault, Item, Message
from ggml_rpc_ref.decode.streams import Conversation, Lost, Stream
from ggml_rpc_ref.decode.walk import Short, Walk
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.protocol.graph import graph_size
from ggml_rpc_ref.protocol.negotiation import forms, readable
from ggml_rpc_ref.protocol.order import Awaited, Order
from ggml_rpc_ref.spec.messages import REQUESTS, GraphCompute, Hello, HelloReply, by_number, carries_data, command_name
from ggml_rpc_ref.spec.versions import PROFILES, Version

GAP: Final = "capture.stream-whole"
"""The rule that a capture with a gap in a stream breaks."""
DATA_SHOWN: Final = 64
"""Bytes of data that are looked at, however many there are."""


def announced(conversation: Conversation) -> Version | None:
    """Return the version that the server's first reply announces; None where that is not a reply to HELLO that can be read."""
    stream = conversation.sides.get(Role.SERVER)
    if stream is None:
        return None
    start = bytes(stream.view(0, codec.REPLY_HEAD.size + 3))
    found = Version(*start[-3:]) if len(start) == codec.REPLY_HEAD.size + 3 else None
    version = readable(found) if found is not None else None
    if version is None or int.from_bytes(start[:8], "little") != codec.minimum_size(HelloReply, version):
        return None
    return found


def by_hello(conversation: Conversation) -> Version | None:
    """Return a version whose HELLO has the size of the one that the client sent: all that can be said without the server's side."""
    stream = conversation.sides.get(Role.CLIENT)
    head = bytes(stream.view(0, codec.REQUEST_HEAD.size)) if stream is not None and conversation.whole else b""
    if len(head) < codec.REQUEST_HEAD.size or head[0] != REQUESTS[Hello].number:
        return None
    size = int.from_bytes(head[1:], "little")
    return next((form for form in forms() if codec.minimum_size(Hello, form) == size), None)


class Reader:
    """Reads both sides of one conversation: the requests first, since they decide what each reply is.

    Args:
        conversation: what was sent.
        version: the version by whose layouts it is read.
        full: whether tensors in arrays are walked field by field.
    """

    def __init__(self, conversation: Conversation, version: Version, full: bool) -> None:
        self.conversation, self.version, self.full = conversation, version, full
        self._order: Order[Message] = Order(version, from_start=conversation.whole)
        self._all_asked = self._all_read = False
        self._cut_at = 0
        """Where the bytes of the message that was read last end before their time."""
        self._matched = True
        """Whether each request so far is known, so that replies can be matched to them."""

    @property
    def unanswered(self) -> Message | None:
        """The first request that got no reply, though all that the server sent has been read without a fault."""
        oldest = self._order.oldest
        return oldest.request if oldest and self._all_read else None

    # --------------------------------------------------------------------------------------------------------- requests

    def requests(self) -> Iterator[Message]:
        """Yield what the client sent."""
        stream = self.conversation.sides.get(Role.CLIENT)
        at: int | None = 0
        while stream is not None and at is not None and at < stream.end:
            message = self._begin(stream, at, Role.CLIENT)
            try:
                self._request(stream, message)
            except Violation as violation:
                self._fail(stream, message, violation)
            yield message
            if message.fault is not None and not self._goes_on(stream, message):
                at = self._next_start(stream, message)
                if at is None:
                    return
                self._matched = False
                if not self._order.opened:  # the HELLO may be among what is missing
                    self._order = Order(self.version, from_start=False)
                continue
            assert message.cls is not None  # else it has a fault
            if message.fault is not None and REQUESTS[message.cls].reply_size:
                self._matched = False  # the fields that say how long its reply is may be lost
            if self._matched:
                self._order.ask(message.cls, message, message.number)
            at = message.payload_offset + message.payload_size
        self._all_asked = stream is not None and not stream.lost and self._matched

    def _request(self, stream: Stream, message: Message) -> None:
        command = self._number(stream, message, "command", 1, "number of the command")
        row = by_number(self.version).get(command)
        message.name = command_name(row.cls) if row else f"command {command}"
        message.head[0].word = message.name if row else "unknown"
        message.cls = self._order.command(command).cls
        self._payload(stream, message, message.cls)

    # ---------------------------------------------------------------------------------------------------------- replies

    def replies(self) -> Iterator[Message]:
        """Yield what the server sent."""
        stream = self.conversation.sides.get(Role.SERVER)
        at = 0
        while stream is not None and at < stream.end:
            message = self._begin(stream, at, Role.SERVER)
            message.name = "reply"
            try:
                self._reply(stream, message)
            except Violation as violation:
                self._fail(stream, message, violation)
            yield message
            if message.fault is not None and not self._goes_on(stream, message):
                return
            at = message.payload_offset + message.payload_size
        self._all_read = stream is not None and not any(
            side.lost or side.lacks(0, side.end) for side in self.conversation.sides.values()
        )

    def _reply(self, stream: Stream, message: Message) -> None:
        if self._order.oldest is None and not self._all_asked:
            self._lone_reply(stream, message)
            return
        due = self._order.due()
        self._order.answer()
        message.name, message.cls = f"{due.request.name} reply", due.reply
        self._payload(stream, message, due.reply, due)

    def _lone_reply(self, stream: Stream, message: Message) -> None:
        """Without the requests a reply's size is the only hint; where several kinds have it, its bytes are shown as they are."""
        size = self._number(stream, message, "size", 8, "bytes of payload")
        replies = {row: reply for row in by_number(self.version).values() if isinstance(reply := row.reply(self.version), type)}
        fitting = {row: reply for row, reply in replies.items() if self._fits(reply, size)}
        fitting = fitting or {row: reply for row, reply in replies.items() if carries_data(reply)}
        message.name = " or ".join(row.name for row in fitting)
        message.name += " reply, by its size" if size else " reply, without payload"
        kinds = set(fitting.values())
        message.head.clear()
        if len(kinds) == 1:
            (message.cls,) = kinds
        self._payload(stream, message, message.cls)

    def _fits(self, reply: type, size: int) -> bool:
        return codec.is_fixed(reply, self.version) and codec.minimum_size(reply, self.version) == size

    # ------------------------------------------------------------------------------------------------------------- gaps

    def _goes_on(self, stream: Stream, message: Message) -> bool:
        """Whether only bytes of a payload are missing, so that the next message begins where the size field says."""
        end = message.payload_offset + message.payload_size
        return message.is_sized and bool(stream.lacks(message.payload_offset, end)) and self._is_lost(stream, message)

    def _is_lost(self, stream: Stream, message: Message) -> bool:
        return message.fault is not None and message.fault.rule == GAP and stream.gap(self._cut_at) > 0

    def _next_start(self, stream: Stream, message: Message) -> int | None:
        """After a gap that a request began in, return where a piece of the input begins as a request does; None where none does."""
        if not self._is_lost(stream, message):
            return None
        return next((at for at in stream.starts_after(self._cut_at + 1) if self._is_request(stream, at)), None)

    def _is_request(self, stream: Stream, at: int) -> bool:
        """Whether what begins at an offset can be a request: a command that is defined, and a size that it can have."""
        head = bytes(stream.view(at, codec.REQUEST_HEAD.size))
        if len(head) < codec.REQUEST_HEAD.size or (row := by_number(self.version).get(head[0])) is None:
            return False
        size = int.from_bytes(head[1:], "little")
        with suppress(Violation):
            codec.check_size(row.cls, size, self.version)
            return at + len(head) + size <= stream.end
        return False

    # ------------------------------------------------------------------------------------------------------------- both

    def _begin(self, stream: Stream, at: int, sender: Role) -> Message:
        mark = stream.mark(at)
        return Message(sender, self.conversation.number, at, self.version, order=mark.order, time_ns=mark.time_ns)

    def _number(self, stream: Stream, message: Message, name: str, width: int, doc: str) -> int:
        """Read a number of the head."""
        offset = message.payload_offset
        raw = stream.view(offset, width)
        if len(raw) < width:
            self._cut_at = offset + len(raw)
            raise _cut_off(name, len(raw), width, offset - message.offset)
        value = int.from_bytes(raw, "little")
        message.head.append(Item(name, offset, width, raw, value, "", doc))
        return value

    def _payload(self, stream: Stream, message: Message, cls: type | None, due: Awaited[Message] | None = None) -> None:
        """Read the size; check that it is right and that all of the payload is there."""
        size = message.payload_size = self._number(stream, message, "size", 8, "bytes of payload")
        base = message.payload_offset
        there = stream.count(base, size)
        only_fields = cls is not None and carries_data(cls) and there == codec.minimum_size(cls, self.version)
        left_out = stream.left_out(base + there) if only_fields else None
        message.payload = partial(stream.view, base, self._shown(cls, size))
        message.read = partial(self._items, message, there, left_out)
        if cls is not None:
            self._check_size(message, cls, due)
        message.is_sized = True
        if there + (left_out.size if left_out else 0) < size:
            self._cut_at = base + there
            self._walk(message, there, left_out, [])  # raises: it names the field in which the bytes end

    def _shown(self, cls: type | None, size: int) -> int:
        """Return how much of a payload is looked at."""
        if cls is None:
            return min(size, DATA_SHOWN)
        return min(size, codec.minimum_size(cls, self.version) + DATA_SHOWN) if carries_data(cls) else size

    def _items(self, message: Message, there: int, left_out: LeftOut | None) -> list[Item]:
        """Return the payload's fields as far as they are there, whatever is wrong with the size."""
        found: list[Item] = []
        with suppress(Violation):
            self._walk(message, there, left_out, found)
        return found

    def _walk(self, message: Message, there: int, left_out: LeftOut | None, into: list[Item]) -> None:
        base = message.payload_offset
        walk = Walk(message.payload(), base, message.payload_size, there, self.version, self.full, left_out)
        try:
            if message.cls is None:
                walk.opaque(into)
            else:
                walk.record(message.cls, into)
        except Short as short:
            raise _cut_off(short.field, short.there, short.wanted, short.offset - message.offset) from None

    def _check_size(self, message: Message, cls: type, due: Awaited[Message] | None) -> None:
        """Hold the size field to the table, to the counts, and to what the request awaits."""
        head, size = message.payload_offset - message.offset, message.payload_size
        try:
            if due is not None:
                due.check_size(size)
            codec.check_size(cls, size, self.version)
        except Violation as found:
            others = [
                str(version) for version in PROFILES if codec.is_fixed(cls, version) and codec.minimum_size(cls, version) == size
            ]
            hint = f"; it fits protocol {', '.join(others)}" if others else ""
            raise Violation(found.rule, "size", found.value, found.detail + hint, head - 8) from None
        if cls is GraphCompute:
            try:
                graph_size(message.payload(), size, self.version)
            except Violation as found:
                raise Violation(found.rule, found.field, found.value, found.detail, head + (found.offset or 0)) from None

    def _fail(self, stream: Stream, message: Message, violation: Violation) -> None:
        """Keep what is wrong; here the offset of a violation counts from the message's first byte."""
        where = self.conversation.where(message.sender)
        message.fault = Fault.of(violation, message.offset + (violation.offset or 0), where)
        lost = self._gap(stream, message) or stream.lost or stream.unended
        if lost and violation.rule == "frame.complete":  # the file lost the bytes: the sender may well have sent them
            problem = f"{message.fault.problem}; {lost.problem}"
            message.fault = replace(message.fault, problem=problem, rule=lost.rule)

    def _gap(self, stream: Stream, message: Message) -> Lost | None:
        """Return what the input lacks where a message was cut off; None where it lacks nothing there."""
        gap = stream.gap(self._cut_at)
        if not gap or (stream.lost and self._cut_at + gap == stream.end):  # the file's own damage took the end
            return None
        whole = stream.lacks(self._cut_at, message.payload_offset + message.payload_size) if message.is_sized else gap
        more = f", {whole} of this message in all" if whole > gap else ""
        return Lost(f"the capture lacks the next {gap} bytes of the TCP stream{more}", GAP)


def _cut_off(field: str, there: int, wanted: int, offset: int) -> Violation:
    return Violation("frame.complete", field, "cut off", f"the bytes end after {there} of its {wanted}", offset)
