"""Bytes to messages and back: functions over the table in `spec.messages`. Total, pure, no I/O.

Three readers of the same table. The field-by-field reader (`decode_by_field`, `encode`) is the definition. `decode` reads records
with one format of struct. `layout` derives a packed numpy dtype, and `Graph.decode` reads a GRAPH_COMPUTE with it, which is what a
server can afford on every token. Property tests hold them together.

A payload is what follows the size field. Framing: a request is command (u8), size (u64), payload; a reply is size (u64), payload.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain, islice
from typing import Any, TypeVar, assert_never

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.spec.messages import REQUESTS, Field, GraphCompute, RpcTensor, command_name, fields
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.spec.wire import Array, Chars, Counted, Int, Record, Tail, Wire

M = TypeVar("M")
Readable = bytes | bytearray | memoryview

REQUEST_HEAD = struct.Struct("<BQ")
"""Command and size of the payload."""
REPLY_HEAD = struct.Struct("<Q")
"""Size of the payload."""


# ------------------------------------------------------------------------------------------------------------- sizes


@cache
def minimum_size(cls: type, version: Version = DEFAULT) -> int:
    """Return the bytes of a record without what is counted or reaches to the end."""
    return sum(_minimum(field.wire, version) for field in fields(cls, version))


def _minimum(wire: Wire, version: Version) -> int:
    match wire:
        case Int():
            return wire.width
        case Chars():
            return wire.length
        case Record():
            return minimum_size(wire.cls, version)
        case Array():
            return wire.length * _minimum(wire.of, version)
        case Counted():
            return 4
        case Tail():
            return 0
        case _:
            assert_never(wire)


@cache
def is_fixed(cls: type, version: Version = DEFAULT) -> bool:
    """Whether every message of this class has the same size."""
    return not any(isinstance(field.wire, Counted | Tail) for field in fields(cls, version))


def check_size(cls: type, size: int, version: Version = DEFAULT) -> None:
    """Refuse a size field that no message of the class can have; needs no byte of the payload.

    Raises:
        Violation: frame.size-fixed or frame.size-minimum.
    """
    least = minimum_size(cls, version)
    if is_fixed(cls, version) and size != least:
        raise Violation("frame.size-fixed", f"{cls.__name__} size", size, f"this record has {least} bytes")
    if size < least:
        raise Violation("frame.size-minimum", f"{cls.__name__} size", size, f"its fixed part has {least} bytes")


# ------------------------------------------------------------------------------------------------------ field by field


def encode(message: object, version: Version = DEFAULT) -> bytes:
    """Return a message's payload.

    Raises:
        Misuse: for a value that does not fit its field.
    """
    cls: Any = type(message)
    return b"".join(_put(row.wire, getattr(message, row.name), row.name, version) for row in fields(cls, version))


def _put(wire: Wire, value: Any, name: str, version: Version) -> bytes:
    match wire:
        case Int():
            try:
                return int(value).to_bytes(wire.width, "little", signed=wire.signed)
            except OverflowError:
                raise Misuse(f"{name} = {value} does not fit into {wire.width} bytes") from None
        case Chars():
            if len(value) > wire.length:
                raise Misuse(f"{name} has {len(value)} bytes; {wire.length} is the most")
            return bytes(value).ljust(wire.length, b"\0")
        case Record():
            return encode(value, version)
        case Array():
            padded = [*value, *[_absent(wire.of)] * (wire.length - len(value))]
            if len(padded) != wire.length:
                raise Misuse(f"{name} has {len(value)} entries; {wire.length} is the most")
            return b"".join(_put(wire.of, entry, name, version) for entry in padded)
        case Counted():
            head = _put(Int(4), len(value), f"number of {name}", version)
            return head + b"".join(_put(wire.of, entry, name, version) for entry in value)
        case Tail():
            return bytes(value)
        case _:
            assert_never(wire)


def _absent(wire: Int | Record) -> object:
    """What stands in an array's slot that nobody filled: zero bytes."""
    return 0 if isinstance(wire, Int) else ABSENT_TENSOR


ABSENT_TENSOR = RpcTensor(ne=(0, 0, 0, 0))
"""A tensor record of 296 zero bytes: an absent source."""


def decode(cls: type[M], payload: Readable, version: Version = DEFAULT) -> M:
    """Return the message that a payload holds: what `decode_by_field` returns, several times as fast where nothing is counted.

    Raises:
        Violation: frame.size-fixed, frame.size-minimum or graph.size-exact, with the offset where the payload ends too early.
    """
    at_once = _unpacking(Record(cls), version)
    if at_once is None:
        return decode_by_field(cls, payload, version)
    check_size(cls, len(payload), version)
    form, take = at_once
    rest = bytes(payload[form.size :])
    message: M = take(chain(form.unpack_from(payload), (rest,)))
    return message


