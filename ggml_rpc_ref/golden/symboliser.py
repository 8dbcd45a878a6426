"""Make the steps of a session vector from a timeline.

Handles, addresses and ids become names, and what a reply held becomes what the reply of any correct server must hold.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ggml_rpc_ref.decode.model import Item
from ggml_rpc_ref.files.conversation import WIDTHS, Anything, AtLeast, Binding, Exactly, Named, Near, Omitted, Piece, Repeated, Step
from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.golden.known_bytes import Known, KnownBytes, Stretch, nbytes
from ggml_rpc_ref.golden.timeline import EndEvent, MessageEvent, Timeline
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.connection import Role
from ggml_rpc_ref.protocol.fnv import MODULUS, OFFSET_BASIS, PRIME
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import (
    AllocBuffer,
    AllocBufferReply,
    BufferClear,
    BufferGetBase,
    BufferGetBaseReply,
    CopyTensor,
    DeviceCountReply,
    FreeBuffer,
    GetAlignmentReply,
    GetAllocSizeReply,
    GetDeviceMemoryReply,
    GetMaxSizeReply,
    GetTensor,
    GetTensor2d,
    GraphCompute,
    GraphRecompute,
    MemsetTensor,
    RpcTensor,
    SetTensor,
    SetTensor2d,
    SetTensorHash,
    carries_data,
    command_name,
)

NMSE: Final = 5e-4
"""The limit for computed numbers: what test-backend-ops of the 3.6.1 release allows for MUL_MAT."""

MOST_ROWS: Final = 2**16
"""Rows of one request that are followed one by one; a recording may claim any number."""


@dataclass(slots=True)
class _Buffer:
    """A live buffer: its name, and its base where the client has asked for it."""

    name: str
    base: int | None = None


@dataclass(slots=True)
class _Side:
    """What is known of one connection.

    Attributes:
        number: in the vector, from 1 in order of first appearance.
        awaited: whether the last message was the client's.
    """

    number: int
    known: KnownBytes
    buffers: dict[int, _Buffer] = field(default_factory=dict)
    awaited: bool = False
    is_over: bool = False


class Symboliser:
    """Turns a timeline into steps.

    Args:
        timeline: of a recording.
        nmse: limit for computed numbers.

    Attributes:
        bindings: every name in the steps that have been made.
        notes: what a player of the steps should know, one sentence each.
    """

    def __init__(self, timeline: Timeline, nmse: float = NMSE) -> None:
        self.bindings: dict[str, Binding] = {}
        self.notes: list[str] = []
        self._events, self._version, self._nmse = timeline.events, timeline.version, nmse
        self._sides: dict[int, _Side] = {}
        self._tensors: dict[int, str] = {}
        self._buffer_count = 0
        messages = [event for event in timeline.events if isinstance(event, MessageEvent)]
        self._replies = {event.request: event for event in messages if event.request is not None}
        self._asked: dict[MessageEvent, Any] = {}
        self._devices = 1 + max((_device(event) for event in messages if event.request is None), default=0)

    def steps(self) -> Iterator[Step]:
        """Yield the steps."""
        for event in self._events:
            if isinstance(event, EndEvent):
                yield from self._ended(event)
                continue
            side = self._sides.setdefault(event.connection, _Side(len(self._sides) + 1, KnownBytes(self._version)))
            side.awaited = event.sender is Role.CLIENT
            pieces = self._request(side, event) if event.request is None else self._reply(side, event, event.request)
            asking = (event.request or event).cls
            command = command_name(asking) if asking else ""
            yield Step(side.number, "send" if side.awaited else "receive", tuple(joined(pieces)), command)

    def _ended(self, event: EndEvent) -> Iterator[Step]:
        side = self._sides.get(event.connection)
        if side is None or side.is_over:
            return
        if event.sender is Role.CLIENT:
            side.is_over = True
            yield Step(side.number, "close", how="end")  # a recording does not distinguish a reset from an end
        elif side.awaited:  # if all was answered, the server was merely stopped, which another server need not do
            side.is_over = True
            yield Step(side.number, "refused")

    # --------------------------------------------------------------------------------------------------------- requests

    def _request(self, side: _Side, event: MessageEvent) -> Iterator[Piece]:
        message = event.message or event.broken
        if message is None or isinstance(event.parts[0], LeftOut):
            yield from _cut_data(event.parts)
            return
        marks = [(offset - event.at, name) for offset, name in self._marks(side, message.read())]
        yield from _cut(event, marks)
        if event.message is None:
            return
        self._follow(side, event, event.fields())

    def _follow(self, side: _Side, event: MessageEvent, request: Any) -> None:
        """Record what a request does to the buffers, and what its reply will be compared with."""
        known, answer = side.known, self._answer(event)
        match request:
            case AllocBuffer() if answer and answer.remote_ptr:
                known.allocate(answer.remote_ptr)
            case FreeBuffer(remote_ptr=handle):
                side.buffers.pop(handle, None)
            case BufferClear(remote_ptr=handle):
                known.clear(handle)
            case BufferGetBase(remote_ptr=handle):
                self._asked[event] = side.buffers.get(handle)
            case SetTensor():
                head = codec.REQUEST_HEAD.size + codec.minimum_size(SetTensor, self._version)
                known.write(request.tensor, request.offset, sum(map(_size, event.parts)) - head)
            case MemsetTensor():
                known.write(request.tensor, request.offset, request.size)
            case SetTensorHash() if answer and answer.result:
                # the request does not hold the size of the data; the tensor from the offset on is the most it can be
                known.write(request.tensor, request.offset, max(0, nbytes(request.tensor) - request.offset))
            case CopyTensor() if answer and answer.result:
                known.copy(request.src, request.dst)
            case GraphCompute():
                known.compute(request)
            case GraphRecompute():
                known.recompute(request.device, request.uid)
            case SetTensor2d() if request.n_copies <= MOST_ROWS:
                for place, _ in _rows(request):
                    known.write(request.tensor, place, request.size)
            case GetTensor2d() if request.n_copies > MOST_ROWS:
                self._asked[event] = [(0, 0, Stretch(0, request.size * request.n_copies, Known.NOTHING))]
            case GetTensor() | GetTensor2d():
                rows = _rows(request)
                self._asked[event] = [(*row, part) for row in rows for part in known.read(request.tensor, row[0], request.size)]

    def _answer(self, event: MessageEvent) -> Any:
        """Return the reply to a request; None where there is none, or where it is data."""
        reply = self._replies.get(event)
        return None if reply is None or _is_data(reply) else reply.fields()

    def _marks(self, side: _Side, items: Iterable[Item]) -> Iterator[tuple[int, Named]]:
        """Yield offset and name of every field that is a handle, an address or an id."""
        for item in items:
            values = item.value if isinstance(item.value, dict) else {child.name: child.value for child in item.children}
            if "id" in values:
                yield from self._tensor_marks(side, item.offset, values)
            elif item.children:
                yield from self._marks(side, item.children)
            elif item.name == "remote_ptr":
                yield from self._handle(side, item.offset, item.value)
            elif item.name == "nodes":
                yield from self._ids(item.offset, *item.value)

    def _tensor_marks(self, side: _Side, at: int, values: dict[str, Any]) -> Iterator[tuple[int, Named]]:
        """Yield the marks of a tensor record whose first byte is at `at`, in the order of its fields, as far as it has them."""
        yield from self._ids(at + PLACES["id"], values["id"])
        yield from self._handle(side, at + PLACES["buffer"], values.get("buffer", 0))
        yield from self._ids(at + PLACES["src"], *values.get("src", ()))
        yield from self._ids(at + PLACES["view_src"], values.get("view_src", 0))
        buffer, address = side.buffers.get(values.get("buffer", 0)), values.get("data", 0)
        if buffer is not None and buffer.base is not None and address:
            yield at + PLACES["data"], Named(f"{buffer.name}.base", address - buffer.base)

    def _handle(self, side: _Side, at: int, handle: int) -> Iterator[tuple[int, Named]]:
        if handle in side.buffers:
            yield at, Named(f"{side.buffers[handle].name}.remote_ptr")

    def _ids(self, at: int, *ids: int) -> Iterator[tuple[int, Named]]:
        """Yield a name for each of several consecutive ids; 0 means no tensor and stays 0."""
        for index, id in enumerate(ids):
            if id:
                if id not in self._tensors:
                    self._tensors[id] = f"tensor{len(self._tensors)}"
                    self.bindings[self._tensors[id]] = Binding("client", id)
                yield at + 8 * index, Named(self._tensors[id])

    # ---------------------------------------------------------------------------------------------------------- replies

    def _reply(self, side: _Side, event: MessageEvent, request: MessageEvent) -> Iterator[Piece]:
        whole = bytes(_literal(event.parts[0]))
        head, payload = Exactly(whole[: codec.REPLY_HEAD.size]), whole[codec.REPLY_HEAD.size :]
        if _is_data(event):
            yield head
            yield from self._data(event, request, payload)
            return
        match event.fields():
            case AllocBufferReply(remote_ptr=handle, remote_size=size) if handle:
                buffer = side.buffers[handle] = _Buffer(f"buf{self._buffer_count}")
                self._buffer_count += 1
                yield from (head, self._bound(f"{buffer.name}.remote_ptr", handle), _at_least(request.fields().size, size))
            case BufferGetBaseReply(base_ptr=base) if (known := self._asked[request]) is not None:
                known.base = base if known.base is None else known.base
                yield from (head, self._bound(f"{known.name}.base", base))
            case DeviceCountReply(device_count=count):
                yield from (head, _at_least(min(self._devices, count), count, width=4))
            case GetAllocSizeReply(alloc_size=size):
                yield from (head, _at_least(nbytes(request.fields().tensor), size))
            case GetAlignmentReply() | GetMaxSizeReply() | GetDeviceMemoryReply():
                yield from (head, Anything(payload))
            case _:
                yield Exactly(whole)

    def _bound(self, name: str, value: int) -> Named:
        """Return the piece that receives a value chosen by the server; the first one binds the name."""
        binding = self.bindings.setdefault(name, Binding("server", value))
        return Named(name, value - (binding.value or 0))

    def _data(self, event: MessageEvent, request: MessageEvent, payload: bytes) -> Iterator[Piece]:
        asked, stretches = request.fields(), self._asked[request]  # each with its row's place in the tensor and in the data
        if len(event.parts) > 1 or isinstance(event.parts[0], LeftOut):
            yield from _cut_data(event.parts[1:])
            if any(stretch.known is not Known.EXACTLY for _, _, stretch in stretches):
                place = f"connection {event.connection}, offset {event.at} of the server's bytes"
                self.notes.append(f"{place}: data that a graph computed was left out, so a server must compute the same bits")
            return
        dtype = BY_NUMBER.get(asked.tensor.type)
        for place, at, stretch in stretches:
            yield self._stretch(stretch, payload[at + stretch.start : at + stretch.stop], dtype.name if dtype else "", place)

    def _stretch(self, stretch: Stretch, data: bytes, type: str, offset: int) -> Piece:
        if stretch.known is Known.NOTHING:
            return Anything(data)
        width = WIDTHS.get(type, 0)
        if stretch.known is Known.COMPUTED and width and not ((offset + stretch.start) % width or len(data) % width):
            return Near(data, type, self._nmse)
        return Exactly(data)


PLACES: Final = {name: place[1] for name, place in (codec.layout(RpcTensor).fields or {}).items()}
"""Field of a tensor record to its offset."""


def _device(event: MessageEvent) -> int:
    """Return the device that a request names; 0 where it names none."""
    return int(getattr(event.fields(), "device", 0)) if event.message else 0


def _rows(request: GetTensor | GetTensor2d | SetTensor2d) -> list[tuple[int, int]]:
    """Return for each row that a request moves its first byte in the tensor, and in the data."""
    if isinstance(request, GetTensor):
        return [(request.offset, 0)]
    return [(request.offset + row * request.stride, row * request.size) for row in range(request.n_copies)]


def _is_data(reply: MessageEvent) -> bool:
    return reply.cls is not None and carries_data(reply.cls)


def _size(part: memoryview | LeftOut) -> int:
    return part.size if isinstance(part, LeftOut) else len(part)


def _at_least(least: int, recorded: int, width: int = 8) -> AtLeast:
    return AtLeast(least, width, None if recorded == least else recorded)


def _literal(part: memoryview | LeftOut) -> memoryview:
    assert not isinstance(part, LeftOut)
    return part


def _cut(event: MessageEvent, marks: list[tuple[int, Named]]) -> Iterator[Piece]:
    """Yield a message's bytes with names in place of the numbers at these offsets."""
    whole, done = _literal(event.parts[0]), 0
    for offset, name in marks:
        yield Exactly(bytes(whole[done:offset]))
        yield name
        done = offset + 8
    yield Exactly(bytes(whole[done:]))
    yield from _cut_data(event.parts[1:])


