"""Which fields of a message a mutation has changed: what matters in a find, for its readers and for making it smaller."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.fuzz.packet import Packet
from ggml_rpc_ref.fuzz.plan import HEAD
from ggml_rpc_ref.fuzz.session import Step
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.protocol.graph import Graph, decode_request, graph_nodes_offset, request_class
from ggml_rpc_ref.spec.messages import GraphCompute, Message, RpcTensor, fields
from ggml_rpc_ref.spec.versions import Version
from ggml_rpc_ref.spec.wire import U32, U64, Array, Counted, Int, Record, Tail


@dataclass(frozen=True, slots=True)
class Mark:
    """A field that has changed.

    Attributes:
        start, stop: its bytes in the message.
        field: its name, e.g. "tensors[2].ne[1]".
        before: the bytes that a good client would send there.
    """

    start: int
    stop: int
    field: str
    before: bytes


def marks(step: Step, version: Version) -> list[Mark]:
    """Return the fields in which a step differs from what it was; none where it is new as a whole, or of another length."""
    if step.origin is None:
        return []
    old, new = Packet.of(step.origin, version), step.packet(version)
    if len(old.template) != len(new.template):
        return []
    was, now = old.template, new.template
    return [Mark(a, b, name, was[a:b]) for a, b, name in places(step.origin, len(now), version) if was[a:b] != now[a:b]]


def restored(step: Step, version: Version) -> Iterator[Step]:
    """Yield the step with one of several changed fields as it was, for each of them; nothing of a step that is bare bytes."""
    found = marks(step, version)
    if len(found) < 2 or isinstance(step.message, Packet):
        return
    data = step.packet(version).template
    for mark in found:
        payload = data[HEAD : mark.start] + mark.before + data[mark.stop :]
        with contextlib.suppress(Violation):  # a count that does not fit what is counted
            yield replace(step, message=decode_request(request_class(step.message), payload, version))


def places(message: Message, size: int, version: Version) -> Iterator[tuple[int, int, str]]:
    """Yield (start, stop, name) of every field of a message as it goes over the wire, elements of arrays one by one.

    Args:
        message: a request; a GRAPH_COMPUTE may be a `Graph`.
        size: bytes of all of it, its head included.
        version: the protocol version.
    """
    yield 0, 1, "command"
    yield 1, HEAD, "size"
    if isinstance(message, Graph):
        yield from _of_graph(message, version)
    else:
        yield from _of(type(message), HEAD, size, "", version)


def _of(cls: type, at: int, end: int, prefix: str, version: Version) -> Iterator[tuple[int, int, str]]:
    for row in fields(cls, version):
        name = f"{prefix}{row.name}"
        match row.wire:
            case Record(of):
                yield from _of(of, at, end, f"{name}.", version)
            case Array(Int() as of, length):
                yield from ((at + i * of.width, at + (i + 1) * of.width, f"{name}[{i}]") for i in range(length))
            case Array(Record(of), length):
                width = codec.minimum_size(of, version)
                for index in range(length):
                    yield from _of(of, at + index * width, end, f"{name}[{index}].", version)
            case Tail() | Counted():
                yield at, end, name
                return
            case _:
                yield at, at + codec.wire_size(row.wire, version), name
        at += codec.wire_size(row.wire, version)


def _of_graph(graph: Graph, version: Version) -> Iterator[tuple[int, int, str]]:
    at = HEAD
    for row in fields(GraphCompute, version):
        if not isinstance(row.wire, Int):
            break
        yield at, at + row.wire.width, row.name
        at += row.wire.width
    first = HEAD + graph_nodes_offset(version)
    yield first - U32.width, first, "number of nodes"
    at = first
    for index in range(len(graph.nodes)):
        yield at, at + U64.width, f"nodes[{index}]"
        at += U64.width
    yield at, at + U32.width, "number of tensors"
    at += U32.width
    width = codec.minimum_size(RpcTensor, version)
    for index in range(len(graph.tensors)):
        yield from _of(RpcTensor, at + index * width, at + (index + 1) * width, f"tensors[{index}].", version)


def told(mark: Mark, step: Step, version: Version) -> str:
    """Return a changed field in words, numbers as numbers."""
    now = step.packet(version).template[mark.start : mark.stop]
    if mark.stop - mark.start > U64.width:
        return f"{mark.field} at byte {mark.start}: {_hex(mark.before)} -> {_hex(now)}"
    old, new = (int.from_bytes(data, "little") for data in (mark.before, now))
    return f"{mark.field} at byte {mark.start}: {_number(old)} -> {_number(new)}"


def _hex(data: bytes) -> str:
    return f"{data[:16].hex()}{'…' if len(data) > 16 else ''}"


def _number(number: Any) -> str:
    return str(number) if number < 2**20 else hex(number)