def decode_by_field(cls: type[M], payload: Readable, version: Version = DEFAULT) -> M:
    """Return the message that a payload holds, read field by field. The definition of the format.

    Raises:
        Violation: as `decode`.
    """
    check_size(cls, len(payload), version)
    message, end = _get_record(cls, memoryview(payload), 0, version)
    if end != len(payload):
        raise Violation("graph.size-exact", f"{cls.__name__} size", len(payload), f"the counts fill {end} bytes", end)
    return message


def _get_record(cls: type[M], view: memoryview, at: int, version: Version) -> tuple[M, int]:
    values: dict[str, Any] = {}
    rows: Any = cls
    for row in fields(rows, version):
        values[row.name], at = _get(row.wire, row.name, view, at, version)
    return cls(**values), at


def _get(wire: Wire, name: str, view: memoryview, at: int, version: Version) -> tuple[Any, int]:
    match wire:
        case Int():
            end = _end(name, view, at, wire.width)
            return int.from_bytes(view[at:end], "little", signed=wire.signed), end
        case Chars():
            end = _end(name, view, at, wire.length)
            return bytes(view[at:end]), end
        case Record():
            return _get_record(wire.cls, view, at, version)
        case Array():
            return _get_many(wire.of, wire.length, name, view, at, version)
        case Counted():
            count, at = _get(Int(4), f"number of {name}", view, at, version)
            # the count is believed only as far as bytes are there: a claimed number must not make us allocate
            _end(f"number of {name}", view, at, count * _minimum(wire.of, version))
            return _get_many(wire.of, count, name, view, at, version)
        case Tail():
            return bytes(view[at:]), len(view)
        case _:
            assert_never(wire)


def _get_many(of: Wire, count: int, name: str, view: memoryview, at: int, version: Version) -> tuple[tuple[Any, ...], int]:
    entries = []
    for index in range(count):
        entry, at = _get(of, f"{name}[{index}]", view, at, version)
        entries.append(entry)
    return tuple(entries), at


def _end(name: str, view: memoryview, at: int, size: int) -> int:
    if at + size > len(view):
        raise Violation("graph.size-exact", name, f"{size} bytes wanted, {len(view) - at} there", "message too short", at)
    return at + size


# ------------------------------------------------------------------------------------------------------ records at once

Take = Callable[[Iterator[Any]], Any]
"""Takes a field's value off the values that struct has unpacked."""


@cache
def _unpacking(record: Record, version: Version) -> tuple[struct.Struct, Take] | None:
    """Return how struct reads a record, and what makes it of the values and the bytes behind them; None where parts are counted."""
    if any(isinstance(row.wire, Counted) for row in fields(record.cls, version)):
        return None
    form, take = _unpacked(record, version)
    return struct.Struct(f"<{form}"), take


def _unpacked(wire: Wire, version: Version) -> tuple[str, Take]:
    match wire:
        case Int():
            letter = {1: "b", 4: "i", 8: "q"}[wire.width]
            return letter if wire.signed else letter.upper(), next
        case Chars():
            return f"{wire.length}s", next
        case Array(Int() as of, length):
            return _unpacked(of, version)[0] * length, lambda values: tuple(islice(values, length))
        case Array(of, length):
            form, take = _unpacked(of, version)
            return form * length, lambda values: tuple(take(values) for _ in range(length))
        case Record(cls):
            rows = [(row.name, *_unpacked(row.wire, version)) for row in fields(cls, version)]
            return "".join(form for _, form, _ in rows), lambda values: cls(**{name: take(values) for name, _, take in rows})
        case Tail():
            return "", next
        case Counted():
            raise Misuse("a record that counts its parts is read field by field")
        case _:
            assert_never(wire)


# ------------------------------------------------------------------------------------------------------------ framing


def encode_request(message: object, version: Version = DEFAULT) -> bytes:
    """Return a request as it goes over the wire: command, size, payload."""
    payload = encode(message, version)
    return request_head(type(message), len(payload), version) + payload


def request_head(cls: type, size: int, version: Version = DEFAULT) -> bytes:
    """Return the nine bytes before a request's payload.

    Raises:
        Misuse: where the version has no such request.
    """
    row = REQUESTS.get(cls)
    if row is None or row.since > version:
        raise Misuse(f"{command_name(cls)} is no request of protocol {version}")
    return REQUEST_HEAD.pack(row.number, size)


def encode_reply(message: object, version: Version = DEFAULT) -> bytes:
    """Return a reply as it goes over the wire: size, payload."""
    payload = encode(message, version)
    return REPLY_HEAD.pack(len(payload)) + payload


# ------------------------------------------------------------------------------------------------- whole arrays at once