def _cut_data(parts: tuple[memoryview | LeftOut, ...]) -> Iterator[Piece]:
    for part in parts:
        if not isinstance(part, LeftOut):
            yield Exactly(bytes(part))
        elif part.fnv1a == OFFSET_BASIS * pow(PRIME, part.size, MODULUS) % MODULUS:  # the hash of so many zero bytes
            yield Repeated(b"\0", part.size)
        else:
            yield Omitted(part.size, part.fnv1a)


ZEROS: Final = re.compile(b"\0{256,}")
"""A run of zeros that is written as a count: most of a GET_ALLOC_SIZE is absent sources, 296 zeros each."""


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield pieces with adjacent literal bytes merged and long runs of zeros as counts; at least one piece."""
    literal, count = bytearray(), 0
    for piece in (*pieces, None):
        if isinstance(piece, Exactly):
            literal += piece.data
            continue
        for part in (*_split_zeros(bytes(literal)), *([] if piece is None else [piece])):
            count += 1
            yield part
        literal.clear()
    if not count:
        yield Exactly(b"")


def _split_zeros(literal: bytes) -> Iterator[Piece]:
    """Yield literal bytes as pieces, long runs of zeros as counts."""
    done = 0
    for zeros in ZEROS.finditer(literal):
        if zeros.start() > done:
            yield Exactly(literal[done : zeros.start()])
        yield Repeated(b"\0", len(zeros[0]))
        done = zeros.end()
    if done < len(literal):
        yield Exactly(literal[done:])
