"""Requests whose addresses are not known yet: the bytes of a message, and where in them a server's own numbers belong.

A server chooses handles and addresses when it allocates. Until then a session uses made-up ones: numbers from ranges that no
server hands out, one range for each buffer's handle and one for its addresses, so that mutations calculate with them as with any
other number. `Packet.of` finds them in a message's handle fields, `Packet.rendered` puts the server's numbers in their place.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any, Final

import numpy as np

from ggml_rpc_ref.files.conversation import Exactly, Named, Piece
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph, graph_nodes_offset, request_class
from ggml_rpc_ref.spec.messages import GraphCompute, Message, RpcTensor, fields
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.spec.wire import U64, Array, Chars, Int, Record, Tail, Wire

HEAD: Final = codec.REQUEST_HEAD.size
MASK: Final = 2**64 - 1
MARK: Final = 0xF5
"""The highest byte of every made-up number: user-space addresses of no system begin so."""
WINDOW_BITS: Final = 40
MIDDLE: Final = 2 ** (WINDOW_BITS - 1)
"""A made-up number may be moved this far in both directions and still means the same buffer."""
HANDLE, ADDRESS = 0, 1
HANDLE_FIELDS: Final = frozenset({"buffer", "data", "remote_ptr"})
"""Names of the u64 fields that hold a server's numbers."""

Numbers = Mapping[int, tuple[int, int]]
"""Buffer number to the server's (remote_ptr, base_ptr)."""


def handle(buffer: int) -> int:
    """Return the made-up remote_ptr of a buffer."""
    return MARK << 56 | HANDLE << 52 | buffer << WINDOW_BITS | MIDDLE


def address(buffer: int, offset: int = 0) -> int:
    """Return the made-up address of a byte of a buffer."""
    return (MARK << 56 | ADDRESS << 52 | buffer << WINDOW_BITS | MIDDLE) + offset


@dataclass(frozen=True, slots=True)
class Place:
    """Eight bytes of a packet that hold a server's number plus `delta`.

    Attributes:
        at: offset in the packet.
        kind: HANDLE or ADDRESS.
        buffer: the buffer's number.
        delta: what is added, modulo 2^64.
    """

    at: int
    kind: int
    buffer: int
    delta: int


def meaning(value: int) -> tuple[int, int, int] | None:
    """Return (kind, buffer, delta) of a made-up number; None for any other."""
    if value >> 56 != MARK or value >> 52 & 0xF > ADDRESS:
        return None
    return value >> 52 & 0xF, value >> WINDOW_BITS & 0xFFF, (value & 2**WINDOW_BITS - 1) - MIDDLE


@dataclass(frozen=True, slots=True)
class Packet:
    """The bytes of a request, or of anything else that is sent.

    Attributes:
        template: the bytes, with made-up numbers or any others at the places.
        places: where the server's numbers belong.
    """

    template: bytes
    places: tuple[Place, ...] = ()

    @classmethod
    def of(cls, message: Message, version: Version = DEFAULT) -> Packet:
        """Encode a request (a GRAPH_COMPUTE may be a `Graph`) as it goes over the wire.

        Raises:
            Misuse: for a value that does not fit its field.
        """
        if isinstance(message, Graph):
            payload = message.encode(version)
            spots = _graph_spots(len(message.nodes), len(message.tensors), version)
        else:
            payload, spots = encoded(message, version), _spots(type(message), version)
        data = codec.request_head(request_class(message), len(payload), version) + payload
        return cls(data, found_places(data, spots))

    def rendered(self, numbers: Numbers) -> bytes:
        """Return what is sent to a server that has chosen these numbers; those of unknown buffers stay made up."""
        if not self.places:
            return self.template
        data = bytearray(self.template)
        for place in self.places:
            known = numbers.get(place.buffer)
            if known is not None:
                struct.pack_into("<Q", data, place.at, known[place.kind] + place.delta & MASK)
        return bytes(data)

    def pieces(self) -> list[Piece]:
        """Return it as the pieces of a conversation that is written down."""
        pieces: list[Piece] = []
        end = 0
        for place in sorted(self.places, key=lambda place: place.at):
            if place.at > end:
                pieces.append(Exactly(self.template[end : place.at]))
            pieces.append(Named(name(place.buffer, place.kind), place.delta))
            end = place.at + U64.width
        return [*pieces, Exactly(self.template[end:])] if end < len(self.template) else pieces

    def cut(self, start: int, stop: int) -> Packet:
        """Return a part of it; a number that is cut through keeps its made-up bytes."""
        kept = [p for p in self.places if start <= p.at and p.at + U64.width <= stop]
        return Packet(self.template[start:stop], tuple(Place(p.at - start, p.kind, p.buffer, p.delta) for p in kept))

    def with_bytes(self, at: int, data: bytes) -> Packet:
        """Return it with other bytes from an offset on; numbers that they touch are no longer the server's."""
        kept = tuple(p for p in self.places if p.at + U64.width <= at or p.at >= at + len(data))
        return Packet(self.template[:at] + data + self.template[at + len(data) :], kept)


def encoded(message: Message, version: Version = DEFAULT) -> bytes:
    """Return a message's payload: what `codec.encode` returns, in a fraction of the time where it holds tensors.

    Raises:
        Misuse: as `codec.encode`.
    """
    form, rows = _form(type(message), version)
    if form is None:
        return b"".join(_written(row.wire, getattr(message, row.name), row.name, version) for row in fields(type(message), version))
    values: list[Any] = []
    _flatten(message, rows, values)
    tail = getattr(message, rows[-1][0]) if rows and rows[-1][1] is Tail else b""
    try:
        return form.pack(*values) + tail
    except struct.error:
        return codec.encode(message, version)  # a short array, or a value that does not fit, of which the codec says which


