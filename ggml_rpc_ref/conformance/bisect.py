"""Which node of a graph is the first that holds something else than its op computes: that one is at fault, not what uses it.

Each node is computed by the oracle from what its sources hold on the server now, so that a fault of one node does not accuse those
that follow it. A node whose sources were overwritten since, by itself or by a later node, can't be looked at and is passed over.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from ggml_rpc_ref.errors import Violation
from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.compare import compare_tensors
from ggml_rpc_ref.ops.op import Node, Op
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import RpcTensor
from ggml_rpc_ref.tensor import PlainStorage, Tensor

Read = Callable[[RpcTensor], bytes]
"""Reads all bytes of a tensor from the server."""


def first_wrong(nodes: Sequence[RpcTensor], tensors: Mapping[int, RpcTensor], table: Sequence[str], read: Read) -> str:
    """Return what the first wrong node is and holds, as the rest of a sentence; "" where none is found.

    Args:
        nodes: in the order in which they were computed.
        tensors: all tensors of the graph by id.
        table: the op table of the server's version.
        read: see `Read`.
    """
    for number, node in enumerate(nodes):
        op = OPS.get(table[node.op]) if node.op < len(table) else None
        sources = [tensors.get(id) for id in node.src]
        if op is None or op.view or any(_overlap(source, later) for source in sources if source for later in nodes[number:]):
            continue
        if said := _wrong(op, node, sources, read):
            return f"node {number + 1} of {len(nodes)}, {op.name} with ne {node.ne}{_params(op, node)}: {said}"
    return ""


def _wrong(op: Op, node: RpcTensor, sources: Sequence[RpcTensor | None], read: Read) -> str:
    expected, actual = _tensor(node, bytes(_nbytes(node))), _tensor(node, read(node))
    operands = tuple(None if source is None else _tensor(source, read(source)) for source in sources)
    made = Node(expected, operands, _op_params(node), op)
    try:
        op.oracle(made)
    except Violation:
        return ""  # it should have been refused: that is another fault than a wrong number
    mismatch = compare_tensors(expected, actual, op.tolerance)
    return "" if mismatch is None else str(mismatch)


def _tensor(wire: RpcTensor, data: bytes) -> Tensor:
    memory = np.frombuffer(bytearray(data), np.uint8)
    return Tensor(BY_NUMBER[wire.type], wire.ne, wire.nb, PlainStorage(memory))  # type: ignore[arg-type]


def _nbytes(wire: RpcTensor) -> int:
    return _tensor(wire, b"").nbytes


def _overlap(one: RpcTensor, other: RpcTensor) -> bool:
    apart = one.data + _nbytes(one) <= other.data or other.data + _nbytes(other) <= one.data
    return one.buffer == other.buffer and not apart


def _op_params(node: RpcTensor) -> bytes:
    return np.asarray(node.op_params, "<i4").tobytes()


def _params(op: Op, node: RpcTensor) -> str:
    values = [f"{param.name} {param.read(_op_params(node))}" for param in op.params]
    return f" and {', '.join(values)}" if values else ""
