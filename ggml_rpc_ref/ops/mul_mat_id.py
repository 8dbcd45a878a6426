"""MUL_MAT_ID: multiply each row of src1 with the matrix of the expert that is chosen for it.

    dst[t][u][i] = sum over k of src0[e][i][k] * src1[t][u mod n][k],   e = src2[t][u]

src0: ne = (k, m, experts), the experts' weights, any float or block type with a dot product. src1: ne = (k, n, tokens), F32 or
the partner type of src0's (see MUL_MAT). src2: I32 ne = (used, tokens), used a multiple of n: which expert, 0 <= index <
experts. dst: F32, ne = (m, used, tokens). src0 and src1 have dense rows; matrices and indices may lie anywhere. dst has dense
rows and strides that do not decrease. k = 0 gives zeros. NaN and infinities spread within the experts that are used only.
Activations are rounded as in MUL_MAT.

Source: ggml_compute_forward_mul_mat_id in ggml-cpu/ggml-cpu.c (an index out of range is a debug assertion there),
ggml_mul_mat_id in ggml.c.
"""

from collections.abc import Callable

import numpy as np

from ggml_rpc_ref.ops.cost import CALL, PRODUCTS, Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.indices import checked_indices
from ggml_rpc_ref.ops.shared.matmul import (
    ACTIVATIONS,
    MOST_PRODUCTS,
    WEIGHTS,
    require_ascending_result,
    require_paired_types,
    require_whole_block_rows,
)
from ggml_rpc_ref.ops.shared.slabs import matrix, rows_per_slab, slabs, spans
from ggml_rpc_ref.ops.tolerance import Tolerance
from ggml_rpc_ref.tensor import Tensor


def shape(node: Node) -> None:
    """Refuse rows of different length, a fourth dimension, experts not chosen for every row, a result of other dimensions."""
    experts, rows, ids = node.source(0), node.source(1), node.source(2)
    require_paired_types(node, experts, rows)
    k, m, _, one = experts.ne
    node.require(one == 1 and rows.ne[0] == k, f"rows of {k} elements, three dimensions", rows.ne, at=rows)
    used, tokens = ids.ne[:2]
    node.require(ids.ne == (used, tokens, 1, 1) and rows.ne[2:] == (tokens, 1), "choices for every token", ids.ne, at=ids)
    node.require(rows.ne[1] > 0 and used % rows.ne[1] == 0, f"choices per token a multiple of {rows.ne[1]}", used, at=ids)
    node.require(node.dst.ne == (m, used, tokens, 1), f"ne {(m, used, tokens, 1)}", node.dst.ne)
    require_whole_block_rows(node, experts, rows)
    require_ascending_result(node)


def oracle(node: Node) -> None:
    """Multiply, expert by expert, all rows that chose it."""
    multiply(node, lambda expert: matrix(node.source(0), expert))


def multiply(node: Node, weights: Callable[[int], Tensor]) -> None:
    """Multiply with the weights of each expert that is chosen; a backend may have them at hand in another type."""
    ids = checked_indices(node, 2, node.source(0).ne[2])[0, 0]
    y, result = node.source(1).values()[0], node.dst.array[0]
    # by expert rather than by row, so that a quantised expert is unpacked once; sorted once, since there may be many of both
    order = np.argsort(ids, axis=None, kind="stable")
    experts, begins = np.unique(ids.reshape(-1)[order], return_index=True)
    ends = np.append(begins[1:], ids.size)
    with np.errstate(all="ignore"):
        for expert, begin, end in zip(experts.tolist(), begins.tolist(), ends.tolist(), strict=True):
            for start, stop, x in slabs(weights(expert)):
                most = max(1, MOST_PRODUCTS // max(1, y.shape[2] * (stop - start)))
                for rows in spans(end - begin, min(most, rows_per_slab(4 * (y.shape[2] + stop - start)))):
                    token, slot = np.divmod(order[begin:end][rows], ids.shape[1])
                    # rows that are fewer than the slots are used in turn (i11 = id % ne11 in ggml-cpu.c)
                    result[token, slot, start:stop] = y[token, slot % y.shape[1]] @ x[0, 0].T


def cost(node: Node) -> Cost:
    """Return the cost of the products, and of a loop over the experts that are chosen."""
    experts, rows, ids = node.source(0), node.source(1), node.source(2)
    rounds = min(experts.ne[2], ids.nelements) * 4 * CALL
    row = 4 * (rows.ne[0] + experts.ne[1])
    return Cost(40 * ids.nelements + row, elements(node) + node.dst.nelements * rows.ne[0] // PRODUCTS + rounds)


OP = Op(
    name="MUL_MAT_ID",
    sources=(
        Source("as", WEIGHTS, "ne = (k, m, experts), the experts' weights"),
        Source("b", ACTIVATIONS, "ne = (k, n, tokens), F32 or the partner type of as"),
        Source("ids", ("I32",), "ne = (used, tokens), the expert of each row"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=Tolerance(1e-5, 1e-6, 5e-3, "src1 is rounded to src0's partner type first, as in MUL_MAT, which has the bounds"),
    cost=cost,
)
