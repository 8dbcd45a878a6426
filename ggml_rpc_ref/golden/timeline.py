"""A recording as a line of events: each message once it was complete, each end of a connection, in the order of the file.

Messages are found by `decode`, which reads every stream as far as it follows the protocol; what a client sent beyond that is one
event of bytes that no message can be made of.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
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
from ggml_rpc_ref.spec.files import FILE_RULES
from ggml_rpc_ref.spec.messages import NO_REPLY, REQUESTS, GraphCompute
from ggml_rpc_ref.spec.versions import DEFAULT

Part = memoryview | LeftOut


@dataclass(frozen=True, slots=True, eq=False)
class Said:
    """A message, or bytes that are none.

    Attributes:
        connection: its number in the recording.
        sender: which end sent it.
        at: offset of its first byte in what that end sent.
        parts: its bytes, with stretches that were left out; more than one only where something was.
        message: None for bytes that are none.
        order: number of the chunk that completed it.
        request: the message that a reply answers; None for a request.
    """

    connection: int
    sender: Role
    at: int
    parts: tuple[Part, ...]
    message: Message | None
    order: int
    request: Said | None = None

    @property
    def cls(self) -> type | None:
        """Its class in the table."""
        return None if self.message is None else self.message.cls

    def fields(self) -> Any:
        """Return the message as an object of its class, data left out."""
        assert self.message is not None
        assert self.message.cls is not None
        cls, payload = self.message.cls, self.message.payload()
        return codec.decode(cls, payload if cls is GraphCompute else payload[: codec.minimum_size(cls)])


@dataclass(frozen=True, slots=True)
class Ended:
    """A side has ended its sending, in the chunk of number `order`."""

    connection: int
    sender: Role
    order: int


Event = Said | Ended


@dataclass(slots=True)
class Timeline:
    """What a recording holds.

    Attributes:
        header: what it says of itself.
        events: in the order of the file, as far as that is the order in which they happened.
        faults: why it is not all of the recording, or not of a conversation; nothing where all is well.
    """

    header: recording.Header
    events: list[Event]
    faults: list[str] = field(default_factory=list)


def read_timeline(path: Path) -> Timeline:
    """Read a recording, as far as it goes.

    Raises:
        Damaged: for a file that is no recording.
        Misuse: for one that can't be read, or of another protocol version than 3.6.1.
    """
    header, source = recording.read_header(path), read(path, "recording")
    events: list[Event] = []
    faults: list[Fault] = [] if source.fault is None else [source.fault]
    for conversation in source.conversations:
        _check_version(path, conversation)
        said, fault = _said(conversation)
        events += said
        if fault is not None and source.fault is None:
            faults.append(fault)
    last = {said.connection: said.order for said in sorted(events, key=lambda event: event.order)}
    # a side that has ended may still be answered, and its peer may still send: an end is the end where nothing more comes
    events += [replace(end, order=max(end.order, last.get(end.connection, 0))) for end in _ends(path)]
    return Timeline(header, _in_order(events), [f"{path}: {fault}" for fault in faults])


def _in_order(events: list[Event]) -> list[Event]:
    """Return events in the order of the file, but that a connection's first words come just before their first answer.

    Of several connections a recorder may hear in another order than they spoke: of the last answer and the end of one when the next
    has said HELLO already, though upstream's server turns to that one after the first has ended. What is said before the first
    answer has no effect before it either.
    """
    answered: dict[int, int] = {}
    for event in events:
        if isinstance(event, Said) and event.sender is Role.SERVER:
            answered[event.connection] = min(event.order, answered.get(event.connection, event.order))

    def place(event: Event) -> tuple[int, int, int, int]:
        first = answered.get(event.connection, 0)
        if isinstance(event, Ended):
            return event.order, 1, event.order, 0
        return (first, -1, event.order, event.at) if event.order < first else (event.order, 0, event.order, event.at)

    return sorted(events, key=place)


def _ends(path: Path) -> Iterator[Ended]:
    """Yield the ends as far as the file goes; what is wrong with it is noted by who reads the messages."""
    try:
        for order, chunk in enumerate(recording.read(path)):
            if not chunk.data and chunk.left_out is None:
                yield Ended(chunk.connection, Role.CLIENT if chunk.direction is Direction.TO_SERVER else Role.SERVER, order)
    except Damaged:
        return


def _check_version(path: Path, conversation: Conversation) -> None:
    version = announced(conversation)
    if version is not None and version != DEFAULT:
        raise Misuse(f"{path} holds a conversation of protocol {version}; sessions are of protocol {DEFAULT}")


def _said(conversation: Conversation) -> tuple[list[Said], Fault | None]:
    """Return what both ends said, up to where the file or the server's side can no longer be followed, and why it can't."""
    reader = Reader(conversation, DEFAULT, full=False)
    found: list[Said] = []
    waiting: deque[Said] = deque()
    fault = None
    for message in reader.requests():
        said, fault = _take(conversation, message)
        if fault is not None:
            break
        found.append(said)
        if said.cls is not None and REQUESTS[said.cls].reply(DEFAULT) is not NO_REPLY:
            waiting.append(said)
    for message in reader.replies():
        request = waiting.popleft() if waiting else None
        said, wrong = _take(conversation, message, request)
        wrong = wrong or message.fault
        if wrong is None and (request is None or said.order < request.order):  # a request is recorded before it is forwarded
            where = conversation.where(message.sender)
            what = "is there, and nothing that asked for it" if request is None else "is there before what asked for it"
            wrong = Fault("reply", what, "frame.reply-presence", message.offset, where)
        if wrong is not None:
            return [said for said in found if said.order < message.order], fault or wrong
        found.append(said)
    return found, fault


def _take(conversation: Conversation, message: Message, request: Said | None = None) -> tuple[Said, Fault | None]:
    """Return a message's bytes; of one that breaks a rule all that follow; and what the file lacks of them."""
    stream = conversation.sides[message.sender]
    end = stream.end if message.fault else message.payload_offset + message.payload_size
    parts = tuple(_parts(stream, message.offset, end))
    whole = None if message.fault else message
    order = stream.mark(end - 1).order
    said = Said(message.connection, message.sender, message.offset, parts, whole, order, request)
    if message.fault is not None and message.fault.rule in FILE_RULES:
        return said, message.fault
    if sum(map(_size, parts)) != end - message.offset:
        where = conversation.where(message.sender)
        return said, Fault(message.name, "lacks other bytes than a whole data part", "recording.left-out", message.offset, where)
    return said, None


def _parts(stream: Stream, at: int, end: int) -> Iterator[Part]:
    while at < end and _size(part := stream.left_out(at) or stream.view(at, end - at)):
        yield part
        at += _size(part)


def _size(part: Part) -> int:
    return part.size if isinstance(part, LeftOut) else len(part)
