"""float32 copies of quantised weights, for the backends that multiply with numpy.

Without them every MUL_MAT would dequantise its weights again: half a second per token of Gemma 3 270M. A copy is dropped when a
byte of what it was made from changes: `WeightCopies.drop` is what the backend's memory calls (`HostMemory.changed`).
"""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

import numpy as np

from ggml_rpc_ref.backends.memory import HostAllocation, HostMemory
from ggml_rpc_ref.ops import mul_mat_id
from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.ops.shared.slabs import matrix
from ggml_rpc_ref.spec.dtypes import BY_NAME
from ggml_rpc_ref.tensor import PlainStorage, Quad, Tensor, contiguous_nb

WEIGHTED_OPS = frozenset({"MUL_MAT", "MUL_MAT_ID", "OUT_PROD"})
"""Ops whose src0 is usually a weight: large, quantised, and the same in each graph."""

Place = tuple[int, int, Quad, Quad]
"""A tensor within its allocation: offset, number of its type, ne, nb."""


class WeightCopies:
    """float32 copies of quantised tensors, bounded in bytes, shared by all connections; the least recently used goes first.

    Args:
        limit: bytes of copies to keep; 0 keeps none.
        memory: only tensors in this memory are copied, because only its changes are reported here.
    """

    def __init__(self, limit: int, memory: HostMemory) -> None:
        self.limit, self.used, self._memory, self._lock = limit, 0, memory, Lock()
        self._copies: OrderedDict[tuple[HostAllocation, Place], Tensor] = OrderedDict()
        self._places: dict[HostAllocation, dict[Place, int]] = {}  # each copy's place to the end of the bytes it was made from

    def widened(self, tensor: Tensor) -> Tensor:
        """Return the tensor as F32, from a copy that is kept; the tensor itself where none can be."""
        allocation, size = tensor.storage, 4 * tensor.nelements
        if not tensor.dtype.is_quantised or not isinstance(allocation, HostAllocation) or allocation.memory is not self._memory:
            return tensor
        place = (tensor.offset, tensor.dtype.number, tensor.ne, tensor.nb)
        with self._lock:
            if (copy := self._copies.get((allocation, place))) is not None:
                self._copies.move_to_end((allocation, place))
                return copy
        # a copy of nothing would never be dropped, since no range of bytes meets it, and would keep its allocation alive
        if size > self.limit or size == 0:
            return tensor
        return self._keep(allocation, place, tensor)

    def _keep(self, allocation: HostAllocation, place: Place, tensor: Tensor) -> Tensor:
        # without the lock, which is for the tables alone: an allocation is one connection's, whose one thread is here
        values = np.ascontiguousarray(tensor.values()).reshape(-1)
        # later graphs use it too: a write by mistake raises instead of changing their weights
        values.flags.writeable = False
        copy = Tensor(BY_NAME["F32"], tensor.ne, contiguous_nb(BY_NAME["F32"], tensor.ne), PlainStorage(values.view(np.uint8)))
        with self._lock:
            if (allocation, place) not in self._copies:
                self._copies[allocation, place] = copy
                self.used += values.nbytes
                self._places.setdefault(allocation, {})[place] = tensor.offset + tensor.nbytes
            while self.used > self.limit:
                self._forget(*next(iter(self._copies)))
        return copy

    def drop(self, allocation: HostAllocation, start: int, stop: int) -> None:
        """Forget the copies of tensors that have a byte in a range of an allocation."""
        # no other thread adds to this allocation's entry, which is the only one looked at
        if allocation not in self._places:  # the usual case, asked after each step of a graph: no lock for it
            return
        with self._lock:
            places = self._places.get(allocation, {})
            for place in [place for place, end in places.items() if place[0] < stop and start < end]:
                self._forget(allocation, place)

    def _forget(self, allocation: HostAllocation, place: Place) -> None:
        copy = self._copies.pop((allocation, place))
        self.used -= 4 * copy.nelements
        del self._places[allocation][place]
        if not self._places[allocation]:
            del self._places[allocation]


def with_source(node: Node, slot: int, tensor: Tensor) -> Node:
    """Return the node with another source in a slot."""
    return Node(node.dst, (*node.src[:slot], tensor, *node.src[slot + 1 :]), node.op_params, node.op)


def multiply(node: Node, copies: WeightCopies) -> None:
    """Compute one of WEIGHTED_OPS with a float32 copy of its weights; of experts, each one has a copy of its own."""
    if node.op.name == "MUL_MAT_ID":
        mul_mat_id.multiply(node, lambda expert: copies.widened(matrix(node.source(0), expert)))
    else:
        node.op.oracle(with_source(node, 0, copies.widened(node.source(0))))
