"""POOL_2D: the largest or the mean of the elements under a window that slides over each plane.

    dst[ox, oy, c, n] = max or mean over kx < k0, ky < k1 of src0[ox*s0 - p0 + kx, oy*s1 - p1 + ky, c, n]

src0: F32 or F16, ne = (W, H, C, N), dense rows, rows nb[1] apart within a plane, planes nb[2] apart throughout and not
overlapping. dst: F32, contiguous, ne = (OW, OH, C, N). A window and a stride are at least 1; a negative padding crops. The
client chooses OW and OH: ggml's constructor computes (W + 2p - k) / s + 1 in float32, cut to a whole number, from a padding p
that may be a fraction, of which op_params only keep the integer part. So OW lies between what p - 1 and p + 1 give, and is at
least 1; likewise OH.

Elements outside of the plane are left out, but the mean always divides by k0 * k1. The largest begins at -FLT_MAX, which is
also the result of a window without elements or of -inf alone. NaN: an element replaces the largest so far unless it is smaller,
so a NaN stands only until the next element (rows first) replaces it. A src0 of no elements is refused (upstream leaves dst
unset).

Source: ggml_pool_2d in ggml.c; ggml_compute_forward_pool_2d in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op, Source, before
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows
from ggml_rpc_ref.ops.shared.pooling import MAX, MEAN, PARAMS, pool, pooling_cost, require_windows, windows, without_nan
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import F32Array, Tensor


def shape(node: Node) -> None:
    """Refuse unknown kinds of pooling, windows of no size, other channels, too many outputs, unevenly spaced rows or planes."""
    x, dst = node.source(0), node.dst
    node.require(node.i32("op") in (MAX, MEAN), "op 0 (max) or 1 (mean)", node.i32("op"))
    node.require(dst.ne[2:] == x.ne[2:], f"ne[2:] {x.ne[2:]} as the source", dst.ne)
    for number in (0, 1):
        along = windows(node, number, x.ne[number], dst.ne[number])
        require_windows(node, along)
        node.require(along.fits(), "as many outputs as windows fit", along)
    node.require(node.i32("k0") * node.i32("k1") < 2**31, "k0 * k1 < 2^31", (node.i32("k0"), node.i32("k1")))
    _check_planes(node, x)
    node.require(x.nelements > 0 or dst.nelements == 0, "a source with elements", x.ne, at=x)
    node.require(dst.is_contiguous, "a contiguous result", dst.nb)


def _check_planes(node: Node, x: Tensor) -> None:
    """Refuse rows with gaps, and planes that are not evenly spaced one after the other."""
    require_contiguous_rows(node, x)
    node.require(x.ne[3] == 1 or x.nb[3] == x.ne[2] * x.nb[2], "planes evenly spaced", x.nb, at=x)
    plane = (x.ne[1] - 1) * x.nb[1] + x.ne[0] * x.nb[0]
    node.require(x.nelements == 0 or plane <= x.nb[2], "planes one after the other", x.nb, at=x)


def oracle(node: Node) -> None:
    """Pool each plane."""
    _pool(node, node.source(0).values())


def oracle_without_nan(node: Node) -> None:
    """Pool each plane; NaN is never the largest."""
    x = node.source(0).values()
    _pool(node, without_nan(x) if node.i32("op") == MAX else x)


def _pool(node: Node, x: F32Array) -> None:
    dst = node.dst.array
    node.dst.store(pool(node.i32("op"), x, windows(node, 1, x.shape[2], dst.shape[2]), windows(node, 0, x.shape[3], dst.shape[3])))


def cost(node: Node) -> Cost:
    """Return the cost of pooling."""
    x, dst = node.source(0), node.dst
    return pooling_cost(node, x.ne[2] * x.ne[3], windows(node, 1, x.ne[1], dst.ne[1]), windows(node, 0, x.ne[0], dst.ne[0]))


OP = Op(
    name="POOL_2D",
    sources=(Source("x", ("F32", "F16"), "ne = (W, H, C, N)"),),
    types=("F32",),
    params=PARAMS,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=cost,
    earlier=(before("POOL_2D.nan", oracle=oracle_without_nan),),
)
