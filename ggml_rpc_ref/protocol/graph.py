"""GRAPH_COMPUTE as arrays: its messages have thousands of tensors, and a server reads one on every token.

Field by field, the graph of Gemma 3 270M (1,009 tensors) takes 43 ms to read; as arrays, 7 µs (bench/bench_codec.py). The
arrays are views of the payload, by the numpy dtype that `codec.layout` derives from the same table.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from ggml_rpc_ref.errors import Misuse, Violation
from ggml_rpc_ref.protocol import codec
from ggml_rpc_ref.spec.messages import Field, GraphCompute, Message, RpcTensor, absent_fields, fields
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.spec.wire import U32, U64, Int


@dataclass(frozen=True, slots=True)
class Graph:
    """A GRAPH_COMPUTE as arrays: the same message as `codec.decode(GraphCompute, …)` returns.

    Attributes:
        device: device index; 0 in versions without the field.
        nodes: u64 of shape (n_nodes,), ids in the order of execution.
        tensors: records of `codec.layout(RpcTensor, version)`, shape (n_tensors,).
        uid: the client's number for the graph; 0 in versions without the field.
    """

    device: int
    nodes: npt.NDArray[np.uint64]
    tensors: npt.NDArray[Any]
    uid: int = 0

    @classmethod
    def decode(cls, payload: codec.Readable, version: Version = DEFAULT) -> Graph:
        """Read a payload whose counts fill it exactly; the arrays are views of it.

        Raises:
            Violation: frame.size-minimum, graph.size-exact.
        """
        # of a whole payload graph_size sees both counts, or refuses the first as too large: nothing below runs past the end
        codec.check_size(GraphCompute, len(payload), version)
        graph_size(payload, len(payload), version)
        form, names = _beginning(version)
        *numbers, n_nodes = form.unpack_from(payload)
        tensors = form.size + U64.width * n_nodes + U32.width
        return cls(
            nodes=np.frombuffer(payload, "<u8", n_nodes, form.size),
            tensors=np.frombuffer(payload, codec.layout(RpcTensor, version), offset=tensors),
            **{"device": 0, **dict(zip(names, numbers, strict=True))},
        )

    def encode(self, version: Version = DEFAULT) -> bytes:
        """Return the payload.

        Raises:
            Misuse: where the tensors have another version's layout, a number does not fit, or the version has no such field.
        """
        if self.tensors.dtype != codec.layout(RpcTensor, version):
            raise Misuse(f"the graph's tensors are not records of protocol {version}")
        for row in absent_fields(GraphCompute, version):
            if getattr(self, row.name) != row.default:
                raise Misuse(f"GraphCompute.{row.name} is set, but protocol {version} has no such field")
        parts = [codec.put(row.wire, getattr(self, row.name), row.name, version) for row in _numbers(version)]
        parts += [codec.put(U32, len(self.nodes), "number of nodes", version), self.nodes.astype("<u8").tobytes()]
        parts += [codec.put(U32, len(self.tensors), "number of tensors", version), self.tensors.tobytes()]
        return b"".join(parts)

    def message(self, version: Version = DEFAULT) -> GraphCompute:
        """Return the same message as an object of the table's class."""
        return codec.decode(GraphCompute, self.encode(version), version)


def decode_request(cls: type, payload: codec.Readable, version: Version = DEFAULT) -> Message:
    """Return a request as a server wants it: a GRAPH_COMPUTE as a `Graph`, any other as an object of its class.

    Raises:
        Violation: as `codec.decode`.
    """
    message: Message = Graph.decode(payload, version) if cls is GraphCompute else codec.decode(cls, payload, version)
    return message


def request_class(message: Message) -> type:
    """Return a request's class in the table; of a `Graph`, GraphCompute."""
    return GraphCompute if isinstance(message, Graph) else type(message)


def graph_nodes_offset(version: Version = DEFAULT) -> int:
    """Return where the node ids of a GRAPH_COMPUTE begin: just after their count."""
    return _beginning(version)[0].size


@cache
def _beginning(version: Version) -> tuple[struct.Struct, tuple[str, ...]]:
    """Return the format of what comes before the node ids, the last number their count, and the names of the others."""
    rows = _numbers(version)
    return codec.struct_of([*(row.wire for row in rows), U32], version), tuple(row.name for row in rows)


@cache
def _numbers(version: Version) -> tuple[Field, ...]:
    """The plain numbers before the count of nodes."""
    return tuple(row for row in fields(GraphCompute, version) if isinstance(row.wire, Int))


def graph_size(start: codec.Readable, size: int, version: Version = DEFAULT) -> int | None:
    """Compare the counts of a GRAPH_COMPUTE with its size field, as far as its first bytes have arrived.

    The genuine server accepts bytes behind the last tensor (its test is `<`); a size that the counts do not fill exactly means that
    one of the three numbers is wrong, so it is refused here.

    Args:
        start: the first bytes of the payload, any number of them.
        size: the size field.
        version: the layouts.

    Returns:
        The size, once both counts have arrived and fill it exactly; None while one of them is still to come.

    Raises:
        Violation: graph.size-exact, as soon as a count has come that can't be right.
    """
    first = graph_nodes_offset(version)
    if len(start) < first:
        return None
    # Python's integers don't wrap: in 32 bits 8 * 2**29 nodes would take no room (case graph.size-exact/nodes-2-29)
    n_nodes = int.from_bytes(start[first - U32.width : first], "little")
    second = first + U64.width * n_nodes
    if second + U32.width > size:
        raise Violation("graph.size-exact", "number of nodes", n_nodes, f"the message has {size} bytes", first - U32.width)
    if len(start) < second + U32.width:
        return None
    n_tensors = int.from_bytes(start[second : second + U32.width], "little")
    need = second + U32.width + codec.minimum_size(RpcTensor, version) * n_tensors
    if need != size:
        detail = f"message of {size} bytes; the counts fill {need}"
        raise Violation("graph.size-exact", "number of tensors", n_tensors, detail, second)
    return need
