"""ARGMAX: the index of the largest element of each row.

    dst[j] = the last i for which src0[j][i] is the largest of row j

src0: F32 ne = (n, rows), dense rows. dst: I32, ne = (rows), any stride. Of equal elements the last one counts. NaN is never the
largest, but upstream's search restarts after each NaN that is followed by a number: the result is then the place of the largest
after the last such NaN. A row of NaN alone, or of no elements: 0.

Source: ggml_vec_argmax_f32 in ggml-cpu/vec.h, ggml_argmax in ggml.c.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import by_row
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.shared.slabs import row_blocks
from ggml_rpc_ref.ops.shared.sorting import INT32_MAX
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Array, F32Array


def shape(node: Node) -> None:
    """Refuse more than two dimensions, a result of other length, rows that int32 can't count, gaps within rows."""
    src0 = node.source(0)
    node.require(src0.ne[2:] == (1, 1) and src0.ne[0] <= INT32_MAX, "a matrix", src0.ne, at=src0)
    node.require(node.dst.ne == (src0.ne[1], 1, 1, 1), f"ne ({src0.ne[1]},)", node.dst.ne)
    require_contiguous_rows(node, src0)


def oracle(node: Node) -> None:
    """Search each row."""
    source, result = node.source(0), node.dst.array[0, 0, 0]
    if source.ne[0] == 0:
        result[...] = 0
        return
    for block in row_blocks(source.ne):
        result[block[2]] = _last_largest(source.array[block][0, 0])


def _last_largest(rows: F32Array) -> Array:
    # numpy's argmax finds the first of equal elements; searching from the end finds the last, as upstream does
    found: Array = rows.shape[1] - 1 - np.argmax(rows[:, ::-1], axis=1)
    with_nan = np.flatnonzero(np.isnan(rows).any(axis=1))
    if len(with_nan):
        found[with_nan] = _behind_last_nan(rows[with_nan])
    return found


def _behind_last_nan(rows: F32Array) -> Array:
    """Return, for each row, the place of the last largest number after the last NaN that is followed by a number."""
    # upstream's MAX(max, x) takes x unless max > x (ggml_vec_argmax_f32): a NaN becomes the maximum, and any number replaces it
    place, is_nan = np.arange(rows.shape[1]), np.isnan(rows)
    last = np.max(np.where(is_nan, -1, place), axis=1, keepdims=True)
    begin = np.max(np.where(is_nan & (place < last), place, -1), axis=1, keepdims=True) + 1
    counts = (place >= begin) & (place <= last)
    largest = np.max(rows, axis=1, keepdims=True, where=counts, initial=-np.inf)
    found: Array = np.maximum(np.max(np.where(counts & (rows == largest), place, -1), axis=1), 0)
    return found


OP = Op(
    name="ARGMAX",
    sources=(Source("x", ("F32",), "ne = (n, rows)"),),
    types=("I32",),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=by_row,
)
