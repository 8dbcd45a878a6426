"""GET_ROWS: rows of a tensor, picked by index, as F32.

    dst[i0, i, j, k] = src0[i0, src1[i, j, k], j, k]

src0: ne = (n, rows, r2, r3), dense rows. src1: I32, ne = (m, r2, r3, 1), any strides; each 0 <= index < rows. dst: F32 (I32
where src0 is I32), ne = (n, m, r2, r3), dense rows. F32 and I32 are copied bit by bit; F16 and BF16 are exact in F32; block
types are dequantised. Empty: nothing is computed, and no index is checked.

Source: ggml_get_rows in ggml.c, ggml_compute_forward_get_rows in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.op import FLOATS, READABLE_BLOCKS, Node, Op, Source
from ggml_rpc_ref.ops.shared.indices import checked_indices
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Array, F32Array, PlainStorage, Tensor, contiguous_nb


def shape(node: Node) -> None:
    """Refuse dimensions that do not fit together, gaps within rows, another type than F32 (or I32 of I32)."""
    src0, src1, dst = node.source(0), node.source(1), node.dst
    n, _, r2, r3 = src0.ne
    m = src1.ne[0]
    node.require(src1.ne == (m, r2, r3, 1), f"src1.ne (m, {r2}, {r3}, 1)", src1.ne, at=src1)
    node.require(dst.ne == (n, m, r2, r3), f"ne {(n, m, r2, r3)}", dst.ne)
    node.require((dst.dtype.name == "I32") == (src0.dtype.name == "I32"), "F32, or I32 from I32", dst.dtype.name)
    require_contiguous_rows(node, src0, dst)


def oracle(node: Node) -> None:
    """Pick the rows; a part of them at a time, so that a big table is never unpacked as a whole."""
    src0, dst = node.source(0), node.dst
    index = checked_indices(node, 1, src0.ne[1])
    source, target = src0.array, dst.array
    stacks, matrices = np.arange(dst.ne[3])[:, None, None], np.arange(dst.ne[2])[:, None]
    # an index may repeat, so that the rows picked may be more than the table has
    for k, j, rows in row_blocks(dst.ne):
        picked = source[stacks[k], matrices[j], index[0, k, j, rows]]
        target[k, j, rows] = picked if src0.dtype.name == dst.dtype.name else _as_float32(src0, picked)


def _as_float32(src0: Tensor, picked: Array) -> F32Array:
    """Return picked rows of src0's array, shape (stacks, matrices, rows, ..), as float32 of shape (stacks, matrices, rows, ne0)."""
    ne = (src0.ne[0], picked.shape[2], picked.shape[1], picked.shape[0])
    storage = PlainStorage(np.ascontiguousarray(picked).reshape(-1).view(np.uint8))
    values: F32Array = Tensor(src0.dtype, ne, contiguous_nb(src0.dtype, ne), storage).values()
    return values


OP = Op(
    name="GET_ROWS",
    sources=(
        Source("table", (*FLOATS, "I32", *READABLE_BLOCKS), "ne = (n, rows, r2, r3)"),
        Source("indices", ("I32",), "ne = (m, r2, r3, 1), each below rows"),
    ),
    types=("F32", "I32"),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
