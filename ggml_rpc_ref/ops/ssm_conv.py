"""SSM_CONV: the short convolution of Mamba: every channel with a kernel of its own over the last d_conv tokens.

    dst[c, t, s] = sum over k < d_conv of src0[t + k, c, s] * src1[k, c]

src0: F32, ne = (d_conv - 1 + n_t, d_inner, n_s), rows without gaps and one after the other; sequences anywhere. src1: F32,
contiguous, ne = (d_conv, d_inner). dst: F32, ne = (d_inner, n_t, n_s), dense rows. No token: nothing is computed.

Source: ggml_ssm_conv in ggml.c; ggml_compute_forward_ssm_conv_f32 in ggml-cpu/ops.cpp (sums in float32).
"""

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ggml_rpc_ref.ops.op import Node, Op, Source
from ggml_rpc_ref.ops.shared.convolution import SUM_OF_PRODUCTS
from ggml_rpc_ref.ops.shared.layout import require_contiguous_rows, require_dense_rows


def shape(node: Node) -> None:
    """Refuse unequal channels, further dimensions, a result of other dimensions, rows with gaps."""
    x, kernel, dst = node.source(0), node.source(1), node.dst
    node.require(x.ne[3] == 1, "a src0 of three dimensions", x.ne, at=x)
    node.require(kernel.ne[2:] == (1, 1), "a kernel of two dimensions", kernel.ne, at=kernel)
    node.require(kernel.ne[1] == x.ne[1], f"{x.ne[1]} channels in the kernel as in src0", kernel.ne[1], at=kernel)
    ne = (x.ne[1], x.ne[0] - kernel.ne[0] + 1, x.ne[2], 1)
    node.require(dst.ne == ne, f"ne {ne}", dst.ne)
    node.require(x.nb[:2] == (4, 4 * x.ne[0]), f"src0.nb[:2] == (4, {4 * x.ne[0]})", x.nb, at=x)
    node.require(kernel.is_contiguous, "a contiguous kernel", kernel.nb, at=kernel)
    require_dense_rows(node, kernel)
    require_contiguous_rows(node, dst)


@np.errstate(all="ignore")
def oracle(node: Node) -> None:
    """Compute the formula, sums in float64."""
    x, kernel, dst = node.source(0).array[0], node.source(1).array[0, 0], node.dst.array
    if dst.size == 0:
        return
    windows = sliding_window_view(x, kernel.shape[1], axis=-1)
    dst[0] = np.einsum("sctk,ck->stc", windows, kernel, dtype=np.float64)


OP = Op(
    name="SSM_CONV",
    sources=(
        Source("x", ("F32",), "ne = (d_conv - 1 + n_t, d_inner, n_s)"),
        Source("kernel", ("F32",), "ne = (d_conv, d_inner)"),
    ),
    types=("F32",),
    shape=shape,
    oracle=oracle,
    tolerance=SUM_OF_PRODUCTS,
)
