"""Streams to messages: the protocol's framing and order, on bytes that lie there already.

`connection.Connection` follows a conversation as it happens and forgets each byte that it has understood; here every field keeps
its place, and what came before a fault is kept. Both refuse by the same checks of `codec`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Final

from ggml_rpc_ref.decode.model import Fault, Item, Message
from ggml_rpc_ref.decode.streams import Conversation, Stream
from ggml_rpc_ref.decode.walk import Short, Walk
from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.spec.messages import (
    NO_REPLY,
    REQUESTS,
    GetTensor,
    GetTensor2d,
    GetTensorReply,
    GraphCompute,
    Hello,
    HelloReply,
    all_fields,
    by_number,
    command_name,
)
from ggml_rpc_ref.spec.versions import PROFILES, Version
from ggml_rpc_ref.spec.wire import Tail

DATA_SHOWN: Final = 64
"""Bytes of data that are looked at, however many there are."""


def announced(conversation: Conversation) -> Version | None:
    """Return the version that the server's first reply announces, or None where that is no HELLO reply of a version we know."""
    stream = conversation.sides.get(Role.SERVER)
    if stream is None:
        return None
    start = bytes(stream.view(0, codec.REPLY_HEAD.size + 3))
    found = Version(*start[-3:]) if len(start) == codec.REPLY_HEAD.size + 3 else None
    if found not in PROFILES or int.from_bytes(start[:8], "little") != codec.minimum_size(HelloReply, found):
        return None
    return found


