"""RMS_NORM: divide each row by its root mean square.

    dst[i] = src0[i] / sqrt(mean over the row of src0² + eps)

src0: F32 ne = (n, r1, r2, r3), elements of a row neighbours, rows anywhere. dst: F32, the same ne; may be src0's own memory.
A row with NaN becomes NaN; a row with an infinity, or squares that overflow float32, becomes 0 where finite and NaN where
infinite. n = 0 or no rows: nothing is computed. eps must not be negative or NaN (upstream asserts it).

Source: ggml_compute_forward_rms_norm_f32 in ggml-cpu/ops.cpp (sum of squares in double, scale in float).
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import Array, F32Array


def shape(node: Node) -> None:
    """Refuse differing dimensions, rows with gaps between elements, a negative or NaN eps."""
    src0 = node.source(0)
    node.require(node.dst.ne == src0.ne, f"ne {src0.ne} as the source", node.dst.ne)
    require_dense_rows(node, src0, node.dst)
    node.require(node.f32("eps") >= 0.0, "eps >= 0", node.f32("eps"))


def oracle(node: Node) -> None:
    """Compute the formula; squares in float32 and their sum in float64, as upstream."""
    eps = np.float32(node.f32("eps"))

    def normalised(x: F32Array) -> Array:
        mean = np.sum(x * x, axis=-1, dtype=np.float64, keepdims=True) / x.shape[-1]
        scaled: Array = x * (np.float32(1) / np.sqrt(mean.astype(np.float32) + eps))
        return scaled

    map_values(node, normalised)


OP = Op(
    name="RMS_NORM",
    sources=(Source("x", ("F32",), "ne = (n, r1, r2, r3)"),),
    types=("F32",),
    params=(Param("eps", "f32", 0, "added to the mean of squares, at least 0"),),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=True,
)