_Row = tuple[str, Any, tuple[Any, ...]]
"""Name of a field; None for one value, Array for several, Tail for the data, Record for a record, and that one's rows."""


def _flatten(message: Any, rows: tuple[_Row, ...], values: list[Any]) -> None:
    """Add the values of a record's fields to a list, one for each letter of its struct."""
    for name, kind, inner in rows:
        value = getattr(message, name)
        if kind is None:
            values.append(value)
        elif kind is Array:
            values += value
        elif kind is Record:
            _flatten(value, inner, values)


@cache
def _form(cls: type, version: Version) -> tuple[struct.Struct | None, tuple[_Row, ...]]:
    """Return the struct of a message's fixed part, None where it has counts or records in arrays, and its fields."""
    letters, rows = "<", list[_Row]()
    for row in fields(cls, version):
        match row.wire:
            case Int():
                letters += _letter(row.wire)
                rows.append((row.name, None, ()))
            case Array(Int() as of, length):
                letters += f"{length}{_letter(of)}"
                rows.append((row.name, Array, ()))
            case Chars(length):
                letters += f"{length}s"
                rows.append((row.name, None, ()))
            case Record(of):
                form, inner = _form(of, version)
                if form is None:
                    return None, ()
                letters += form.format[1:]
                rows.append((row.name, Record, inner))
            case Tail():
                rows.append((row.name, Tail, ()))
            case _:
                return None, ()
    return struct.Struct(letters), tuple(rows)


def _written(wire: Wire, value: Any, name: str, version: Version) -> bytes:
    match wire:
        case Record(of) if of is RpcTensor:
            return encoded(value, version)
        case Array(Record(of)) if of is RpcTensor:
            return b"".join([encoded(entry, version) for entry in value]).ljust(codec.wire_size(wire, version), b"\0")
        case Tail():
            return bytes(value)
    return codec.put(wire, value, name, version)


def _letter(wire: Int) -> str:
    letter = {1: "b", 4: "i", 8: "q"}[wire.width]
    return letter if wire.signed else letter.upper()


def joined(packets: Sequence[Packet]) -> Packet:
    """Return packets glued together."""
    places, at = [], 0
    for packet in packets:
        places += [Place(p.at + at, p.kind, p.buffer, p.delta) for p in packet.places]
        at += len(packet.template)
    return Packet(b"".join(packet.template for packet in packets), tuple(places))


def name(buffer: int, kind: int) -> str:
    """Return the name of a buffer's number in a conversation that is written down."""
    return f"buf{buffer}.{'base' if kind == ADDRESS else 'remote_ptr'}"


def found_places(data: bytes, offsets: Sequence[int]) -> tuple[Place, ...]:
    """Return the places among these offsets that hold made-up numbers."""
    # by the highest byte first: most offsets of a long graph hold none, or are cut off
    high, size = U64.width - 1, len(data)
    marked = [at for at in offsets if at + high < size and data[at + high] == MARK]
    places = []
    for at in marked:
        found = meaning(int.from_bytes(data[at : at + U64.width], "little"))
        if found is not None:
            places.append(Place(at, *found))
    return tuple(places)


@cache
def _spots(cls: type, version: Version) -> tuple[int, ...]:
    """Return the offsets of the handle fields in a request's bytes, head included."""
    return tuple(codec.REQUEST_HEAD.size + at for at in handle_offsets(cls, version))


@cache
def handle_offsets(cls: type, version: Version = DEFAULT) -> tuple[int, ...]:
    """Return the offsets of the handle fields in the fixed part of a message."""
    offsets: list[int] = []
    at = 0
    for row in fields(cls, version):
        match row.wire:
            case Int(8) if row.name in HANDLE_FIELDS:
                offsets.append(at)
            case Record(of):
                offsets += [at + inner for inner in handle_offsets(of, version)]
            case Array(Record(of), length):
                size = codec.minimum_size(of, version)
                offsets += [at + index * size + inner for index in range(length) for inner in handle_offsets(of, version)]
        at += codec.wire_size(row.wire, version)
    return tuple(offsets)


def spots_of(cls: type, data: bytes, version: Version = DEFAULT) -> Sequence[int]:
    """Return the offsets of the handle fields in the bytes of a whole, well-framed request."""
    if cls is not GraphCompute:
        return _spots(cls, version)
    first = HEAD + graph_nodes_offset(version)
    n_nodes = int.from_bytes(data[first - 4 : first], "little")
    second = first + 8 * n_nodes
    n_tensors = int.from_bytes(data[second : second + 4], "little")
    if second + 4 + n_tensors * codec.minimum_size(RpcTensor, version) > len(data):
        return []  # the counts lie
    return _graph_spots(n_nodes, n_tensors, version)


@lru_cache(maxsize=4096)
def _graph_spots(n_nodes: int, n_tensors: int, version: Version) -> tuple[int, ...]:
    """Return the offsets of the handle fields in the bytes of a graph's request."""
    first = codec.REQUEST_HEAD.size + graph_nodes_offset(version) + 8 * n_nodes + 4
    record = codec.minimum_size(RpcTensor, version)
    inner = np.array(handle_offsets(RpcTensor, version))
    return tuple((first + record * np.arange(n_tensors)[:, None] + inner).ravel().tolist())
