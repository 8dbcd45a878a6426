"""POOL_2D_BACK: the gradient of POOL_2D's source from the gradient of its result.

    max:  each src0[ox, oy, c, n] is added to dst at the window's largest element of src1 (of equals the first, rows first)
    mean: each src0[ox, oy, c, n] / (k0 * k1) is added to dst everywhere under the window

All F32. src0 (gradient): contiguous, ne = (OW, OH, C, N), OW and OH any. src1: the source of the forward pass, ne as dst,
contiguous. dst: contiguous, ne = (W, H, C, N). Windows as in POOL_2D. The search for the largest begins at -FLT_MAX and an
element must be larger to take its place (NaN takes it and loses it to the next element), so a window of -inf and -FLT_MAX alone
gives nothing.

Source: ggml_pool_2d_back in ggml.c; ggml_compute_forward_pool_2d_back in ggml-cpu/ops.cpp.
"""

from itertools import product

import numpy as np

from ggml_rpc_ref.ops.cost import Cost
from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.pooling import LOWEST, MAX, MEAN, PARAMS, Windows, pooling_cost, require_windows, windows
from ggml_rpc_ref.ops.tolerance import EXACT
from ggml_rpc_ref.tensor import Array


def shape(node: Node) -> None:
    """Refuse unknown kinds of pooling, windows of no size, other channels, gaps, positions that overflow an int."""
    gradient, forward, dst = node.source(0), node.source(1), node.dst
    node.require(node.i32("op") in (MAX, MEAN), "op 0 (max) or 1 (mean)", node.i32("op"))
    node.require(forward.ne == dst.ne, f"src1.ne {dst.ne} as the result", forward.ne, at=forward)
    node.require(gradient.ne[2:] == dst.ne[2:], f"src0.ne[2:] {dst.ne[2:]} as the result", gradient.ne, at=gradient)
    for name, tensor in (("src0", gradient), ("src1", forward), ("dst", dst)):
        node.require(tensor.is_contiguous, f"{name} to be contiguous", tensor.nb, at=tensor)
    # the kernel walks through dst by nb[2] until its extent is used up, whether there is one plane or many
    plane = 4 * dst.ne[0] * dst.ne[1]
    node.require(dst.nb[2] == plane or dst.nelements == 0, f"nb[2] == {plane}", dst.nb[2])
    for number in (0, 1):
        require_windows(node, windows(node, number, dst.ne[number], gradient.ne[number]))
    node.require(node.i32("k0") * node.i32("k1") < 2**31, "k0 * k1 < 2^31", (node.i32("k0"), node.i32("k1")))


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Add each gradient where its window says, plane by plane."""
    gradient, forward, dst = (tensor.array for tensor in (node.source(0), node.source(1), node.dst))
    rows, columns = (windows(node, a, dst.shape[3 - a], gradient.shape[3 - a]) for a in (1, 0))
    gradients, planes = (array.reshape(len(array) * array.shape[1], *array.shape[2:]) for array in (gradient, forward))
    spread = _to_the_largest if node.i32("op") == MAX else _to_all
    dst[...] = spread(gradients, planes, rows, columns).reshape(dst.shape)


def _to_the_largest(gradient: Array, forward: Array, rows: Windows, columns: Windows) -> Array:
    """Find the place of each window's largest element, then add the gradients there in the order of the windows, in float32."""
    largest = np.full(gradient.shape, LOWEST, np.float32)
    place = np.full(gradient.shape, -1, np.int64)
    for (oy, y), (ox, x) in product(rows.taps(), columns.taps()):
        element, at = forward[:, y[:, None], x], (slice(None), oy[:, None], ox)
        # upstream's `if (val <= maxval) continue`: a NaN replaces the largest, and any number after it replaces the NaN
        stays = element <= largest[at]
        largest[at] = np.where(stays, largest[at], element)
        place[at] = np.where(stays, place[at], y[:, None] * forward.shape[2] + x)
    total = np.zeros((len(forward), forward.shape[1] * forward.shape[2]), np.float32)
    # a window of nothing above -FLT_MAX has no largest element, and its gradient goes nowhere
    found = place >= 0
    # not total[...] += : with an index that repeats it would add only one of the gradients
    np.add.at(total, (np.nonzero(found)[0], place[found]), gradient[found])
    return total


def _to_all(gradient: Array, forward: Array, rows: Windows, columns: Windows) -> Array:
    """Add shares in float32; taps from last to first, so that each element receives them in the order of the windows."""
    total = np.zeros(forward.shape, np.float32)
    share = gradient / np.float32(rows.kernel * columns.kernel)
    for (oy, y), (ox, x) in product(rows.taps()[::-1], columns.taps()[::-1]):
        total[:, y[:, None], x] += share[:, oy[:, None], ox]
    return total


def cost(node: Node) -> Cost:
    """Return the cost of pooling, and of the lists of where each gradient goes."""
    x, dst = node.source(0), node.dst
    found = pooling_cost(node, x.ne[2] * x.ne[3], windows(node, 1, dst.ne[1], x.ne[1]), windows(node, 0, dst.ne[0], x.ne[0]))
    return found._replace(temporaries=found.temporaries + 40 * x.nelements)


OP = Op(
    name="POOL_2D_BACK",
    sources=(
        Source("gradient", ("F32",), "ne = (OW, OH, C, N)"),
        Source("forward", ("F32",), "ne = (W, H, C, N), the source of POOL_2D"),
    ),
    types=("F32",),
    params=PARAMS,
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=cost,
)
