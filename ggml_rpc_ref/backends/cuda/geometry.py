"""A node as kernels get it: `struct geometry` of kernels/shared/kernel.cuh, packed with numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ggml_rpc_ref.backends.cuda.device import MAP_BYTES
from ggml_rpc_ref.ops.op import MAX_SRC, OP_PARAMS_BYTES, Node
from ggml_rpc_ref.spec.op_changes import OP_CHANGES
from ggml_rpc_ref.tensor import Array, Tensor

OPERAND = np.dtype([("ne", "<i8", 4), ("nb", "<i8", 4), ("type", "<i4"), ("unused", "<i4"), ("data", "<u8")])
"""`struct operand`."""
GEOMETRY = np.dtype(
    [
        ("op_params", "<i4", OP_PARAMS_BYTES // 4), ("dst", OPERAND), ("src", OPERAND, MAX_SRC), ("more", "<i8", 4),
        ("scratch", "<u8"), ("outcome", "<u8"), ("step", "<i4"), ("unused", "<i4"), ("changes", "<u8"),
    ]
)  # fmt: skip
"""`struct geometry`."""
NOTHING = -1
"""The type of a source that is not there."""
BITS = {change: 1 << number for number, change in enumerate(OP_CHANGES)}
"""Id in `spec.op_changes` to the bit of it in `changes`."""


def layout_of(node: Node) -> Array | None:
    """Return a node's geometry without addresses, of dtype GEOMETRY and shape (1,); None for strides that no int64 holds."""
    packed = np.zeros(1, GEOMETRY)
    packed["op_params"][0] = np.frombuffer(node.op_params, "<i4")
    packed["src"]["type"] = NOTHING
    packed["changes"] = sum(BITS[change] for change in node.op.changes)
    try:
        _describe(packed["dst"][0], node.dst)
        for slot, source in enumerate(node.src):
            if source is not None:
                _describe(packed["src"][0, slot], source)
    except OverflowError:  # strides of 2^63 and more, along dimensions of length 1
        return None
    return packed


def _describe(operand: Any, tensor: Tensor) -> None:
    operand["ne"], operand["nb"], operand["type"] = tensor.ne, tensor.nb, tensor.dtype.number


def argument(layout: Array, addresses: Sequence[int], more: Sequence[int], scratch: int, outcome: int, step: int) -> bytes:
    """Return a kernel's argument.

    Args:
        layout: from `layout_of`.
        addresses: of dst, then of each source; 0 for one that is not there.
        more: up to four numbers of the launch's own.
        scratch: address of scratch memory.
        outcome: address of the word that a kernel sets where it finds an index out of range.
        step: number of the node.
    """
    packed = layout.copy()
    packed["dst"]["data"] = addresses[0]
    packed["src"]["data"][0, : len(addresses) - 1] = addresses[1:]
    packed["more"][0, : len(more)] = more
    packed["scratch"], packed["outcome"], packed["step"] = scratch, outcome, step
    return packed.tobytes()


def with_maps(argument: bytes, maps: Sequence[bytes]) -> bytes:
    """Return a kernel's argument with tensor maps behind it: `struct mapped_geometry` of kernels/shared/tensor_maps.cuh."""
    return argument.ljust(-(-len(argument) // MAP_BYTES) * MAP_BYTES, b"\0") + b"".join(maps) if maps else argument
