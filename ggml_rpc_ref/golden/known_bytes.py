"""Which bytes of a server's buffers are determined by the conversation: written by the client, computed, or unknown.

Requests are applied in order. Addresses are those of the conversation, so of a buffer only its handle matters. In doubt less is
claimed: what a graph computes from unknown bytes is unknown too.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Mapping
from enum import IntEnum
from itertools import product
from math import prod
from typing import Final, NamedTuple

from ggml_rpc_ref.ops import OPS
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.spec.dtypes import BY_NUMBER
from ggml_rpc_ref.spec.messages import FLAG_COMPUTE, GraphCompute, RpcTensor
from ggml_rpc_ref.spec.opcodes import op_table
from ggml_rpc_ref.spec.rules import RULES
from ggml_rpc_ref.spec.versions import DEFAULT, Version
from ggml_rpc_ref.tensor import Quad, extent

MOST_SPANS: Final = 2**10
"""The most stretches of a tensor that are tracked apart; one with more is tracked as a whole, gaps included."""
MOST_STRETCHES: Final = 2**16
"""The most stretches of a buffer that are tracked; no ordinary graph makes more, and beyond that everything counts as unknown."""
END: Final = 2**65
"""An address above all others."""
CONTENTS_READ: Final = {"CPY": 1, "SET_ROWS": 2}
"""How many sources an op reads, for ops whose last source is only the destination."""


class Known(IntEnum):
    """How much is known of bytes, from least to most."""

    NOTHING = 0
    """They were never written."""
    COMPUTED = 1
    """A graph computed them, and another server may round differently."""
    EXACTLY = 2
    """The client wrote them, or an op that does not round made them from such bytes."""


class Stretch(NamedTuple):
    """Bytes from `start` to `stop`, not included, that are equally known."""

    start: int
    stop: int
    known: Known


class Ranges:
    """How much is known of the bytes at each address."""

    def __init__(self) -> None:
        self._starts, self._known = [0], [Known.NOTHING]

    def put(self, start: int, stop: int, known: Known) -> None:
        """Set how much is known of the bytes from start to stop."""
        if start >= stop:
            return
        behind = self._known[bisect_right(self._starts, stop) - 1]
        first, last = bisect_left(self._starts, start), bisect_right(self._starts, stop)
        self._starts[first:last] = [start, stop]
        self._known[first:last] = [known, behind]
        if len(self._starts) > MOST_STRETCHES:
            self._starts, self._known = [0], [Known.NOTHING]

    def get(self, start: int, stop: int) -> Iterator[Stretch]:
        """Yield the stretches that make up the bytes from start to stop."""
        index = bisect_right(self._starts, start) - 1
        while start < stop:
            known = self._known[index]
            while index + 1 < len(self._starts) and self._known[index + 1] == known:
                index += 1
            end = min(stop, self._starts[index + 1] if index + 1 < len(self._starts) else stop)
            yield Stretch(start, end, known)
            start, index = end, index + 1

    def least(self, start: int, stop: int) -> Known:
        """Return how much is known of the least known of these bytes."""
        return min((stretch.known for stretch in self.get(start, stop)), default=Known.EXACTLY)


class KnownBytes:
    """How much is known of the bytes in one connection's buffers.

    Args:
        version: the conversation's, which says how ops are numbered.
    """

    def __init__(self, version: Version = DEFAULT) -> None:
        self._version = version
        self._all = not RULES["graph.flag-compute"].present(version)
        self._buffers: dict[int, Ranges] = {}
        self._graphs: dict[tuple[int, int], GraphCompute] = {}

    def allocate(self, remote_ptr: int) -> None:
        """Record a new buffer; a handle that is given out again is a new buffer."""
        self._buffers[remote_ptr] = Ranges()

    def clear(self, remote_ptr: int) -> None:
        """Record BUFFER_CLEAR."""
        if remote_ptr in self._buffers:
            self._buffers[remote_ptr].put(0, END, Known.EXACTLY)

    def write(self, tensor: RpcTensor, offset: int, size: int) -> None:
        """Record data that the client wrote."""
        if tensor.buffer in self._buffers:
            start = tensor.data + offset
            self._buffers[tensor.buffer].put(start, start + size, Known.EXACTLY)

    def copy(self, src: RpcTensor, dst: RpcTensor) -> None:
        """Record COPY_TENSOR: the destination is known as well as the source."""
        if dst.buffer in self._buffers:
            for start, stop, known in self._read(src.buffer, src.data, nbytes(src)):
                self._buffers[dst.buffer].put(start - src.data + dst.data, stop - src.data + dst.data, known)

    def read(self, tensor: RpcTensor, offset: int, size: int) -> list[Stretch]:
        """Return how much is known of a tensor's bytes; starts and stops count from `offset`."""
        start = tensor.data + offset
        return [Stretch(a - start, b - start, known) for a, b, known in self._read(tensor.buffer, start, size)]

    def _read(self, remote_ptr: int, start: int, size: int) -> list[Stretch]:
        ranges = self._buffers.get(remote_ptr)
        return [Stretch(start, start + size, Known.NOTHING)] if ranges is None else list(ranges.get(start, start + size))

    # ----------------------------------------------------------------------------------------------------------- graphs

    def compute(self, graph: GraphCompute) -> None:
        """Record GRAPH_COMPUTE, and keep the graph for GRAPH_RECOMPUTE."""
        self._graphs[graph.device, graph.uid] = graph
        self.recompute(graph.device, graph.uid)

    def recompute(self, device: int, uid: int = 0) -> None:
        """Record GRAPH_RECOMPUTE; before uids were sent every uid is 0, and a device keeps the last graph."""
        if graph := self._graphs.get((device, uid)):
            tensors = {tensor.id: tensor for tensor in graph.tensors}
            for id in graph.nodes:
                if id in tensors:
                    self._compute(tensors[id], tensors)

    def _compute(self, node: RpcTensor, tensors: Mapping[int, RpcTensor]) -> None:
        names = op_table(self._version)
        op = OPS.get(names[node.op]) if node.op < len(names) else None
        ranges = self._buffers.get(node.buffer)
        if op is None or op.view or ranges is None or not (node.flags & FLAG_COMPUTE or self._all):
            return
        sources = [tensors[id] for id in node.src[: CONTENTS_READ.get(op.name)] if id in tensors]
        known = min(map(self._least, sources), default=Known.EXACTLY)
        if op.tolerance != EXACT or any(map(is_quantised, (node, *sources))):
            known = min(known, Known.COMPUTED)
        for start, stop in spans(node):
            # the contents of src[1] say which rows SET_ROWS writes; the others are known no better than before
            before = list(ranges.get(start, stop)) if op.name == "SET_ROWS" else [Stretch(start, stop, known)]
            for stretch in before:
                ranges.put(stretch.start, stretch.stop, min(known, stretch.known))

    def _least(self, tensor: RpcTensor) -> Known:
        """Return how much is known of a tensor's least known byte."""
        ranges = self._buffers.get(tensor.buffer)
        if ranges is None:
            return Known.NOTHING
        return min((ranges.least(*span) for span in spans(tensor)), default=Known.EXACTLY)


