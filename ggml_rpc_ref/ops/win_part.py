"""WIN_PART: cut an image into square windows, with zeros where the last ones reach beyond it.

    dst[c, x, y, py*npx + px] = src0[c, px*w + x, py*w + y], and 0 outside of src0

src0: F32, contiguous, ne = (C, W, H, 1). dst: F32, contiguous, ne = (C, w, w, npx*npy) with npx = ceil(W / w), npy = ceil(H /
w). npx, npy and w also stand in op_params and must agree. NaN, infinities and -0 are moved as they are.

Source: ggml_win_part in ggml.c; ggml_compute_forward_win_part_f32 in ggml-cpu/ops.cpp.
"""

import numpy as np

from ggml_rpc_ref.ops.cost import Cost, elements
from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse windows of no size, window counts that do not cover the image exactly, gaps."""
    src0, dst, w = node.source(0), node.dst, node.i32("w")
    node.require(w >= 1, "w >= 1", w)
    node.require(src0.ne[3] == 1, "src0.ne[3] == 1", src0.ne[3], at=src0)
    across, down = (-(-src0.ne[dim] // w) for dim in (1, 2))
    counts = (node.i32("npx"), node.i32("npy"))
    node.require(counts == (across, down), f"npx, npy == {across}, {down}", counts)
    ne = (src0.ne[0], w, w, across * down)
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    require_contiguous(node, src0, dst)


def oracle(node: Node) -> None:
    """Pad the image to whole windows, then exchange the inner two of its four axes."""
    image, w, down, across = node.source(0).array[0], node.i32("w"), node.i32("npy"), node.i32("npx")
    if node.dst.nelements == 0:
        return
    height, width, channels = image.shape
    whole = np.zeros((down * w, across * w, channels), np.float32)
    whole[:height, :width] = image
    node.dst.array[...] = whole.reshape(down, w, across, w, channels).swapaxes(1, 2).reshape(-1, w, w, channels)


def cost(node: Node) -> Cost:
    """Return the cost: the padded image, and its windows."""
    return Cost(8 * node.dst.nelements, elements(node))


OP = Op(
    name="WIN_PART",
    sources=(Source("image", ("F32",), "ne = (C, W, H, 1)"),),
    types=("F32",),
    params=(
        Param("npx", "i32", 0, "windows along the width"),
        Param("npy", "i32", 1, "windows along the height"),
        Param("w", "i32", 2, "width and height of a window, at least 1"),
    ),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
    cost=cost,
)
