"""A timeline made steps: handles, addresses and ids become names, what a reply held becomes what any right server's must hold."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

from ggml_rpc_ref.decode.model import Item
from ggml_rpc_ref.files.conversation import Anything, AtLeast, Binding, Exactly, Named, Near, Omitted, Piece, Repeated, Step
from ggml_rpc_ref.files.recording import LeftOut
from ggml_rpc_ref.golden.contents import Contents, Known, Stretch, nbytes
from ggml_rpc_ref.golden.timeline import Ended, Said, Timeline
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
    GetTensorReply,
    GraphCompute,
    GraphRecompute,
    RpcTensor,
    SetTensor,
    SetTensorHash,
    command_name,
)

NMSE: Final = 5e-4
"""How far computed numbers may lie from the recorded ones: what test-backend-ops of the 3.6.1 release allows a MUL_MAT."""
FLOATS: Final = {"F32": 4, "F16": 2}
"""Types whose computed values are compared as numbers, to their bytes."""


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
    buffers: dict[int, _Buffer] = field(default_factory=dict)
    contents: Contents = field(default_factory=Contents)
    awaited: bool = False
    is_over: bool = False


class Symboliser:
    """Turns a timeline into steps.

    Args:
        timeline: of a recording.
        nmse: limit for computed numbers.

    Attributes:
        bindings: every name in the steps that have been made.
        notes: what whoever plays them should know.
    """

    def __init__(self, timeline: Timeline, nmse: float = NMSE) -> None:
        self.bindings: dict[str, Binding] = {}
        self.notes: list[str] = []
        self._events, self._nmse = timeline.events, nmse
        self._sides: dict[int, _Side] = {}
        self._tensors: dict[int, str] = {}
        self._buffer_count = 0
        said = [event for event in timeline.events if isinstance(event, Said)]
        self._replies = {event.request: event for event in said if event.request is not None}
        self._asked: dict[Said, Any] = {}
        self._devices = 1 + max((_device(event) for event in said if event.request is None), default=0)

    def steps(self) -> Iterator[Step]:
        """Yield the steps."""
        for event in self._events:
            if isinstance(event, Ended):
                yield from self._ended(event)
                continue
            side = self._sides.setdefault(event.connection, _Side(len(self._sides) + 1))
            side.awaited = event.sender is Role.CLIENT
            pieces = self._request(side, event) if event.request is None else self._reply(side, event, event.request)
            asking = (event.request or event).cls
            command = command_name(asking) if asking else ""
            yield Step(side.number, "send" if side.awaited else "receive", tuple(joined(pieces)), command)

    def _ended(self, event: Ended) -> Iterator[Step]:
        side = self._sides.get(event.connection)
        if side is None or side.is_over:
            return
        if event.sender is Role.CLIENT:
            side.is_over = True
            yield Step(side.number, "close", how="end")  # a recording does not tell a reset from an end
        elif side.awaited:  # a server that has answered all may have been stopped: nothing that another one must do
            side.is_over = True
            yield Step(side.number, "refused")

    # --------------------------------------------------------------------------------------------------------- requests

    def _request(self, side: _Side, said: Said) -> Iterator[Piece]:
        if said.message is None:
            yield from _cut_data(said.parts)
            return
        marks = [(offset - said.at, name) for offset, name in self._marks(side, said.message.read())]
        yield from _cut(said, marks)
        self._follow(side, said, said.fields())

    def _follow(self, side: _Side, said: Said, request: Any) -> None:
        """Take note of what a request does, and of what its reply will be judged by."""
        contents, answer = side.contents, self._answer(said)
        match request:
            case AllocBuffer() if answer and answer.remote_ptr:
                contents.allocate(answer.remote_ptr)
            case FreeBuffer(remote_ptr=handle):
                side.buffers.pop(handle, None)
            case BufferClear(remote_ptr=handle):
                contents.clear(handle)
            case BufferGetBase(remote_ptr=handle):
                self._asked[said] = side.buffers.get(handle)
            case SetTensor():
                contents.write(request.tensor, request.offset, sum(map(_size, said.parts)) - SET_TENSOR_SIZE)
            case SetTensorHash() if answer and answer.result:
                # the size of the data is not said; what the tensor has from the offset on is the most it can be
                contents.write(request.tensor, request.offset, max(0, nbytes(request.tensor) - request.offset))
            case CopyTensor() if answer and answer.result:
                contents.copy(request.src, request.dst)
            case GraphCompute():
                contents.compute(request)
            case GraphRecompute():
                contents.recompute(request.device)
            case GetTensor():
                self._asked[said] = contents.read(request.tensor, request.offset, request.size)

    def _answer(self, said: Said) -> Any:
        """Return the reply to a request; None where there is none, or where it is data."""
        reply = self._replies.get(said)
        return reply.fields() if reply is not None and reply.cls is not GetTensorReply else None

    def _marks(self, side: _Side, items: Iterable[Item]) -> Iterator[tuple[int, Named]]:
        """Yield offset and name of every field that is a handle, an address or an id."""
        for item in items:
            values = item.value if isinstance(item.value, dict) else {child.name: child.value for child in item.children}
            if "view_src" in values:
                yield from self._tensor_marks(side, item.offset, values)
            elif item.children:
                yield from self._marks(side, item.children)
            elif item.name == "remote_ptr":
                yield from self._handle(side, item.offset, item.value)
            elif item.name == "nodes":
                yield from self._ids(item.offset, *item.value)

    def _tensor_marks(self, side: _Side, at: int, values: dict[str, Any]) -> Iterator[tuple[int, Named]]:
        """Yield the marks of a tensor record whose first byte is at `at`, in the order of its fields."""
        yield from self._ids(at + PLACES["id"], values["id"])
        yield from self._handle(side, at + PLACES["buffer"], values["buffer"])
        yield from self._ids(at + PLACES["src"], *values["src"])
        yield from self._ids(at + PLACES["view_src"], values["view_src"])
        buffer, address = side.buffers.get(values["buffer"]), values["data"]
        if buffer is not None and buffer.base is not None and address:
            yield at + PLACES["data"], Named(f"{buffer.name}.base", address - buffer.base)

    def _handle(self, side: _Side, at: int, handle: int) -> Iterator[tuple[int, Named]]:
        if handle in side.buffers:
            yield at, Named(f"{side.buffers[handle].name}.remote_ptr")

    def _ids(self, at: int, *ids: int) -> Iterator[tuple[int, Named]]:
        """Yield a name for each of some ids, one behind the other; 0 means none and stays what it is."""
        for index, id in enumerate(ids):
            if id:
                if id not in self._tensors:
                    self._tensors[id] = f"tensor{len(self._tensors)}"
                    self.bindings[self._tensors[id]] = Binding("client", id)
                yield at + 8 * index, Named(self._tensors[id])

    # ---------------------------------------------------------------------------------------------------------- replies

    def _reply(self, side: _Side, said: Said, request: Said) -> Iterator[Piece]:
        whole = bytes(_literal(said.parts[0]))
        head, payload = Exactly(whole[: codec.REPLY_HEAD.size]), whole[codec.REPLY_HEAD.size :]
        if said.cls is GetTensorReply:
            yield head
            yield from self._data(said, request, payload)
            return
        match said.fields():
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
        """Return the piece that receives a value of the server's, and binds the name the first time."""
        binding = self.bindings.setdefault(name, Binding("server", value))
        return Named(name, value - (binding.value or 0))

    def _data(self, said: Said, request: Said, payload: bytes) -> Iterator[Piece]:
        asked, stretches = request.fields(), self._asked[request]
        if len(said.parts) > 1 or isinstance(said.parts[0], LeftOut):
            yield from _cut_data(said.parts[1:])
            if any(stretch.known is not Known.EXACTLY for stretch in stretches):
                place = f"connection {said.connection}, offset {said.at} of the server's bytes"
                self.notes.append(f"{place}: data that a graph computed was left out, so a server must compute the same bits")
            return
        dtype = BY_NUMBER.get(asked.tensor.type)
        for stretch in stretches:
            yield self._stretch(stretch, payload[stretch.start : stretch.stop], dtype.name if dtype else "", asked.offset)

    def _stretch(self, stretch: Stretch, data: bytes, type: str, offset: int) -> Piece:
        if stretch.known is Known.NOTHING:
            return Anything(data)
        width = FLOATS.get(type, 0)
        if stretch.known is Known.COMPUTED and width and not ((offset + stretch.start) % width or len(data) % width):
            return Near(data, type, self._nmse)
        return Exactly(data)