# ------------------------------------------------------------------------------------------------------------- tensors


def nbytes(tensor: RpcTensor) -> int:
    """Return ggml_nbytes of a tensor; 0 for an unknown type."""
    dtype = BY_NUMBER.get(tensor.type)
    return extent(dtype, _quad(tensor.ne), _quad(tensor.nb)) if dtype else 0


def is_quantised(tensor: RpcTensor) -> bool:
    """Whether a tensor's type has blocks."""
    dtype = BY_NUMBER.get(tensor.type)
    return dtype is not None and dtype.is_quantised


def spans(tensor: RpcTensor) -> Iterator[tuple[int, int]]:
    """Yield start and stop of each range of addresses that a tensor's elements fill without gaps."""
    dtype, size = BY_NUMBER.get(tensor.type), nbytes(tensor)
    if dtype is None or size == 0:
        return
    run = dtype.size
    outer: list[tuple[int, int]] = []
    for length, stride in zip((tensor.ne[0] // dtype.block, *tensor.ne[1:]), tensor.nb, strict=True):
        if stride == run and not outer:
            run *= length
        elif length > 1 and stride > 0:
            outer.append((length, stride))
    if prod(length for length, _ in outer) > MOST_SPANS:
        run, outer = size, []
    for steps in product(*(range(0, length * stride, stride) for length, stride in outer)):
        start = tensor.data + sum(steps)
        yield start, start + run


def _quad(numbers: tuple[int, ...]) -> Quad:
    a, b, c, d = numbers
    return (a, b, c, d)