class Reader:
    """Reads both sides of one conversation; the requests first, since they say what each reply is.

    Args:
        conversation: what was sent.
        version: whose layouts are meant.
        full: whether tensors in arrays are walked field by field.
    """

    def __init__(self, conversation: Conversation, version: Version, full: bool) -> None:
        self.conversation, self.version, self.full = conversation, version, full
        self._asked: deque[Message] = deque()
        self._all_asked = self._all_read = False

    @property
    def unanswered(self) -> Message | None:
        """The first request that got no reply, though all that the server sent has been read without a fault."""
        return self._asked[0] if self._asked and self._all_read else None

    # --------------------------------------------------------------------------------------------------------- requests

    def requests(self) -> Iterator[Message]:
        """Yield what the client sent."""
        stream = self.conversation.sides.get(Role.CLIENT)
        at = 0
        while stream is not None and at < stream.end:
            message = self._begin(stream, at, Role.CLIENT)
            try:
                self._request(stream, message)
            except Violation as violation:
                self._fail(stream, message, violation)
            yield message
            if message.fault is not None:
                return
            if REQUESTS[message.cls or Hello].reply(self.version) is not NO_REPLY:
                self._asked.append(message)
            at = message.payload_offset + message.payload_size
        self._all_asked = stream is not None and not stream.lost

    def _request(self, stream: Stream, message: Message) -> None:
        command = self._number(stream, message, "command", 1, "number of the command")
        row = by_number(self.version).get(command)
        message.name = command_name(row.cls) if row else f"command {command}"
        message.head[0].word = message.name if row else "unknown"
        self._check_order(message, command)
        if row is None:
            raise Violation("frame.command-known", "command", command, f"protocol {self.version} defines none of this number", 0)
        message.cls = row.cls
        self._payload(stream, message, row.cls)

    def _check_order(self, message: Message, command: int) -> None:
        hello = REQUESTS[Hello].number
        if self.conversation.whole and message.offset == 0 and command != hello:
            raise Violation("session.hello-first", "command", command, "the first command is HELLO (14)", 0)
        if message.offset > 0 and command == hello:
            raise Violation("session.hello-once", "command", command, "HELLO is said once, as the first command", 0)

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
            if message.fault is not None:
                return
            at = message.payload_offset + message.payload_size
        self._all_read = stream is not None and not any(side.lost for side in self.conversation.sides.values())

    def _reply(self, stream: Stream, message: Message) -> None:
        if not self._asked and not self._all_asked:
            self._lone_reply(stream, message)
            return
        if not self._asked:
            raise Violation("frame.reply-presence", "reply", "there", "no request awaits one", 0)
        request = self._asked.popleft()
        cls = REQUESTS[request.cls or Hello].reply(self.version)
        assert isinstance(cls, type)
        message.name, message.cls = f"{request.name} reply", cls
        self._payload(stream, message, cls, request)

    def _lone_reply(self, stream: Stream, message: Message) -> None:
        """Without the requests a reply's size is the only hint; where several kinds have it, its bytes are shown as they are."""
        size = self._number(stream, message, "size", 8, "bytes of payload")
        rows = [row for row in by_number(self.version).values() if row.reply(self.version) is not NO_REPLY]
        fitting = {row: cls for row in rows if isinstance(cls := row.reply(self.version), type) and self._fits(cls, size)}
        message.name = " or ".join(command_name(row.cls) for row in fitting) or "GET_TENSOR"
        message.name += " reply, by its size" if size else " reply, without payload"
        kinds = set(fitting.values()) or {GetTensorReply}
        message.head.clear()
        if len(kinds) == 1:
            (message.cls,) = kinds
        self._payload(stream, message, message.cls)

    def _fits(self, cls: type, size: int) -> bool:
        return codec.is_fixed(cls, self.version) and codec.minimum_size(cls, self.version) == size

    # ------------------------------------------------------------------------------------------------------------- both

    def _begin(self, stream: Stream, at: int, sender: Role) -> Message:
        mark = stream.mark(at)
        return Message(sender, self.conversation.number, at, self.version, order=mark.order, time_ns=mark.time_ns)

    def _number(self, stream: Stream, message: Message, name: str, width: int, doc: str) -> int:
        """Read a number of the head."""
        offset = message.payload_offset
        raw = stream.view(offset, width)
        if len(raw) < width:
            raise _cut_off(name, len(raw), width, offset - message.offset)
        value = int.from_bytes(raw, "little")
        message.head.append(Item(name, offset, width, raw, value, "", doc))
        return value

    def _payload(self, stream: Stream, message: Message, cls: type | None, request: Message | None = None) -> None:
        """Read the size, and see whether it is right and all of the payload there."""
        size = message.payload_size = self._number(stream, message, "size", 8, "bytes of payload")
        base = message.payload_offset
        there = stream.count(base, size)
        only_fields = cls is not None and _carries_data(cls) and there == codec.minimum_size(cls, self.version)
        left_out = stream.left_out(base + there) if only_fields else None
        message.payload = partial(stream.view, base, self._shown(cls, size))
        message.read = partial(self._items, message, there, left_out)
        if cls is not None:
            self._check_size(message, cls, request)
        if there + (left_out.size if left_out else 0) < size:
            self._walk(message, there, left_out, [])  # says where the bytes run out

    def _shown(self, cls: type | None, size: int) -> int:
        """Return how much of a payload is looked at."""
        if cls is None:
            return min(size, DATA_SHOWN)
        return min(size, codec.minimum_size(cls, self.version) + DATA_SHOWN) if _carries_data(cls) else size

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

    def _check_size(self, message: Message, cls: type, request: Message | None) -> None:
        """Hold the size field to what the table, the counts and the request say."""
        head, size = message.payload_offset - message.offset, message.payload_size
        try:
            codec.check_size(cls, size, self.version)
        except Violation as found:
            others = [
                str(version) for version in PROFILES if codec.is_fixed(cls, version) and codec.minimum_size(cls, version) == size
            ]
            hint = f"; it fits protocol {', '.join(others)}" if others else ""
            raise Violation(found.rule, "size", found.value, found.detail + hint, head - 8) from None
        if cls is GraphCompute:
            try:
                codec.graph_size(message.payload(), size, self.version)
            except Violation as found:
                raise Violation(found.rule, found.field, found.value, found.detail, head + (found.offset or 0)) from None
        wanted = _bytes_asked_for(request)
        if wanted is not None and size != wanted:
            raise Violation("frame.reply-presence", "size", size, f"{wanted} bytes were asked for", head - 8)

    def _fail(self, stream: Stream, message: Message, violation: Violation) -> None:
        """Note what is wrong; offsets of violations count from the message's first byte here."""
        where = self.conversation.where(message.sender)
        message.fault = Fault.of(violation, message.offset + (violation.offset or 0), where)
        if stream.lost and violation.rule == "frame.complete":  # the file lacks them: the sender may have sent them
            problem = f"{message.fault.problem}; {stream.lost.problem}"
            message.fault = replace(message.fault, problem=problem, rule=stream.lost.rule)


def _carries_data(cls: type | None) -> bool:
    """Whether messages of this class end in data, which may be left out of recordings."""
    return cls is not None and any(isinstance(row.wire, Tail) for row in all_fields(cls))


def _cut_off(field: str, there: int, wanted: int, offset: int) -> Violation:
    return Violation("frame.complete", field, "cut off", f"the bytes end after {there} of its {wanted}", offset)


def _bytes_asked_for(request: Message | None) -> int | None:
    """Return how many bytes a request asks for; None where the table says what the reply has."""
    if request is None or request.cls not in (GetTensor, GetTensor2d):
        return None
    rows = request.value("n_copies") if request.cls is GetTensor2d else 1
    return int(request.value("size")) * int(rows)
