"""POOL_1D: the largest or the mean of the elements under a window that slides over each row.

    dst[o, r] = max or mean over k < k0 of src0[o*s0 - p0 + k, r]

src0: F32 or F16, ne = (W, r1, r2, r3), dense, evenly spaced rows. dst: F32, ne = (OW, r1, r2, r3), likewise; OW, windows,
strides and padding as in POOL_2D.

Elements outside of the row are left out, and the mean divides by how many there were (0 where there were none), unlike
POOL_2D's. The largest begins at -FLT_MAX; NaN as in POOL_2D.

Source: ggml_pool_1d in ggml.c; ggml_compute_forward_pool_1d_ksp in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op, Param, Source, before
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_even_rows
from ggml_rpc_ref.ops.shared.pooling import MAX, MEAN, Windows, pool, pooling_cost, require_windows, windows, without_nan
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import F32Array

NO_HEIGHT = Windows(1, 1, 1, 1, 0)


def shape(node: Node) -> None:
    """Refuse unknown kinds of pooling, windows of no size, other rows, too many outputs, unevenly spaced rows."""
    x, dst = node.source(0), node.dst
    node.require(node.i32("op") in (MAX, MEAN), "op 0 (max) or 1 (mean)", node.i32("op"))
    node.require(dst.ne[1:] == x.ne[1:], f"ne[1:] {x.ne[1:]} as the source", dst.ne)
    along = windows(node, 0, x.ne[0], dst.ne[0])
    require_windows(node, along)
    node.require(along.fits(), "as many outputs as windows fit", along)
    require_contiguous_rows(node, x, dst)
    require_even_rows(node, x, dst)


def shape_of_tiles(node: Node) -> None:
    """Refuse what `shape` does, and windows that do not follow one another."""
    k0, s0, p0 = node.i32("k0"), node.i32("s0"), node.i32("p0")
    node.require(k0 == s0 and p0 == 0, "k0 == s0 and p0 == 0", (k0, s0, p0))
    shape(node)


def oracle(node: Node) -> None:
    """Pool each row."""
    _pool(node, node.source(0).values())


def oracle_without_nan(node: Node) -> None:
    """Pool each row; NaN is never the largest."""
    x = node.source(0).values()
    _pool(node, without_nan(x) if node.i32("op") == MAX else x)


def _pool(node: Node, x: F32Array) -> None:
    along = windows(node, 0, x.shape[3], node.dst.ne[0])
    # at least 1: a window that covers only padding has the mean 0 (upstream's `count > 0`); POOL_2D divides by the full size
    node.dst.store(pool(node.i32("op"), x[..., None, :], NO_HEIGHT, along, np.maximum(along.counts(), 1))[..., 0, :])


def cost(node: Node) -> Cost:
    """Return the cost of pooling."""
    x = node.source(0)
    return pooling_cost(node, x.nrows, NO_HEIGHT, windows(node, 0, x.ne[0], node.dst.ne[0]))


OP = Op(
    name="POOL_1D",
    sources=(Source("x", ("F32", "F16"), "ne = (W, r1, r2, r3)"),),
    types=("F32",),
    params=(
        Param("op", "i32", 0, "0 max, 1 mean"),
        Param("k0", "i32", 1, "window length"),
        Param("s0", "i32", 2, "stride"),
        Param("p0", "i32", 3, "padding on either side"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=cost,
    earlier=(before("POOL_1D.windows", shape=shape_of_tiles), before("POOL_1D.nan", oracle=oracle_without_nan)),
)