PLACES: Final = {name: place[1] for name, place in (codec.layout(RpcTensor).fields or {}).items()}
"""Field of a tensor record to its offset."""
SET_TENSOR_SIZE: Final = codec.REQUEST_HEAD.size + codec.minimum_size(SetTensor)
"""Bytes of a SET_TENSOR before its data."""


def _device(said: Said) -> int:
    """Return the device that a request names; 0 where it names none."""
    return int(getattr(said.fields(), "device", 0)) if said.message else 0


def _size(part: memoryview | LeftOut) -> int:
    return part.size if isinstance(part, LeftOut) else len(part)


def _at_least(least: int, recorded: int, width: int = 8) -> AtLeast:
    return AtLeast(least, width, None if recorded == least else recorded)


def _literal(part: memoryview | LeftOut) -> memoryview:
    assert not isinstance(part, LeftOut)
    return part


def _cut(said: Said, marks: list[tuple[int, Named]]) -> Iterator[Piece]:
    """Yield a message's bytes with names at these offsets."""
    whole, done = _literal(said.parts[0]), 0
    for offset, name in marks:
        yield Exactly(bytes(whole[done:offset]))
        yield name
        done = offset + 8
    yield Exactly(bytes(whole[done:]))
    yield from _cut_data(said.parts[1:])


def _cut_data(parts: tuple[memoryview | LeftOut, ...]) -> Iterator[Piece]:
    for part in parts:
        if not isinstance(part, LeftOut):
            yield Exactly(bytes(part))
        elif part.fnv1a == OFFSET_BASIS * pow(PRIME, part.size, MODULUS) % MODULUS:  # the hash of so many zero bytes
            yield Repeated(b"\0", part.size)
        else:
            yield Omitted(part.size, part.fnv1a)


ZEROS: Final = re.compile(b"\0{256,}")
"""A stretch that is written as so many zeros: absent sources, 296 of them each, are most of what a GET_ALLOC_SIZE is."""


def joined(pieces: Iterable[Piece]) -> Iterator[Piece]:
    """Yield pieces with neighbouring literal bytes as one, but long stretches of zeros as such; at least one piece."""
    literal, count = bytearray(), 0
    for piece in (*pieces, None):
        if isinstance(piece, Exactly):
            literal += piece.data
            continue
        for part in (*_told(bytes(literal)), *([] if piece is None else [piece])):
            count += 1
            yield part
        literal.clear()
    if not count:
        yield Exactly(b"")


def _told(literal: bytes) -> Iterator[Piece]:
    """Yield bytes as pieces."""
    done = 0
    for zeros in ZEROS.finditer(literal):
        if zeros.start() > done:
            yield Exactly(literal[done : zeros.start()])
        yield Repeated(b"\0", len(zeros[0]))
        done = zeros.end()
    if done < len(literal):
        yield Exactly(literal[done:])
