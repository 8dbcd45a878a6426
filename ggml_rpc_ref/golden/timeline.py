"""A recording as a sequence of events, in the order of the file: each message when it was complete, each end of a connection.

`decode` finds the messages: it reads every stream as far as it follows the protocol. What a client sent beyond that point is a
single event whose bytes are not a message.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ggml_rpc_ref.decode.messages import Reader, announced
from ggml_rpc_ref.decode.model import Fault, Message
from ggml_rpc_ref.decode.sources import read
from ggml_rpc_ref.decode.streams import Conversation, Stream
from ggml_rpc_ref.errors import Damaged, Misuse
from ggml_rpc_ref.files import recording
from ggml_rpc_ref.files.recording import Direction, LeftOut
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.protocol.order import Order
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.messages import carries_data
from ggml_rpc_ref.spec.versions import DEFAULT, Version

Part = memoryview | LeftOut


@dataclass(frozen=True, slots=True, eq=False)
class MessageEvent:
    """A message, or bytes that are not one.

    Attributes:
        connection: its number in the recording.
        sender: which end sent it.
        at: offset of its first byte in what that end sent.
        parts: its bytes, and the stretches that were left out; more than one part only if something was left out.
        message: as decoded; None for bytes that are not a message.
        broken: what was decoded of the bytes that are not a message; None for a message.
        order: number of the chunk that completed it.
        request: the message that a reply answers; None for a request.
    """

    connection: int
    sender: Role
    at: int
    parts: tuple[Part, ...]
    message: Message | None
    order: int
    request: MessageEvent | None = None
    broken: Message | None = None

    @property
    def cls(self) -> type | None:
        """Its class in the table."""
        return None if self.message is None else self.message.cls

    def fields(self) -> Any:
        """Return the message as an object of its class, without its data."""
        assert self.message is not None
        assert self.message.cls is not None
        cls, payload, version = self.message.cls, self.message.payload(), self.message.version
        return codec.decode(cls, payload[: codec.minimum_size(cls, version)] if carries_data(cls) else payload, version)


@dataclass(frozen=True, slots=True)
class EndEvent:
    """One side has stopped sending, in the chunk of number `order`."""

    connection: int
    sender: Role
    order: int


Event = MessageEvent | EndEvent


@dataclass(slots=True)
class Timeline:
    """What a recording holds.

    Attributes:
        header: what it says of itself.
        version: the protocol version of all its conversations.
        events: in the order of the file, as far as that is the order in which they happened.
        faults: why the events are not the whole recording, or not a whole conversation; empty if they are.
    """

    header: recording.Header
    version: Version
    events: list[Event]
    faults: list[str] = field(default_factory=list)


def read_timeline(path: Path) -> Timeline:
    """Read a recording up to its end or its first fault.

    Raises:
        Damaged: if the file is not a recording.
        Misuse: if it can't be read, or its conversations are of several protocol versions.
    """
    header, source = recording.read_header(path), read(path, "recording")
    events: list[Event] = []
    faults: list[Fault] = [] if source.fault is None else [source.fault]
    version = _version_of(path, source.conversations)
    for conversation in source.conversations:
        messages, fault = _messages(conversation, version)
        events += messages
        if fault is not None and source.fault is None:
            faults.append(fault)
    last = {event.connection: event.order for event in sorted(events, key=lambda event: event.order)}
    # the peer of a side that stopped sending may still answer it, so an end takes effect after the connection's last message
    events += [replace(end, order=max(end.order, last.get(end.connection, 0))) for end in _ends(path)]
    return Timeline(header, version, _in_order(events), [f"{path}: {fault}" for fault in faults])


def _in_order(events: list[Event]) -> list[Event]:
    """Return events in the order of the file, except that what a connection sends before its first answer is moved to that answer.

    A recorder of several connections may see events late: the last answer and the end of one connection after the HELLO of the
    next, although upstream's server accepts that one only after the first has ended. Requests before the first answer have no
    effect before it, so moving them is safe.
    """
    answered: dict[int, int] = {}
    for event in events:
        if isinstance(event, MessageEvent) and event.sender is Role.SERVER:
            answered[event.connection] = min(event.order, answered.get(event.connection, event.order))

    def place(event: Event) -> tuple[int, int, int, int]:
        first = answered.get(event.connection, 0)
        if isinstance(event, EndEvent):
            return event.order, 1, event.order, 0
        return (first, -1, event.order, event.at) if event.order < first else (event.order, 0, event.order, event.at)

    return sorted(events, key=place)


def _ends(path: Path) -> Iterator[EndEvent]:
    """Yield the ends up to the file's first fault, which the reader of the messages reports."""
    try:
        for order, chunk in enumerate(recording.read(path)):
            if not chunk.data and chunk.left_out is None:
                yield EndEvent(chunk.connection, Role.CLIENT if chunk.direction is Direction.TO_SERVER else Role.SERVER, order)
    except Damaged:
        return


def _version_of(path: Path, conversations: Iterable[Conversation]) -> Version:
    """Return the version that all conversations announce, `DEFAULT` where none does."""
    said = {version for conversation in conversations if (version := announced(conversation)) is not None}
    if len(said) > 1:
        raise Misuse(f"{path} holds conversations of the protocols {', '.join(map(str, sorted(said)))}; a session is of one")
    return said.pop() if said else DEFAULT


def _messages(conversation: Conversation, version: Version) -> tuple[list[MessageEvent], Fault | None]:
    """Return the messages of both sides, up to where the file or the server's side can no longer be followed, and the reason."""
    reader = Reader(conversation, version, full=False)
    found: list[MessageEvent] = []
    order: Order[MessageEvent] = Order(version)
    fault = None
    for message in reader.requests():
        event, fault = _take(conversation, message)
        if fault is not None:
            break
        found.append(event)
        if event.cls is not None:
            order.ask(event.cls, event, message.number)
    for message in reader.replies():
        request = order.answer().request if order.oldest else None
        event, wrong = _take(conversation, message, request)
        wrong = wrong or message.fault
        if wrong is None and (request is None or event.order < request.order):  # a request is recorded before it is forwarded
            where = conversation.where(message.sender)
            what = "is there, and nothing that asked for it" if request is None else "is there before what asked for it"
            wrong = Fault("reply", what, "frame.reply-presence", message.offset, where)
        if wrong is not None:
            return [event for event in found if event.order < message.order], fault or wrong
        found.append(event)
    return found, fault


def _take(conversation: Conversation, message: Message, request: MessageEvent | None = None) -> tuple[MessageEvent, Fault | None]:
    """Return the event of a message, whose bytes run to the stream's end if it breaks a rule, and what the file lacks of it."""
    stream = conversation.sides[message.sender]
    end = stream.end if message.fault else message.payload_offset + message.payload_size
    parts = tuple(_parts(stream, message.offset, end))
    whole, broken = (None, message) if message.fault else (message, None)
    order = stream.mark(end - 1).order
    event = MessageEvent(message.connection, message.sender, message.offset, parts, whole, order, request, broken)
    if message.fault is not None and message.fault.rule in FILE_RULES:
        return event, message.fault
    if sum(map(_size, parts)) != end - message.offset:
        where = conversation.where(message.sender)
        return event, Fault(message.name, "lacks other bytes than a whole data part", "recording.left-out", message.offset, where)
    return event, None


def _parts(stream: Stream, at: int, end: int) -> Iterator[Part]:
    while at < end and _size(part := stream.left_out(at) or stream.view(at, end - at)):
        yield part
        at += _size(part)


def _size(part: Part) -> int:
    return part.size if isinstance(part, LeftOut) else len(part)
