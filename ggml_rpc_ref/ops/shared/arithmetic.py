"""What ADD, SUB, MUL and DIV share: the same types, the same broadcasting.

    dst[i] = src0[i] ∘ src1[i mod ne of src1]     in float32, rounded once to dst's type

Source: apply_binary_op and binary_op in ggml-cpu/binary-ops.cpp.
"""

from collections.abc import Callable

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, Later, Node, Op, Source, before
from ggml_rpc_ref.ops.shared.layout import can_repeat, require_dense_rows, require_types
from ggml_rpc_ref.ops.shared.slabs import ElementBlock, element_blocks, part
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Array, F32Array

TYPES = (
    ("F32", "F32", "F32"), ("F16", "F16", "F16"), ("BF16", "BF16", "BF16"), ("F16", "F32", "F16"), ("F16", "F32", "F32"),
    ("BF16", "F32", "BF16"), ("BF16", "F32", "F32"),
)  # fmt: skip
"""(src0, src1, dst) types that upstream computes."""


def require_arithmetic(node: Node) -> None:
    """Refuse other types, a destination of other dimensions than src0's, a src1 that does not repeat to them, gaps within rows."""
    src0, src1, dst = node.source(0), node.source(1), node.dst
    require_types(node, TYPES, f"src0, src1 and result of types {', '.join('·'.join(row) for row in TYPES)}")
    node.require(dst.ne == src0.ne, f"ne {src0.ne} as src0", dst.ne)
    node.require(can_repeat(src1, src0), f"src1 that repeats to {src0.ne}", src1.ne, at=src1)
    require_dense_rows(node, src0, dst)


def require_dense_second(node: Node) -> None:
    """Refuse what `require_arithmetic` does, and a src1 that repeats and whose rows have gaps."""
    src1 = node.source(1)
    require_arithmetic(node)
    if src1.ne != node.dst.ne:
        require_dense_rows(node, src1)


def with_dense_second(op: str, shape: Callable[[Node], None] = require_dense_second) -> tuple[Later, ...]:
    """Return what ADD, SUB, MUL or DIV was before its second operand could both repeat and have gaps."""
    return (before(f"{op}.gaps", shape=shape),)


def combine(node: Node, function: Callable[[F32Array, F32Array], Array]) -> None:
    """Store function(src0, src1 repeated) in the destination."""
    x, y = node.source(0), node.source(1).values()
    for block in element_blocks(node.dst.ne):
        with np.errstate(all="ignore"):
            part(node.dst, block).store(function(part(x, block).values(), repeated(y, x.shape, block)))


def repeated(values: Array, shape: tuple[int, ...], block: ElementBlock) -> Array:
    """Return the part of `values` that meets a block of an array of that shape, repeated where numpy would not.

    ggml repeats a dimension of any length that divides the other; numpy only one of length 1.
    """
    if values.shape == shape:
        return values[block]
    for axis, indices in enumerate(block):
        length = values.shape[axis]
        if length == shape[axis]:
            values = values[(slice(None),) * axis + (indices,)]
        # an axis of length 1 stays as it is: numpy broadcasts it without a copy
        elif length > 1:
            values = np.take(values, np.arange(indices.start, indices.stop) % length, axis)
    return values


def binary_op(name: str, function: Callable[[F32Array, F32Array], Array]) -> Op:
    """Return the row of an op that combines two tensors element by element, of the types in `TYPES`.

    Args:
        name: the op's name.
        function: two float32 arrays that broadcast to results, which are rounded once to the result's type.
    """

    def oracle(node: Node) -> None:
        combine(node, function)

    sources = (Source("a", FLOATS, "ne of the result"), Source("b", FLOATS, "each dimension divides a's"))
    return Op(name, sources, FLOATS, require_arithmetic, oracle, EXACT, in_place=(0, 1), earlier=with_dense_second(name))
