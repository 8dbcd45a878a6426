"""Whether writing a node's result could change what is still to be read of its sources (rule graph.overlap).

Such a result is computed in memory of its own first (`backends.apart`), which the check counts (`copy_bytes`).
"""

from __future__ import annotations

from ggml_rpc_ref.ops.op import Node
from ggml_rpc_ref.tensor import Tensor, contiguous_nb, extent


def disturbed(node: Node) -> bool:
    """Whether writing a node's result could change what is still to be read of one of its sources."""
    # a loop, not any(): this is asked of each node of each new graph
    for slot, source in enumerate(node.src):
        if source is not None and source.storage is node.dst.storage and _disturbs(node, slot, source):
            return True
    return False


def _disturbs(node: Node, slot: int, source: Tensor) -> bool:
    """Whether writing the result could change what is still to be read of a source that lies in the same storage."""
    dst = node.dst
    if slot in node.op.unread:
        return False
    if source.offset >= dst.offset + dst.nbytes or dst.offset >= source.offset + source.nbytes:
        return False
    alike = (source.offset, source.ne, source.nb, source.dtype) == (dst.offset, dst.ne, dst.nb, dst.dtype)
    return not (alike and slot in node.op.in_place)


def copy_bytes(tensor: Tensor) -> int:
    """Return the bytes of a copy of a tensor's elements, without the gaps between them."""
    return extent(tensor.dtype, tensor.ne, contiguous_nb(tensor.dtype, tensor.ne))