@cache
def layout(cls: type, version: Version = DEFAULT) -> np.dtype[Any]:
    """Return the packed numpy dtype of a record of fixed size, derived from the same rows as `decode`.

    Raises:
        Misuse: for a record of variable size.
    """
    return np.dtype([(field.name, *_numpy(field.wire, version)) for field in fields(cls, version)])


def _numpy(wire: Wire, version: Version) -> tuple[Any, tuple[int, ...]]:
    match wire:
        case Int():
            return f"<{'i' if wire.signed else 'u'}{wire.width}", ()
        case Chars():
            return f"V{wire.length}", ()
        case Record():
            return layout(wire.cls, version), ()
        case Array():
            return _numpy(wire.of, version)[0], (wire.length,)
        case Counted() | Tail():
            raise Misuse("a record of variable size has no numpy dtype")
        case _:
            assert_never(wire)


@dataclass(frozen=True, slots=True)
class Graph:
    """A GRAPH_COMPUTE as arrays: what `decode(GraphCompute, …)` says, a thousand times faster.

    Attributes:
        device: device index; 0 in versions without the field.
        nodes: u64 of shape (n_nodes,), ids in the order of execution.
        tensors: records of `layout(RpcTensor, version)`, shape (n_tensors,).
        uid: the client's number for the graph, from 8.0.0 on.
    """

    device: int
    nodes: npt.NDArray[np.uint64]
    tensors: npt.NDArray[Any]
    uid: int = 0

    @classmethod
    def decode(cls, payload: Readable, version: Version = DEFAULT) -> Graph:
        """Read a payload whose counts fill it exactly; the arrays are views of it.

        Raises:
            Violation: frame.size-minimum, graph.size-exact.
        """
        check_size(GraphCompute, len(payload), version)
        if graph_size(payload, len(payload), version) is None:
            raise Violation("graph.size-exact", "GraphCompute size", len(payload), "it ends before its counts do")
        numbers, at = {}, 0
        for row in _graph_numbers(version):
            numbers[row.name], at = _get(row.wire, row.name, memoryview(payload), at, version)
        n_nodes, at = _get(Int(4), "number of nodes", memoryview(payload), at, version)
        nodes = np.frombuffer(memoryview(payload)[at : at + 8 * n_nodes], "<u8")
        tensors = np.frombuffer(memoryview(payload)[at + 8 * n_nodes + 4 :], layout(RpcTensor, version))
        return cls(numbers.get("device", 0), nodes, tensors, numbers.get("uid", 0))

    def encode(self, version: Version = DEFAULT) -> bytes:
        """Return the payload.

        Raises:
            Misuse: where the tensors have another version's layout, or a number does not fit.
        """
        if self.tensors.dtype != layout(RpcTensor, version):
            raise Misuse(f"the graph's tensors are not records of protocol {version}")
        numbers = b"".join(_put(row.wire, getattr(self, row.name), row.name, version) for row in _graph_numbers(version))
        nodes = _put(Int(4), len(self.nodes), "number of nodes", version) + self.nodes.astype("<u8").tobytes()
        return numbers + nodes + _put(Int(4), len(self.tensors), "number of tensors", version) + self.tensors.tobytes()

    def message(self, version: Version = DEFAULT) -> GraphCompute:
        """Return the same as the definition has it."""
        return decode(GraphCompute, self.encode(version), version)


@cache
def graph_nodes_offset(version: Version = DEFAULT) -> int:
    """Return where the node ids of a GRAPH_COMPUTE begin: just after their count."""
    return sum(_minimum(row.wire, version) for row in _graph_numbers(version)) + 4


def _graph_numbers(version: Version) -> tuple[Field, ...]:
    """The plain numbers before the count of nodes."""
    return tuple(row for row in fields(GraphCompute, version) if isinstance(row.wire, Int))


def graph_size(start: Readable, size: int, version: Version = DEFAULT) -> int | None:
    """Compare the counts of a GRAPH_COMPUTE with its size field, as far as its first bytes have arrived.

    Args:
        start: the first bytes of the payload, any number of them.
        size: the size field.

    Returns:
        The size, once both counts have arrived and fill it exactly; None while one of them is still to come.

    Raises:
        Violation: graph.size-exact, as soon as a count says that it can't be right.
    """
    first = graph_nodes_offset(version)
    if len(start) < first:
        return None
    n_nodes = int.from_bytes(start[first - 4 : first], "little")
    second = first + 8 * n_nodes
    if second + 4 > size:
        raise Violation("graph.size-exact", "number of nodes", n_nodes, f"the message has {size} bytes", first - 4)
    if len(start) < second + 4:
        return None
    n_tensors = int.from_bytes(start[second : second + 4], "little")
    need = second + 4 + minimum_size(RpcTensor, version) * n_tensors
    if need != size:
        raise Violation(
            "graph.size-exact", "number of tensors", n_tensors, f"message of {size} bytes; the counts fill {need}", second
        )
    return need
