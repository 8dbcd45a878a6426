"""NORM: each row shifted to mean 0 and scaled to variance 1.

    dst[i] = (src0[i] - mean) / sqrt(mean of (src0 - mean)² + eps)     over each row

src0, dst: F32, the same ne, rows dense; may share memory. eps must not be negative or NaN (upstream asserts it). A row with NaN or
an infinity becomes NaN throughout. A row of equal elements becomes 0 (0 / 0 = NaN where eps is 0). Empty: nothing is computed.

Source: ggml_compute_forward_norm_f32 in ggml-cpu/ops.cpp (sum in double, mean and differences in float).
"""

import numpy as np

from ggml_rpc_ref.ops.op import Node, Op, Param, Source
from ggml_rpc_ref.ops.shared.elementwise import map_values
from ggml_rpc_ref.ops.shared.layout import require_dense_rows
from ggml_rpc_ref.ops.tolerance import FLOAT32
from ggml_rpc_ref.tensor import Array, F32Array


def shape(node: Node) -> None:
    """Refuse differing dimensions, gaps within rows, a negative or NaN eps."""
    node.require(node.dst.ne == node.source(0).ne, f"ne {node.source(0).ne} as the source", node.dst.ne)
    node.require(node.f32("eps") >= 0.0, "eps >= 0", node.f32("eps"))
    require_dense_rows(node, node.source(0), node.dst)


def oracle(node: Node) -> None:
    """Compute the formula; sum and mean are rounded to float32, for the differences are taken from that."""
    eps = np.float32(node.f32("eps"))

    def normalised(x: F32Array) -> Array:
        total = np.sum(x, axis=-1, dtype=np.float64, keepdims=True).astype(np.float32)
        y = x - total / np.float32(x.shape[-1])
        variance = np.mean(np.square(y, dtype=np.float64), axis=-1, keepdims=True).astype(np.float32)
        scaled: Array = y * (np.float32(1) / np.sqrt(variance + eps))
        return scaled

    map_values(node, normalised)


OP = Op(
    name="NORM",
    sources=(Source("x", ("F32",), "rows dense"),),
    types=("F32",),
    params=(Param("eps", "f32", 0, "added to the variance, at least 0"),),
    shape=shape,
    oracle=oracle,
    tolerance=FLOAT32,
    in_place=True,
)
