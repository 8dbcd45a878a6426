"""WIN_UNPART: join the windows of WIN_PART into an image again, cutting off what reached beyond it.

    dst[c, x, y, 0] = src0[c, x mod w, y mod w, (y div w)*npx + x div w],   npx = ceil(W / w)

src0: F32, contiguous, ne = (C, >= min(w, W), >= min(w, H), >= npx*npy). dst: F32, contiguous, ne = (C, W, H, 1). W and H come from
dst's ne, w from op_params. NaN, infinities and -0 are moved as they are.

Source: ggml_win_unpart in ggml.c; ggml_compute_forward_win_unpart_f32 in ggml-cpu/ops.cpp.
"""

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.layout import require_contiguous
from ggml_rpc_ref.ops.tolerance import EXACT


def shape(node: Node) -> None:
    """Refuse windows of no size, too few or too small windows, gaps."""
    src0, dst, w = node.source(0), node.dst, node.i32("w")
    node.require(w >= 1, "w >= 1", w)
    node.require((dst.ne[0], dst.ne[3]) == (src0.ne[0], 1), f"ne ({src0.ne[0]}, W, H, 1)", dst.ne)
    require_contiguous(node, src0, dst)
    across, down = (-(-dst.ne[dim] // w) for dim in (1, 2))
    wide, high = min(w, dst.ne[1]), min(w, dst.ne[2])  # of a window that the image does not fill the rest is not read
    enough = src0.ne[1] >= wide and src0.ne[2] >= high and src0.ne[3] >= across * down
    node.require(enough or dst.nelements == 0, f"src0.ne at least (C, {wide}, {high}, {across * down})", src0.ne, at=src0)


def oracle(node: Node) -> None:
    """Exchange the inner two of the windows' four axes, then cut off."""
    w, (_, height, width, channels) = node.i32("w"), node.dst.shape
    if node.dst.nelements == 0:
        return
    across, down, wide, high = -(-width // w), -(-height // w), min(w, width), min(w, height)
    windows = node.source(0).array[: across * down, :high, :wide].reshape(down, across, high, wide, channels)
    node.dst.array[0] = windows.swapaxes(1, 2).reshape(down * high, across * wide, channels)[:height, :width]


OP = Op(
    name="WIN_UNPART",
    sources=(Source("windows", ("F32",), "ne = (C, w, w, npx*npy)"),),
    types=("F32",),
    params=(Param("w", "i32", 0, "width and height of a window, at least 1"),),
    shape=shape,
    oracle=oracle,
    tolerance=EXACT,
)
